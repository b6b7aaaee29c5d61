//! A running member as its parts: values that own state, and tasks that each drive one decision.
//!
//! [`Node::open`] puts the parts together and accepts nothing. [`Node::run`] starts the capabilities, each of which
//! starts its own tasks, and then the tasks of the trust group. A task is handed the parts that it needs, never the
//! whole node.

use std::sync::Arc;

use axum::Router;
use countersign_core::enroll::dial_back::DialBack;
use countersign_core::id::StoreId;
use countersign_core::lease::LeaseManager;
use countersign_core::limits::CACHE_TTL_SECS_MAX;
use countersign_core::locked::{Locked, Order};
use countersign_core::time::UnixMillis;
use countersign_guard::{Guard, Publisher};
use countersign_net::{
    Acceptor, AcceptorLimits, ClientAcceptor, Clock, Endpoint, QuicAcceptor, QuicPurpose, Refusals, SystemClock, Trust,
};
use countersign_raft::{Group, Groups, Store};
use tonic::service::Routes;

use crate::capabilities::{self, ClusterServices};
use crate::hosts::{self, HostWitness};
use crate::identity::bootstrap::{self, BootstrapError};
use crate::identity::bound::{Bound, ClientSockets, node_name};
use crate::identity::data_store;
use crate::identity::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file};
use crate::identity::endpoints::{Endpoints, OwnEndpoints};
use crate::identity::files::ForeignIdentity;
use crate::identity::join;
use crate::identity::keys::{Keys, random};
use crate::identity::local::Local;
use crate::identity::store_return;
use crate::identity::stored::{self, Stored};
use crate::identity::view_file::ViewFile;
use crate::leader_contact::LeaderContact;
use crate::lease::{Barriers, DelegatedLeases, Granting, Leasehold};
use crate::peers::Peers;
use crate::refusals::RefusalLog;
use crate::service;
use crate::settings::{ClientLimits, Settings, Start};
use crate::start_error::StartError;
use crate::tasks::Tasks;
use crate::tasks::membership::{Membership, hand_over_leadership};
use crate::tasks::own_record::OwnRecord;
use crate::tasks::recognize::Recognizer;
use crate::tasks::renewal::Renewals;
use crate::tasks::watchdog;
use crate::time::{Clocks, ClusterTime};
use crate::trust::authority::KeyHolder;
use crate::trust::denylist::Denylist;
use crate::trust::divergence::Divergence;
use crate::trust::events::EventLog;
use crate::trust::gate::Gate;
use crate::trust::in_flight::InFlight;
use crate::trust::machine::SharedState;
use crate::trust::own_status::OwnStatus;
use crate::trust::propose::{Leading, Proposer};
use crate::trust::replica::Replica;
use crate::trust::store_warnings::StoreWarnings;
use crate::trust::stores::Stores;

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

/// The parts of a member. Clones are the same member; it runs from [`Node::run`] until [`Node::shutdown`].
#[derive(Clone)]
pub struct Node {
    /// The identity of this member, and the authorities that it trusts.
    pub local: Arc<Local>,
    /// The replicated state as applied here.
    pub state: SharedState,
    /// The Raft groups of this member.
    pub groups: Groups,
    /// The trust group.
    pub group: Group,
    /// Channels to the other members.
    pub peers: Peers,
    /// Proposes commands.
    pub proposer: Arc<Proposer>,
    /// This member's copy of the CA key.
    pub key_holder: Arc<KeyHolder>,
    /// The cluster's time.
    pub time: Arc<ClusterTime>,
    /// This member's lease.
    pub lease: Arc<Leasehold>,
    /// The leases that this member grants as leader.
    pub granting: Arc<Granting>,
    /// Waits for revocations to be in force.
    pub barriers: Barriers,
    /// Decides by the rules.
    pub guard: Guard,
    /// Members that this one refuses by itself.
    pub denylist: Arc<Denylist>,
    /// Members whose states differ.
    pub divergence: Arc<Divergence>,
    /// Stores that count as members' stores.
    pub stores: Arc<Stores>,
    /// Refused connections and enrollments.
    pub refusals: Arc<RefusalLog>,
    /// Whether this member was evicted.
    pub own: Arc<OwnStatus>,
    /// What became of this member's renewals.
    pub renewals: Arc<Renewals>,
    /// When the leader last spoke.
    pub leader_contact: Arc<LeaderContact>,
    /// Where this member is reached.
    pub endpoints: Arc<OwnEndpoints>,
    /// Accepts connections on the cluster port.
    pub acceptor: Arc<Acceptor>,
    /// Accepts connections on the client port; none if it is not served.
    pub clients: Option<Arc<ClientAcceptor>>,
    /// Accepts connections over QUIC, on UDP at the number of the client port; none if it is not served.
    pub quic: Option<Arc<QuicAcceptor>>,
    /// Everything that runs.
    pub tasks: Tasks,
    /// Seconds that a certificate of a client, broker or admin lives where none are named.
    pub client_ttl_secs: u64,
    /// What one client may take.
    pub client_limits: ClientLimits,
    /// Seconds that remote guards may keep what they are told.
    pub cache_ttl_secs: u64,
    pub(crate) gate: Arc<Gate>,
    pub(crate) witness: Arc<HostWitness>,
    /// Kept open for as long as any part is used.
    _replica: Arc<Replica>,
}

