//! A service outside the cluster that decides by its rules: a broker with a certificate of its own, and no replica.
//!
//! Members tell it who belongs to the cluster and what the rules allow. It judges its callers as a member does. It
//! serves no caller once it has heard nothing for as long as a lease lasts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_api::cluster::certificates_server::{Certificates, CertificatesServer};
use countersign_api::cluster::{RenewReply, RenewRequest};
use countersign_core::locked::Locked;
use countersign_core::name::{Address, Host};
use countersign_core::peer::{Proof, Refusal, Scope, Wanted, verify};
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;
use countersign_guard::{ConnectError, Connecting, Controllers, Guard};
use countersign_net::{
    AcceptorLimits, ClientAcceptor, ClientDialer, Clock, Credential, Endpoint, LoggedRefusals, SystemClock, Trust,
};
use countersign_node::service::certificates::ask_elsewhere;
use countersign_node::service::clients::{self, ClientApp};
use countersign_node::service::site::{Named, Names};
use countersign_node::{ClientLimits, Clocks, Tasks, chain, channel_to, service};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::Client;
use crate::services::Services;

/// How long a member may take to tell the first view.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// Where members are, and by what this service is known to them.
pub struct RemoteGuardSettings {
    /// Client ports of members; one is watched, the next when it is lost.
    pub controllers: Vec<Address>,
    /// A broker, which may `read` the cluster's `policy`. Callers are shown the same certificate.
    pub client: Client,
    /// Where callers are accepted: a client port, as members have it.
    pub listen: SocketAddr,
    /// What one caller may take there.
    pub limits: ClientLimits,
}

impl RemoteGuardSettings {
    /// With the default limits.
    pub fn new(client: Client, controllers: Vec<Address>, listen: SocketAddr) -> Self {
        Self { controllers, client, listen, limits: ClientLimits::default() }
    }
}

/// Why there is no remote guard.
#[derive(Debug, thiserror::Error)]
pub enum RemoteGuardError {
    /// No member is named.
    #[error("no member is named")]
    NoController,
    /// No member told anything.
    #[error(
        "no member told this service anything within {} seconds: see its log, and whether its principal may `read` the \
         cluster's `policy`",
        CONNECT_DEADLINE.as_secs()
    )]
    Untold,
    /// Members say that this service may not know the rules.
    #[error(
        "members refuse this service: {why}; a rule lets it: `countersign acl add --principal broker/HOST --action \
         read --any policy`"
    )]
    Refused {
        /// What the last of them said.
        why: String,
    },
    /// The address cannot be bound.
    #[error("`{address}` cannot be bound")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A service on a host that is no member, which decides by the cluster's rules.
pub struct RemoteGuard {
    inner: Arc<countersign_guard::RemoteGuard>,
    endpoint: Endpoint,
    acceptor: Arc<ClientAcceptor>,
    names: Names,
    limits: ClientLimits,
    members: Arc<[String]>,
    following: CancellationToken,
    tasks: Tasks,
}

/// A remote guard that follows a member and serves no caller yet: what its services need can be taken from it.
pub struct ConnectedGuard(RemoteGuard);

impl ConnectedGuard {
    /// Decides who may do what.
    pub fn guard(&self) -> &Guard {
        self.0.guard()
    }

    /// Serves `services` to the principals that the rules allow, as [`Opened::serve`](crate::Opened::serve) does.
    pub fn serve(self, services: Services) -> RemoteGuard {
        let guard = self.0;
        let Services { grpc, http, .. } = services;
        let grpc = grpc.add_service(CertificatesServer::new(Elsewhere(Arc::clone(&guard.members))));
        let app = ClientApp::new(guard.guard(), grpc, http, Arc::clone(&guard.names)).within(guard.limits);
        clients::serve(&guard.tasks, guard.acceptor.connections(service::WAITING_MAX), app);
        guard.tasks.spawn(service::close_when_lapsed(guard.guard().clone(), guard.endpoint.clone()));
        let accepting = Arc::clone(&guard.acceptor);
        guard.tasks.spawn(async move { match accepting.run().await {} });
        guard
    }
}

