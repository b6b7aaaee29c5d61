//! The OpenAPI document is what the admin API is: every route and no other, and the fields that its types serialize.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use countersign::endpoints_for_testing;
use countersign_api::admin::*;
use countersign_core::authz::text::{PolicyText, RuleText};
use countersign_core::trust::member::Suffrage;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

/// Path and method of every endpoint that is served.
fn routed() -> BTreeSet<(String, String)> {
    let served = endpoints_for_testing().into_iter();
    served.map(|(method, path, _)| (path.to_owned(), method.to_lowercase())).collect()
}

#[test]
fn every_route_is_documented_and_nothing_else_is() {
    let document = document();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| keys(item).into_iter().map(|method| (path.clone(), method)))
        .collect();
    let routed = routed();
    assert!(routed.len() > 10, "{routed:?}");
    assert_eq!(documented, routed);
}

#[test]
fn path_parameters_are_declared_and_operations_are_named_once() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let wanted: BTreeSet<String> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect();
        for (method, operation) in item.as_object().unwrap() {
            let declared = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
            let declared = declared.iter().filter(|parameter| parameter["in"] == "path");
            let declared: BTreeSet<String> =
                declared.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(declared, wanted, "{method} {path}");
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id), "{method} {path}");
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
        }
    }
}

/// Every `$ref` below `value`.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::String(target)) => drop(found.insert(target.clone())),
            _ => references(value, found),
        }),
        Value::Array(array) => array.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_schema_and_every_schema_is_used() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let found: BTreeSet<String> =
        found.iter().map(|target| target.strip_prefix("#/components/schemas/").unwrap().to_owned()).collect();
    assert_eq!(found, keys(&document["components"]["schemas"]));
}

#[test]
fn what_needs_no_certificate_is_health_and_this_document() {
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let open = operation["security"] == json!([]);
            assert_eq!(open, !path.starts_with("/v1/"), "{method} {path}");
        }
    }
}

/// The schema as documented, compared with a value of the type.
fn check<T: Serialize + DeserializeOwned>(name: &str, bare: &Value, strict: bool) -> (String, bool) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    let read: T = serde_json::from_value(bare.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written = serde_json::to_value(&read).unwrap();
    let required: BTreeSet<String> =
        schema["required"].as_array().unwrap().iter().map(|field| field.as_str().unwrap().to_owned()).collect();
    assert_eq!(required, keys(bare), "{name}: required");
    assert!(keys(&written).is_subset(&keys(&schema["properties"])), "{name}: written {written}");
    for field in &required {
        let mut lacking = bare.clone();
        lacking.as_object_mut().unwrap().remove(field);
        let nullable = schema["properties"][field]["type"].as_array().is_some();
        // Of an answer, an absent field that may be null reads as null.
        assert!(nullable || serde_json::from_value::<T>(lacking).is_err(), "{name}: `{field}` is not needed");
    }
    for (field, property) in schema["properties"].as_object().unwrap() {
        let mut with = bare.clone();
        with.as_object_mut().unwrap().entry(field.clone()).or_insert_with(|| sample(property));
        let again = serde_json::from_value::<T>(with).unwrap_or_else(|error| panic!("{name}.{field}: {error}"));
        let again = serde_json::to_value(&again).unwrap();
        assert!(keys(&again).contains(field), "{name}: the type has no `{field}`");
    }
    assert_eq!(schema["additionalProperties"] == json!(false), strict, "{name}: strictness");
    let mut more = bare.clone();
    more.as_object_mut().unwrap().insert("unheard_of".to_owned(), json!(1));
    assert_eq!(serde_json::from_value::<T>(more).is_err(), strict, "{name}: strictness of the type");
    (name.to_owned(), true)
}

/// A value that fits a property which is not required.
fn sample(property: &Value) -> Value {
    if let Some(word) = property["enum"].get(0) {
        return word.clone();
    }
    match property["type"].as_str().or(property["type"][0].as_str()) {
        Some("boolean") => json!(true),
        Some("object") => json!({}),
        Some("array") => json!([]),
        Some("integer") => json!(1),
        _ => json!("x"),
    }
}