impl Node {
    /// Opens the member that `settings.data` holds; if it holds none, makes one as `start` says. On a directory that
    /// holds a member, `start` is ignored: a token never replaces a valid identity. Nothing is accepted or dialed yet,
    /// but for an enrollment.
    ///
    /// # Errors
    /// [`StartError`]. Nothing is lost: the same call goes on where it stopped.
    pub async fn open(settings: &Settings, start: Start) -> Result<(Self, Started), StartError> {
        let data = DataDir::open(&settings.data)?;
        let foreign = foreign(settings)?;
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
        let bound = Bound::open(&data, settings).await?;
        let (stored, replica, started) = match held {
            Some((stored, store, started)) => {
                let (of, view, events) = ((store, stored.file.node()), stored.view.clone(), EventLog::open(&data)?);
                (stored, Replica::open(of, settings.level(), view, events).await?, started)
            }
            None => create(&data, settings, foreign, &bound, start).await?,
        };
        let (member, data_store) = data_store::open(&data, &replica.groups, stored.file)?;
        replica.keeps_data_in(data_store);
        let stored = Stored { file: member, ..stored };
        Ok((assemble(data, stored, replica, bound, (settings, data_store))?, started))
    }

    /// Judges what `settings.data` holds as [`Node::open`] does, in the same order, and opens nothing. None if there
    /// is no such directory: it would be made.
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

    /// Serves the cluster port, with `services` and `app` to the principals that the rules allow, and starts every
    /// task. To be called once.
    ///
    /// # Errors
    /// [`StartError::Watchdog`].
    pub fn run(&self, services: Routes, app: Option<Router>) -> Result<(), StartError> {
        let capabilities = capabilities::of(self);
        let mut served = ClusterServices { principals: services, ..ClusterServices::default() };
        for capability in &capabilities {
            capability.serve(&mut served);
        }
        service::spawn(self, served, app);
        for capability in &capabilities {
            capability.start(&self.tasks);
        }
        let Self { local, state, group, peers, proposer, key_holder, time, lease, granting, .. } = self;
        let Self { stores, endpoints, denylist, gate, tasks, .. } = self;
        tasks.spawn(
            Recognizer {
                local: Arc::clone(local),
                gate: Arc::clone(gate),
                lease: Arc::clone(lease),
                denylist: Arc::clone(denylist),
                stores: Arc::clone(stores),
            }
            .run(),
        );
        tasks.spawn(
            Membership {
                local: Arc::clone(local),
                state: state.clone(),
                group: group.clone(),
                proposer: Arc::clone(proposer),
                key_holder: Arc::clone(key_holder),
                time: Arc::clone(time),
                granting: Arc::clone(granting),
            }
            .run(),
        );
        tasks.spawn(
            OwnRecord {
                local: Arc::clone(local),
                state: state.clone(),
                group: group.clone(),
                peers: peers.clone(),
                proposer: Arc::clone(proposer),
                key_holder: Arc::clone(key_holder),
                endpoints: Arc::clone(endpoints),
            }
            .run(),
        );
        tasks.spawn(ViewFile { local: Arc::clone(local), state: state.clone() }.run());
        watchdog::spawn(local, state, group, tasks.stopping()).map_err(StartError::Watchdog)
    }

    /// What is wrong with members' stores, for people.
    pub fn store_warnings(&self) -> StoreWarnings {
        StoreWarnings {
            local: Arc::clone(&self.local),
            group: self.group.clone(),
            lease: Arc::clone(&self.lease),
            granting: Arc::clone(&self.granting),
            stores: Arc::clone(&self.stores),
        }
    }

