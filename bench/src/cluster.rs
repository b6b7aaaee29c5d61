//! A cluster in memory: an authority, members with certificates, and the view that holds them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use countersign_core::id::{ClusterId, Generation, Incarnation, NodeId, RequestId, StoreId};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::name::{Address, Host, Name};
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::attestation::{Attestation, AttestedVoter};
use countersign_core::trust::author::{Author, Made};
use countersign_core::trust::hosts::LeafHosts;
use countersign_core::trust::member::{Issued, Leaf, Member, MemberKeys, Suffrage};
use countersign_core::trust::view::{self, AuthorityPhase, View};
use countersign_net::{Clock, Credential, Endpoint, LoggedRefusals, SystemClock, Trust};
use countersign_pki::authority::{Authority, AuthorityParts, LeafRequest, authority_info};
use countersign_pki::key::{KeyAlgorithm, KeyPair};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const DAY: u64 = 86_400;

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: KeyPair,
}

/// Members 1 to n of a cluster.
pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    pub(crate) members: BTreeMap<NodeId, Identity>,
    view: View,
}

impl Cluster {
    pub(crate) fn of(count: u64) -> Result<Self> {
        let now = SystemClock.now();
        let domain = TrustDomain::parse("east-07070707.internal")?;
        let validity = Validity { not_before: now.minus_secs(DAY), not_after: now.plus_secs(90 * DAY) };
        let parts = AuthorityParts {
            common_name: "east",
            trust_domain: &domain,
            cluster: Some(CLUSTER),
            serial: [1; 16],
            validity,
        };
        let authority = Authority::create(KeyPair::generate(KeyAlgorithm::default())?, &parts)?;
        let info = authority_info(authority.certificate())?;
        let record = view::Authority {
            certificate: authority.certificate().to_vec(),
            key: Some(info.key),
            phase: AuthorityPhase::Active,
            validity: info.validity,
            imported: false,
        };
        // No member here was away, so no member reads it.
        let unread = SecretKey::from_seed(Secret::new([0; 32])).public();
        let attestation = Attestation::founding(
            CLUSTER,
            NodeId(1),
            AttestedVoter { identity: unread, store: StoreId([0; 16]) },
            authority.id(),
        );
        let mut cluster = Self {
            members: BTreeMap::new(),
            view: View {
                cluster: CLUSTER,
                name: Name::parse("east")?,
                trust_domain: domain,
                incarnation: Incarnation(0),
                generation: Generation(1),
                authorities: BTreeMap::from([(authority.id(), record)]),
                members: Default::default(),
                evicted: Default::default(),
                principals: Default::default(),
                labels: Default::default(),
                policy: Arc::default(),
                revoked_keys: Default::default(),
                revoked_principals: Default::default(),
                groups: Default::default(),
                client_names: Default::default(),
                attestation: Arc::new(attestation),
                attested: 0,
            },
            authority,
        };
        for id in 1..=count {
            cluster.admit(NodeId(id), validity)?;
        }
        Ok(cluster)
    }

    fn admit(&mut self, id: NodeId, validity: Validity) -> Result<()> {
        let key = KeyPair::generate(KeyAlgorithm::default())?;
        let identity = SecretKey::from_seed(Secret::new([u8::try_from(id.0)?; 32]));
        let mut serial = [1; 16];
        serial[8..].copy_from_slice(&id.0.to_be_bytes());
        let principal = Principal { trust_domain: self.view.trust_domain.clone(), role: Role::Node(id) };
        let leaf = self.authority.issue(&LeafRequest {
            principal: &principal,
            common_name: "member",
            hosts: &[Host::parse("127.0.0.1")?],
            spki: &key.spki(),
            serial,
            validity,
            endorsement: Some(&Endorsement::sign(&identity, CLUSTER, key.id(), 0)),
        })?;
        let public = identity.public();
        let made = Made::new(&Author::of_member(NodeId(1), RequestId([0; 16])), validity.not_before);
        let member = Member {
            id,
            name: Name::parse(&format!("n{id}"))?,
            suffrage: Suffrage::Voter,
            keys: MemberKeys { identity: public, sealing: [0; 32], ucan: public },
            store: StoreId([u8::try_from(id.0)?; 16]),
            returning: None,
            leaf: Leaf { key: key.id(), renewal: 0, serial, validity, issued: Issued { authority: None, made } },
            mapped: None,
            addresses: vec![],
            addresses_changed: Generation(0),
            proved: Default::default(),
            hosts: LeafHosts::default(),
            renewed: None,
            role: None,
            attributes: BTreeMap::new(),
            admitted_by: None,
            admitted_at: validity.not_before,
            token_made: None,
            feature_level: 1,
            level_since: validity.not_before,
        };
        self.view.members.insert(id, member);
        let chain = vec![leaf, self.authority.certificate().to_vec()];
        self.members.insert(id, Identity { chain, key });
        Ok(())
    }

    /// What its members know.
    pub(crate) fn into_view(self) -> View {
        self.view
    }

    pub(crate) fn identity(&self, id: u64) -> Result<&Identity> {
        self.members.get(&NodeId(id)).context("no such member")
    }

    /// A member on the network.
    pub(crate) fn endpoint(&self, id: u64) -> Result<Endpoint> {
        let identity = self.identity(id)?;
        let credential = Credential::new(identity.chain.iter().cloned(), &identity.key)?;
        let trust = Trust::of_view(Arc::new(self.view.clone()), Some(Arc::new(credential)), UnixMillis(0))?;
        Ok(Endpoint::new(trust, SystemClock, Arc::new(LoggedRefusals::default())))
    }

    /// The same cluster, one generation on: verifications under the generation before count for nothing.
    pub(crate) fn next_generation(&mut self) -> Arc<View> {
        self.view.generation.0 += 1;
        Arc::new(self.view.clone())
    }
}

pub(crate) fn dialed(address: SocketAddr) -> Address {
    Address { host: Host::Ip(address.ip()), port: address.port() }
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
