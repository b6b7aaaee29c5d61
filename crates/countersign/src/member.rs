//! A member of a cluster, running.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign_core::enroll::dial_back::DialBack;
use countersign_core::id::{NodeId, RequestId, StoreId};
use countersign_core::lease::{Fresh, NoLease};
use countersign_core::limits::CACHE_TTL_SECS_MAX;
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::name::Name;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::{Actor, Claim};
use countersign_core::trust::view::View;
use countersign_guard::Guard;
use countersign_net::{Acceptor, AcceptorLimits, Clock, Dialer, Endpoint, Refusals, SystemClock, Trust};
use countersign_pki::key::KeyAlgorithm;
use countersign_raft::{Groups, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Keeper;
use crate::bootstrap::{self, BootstrapError};
use crate::bound::{Bound, node_name};
use crate::control::Control;
use crate::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file};
use crate::divergence::Divergence;
use crate::endpoints::Endpoints;
use crate::events::EventLog;
use crate::files::ForeignIdentity;
use crate::heard::Heard;
use crate::hosts::{self, DialBacks};
use crate::join;
use crate::keys::{Keys, KeysError, random};
use crate::lease::{Leasehold, Subleases};
use crate::machine::SharedState;
use crate::peers::Peers;
use crate::quarantine::Overlay;
use crate::recognize::Gate;
use crate::refusals::RefusalLog;
use crate::renewal::Renewals;
use crate::replica::Replica;
use crate::returning::OwnStanding;
use crate::service;
use crate::settings::{Settings, Start};
pub use crate::start_error::{StartError, WayBack};
use crate::store_return;
use crate::stored::{self, Stored};
use crate::stores::Stores;
use crate::time::{Clocks, OwnClock};
use crate::turns::Turns;

/// How a member came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It was a member before.
    Again,
    /// It made the cluster.
    Founded,
    /// It was admitted.
    Joined,
    /// It was a member before, and comes back as a learner with a new store.
    Returned,
}

/// A running member. Clones are the same member; it stops when [`Member::shutdown`] is called.
#[derive(Clone)]
pub struct Member(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) data: DataDir,
    pub(crate) file: MemberFile,
    pub(crate) node: NodeId,
    store: StoreId,
    pub(crate) keys: Keys,
    pub(crate) endpoint: Endpoint,
    pub(crate) state: SharedState,
    pub(crate) hub: Groups,
    pub(crate) group: countersign_raft::Group,
    pub(crate) peers: Peers,
    pub(crate) keeper: Keeper,
    pub(crate) refusals: Arc<RefusalLog>,
    pub(crate) endpoints: Locked<Endpoints>,
    pub(crate) acceptor: Acceptor,
    pub(crate) heard: Heard,
    pub(crate) lease: Leasehold,
    pub(crate) guard: Guard,
    pub(crate) own: OwnStanding,
    pub(crate) clock: OwnClock,
    pub(crate) gate: Arc<Gate>,
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) divergence: Divergence,
    pub(crate) renewals: Renewals,
    /// What its next leaf keys sign with.
    pub(crate) key: KeyAlgorithm,
    pub(crate) client_ttl_secs: u64,
    pub(crate) cache_ttl_secs: u64,
    pub(crate) turns: Turns,
    pub(crate) dial_backs: DialBacks,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    _replica: Replica,
}

impl Member {
    /// Starts the member that `settings.data` holds; if it holds none, makes one as `start` says. On a directory that
    /// holds a member, `start` is ignored: a valid identity is never replaced by a token.
    pub async fn start(settings: Settings, start: Start) -> Result<(Self, Started), StartError> {
        let data = DataDir::open(&settings.data)?;
        let foreign = foreign(&settings)?;
        let judged = stored::judge(&data, &start)?;
        let held = match judged {
            Some(file) => {
                stored::clear(&data)?;
                let (file, started) =
                    store_return::come_back(&data, file, foreign.clone(), (&start, settings.key)).await?;
                let stored = Stored::read(&data, file, foreign.clone())?;
                let store = stored.open_store(&data)?;
                Some((stored, store, started))
            }
            None => None,
        };
        let bound = Bound::open(&data, &settings).await?;
        let (stored, replica, started) = match held {
            Some((stored, store, started)) => {
                let (of, view, events) = ((store, stored.file.node()), stored.view.clone(), EventLog::open(&data)?);
                (stored, Replica::open(of, settings.level(), view, events).await?, started)
            }
            None => create(&data, &settings, foreign, &bound, start).await?,
        };
        let inner = assemble(data, stored, replica, bound, &settings).await?;
        let member = Self(inner);
        member.0.spawn_services(&settings).await?;
        Ok((member, started))
    }

