//! The smallest service on the client port: it tells a caller who it has proven to be.

use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{WhoamiReply, WhoamiRequest};
use countersign_core::limits::CLIENT_MESSAGE_LEN_MAX;
use tonic::{Request, Response, Status};

use crate::Caller;

/// Answers each caller with its own principal.
#[derive(Debug, Clone)]
pub struct WhoamiService {
    node: u64,
}

impl WhoamiService {
    /// The service of this member, to be handed to [`Services`](crate::Services).
    pub fn of(member: &crate::Member) -> WhoamiServer<Self> {
        WhoamiServer::new(Self { node: member.node().0 }).max_decoding_message_size(CLIENT_MESSAGE_LEN_MAX)
    }
}

#[tonic::async_trait]
impl Whoami for WhoamiService {
    async fn whoami(&self, request: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        let caller = request.extensions().get::<Caller>().ok_or_else(|| Status::unauthenticated("no caller"))?;
        Ok(Response::new(WhoamiReply {
            principal: caller.peer.principal().to_string(),
            generation: caller.peer.generation().0,
            node: self.node,
        }))
    }
}
