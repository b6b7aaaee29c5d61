//! A cluster in memory, without a network: the replicated state, a guard over it, and clocks that tests set.

#![allow(dead_code, unreachable_pub)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use countersign_core::authz::change::PolicyChange;
use countersign_core::authz::label::LabelEdit;
use countersign_core::authz::text::RuleText;
use countersign_core::authz::{Rule, RuleId};
use countersign_core::group::GroupMembers;
use countersign_core::id::{AuthorityId, ClusterId, Generation, KeyId, NodeId, RequestId, StoreId, ed25519_spki};
use countersign_core::key::SecretKey;
use countersign_core::lease::{Holder, LeaseClock, LeaseLength};
use countersign_core::name::{Address, Name};
use countersign_core::peer::{CertificateClaims, CertificateProof, Proof, VerifiedPeer, Wanted, verify};
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{BootMillis, UnixMillis, Validity};
use countersign_core::trust::TrustState;
use countersign_core::trust::author::Author;
use countersign_core::trust::command::{Bootstrap, Command, FEATURE_LEVEL, IssuePrincipal, Label, SealedKey, Stamped};
use countersign_core::trust::member::MemberKeys;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::{AuthorityKey, View};
use countersign_guard::{Guard, Publisher, Session, Time};

pub const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
const CLUSTER: ClusterId = ClusterId([1; 16]);
const CA: &[u8] = b"a certificate is bytes to the state";

/// Clocks that stand still until they are set.
pub struct Clocks {
    pub boot: AtomicU64,
    pub unix: AtomicU64,
}

impl Time for Clocks {
    fn boot(&self) -> BootMillis {
        BootMillis(self.boot.load(Ordering::Relaxed))
    }

    fn clock(&self) -> UnixMillis {
        UnixMillis(self.unix.load(Ordering::Relaxed))
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.unix.load(Ordering::Relaxed))
    }
}

pub struct World {
    state: Mutex<TrustState>,
    pub clocks: Arc<Clocks>,
    pub lease: Arc<LeaseClock>,
    pub guard: Guard,
    publisher: Publisher,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(Secret::new([seed; 32]))
}

