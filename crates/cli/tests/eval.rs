//! `countersign eval` from outside, on the published suites where they are at hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::path::PathBuf;

use rig::Home;
use serde_json::{Value, json};

fn suite(path: &str) -> Option<Vec<u8>> {
    let Some(suites) = std::env::var_os("COUNTERSIGN_SUITES") else {
        println!("skipped: COUNTERSIGN_SUITES is not set");
        return None;
    };
    // Cargo runs tests in the package's directory; a relative path is meant from the workspace.
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join(suites).join(path);
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn chains_are_judged_as_x509_limbo_expects() {
    let Some(document) = suite("x509-limbo/limbo.json") else { return };
    let cases: Value = serde_json::from_slice(&document).unwrap();
    let cases = cases["testcases"].as_array().unwrap();
    let judged = lines(&Home::new().run_on(&["eval", "chain"], &document).ok().stdout);
    assert_eq!(judged.len(), cases.len());
    let (mut agreed, mut skipped) = (0, 0);
    for (case, line) in cases.iter().zip(&judged) {
        assert_eq!(line["id"], case["id"], "in input order");
        let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "reason", "verdict"]);
        match (line["verdict"].as_str().unwrap(), case["expected_result"].as_str().unwrap()) {
            ("skip", _) => {
                assert!(!line["reason"].as_str().unwrap().is_empty(), "a skip names the feature: {line}");
                skipped += 1;
            }
            ("accept", "SUCCESS") | ("reject", "FAILURE") => agreed += 1,
            (verdict, expected) => panic!("{}: {verdict}, expected {expected}: {}", case["id"], line["reason"]),
        }
    }
    assert!(agreed >= 185 && skipped <= 20, "agreed {agreed}, skipped {skipped}");
}

#[test]
fn spiffe_ids_are_judged_as_go_spiffe_does() {
    let Some(document) = suite("spiffe/spiffe-id-cases.json") else { return };
    let suite: Value = serde_json::from_slice(&document).unwrap();
    let cases = suite["cases"].as_array().unwrap();
    assert!(cases.len() >= 64);
    let input: String = cases.iter().map(|case| format!("{}\n", json!({ "in": case["in"] }))).collect();
    let judged = lines(&Home::new().run_on(&["eval", "principal"], input.as_bytes()).ok().stdout);
    assert_eq!(judged.len(), cases.len());
    for (case, line) in cases.iter().zip(&judged) {
        // The wording of errors is not compared.
        let verdict = if line["ok"] == true {
            json!({ "ok": true, "td": line["td"], "path": line["path"], "in": case["in"] })
        } else {
            assert!(line["err"].as_str().is_some_and(|err| !err.is_empty()));
            json!({ "ok": false, "err": case["err"], "in": case["in"] })
        };
        assert_eq!(&verdict, case);
    }
}

#[test]
fn each_line_has_its_verdict_and_one_bad_line_costs_no_other() {
    let input = b"{\"in\": \"spiffe://td/a\"}\n\n{\"in\": \"spiffe://td/\xff\"}\nnonsense\n{\"out\": 1}\n{\"in\":\"spiffe://td\"}";
    let judged = lines(&Home::new().run_on(&["eval", "principal"], input).ok().stdout);
    let oks: Vec<bool> = judged.iter().map(|line| line["ok"] == true).collect();
    assert_eq!(oks, [true, false, false, false, true]);
    assert_eq!(judged[0], json!({ "ok": true, "td": "td", "path": "/a" }));
    assert_eq!(judged[4], json!({ "ok": true, "td": "td", "path": "" }));
}

#[test]
fn what_is_no_document_is_a_usage_error() {
    let home = Home::new();
    for input in ["", "{}", "[]", "not JSON"] {
        let done = home.run_on(&["eval", "chain"], input.as_bytes()).failed(2, "standard input cannot be read");
        assert_eq!(done.stdout, "");
    }
    home.run(&["eval"]).failed(2, "command is missing");
    home.run(&["eval", "chian"]).failed(2, "`chian`");
}
