//! `call` by the real binary: members' own services, an embedder's that tells its schema by reflection, HTTP, and every
//! way in which a call fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use countersign::{Member, NewCluster, Services, Settings, Start};
use http_body_util::{BodyExt, Full};
use hyper::Response;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use support_cluster::{Node, Said, World, run};
use tokio::runtime::Runtime;

/// A client's files, and what it calls.
struct Pay {
    dir: PathBuf,
    data: PathBuf,
    at: String,
    key: String,
}

impl Pay {
    fn of(world: &World, data: &Path, at: &str) -> Self {
        let dir = world.path("pay");
        let flags = ["--out", path(&dir), "--data", path(data), "--json"];
        let issued = run(&[&["cert", "issue", "--client", "pay"], &flags[..]].concat()).ok().json();
        Self { dir, data: data.to_owned(), at: at.to_owned(), key: issued["key"].as_str().unwrap().to_owned() }
    }

    fn of_node(world: &World, node: &Node) -> Self {
        Self::of(world, &node.data, &node.client_address())
    }

    fn call(&self, path: &str, flags: &[&str]) -> Said {
        let at = |name: &str| self.dir.join(name).to_str().unwrap().to_owned();
        let (certificate, key, ca) = (at("pay.pem"), at("pay.key"), at("ca.pem"));
        let files = ["--cert", &certificate, "--key", &key, "--ca", &ca];
        run(&[&["call", &self.at, path], &files[..], flags].concat())
    }

    fn allow(&self, action: &str, service: &str) {
        let resource = format!("service:{service}");
        let rule = ["--principal", "client/pay", "--action", action, "--resource", &resource, "--wait"];
        run(&[&["acl", "add"], &rule[..], &["--data", path(&self.data)]].concat()).ok();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn failed(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "no `{word}`: {said:?}");
    }
}

const WHOAMI: &str = "/countersign.v1.Whoami/Whoami";
const CHECK: &str = "/grpc.health.v1.Health/Check";

#[test]
fn a_members_own_services_are_called_without_reflection() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::of_node(&world, &node);
    let said = pay.call(CHECK, &[]).ok();
    assert_eq!(said.json()["status"], "SERVING");
    let denied = pay.call("/shop.v1.Orders/Get", &["--raw"]);
    failed(&denied, 1, &["PermissionDenied", "generation", "acl explain"]);
    let said = pay.call(WHOAMI, &["--json"]).ok().json();
    assert_eq!(said["status"], "OK");
    assert!(said["generation"].as_u64() > Some(0), "{said}");
    assert!(said["messages"][0]["principal"].as_str().unwrap().ends_with("/client/pay"), "{said}");
    // The same by its bytes, and by one file that holds all.
    let raw = pay.call(WHOAMI, &["--raw"]).ok().stdout;
    assert!(raw.contains(&data_encoding::HEXLOWER.encode(b"/client/pay")), "{raw}");
    let bundle = world.path("bundle.pem");
    let text = ["pay.pem", "pay.key"].map(|name| fs::read_to_string(pay.dir.join(name)).unwrap()).concat();
    fs::write(&bundle, text).unwrap();
    fs::set_permissions(&bundle, Permissions::from_mode(0o600)).unwrap();
    run(&["call", &pay.at, CHECK, "--cert", path(&bundle)]).ok();
    // A stream is shown as it comes, until the deadline.
    let watched = pay.call("/grpc.health.v1.Health/Watch", &["--deadline", "1s"]);
    failed(&watched, 3, &["1 seconds", "--deadline"]);
    assert!(watched.stdout.contains("SERVING"), "{watched:?}");
}

