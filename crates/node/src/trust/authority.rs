//! The CA key in this voter's memory, and the certificates made with it. In clear it exists nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::id::{AuthorityId, KeyId, NodeId};
use countersign_core::key::Endorsement;
use countersign_core::name::Host;
use countersign_core::principal::Role;
use countersign_core::trust::TrustState;
use countersign_core::trust::command::{Command, Effect};
use countersign_core::trust::outcome::{Admitted, Grant, Outcome};
use countersign_core::trust::seal::confirm_transcript;
use countersign_core::trust::view::View;
use countersign_pki::authority::{Authority, IssueError, LeafRequest};
use countersign_pki::key::KeyError;
use countersign_pki::seal::{SealError, SealingKey, open_authority, seal_authority};

/// Why a certificate cannot be signed here.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// This member holds no opened copy of the authority's key.
    #[error("this member does not hold the CA key")]
    NoAuthority,
    /// The grant is of another authority than the one held.
    #[error("authority {wanted} signs, this member holds {held}")]
    OtherAuthority {
        /// The one that signs.
        wanted: AuthorityId,
        /// The one held.
        held: AuthorityId,
    },
    /// The certificate cannot be made.
    #[error("certificate cannot be made")]
    Issue(#[from] IssueError),
    /// The key cannot sign.
    #[error("CA key cannot sign")]
    Key(#[from] KeyError),
    /// The copy cannot be sealed or opened.
    #[error("CA key cannot be sealed or opened")]
    Seal(#[from] SealError),
}

/// The authorities whose keys this member holds, since it is a voter and has opened its copies: one today, two while
/// one is replaced by another.
#[derive(Default)]
pub struct KeyHolder(ArcSwap<BTreeMap<AuthorityId, Arc<Authority>>>);

impl KeyHolder {
    /// Whether this member can sign with any of them.
    pub fn holds(&self) -> bool {
        !self.0.load().is_empty()
    }

    /// Opens this member's sealed copies that are not open yet, and drops each authority whose copy is gone.
    pub(crate) fn follow(&self, state: &TrustState, node: NodeId, sealing: &SealingKey) -> Result<(), SignError> {
        let Some(view) = state.view() else { return Ok(()) };
        let held = self.0.load_full();
        let mut now = BTreeMap::new();
        let mut failed = None;
        for (id, record) in &view.authorities {
            let Some(copy) = state.sealed().get(&(*id, node)) else { continue };
            let opened = match held.get(id) {
                Some(opened) => Ok(Arc::clone(opened)),
                None => {
                    open_authority(sealing, view.cluster, node, &record.certificate, &copy.ciphertext).map(Arc::new)
                }
            };
            match opened {
                Ok(opened) => drop(now.insert(*id, opened)),
                // One that cannot be opened takes no other away.
                Err(error) => failed = Some(error),
            }
        }
        if now.keys().ne(held.keys()) {
            self.0.store(Arc::new(now));
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn held(&self, authority: AuthorityId) -> Result<Arc<Authority>, SignError> {
        let held = self.0.load();
        held.get(&authority).cloned().ok_or_else(|| match held.keys().next() {
            Some(other) => SignError::OtherAuthority { wanted: authority, held: *other },
            None => SignError::NoAuthority,
        })
    }

    /// Seals the authority's key to a member that is promoted.
    pub(crate) fn seal_to(
        &self,
        authority: AuthorityId,
        view: &View,
        (node, sealing): (NodeId, &[u8; 32]),
    ) -> Result<Vec<u8>, SignError> {
        let authority = self.held(authority)?;
        Ok(seal_authority(&authority, view.cluster, node, sealing)?)
    }

    /// The proof that this member opened its copy.
    pub(crate) fn confirm(
        &self,
        authority: AuthorityId,
        view: &View,
        (node, ciphertext): (NodeId, &[u8]),
    ) -> Result<Vec<u8>, SignError> {
        let authority = self.held(authority)?;
        let transcript = confirm_transcript(view.cluster, authority.id(), node, ciphertext);
        Ok(authority.key().sign(transcript.as_bytes())?)
    }

    /// The proof of another member, as if it had opened its copy here.
    #[doc(hidden)]
    pub fn confirm_for_testing(&self, view: &View, node: NodeId, copy: &[u8]) -> Result<Vec<u8>, SignError> {
        let (authority, _) = view.active_authority().ok_or(SignError::NoAuthority)?;
        self.confirm(authority, view, (node, copy))
    }

    /// Signs a member's leaf as the outcome of its admission has it; nothing where certificates are made elsewhere.
    pub(crate) fn sign_admitted(
        &self,
        admitted: &Admitted,
        endorsement: &Endorsement,
        spki: &[u8],
    ) -> Result<Vec<Vec<u8>>, SignError> {
        let Some(grant) = &admitted.grant else { return Ok(vec![]) };
        self.sign(grant, admitted.name.as_str(), &admitted.hosts, spki, Some(endorsement))
    }

    /// Signs what the outcome of a command grants, for the very key that the command recorded.
    pub(crate) fn sign_granted(
        &self,
        outcome: &Outcome,
        command: &Command,
        spki: &[u8],
    ) -> Result<Vec<Vec<u8>>, SignError> {
        match outcome {
            Outcome::Admitted(admitted) | Outcome::Renewed(admitted) => match command.effect() {
                Effect::CertifiesNode(endorsement) if admitted.leaf.key == KeyId::of_spki(spki) => {
                    self.sign_admitted(admitted, endorsement, spki)
                }
                Effect::CertifiesNode(_)
                | Effect::CertifiesPrincipal(_)
                | Effect::Nothing
                | Effect::Revokes(_)
                | Effect::Evicts(_)
                | Effect::BindsStore { .. } => Ok(vec![]),
            },
            Outcome::Issued(grant) => match command.effect() {
                Effect::CertifiesPrincipal(spki) => self.sign_principal(grant, spki),
                Effect::CertifiesNode(_)
                | Effect::Nothing
                | Effect::Revokes(_)
                | Effect::Evicts(_)
                | Effect::BindsStore { .. } => Ok(vec![]),
            },
            Outcome::Done(_)
            | Outcome::Token(_)
            | Outcome::Evicted { .. }
            | Outcome::Revoked { .. }
            | Outcome::Refused(_)
            | Outcome::Policy { .. }
            | Outcome::Staged
            | Outcome::Placed { .. } => Ok(vec![]),
        }
    }

    /// Signs the leaf of a broker, client or admin.
    pub(crate) fn sign_principal(&self, grant: &Grant, spki: &[u8]) -> Result<Vec<Vec<u8>>, SignError> {
        let (name, hosts) = match &grant.principal.role {
            Role::Broker(host) => (host.to_string(), vec![Host::Dns(host.clone())]),
            Role::Client(name) | Role::Admin(name) => (name.to_string(), vec![]),
            Role::Node(id) => (id.to_string(), vec![]),
        };
        self.sign(grant, &name, &hosts, spki, None)
    }

    fn sign(
        &self,
        grant: &Grant,
        common_name: &str,
        hosts: &[Host],
        spki: &[u8],
        endorsement: Option<&Endorsement>,
    ) -> Result<Vec<Vec<u8>>, SignError> {
        let authority = self.held(grant.authority)?;
        let leaf = authority.issue(&LeafRequest {
            principal: &grant.principal,
            common_name,
            hosts,
            spki,
            serial: grant.serial,
            validity: grant.validity,
            endorsement,
        })?;
        Ok(vec![leaf, authority.certificate().to_vec()])
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::group::GroupMembers;
    use countersign_core::id::{ClusterId, KeyId, RequestId, StoreId};
    use countersign_core::key::SecretKey;
    use countersign_core::lease::LeaseLength;
    use countersign_core::name::{Address, Name};
    use countersign_core::principal::{Principal, TrustDomain};
    use countersign_core::secret::Secret;
    use countersign_core::time::{UnixMillis, Validity};
    use countersign_core::trust::author::Author;
    use countersign_core::trust::command::{Bootstrap, Command, FEATURE_LEVEL, SealedKey, Stamped};
    use countersign_core::trust::member::MemberKeys;
    use countersign_pki::authority::AuthorityParts;
    use countersign_pki::key::{KeyAlgorithm, KeyPair};

    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const VOTER: NodeId = NodeId(1);
    const VALID: Validity = Validity { not_before: UnixMillis(0), not_after: UnixMillis(4_000_000_000_000) };

    fn domain() -> TrustDomain {
        TrustDomain::parse("td.internal").unwrap()
    }

    fn authority(algorithm: KeyAlgorithm) -> Authority {
        let parts = AuthorityParts {
            common_name: "test",
            trust_domain: &domain(),
            cluster: Some(CLUSTER),
            serial: [1; 16],
            validity: VALID,
        };
        Authority::create(KeyPair::generate(algorithm).unwrap(), &parts).unwrap()
    }

    /// What a voter holds that opened its own sealed copy of the authority's key.
    fn voter(authority: &Authority) -> KeyHolder {
        let sealing = SealingKey::generate().unwrap();
        let key = SecretKey::from_seed(Secret::new([3; 32])).public();
        let sealed = seal_authority(authority, CLUSTER, VOTER, &sealing.public()).unwrap();
        let bootstrap = Bootstrap {
            cluster: CLUSTER,
            name: Name::parse("east").unwrap(),
            trust_domain: domain(),
            authority: authority.certificate().to_vec(),
            authority_key: Some(SealedKey { public: authority.key().authority_key(), sealed }),
            authority_validity: VALID,
            imported: false,
            node_name: Name::parse("n1").unwrap(),
            addresses: vec![Address::parse("10.0.0.1:1").unwrap()],
            keys: MemberKeys { identity: key, sealing: sealing.public(), ucan: key },
            store: StoreId([1; 16]),
            leaf_key: KeyId([9; 32]),
            foreign: None,
            node_ttl_secs: 60,
            lease: LeaseLength::DEFAULT,
            token: None,
            policy: Default::default(),
        };
        let mut state = TrustState::new();
        let command = Command::Bootstrap(Box::new(bootstrap));
        let time = UnixMillis::from_secs(1_800_000_000);
        let author = Author::of_member(VOTER, RequestId([0; 16]));
        state.apply(&Stamped { level: FEATURE_LEVEL, time, author, command }, &GroupMembers::default()).unwrap();
        let keeper = KeyHolder::default();
        keeper.follow(&state, VOTER, &sealing).unwrap();
        keeper
    }

    #[test]
    fn three_voters_sign_one_grant_byte_for_byte_equal() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
            let authority = authority(algorithm);
            let voters = [(); 3].map(|()| voter(&authority));
            let leaf = KeyPair::generate(KeyAlgorithm::P256).unwrap();
            for role in ["node/2", "broker/b1.example.org", "client/pay", "admin/root"] {
                let principal = Principal::parse(&format!("spiffe://td.internal/{role}")).unwrap();
                let grant = Grant { principal, authority: authority.id(), serial: [5; 16], validity: VALID };
                let sign = |voter: &KeyHolder| voter.sign_principal(&grant, &leaf.spki()).unwrap();
                let signed = voters.each_ref().map(sign);
                assert!(signed.iter().all(|chain| *chain == signed[0]), "{algorithm:?} {role}");
                // And again by the same voter, for an answer that was lost.
                assert_eq!(sign(&voters[0]), signed[0]);
            }
        }
    }

    #[test]
    fn grants_of_another_authority_are_not_signed() {
        let [own, other] = [(); 2].map(|()| authority(KeyAlgorithm::P256));
        let voter = voter(&own);
        let principal = Principal::parse("spiffe://td.internal/client/pay").unwrap();
        let grant = Grant { principal, authority: other.id(), serial: [5; 16], validity: VALID };
        let spki = KeyPair::generate(KeyAlgorithm::P256).unwrap().spki();
        assert!(matches!(voter.sign_principal(&grant, &spki), Err(SignError::OtherAuthority { .. })));
        assert!(matches!(KeyHolder::default().sign_principal(&grant, &spki), Err(SignError::NoAuthority)));
    }

    #[test]
    fn each_of_two_authorities_signs_its_own_grants() {
        let both = [(); 2].map(|()| Arc::new(authority(KeyAlgorithm::P256)));
        let holder = KeyHolder::default();
        holder.0.store(Arc::new(both.iter().map(|held| (held.id(), Arc::clone(held))).collect()));
        let principal = Principal::parse("spiffe://td.internal/client/pay").unwrap();
        let spki = KeyPair::generate(KeyAlgorithm::P256).unwrap().spki();
        for authority in &both {
            let grant =
                Grant { principal: principal.clone(), authority: authority.id(), serial: [5; 16], validity: VALID };
            let chain = holder.sign_principal(&grant, &spki).unwrap();
            assert_eq!(chain[1], authority.certificate());
        }
    }
}
