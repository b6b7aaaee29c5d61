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
    let input = b"{\"in\": \"spiffe://td/a\"}\n\n{\"in\": \"spiffe://td/\xff\"}\nnonsense\n{\"out\": 1}\n\
                  {\"in\":\"spiffe://td\"}";
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

/// Kafka's cases as input, and the expected result of each.
fn judge_acls(cases: &[Value]) -> Vec<Value> {
    let input: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let judged = lines(&Home::new().run_on(&["eval", "acl"], input.as_bytes()).ok().stdout);
    assert_eq!(judged.len(), cases.len());
    judged
}

/// Compares all verdicts, and looks at each rule that is said to have decided. Returns how many there are.
fn agree(cases: &[Value]) -> usize {
    let mut checks = 0;
    for (case, line) in cases.iter().zip(judge_acls(cases)) {
        let expected: Vec<&Value> = case["checks"].as_array().unwrap().iter().map(|check| &check[6]).collect();
        assert_eq!(line["id"], case["id"], "in input order");
        assert_eq!(line["verdicts"].as_array().unwrap().iter().collect::<Vec<_>>(), expected, "{case}");
        let rules = line["rules"].as_array().unwrap();
        assert_eq!(rules.len(), expected.len());
        for (rule, verdict) in rules.iter().zip(&expected) {
            let Some(rule) = rule.as_u64() else { continue };
            let effect = if *verdict == "ALLOWED" { "ALLOW" } else { "DENY" };
            assert_eq!(case["acls"][rule as usize][6], effect, "{case}");
        }
        checks += expected.len();
    }
    checks
}

#[test]
fn named_acls_are_judged_as_kafka_and_redpanda_do() {
    let Some(document) = suite("kafka-acl/named-cases.json") else { return };
    let cases: Vec<Value> = serde_json::from_slice(&document).unwrap();
    assert_eq!((cases.len(), agree(&cases)), (48, 223));
}

#[test]
fn random_acls_are_judged_as_kafka_does() {
    let Some(packed) = suite("kafka-acl/random-dev.jsonl.xz") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("random.xz");
    std::fs::write(&path, packed).unwrap();
    let unpacked = std::process::Command::new("xz").arg("-dc").arg(&path).output().expect("xz unpacks the suite");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let cases = lines(&String::from_utf8(unpacked.stdout).unwrap());
    assert_eq!(cases.len(), 3000);
    assert!(agree(&cases) > 59_000);
}

/// Where Kafka takes a name that begins with an asterisk for the wildcard, and so passes over a deny.
#[test]
fn a_name_that_begins_with_an_asterisk_is_a_name() {
    let Some(document) = suite("kafka-acl/names-starting-with-star.jsonl") else { return };
    let mut cases = lines(&String::from_utf8(document).unwrap());
    for case in &mut cases {
        let mut check = case["check"].as_array().unwrap().clone();
        check.push(case["model"].clone());
        case["checks"] = json!([check]);
    }
    assert_eq!(agree(&cases), 132);
}

/// One case of one ACL and one check, with the fields of `edit` in place of its own.
fn acl_case(edit: Value) -> Value {
    let mut case = json!({
        "id": "c", "super_users": [], "default": "DENY",
        "acls": [["TOPIC", "t", "LITERAL", "User:a", "*", "READ", "ALLOW"]],
        "checks": [["User", "a", "10.0.0.1", "READ", "TOPIC", "t"]],
    });
    for (field, value) in edit.as_object().unwrap() {
        case[field] = value.clone();
    }
    case
}

fn acl(text: &str) -> Value {
    json!(text.split(' ').collect::<Vec<_>>())
}

#[test]
fn the_rule_that_decides_is_the_first_of_those_that_say_so() {
    let acls: Vec<Value> = [
        "TOPIC t LITERAL User:b * READ ALLOW",
        "TOPIC t PREFIXED User:* * ALL ALLOW",
        "TOPIC t LITERAL User:a * READ ALLOW",
        "TOPIC t LITERAL User:c 10.0.0.1 ALL DENY",
        "TOPIC * LITERAL User:c * DESCRIBE DENY",
    ]
    .map(acl)
    .to_vec();
    let checks: Vec<Value> = [
        "User a 10.0.0.1 READ TOPIC t",
        "User b ::ffff:10.0.0.1 READ TOPIC t",
        "User c 10.0.0.1 DESCRIBE TOPIC t",
        "User c ::ffff:10.0.0.1 READ TOPIC t",
        "User c 10.0.0.2 DESCRIBE TOPIC t",
        "User c 10.0.0.2 READ TOPIC tt",
        "User c 10.0.0.2 READ TOPIC u",
        "User root 10.0.0.2 READ TOPIC u",
        "User d 10.0.0.2 READ GROUP u",
        "User d 10.0.0.2 READ TOPIC * anything",
    ]
    .map(acl)
    .to_vec();
    let case =
        acl_case(json!({"id": 7, "acls": acls, "checks": checks, "super_users": ["User:root"], "default": "ALLOW"}));
    let expected = json!({
        "id": 7,
        "verdicts": [
            "ALLOWED", "ALLOWED", "DENIED", "DENIED", "DENIED", "ALLOWED", "DENIED", "ALLOWED", "ALLOWED", "DENIED",
        ],
        "rules": [1, 0, 3, 3, 4, 1, null, null, null, null],
    });
    assert_eq!(judge_acls(&[case]), [expected]);
}