fn valid() -> Validity {
    Validity { not_before: NOW.minus_secs(86_400), not_after: NOW.plus_secs(86_400 * 3650) }
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn client(text: &str) -> Role {
    Role::Client(name(text))
}

/// `effect principal actions resource`, the resource as `KIND:NAME`, `KIND:PREFIX…` or `KIND`.
pub fn rule(id: &str, text: &str) -> Rule {
    let words: Vec<&str> = text.split(' ').collect();
    let [effect, principal, actions, resource] = words.as_slice() else { panic!("{text}") };
    let mut rule = RuleText {
        id: Some(id.to_owned()),
        effect: Some(serde_json::from_value(serde_json::json!(effect)).unwrap()),
        principal: (*principal).to_owned(),
        actions: vec![(*actions).to_owned()],
        ..RuleText::default()
    };
    match (resource.strip_suffix('…'), resource.contains(':')) {
        (Some(prefix), _) => rule.resource_prefix = Some(prefix.to_owned()),
        (None, true) => rule.resource = Some((*resource).to_owned()),
        (None, false) => rule.resource_any = Some((*resource).to_owned()),
    }
    rule.rule().unwrap()
}

impl World {
    /// A cluster with clients of these names, with a lease that lasts.
    pub fn new(clients: &[&str]) -> Self {
        let bootstrap = Bootstrap {
            cluster: CLUSTER,
            name: name("east"),
            trust_domain: TrustDomain::parse("td").unwrap(),
            authority: CA.to_vec(),
            authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(key(9).public()), sealed: vec![] }),
            authority_validity: valid(),
            imported: false,
            node_name: name("n1"),
            addresses: vec![Address::parse("10.0.0.1:1").unwrap()],
            keys: MemberKeys { identity: key(1).public(), sealing: [1; 32], ucan: key(2).public() },
            store: StoreId([1; 16]),
            leaf_key: key(3).public().id(),
            foreign: None,
            node_ttl_secs: 3600,
            lease: LeaseLength::DEFAULT,
            token: None,
            policy: PolicyChange::default(),
        };
        let clocks = Arc::new(Clocks { boot: AtomicU64::new(1000), unix: AtomicU64::new(NOW.0) });
        let lease = Arc::new(LeaseClock::default());
        let (guard, publisher) = Guard::of_member(Arc::clone(&lease), Arc::clone(&clocks) as Arc<dyn Time>);
        let world = Self { state: Mutex::default(), clocks, lease, guard, publisher };
        world.renew_lease(LeaseLength::from_secs(3600).unwrap());
        world.apply(Command::Bootstrap(Box::new(bootstrap)));
        for name in clients {
            world.issue(name);
        }
        world
    }

    /// A lease from now on.
    pub fn renew_lease(&self, length: LeaseLength) {
        let mut holder = Holder::default();
        holder.granted(self.clocks.boot(), Generation(0), length);
        self.lease.follow(&holder);
    }

    pub fn issue(&self, name: &str) {
        let spki = ed25519_spki(&self.key_of(name).public().0).to_vec();
        self.apply(Command::IssuePrincipal(IssuePrincipal { role: client(name), spki, ttl_secs: 86_400 }));
    }

    fn key_of(&self, name: &str) -> SecretKey {
        SecretKey::from_seed(Secret::new(blake3_of(name)))
    }

    pub fn key_id(&self, name: &str) -> KeyId {
        self.key_of(name).public().id()
    }

    /// Applies without publishing.
    pub fn commit(&self, command: Command) -> Outcome {
        let author = Author::of_member(NodeId(1), RequestId([0; 16]));
        let stamped = Stamped { level: FEATURE_LEVEL, time: self.clocks.now(), author, command };
        let outcome = self.state.lock().unwrap().apply(&stamped, &GroupMembers::default()).unwrap();
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        outcome
    }

    pub fn publish(&self) {
        self.publish_view(&self.view());
    }

    /// The published view need not be the newest: a member that is behind.
    pub fn publish_view(&self, view: &Arc<View>) {
        self.publisher.publish(view);
    }

    pub fn apply(&self, command: Command) -> Outcome {
        let outcome = self.commit(command);
        self.publish();
        outcome
    }

    pub fn view(&self) -> Arc<View> {
        Arc::clone(self.state.lock().unwrap().view().unwrap())
    }

    pub fn put(&self, rules: impl IntoIterator<Item = Rule>) -> Outcome {
        let put = rules.into_iter().collect();
        self.apply(Command::ChangePolicy(Box::new(PolicyChange { put, ..PolicyChange::default() })))
    }

    pub fn remove(&self, id: &str) -> Outcome {
        let remove = vec![RuleId::parse(id).unwrap()];
        self.apply(Command::ChangePolicy(Box::new(PolicyChange { remove, ..PolicyChange::default() })))
    }

    pub fn label(&self, role: Role, name: &str, value: Option<&str>) {
        let edits = vec![LabelEdit { name: name.to_owned(), value: value.map(str::to_owned) }];
        self.apply(Command::Label(Label { role, edits }));
    }

    /// The client as its handshake proves it.
    pub fn peer(&self, name: &str) -> VerifiedPeer {
        let proof = Proof::Certificate(CertificateProof::asserted(CertificateClaims {
            principal: Principal { trust_domain: TrustDomain::parse("td").unwrap(), role: client(name) },
            key: self.key_id(name),
            authority: AuthorityId::of_certificate(CA),
            cluster: Some(CLUSTER),
            endorsement: None,
            validity: valid(),
        }));
        verify(&proof, &self.view(), Wanted::AnyPrincipal, self.clocks.now()).unwrap()
    }

    pub fn session(&self, name: &str) -> Session {
        self.guard.session(&self.peer(name), Some("10.0.0.7".parse().unwrap())).unwrap()
    }
}

fn blake3_of(text: &str) -> [u8; 32] {
    let mut seed = [7; 32];
    seed.iter_mut().zip(text.bytes()).for_each(|(s, b)| *s = b);
    seed
}
