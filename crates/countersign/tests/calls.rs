//! Every call of the cluster port, made by every kind of identity under every protocol: who passes where stands in
//! `golden/calls.txt`, for a reviewer to read as a difference. `COUNTERSIGN_BLESS=1` writes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod ghost;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use countersign::{LeaseLength, calls_for_testing};
use countersign_core::authz::Rule;
use countersign_core::trust::member::Suffrage;
use countersign_net::hostile::dial_unchecked;
use countersign_net::{Alpn, Credential};
use ghost::{Ghost, copy};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::rules::{policy, rule};
use support::{Lifetimes, Node, agrees_with_golden, cluster_living};
use tonic::Code;

const PROTO: &str = include_str!("../../api/proto/countersign/v1/cluster.proto");

/// Under which protocols calls are made, and how a golden row shows those that pass.
const PROTOCOLS: [(Alpn, char); 3] = [(Alpn::Enroll, 'e'), (Alpn::Peer, 'p'), (Alpn::Client, 'c')];

/// What becomes of a call with an empty message. None if not even the connection is let in.
async fn called(node: &Node, alpn: Alpn, who: Option<&Arc<Credential>>, call: &str) -> Option<Code> {
    let address = match alpn {
        Alpn::Enroll | Alpn::Peer => node.address(),
        Alpn::Client => node.client_address(),
    };
    let stream = dial_unchecked(&address, alpn, who.map(|who| &**who)).await.ok()?;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = hyper::Request::post(format!("https://{address}/{call}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let empty = Full::new(Bytes::from_static(&[0; 5]));
    // A server that ends the connection after the handshake has let no caller in.
    let answer = client.send_request(request.body(empty).unwrap()).await.ok()?;
    let (head, mut body) = answer.into_parts();
    let mut status = head.headers.get("grpc-status").cloned();
    while status.is_none() {
        let frame = body.frame().await.expect("an answer ends with a status").ok()?;
        let Ok(trailers) = frame.into_trailers() else { return Some(Code::Ok) };
        status = trailers.get("grpc-status").cloned();
    }
    Some(Code::from_bytes(status.unwrap().as_bytes()))
}

/// Whether a call got past authorization, whatever became of it then.
fn passed(code: Option<Code>) -> bool {
    match code {
        None | Some(Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented) => false,
        Some(Code::Unknown | Code::Unavailable | Code::Internal) => panic!("{code:?} says neither"),
        Some(_) => true,
    }
}

/// The rule that a call needs, if one does.
fn needed(call: &str, access: &str) -> Option<Rule> {
    let (action, resource) = match access {
        "read policy CLUSTER" => ("read", "policy:test".to_owned()),
        "write service SERVICE/METHOD" => ("write", format!("service:{call}")),
        _ => return None,
    };
    Some(rule("granted", "client/granted", action, &resource))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_answered_only_to_the_callers_of_its_row() {
    let node = Node::bootstrap("n1").await;
    let mut members = BTreeMap::new();
    for (name, suffrage) in [("voter", Suffrage::Voter), ("learner", Suffrage::Learner), ("evicted", Suffrage::Learner)]
    {
        let token = node.token(suffrage, 1).await;
        members.insert(name, Node::join(name, &token, &node).await.unwrap());
    }
    node.converged(4).await;
    let stolen = |name: &str| Ghost::of(copy(members[name].data.path()).path(), &node).credential();
    let (voter, learner, evicted) = (stolen("voter"), stolen("learner"), stolen("evicted"));
    node.evict("evicted").await;
    let issued = async |role: &str| node.issue(role).await.credential;
    let (client, granted) = (issued("client/none").await, issued("client/granted").await);
    let (broker, ada, eve) = (issued("broker/b1.example").await, issued("admin/ada").await, issued("admin/eve").await);
    node.apply(policy(&["admin/ada"], [])).await;

    let mut seen = String::new();
    for (call, access) in calls_for_testing() {
        let mut row = format!("{call:<38} {access:<52}");
        for (name, who) in [
            ("unauthenticated", None),
            ("evicted", Some(&evicted)),
            ("client", Some(&client)),
            ("granted", Some(&granted)),
            ("broker", Some(&broker)),
            ("eve", Some(&eve)),
            ("ada", Some(&ada)),
            ("learner", Some(&learner)),
            ("voter", Some(&voter)),
        ] {
            let grant = needed(&call, &access).filter(|_| name == "granted");
            if let Some(rule) = &grant {
                node.add_rule(rule.clone()).await;
            }
            row.push(' ');
            for (alpn, letter) in PROTOCOLS {
                let passed = passed(called(&node, alpn, who, &call).await);
                row.push(if passed { letter } else { '-' });
            }
            if grant.is_some() {
                node.remove_rule("granted").await;
            }
        }
        seen.push_str(&row);
        seen.push('\n');
    }
    let header = "Calls of the cluster port, under the protocols enroll (e) and peer (p), and of the client port (c),\n\
                  by: an unauthenticated caller, an evicted node, a client without a rule, a client with exactly\n\
                  the rule for it, a broker, an admin who is no super-user any more, an admin, a learner, a voter.\n\
                  A letter where the call got past authorization.\n\n";
    agrees_with_golden("calls.txt", &format!("{header}{seen}"));
}

#[test]
fn cluster_port_calls_and_rows_of_the_table_match() {
    let package = PROTO.lines().find_map(|line| line.strip_prefix("package ")).unwrap().trim_end_matches(';');
    let (mut served, mut service) = (BTreeSet::new(), "");
    for line in PROTO.lines() {
        if let Some(name) = line.strip_prefix("service ") {
            service = name.split(' ').next().unwrap();
        }
        if let Some(call) = line.trim_start().strip_prefix("rpc ") {
            served.insert(format!("{package}.{service}/{}", call.split('(').next().unwrap()));
        }
    }
    assert!(served.len() > 8, "calls were read: {served:?}");
    let rows = calls_for_testing().into_iter().map(|(call, _)| call);
    let rows: BTreeSet<String> = rows.filter(|call| call.starts_with(package)).collect();
    assert_eq!(rows, served);
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_member_answers_no_call() {
    let lifetimes = Lifetimes { lease: LeaseLength::from_secs(2).unwrap(), ..Lifetimes::default() };
    let mut nodes = cluster_living(2, lifetimes).await;
    let (data, _) = nodes.pop().unwrap().stop().await;
    // Its peer may be evicted by now, for all that it knows.
    let peer = Ghost::of(data.path(), &nodes[0]).credential();
    let call = async |method: &str| {
        called(&nodes[0], Alpn::Peer, Some(&peer), &format!("countersign.v1.Members/{method}")).await
    };
    let lapsed = async {
        while nodes[0].member().fresh().is_ok() {
            // why: a lease lapses by the passing of time alone
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), lapsed).await.unwrap();
    assert_eq!(call("AdminAddress").await, Some(Code::Ok));
    assert_eq!(call("Recent").await, Some(Code::Unavailable));
}
