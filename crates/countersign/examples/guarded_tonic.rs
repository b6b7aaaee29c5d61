//! A gRPC service behind the cluster's rules, on a host that is no member. A caller needs a rule for the method, and
//! the method asks about what it touches.
//!
//! `cargo run --example guarded_tonic -- MEMBER:PORT broker.pem broker.key ca.pem`, with the client port of a member and
//! a broker's certificate (`countersign cert issue --broker HOST`) whose principal may read policy (`countersign acl add
//! --principal broker/HOST --action read --any policy`).

use countersign::{Action, Caller, Client, Guard, Kind, Permit, RemoteGuard, RemoteGuardSettings, Services};
use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{WhoamiReply, WhoamiRequest};
use tonic::{Request, Response, Status};

/// Yours would come from your own `.proto`.
struct Greeter(Guard);

/// Without a permit this does not compile.
fn greeting(permit: &Permit<'_>) -> String {
    format!("hello by generation {}", permit.generation())
}

#[tonic::async_trait]
impl Whoami for Greeter {
    async fn whoami(&self, request: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        let caller = request.extensions().get::<Caller>().ok_or_else(|| Status::unauthenticated("no caller"))?;
        // It was asked about when the method's rule was: what is known of the caller is here.
        let denied = |denial: countersign::Denial| Status::permission_denied(denial.to_string());
        let session = self.0.session(&caller.peer, Some(caller.remote.ip())).map_err(denied)?;
        let fresh = self.0.fresh().map_err(|denied| Status::unavailable(denied.to_string()))?;
        let permit = session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, "greetings").map_err(denied)?;
        Ok(Response::new(WhoamiReply { principal: greeting(&permit), generation: permit.generation().0, node: 0 }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [member, chain, key, authority] = given.try_into().map_err(|_| "give four arguments, as above")?;
    let [chain, key, authority] = [chain, key, authority].map(std::fs::read_to_string);
    let client = Client::from_pem(&chain?, &key?, &authority?)?;
    let (controllers, listen) = (vec![member.parse()?], "127.0.0.1:7300".parse()?);
    let settings = RemoteGuardSettings { controllers, client, listen };
    let connected = RemoteGuard::connect(settings).await?;
    let greeter = Greeter(connected.guard().clone());
    let remote = connected.serve(Services::builder().grpc(WhoamiServer::new(greeter)).build());
    tokio::signal::ctrl_c().await?;
    remote.shutdown().await;
    Ok(())
}
