//! A change of rules is tried on what was asked of late, of whichever member, on whichever port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeSet;

use countersign_api::admin::AclPlan;
use countersign_core::name::Address;
use countersign_net::https::dial_https;
use countersign_net::{Clock, SystemClock};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use support::{Issued, Node, cluster_of};

async fn planned(node: &Node) -> AclPlan {
    let (status, said) = node.ask("POST", "/v1/acl/plan", json!({"policy": {"super_users": []}}).to_string()).await;
    assert_eq!(status, 200, "{said}");
    serde_json::from_str(&said).unwrap()
}

/// Asks for the status over HTTPS.
async fn status(node: &Node, Issued { bundle, credential, .. }: &Issued) -> u16 {
    let address = Address::parse(&node.member().https_addr().unwrap().to_string()).unwrap();
    let stream = dial_https(&address, bundle.clone(), credential, SystemClock.now()).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("/v1/status").header("host", "x").body(Empty::<bytes::Bytes>::new());
    let answer = client.send_request(request.unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    answer.into_body().collect().await.unwrap();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_any_member_on_any_port_would_flip() {
    let mut nodes = cluster_of(3).await;
    let flips = async |node: &Node| {
        let AclPlan { flips, unheard, .. } = planned(node).await;
        let flip = |flip: &countersign_api::admin::AclFlip| {
            assert!(flip.before.allowed && !flip.after.allowed);
            format!("{} {} {}", flip.request.principal, flip.request.action, flip.request.name)
        };
        (flips.iter().map(flip).collect::<BTreeSet<_>>(), unheard)
    };
    assert_eq!(flips(&nodes[0]).await, (BTreeSet::new(), vec![]));

    let client = nodes[0].client("pay").await;
    client.connect(&nodes[1]).await.unwrap().ask().await.unwrap();
    let ada = nodes[0].issue("admin/ada").await;
    assert_eq!(status(&nodes[2], &ada).await, 200);
    let whoami = "client/pay write countersign.v1.Whoami/Whoami";
    let both = BTreeSet::from([whoami.to_owned(), "admin/ada describe test".to_owned()]);
    for node in &nodes {
        assert_eq!(flips(node).await, (both.clone(), vec![]));
    }
    // Whoever is not there is named, and what was asked of the others is known.
    nodes.pop().unwrap().stop().await;
    assert_eq!(flips(&nodes[0]).await, (BTreeSet::from([whoami.to_owned()]), vec!["n3".to_owned()]));
}