#[test]
fn http_answers_are_printed_whatever_their_status() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::of_node(&world, &node);
    failed(&pay.call("/orders", &[]), 1, &["HTTP 403", "generation", "acl explain"]);
    pay.allow("read", "/orders");
    // There is no such page; a rule about reading does not allow to write.
    failed(&pay.call("/orders", &[]), 1, &["HTTP 404"]);
    failed(&pay.call("/orders", &["--data", "{}"]), 1, &["HTTP 403"]);
    failed(&pay.call("/orders", &["--method", "DELETE"]), 1, &["HTTP 403"]);
    let said = pay.call("/orders", &["--json"]);
    assert_eq!((said.code, said.json()["status"].as_u64()), (1, Some(404)), "{said:?}");
}

#[test]
fn a_revoked_caller_is_told_the_reason_and_a_failure_id() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::of_node(&world, &node);
    node.ask(&["cert", "revoke", &pay.key]).ok();
    // Not taken for a service without reflection.
    for path in [CHECK, "/orders", "/shop.v1.Orders/Get"] {
        let said = pay.call(path, &[]);
        failed(&said, 1, &["[key-revoked]", "(failure "]);
        assert!(!said.stderr.contains("does not tell"), "{said:?}");
        let id: String = said.stderr.split("(failure ").nth(1).unwrap().chars().take(16).collect();
        assert!(node.ask(&["explain", &id]).ok().stdout.contains("revoked"), "{said:?}");
    }
}