#[test]
fn of_many_acls_the_first_by_number_decides() {
    let mut acls = vec![acl("TOPIC u LITERAL User:a * READ ALLOW"); 12];
    acls[2] = acl("TOPIC t PREFIXED User:* * READ ALLOW");
    acls[10] = acl("TOPIC t LITERAL User:a * READ ALLOW");
    assert_eq!(judge_acls(&[acl_case(json!({ "acls": acls }))])[0]["rules"], json!([2]));
}

/// Whether one ACL allows what one check asks.
fn allows(rule: &str, check: &str) -> bool {
    let judged = judge_acls(&[acl_case(json!({ "acls": [acl(rule)], "checks": [acl(check)] }))]);
    judged[0]["verdicts"] == json!(["ALLOWED"])
}

#[test]
fn an_asterisk_is_a_wildcard_where_it_is_one_and_nowhere_else() {
    for (rule, check, expected) in [
        ("TOPIC * LITERAL User:a * READ ALLOW", "User a 10.0.0.1 READ TOPIC t", true),
        ("TOPIC * PREFIXED User:a * READ ALLOW", "User a 10.0.0.1 READ TOPIC t", false),
        ("TOPIC * PREFIXED User:a * READ ALLOW", "User a 10.0.0.1 READ TOPIC *t", true),
        ("TOPIC t* LITERAL User:a * READ ALLOW", "User a 10.0.0.1 READ TOPIC tt", false),
        ("TOPIC t LITERAL User:a* * READ ALLOW", "User ab 10.0.0.1 READ TOPIC t", false),
        ("TOPIC t LITERAL User:* * READ ALLOW", "Role a 10.0.0.1 READ TOPIC t", true),
        ("TOPIC t LITERAL Role:* * READ ALLOW", "Role a 10.0.0.1 READ TOPIC t", false),
    ] {
        assert_eq!(allows(rule, check), expected, "{rule}; {check}");
    }
}

#[test]
fn an_operation_allows_what_it_implies_and_nothing_else() {
    let operations = [
        "READ",
        "WRITE",
        "CREATE",
        "DELETE",
        "ALTER",
        "DESCRIBE",
        "CLUSTER_ACTION",
        "DESCRIBE_CONFIGS",
        "ALTER_CONFIGS",
        "IDEMPOTENT_WRITE",
        "CREATE_TOKENS",
        "DESCRIBE_TOKENS",
        "TWO_PHASE_COMMIT",
    ];
    let checks: Vec<Value> = operations.iter().map(|asked| acl(&format!("User a 10.0.0.1 {asked} TOPIC t"))).collect();
    for granted in operations.into_iter().chain(["ALL"]) {
        let case =
            acl_case(json!({ "acls": [acl(&format!("TOPIC t LITERAL User:a * {granted} ALLOW"))], "checks": checks }));
        let verdicts = judge_acls(&[case])[0]["verdicts"].clone();
        for (asked, verdict) in operations.iter().zip(verdicts.as_array().unwrap()) {
            let implied = match *asked {
                "DESCRIBE" => ["READ", "WRITE", "DELETE", "ALTER"].contains(&granted),
                "DESCRIBE_CONFIGS" => granted == "ALTER_CONFIGS",
                _ => false,
            };
            let expected = granted == *asked || granted == "ALL" || implied;
            assert_eq!(verdict == "ALLOWED", expected, "{granted}, {asked}");
        }
    }
}

