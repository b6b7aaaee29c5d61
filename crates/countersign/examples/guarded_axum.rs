//! An HTTP service behind the cluster's rules: a layer for whole routes, an extractor where a handler asks about more.
//!
//! `cargo run --example guarded_axum -- DIR`, then `countersign acl add --data DIR --principal client/pay --action read
//! --resource-prefix service:/orders/` and `--topic orders`: `client/pay` reads, and no other caller does anything.

use axum::Router;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::{StatusCode, request::Parts};
use axum::routing::get;
use countersign::{Action, Caller, Guard, Kind, Member};
use countersign::{NewCluster, Services, Settings, Start};

/// The caller, as the connection proved it.
struct Peer(Caller);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get().cloned().map(Self).ok_or(StatusCode::UNAUTHORIZED)
    }
}

async fn orders(
    State(guard): State<Guard>,
    Peer(caller): Peer,
    Path(topic): Path<String>,
) -> Result<String, StatusCode> {
    let session = guard.session(&caller.peer, Some(caller.remote.ip())).map_err(|_| StatusCode::FORBIDDEN)?;
    let fresh = guard.fresh().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let permit = session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, &topic);
    permit.map(|permit| format!("what is in {}\n", permit.name())).map_err(|_| StatusCode::FORBIDDEN)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::args().nth(1).ok_or("give a data directory")?;
    let settings = Settings { name: Some("shop".parse()?), ..Settings::new(data, "127.0.0.1:7100".parse()?) };
    let (name, policy) = ("example".parse()?, Default::default());
    let cluster = NewCluster { name, trust_domain: None, token: None, authority: None, policy };
    let (opened, _) = Member::open(settings, Start::Bootstrap(cluster)).await?;
    let app = Router::new().route("/orders/{topic}", get(orders)).with_state(opened.member().guard().clone());
    let member = opened.serve(Services::builder().http(app).build()).await?;
    tokio::signal::ctrl_c().await?;
    member.shutdown().await;
    Ok(())
}