#[test]
fn what_cannot_be_called_is_told_with_what_to_do() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::of_node(&world, &node);
    failed(&pay.call("/shop.v1.Orders/Get", &[]), 1, &["does not tell the schema", "--raw"]);
    failed(&pay.call("/grpc.health.v1.Health/Absent", &[]), 2, &["has no method Absent"]);
    failed(&pay.call(CHECK, &["--data", r#"{"servce": "x"}"#]), 2, &["HealthCheckRequest", "servce"]);
    failed(&pay.call(CHECK, &["--raw", "--data", "0"]), 2, &["hexadecimal or base64"]);
    failed(&pay.call(CHECK, &["--data", "@/absent"]), 2, &["/absent"]);
    failed(&pay.call("orders", &[]), 2, &["not the path"]);
    failed(&pay.call("/orders", &["--raw"]), 2, &["not the path of a gRPC call"]);
    // No such service: the member's word, of the health service itself.
    failed(&pay.call(CHECK, &["--data", r#"{"service": "absent"}"#]), 1, &["NotFound"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for path in [CHECK, "/orders"] {
        failed(
            &Pay { at: closed.clone(), dir: pay.dir.clone(), data: pay.data.clone(), key: String::new() }
                .call(path, &[]),
            3,
            &[&closed],
        );
    }
    let other = run(&["cert", "issue", "--client", "pay", "--out", path(&world.path("o")), "--data", path(&pay.data)]);
    other.ok();
    fs::copy(world.path("o").join("pay.key"), pay.dir.join("pay.key")).unwrap();
    failed(&pay.call(CHECK, &[]), 2, &["do not belong together", "cert issue"]);
}

/// `shop.v1.Orders/Get`, whose messages stand in another file.
fn schema() -> FileDescriptorSet {
    let field = |name: &str, number, of: Type| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(of as i32),
        ..FieldDescriptorProto::default()
    };
    let at = FieldDescriptorProto {
        type_name: Some(".google.protobuf.Timestamp".to_owned()),
        ..field("at", 3, Type::Message)
    };
    let order = DescriptorProto {
        name: Some("Order".to_owned()),
        field: vec![field("id", 1, Type::Uint64), field("note", 2, Type::String), at],
        ..DescriptorProto::default()
    };
    let file = |name: &str, imports: &[&str]| FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some("shop.v1".to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: imports.iter().map(|&import| import.to_owned()).collect(),
        ..FileDescriptorProto::default()
    };
    let get = MethodDescriptorProto {
        name: Some("Get".to_owned()),
        input_type: Some(".shop.v1.Order".to_owned()),
        output_type: Some(".shop.v1.Order".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let orders = ServiceDescriptorProto {
        name: Some("Orders".to_owned()),
        method: vec![get],
        ..ServiceDescriptorProto::default()
    };
    let messages = FileDescriptorProto {
        message_type: vec![order],
        ..file("shop/v1/order.proto", &["google/protobuf/timestamp.proto"])
    };
    let service =
        FileDescriptorProto { service: vec![orders], ..file("shop/v1/orders.proto", &["shop/v1/order.proto"]) };
    let well_known = prost_reflect::DescriptorPool::global();
    let timestamp = well_known.get_file_by_name("google/protobuf/timestamp.proto").unwrap();
    FileDescriptorSet { file: vec![timestamp.file_descriptor_proto().clone(), messages, service] }
}

/// Answers with the message that it got.
async fn echo(message: Bytes) -> Response<Body> {
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        Some(Ok(trailers))
    };
    let body = Body::new(Full::new(message).with_trailers(trailers));
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// An embedder's member with a service that tells its schema, and pages.
async fn shop(data: &Path) -> Member {
    let settings =
        Settings { name: Some("n1".parse().unwrap()), ..Settings::new(data, "127.0.0.1:0".parse().unwrap()) };
    let start = Start::Bootstrap(NewCluster::new("test".parse().unwrap()));
    let (opened, _) = Member::open(settings, start).await.unwrap();
    let reflection = tonic_reflection::server::Builder::configure().register_file_descriptor_set(schema());
    let pages = Router::new()
        .route("/orders", get(async || r#"{"orders":[7]}"#).post(async |body: String| body))
        .route("/long", get(async || "x".repeat(17 * 1024 * 1024)));
    let services = Services::builder()
        .grpc(reflection.build_v1().unwrap())
        .grpc_router(Router::new().route("/shop.v1.Orders/Get", post(echo)))
        .http(pages)
        .build();
    opened.serve(services).await.unwrap()
}

#[test]
fn a_service_that_tells_its_schema_is_called_in_json() {
    let world = World::new();
    let (runtime, data) = (Runtime::new().unwrap(), world.path("n1"));
    let member = runtime.block_on(shop(&data));
    let endpoints: serde_json::Value = serde_json::from_slice(&fs::read(data.join("endpoints.json")).unwrap()).unwrap();
    let pay = Pay::of(&world, &data, endpoints["client"].as_str().unwrap());
    let (get, order) = ("/shop.v1.Orders/Get", r#"{"id":"7","note":"two","at":"2026-01-02T03:04:05Z"}"#);
    pay.allow("write", "shop.v1.Orders/Get");
    // The schema is a service of its own, which takes a rule; the bytes go without.
    failed(&pay.call(get, &["--data", order]), 1, &["does not tell the schema", "ServerReflectionInfo"]);
    let raw = pay.call(get, &["--raw", "--data", "0807120374776f"]).ok();
    assert_eq!(raw.stdout, "0807120374776f\n");
    pay.allow("write", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let expected: serde_json::Value = serde_json::from_str(order).unwrap();
    assert_eq!(pay.call(get, &["--data", order]).ok().json(), expected);
    let file = world.path("order.json");
    fs::write(&file, order).unwrap();
    let said = pay.call(get, &["--data", &format!("@{}", file.display()), "--json"]).ok().json();
    assert_eq!(said["messages"][0], expected);
    failed(&pay.call(get, &["--data", r#"{"id":"many"}"#]), 2, &["shop.v1.Order"]);
    failed(&pay.call("/shop.v1.Absent/Get", &[]), 1, &["does not tell the schema"]);

    for (action, page) in [("read", "/orders"), ("write", "/orders"), ("read", "/long")] {
        pay.allow(action, page);
    }
    let said = pay.call("/orders", &[]).ok();
    assert_eq!(said.stdout, r#"{"orders":[7]}"#);
    assert!(said.stderr.starts_with("HTTP 200 OK, generation "), "{said:?}");
    assert_eq!(pay.call("/orders", &["--data", order, "--json"]).ok().json()["body"], expected);
    failed(&pay.call("/long", &[]), 3, &["more than 16777216 bytes"]);
    runtime.block_on(member.shutdown());
}
