//! A cluster in memory, servers on loopback, and a client that does as it is told. Keys are drawn; nothing that the
//! tests claim depends on their value.
#![allow(dead_code, unreachable_pub)]

pub mod quic;
pub mod raw;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use countersign_core::id::{AuthorityId, ClusterId, Generation, Incarnation, KeyId, NodeId, RequestId, StoreId};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::name::{Address, Host, Name};
use countersign_core::peer::Refusal;
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::attestation::{Attestation, AttestedVoter};
use countersign_core::trust::author::{Author, Made};
use countersign_core::trust::member::{Evicted, Issued, Leaf, Member, MemberKeys, Suffrage};
use countersign_core::trust::view::{self, AuthorityPhase, IssuedKey, View};
use countersign_net::{
    Acceptor, AcceptorLimits, ClientAcceptor, ClientConnection, ClientStream, Clock, Credential, Dialer, Endpoint,
    EnrollStream, PeerStream, RefusalRecord, Refusals, Trust,
};
use countersign_pki::authority::{Authority, AuthorityParts, LeafRequest};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::mapping::Rules;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

pub const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
pub const CLUSTER: ClusterId = ClusterId([7; 16]);
pub const DAY: u64 = 86_400;

pub fn domain() -> TrustDomain {
    TrustDomain::parse("east-07070707.internal").unwrap()
}

pub fn valid() -> Validity {
    Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(DAY) }
}

pub fn node_principal(id: u64) -> Principal {
    Principal { trust_domain: domain(), role: Role::Node(NodeId(id)) }
}

pub fn client_principal(name: &str) -> Principal {
    Principal { trust_domain: domain(), role: Role::Client(Name::parse(name).unwrap()) }
}

pub fn identity(id: u64) -> SecretKey {
    SecretKey::from_seed(Secret::new([u8::try_from(id).unwrap(); 32]))
}

pub fn authority(cluster: Option<ClusterId>) -> Authority {
    let validity = Validity { not_before: NOW.minus_secs(DAY), not_after: NOW.plus_secs(3650 * DAY) };
    let domain = domain();
    let parts = AuthorityParts { common_name: "east", trust_domain: &domain, cluster, serial: [1; 16], validity };
    Authority::create(KeyPair::generate(KeyAlgorithm::default()).unwrap(), &parts).unwrap()
}

/// A certificate, its key, and the wish that it was made by.
pub struct Identity {
    pub chain: Vec<Vec<u8>>,
    pub key: KeyPair,
}

impl Identity {
    pub fn credential(&self) -> Arc<Credential> {
        Arc::new(Credential::new(self.chain.iter().cloned(), &self.key).unwrap())
    }

    pub fn id(&self) -> KeyId {
        self.key.id()
    }
}

/// How a certificate deviates from a member's proper one.
pub struct Wish {
    pub principal: Principal,
    pub validity: Validity,
    /// Identity seed and renewal number of the endorsement.
    pub endorsed: Option<(u64, u64)>,
}

pub fn wish(principal: Principal) -> Wish {
    Wish { principal, validity: valid(), endorsed: None }
}