#[test]
fn a_role_of_any_name_is_held_by_its_members_alone() {
    let role = "a role: [x] é*";
    let acls = json!([["TOPIC", "t", "LITERAL", format!("Role:{role}"), "*", "ALL", "ALLOW"]]);
    let checks = json!([
        ["User", "m", "10.0.0.1", "WRITE", "TOPIC", "t"],
        ["Role", role, "10.0.0.1", "ALTER_CONFIGS", "TOPIC", "t"],
        ["User", role, "10.0.0.1", "WRITE", "TOPIC", "t"],
        ["User", "n", "10.0.0.1", "WRITE", "TOPIC", "t"],
        ["User", "r0", "10.0.0.1", "WRITE", "TOPIC", "t"],
    ]);
    let roles = json!({ role: ["User:m"], "other": ["User:n"] });
    let judged = judge_acls(&[acl_case(json!({"acls": acls, "checks": checks, "roles": roles}))]);
    assert_eq!(judged[0]["verdicts"], json!(["ALLOWED", "ALLOWED", "DENIED", "DENIED", "DENIED"]));
    assert_eq!(judged[0]["rules"], json!([0, 0, null, null, null]));
}

#[test]
fn a_bad_acl_line_says_what_is_wrong_and_costs_no_other() {
    let acls = |text: &str| acl_case(json!({ "acls": [acl("TOPIC t LITERAL User:a * READ ALLOW"), acl(text)] }));
    let checks = |text: &str| acl_case(json!({ "checks": [acl(text)] }));
    let good = acl_case(json!({}));
    let bad = [
        (acls("TOPICS t LITERAL User:a * READ ALLOW"), "acl 1: type `TOPICS`"),
        (acls("ANY t LITERAL User:a * READ ALLOW"), "acl 1: type `ANY`"),
        (acls("TOPIC t MATCH User:a * READ ALLOW"), "acl 1: pattern `MATCH`"),
        (acls("TOPIC t LITERAL a * READ ALLOW"), "acl 1: principal `a`"),
        (acls("TOPIC t LITERAL :a * READ ALLOW"), "acl 1: principal `:a`"),
        (acls("TOPIC t LITERAL User:a 10.0.0.0/8 READ ALLOW"), "acl 1: host `10.0.0.0/8`"),
        (acls("TOPIC t LITERAL User:a * read ALLOW"), "acl 1: operation `read`"),
        (acls("TOPIC t LITERAL User:a * ANY ALLOW"), "acl 1: operation `ANY`"),
        (acls("TOPIC t LITERAL User:a * READ PERMIT"), "acl 1: effect `PERMIT`"),
        (acls("TOPIC t LITERAL User:a * READ"), "acl 1: expected [type, name"),
        (acls("TOPIC t LITERAL User:a * READ ALLOW ALLOW"), "acl 1: expected [type, name"),
        (checks("User a 10.0.0.1 ALL TOPIC t"), "check 0: operation `ALL`"),
        (checks("User a * READ TOPIC t"), "check 0: host `*`"),
        (checks("User a 10.0.0.1 READ topic t"), "check 0: type `topic`"),
        (checks("User a 10.0.0.1 READ TOPIC"), "check 0: expected texts"),
        (acl_case(json!({ "checks": [["User", "a", "10.0.0.1", "READ", "TOPIC", 5]] })), "check 0: expected texts"),
        (acl_case(json!({ "default": "allow" })), "default `allow`"),
        (acl_case(json!({ "super_users": ["root"] })), "principal `root`"),
        (acl_case(json!({ "roles": { "r": ["a"] } })), "principal `a`"),
        (acl_case(json!({ "acls": "none" })), "line is no case"),
        (json!({ "id": "c", "acls": [] }), "line is no case"),
    ];
    let cases: Vec<Value> = bad.iter().flat_map(|(case, _)| [case.clone(), good.clone()]).collect();
    let judged = judge_acls(&cases);
    for (pair, (case, why)) in judged.chunks(2).zip(&bad) {
        assert_eq!(pair[0]["id"], "c");
        assert!(pair[0]["error"].as_str().unwrap().starts_with(why), "{case}: {}", pair[0]);
        assert_eq!(pair[0].as_object().unwrap().len(), 2, "no verdict beside an error");
        assert_eq!(pair[1], json!({ "id": "c", "verdicts": ["ALLOWED"], "rules": [0] }));
    }
    let home = Home::new();
    let rest = lines(&home.run_on(&["eval", "acl"], b"nonsense\n\n[]\n5\n\xff\n{\"id\":1}").ok().stdout);
    assert_eq!(rest.len(), 5);
    assert!(rest.iter().all(|line| line["error"].as_str().unwrap().starts_with("line is no case")));
    assert_eq!((&rest[0]["id"], &rest[4]["id"]), (&Value::Null, &json!(1)));
}