    /// Judges what `settings.data` holds as [`Member::start`] does, in the same order, and starts nothing. None if there is
    /// no such directory: it would be made.
    ///
    /// # Errors
    /// What a start would be refused for, as far as the directory is concerned.
    pub fn check(settings: &Settings, start: &Start) -> Result<Option<MemberFile>, StartError> {
        let Some(data) = DataDir::look(&settings.data)? else { return Ok(None) };
        let foreign = foreign(settings)?;
        let Some(file) = stored::judge(&data, start)? else { return Ok(None) };
        let stored = Stored::read(&data, file, foreign)?;
        stored.open_store(&data)?.close();
        Ok(Some(stored.file))
    }

    /// This member's number.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.0.file.name
    }

    /// The trust view in force here.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.endpoint.trust().load().view)
    }

    /// Where the cluster port is bound.
    pub fn cluster_addr(&self) -> Option<SocketAddr> {
        self.0.acceptor.local_addr().ok()
    }

    /// Where the HTTPS port is bound, if it is served.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.0.lock_endpoints().https
    }

    /// Proof that this member has heard lately what is revoked: taken after a request was received and before its effect
    /// begins. It cannot be kept: a task that was paused in between takes another, and is denied if its time is over.
    ///
    /// Errors: without a lease this member serves no client.
    pub fn fresh(&self) -> Result<Fresh<'_>, NoLease> {
        self.0.lease.fresh()
    }

    /// Administers the cluster through this member, as an operator of its host does: whoever runs this process may do all of
    /// it. Changes name the process's user as their author.
    ///
    /// What it changes has one number in the log and in the events: take another for the next task.
    ///
    /// # Errors
    /// The operating system gave no randomness to number the request.
    pub fn control(&self) -> Result<Control, KeysError> {
        let uid = rustix::process::getuid().as_raw();
        let request = RequestId(*random::<16>()?.expose());
        Ok(Control::new(Arc::clone(&self.0), Claim { actor: Actor::Operator { uid }, source: None, request }))
    }

    /// Decides who may do what on this member, by the rules of its replicated state. For services of one's own; what is
    /// served by [`Member::serve`] has been asked about already, method by method.
    pub fn guard(&self) -> &Guard {
        &self.0.guard
    }

    /// Whether this member knows that it was evicted. It serves nobody then, and does not come back.
    pub fn is_evicted(&self) -> bool {
        self.0.own.is_evicted()
    }

    /// What dials as this member: for services that call other members.
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.0.endpoint.clone())
    }

    /// Serves somebody's own gRPC services to every principal of the cluster, on the cluster port's service protocol. Each
    /// call carries a [`Caller`](crate::Caller) in its extensions, and begins and goes on only if a rule lets its caller
    /// `write` the `service` `package.Service/Method`. `grpc.health.v1` is served beside them, to all.
    pub fn serve(&self, services: tonic::service::Routes) {
        service::spawn_services(&self.0, services, None);
    }

    /// Serves somebody's own HTTP routes in the same way: a request is a `read` (GET, HEAD, OPTIONS), `delete` or `write` of
    /// the `service` that is its path. Either this or [`Member::serve`] is called, once.
    pub fn serve_http(&self, app: axum::Router) {
        service::spawn_services(&self.0, tonic::service::Routes::default(), Some(app));
    }

    /// Ends once the member has stopped by itself: its storage failed, and it must not go on.
    pub async fn failed(&self) -> countersign_raft::GroupStopped {
        let mut status = self.0.group.watch();
        loop {
            if let Err(stopped) = self.0.group.running() {
                return stopped;
            }
            if status.changed().await.is_err() {
                return countersign_raft::GroupStopped::Shutdown;
            }
        }
    }

    /// Hands leadership over, stops serving, and leaves everything stored.
    pub async fn shutdown(&self) {
        self.0.hand_over_leadership().await;
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.hub.shutdown().await;
        self.0.tasks.wait().await;
        let _ = self.0.data.remove(file::SOCKET);
    }
}