#[test]
fn schemas_have_the_fields_of_their_types() {
    let raft = json!({"state": "leader", "leader": 1, "term": 1, "last_index": 1, "applied_index": 1, "voters": [1],
        "learners": []});
    let made = json!({"by": "admin/root", "taken_by": 1, "at_millis": 1});
    let on_leaf = json!({"authority": null, "made": made});
    let member = json!({"node": 1, "name": "n1", "role": "voter", "converged": true, "addresses": [],
                         "client_address": "127.0.0.1:7102",
        "hosts": [], "unproved": [],
        "labels": {}, "holds_authority": true, "certificate_not_after": 1, "certificate_issued": on_leaf,
        "admitted_by": null, "admitted_at_millis": 1, "token_made": null, "identity": "00", "this": true});
    let evicted = json!({"node": 2, "name": "n2", "generation": 1});
    let authority = json!({"fingerprint": "00", "not_after": 1, "imported": false, "key": null});
    let certificate =
        json!({"principal": "spiffe://td/node/1", "not_before": 0, "not_after": 1, "renews_at": null, "key": null});
    let changes = json!({"count": 1, "head": "00"});
    let differing = json!({"index": 256, "node": 2, "digest": "00", "holds": ["x"], "lacks": ["x"]});
    let pending = json!({"node": 2, "name": "n2", "generation": 1, "lease_ends_millis": 1});
    let status = json!({"node": 1, "name": "n1", "cluster": "c", "cluster_id": "00", "trust_domain": "td",
        "generation": 1, "ready": true, "lease_millis_left": null, "lease_secs": 10, "raft": raft,
        "members": [member], "evicted": [evicted], "waiting_for": [pending],
        "authority": authority, "certificate": certificate, "can_issue": true, "key_protection": "x", "connections": 0,
        "changes": changes, "differing": [differing], "warnings": []});
    let created = json!({"id": "00", "token": "cst_x:00", "not_after": 1, "uses": 1, "role": "voter",
        "join_addr": "127.0.0.1:1"});
    let token = json!({"id": "00", "role": "learner", "uses": 1, "uses_left": 1, "not_after": 1, "name": null,
        "hosts": [], "labels": {}, "state": "usable", "cluster_token": false, "made": made});
    let changed = json!({"node": 1, "name": "n1", "generation": 1, "tokens_revoked": [],
        "enforcement": null});
    let host = json!({"host": "n1.example", "proof": "admin"});
    let hosts = json!({"node": 1, "name": "n1", "generation": 1, "hosts": [host], "unproved": []});
    let guard = json!({"name": "broker/b", "level": 1});
    let known = json!({"name": "n1", "level": 1, "since": 1});
    let cluster = json!({"cluster": "c", "cluster_id": "00", "trust_domain": "td", "generation": 1, "client_names": [],
        "renewing": [], "level": 1, "level_auto": true, "levels": [known], "guards": [guard], "guards_unheard": []});
    let receipt = json!({"connections_closed": 1, "at_millis": 1, "boot": "00", "signature": "00"});
    let enforced = json!({"node": 1, "name": "n1", "state": "enforced", "lease_ends_millis": null, "receipt": receipt,
        "absence_signature": null});
    let enforcement = json!({"generation": 1, "complete": true, "members": [enforced]});
    let revoked = json!({"principal": null, "key": null, "keys": 1, "enforcement": enforcement});
    let request = json!({"role": "client/x", "csr": "x"});
    let issued = json!({"principal": "x", "chain": "x", "authority": "x", "not_after": 1, "key": "00"});
    let on_record = json!({"principal": "x", "key": "00", "not_after": 1, "revoked": false, "issued": on_leaf});
    let refusal = json!({"failure_id": "00", "at_millis": 1, "source": "127.0.0.1:1", "protocol": null,
        "principal": null, "reason": "evicted", "message": "x", "detail": null, "try": "x"});
    let rules = rules();
    let checked: BTreeMap<String, bool> = BTreeMap::from_iter(
        [
            check::<Problem>("Problem", &json!({"code": "x", "message": "x"}), false),
            check::<Status>("Status", &status, false),
            check::<RaftStatus>("RaftStatus", &raft, false),
            check::<MemberStatus>("MemberStatus", &member, false),
            check::<ChangesStatus>("ChangesStatus", &changes, false),
            check::<DifferingStatus>("DifferingStatus", &differing, false),
            check::<EvictedStatus>("EvictedStatus", &evicted, false),
            check::<PendingMember>("PendingMember", &pending, false),
            check::<AuthorityStatus>("AuthorityStatus", &authority, false),
            check::<CertificateStatus>("CertificateStatus", &certificate, false),
            check::<TokenCreate>("TokenCreate", &json!({"role": "voter", "ttl_secs": 60, "uses": 1}), true),
            check::<TokenCreated>("TokenCreated", &created, false),
            check::<TokenInfo>("TokenInfo", &token, false),
            check::<NodeRemove>("NodeRemove", &json!({}), true),
            check::<NodeHostsChange>("NodeHostsChange", &json!({}), true),
            check::<NodeHosts>("NodeHosts", &hosts, false),
            check::<NodeHost>("NodeHost", &host, false),
            check::<ClusterSettings>("ClusterSettings", &cluster, false),
            check::<ClusterChange>("ClusterChange", &json!({}), true),
            check::<MemberLevel>("MemberLevel", &known, false),
            check::<GuardLevel>("GuardLevel", &guard, false),
            check::<LevelRaise>("LevelRaise", &json!({}), true),
            check::<NodeChanged>("NodeChanged", &changed, false),
            check::<Enforcement>("Enforcement", &enforcement, false),
            check::<EnforcedBy>("EnforcedBy", &enforced, false),
            check::<ReceiptInfo>("ReceiptInfo", &receipt, false),
            check::<CertificateRevoked>("CertificateRevoked", &revoked, false),
            check::<NodeQuarantined>(
                "NodeQuarantined",
                &json!({"node": 1, "name": "n1", "quarantined": true, "connections_closed": 0}),
                false,
            ),
            check::<CertificateRequest>("CertificateRequest", &request, true),
            check::<CertificateIssued>("CertificateIssued", &issued, false),
            check::<CertificateInfo>("CertificateInfo", &on_record, false),
            check::<RefusalInfo>("RefusalInfo", &refusal, false),
            check::<MadeInfo>("MadeInfo", &made, false),
            check::<IssuedInfo>("IssuedInfo", &on_leaf, false),
        ]
        .into_iter()
        .chain(rules),
    );
    let mut documented = keys(&document()["components"]["schemas"]);
    assert!(documented.remove("MemberRole"));
    assert_eq!(documented, checked.into_keys().collect());
}

