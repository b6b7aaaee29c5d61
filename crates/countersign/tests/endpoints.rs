//! Every endpoint, asked by every kind of identity: who passes and who does not stands in `golden/endpoints.txt`, for a
//! reviewer to read as a difference. `COUNTERSIGN_BLESS=1` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::sync::Arc;

use countersign::endpoints_for_testing;
use countersign_api::admin::Problem;
use countersign_core::id::NodeId;
use countersign_core::limits::ADMIN_BODY_LEN_MAX;
use countersign_core::name::Address;
use countersign_core::trust::member::Suffrage;
use countersign_net::https::dial_https;
use countersign_net::{Clock, SystemClock};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::{Value, json};
use support::{Issued, Node, agrees_with_golden, certificate_request};

const KEY: &str = "0011223344556677001122334455667700112233445566770011223344556677";
/// The cluster's name, as `support` makes it.
const CLUSTER: &str = "test";

/// A request that would be answered without a change, or with one that hurts nobody.
struct Sample {
    path: String,
    body: String,
    /// The action, kind and name that policy is asked about; none where policy has no say.
    about: Option<(String, String, String)>,
}

/// What to ask of an endpoint. One that is not known here has no row.
fn sample(method: &str, path: &str, access: &str) -> Sample {
    let nobody = |path: &str| {
        let path = path.replace("{id}", "0011223344556677").replace("{node}", "nobody").replace("{key}", KEY);
        path.replace("{kind}", "client").replace("{name}", "nobody")
    };
    let (body, name) = match (method, path) {
        ("GET", "/healthz" | "/readyz" | "/metrics" | "/openapi.json") => (String::new(), None),
        ("GET", "/v1/openapi.json" | "/v1/status" | "/v1/nodes" | "/v1/refusals/{id}" | "/v1/cluster") => {
            (String::new(), Some(CLUSTER))
        }
        ("GET", "/v1/tokens" | "/v1/certificates") | ("POST", "/v1/tokens/rotate") => (String::new(), Some("")),
        ("POST", "/v1/tokens") => {
            let token = json!({"suffrage": "learner", "ttl_secs": 60, "uses": 1, "name": "n9"});
            (token.to_string(), Some("n9"))
        }
        ("DELETE", "/v1/tokens/{id}") => (String::new(), Some("0011223344556677")),
        ("POST", "/v1/nodes/{node}/promote" | "/v1/nodes/{node}/demote" | "/v1/nodes/{node}/evict") => {
            ("{}".to_owned(), Some("nobody"))
        }
        ("POST", "/v1/cluster" | "/v1/cluster/level") => ("{}".to_owned(), Some(CLUSTER)),
        ("POST", "/v1/nodes/{node}/hosts") => ("{}".to_owned(), Some("nobody")),
        ("POST", "/v1/nodes/{node}/label") => (json!({"edits": []}).to_string(), Some("nobody")),
        ("POST" | "DELETE", "/v1/nodes/{node}/quarantine") => (String::new(), None),
        ("POST", "/v1/certificates") => (certificate_request("client/other"), Some("client/other")),
        ("DELETE", "/v1/certificates/{key}") => (String::new(), Some(KEY)),
        ("DELETE", "/v1/principals/{kind}/{name}") => (String::new(), Some("client/nobody")),
        ("POST", "/v1/principals/{kind}/{name}/label") => (json!({"edits": []}).to_string(), Some("client/nobody")),
        ("GET", "/v1/acl" | "/v1/acl/lint") | ("DELETE", "/v1/acl/rules/{id}") => (String::new(), Some(CLUSTER)),
        ("POST", "/v1/acl/check" | "/v1/acl/explain" | "/v1/acl/who-can" | "/v1/acl/plan" | "/v1/acl/apply")
        | ("POST", "/v1/acl/rules") => ("{}".to_owned(), Some(CLUSTER)),
        _ => panic!("{method} {path} has no row here"),
    };
    let mut words = access.split(' ');
    let about = name.map(|name| (words.next().unwrap().to_owned(), words.next().unwrap().to_owned(), name.to_owned()));
    Sample { path: nobody(path), body, about }
}

/// Who asks over HTTPS.
enum Who {
    /// Somebody without a certificate.
    Stranger,
    Certified(Issued),
}

/// Status and body of the answer over HTTPS.
async fn over_https(node: &Node, who: &Who, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = node.member().https_addr().unwrap();
    match who {
        Who::Certified(Issued { bundle, credential, .. }) => {
            let address = Address::parse(&address.to_string()).unwrap();
            let stream = dial_https(&address, Arc::clone(bundle), credential, SystemClock.now()).await.unwrap();
            exchanged(stream, method, path, body).await
        }
        Who::Stranger => {
            let view = node.member().view();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(view.active_authority().unwrap().1.certificate.clone().into()).unwrap();
            let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()));
            let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
            let config = config.with_root_certificates(roots).with_no_client_auth();
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            exchanged(connector.connect(address.ip().into(), socket).await.unwrap(), method, path, body).await
        }
    }
}

