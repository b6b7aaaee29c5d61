//! Every endpoint, asked by every kind of identity: who passes and who does not stands in `golden/endpoints.txt`, for a
//! reviewer to read as a difference. `COUNTERSIGN_BLESS=1` writes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::sync::Arc;

use countersign::endpoints_for_testing;
use countersign_api::admin::{AclPlan, CertificateRequest, Labelled, Problem, RefusalInfo};
use countersign_core::authz::label::LabelEdit;
use countersign_core::authz::{Effect, Rule};
use countersign_core::id::NodeId;
use countersign_core::limits::ADMIN_BODY_LEN_MAX;
use countersign_core::principal::Role;
use countersign_core::trust::member::Suffrage;
use countersign_pki::csr::{create_csr, csr_pem};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use http_body_util::Full;
use rustls::crypto::aws_lc_rs::default_provider;
use serde_json::{Value, json};
use support::http::{Answer, exchanged, request};
use support::rules::{policy, rule};
use support::{Issued, Node, agrees_with_golden};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const KEY: &str = "0011223344556677001122334455667700112233445566770011223344556677";
/// The cluster's name, as `support` makes it.
const CLUSTER: &str = "test";

/// A request that would be answered without a change, or with a harmless one.
struct Sample {
    path: String,
    body: String,
    /// The action, kind and name that policy is asked about; none where policy has no say.
    about: Option<(String, String, String)>,
}

/// What to ask of an endpoint. One that is not known here has no row.
fn sample(method: &str, path: &str, access: &str) -> Sample {
    let absent = |path: &str| {
        let path = path.replace("{id}", "0011223344556677").replace("{node}", "absent").replace("{key}", KEY);
        path.replace("{kind}", "client").replace("{name}", "absent")
    };
    let (body, name) = match (method, path) {
        ("GET", "/healthz" | "/readyz" | "/metrics" | "/openapi.json") => (String::new(), None),
        (
            "GET",
            "/v1/openapi.json" | "/v1/status" | "/v1/nodes" | "/v1/refusals/{id}" | "/v1/refusals" | "/v1/cluster",
        ) => (String::new(), Some(CLUSTER)),
        ("GET", "/v1/tokens" | "/v1/certificates") | ("POST", "/v1/tokens/rotate") => (String::new(), Some("")),
        ("POST", "/v1/tokens") => {
            let token = json!({"role": "learner", "ttl_secs": 60, "uses": 1, "name": "n9"});
            (token.to_string(), Some("n9"))
        }
        ("DELETE", "/v1/tokens/{id}") => (String::new(), Some("0011223344556677")),
        ("POST", "/v1/nodes/{node}/promote" | "/v1/nodes/{node}/demote" | "/v1/nodes/{node}/evict") => {
            ("{}".to_owned(), Some("absent"))
        }
        ("POST", "/v1/cluster" | "/v1/cluster/level") => ("{}".to_owned(), Some(CLUSTER)),
        ("POST", "/v1/nodes/{node}/hosts") => ("{}".to_owned(), Some("absent")),
        ("POST", "/v1/nodes/{node}/label") => (json!({"edits": []}).to_string(), Some("absent")),
        ("POST" | "DELETE", "/v1/nodes/{node}/quarantine") => (String::new(), None),
        ("POST", "/v1/certificates") => (certificate_request("client/other"), Some("client/other")),
        ("DELETE", "/v1/certificates/{key}") => (String::new(), Some(KEY)),
        ("DELETE", "/v1/principals/{kind}/{name}") => (String::new(), Some("client/absent")),
        ("POST", "/v1/principals/{kind}/{name}/label") => (json!({"edits": []}).to_string(), Some("client/absent")),
        ("GET", "/v1/acl" | "/v1/acl/lint") | ("DELETE", "/v1/acl/rules/{id}") => (String::new(), Some(CLUSTER)),
        ("POST", "/v1/acl/check" | "/v1/acl/explain" | "/v1/acl/who-can" | "/v1/acl/plan" | "/v1/acl/apply")
        | ("POST", "/v1/acl/rules") => ("{}".to_owned(), Some(CLUSTER)),
        _ => panic!("{method} {path} has no row here"),
    };
    let mut words = access.split(' ');
    let about = name.map(|name| (words.next().unwrap().to_owned(), words.next().unwrap().to_owned(), name.to_owned()));
    Sample { path: absent(path), body, about }
}

/// The body of a request for a certificate.
fn certificate_request(role: &str) -> String {
    let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
    let csr = csr_pem(&create_csr(&key).unwrap());
    serde_json::to_string(&CertificateRequest { role: role.to_owned(), ttl_secs: Some(600), csr }).unwrap()
}