pub fn issue(authority: &Authority, wish: &Wish) -> Identity {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
    let serves = matches!(wish.principal.role, Role::Node(_) | Role::Broker(_));
    let hosts =
        if serves { vec![Host::parse("127.0.0.1").unwrap(), Host::parse("localhost").unwrap()] } else { vec![] };
    let endorsement = wish.endorsed.map(|(id, renewal)| Endorsement::sign(&identity(id), CLUSTER, key.id(), renewal));
    let mut serial = [1; 16];
    serial[8..].copy_from_slice(&SERIAL.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let request = LeafRequest {
        principal: &wish.principal,
        common_name: "x",
        hosts: &hosts,
        spki: &key.spki(),
        serial,
        validity: wish.validity,
        endorsement: endorsement.as_ref(),
    };
    let chain = vec![authority.issue(&request).unwrap(), authority.certificate().to_vec()];
    Identity { chain, key }
}

/// A cluster of three nodes and one client, `pay`.
pub struct Cluster {
    pub authority: Authority,
    pub nodes: BTreeMap<u64, Identity>,
    pub client: Identity,
    pub view: View,
}

impl Cluster {
    pub fn new() -> Self {
        let authority = authority(Some(CLUSTER));
        let mut nodes = BTreeMap::new();
        let mut members = BTreeMap::new();
        for id in 1..=3 {
            let leaf = issue(&authority, &Wish { endorsed: Some((id, 1)), ..wish(node_principal(id)) });
            members.insert(NodeId(id), member(id, &leaf));
            nodes.insert(id, leaf);
        }
        let client = issue(&authority, &wish(client_principal("pay")));
        let issued = BTreeMap::from([(
            client.id(),
            IssuedKey {
                not_after: valid().not_after,
                not_before: valid().not_before,
                ttl_secs: 60,
                renewed_from: None,
                issued: by_founder(),
            },
        )]);
        let view = View {
            cluster: CLUSTER,
            name: Name::parse("east").unwrap(),
            trust_domain: domain(),
            incarnation: Incarnation(0),
            generation: Generation(5),
            authorities: BTreeMap::from([(authority.id(), record(&authority, false))]),
            members: members.into_iter().collect(),
            evicted: Default::default(),
            principals: [(client_principal("pay").role, issued)].into_iter().collect(),
            labels: Default::default(),
            policy: Arc::default(),
            revoked_keys: Default::default(),
            revoked_principals: Default::default(),
            groups: Default::default(),
            client_names: Default::default(),
            attestation: Arc::new(Attestation::founding(
                CLUSTER,
                NodeId(1),
                AttestedVoter { identity: identity(1).public(), store: StoreId([1; 16]) },
                authority.id(),
            )),
            attested: 0,
        };
        Self { authority, nodes, client, view }
    }

    pub fn issue(&self, wish: &Wish) -> Identity {
        issue(&self.authority, wish)
    }

    /// The view of the next generation, changed.
    pub fn next(&mut self, change: impl FnOnce(&mut View)) -> Arc<View> {
        self.view.generation.0 += 1;
        change(&mut self.view);
        Arc::new(self.view.clone())
    }

    pub fn evict(&mut self, id: u64) -> Arc<View> {
        self.next(|view| evict(view, id))
    }

    pub fn trust(&self, credential: Arc<Credential>) -> Trust {
        Trust::of_view(Arc::new(self.view.clone()), Some(credential), UnixMillis(0)).unwrap()
    }

    /// Node `id` as a server on loopback.
    pub async fn serve(&self, id: u64) -> Server {
        self.serve_with(id, AcceptorLimits::default()).await
    }

    pub async fn serve_with(&self, id: u64, limits: AcceptorLimits) -> Server {
        Server::start(self.trust(self.nodes[&id].credential()), limits, ManualClock::new()).await
    }

    /// A dialer that shows `who` and has this view.
    pub fn dialer(&self, who: &Identity) -> Dialer {
        Dialer::new(self.endpoint(who).0)
    }

    pub fn endpoint(&self, who: &Identity) -> (Endpoint, UnboundedReceiver<RefusalRecord>) {
        let (sink, refusals) = Sink::new();
        (Endpoint::new(self.trust(who.credential()), ManualClock::new(), sink), refusals)
    }
}

pub fn evict(view: &mut View, id: u64) {
    let gone = view.members.remove(&NodeId(id)).unwrap();
    let evicted =
        Evicted { name: gone.name, mapped: None, identity: gone.keys.identity, at: NOW, generation: view.generation };
    view.evicted.insert(NodeId(id), evicted);
}

pub fn record(authority: &Authority, imported: bool) -> view::Authority {
    let info = countersign_pki::authority::authority_info(authority.certificate()).unwrap();
    view::Authority {
        certificate: authority.certificate().to_vec(),
        key: Some(info.key),
        phase: AuthorityPhase::Active,
        validity: info.validity,
        imported,
    }
}

pub fn pin(authority: &Authority) -> AuthorityId {
    authority.id()
}

fn by_founder() -> Issued {
    Issued { authority: None, made: Made::new(&Author::of_member(NodeId(1), RequestId([0; 16])), NOW) }
}

fn member(id: u64, leaf: &Identity) -> Member {
    let seed = identity(id).public();
    Member {
        id: NodeId(id),
        name: Name::parse(&format!("n{id}")).unwrap(),
        suffrage: Suffrage::Voter,
        keys: MemberKeys { identity: seed, sealing: [0; 32], ucan: seed },
        store: StoreId([id as u8; 16]),
        returning: None,
        leaf: Leaf { key: leaf.id(), renewal: 1, serial: [1; 16], validity: valid(), issued: by_founder() },
        mapped: None,
        addresses: vec![],
        addresses_changed: Generation(0),
        proved: Default::default(),
        hosts: Default::default(),
        renewed: None,
        role: None,
        attributes: BTreeMap::new(),
        admitted_by: None,
        admitted_at: NOW,
        token_made: None,
        feature_level: 1,
        level_since: NOW,
    }
}

type Hook = Box<dyn FnMut() -> bool + Send>;

/// A clock that stands still, and can do something when it is asked, until that is done.
#[derive(Clone)]
pub struct ManualClock {
    now: Arc<AtomicU64>,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl ManualClock {
    pub fn new() -> Self {
        Self { now: Arc::new(AtomicU64::new(NOW.0)), hook: Arc::default() }
    }

    pub fn set(&self, now: UnixMillis) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    pub fn when_asked(&self, hook: impl FnMut() -> bool + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        let hook = self.hook.lock().unwrap().take();
        // Taken out while it runs: it may ask for the time itself.
        if let Some(mut hook) = hook
            && !hook()
        {
            *self.hook.lock().unwrap() = Some(hook);
        }
        UnixMillis(self.now.load(Ordering::SeqCst))
    }
}

/// Refusals as a channel.
pub struct Sink(UnboundedSender<RefusalRecord>);

impl Sink {
    pub fn new() -> (Arc<Self>, UnboundedReceiver<RefusalRecord>) {
        let (sender, receiver) = unbounded_channel();
        (Arc::new(Self(sender)), receiver)
    }
}

impl Refusals for Sink {
    fn record(&self, record: RefusalRecord) {
        let _ = self.0.send(record);
    }
}

/// An acceptor that runs, and everything that comes out of it.
pub struct Server {
    pub endpoint: Endpoint,
    pub acceptor: Arc<Acceptor>,
    pub address: SocketAddr,
    pub clock: ManualClock,
    pub refusals: UnboundedReceiver<RefusalRecord>,
    pub enrollments: Receiver<EnrollStream>,
    pub peers: Receiver<PeerStream>,
    pub clients: Receiver<ClientConnection>,
    /// Where the client port is.
    pub client_address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Server {
    pub async fn start(trust: Trust, limits: AcceptorLimits, clock: ManualClock) -> Self {
        Self::start_on("127.0.0.1:0", trust, limits, clock).await
    }

    pub async fn start_on(on: &str, trust: Trust, limits: AcceptorLimits, clock: ManualClock) -> Self {
        Self::start_mapped(on, trust, limits, clock, None).await
    }

    pub async fn start_mapped(
        on: &str,
        trust: Trust,
        limits: AcceptorLimits,
        clock: ManualClock,
        rules: Option<Rules>,
    ) -> Self {
        let (sink, refusals) = Sink::new();
        let endpoint = match rules {
            None => Endpoint::new(trust, clock.clone(), sink),
            Some(rules) => Endpoint::mapped(trust, clock.clone(), sink, rules),
        };
        let acceptor = Arc::new(Acceptor::bind(on.parse().unwrap(), endpoint.clone(), limits).await.unwrap());
        let address = acceptor.local_addr().unwrap();
        let routes = acceptor.routes();
        let (enrollments, peers) = (routes.enrollments(16), routes.peers(16));
        let running = Arc::clone(&acceptor);
        let cluster_port = tokio::spawn(async move { match running.run().await {} });
        let listener = TcpListener::bind(on).await.unwrap();
        let client_address = listener.local_addr().unwrap();
        let acceptor_of_clients = ClientAcceptor::on(listener, endpoint.clone(), limits);
        let clients = acceptor_of_clients.connections(16);
        let client_port = tokio::spawn(async move { match acceptor_of_clients.run().await {} });
        let tasks = [cluster_port, client_port];
        Self { endpoint, acceptor, address, clock, refusals, enrollments, peers, clients, client_address, tasks }
    }

    pub fn dialed(&self) -> Address {
        dialed(self.address)
    }

    pub fn client_port(&self) -> Address {
        dialed(self.client_address)
    }

    /// The next caller of the client port, which must be accepted.
    pub async fn client(&mut self) -> ClientStream {
        match self.next_client().await {
            ClientConnection::Accepted { stream, .. } => stream,
            refused => panic!("{refused:?}"),
        }
    }

    async fn next_client(&mut self) -> ClientConnection {
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, self.clients.recv()).await.expect("no caller").unwrap()
    }

    /// Why the next caller of the client port is refused, as that caller is told and as it is recorded.
    pub async fn refused_client(&mut self) -> Refusal {
        let (told, told_id) = match self.next_client().await {
            ClientConnection::Refused { refusal, failure_id, .. } => (refusal, failure_id),
            accepted => panic!("{accepted:?}"),
        };
        let record = self.refused().await;
        assert_eq!((record.refusal, record.failure_id), (told, told_id));
        told
    }

    /// The next refusal that was recorded. One that never comes fails the test instead of hanging it.
    pub async fn refused(&mut self) -> RefusalRecord {
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, self.refusals.recv()).await.expect("no refusal was recorded").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub fn dialed(address: SocketAddr) -> Address {
    Address { host: Host::Ip(address.ip()), port: address.port() }
}

/// Waits for a condition that another task brings about.
pub async fn until(mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        // One that never comes fails the test instead of hanging it.
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "waited in vain");
        tokio::task::yield_now().await;
    }
}
