//! SPIFFE ids, judged as go-spiffe judges them. The cases are published by others and live outside the repository, in
//! the directory that `COUNTERSIGN_SUITES` names; where it is not set this says `skipped`.
//!
//! The wording of errors is not compared.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::env;
use std::fs;
use std::path::Path;

use countersign_core::principal::SpiffeId;
use serde_json::Value;

/// Cases in the suite when this was written; a suite that shrank would prove less than it seems to.
const CASES_MIN: usize = 64;

#[test]
fn spiffe_ids_are_parsed_as_go_spiffe_does() {
    let Some(suites) = env::var_os("COUNTERSIGN_SUITES") else {
        println!("skipped: COUNTERSIGN_SUITES is not set");
        return;
    };
    let path = Path::new(&suites).join("spiffe/spiffe-id-cases.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let suite: Value = serde_json::from_str(&text).unwrap();
    let cases = suite["cases"].as_array().unwrap();
    assert!(cases.len() >= CASES_MIN, "{} cases, expected at least {CASES_MIN}", cases.len());

    let wrong: Vec<String> = cases.iter().filter_map(disagreement).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// How our verdict on a case differs from the expected one, if it does.
fn disagreement(case: &Value) -> Option<String> {
    let input = case["in"].as_str().unwrap();
    let accepted = case["ok"].as_bool().unwrap();
    let expected = accepted.then(|| (case["td"].as_str().unwrap(), case["path"].as_str().unwrap()));
    let parsed = SpiffeId::parse(input);
    let got = parsed.as_ref().map(|id| (id.trust_domain(), id.path()));
    (got.as_ref().ok() != expected.as_ref()).then(|| {
        let verdict = if accepted { "accepted" } else { "refused" };
        let start: String = input.chars().take(60).collect();
        format!("{start:?} ({} bytes) must be {verdict}: {:.200}", input.len(), format!("{got:?}"))
    })
}
