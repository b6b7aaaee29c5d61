//! A client of a cluster: one certificate, any member that answers. `cargo run --example client -- pay.pem pay.key
//! ca.pem MEMBER:PORT...`, with client ports of members.

use countersign::{Address, Client};
use countersign_api::cluster::WhoamiRequest;
use countersign_api::cluster::whoami_client::WhoamiClient;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [chain, key, ca, members @ ..] = given.as_slice() else { return Err("give the files and members".into()) };
    let [chain, key, ca] = [chain, key, ca].map(std::fs::read_to_string);
    let client = Client::from_pem(&chain?, &key?, &ca?)?;
    let members: Vec<Address> = members.iter().map(|member| member.parse()).collect::<Result<_, _>>()?;
    // Yours is generated from your own `.proto`.
    let mut whoami = WhoamiClient::new(client.channel(members));
    println!("{}", whoami.whoami(WhoamiRequest {}).await?.into_inner().principal);
    Ok(())
}
