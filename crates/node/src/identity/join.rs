//! A new member: from a join token to a stored certificate. Repeatable at every crash point.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{EnrollRequest, ViewRequest};
use countersign_api::convert::{ClusterInfo, Enrollment, MessageError, refusal};
use countersign_core::codec::{self, CodecError};
use countersign_core::enroll::joiner::{Candidate, JoinError as ProtocolError, Unpinned};
use countersign_core::id::{AuthorityId, RequestId, StoreId};
use countersign_core::name::{Address, Name};
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_net::{Clock, Credential, CredentialError, DialError, SystemClock, dial_enroll, dial_enroll_mapped};
use countersign_pki::csr::{CsrError, create_csr};
use countersign_pki::pem::certificate_pem;
use countersign_pki::verify::{Bundle, BundleError, ChainError, Usage};
use countersign_raft::{Binding, OpenError, Store};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::channel::channel_over;
use crate::identity::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file};
use crate::identity::files::{self, FilesError, ForeignIdentity};
use crate::identity::keys::{Keys, KeysError, LeafKey, random};

/// Why a node did not join. Nothing is lost: the same command goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificates made elsewhere.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The sponsor was not reached, or is not who the token pins.
    #[error("cannot enroll through `{address}`")]
    Dial {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The cluster refused.
    #[error("the cluster refused: {why}")]
    Refused {
        /// Why.
        why: Refused,
        /// Seconds by which this host's clock is ahead of the cluster's time (negative: behind).
        skew_secs: i64,
    },
    /// The sponsor could not carry it out.
    #[error("the sponsor answered: {}", .0.message())]
    Sponsor(#[source] Box<tonic::Status>),
    /// The answer is not about this node.
    #[error("the answer cannot be believed")]
    Protocol(#[from] ProtocolError),
    /// The answer is malformed.
    #[error("the answer is malformed")]
    Message(#[from] MessageError),
    /// The request cannot be encoded.
    #[error("request cannot be encoded")]
    Codec(#[from] CodecError),
    /// The certificate request cannot be made.
    #[error("certificate request cannot be made")]
    Csr(#[from] CsrError),
    /// The store cannot be made.
    #[error("store cannot be made")]
    Store(#[from] OpenError),
    /// The issued certificate is not of our key.
    #[error("the certificate in the answer does not fit our key")]
    Credential(#[from] CredentialError),
    /// The issued certificate does not verify.
    #[error("the certificate in the answer does not verify")]
    Chain(#[from] ChainError),
    /// The view's authorities make no bundle.
    #[error("the trust bundle in the answer cannot be used")]
    Bundle(#[from] BundleError),
}

/// How long a joiner looks for a sponsor that answers.
pub(crate) const JOIN_DEADLINE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(500);

/// An enrollment under way, stored before keys are made and before anything is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct JoinFile {
    request: String,
    name: Name,
    addresses: Vec<Address>,
    /// The id of the store that will be made.
    store: String,
}

/// An enrollment that was begun in this directory.
pub(crate) struct Begun {
    request: RequestId,
    name: Name,
    addresses: Vec<Address>,
    store: StoreId,
    level: u32,
}

/// Whether an enrollment is under way in this directory.
pub(crate) fn under_way(data: &DataDir) -> bool {
    data.file(file::JOIN).exists()
}

/// Enrolls through `sponsor` and stores what it brought; the last file written makes the directory a member's.
pub(crate) async fn enroll(
    data: &DataDir,
    keys: &Keys,
    token: &JoinToken,
    sponsor: &Address,
    begun: &Begun,
) -> Result<MemberFile, JoinError> {
    if let Some(foreign) = keys.leaf.foreign() {
        foreign.check_pin(token.pin())?;
    }
    let candidate = candidate(begun, keys);
    let deadline = Instant::now() + JOIN_DEADLINE;
    loop {
        let attempt = attempt(keys, token, sponsor, candidate.clone()).await;
        match attempt {
            Ok((enrollment, skew)) => return store(data, keys, (token.pin(), begun.store), &enrollment, skew),
            Err(error) if Instant::now() + RETRY < deadline && error.is_passing() => {
                tracing::info!(%sponsor, reason = %crate::chain(&error), "not joined yet, trying again");
                // why: nothing on this host tells when another one is ready
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl JoinError {
    /// Whether the same request may succeed a little later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Dial { source, .. } => source.is_passing(),
            Self::Sponsor(status) => {
                matches!(
                    status.code(),
                    tonic::Code::Unavailable
                        | tonic::Code::Aborted
                        | tonic::Code::ResourceExhausted
                        | tonic::Code::Unknown
                )
            }
            Self::DataDir(_)
            | Self::Keys(_)
            | Self::Files(_)
            | Self::Refused { .. }
            | Self::Protocol(_)
            | Self::Message(_)
            | Self::Codec(_)
            | Self::Csr(_)
            | Self::Store(_)
            | Self::Credential(_)
            | Self::Chain(_)
            | Self::Bundle(_) => false,
        }
    }
}

/// Says that this directory is being made a joiner's, before anything else is made in it. Name and addresses may be
/// corrected between attempts; the ids stay, so that a lost answer is found again.
pub(crate) fn begin(data: &DataDir, name: &Name, addresses: &[Address], level: u32) -> Result<Begun, JoinError> {
    let stored = data.read(file::JOIN)?.map(|bytes| {
        let damaged = || DataDirError::Damaged { path: data.file(file::JOIN), reason: DamageReason::Parse };
        let stored: JoinFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        RequestId::parse(&stored.request).zip(StoreId::parse(&stored.store)).ok_or_else(damaged)
    });
    let (request, store) = match stored.transpose()? {
        Some(ids) => ids,
        None => (RequestId(*random::<16>()?.expose()), StoreId(*random::<16>()?.expose())),
    };
    let (name, addresses) = (name.clone(), addresses.to_vec());
    let join = JoinFile {
        request: request.to_string(),
        name: name.clone(),
        addresses: addresses.clone(),
        store: store.to_string(),
    };
    data.write(file::JOIN, &serde_json::to_vec_pretty(&join).unwrap_or_default())?;
    Ok(Begun { request, name, addresses, store, level })
}

/// What this node asks with: the same on every attempt with this directory.
fn candidate(begun: &Begun, keys: &Keys) -> Candidate {
    Candidate {
        request: begun.request,
        level: begun.level,
        name: begun.name.clone(),
        addresses: begun.addresses.clone(),
        leaf_key: keys.leaf.id(),
        foreign: keys.leaf.foreign().map(ForeignIdentity::leaf),
        keys: keys.public(),
        store: begun.store,
    }
}

async fn attempt(
    keys: &Keys,
    token: &JoinToken,
    sponsor: &Address,
    candidate: Candidate,
) -> Result<(Enrollment, i64), JoinError> {
    // Nothing leaves this host before the sponsor's leaf was verified to the pinned authority.
    let dialed = match keys.leaf.foreign() {
        None => dial_enroll(sponsor, token.pin()).await,
        Some(foreign) => dial_enroll_mapped(sponsor, token.pin(), foreign.rules()).await,
    };
    let pinned = dialed.map_err(|source| JoinError::Dial { address: sponsor.clone(), source })?;
    let joiner = Unpinned::new(token, candidate).pin(pinned.channel())?;
    let endpoint = tonic::transport::Endpoint::from_static("http://sponsor").timeout(JOIN_DEADLINE);
    let mut client = EnrollmentClient::new(channel_over(&endpoint, pinned));
    let sponsor_error = |status| JoinError::Sponsor(Box::new(status));
    let info: ClusterInfo =
        client.view(ViewRequest::default()).await.map_err(sponsor_error)?.into_inner().try_into()?;
    if let Some(foreign) = keys.leaf.foreign() {
        foreign.check_domain(&info.trust_domain)?;
    }
    let asked = joiner.request(info.cluster, &keys.identity);
    let mut request = EnrollRequest { request: codec::encode(asked.message())?.into(), ..EnrollRequest::default() };
    match &keys.leaf {
        LeafKey::Issued(key) => request.csr = create_csr(key)?.into(),
        LeafKey::Foreign(foreign) => {
            let signature = foreign.sign(asked.message().transcript().as_bytes())?;
            request.chain = foreign.presented().map(Bytes::copy_from_slice).collect();
            (request.signature_scheme, request.signature) = (signature.scheme.into(), signature.bytes.into());
        }
    }
    let reply = client.enroll(request).await.map_err(sponsor_error)?.into_inner();
    let skew = skew_secs(SystemClock.now(), UnixMillis(reply.time_millis));
    if !reply.refused.is_empty() {
        return Err(JoinError::Refused { why: refusal(&reply.refused, &reply.reason)?, skew_secs: skew });
    }
    let enrollment: Enrollment = reply.try_into()?;
    asked.accept(enrollment.node, &enrollment.view)?;
    Ok((enrollment, skew))
}

/// Seconds by which `here` is ahead of `cluster`.
fn skew_secs(here: UnixMillis, cluster: UnixMillis) -> i64 {
    let (here, cluster) = (i64::try_from(here.secs()), i64::try_from(cluster.secs()));
    here.unwrap_or(i64::MAX).saturating_sub(cluster.unwrap_or(i64::MAX))
}

fn store(
    data: &DataDir,
    keys: &Keys,
    (pin, store): (AuthorityId, StoreId),
    enrollment: &Enrollment,
    skew: i64,
) -> Result<MemberFile, JoinError> {
    if skew.unsigned_abs() > countersign_core::limits::SKEW_SECS {
        tracing::warn!(
            skew_secs = skew,
            "this host's clock is wrong; the cluster's time is used to judge certificates"
        );
    }
    let view = Arc::new(enrollment.view.clone());
    files::check(&view, enrollment.node, keys.leaf.foreign())?;
    if let LeafKey::Issued(key) = &keys.leaf {
        // The issued certificate must pass this node's own verifier before anything relies on it.
        let credential = Credential::new(enrollment.chain.iter().map(|der| der.to_vec()), key)?;
        // Under the pinned authority alone: the others in the answer are the sponsor's word, and a sponsor that was
        // evicted still has a certificate.
        let pinned = view.authorities.get(&pin).map(|authority| authority.certificate.as_slice());
        let verified = credential.verify(&Bundle::new(pinned)?, Usage::Server, enrollment.time)?;
        if verified.claims().principal.role != Role::Node(enrollment.node) {
            return Err(ProtocolError::NotAdmitted.into());
        }
        let chain: String = enrollment.chain.iter().map(|der| certificate_pem(der)).collect();
        data.write(file::LEAF, chain.as_bytes())?;
    }
    data.write(file::VIEW, &codec::encode::<View>(&view)?)?;
    let damaged = || DataDirError::Damaged { path: data.file(file::VIEW), reason: DamageReason::Mismatch };
    let member = view.members.get(&enrollment.node).ok_or_else(damaged)?;
    let binding = Binding { cluster: view.cluster, node: enrollment.node, incarnation: view.incarnation, store };
    // Before `member.json`: from then on a store that is not there is lost.
    Store::create(&data.store_place(binding), StoreId(*random::<16>()?.expose()))?;
    let member = MemberFile::new(&binding, view.name.clone(), member.name.clone());
    data.write_member(&member)?;
    data.remove(file::JOIN)?;
    Ok(member)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use countersign_core::id::{ClusterId, Generation, Incarnation, KeyId, NodeId, RequestId};
    use countersign_core::key::Endorsement;
    use countersign_core::name::Host;
    use countersign_core::principal::{Principal, TrustDomain};
    use countersign_core::time::Validity;
    use countersign_core::trust::attestation::{Attestation, AttestedVoter};
    use countersign_core::trust::author::{Author, Made};
    use countersign_core::trust::member::{Issued, Leaf, Member, Suffrage};
    use countersign_core::trust::view::{Authority as Recorded, AuthorityKey, AuthorityPhase};
    use countersign_pki::authority::{Authority, AuthorityParts, LeafRequest};
    use countersign_pki::key::{KeyAlgorithm, KeyPair};

    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);
    const HERE: NodeId = NodeId(2);
    const STORE: StoreId = StoreId([2; 16]);
    const VALID: Validity = Validity { not_before: UnixMillis(0), not_after: UnixMillis(4_000_000_000_000) };
    const NOW: UnixMillis = UnixMillis(2_000_000_000_000);

    fn domain() -> TrustDomain {
        TrustDomain::parse("test.internal").unwrap()
    }

    fn authority(serial: u8) -> Authority {
        let parts = AuthorityParts {
            common_name: "test",
            trust_domain: &domain(),
            cluster: Some(CLUSTER),
            serial: [serial; 16],
            validity: VALID,
        };
        Authority::create(KeyPair::generate(KeyAlgorithm::default()).unwrap(), &parts).unwrap()
    }

    /// A joiner that has asked, and the two authorities of the cluster that answers.
    struct Joiner {
        _dir: tempfile::TempDir,
        data: DataDir,
        keys: Keys,
        pinned: Authority,
        other: Authority,
    }

    impl Joiner {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let keys = Keys::load_or_make(&data, None, KeyAlgorithm::default()).unwrap();
            Self { _dir: dir, data, keys, pinned: authority(1), other: authority(2) }
        }

        /// The sponsor's view: it names both authorities, as the sponsor's word, and this joiner.
        fn view(&self) -> View {
            let recorded = |authority: &Authority| Recorded {
                certificate: authority.certificate().to_vec(),
                key: Some(AuthorityKey::P256(vec![])),
                phase: AuthorityPhase::Active,
                validity: VALID,
                imported: false,
            };
            let authorities = [&self.pinned, &self.other].into_iter().map(|a| (a.id(), recorded(a)));
            let author = Author::of_member(HERE, RequestId([0; 16]));
            let issued = Issued { authority: Some(self.pinned.id()), made: Made::new(&author, NOW) };
            let member = Member {
                id: HERE,
                name: Name::parse("n2").unwrap(),
                suffrage: Suffrage::Learner,
                keys: self.keys.public(),
                store: STORE,
                returning: None,
                leaf: Leaf { key: self.keys.leaf.id(), renewal: 0, serial: [3; 16], validity: VALID, issued },
                mapped: None,
                addresses: vec![Address::parse("127.0.0.1:1").unwrap()],
                addresses_changed: Generation(0),
                proved: BTreeMap::new(),
                hosts: Default::default(),
                renewed: None,
                role: None,
                attributes: BTreeMap::new(),
                admitted_by: None,
                admitted_at: NOW,
                token_made: None,
                feature_level: 1,
                level_since: NOW,
            };
            View {
                cluster: CLUSTER,
                name: Name::parse("test").unwrap(),
                trust_domain: domain(),
                incarnation: Incarnation(0),
                generation: Generation(2),
                authorities: authorities.collect(),
                members: [(HERE, member)].into(),
                evicted: Default::default(),
                principals: Default::default(),
                labels: Default::default(),
                policy: Arc::default(),
                revoked_keys: Default::default(),
                revoked_principals: Default::default(),
                groups: Default::default(),
                client_names: Default::default(),
                attestation: Arc::new(Attestation::founding(
                    CLUSTER,
                    HERE,
                    AttestedVoter { identity: self.keys.identity.public(), store: STORE },
                    self.pinned.id(),
                )),
                attested: 0,
            }
        }

        /// What becomes of an answer whose certificate `signer` made for `key` in the name of `node`.
        fn answered(&self, signer: &Authority, key: &KeyPair, node: NodeId) -> Result<MemberFile, JoinError> {
            let endorsement = Endorsement::sign(&self.keys.identity, CLUSTER, KeyId::of_spki(&key.spki()), 0);
            let leaf = signer.issue(&LeafRequest {
                principal: &Principal { trust_domain: domain(), role: Role::Node(node) },
                common_name: "n2",
                hosts: &[Host::Ip([127, 0, 0, 1].into())],
                spki: &key.spki(),
                serial: [3; 16],
                validity: VALID,
                endorsement: Some(&endorsement),
            });
            let chain = vec![leaf.unwrap().into(), signer.certificate().to_vec().into()];
            let answer = Enrollment { node: HERE, chain, view: self.view(), time: NOW };
            store(&self.data, &self.keys, (self.pinned.id(), StoreId([6; 16])), &answer, 0)
        }
    }

    #[test]
    fn leaf_of_an_unpinned_authority_is_refused() {
        let joiner = Joiner::new();
        let LeafKey::Issued(own) = &joiner.keys.leaf else { panic!("made here") };
        let by_other = joiner.answered(&joiner.other, own, HERE);
        assert!(matches!(by_other, Err(JoinError::Chain(_))), "{by_other:?}");
        let another_node = joiner.answered(&joiner.pinned, own, NodeId(3));
        assert!(matches!(another_node, Err(JoinError::Protocol(ProtocolError::NotAdmitted))), "{another_node:?}");
        let another_key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
        let another_key = joiner.answered(&joiner.pinned, &another_key, HERE);
        assert!(matches!(another_key, Err(JoinError::Credential(_))), "{another_key:?}");
        // Nothing of these answers was stored; the right one is.
        assert!(joiner.data.member().unwrap().is_none());
        assert!(joiner.data.read(file::LEAF).unwrap().is_none() && joiner.data.read(file::VIEW).unwrap().is_none());
        assert_eq!(joiner.answered(&joiner.pinned, own, HERE).unwrap().node(), HERE);
    }
}