async fn exchanged<S>(stream: S, method: &str, path: &str, body: &str) -> (u16, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(path).header("host", "x");
    let request =
        request.header("content-type", "application/json").body(Full::new(bytes::Bytes::from(body.to_owned())));
    let answer = client.send_request(request.unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Whether the request got past authorization, whatever became of it then.
fn passed((status, body): &(u16, String)) -> bool {
    let problem: Option<Problem> = serde_json::from_str(body).ok();
    let nowhere = problem.as_ref().is_some_and(|problem| problem.message == "no such route");
    let refused = matches!(status, 401 | 403 | 405);
    if refused {
        let code = problem.map(|problem| problem.code).unwrap_or_default();
        assert!(["no-certificate", "denied"].contains(&code.as_str()), "{status} {body}");
    }
    !refused && !nowhere
}

fn mark(passed: bool) -> &'static str {
    if passed { "✔" } else { "✘" }
}

/// A rule that allows or denies exactly one thing.
fn rule(effect: &str, principal: &str, (action, kind, name): &(String, String, String)) -> Value {
    json!({"rule": {"id": "granted", "effect": effect, "principal": principal, "actions": [action],
        "resource": format!("{kind}:{name}")}})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_admits_only_the_callers_of_its_row() {
    let node = Node::bootstrap("n1").await;
    let certified = async |role: &str| Who::Certified(node.issue(role).await);
    let (ada, eve) = (certified("admin/ada").await, certified("admin/eve").await);
    let (client, granted) = (certified("client/none").await, certified("client/granted").await);
    let broker = certified("broker/b1.example").await;
    // Eve was an admin like any other.
    let before = over_https(&node, &eve, "GET", "/v1/tokens", "").await;
    assert!(passed(&before));
    node.local("POST", "/v1/acl/apply", json!({"policy": {"super_users": ["admin/ada"]}})).await;
    let mut seen = String::new();
    for (method, path, access) in endpoints_for_testing() {
        let Sample { path: asked, body, about } = sample(&method, path, &access);
        let mut marks = Vec::new();
        for (who, name) in [
            (&Who::Stranger, ""),
            (&client, "client/none"),
            (&granted, "client/granted"),
            (&broker, "broker/b1.example"),
            (&ada, "admin/ada"),
            (&eve, "admin/eve"),
        ] {
            let grant = about.as_ref().filter(|_| name == "client/granted");
            if let Some(about) = grant {
                assert!(!passed(&over_https(&node, who, &method, &asked, &body).await), "{path} before the grant");
                node.local("POST", "/v1/acl/rules", rule("allow", name, about)).await;
            }
            marks.push(mark(passed(&over_https(&node, who, &method, &asked, &body).await)));
            if grant.is_some() {
                node.local("DELETE", "/v1/acl/rules/granted", Value::Null).await;
                assert!(!passed(&over_https(&node, who, &method, &asked, &body).await), "{path} after the grant");
            }
        }
        marks.push(mark(passed(&node.ask(&method, &asked, body).await)));
        seen.push_str(&format!("{method:<6} {path:<34} {access:<40} {}\n", marks.join("  ")));
    }
    let header = "Requests on the HTTPS port by: a stranger, a client without a rule, a client with exactly the rule for it, a \
                  broker, an\nadmin, an admin who is no super-user any more. Last: the operator of the host, on the socket.\n\n";
    agrees_with_golden("endpoints.txt", &format!("{header}{seen}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_denies_everything_locks_neither_the_operator_of_a_host_nor_status_out() {
    let node = Node::bootstrap("n1").await;
    let ada = Who::Certified(node.issue("admin/ada").await);
    let deny = |kind: &str| json!({"principal": "*", "effect": "deny", "actions": ["all"], "resource_any": kind});
    let kinds = ["cluster", "token", "member", "certificate", "authority", "policy", "service", "topic"];
    let policy = json!({"super_users": [], "rule": kinds.map(deny)});
    node.local("POST", "/v1/acl/apply", json!({"policy": policy})).await;
    for (method, path) in [("GET", "/v1/status"), ("GET", "/v1/acl"), ("POST", "/v1/tokens/rotate")] {
        let answer = over_https(&node, &ada, method, path, "").await;
        assert!(answer.0 == 403 && answer.1.contains(": denied (generation "), "{path}: {answer:?}");
    }
    // Whether it is well, anybody may ask.
    assert_eq!(over_https(&node, &ada, "GET", "/readyz", "").await.0, 200);
    for (method, path, body) in [
        ("GET", "/v1/status", ""),
        ("GET", "/v1/nodes", ""),
        ("GET", "/v1/acl", ""),
        ("POST", "/v1/nodes/nobody/quarantine", ""),
        ("POST", "/v1/nodes/nobody/evict", "{}"),
    ] {
        let answer = node.ask(method, path, body.to_owned()).await;
        assert!(passed(&answer), "{path}: {answer:?}");
    }
    // It mends what it did.
    node.local("POST", "/v1/acl/apply", json!({"policy": {"super_users": ["admin/*"]}})).await;
    assert_eq!(over_https(&node, &ada, "GET", "/v1/status", "").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_about_one_name_and_a_deny_wins() {
    let node = Node::bootstrap("n1").await;
    let client = Who::Certified(node.issue("client/ops").await);
    let add = async |rule: Value| node.local("POST", "/v1/acl/rules", json!({"rule": rule})).await;
    let status = async |method: &str, path: &str, body: &str| {
        let (status, said) = over_https(&node, &client, method, path, body).await;
        let problem: Option<Problem> = serde_json::from_str(&said).ok();
        (status, problem.map(|problem| problem.message).unwrap_or_default())
    };
    add(json!({"id": "web", "principal": "client/ops", "actions": ["create"], "resource_prefix": "token:web-"})).await;
    let token = |name: Value| json!({"suffrage": "learner", "ttl_secs": 60, "uses": 1, "name": name}).to_string();
    assert_eq!(status("POST", "/v1/tokens", &token(json!("web-1"))).await.0, 200);
    for other in [json!("db-1"), json!("web"), Value::Null] {
        let (status, message) = status("POST", "/v1/tokens", &token(other.clone())).await;
        assert_eq!(status, 403, "{other}");
        assert!(message.contains(": denied (generation "), "{message}");
    }
    add(json!({"id": "clients", "principal": "client/*", "actions": ["create"], "resource_prefix": "certificate:client/"}))
        .await;
    assert_eq!(status("POST", "/v1/certificates", &certificate_request("client/x")).await.0, 200);
    assert_eq!(status("POST", "/v1/certificates", &certificate_request("admin/x")).await.0, 403);
    // From here alone, and from elsewhere.
    add(json!({"id": "seen", "principal": "client/ops", "actions": ["describe"], "resource": "cluster:test",
        "network": "127.0.0.0/8"}))
    .await;
    assert_eq!(status("GET", "/v1/status", "").await.0, 200);
    add(json!({"id": "a-deny", "principal": "role:Ops", "effect": "deny", "actions": ["describe"],
        "resource_any": "cluster"}))
    .await;
    assert_eq!(status("GET", "/v1/status", "").await.0, 200);
    let labels = json!({"edits": [{"name": "role", "value": "Ops"}]});
    node.local("POST", "/v1/principals/client/ops/label", labels).await;
    // Which rule it was, those are told who may see the rules.
    let (denied, message) = status("GET", "/v1/status", "").await;
    assert!(denied == 403 && message.contains("cluster `test`: denied (generation "), "{message}");
    add(json!({"id": "sees", "principal": "client/ops", "actions": ["describe"], "resource": "policy:test"})).await;
    let (denied, message) = status("GET", "/v1/status", "").await;
    assert!(denied == 403 && message.contains("rule `a-deny` (generation "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_is_read_for_no_path_and_no_method_that_takes_none() {
    let node = Node::bootstrap("n1").await;
    let ada = Who::Certified(node.issue("admin/ada").await);
    let long = " ".repeat(ADMIN_BODY_LEN_MAX + 1);
    for (method, path, status) in [
        ("POST", "/v1/acl/plan", 400),
        ("PUT", "/v1/acl/plan", 413),
        ("DELETE", "/v1/acl/apply", 413),
        ("POST", "/v1/acl/check", 413),
        ("POST", "/v1/nothing", 413),
    ] {
        let answer = over_https(&node, &ada, method, path, &long).await;
        assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_name_is_the_number_of_another_is_judged_as_itself() {
    let first = Node::bootstrap("n1").await;
    let token = first.token(Suffrage::Learner, 2).await;
    let odd = Node::join("3", &token, &first).await.unwrap();
    let third = Node::join("n3", &token, &first).await.unwrap();
    assert_eq!((odd.member().node(), third.member().node()), (NodeId(2), NodeId(3)));
    first.settled(3).await;
    let client = Who::Certified(first.issue("client/ops").await);
    let allow = |name: &str| {
        json!({"rule": {"id": name, "principal": "client/ops", "actions": ["alter"],
            "resource": format!("member:{name}")}})
    };
    first.local("POST", "/v1/acl/rules", allow("n3")).await;
    let body = json!({"edits": [{"name": "role", "value": "Odd"}]}).to_string();
    let label = async |node: &str| over_https(&first, &client, "POST", &format!("/v1/nodes/{node}/label"), &body).await;
    for of_another in ["3", "2"] {
        let (status, said) = label(of_another).await;
        assert_eq!(status, 403, "{of_another}: {said}");
    }
    let labelled = |(status, said): (u16, String)| {
        assert_eq!(status, 200, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()["principal"].as_str().unwrap().to_owned()
    };
    assert_eq!(labelled(label("n3").await), "node/3");
    first.local("POST", "/v1/acl/rules", allow("3")).await;
    assert_eq!(labelled(label("3").await), "node/2");
    assert_eq!(labelled(label("2").await), "node/2");
}
