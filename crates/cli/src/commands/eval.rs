//! `countersign eval`: the judge without the cluster. Standard input in, one JSON line for each case out, in order.
//!
//! The verdicts are those of the code that the server runs; nothing is decided here.

mod acl;

use std::io::{self, BufRead, Read};

use countersign_core::principal::SpiffeId;
use countersign_core::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::args::{Eval, EvalVerb};
use crate::failure::{Failure, chain};
use crate::output::{now_secs, print};

/// Bytes of a document.
const DOCUMENT_LEN_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of a line.
const LINE_LEN_MAX: u64 = 16 * 1024 * 1024;

pub(super) fn run(args: &Eval) -> Result<(), Failure> {
    match args.verb {
        EvalVerb::Chain => eval_chain(),
        EvalVerb::Acl => each_line("JSON lines {id, super_users, default, acls, checks} on standard input", acl::judge),
        EvalVerb::Principal => each_line(r#"JSON lines {"in": "spiffe://..."} on standard input"#, judge_principal),
    }
}

fn unreadable(why: &str, expected: &str) -> Failure {
    Failure::usage(format!("standard input cannot be read: {why}"), format!("give {expected}"))
}

fn eval_chain() -> Result<(), Failure> {
    let expected = "one x509-limbo document on standard input";
    let mut document = Vec::new();
    let read = io::stdin().lock().take(DOCUMENT_LEN_MAX + 1).read_to_end(&mut document);
    let read = read.map_err(|error| unreadable(&chain(&error), expected))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > DOCUMENT_LEN_MAX {
        return Err(unreadable(&format!("it holds more than {DOCUMENT_LEN_MAX} bytes"), expected));
    }
    let now = UnixMillis::from_secs(now_secs());
    let verdicts = countersign_pki::limbo::evaluate(&document, now);
    let verdicts = verdicts.map_err(|error| unreadable(&chain(&error), expected))?;
    print(&verdicts.iter().map(json_line).collect::<String>())
}

#[derive(Deserialize)]
struct PrincipalCase {
    #[serde(rename = "in")]
    input: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PrincipalVerdict {
    Valid { ok: bool, td: String, path: String },
    Invalid { ok: bool, err: String },
}

/// Answers each line with one.
fn each_line<T: Serialize>(expected: &str, judge: impl Fn(&[u8]) -> T) -> Result<(), Failure> {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = stdin.by_ref().take(LINE_LEN_MAX + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| unreadable(&chain(&error), expected))?;
        if read == 0 {
            return Ok(());
        }
        if u64::try_from(read).unwrap_or(u64::MAX) > LINE_LEN_MAX {
            return Err(unreadable(&format!("a line holds more than {LINE_LEN_MAX} bytes"), expected));
        }
        if !line.trim_ascii().is_empty() {
            print(&json_line(&judge(&line)))?;
        }
    }
}

/// A line that is not even text is no SPIFFE id; it has a line of its own like every case.
fn judge_principal(line: &[u8]) -> PrincipalVerdict {
    let invalid = |err: String| PrincipalVerdict::Invalid { ok: false, err };
    let case: PrincipalCase = match serde_json::from_slice(line) {
        Ok(case) => case,
        Err(error) => return invalid(format!("line is not {{\"in\": text}}: {error}")),
    };
    match SpiffeId::parse(&case.input) {
        Ok(id) => PrincipalVerdict::Valid { ok: true, td: id.trust_domain().to_owned(), path: id.path().to_owned() },
        Err(error) => invalid(error.to_string()),
    }
}

fn json_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}