impl RemoteGuard {
    /// Returns once a member has told which members belong to the cluster.
    ///
    /// # Errors
    /// [`RemoteGuardError`].
    pub async fn connect(settings: RemoteGuardSettings) -> Result<ConnectedGuard, RemoteGuardError> {
        let RemoteGuardSettings { controllers, client, listen, limits } = settings;
        let client = client.dialer().clone();
        let names = names_of(client.credential());
        let named = controllers.iter().map(ToString::to_string).collect();
        if controllers.is_empty() {
            return Err(RemoteGuardError::NoController);
        }
        // A rule that was just put in may not be known to each of them yet.
        let denials = controllers.len().saturating_mul(2).saturating_add(1);
        let endpoint = Arc::new(watch::Sender::new(None));
        let mut told = endpoint.subscribe();
        let (turn, followed) = (AtomicUsize::new(0), Arc::default());
        let members = Members { controllers, turn, client, endpoint: Arc::clone(&endpoint), followed };
        let known = Arc::clone(&endpoint);
        let clocks = Clocks(move || known.borrow().as_ref().map_or_else(|| SystemClock.now(), Endpoint::now));
        let inner = Arc::new(countersign_guard::RemoteGuard::new(Arc::new(members), Arc::new(clocks)));
        let tasks = Tasks::default();
        let following = tasks.stopping().child_token();
        let (follower, stopped) = (Arc::clone(&inner), following.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                never = follower.run() => match never {},
            }
        });
        let told = tokio::select! {
            told = tokio::time::timeout(CONNECT_DEADLINE, told.wait_for(Option::is_some)) => told,
            why = inner.denied(denials) => {
                tasks.stop();
                return Err(RemoteGuardError::Refused { why });
            }
        };
        let Some(endpoint) = told.ok().and_then(Result::ok).and_then(|endpoint| endpoint.clone()) else {
            tasks.stop();
            return Err(RemoteGuardError::Untold);
        };
        endpoint.registry().bound_principals(limits.connections);
        let listener = TcpListener::bind(listen).await.map_err(|source| {
            tasks.stop();
            RemoteGuardError::Bind { address: listen, source }
        })?;
        let acceptor = Arc::new(ClientAcceptor::on(listener, endpoint.clone(), AcceptorLimits::default()));
        Ok(ConnectedGuard(Self { inner, endpoint, acceptor, names, limits, members: named, following, tasks }))
    }

    /// Decides who may do what.
    pub fn guard(&self) -> &Guard {
        self.inner.guard()
    }

    /// Questions that were sent to members so far: one for each principal that was not known, however many waited for
    /// it.
    pub fn fetches(&self) -> u64 {
        self.inner.fetches()
    }

    /// Where callers are accepted.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.acceptor.local_addr()
    }

    /// Hears nothing from members any more, as if the network had failed, and goes on serving.
    #[doc(hidden)]
    pub fn deafen_for_testing(&self) {
        self.following.cancel();
    }

    /// Stops serving and following.
    pub async fn shutdown(&self) {
        self.tasks.stop();
        self.tasks.ended().await;
    }
}

impl Drop for RemoteGuard {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// The hosts that the service answers for: those in its certificate.
fn names_of(credential: &Credential) -> Names {
    let credential = credential.clone();
    Arc::new(move |host: &Host, _| if credential.is_for(host) { Named::Own } else { Named::Not })
}

/// Tells clients that want to renew where the members are that this guard follows.
struct Elsewhere(Arc<[String]>);

#[tonic::async_trait]
impl Certificates for Elsewhere {
    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        Err(ask_elsewhere("this service is no member", &self.0))
    }
}

struct Members {
    controllers: Vec<Address>,
    turn: AtomicUsize,
    client: ClientDialer,
    /// Made from the first view.
    endpoint: Arc<watch::Sender<Option<Endpoint>>>,
    /// What the member proved that was dialed last.
    followed: Arc<Locked<Option<Proof>>>,
}

/// Whether the holder of this proof may tell who belongs and what rules say. It must be a member that the newest view
/// known here still holds. An evicted member, a broker or a client is not believed.
fn may_tell(endpoint: Option<&Endpoint>, proof: &Proof) -> Result<(), Refusal> {
    let Some(endpoint) = endpoint else {
        return proof.principal().role.node_id().map(|_| ()).ok_or(Refusal::NotANode);
    };
    let view = Arc::clone(&endpoint.trust().load().view);
    match verify(proof, &view, Wanted::AnyNode, endpoint.now())?.scope() {
        Scope::Full => Ok(()),
        Scope::Recovery => Err(Refusal::Expired),
    }
}

impl Members {
    async fn dial(&self) -> Result<Channel, ConnectError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = turn.checked_rem(self.controllers.len()).and_then(|at| self.controllers.get(at));
        let address = at.ok_or_else(|| ConnectError(Box::new(RemoteGuardError::NoController)))?;
        let (endpoint, followed) = (self.endpoint.borrow().clone(), Arc::clone(&self.followed));
        let client = self.client.clone().with_judge(Arc::new(move |proof| {
            may_tell(endpoint.as_ref(), proof)?;
            *followed.lock() = Some(proof.clone());
            Ok(())
        }));
        let stream = client.dial(address).await.map_err(|error| ConnectError(Box::new(error)))?;
        tracing::info!(%address, "following the cluster");
        channel_to(address, stream).map_err(|error| ConnectError(Box::new(error)))
    }
}

impl Controllers for Members {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self.dial())
    }

    fn enforce(&self, view: &Arc<View>, time: UnixMillis) -> bool {
        let known = self.endpoint.borrow().clone();
        let Some(endpoint) = known else {
            let trust = Trust::of_view(Arc::clone(view), Some(Arc::clone(self.client.credential())), time);
            return match trust {
                Ok(trust) => {
                    let endpoint = Endpoint::new(trust, SystemClock, Arc::<LoggedRefusals>::default());
                    self.endpoint.send_replace(Some(endpoint));
                    true
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "what a member told cannot be used");
                    false
                }
            };
        };
        match endpoint.publish(Arc::clone(view), time) {
            Ok(closed) => {
                for connection in closed {
                    tracing::info!(
                        principal = %connection.principal, reason = %connection.refusal,
                        "connection closed"
                    );
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "what a member told cannot be put in force");
                return false;
            }
        }
        // The member that told of its own eviction, or whose key is known no more, is followed no further.
        let followed = self.followed.lock().clone();
        let still = followed.ok_or(Refusal::NotAMember).and_then(|proof| may_tell(Some(&endpoint), &proof));
        still
            .inspect_err(|refusal| tracing::warn!(%refusal, "the member that is followed may tell nothing more"))
            .is_ok()
    }
}