/// The schemas of what is said about rules.
fn rules() -> Vec<(String, bool)> {
    let rule = json!({"principal": "*", "actions": ["read"]});
    let decision = json!({"allowed": true, "reason": "x", "rule": null, "generation": 1});
    let ask = json!({"principal": "client/x", "action": "read", "kind": "topic", "name": "x"});
    let finding = json!({"rule": "r", "finding": "x"});
    let plan = json!({"generation": 1, "add": [rule], "remove": [], "super_users": null, "required_capabilities": null,
        "flips": [], "unheard": [], "lint": [finding]});
    let explanation = json!({"decision": decision, "principal": "client/x", "roles": [], "attributes": {},
        "required": [], "rules": []});
    let changed = json!({"generation": 1, "put": 1, "removed": 0, "rules": [rule], "enforcement": null});
    let holder = json!({"principal": "client/x", "decision": decision, "only_from": ["10.0.0.0/8"]});
    let edit = json!({"name": "gpu", "value": null});
    let labelled = json!({"principal": "node/1", "generation": 1, "labels": {}, "enforcement": null});
    vec![
        check::<RuleText>("RuleText", &rule, true),
        check::<PolicyText>("PolicyText", &json!({}), true),
        check::<AclPolicy>("AclPolicy", &json!({"generation": 1, "changed": 1, "policy": {}, "made": {}}), false),
        check::<AclAdd>("AclAdd", &json!({"rule": rule}), true),
        check::<AclApply>("AclApply", &json!({"policy": {}}), true),
        check::<AclChanged>("AclChanged", &changed, false),
        check::<AclPlan>("AclPlan", &plan, false),
        check::<AclFlip>("AclFlip", &json!({"request": ask, "before": decision, "after": decision}), false),
        check::<AclAsk>("AclAsk", &ask, true),
        check::<AclDecision>("AclDecision", &decision, false),
        check::<AclExplanation>("AclExplanation", &explanation, false),
        check::<AclWeighed>("AclWeighed", &json!({"rule": rule, "decides": true, "unmet": []}), false),
        check::<AclWho>("AclWho", &json!({"action": "read", "kind": "topic", "name": "x"}), true),
        check::<AclWhoCan>("AclWhoCan", &json!({"generation": 1, "principals": [holder]}), false),
        check::<AclHolder>("AclHolder", &holder, false),
        check::<AclLint>("AclLint", &json!({"generation": 1, "findings": [finding]}), false),
        check::<AclFinding>("AclFinding", &finding, false),
        check::<LabelChange>("LabelChange", &json!({"edits": [edit]}), true),
        check::<LabelEdit>("LabelEdit", &edit, true),
        check::<Labelled>("Labelled", &labelled, false),
    ]
}

#[test]
fn words_for_a_member_role_are_those_of_the_type() {
    let words = document()["components"]["schemas"]["MemberRole"]["enum"].clone();
    assert_eq!(words, json!([Suffrage::Learner, Suffrage::Voter]));
}
