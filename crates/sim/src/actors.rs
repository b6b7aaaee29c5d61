//! Who lives in the simulated world: members, and the keys and tokens that anybody may hold. All of it is drawn from
//! the seed; only identity keys and tokens have secrets, for only those sign.

use countersign_core::id::{AuthorityId, ClusterId, KeyId, NodeId, StoreId};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::name::{Address, Name};
use countersign_core::peer::CertificateClaims;
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::join_token::{JoinToken, TokenRecord};
use countersign_core::trust::member::{MemberKeys, Suffrage};

use crate::history::Home;
use crate::replica::{Replica, Snapshot};
use crate::rng::Rng;
use crate::violation::Broken;

/// When the simulated world begins.
pub(crate) const BEGIN: UnixMillis = UnixMillis::from_secs(1_800_000_000);
/// Seconds that the certificate of a node lives.
pub(crate) const NODE_TTL_SECS: u64 = 7200;
/// The CA certificate: to the core it is bytes.
pub(crate) const CA: &[u8] = b"the certificate of the simulated authority";

/// The keys of one machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    identity: [u8; 32],
    pub(crate) public: MemberKeys,
    pub(crate) leaf: KeyId,
}

impl Keys {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let identity = rng.bytes();
        let ucan = SecretKey::from_seed(Secret::new(rng.bytes())).public();
        let public =
            MemberKeys { identity: SecretKey::from_seed(Secret::new(identity)).public(), sealing: rng.bytes(), ucan };
        Self { identity, public, leaf: KeyId(rng.bytes()) }
    }

    /// The store of the machine that holds these keys.
    pub(crate) fn store(&self) -> StoreId {
        let mut store = StoreId([0; 16]);
        for (to, from) in store.0.iter_mut().zip(self.public.sealing) {
            *to = from;
        }
        store
    }

    pub(crate) const fn identity(&self) -> SecretKey {
        SecretKey::from_seed(Secret::new(self.identity))
    }

    pub(crate) fn endorse(&self, cluster: ClusterId, leaf: KeyId, renewal: u64) -> Endorsement {
        Endorsement::sign(&self.identity(), cluster, leaf, renewal)
    }
}

/// A join token as its holder has it.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) secret: [u8; 32],
    pub(crate) record: TokenRecord,
}

impl Token {
    pub(crate) fn draw(rng: &mut Rng, pin: AuthorityId, now: UnixMillis) -> Self {
        let secret = rng.bytes();
        let uses = 1 + rng.below(3) as u32;
        let record = TokenRecord {
            verifier: JoinToken::new(Secret::new(secret), pin).key().public(),
            pin,
            suffrage: if rng.one_in(4) { Suffrage::Voter } else { Suffrage::Learner },
            uses,
            uses_left: uses,
            not_after: now.plus_secs(600 + rng.below(3600)),
            name: None,
            hosts: vec![],
            role: None,
            attributes: Default::default(),
            revoked: false,
            cluster_token: false,
        };
        Self { secret, record }
    }

    pub(crate) const fn held(&self) -> JoinToken {
        JoinToken::new(Secret::new(self.secret), self.record.pin)
    }
}

/// A machine that is a member.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeId,
    pub(crate) keys: Keys,
    pub(crate) replica: Replica,
    /// What it would restart from.
    pub(crate) saved: Option<Snapshot>,
    /// Milliseconds by which its clock is ahead, or behind.
    pub(crate) drift: i64,
    /// What it proves in a handshake.
    pub(crate) credential: CertificateClaims,
    pub(crate) renewal: u64,
}

impl Host {
    /// A member that was just admitted: its leaf is the one that it enrolled with.
    pub(crate) fn new(node: NodeId, keys: Keys, replica: Replica, home: &Home, validity: Validity) -> Self {
        let credential = CertificateClaims {
            principal: Principal { trust_domain: home.trust_domain.clone(), role: Role::Node(node) },
            key: keys.leaf,
            authority: home.authority,
            cluster: Some(home.cluster),
            endorsement: Some(keys.endorse(home.cluster, keys.leaf, 0)),
            validity,
        };
        Self { node, keys, replica, saved: None, drift: 0, credential, renewal: 0 }
    }

    /// What its clock shows.
    pub(crate) const fn clock(&self, now: UnixMillis) -> UnixMillis {
        UnixMillis(now.0.saturating_add_signed(self.drift))
    }

    /// The time by which it judges certificates.
    pub(crate) fn judging_time(&self, now: UnixMillis) -> UnixMillis {
        self.clock(now).max(self.replica.time())
    }

    /// What TLS knows of a connection to it: the digest of the leaf that it presents.
    pub(crate) const fn leaf_digest(&self) -> [u8; 32] {
        self.credential.key.0
    }
}

/// A name out of so few that two joiners sometimes want the same.
pub(crate) fn draw_name(rng: &mut Rng) -> Result<Name, Broken> {
    Name::parse(&format!("n{}", rng.below(48))).map_err(|_| Broken::World)
}

/// An address out of so few that two members sometimes want the same.
pub(crate) fn draw_address(rng: &mut Rng) -> Result<Address, Broken> {
    Address::parse(&format!("10.0.0.{}:7001", 1 + rng.below(60))).map_err(|_| Broken::World)
}

pub(crate) fn domain(text: &str) -> Result<TrustDomain, Broken> {
    TrustDomain::parse(text).map_err(|_| Broken::World)
}