    /// Hands leadership over, stops serving, and leaves everything stored.
    pub async fn shutdown(&self) {
        hand_over_leadership(&self.group, self.local.node).await;
        self.tasks.stop();
        self.groups.shutdown().await;
        self.tasks.ended().await;
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
fn assemble(
    data: DataDir,
    stored: Stored,
    replica: Replica,
    bound: Bound,
    (settings, data_store): (&Settings, StoreId),
) -> Result<Node, StartError> {
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
    let time = time.max(view.members.scan().values().map(|m| m.admitted_at).max().unwrap_or(UnixMillis(0)));
    let refusals = Arc::new(RefusalLog::open(&data.file(file::REFUSALS)));
    let told: Arc<dyn Refusals> = Arc::clone(&refusals) as Arc<dyn Refusals>;
    let trust = Trust::of_view(view, Some(credential), time)?;
    let endpoint = match keys.leaf.foreign() {
        None => Endpoint::new(trust, SystemClock, told),
        Some(foreign) => Endpoint::mapped(trust, SystemClock, told, foreign.rules().clone()),
    };
    replica.assign_by(endpoint.clone());
    // Nothing was accepted or dialed before: from here on no message is believed until the cluster is recognized.
    replica.gate.shut();
    replica.denylist.start(&data, endpoint.clone())?;
    let (state, group, peers) = (replica.state.clone(), replica.group.clone(), replica.peers.clone());
    let (denylist, stores, gate) =
        (Arc::clone(&replica.denylist), Arc::clone(&replica.stores), Arc::clone(&replica.gate));
    let length = state.read().lease().unwrap_or_default();
    let lease = Arc::new(Leasehold::new(Arc::clone(&gate), DelegatedLeases::new(&data, length)?)?);
    let judging = endpoint.clone();
    let (guard, rules) = Guard::of_member(lease.clock(), Arc::new(Clocks(move || judging.now())));
    publish(&state, endpoint.clone(), rules, Arc::clone(&denylist), &lease);
    let acceptor = Acceptor::on(bound.listener, endpoint.clone(), AcceptorLimits::default());
    peers.connect_with(endpoint.clone());
    endpoint.registry().bound_principals(settings.client_limits.connections);
    let limits = AcceptorLimits::default();
    let (clients, quic) = match bound.clients {
        None => (None, None),
        Some(ClientSockets { tcp, udp }) => (
            Some(Arc::new(ClientAcceptor::on(tcp, endpoint.clone(), limits))),
            Some(Arc::new(QuicAcceptor::on(udp, endpoint.clone(), QuicPurpose::Client, limits)?)),
        ),
    };
    let client_limits = settings.client_limits;
    let endpoints = Endpoints {
        cluster: acceptor.local_addr().ok(),
        advertise: bound.advertise,
        client: clients.as_ref().and_then(|clients| clients.local_addr().ok()),
        client_advertise: clients.as_ref().and(settings.client_advertise.clone()),
        https: None,
    };
    let (making, store) = (Locked::default(), replica.store);
    let local = Arc::new(Local {
        node,
        file: member,
        store,
        data_store,
        data,
        keys,
        endpoint,
        algorithm: settings.key,
        making,
    });
    let endpoints = Arc::new(OwnEndpoints::new(endpoints, Arc::clone(&local)));
    let manager = Arc::new(Locked::of(Order::Outer, LeaseManager::default()));
    let time = Arc::new(ClusterTime::new(node, state.clone(), Arc::clone(&manager)));
    let divergence = Divergence::open(Arc::clone(&local), &replica, Arc::clone(&stores), Arc::clone(&denylist))?;
    let divergence = Arc::new(divergence);
    let granting = Granting::new(Arc::clone(&local), state.clone(), group.clone(), Arc::clone(&divergence), manager);
    let granting = Arc::new(granting);
    let witness = Arc::new(HostWitness::new(Arc::clone(&local), state.clone()));
    let key_holder = Arc::new(KeyHolder::default());
    let leading = Leading {
        time: Arc::clone(&time),
        granting: Arc::clone(&granting),
        divergence: Arc::clone(&divergence),
        witness: Arc::clone(&witness),
    };
    let proposer = Arc::new(Proposer {
        local: Arc::clone(&local),
        state: state.clone(),
        group: group.clone(),
        peers: peers.clone(),
        key_holder: Arc::clone(&key_holder),
        leading,
        in_flight: InFlight::default(),
    });
    Ok(Node {
        own: Arc::new(OwnStatus::new(Arc::clone(&lease), local.endpoint.clone())),
        barriers: Barriers::new(node, group.clone(), peers.clone(), Arc::clone(&granting)),
        groups: replica.groups.clone(),
        renewals: Arc::default(),
        leader_contact: Arc::default(),
        acceptor: Arc::new(acceptor),
        clients,
        quic,
        tasks: Tasks::default(),
        client_ttl_secs: settings.client_ttl_secs,
        cache_ttl_secs: settings.cache_ttl_secs.clamp(1, CACHE_TTL_SECS_MAX),
        client_limits,
        _replica: Arc::new(replica),
        local,
        state,
        group,
        peers,
        proposer,
        key_holder,
        time,
        lease,
        granting,
        guard,
        denylist,
        divergence,
        stores,
        refusals,
        endpoints,
        gate,
        witness,
    })
}

/// Has each view that is applied put in force: first for decisions, then for connections.
fn publish(state: &SharedState, endpoint: Endpoint, rules: Publisher, denylist: Arc<Denylist>, lease: &Leasehold) {
    let book = Arc::clone(&lease.book);
    state.publish_to(Box::new(move |view, time, revocations| {
        // First, so that a caller who is judged by this view is not decided about by an earlier one.
        rules.publish(view);
        match endpoint.publish(Arc::clone(view), time) {
            Ok(mut closed) => {
                closed.extend(denylist.take_closed(revocations));
                book.enter(revocations, &closed, SystemClock.now());
                for connection in closed {
                    tracing::info!(
                        principal = %connection.principal, reason = %connection.refusal,
                        "connection closed"
                    );
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
}