/// This node's certificate, where it is made elsewhere.
fn foreign(settings: &Settings) -> Result<Option<Arc<ForeignIdentity>>, StartError> {
    let foreign = settings.files.as_ref().map(|files| ForeignIdentity::load(files, SystemClock.now()));
    Ok(foreign.transpose()?.map(Arc::new))
}

/// Makes a member where [`stored::judge`] found that one may be made.
async fn create(
    data: &DataDir,
    settings: &Settings,
    foreign: Option<Arc<ForeignIdentity>>,
    bound: &Bound,
    start: Start,
) -> Result<(Stored, Replica, Started), StartError> {
    let path = || data.path().to_owned();
    match start {
        Start::Join { token, sponsor } => {
            let begun = join::begin(data, &node_name(settings)?, &bound.advertise, settings.level())?;
            let keys = Keys::load_or_make(data, foreign.clone(), settings.key)?;
            let addresses = bound.advertise.clone();
            let back = DialBack { pin: token.pin(), token: token.id(), addresses };
            let file = tokio::select! {
                joined = join::enroll(data, &keys, &token, &sponsor, &begun) => joined?,
                never = hosts::answer(&bound.listener, &back, &keys.identity) => match never {},
            };
            let stored = Stored::read(data, file, foreign)?;
            let store = stored.open_store(data)?;
            let replica = Replica::open(
                (store, stored.file.node()),
                settings.level(),
                stored.view.clone(),
                EventLog::open(data)?,
            )
            .await?;
            Ok((stored, replica, Started::Joined))
        }
        Start::ReturnAsLearner { .. } => Err(StartError::Empty { path: data.path().to_owned() }),
        Start::Existing | Start::Bootstrap(_) => {
            bootstrap::begin(data)?;
            let keys = Keys::load_or_make(data, foreign.clone(), settings.key)?;
            let resumed = bootstrap::resume(data)?;
            let prepared = match (resumed, &start) {
                (Some(prepared), _) => prepared,
                (None, Start::Bootstrap(cluster)) => {
                    let name = node_name(settings)?;
                    bootstrap::prepare(data, &keys, cluster, &name, &bound.advertise, settings)?
                }
                (None, _) => return Err(StartError::Empty { path: path() }),
            };
            let place = data.store_place(prepared.binding());
            Store::create(&place, StoreId(*random::<16>()?.expose())).map_err(BootstrapError::from)?;
            let store = Store::open(&place).map_err(BootstrapError::from)?;
            let replica = Replica::open((store, bootstrap::FOUNDER), settings.level(), None, EventLog::open(data)?)
                .await
                .map_err(BootstrapError::from)?;
            let file = bootstrap::carry_out(data, &keys, &replica, &prepared).await?;
            Ok((Stored::read(data, file, foreign)?, replica, Started::Founded))
        }
    }
}

