//! An axum app on a host that is no member. `countersign cert issue --broker HOST --out DIR` makes its certificate, and
//! `countersign acl add --principal broker/HOST --action read --any policy` lets it decide by the rules.

use axum::{Router, extract::Path, routing::get};
use countersign::{Action, Client, Denial, Kind, Permits, RemoteGuard, RemoteGuardSettings, Services};

async fn orders(permits: Permits, Path(topic): Path<String>) -> Result<String, Denial> {
    let permit = permits.permit(Action::Read, &Kind::TOPIC, &topic)?;
    Ok(format!("{} reads {}\n", permits.caller().peer.principal(), permit.name()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [member, chain, key, ca] = given.try_into().map_err(|_| "give MEMBER:PORT HOST.pem HOST.key ca.pem")?;
    let [chain, key, ca] = [chain, key, ca].map(std::fs::read_to_string);
    let (client, listen) = (Client::from_pem(&chain?, &key?, &ca?)?, "0.0.0.0:7300".parse()?);
    let connected = RemoteGuard::connect(RemoteGuardSettings::new(client, vec![member.parse()?], listen)).await?;
    let app = Router::new().route("/orders/{topic}", get(orders)).with_state(connected.guard().clone());
    let remote = connected.serve(Services::builder().http(app).build());
    tokio::signal::ctrl_c().await?;
    remote.shutdown().await;
    Ok(())
}
