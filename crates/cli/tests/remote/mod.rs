//! A remote guard in this process, for stock clients: a broker called `localhost` that follows members of a cluster of
//! the real binary, with an HTTP app and with a service that says who calls.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use countersign::{Caller, Client, RemoteGuard, RemoteGuardSettings, Services};
use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{WhoamiReply, WhoamiRequest};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

use super::support_cluster::{Node, PATIENCE, World};

/// Answers with the name of the caller.
struct Greeter;

#[tonic::async_trait]
impl Whoami for Greeter {
    async fn whoami(&self, request: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        let caller = request.extensions().get::<Caller>().unwrap();
        let principal = caller.peer.principal().to_string();
        Ok(Response::new(WhoamiReply { principal, generation: 0, node: 0 }))
    }
}

/// One that runs until it is dropped.
pub struct Remote {
    runtime: Runtime,
    guard: Option<RemoteGuard>,
    issued: PathBuf,
    followed: String,
    app: fn() -> Router,
}

impl Remote {
    /// Follows `followed`, by a certificate and a rule that `admin` makes.
    pub fn following(world: &World, admin: &Node, followed: &Node, app: fn() -> Router) -> Self {
        let issued = world.path("broker");
        admin.ask(&["cert", "issue", "--broker", "localhost", "--out", issued.to_str().unwrap()]).ok();
        let rule = ["--principal", "broker/localhost", "--action", "read", "--any", "policy", "--wait"];
        admin.ask(&[&["acl", "add"], &rule[..]].concat()).ok();
        let (runtime, followed) = (Runtime::new().unwrap(), followed.client_address());
        let mut remote = Self { runtime, guard: None, issued, followed, app };
        remote.start("127.0.0.1:0".parse().unwrap());
        remote
    }

    fn start(&mut self, listen: SocketAddr) {
        let read = |name: &str| std::fs::read_to_string(self.issued.join(name)).unwrap();
        let client = Client::from_pem(&read("localhost.pem"), &read("localhost.key"), &read("ca.pem")).unwrap();
        let settings = RemoteGuardSettings::new(client, vec![self.followed.parse().unwrap()], listen);
        let services = Services::builder().grpc(WhoamiServer::new(Greeter)).http((self.app)()).build();
        let serving = async {
            let connected = RemoteGuard::connect(settings).await.unwrap();
            while connected.guard().fresh().is_err() {
                // why: nothing tells when the first lease begins
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            connected.serve(services)
        };
        let serving = async { tokio::time::timeout(PATIENCE, serving).await.expect("no lease") };
        self.guard = Some(self.runtime.block_on(serving));
    }

    /// Where clients call it, by the name in its certificate.
    pub fn target(&self) -> String {
        format!("localhost:{}", self.guard.as_ref().unwrap().local_addr().unwrap().port())
    }

    /// It ends as it should, and starts again at its port.
    pub fn restart(&mut self) {
        let guard = self.guard.take().unwrap();
        let listen = guard.local_addr().unwrap();
        self.runtime.block_on(guard.shutdown());
        drop(guard);
        self.start(listen);
    }
}
