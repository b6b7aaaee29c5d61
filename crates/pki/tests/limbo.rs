//! Agreement with x509-limbo, where its suite is at hand: `COUNTERSIGN_SUITES` names the folder that holds
//! `x509-limbo`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_core::time::UnixMillis;
use countersign_pki::limbo::{Verdict, evaluate};

#[test]
fn verdicts_agree_with_x509_limbo() {
    let Some(suites) = std::env::var_os("COUNTERSIGN_SUITES") else {
        println!("skipped: COUNTERSIGN_SUITES is not set");
        return;
    };
    let json = std::fs::read(std::path::Path::new(&suites).join("x509-limbo/limbo.json")).unwrap();
    let expected: BTreeMap<String, bool> = {
        let document: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let cases = document["testcases"].as_array().unwrap();
        cases.iter().map(|c| (c["id"].as_str().unwrap().to_owned(), c["expected_result"] == "SUCCESS")).collect()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let verdicts = evaluate(&json, UnixMillis::from_secs(now)).unwrap();
    assert_eq!(verdicts.len(), expected.len());
    let count = |wanted| verdicts.iter().filter(|v| v.verdict == wanted).count();
    let (accepted, rejected, skipped) = (count(Verdict::Accept), count(Verdict::Reject), count(Verdict::Skip));
    println!("accept {accepted}, reject {rejected}, skip {skipped}");
    for verdict in verdicts.iter().filter(|v| v.verdict == Verdict::Skip) {
        println!("skip {}: {}", verdict.id, verdict.reason);
    }
    let wrong: Vec<_> = verdicts
        .iter()
        .filter(|v| v.verdict != Verdict::Skip && (v.verdict == Verdict::Accept) != expected[&v.id])
        .map(|v| format!("{}: {:?} {}", v.id, v.verdict, v.reason))
        .collect();
    assert!(wrong.is_empty(), "{} disagree:\n{}", wrong.len(), wrong.join("\n"));
    // So that a suite that shrank, or an evaluator that skips, does not pass.
    assert!(accepted >= 50 && rejected >= 130 && skipped <= 20, "too few cases were judged");
}
