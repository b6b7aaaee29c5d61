//! An embedder's own gRPC service on the client port: every call carries the peer that the connection proved.
//!
//! `cargo run --example service -- DIR` founds a cluster of one in DIR and serves until Ctrl-C. Call it with a
//! certificate from `countersign cert issue --client NAME`, and with a rule that lets it: `countersign acl add --data
//! DIR --principal client/NAME --action write --resource service:countersign.v1.Whoami/Whoami`. No other caller
//! reaches the service.

use countersign::{Caller, Member, NewCluster, Services, Settings, Start};
use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{WhoamiReply, WhoamiRequest};
use tonic::{Request, Response, Status};

/// Yours would come from your own `.proto`.
pub(crate) struct Greeter {
    pub(crate) member: Member,
}

#[tonic::async_trait]
impl Whoami for Greeter {
    async fn whoami(&self, request: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        let caller = request.extensions().get::<Caller>().ok_or_else(|| Status::unauthenticated("no caller"))?;
        // Immediately before the effect: what was judged when the call came in may be revoked by the time it is done.
        let _fresh = self.member.fresh().map_err(|denied| Status::unavailable(denied.to_string()))?;
        let principal = format!("hello, {}", caller.peer.principal());
        Ok(Response::new(WhoamiReply { principal, generation: caller.peer.generation().0, node: self.member.node().0 }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::args().nth(1).ok_or("give a data directory")?;
    let settings = Settings { name: Some("greeter".parse()?), ..Settings::new(data, "127.0.0.1:7100".parse()?) };
    let start = Start::Bootstrap(NewCluster::new("example".parse()?));
    let (opened, _) = Member::open(settings, start).await?;
    let greeter = Greeter { member: opened.member().clone() };
    let member = opened.serve(Services::builder().grpc(WhoamiServer::new(greeter)).build()).await?;
    tokio::signal::ctrl_c().await?;
    member.shutdown().await;
    Ok(())
}
