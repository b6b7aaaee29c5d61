//! How a revocation, or a change of rules, comes into force, member by member: which members are waited for, and the
//! last answer of each.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use countersign_api::admin::{EnforcedBy, Enforcement, Status};
use indicatif::{ProgressBar, ProgressStyle};

use crate::admin_client::AdminClient;
use crate::failure::Failure;
use crate::output::{Output, Text, at_millis, now_millis};

/// How long nothing is said: most revocations are in force by then.
const QUIET: Duration = Duration::from_secs(1);
/// How often to ask which members are waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the line moves.
const TICK: Duration = Duration::from_millis(100);

/// The change that comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A principal is refused.
    Refusal,
    /// Others may do what they could not, or may not any more.
    Rule,
}

/// Waits for an answer, and tells on standard error what is done if it takes long.
pub(super) async fn working<T>(
    what: &str,
    answer: impl Future<Output = Result<T, Failure>>,
    output: Output,
) -> Result<T, Failure> {
    let told = async {
        let progress = Progress::new(output);
        // why: a change that is done at once needs no word
        tokio::time::sleep(QUIET).await;
        progress.say(what.to_owned());
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = told => never,
    }
}

/// Waits for an answer that takes as long as a lease lasts, and tells on standard error who is waited for.
pub(super) async fn waiting<T>(
    client: &AdminClient,
    answer: impl Future<Output = Result<T, Failure>>,
    change: Change,
    output: Output,
) -> Result<T, Failure> {
    let told = async {
        let progress = Progress::new(output);
        // why: a change that is done at once needs no word
        tokio::time::sleep(QUIET).await;
        loop {
            let status: Result<Status, Failure> = client.get("/v1/status").await;
            progress.tell(status.ok().as_ref(), change);
            // why: the member is asked again; nothing tells when its answer changes
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        answer = answer => answer,
        never = told => never,
    }
}

/// One moving line on a terminal, lines elsewhere, nothing beside JSON.
struct Progress {
    bar: ProgressBar,
    lines: bool,
    last: std::cell::RefCell<String>,
}

impl Progress {
    fn new(output: Output) -> Self {
        let bar = if output.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        let lines = !output.json && !std::io::stderr().is_terminal();
        Self { bar, lines, last: Default::default() }
    }

    fn tell(&self, status: Option<&Status>, change: Change) {
        let pending: BTreeSet<String> =
            status.into_iter().flat_map(|status| &status.waiting_for).map(|member| member.name.clone()).collect();
        let names: Vec<&str> = pending.iter().map(String::as_str).collect();
        let line = match status {
            Some(status) if !names.is_empty() => {
                format!(
                    "waiting for {}: at most until its lease of {} s has run out",
                    names.join(", "),
                    status.lease_secs
                )
            }
            _ if change == Change::Rule => "waiting for the members to say that they decide by it".to_owned(),
            _ => "waiting for the members to say that they refuse it".to_owned(),
        };
        // That members are asked is worth a moving line, and none of its own.
        if pending.is_empty() && self.last.borrow().is_empty() { self.moving(line) } else { self.say(line) }
    }

    fn say(&self, line: String) {
        let line = crate::output::printable(&line);
        if self.lines && *self.last.borrow() != line {
            eprintln!("{line}");
        }
        self.last.replace(line.clone());
        self.moving(line);
    }

    fn moving(&self, line: String) {
        self.bar.set_message(crate::output::printable(&line));
        self.bar.enable_steady_tick(TICK);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Writes a line for each member, and what to do if some are still waited for.
pub(super) fn enforced(text: &mut Text, enforcement: &Enforcement, change: Change, now_millis: u64) {
    let header = ["MEMBER", "STATE", "CONNECTIONS CLOSED", "AT", "SIGNED"];
    text.table(&header, enforcement.members.iter().map(|member| row(member, change, now_millis)));
}

/// A revocation that is committed and not known to be in force everywhere is no success: a caller that relies on it
/// must look.
pub(super) fn complete(what: &str, enforcement: &Enforcement, change: Change) -> Result<(), Failure> {
    if enforcement.complete {
        return Ok(());
    }
    let pending: Vec<String> = enforcement
        .members
        .iter()
        .filter(|member| member.state == "pending")
        .map(|member| match member.lease_ends_millis {
            Some(at) => format!("{} (its lease ends at {})", member.name, at_millis(at, now_millis())),
            None => member.name.clone(),
        })
        .collect();
    let who = if pending.is_empty() { "a majority of the voters".to_owned() } else { pending.join(", ") };
    let done = match change {
        Change::Refusal => "is refused",
        Change::Rule => "counts",
    };
    Err(Failure::unreachable(
        format!(
            "`{what}` {done} from generation {} on, which is committed; waiting for: {who}",
            enforcement.generation
        ),
        "see these members with `countersign status`; start them, or keep them off until they have caught up",
    ))
}

fn row(member: &EnforcedBy, change: Change, now_millis: u64) -> Vec<String> {
    let state = match member.state.as_str() {
        "enforced" if change == Change::Rule => "decides by it",
        "enforced" => "refuses it",
        "lapsed" => "did not answer; its lease has run out, it serves no client",
        "pending" => "did not answer yet; serves until its lease ends",
        "evicted" => "all members refuse it; may serve by itself until its lease ends",
        other => other,
    };
    let receipt = member.receipt.as_ref();
    let closed = receipt.map(|receipt| receipt.connections_closed.to_string());
    let at = receipt.map(|receipt| receipt.at_millis).or(member.lease_ends_millis);
    let signature = receipt.map(|receipt| &receipt.signature).or(member.absence_signature.as_ref());
    let signed = signature.map(|hex| format!("{}…", hex.get(..16).unwrap_or(hex)));
    let dash = || "-".to_owned();
    vec![
        member.name.clone(),
        state.to_owned(),
        closed.unwrap_or_else(dash),
        at.map_or_else(dash, |at| at_millis(at, now_millis)),
        signed.unwrap_or_else(dash),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_api::admin::ReceiptInfo;

    fn by(name: &str, state: &str, lease_ends_millis: Option<u64>, receipt: Option<ReceiptInfo>) -> EnforcedBy {
        let absence_signature = lease_ends_millis.map(|_| "ab".repeat(64));
        EnforcedBy {
            node: 1,
            name: name.to_owned(),
            state: state.to_owned(),
            lease_ends_millis,
            receipt,
            absence_signature,
        }
    }

    #[test]
    fn rows_show_when_and_by_whose_word() {
        let receipt =
            ReceiptInfo { connections_closed: 3, at_millis: 1_250, boot: "00".to_owned(), signature: "cd".repeat(64) };
        let cells = |member: &EnforcedBy| row(member, Change::Refusal, 2_000).join("|");
        let enforced = cells(&by("n1", "enforced", None, Some(receipt)));
        assert_eq!(enforced, "n1|refuses it|3|1970-01-01T00:00:01.250Z (750ms ago)|cdcdcdcdcdcdcdcd…");
        assert_eq!(cells(&by("n2", "enforced", None, None)), "n2|refuses it|-|-|-");
        let pending = cells(&by("n3", "pending", Some(9_000), None));
        assert!(pending.ends_with("|-|1970-01-01T00:00:09.000Z (in 7s)|abababababababab…"), "{pending}");
        assert!(cells(&by("n4", "lapsed", Some(1_000), None)).contains("serves no client"));
    }

    #[test]
    fn what_is_not_in_force_everywhere_is_no_success() {
        let of = |complete, members| Enforcement { generation: 9, complete, members };
        assert!(complete("n9", &of(true, vec![by("n1", "enforced", None, None)]), Change::Refusal).is_ok());
        let lapsed = of(true, vec![by("n1", "lapsed", Some(1), None)]);
        assert!(complete("n9", &lapsed, Change::Refusal).is_ok());
        for (members, expected) in [
            (
                vec![by("n1", "enforced", None, None), by("n2", "pending", Some(9_000), None)],
                "waiting for: n2 (its lease",
            ),
            (vec![by("n1", "enforced", None, None)], "a majority of the voters"),
            (vec![], "a majority of the voters"),
        ] {
            let failure = format!("{:?}", complete("n9", &of(false, members), Change::Rule).unwrap_err());
            assert!(failure.contains(expected) && failure.contains("Unreachable"), "{failure}");
        }
    }
}