/// The answer to a caller on the HTTPS port that shows this certificate, or none.
async fn over_https(node: &Node, who: Option<&Issued>, method: &str, path: &str, body: &str) -> Answer {
    let Some(who) = who else {
        let request = node.for_https(request(method, path, Full::from(body.to_owned())));
        return exchanged(dial_without_certificate(node).await, request).await;
    };
    node.over_https(who, method, path, body).await
}

async fn dial_without_certificate(node: &Node) -> TlsStream<TcpStream> {
    let (address, view) = (node.member().https_addr().unwrap(), node.member().view());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(view.active_authority().unwrap().1.certificate.clone().into()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(address.ip().into(), socket).await.unwrap()
}

/// Whether the request got past authorization, whatever became of it then.
fn passed(answer: &Answer) -> bool {
    let problem: Option<Problem> = serde_json::from_str(&answer.body).ok();
    let nowhere = problem.as_ref().is_some_and(|problem| problem.message == "no such route");
    let refused = matches!(answer.status, 401 | 403 | 405);
    if refused {
        let code = problem.map(|problem| problem.code).unwrap_or_default();
        assert!(["no-certificate", "denied"].contains(&code.as_str()), "{answer:?}");
    }
    !refused && !nowhere
}

fn mark(passed: bool) -> &'static str {
    if passed { "✔" } else { "✘" }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_admits_only_the_callers_of_its_row() {
    let node = Node::bootstrap("n1").await;
    let (ada, eve) = (node.issue("admin/ada").await, node.issue("admin/eve").await);
    let (client, granted) = (node.issue("client/none").await, node.issue("client/granted").await);
    let broker = node.issue("broker/b1.example").await;
    // Eve was an admin like any other.
    assert!(passed(&node.over_https(&eve, "GET", "/v1/tokens", "").await));
    node.apply(policy(&["admin/ada"], [])).await;
    let mut seen = String::new();
    for (method, path, access) in endpoints_for_testing() {
        let Sample { path: asked, body, about } = sample(&method, path, &access);
        let mut marks = Vec::new();
        for (who, name) in [
            (None, ""),
            (Some(&client), "client/none"),
            (Some(&granted), "client/granted"),
            (Some(&broker), "broker/b1.example"),
            (Some(&ada), "admin/ada"),
            (Some(&eve), "admin/eve"),
        ] {
            let grant = about.as_ref().filter(|_| name == "client/granted");
            if let Some((action, kind, about)) = grant {
                assert!(!passed(&over_https(&node, who, &method, &asked, &body).await), "{path} before the grant");
                node.add_rule(rule("granted", name, action, &format!("{kind}:{about}"))).await;
            }
            marks.push(mark(passed(&over_https(&node, who, &method, &asked, &body).await)));
            if grant.is_some() {
                node.remove_rule("granted").await;
                assert!(!passed(&over_https(&node, who, &method, &asked, &body).await), "{path} after the grant");
            }
        }
        marks.push(mark(passed(&node.on_socket(&method, &asked, &body).await)));
        seen.push_str(&format!("{method:<6} {path:<34} {access:<40} {}\n", marks.join("  ")));
    }
    let header = "Requests on the HTTPS port by: an unauthenticated caller, a client without a rule, a client with\n\
                  exactly the rule for it, a broker, an admin, an admin who is no super-user any more. Last: the\n\
                  operator of the host, on the socket.\n\n";
    agrees_with_golden("endpoints.txt", &format!("{header}{seen}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_that_denies_everything_keeps_operator_and_status_working() {
    let node = Node::bootstrap("n1").await;
    let ada = node.issue("admin/ada").await;
    let deny = |kind: &str| Rule { effect: Effect::Deny, ..rule(kind, "*", "all", kind) };
    let kinds = ["cluster", "token", "member", "certificate", "authority", "policy", "service", "topic"];
    node.apply(policy(&[], kinds.map(deny))).await;
    for (method, path) in [("GET", "/v1/status"), ("GET", "/v1/acl"), ("POST", "/v1/tokens/rotate")] {
        let answer = node.over_https(&ada, method, path, "").await;
        assert!(answer.status == 403 && answer.body.contains(": denied (generation "), "{path}: {answer:?}");
    }
    // Every caller may ask whether it is well.
    assert_eq!(node.over_https(&ada, "GET", "/readyz", "").await.status, 200);
    for (method, path, body) in [
        ("GET", "/v1/status", ""),
        ("GET", "/v1/nodes", ""),
        ("GET", "/v1/acl", ""),
        ("POST", "/v1/nodes/absent/quarantine", ""),
        ("POST", "/v1/nodes/absent/evict", "{}"),
    ] {
        let answer = node.on_socket(method, path, body).await;
        assert!(passed(&answer), "{path}: {answer:?}");
    }
    // The operator mends what was done, on the socket.
    let mended = json!({"policy": {"super_users": ["admin/*"]}}).to_string();
    let answer = node.on_socket("POST", "/v1/acl/apply", &mended).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(node.over_https(&ada, "GET", "/v1/status", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_about_one_name_and_a_deny_wins() {
    let node = Node::bootstrap("n1").await;
    let client = node.issue("client/ops").await;
    let status = async |method: &str, path: &str, body: &str| {
        let answer = node.over_https(&client, method, path, body).await;
        let problem: Option<Problem> = serde_json::from_str(&answer.body).ok();
        (answer.status, problem.map(|problem| problem.message).unwrap_or_default())
    };
    node.add_rule(rule("web", "client/ops", "create", "token:web-*")).await;
    let token = |name: Value| json!({"role": "learner", "ttl_secs": 60, "uses": 1, "name": name}).to_string();
    assert_eq!(status("POST", "/v1/tokens", &token(json!("web-1"))).await.0, 200);
    for other in [json!("db-1"), json!("web"), Value::Null] {
        let (status, message) = status("POST", "/v1/tokens", &token(other.clone())).await;
        assert_eq!(status, 403, "{other}");
        assert!(message.contains(": denied (generation "), "{message}");
    }
    node.add_rule(rule("clients", "client/*", "create", "certificate:client/*")).await;
    assert_eq!(status("POST", "/v1/certificates", &certificate_request("client/x")).await.0, 200);
    assert_eq!(status("POST", "/v1/certificates", &certificate_request("admin/x")).await.0, 403);
    // From here alone, and from elsewhere.
    let loopback = Some("127.0.0.0/8".parse().unwrap());
    node.add_rule(Rule { network: loopback, ..rule("seen", "client/ops", "describe", "cluster:test") }).await;
    assert_eq!(status("GET", "/v1/status", "").await.0, 200);
    node.add_rule(Rule { effect: Effect::Deny, ..rule("a-deny", "role:Ops", "describe", "cluster") }).await;
    assert_eq!(status("GET", "/v1/status", "").await.0, 200);
    let ops = LabelEdit { name: "role".to_owned(), value: Some("Ops".to_owned()) };
    node.control().label(Role::parse("client/ops").unwrap(), vec![ops]).await.unwrap();
    // A caller is told which rule it was if it may see the rules.
    let (denied, message) = status("GET", "/v1/status", "").await;
    assert!(denied == 403 && message.contains("cluster `test`: denied (generation "), "{message}");
    node.add_rule(rule("sees", "client/ops", "describe", "policy:test")).await;
    let (denied, message) = status("GET", "/v1/status", "").await;
    assert!(denied == 403 && message.contains("rule `a-deny` (generation "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_body_is_not_read_where_none_is_taken() {
    let node = Node::bootstrap("n1").await;
    let ada = node.issue("admin/ada").await;
    let long = " ".repeat(ADMIN_BODY_LEN_MAX + 1);
    for (method, path, status) in [
        ("POST", "/v1/acl/plan", 400),
        ("PUT", "/v1/acl/plan", 413),
        ("DELETE", "/v1/acl/apply", 413),
        ("POST", "/v1/acl/check", 413),
        ("POST", "/v1/nothing", 413),
    ] {
        let answer = node.over_https(&ada, method, path, &long).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn member_named_like_anothers_number_is_judged_as_itself() {
    let first = Node::bootstrap("n1").await;
    let token = first.token(Suffrage::Learner, 2).await;
    let odd = Node::join("3", &token, &first).await.unwrap();
    let third = Node::join("n3", &token, &first).await.unwrap();
    assert_eq!((odd.member().node(), third.member().node()), (NodeId(2), NodeId(3)));
    first.converged(3).await;
    let client = first.issue("client/ops").await;
    let allow = |name: &str| rule(name, "client/ops", "alter", &format!("member:{name}"));
    first.add_rule(allow("n3")).await;
    let body = json!({"edits": [{"name": "role", "value": "Odd"}]}).to_string();
    let label = async |node: &str| first.over_https(&client, "POST", &format!("/v1/nodes/{node}/label"), &body).await;
    for of_another in ["3", "2"] {
        let answer = label(of_another).await;
        assert_eq!(answer.status, 403, "{of_another}: {}", answer.body);
    }
    let labelled = async |node: &str| label(node).await.json::<Labelled>().principal;
    assert_eq!(labelled("n3").await, "node/3");
    first.add_rule(allow("3")).await;
    assert_eq!(labelled("3").await, "node/2");
    assert_eq!(labelled("2").await, "node/2");
}

#[tokio::test(flavor = "multi_thread")]
async fn path_that_names_no_key_and_no_principal_is_refused() {
    let node = Node::bootstrap("n1").await;
    for path in [
        "/v1/principals/king/pay",
        "/v1/principals/client/PAY",
        "/v1/principals/client/pay%00",
        "/v1/certificates/abcd",
        "/v1/tokens/abcd",
    ] {
        let answer = node.on_socket("DELETE", path, "").await;
        assert_eq!(answer.refused(), (400, "invalid".to_owned()), "{path}: {answer:?}");
        assert!(answer.json::<Problem>().next.is_some_and(|next| !next.is_empty()), "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_a_request_that_would_be_decided_otherwise() {
    let node = Node::bootstrap("n1").await;
    let ada = node.issue("admin/ada").await;
    node.over_https(&ada, "GET", "/v1/status", "").await;
    let nothing = json!({"policy": {"super_users": []}}).to_string();
    let plan: AclPlan = node.on_socket("POST", "/v1/acl/plan", &nothing).await.json();
    let [flip] = plan.flips.as_slice() else { panic!("{plan:?}") };
    let asked = &flip.request;
    assert_eq!(
        [&asked.principal, &asked.action, &asked.kind, &asked.name],
        ["admin/ada", "describe", "cluster", CLUSTER]
    );
    assert!(flip.before.allowed && !flip.after.allowed, "{flip:?}");
    assert_eq!(plan.generation, node.member().view().generation.0);
}

/// What a browser, a proxy or a thief of a name asks, and a caller that the cluster refuses.
#[tokio::test(flavor = "multi_thread")]
async fn https_port_answers_for_its_own_hosts_and_puts_refusals_on_record() {
    let node = Node::bootstrap("n1").await;
    let ada = node.issue("admin/ada").await;
    let https = node.member().https_addr().unwrap();
    let asked = async |path: &str, headers: &[(&'static str, String)]| {
        let mut asked = request("GET", path, Full::<bytes::Bytes>::default());
        for (name, value) in headers {
            asked.headers_mut().insert(*name, value.parse().unwrap());
        }
        exchanged(node.dial_https(&ada).await, asked).await
    };
    let own = ("host", https.to_string());
    assert_eq!(asked("/v1/status", std::slice::from_ref(&own)).await.status, 200);
    for elsewhere in ["evil.example".to_owned(), format!("evil.example:{}", https.port()), "127.0.0.1".to_owned()] {
        let answer = asked("/v1/status", &[("host", elsewhere.clone())]).await;
        assert_eq!(answer.refused(), (421, "misdirected".to_owned()), "{elsewhere}: {answer:?}");
        // Probes come by whatever name.
        assert_eq!(asked("/healthz", &[("host", elsewhere)]).await.status, 200);
    }
    // Names that the settings add, as a proxy asks by them.
    for (host, status) in
        [("console.example:8443", 200), ("console.example", 421), ("proxy.example", 200), ("proxy.example:8443", 421)]
    {
        assert_eq!(asked("/v1/status", &[("host", host.to_owned())]).await.status, status, "{host}");
    }
    for (name, value) in [("sec-fetch-site", "cross-site".to_owned()), ("origin", "https://evil.example".to_owned())] {
        let answer = asked("/v1/status", &[own.clone(), (name, value)]).await;
        assert_eq!(answer.refused(), (403, "cross-site".to_owned()), "{name}");
    }
    node.control().set_client_names(vec![countersign::Host::parse("lb.example").unwrap()]).await.unwrap();
    assert_eq!(asked("/v1/status", &[("host", "lb.example".to_owned())]).await.status, 200);

    node.revoke(ada.key).await;
    let answer = asked("/v1/status", &[own]).await;
    assert_eq!(answer.refused(), (403, "key-revoked".to_owned()));
    let told = answer.json::<Problem>().message;
    let id = told.split("(failure ").nth(1).unwrap().trim_end_matches(')').to_owned();
    let record: RefusalInfo = node.on_socket("GET", &format!("/v1/refusals/{id}"), "").await.json();
    assert_eq!((record.reason.as_str(), record.detail.as_deref()), ("key-revoked", Some("on the HTTPS port")));
    assert!(record.principal.unwrap().ends_with("/admin/ada"));
    // TLS that fails is on record as well.
    let mut plain = TcpStream::connect(https).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let from = plain.local_addr().unwrap();
    let recorded = async || {
        let path = format!("/v1/refusals?source={from}");
        node.on_socket("GET", &path, "").await.json::<Vec<RefusalInfo>>()
    };
    let found = async {
        loop {
            if let [one] = recorded().await.as_slice() {
                return one.clone();
            }
            // why: nothing tells when the handshake has failed
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(support::PATIENCE, found).await.unwrap();
    assert_eq!(found.reason, "handshake");
    assert!(found.detail.unwrap().starts_with("on the HTTPS port: "));
}
