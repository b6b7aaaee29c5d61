//! The credential that a joiner sends beside its request: a CSR where the cluster issues certificates, else its own
//! certificate.
//!
//! Here alone a certificate that was made elsewhere is read for an admission: the sponsor verifies its chain, maps it
//! by its own rules, and has seen its key sign the request. The joiner's claim must be the same, or nothing is
//! forwarded.

use bytes::Bytes;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::id::KeyId;
use countersign_core::limits::CSR_LEN_MAX;
use countersign_core::mapped::MappedName;
use countersign_core::time::UnixMillis;
use countersign_core::trust::member::ForeignLeaf;
use countersign_net::Trust;
use countersign_pki::csr::{CsrError, parse_csr};
use countersign_pki::foreign::{LeafSignature, LeafSignatureError, verify_foreign_chain};
use countersign_pki::mapping::{Rules, Unmapped};
use countersign_pki::verify::{ChainError, Usage};

/// Why a credential is not accepted. This end logs the reason; the joiner learns only that its credential is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("certificate signing request has {got} bytes, at most {CSR_LEN_MAX} are allowed")]
    Long { got: usize },
    #[error("certificate signing request is malformed")]
    Csr(#[from] CsrError),
    #[error("certificate is not accepted: {0}")]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    #[error("certificate maps to `{0}`, which is no node")]
    NotANode(MappedName),
    #[error(transparent)]
    Signature(#[from] LeafSignatureError),
}

/// The key that the joiner proved to hold.
#[derive(Debug)]
pub(crate) struct JoinerCredential {
    pub(crate) key: KeyId,
    pub(crate) spki: Vec<u8>,
    pub(crate) foreign: Option<ForeignLeaf>,
}

impl JoinerCredential {
    pub(crate) fn of_csr(csr: &[u8]) -> Result<Self, CredentialError> {
        if csr.len() > CSR_LEN_MAX {
            return Err(CredentialError::Long { got: csr.len() });
        }
        let csr = parse_csr(csr)?;
        Ok(Self { key: csr.id, spki: csr.spki, foreign: None })
    }

    pub(crate) fn of_certificate(
        trust: &Trust,
        rules: &Rules,
        now: UnixMillis,
        chain: &[Bytes],
        request: &EnrollmentRequest,
        signature: &LeafSignature,
    ) -> Result<Self, CredentialError> {
        let chain: Vec<_> = chain.iter().map(|der| der.as_ref().into()).collect();
        // A node dials and is dialed.
        verify_foreign_chain(&trust.bundle, &chain, Usage::Client, Some(now))?;
        let chain = verify_foreign_chain(&trust.bundle, &chain, Usage::Server, Some(now))?;
        chain.verify_signature(request.transcript().as_bytes(), signature)?;
        let mapped = match rules.map(chain.names(), Some(&trust.view.trust_domain))? {
            MappedName::Node(name) => name,
            other @ (MappedName::Broker(_) | MappedName::Client(_) | MappedName::Admin(_)) => {
                return Err(CredentialError::NotANode(other));
            }
        };
        let foreign = Some(ForeignLeaf { mapped, validity: chain.validity() });
        Ok(Self { key: chain.key(), spki: chain.leaf_spki().to_vec(), foreign })
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::lease::LeaseLength;
    use std::sync::Arc;

    use countersign_core::group::GroupMembers;
    use countersign_core::id::{AuthorityId, ClusterId, NodeId, RequestId, StoreId, TokenId};
    use countersign_core::key::{Endorsement, SecretKey};
    use countersign_core::name::{Address, Host, HostName, Name};
    use countersign_core::principal::{Principal, TrustDomain};
    use countersign_core::secret::Secret;
    use countersign_core::time::Validity;
    use countersign_core::trust::TrustState;
    use countersign_core::trust::author::Author;
    use countersign_core::trust::command::{Bootstrap, Command, FEATURE_LEVEL, Stamped};
    use countersign_core::trust::member::MemberKeys;
    use countersign_pki::authority::{Authority, AuthorityParts};
    use countersign_pki::credential::Credential;
    use countersign_pki::key::{KeyAlgorithm, KeyPair};
    use countersign_pki::offline::{MakeRequest, make_certificate};
    use countersign_pki::pem::certificates_from_pem;

    use super::*;

    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
    const CLUSTER: ClusterId = ClusterId([1; 16]);

    fn valid() -> Validity {
        Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(3600) }
    }

    fn key() -> SecretKey {
        SecretKey::from_seed(Secret::new([3; 32]))
    }

    fn keys() -> MemberKeys {
        MemberKeys { identity: key().public(), sealing: [4; 32], ucan: key().public() }
    }

    struct World {
        authority: Authority,
        trust: Trust,
        rules: Rules,
    }

    impl World {
        fn new() -> Self {
            let domain = TrustDomain::parse("td").unwrap();
            let parts = AuthorityParts {
                common_name: "elsewhere",
                trust_domain: &domain,
                cluster: None,
                serial: [1; 16],
                validity: valid(),
            };
            let authority = Authority::create(KeyPair::generate(KeyAlgorithm::P256).unwrap(), &parts).unwrap();
            let bootstrap = Bootstrap {
                cluster: CLUSTER,
                name: Name::parse("east").unwrap(),
                trust_domain: domain,
                authority: authority.certificate().to_vec(),
                authority_key: None,
                authority_validity: valid(),
                imported: true,
                node_name: Name::parse("n1").unwrap(),
                addresses: vec![Address::parse("10.0.0.1:1").unwrap()],
                keys: keys(),
                store: StoreId([1; 16]),
                leaf_key: KeyId([9; 32]),
                foreign: Some(ForeignLeaf { mapped: HostName::parse("n1").unwrap(), validity: valid() }),
                node_ttl_secs: 60,
                lease: LeaseLength::DEFAULT,
                token: None,
                policy: Default::default(),
            };
            let mut state = TrustState::new();
            let command = Command::Bootstrap(Box::new(bootstrap));
            let author = Author::of_member(NodeId(1), RequestId([0; 16]));
            let stamped = Stamped { level: FEATURE_LEVEL, time: NOW, author, command };
            state.apply(&stamped, &GroupMembers::default()).unwrap();
            let trust = Trust::of_view(Arc::clone(state.view().unwrap()), None, NOW).unwrap();
            Self { authority, trust, rules: Rules::parse(&[r"dns:(.*)\.corp=node/$1", "uri"]).unwrap() }
        }

        /// A certificate of `role`, reached at `host`, with its key.
        fn make(&self, role: &str, host: Option<&str>) -> (Credential, Vec<Bytes>) {
            let principal = Principal::parse(&format!("spiffe://td/{role}")).unwrap();
            let hosts: Vec<Host> = host.iter().map(|host| Host::parse(host).unwrap()).collect();
            let request = MakeRequest { principal: &principal, hosts: &hosts, serial: [2; 16], validity: valid() };
            let made = make_certificate(&self.authority, KeyAlgorithm::P256, &request).unwrap();
            let chain = certificates_from_pem(&made.certificate_pem).unwrap();
            let credential = Credential::from_pem(&made.certificate_pem, made.key_pem.expose()).unwrap();
            (credential, chain.iter().map(|der| Bytes::copy_from_slice(der)).collect())
        }

        fn read(
            &self,
            now: UnixMillis,
            chain: &[Bytes],
            signer: &Credential,
            signed: &EnrollmentRequest,
        ) -> Result<JoinerCredential, CredentialError> {
            let signature = signer.sign(signed.transcript().as_bytes()).unwrap();
            JoinerCredential::of_certificate(&self.trust, &self.rules, now, chain, &request(1), &signature)
        }
    }

    fn request(exporter: u8) -> EnrollmentRequest {
        EnrollmentRequest {
            cluster: CLUSTER,
            pin: AuthorityId([2; 32]),
            token: TokenId([3; 8]),
            request: RequestId([4; 16]),
            name: Name::parse("n2").unwrap(),
            addresses: vec![],
            leaf_key: KeyId([5; 32]),
            foreign: None,
            endorsement: Endorsement::sign(&key(), CLUSTER, KeyId([5; 32]), 0),
            keys: keys(),
            store: StoreId([2; 16]),
            feature_level: FEATURE_LEVEL,
            sponsor_leaf: [6; 32],
            exporter: [exporter; 32],
            signature: [0; 64],
        }
    }

    #[test]
    fn sponsor_reads_a_certificate_whose_key_signed_this_request() {
        let world = World::new();
        let (credential, chain) = world.make("broker/n2.corp", Some("n2.corp"));
        let credential_read = world.read(NOW, &chain, &credential, &request(1)).unwrap();
        let foreign = credential_read.foreign.unwrap();
        assert_eq!((foreign.mapped.as_str(), foreign.validity), ("n2", valid()));
        assert_eq!(credential_read.key, KeyId::of_spki(&credential_read.spki));
        let (other, _) = world.make("broker/n3.corp", Some("n3.corp"));
        let stolen = world.read(NOW, &chain, &other, &request(1)).unwrap_err();
        assert!(matches!(stolen, CredentialError::Signature(_)), "a certificate without its key: {stolen:?}");
        let replayed = world.read(NOW, &chain, &credential, &request(2)).unwrap_err();
        assert!(matches!(replayed, CredentialError::Signature(_)), "signed for another connection: {replayed:?}");
    }

    #[test]
    fn only_a_valid_certificate_of_a_node_is_accepted() {
        let world = World::new();
        let (credential, chain) = world.make("broker/n2.corp", Some("n2.corp"));
        for (now, claim) in [(NOW.plus_secs(3601), "expired"), (NOW.minus_secs(61), "not valid yet")] {
            let refused = world.read(now, &chain, &credential, &request(1));
            assert!(matches!(refused, Err(CredentialError::Chain(_))), "{claim}: {refused:?}");
        }
        let (client, chain) = world.make("broker/b", Some("b.example.org"));
        let refused = world.read(NOW, &chain, &client, &request(1)).unwrap_err();
        assert!(matches!(refused, CredentialError::NotANode(_)), "{refused:?}");
        let (foreign, chain) = World::new().make("broker/n2.corp", Some("n2.corp"));
        assert!(matches!(world.read(NOW, &chain, &foreign, &request(1)), Err(CredentialError::Chain(_))));
        assert!(matches!(world.read(NOW, &[], &foreign, &request(1)), Err(CredentialError::Chain(_))));
        // A client's certificate makes no node.
        let (client, chain) = world.make("client/pay", None);
        assert!(matches!(world.read(NOW, &chain, &client, &request(1)), Err(CredentialError::Chain(_))));
    }
}