/// Puts the parts of a stored member together; nothing is accepted yet.
async fn assemble(
    data: DataDir,
    stored: Stored,
    replica: Replica,
    bound: Bound,
    settings: &Settings,
) -> Result<Arc<Inner>, StartError> {
    let Stored { file: member, view: stored, keys, credential } = stored;
    let node = member.node();
    // What was committed before the last stop is applied by now: an eviction is in force at the first handshake.
    let (applied, time) = {
        let state = replica.state.read();
        (state.view().cloned(), state.time())
    };
    let applied = applied.filter(|view| stored.as_ref().is_none_or(|stored| view.generation >= stored.generation));
    let Some(view) = applied.or(stored) else { return Err(stored::unknown_cluster(&data, node)) };
    if Some(view.cluster) != member.cluster() {
        let path = data.file(file::MEMBER);
        return Err(DataDirError::Damaged { path, reason: DamageReason::Mismatch }.into());
    }
    let time = time.max(view.members.values().map(|m| m.admitted_at).max().unwrap_or(UnixMillis(0)));
    let refusals = Arc::new(RefusalLog::open(&data.file(file::REFUSALS)));
    let told: Arc<dyn Refusals> = Arc::clone(&refusals) as Arc<dyn Refusals>;
    let trust = Trust::of_view(view, Some(credential), time)?;
    let endpoint = match keys.leaf.foreign() {
        None => Endpoint::new(trust, SystemClock, told),
        Some(foreign) => Endpoint::mapped(trust, SystemClock, told, foreign.rules().clone()),
    };
    replica.assign_by(endpoint.clone());
    // Nothing was accepted or dialed before: from here on nobody is believed until the cluster is recognized.
    replica.gate.shut();
    replica.overlay.start(&data, endpoint.clone())?;
    let overlay = Arc::clone(&replica.overlay);
    let publishing = endpoint.clone();
    let length = replica.state.read().lease().unwrap_or_default();
    let lease = Leasehold::new(Arc::clone(&replica.gate), Subleases::new(&data, length)?)?;
    let judging = endpoint.clone();
    let (guard, rules) = Guard::of_member(lease.clock(), Arc::new(Clocks(move || judging.now())));
    let book = Arc::clone(&lease.book);
    replica.state.publish_to(Box::new(move |view, time, revocations| {
        // First, so that whoever is judged by this view is not decided about by an earlier one.
        rules.publish(view);
        match publishing.publish(Arc::clone(view), time) {
            Ok(mut closed) => {
                closed.extend(overlay.settle(revocations));
                book.enter(revocations, &closed, SystemClock.now());
                for connection in closed {
                    tracing::info!(principal = %connection.principal, reason = %connection.refusal, "connection closed");
                }
                true
            }
            // The view that this member was admitted under may be ahead of the log that it is still receiving.
            Err(countersign_net::PublishError::Stale(_)) => true,
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "view cannot be published");
                false
            }
        }
    }));
    let acceptor = Acceptor::on(bound.listener, endpoint.clone(), AcceptorLimits::default());
    replica.peers.connect_with(endpoint.clone());
    let endpoints = Endpoints { cluster: acceptor.local_addr().ok(), advertise: bound.advertise, https: None };
    Ok(Arc::new(Inner {
        node,
        store: replica.store,
        file: member,
        keys,
        endpoint,
        state: replica.state.clone(),
        hub: replica.groups.clone(),
        group: replica.group.clone(),
        peers: replica.peers.clone(),
        keeper: Keeper::default(),
        heard: Heard::default(),
        lease,
        guard,
        own: OwnStanding::default(),
        clock: OwnClock::default(),
        gate: Arc::clone(&replica.gate),
        overlay: Arc::clone(&replica.overlay),
        stores: Arc::clone(&replica.stores),
        divergence: Divergence::open(&data)?,
        renewals: Renewals::default(),
        key: settings.key,
        client_ttl_secs: settings.client_ttl_secs,
        cache_ttl_secs: settings.cache_ttl_secs.clamp(1, CACHE_TTL_SECS_MAX),
        turns: Turns::default(),
        dial_backs: DialBacks::default(),
        refusals,
        endpoints: Locked::new(endpoints),
        acceptor,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        _replica: replica,
        data,
    }))
}

impl Inner {
    /// The later of this host's clock and the last applied time.
    pub(crate) fn now(&self) -> UnixMillis {
        self.endpoint.now()
    }

    /// The id of this member's store.
    pub(crate) fn own_store(&self) -> StoreId {
        self.store
    }

    /// The leader, as far as this member knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.group.leader()
    }

    pub(crate) fn lock_endpoints(&self) -> LockGuard<'_, Endpoints> {
        self.endpoints.lock()
    }

    /// Runs a task until the member stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    async fn spawn_services(self: &Arc<Self>, settings: &Settings) -> Result<(), StartError> {
        service::spawn(self);
        if let Some(address) = settings.https_addr {
            let https = crate::admin::https::spawn(self, address, settings.https_files.as_ref()).await?;
            self.lock_endpoints().https = Some(https);
        }
        // Whoever finds the socket finds the addresses, too.
        self.lock_endpoints().store(&self.data)?;
        crate::admin::socket::spawn(self)?;
        crate::recognize::spawn(self);
        crate::reconcile::spawn(self);
        crate::lease::spawn(self);
        crate::divergence::spawn(self);
        hosts::spawn(self);
        crate::renewal::spawn(self);
        crate::returning::spawn(self);
        crate::view_file::spawn(self);
        crate::watchdog::spawn(self).map_err(StartError::Watchdog)?;
        Ok(())
    }
}
