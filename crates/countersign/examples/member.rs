//! An axum app on a member. `cargo run --example member -- DIR`, then `countersign acl add --data DIR --principal
//! client/pay --action read --resource-prefix service:/orders/`, and another rule with `--topic shoes`.

use axum::{Router, extract::Path, routing::get};
use countersign::{Action, Denial, Kind, Member, NewCluster, Permits, Services, Settings, Start};

pub(crate) async fn orders(permits: Permits, Path(topic): Path<String>) -> Result<String, Denial> {
    let permit = permits.permit(Action::Read, &Kind::TOPIC, &topic)?;
    Ok(format!("{} reads {}\n", permits.caller().peer.principal(), permit.name()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::args().nth(1).ok_or("give a data directory")?;
    let settings = Settings { name: Some("shop".parse()?), ..Settings::new(data, "127.0.0.1:7100".parse()?) };
    let start = Start::Bootstrap(NewCluster::new("example".parse()?));
    let (opened, _) = Member::open(settings, start).await?;
    let app = Router::new().route("/orders/{topic}", get(orders)).with_state(opened.member().guard().clone());
    let member = opened.serve(Services::builder().http(app).build()).await?;
    tokio::signal::ctrl_c().await?;
    member.shutdown().await;
    Ok(())
}
