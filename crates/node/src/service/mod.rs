//! What a member serves: on the cluster port one router for each of its two protocols, on the client port services for
//! principals.
//!
//! Each call has a row that says which callers may make it: in the file of its capability, or in `endpoints` if it
//! belongs to none. A call without a row needs a rule. `enrollment` serves unauthenticated callers; `peers` and
//! `leases` serve members; `certificates` and `policy` serve all principals, beside the services of the embedder. No
//! service is reached on a stream whose peer was not judged for its protocol.

mod bounds;
pub mod certificates;
pub mod clients;
mod credential;
pub mod endpoints;
pub(crate) mod enrollment;
pub mod io;
mod leased;
mod leases;
mod pace;
pub(crate) mod peers;
pub(crate) mod policy;
mod quic;
mod quic_request;
mod recovery;
pub mod site;
mod slow;
mod under_way;
pub(crate) mod unread;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use countersign_api::cluster::members_server::MembersServer;
use countersign_api::cluster::raft_server::RaftServer;
use countersign_api::cluster::snapshots_server::SnapshotsServer;
use countersign_api::convert::MessageError;
use countersign_core::codec::CodecError;
use countersign_core::limits::{AUTHOR_LEN_MAX, CERTIFICATE_LEN_MAX, COMMAND_LEN_MAX, PEER_REQUESTS_MAX};
use countersign_core::name::Host;
use countersign_raft::RaftRpc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::Receiver;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::capabilities::ClusterServices;
use crate::node::Node;
use crate::tasks::Tasks;
use bounds::{Bounds, bounded};
use io::Served;
pub use leased::close_when_lapsed;
use peers::PeerService;
use site::{Named, Names};

/// Connections handed over and not yet taken up.
pub const WAITING_MAX: usize = 64;
/// Streams that one connection of a member may have open; more would only be refused one by one.
const PEER_STREAMS_MAX: u32 = PEER_REQUESTS_MAX as u32;
/// Bytes of a message beside the one long field in it.
const FRAMING: usize = 1024;

/// The answer to a message whose field `what` cannot be read: nothing of the message was carried out.
fn unreadable(what: &'static str, error: MessageError) -> Status {
    match error {
        MessageError::Encoded { source, .. } => undecodable(what, &source),
        MessageError::Length { .. } | MessageError::TrustDomain(_) => {
            Status::invalid_argument(format!("malformed {what}"))
        }
    }
}

/// The same where the field was decoded at the level that it names. A level that is not known is told as such, so that
/// the sender learns that its message is no error and this member is older.
fn undecodable(what: &'static str, error: &CodecError) -> Status {
    match error {
        CodecError::Level { .. } => Status::unimplemented(error.to_string()),
        CodecError::Empty | CodecError::Version { .. } | CodecError::Trailing { .. } | CodecError::Malformed(_) => {
            Status::invalid_argument(format!("malformed {what}"))
        }
    }
}

/// Serves both ports and accepts from now on: the trust group, what the capabilities serve, and on the client port the
/// embedder's services to the principals that the rules allow.
pub(crate) fn spawn(node: &Node, mut served: ClusterServices, app: Option<Router>) {
    let accepted = node.acceptor.routes();
    run(&node.tasks, accepted.enrollments(WAITING_MAX), served.unauthenticated, 4);

    let (reporter, health) = tonic_health::server::health_reporter();
    let peers = PeerService::of(node);
    let raft = RaftServer::new(peers.clone()).max_decoding_message_size(RaftRpc::MESSAGE_LEN_MAX + FRAMING);
    let snapshots =
        SnapshotsServer::new(peers.clone()).max_decoding_message_size(RaftRpc::Snapshot.len_max() + FRAMING);
    let members = MembersServer::new(peers)
        .max_decoding_message_size(COMMAND_LEN_MAX + CERTIFICATE_LEN_MAX + AUTHOR_LEN_MAX + FRAMING);
    served.members = served.members.add_service(raft).add_service(snapshots).add_service(members).add_service(health);
    let recovery = from_fn_with_state(Arc::clone(&node.local), recovery::recovering);
    let bounds = from_fn_with_state(Bounds::of(node.groups.clone()), bounded);
    let routes = Routes::from(served.members.into_axum_router().layer(recovery).layer(bounds));
    run(&node.tasks, accepted.peers(WAITING_MAX), routes, PEER_STREAMS_MAX);
    node.tasks.spawn(async move { reporter.set_serving::<RaftServer<PeerService>>().await });

    if let Some(acceptor) = &node.clients {
        let app =
            clients::ClientApp::new(&node.guard, served.principals, app, names_of(node)).within(node.client_limits);
        if let Some(acceptor) = &node.quic {
            quic::serve(&node.tasks, acceptor, &node.guard, &app.under_way());
        }
        clients::serve(&node.tasks, acceptor.connections(WAITING_MAX), app);
        let acceptor = Arc::clone(acceptor);
        node.tasks.spawn(async move { match acceptor.run().await {} });
    }
    let acceptor = Arc::clone(&node.acceptor);
    node.tasks.spawn(async move { match acceptor.run().await {} });
}

/// The hosts that a member answers for.
fn names_of(node: &Node) -> Names {
    let (local, advertised) = (Arc::clone(&node.local), node.endpoints.client_address());
    Arc::new(move |host: &Host, port| {
        let view = local.view();
        if advertised.as_ref().is_some_and(|advertised| advertised.host == *host && advertised.port == port) {
            return Named::Here;
        }
        let own = view.members.get(&local.node).is_some_and(|member| member.hosts.own.contains(host));
        if own {
            Named::Own
        } else if view.client_names.contains(host) {
            Named::Shared
        } else {
            Named::Not
        }
    })
}

/// Serves `routes` on accepted connections until the member stops.
fn run<S>(tasks: &Tasks, accepted: Receiver<S>, routes: Routes, streams: u32)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Served<S>: Connected,
{
    let incoming = ReceiverStream::new(accepted).map(|stream| Ok::<_, std::io::Error>(Served(stream)));
    let server = Server::builder()
        .max_concurrent_streams(streams)
        .initial_connection_window_size(4 * 1024 * 1024)
        .initial_stream_window_size(4 * 1024 * 1024)
        .add_routes(routes);
    let stop = tasks.stopping();
    tasks.spawn_finishing(async move {
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await {
            tracing::error!(error = %crate::chain(&error), "gRPC server ended");
        }
    });
}
