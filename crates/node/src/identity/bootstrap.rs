//! The first member of a new cluster: its authority, its sealed key, and the first entry of the log.
//!
//! Crash-safe: everything is made once and stored sealed before anything is proposed, so that a repeated start finishes
//! what a killed one began, with the same cluster id and the same authority.

use countersign_core::codec::{self, CodecError};
use countersign_core::id::{AuthorityId, ClusterId, Incarnation, NodeId, RequestId, StoreId};
use countersign_core::key::Endorsement;
use countersign_core::limits::SKEW_SECS;
use countersign_core::name::{Address, Name};
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::author::Author;
use countersign_core::trust::command::{Bootstrap, Command, SealedKey, Stamped};
use countersign_core::trust::join_token::{JoinToken, TokenRecord};
use countersign_core::trust::member::Member;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use countersign_net::{Clock, SystemClock};
use countersign_pki::authority::{Authority, AuthorityParts, IssueError, LeafRequest, authority_info};
use countersign_pki::key::{KeyAlgorithm, KeyError, KeyPair};
use countersign_pki::pem::{PemError, certificate_pem, certificates_from_pem};
use countersign_pki::seal::{SealError, open_authority, seal_authority};
use countersign_pki::verify::{Bundle, BundleError};
use countersign_raft::{Binding, OpenError};
use serde::{Deserialize, Serialize};

use crate::identity::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file};
use crate::identity::files::{FilesError, ForeignIdentity};
use crate::identity::keys::{Keys, KeysError, LeafKey, random};
use crate::settings::{AUTHORITY_TTL_SECS, ImportedAuthority, NewCluster, Settings};
use crate::trust::replica::{Replica, ReplicaError};

/// Why a cluster was not made. Nothing is lost: the same command goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The authority cannot be made or used.
    #[error("authority cannot be used: {0}")]
    Authority(#[from] IssueError),
    /// The authority is none that peers would trust.
    #[error("authority cannot be trusted: {0}")]
    Bundle(#[from] BundleError),
    /// The given key does not parse.
    #[error("authority's key cannot be read")]
    AuthorityKey(#[from] KeyError),
    /// The given certificate does not parse.
    #[error("authority's certificate is not one PEM certificate")]
    AuthorityPem(#[from] PemError),
    /// The given certificate names no trust domain, and none was given.
    #[error("authority's certificate names no trust domain (a URI SAN spiffe://…)")]
    NoTrustDomain,
    /// The given certificate names another trust domain.
    #[error("authority's certificate is of trust domain `{got}`, asked was `{expected}`")]
    TrustDomain {
        /// Asked.
        expected: TrustDomain,
        /// In the certificate.
        got: TrustDomain,
    },
    /// The certificates made elsewhere.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// An authority was given twice.
    #[error("an authority with its key was given beside one whose key is held elsewhere")]
    TwoAuthorities,
    /// The CA key cannot be sealed.
    #[error("CA key cannot be sealed")]
    Seal(#[from] SealError),
    /// The store cannot be made.
    #[error("store cannot be made")]
    Store(#[from] OpenError),
    /// Raft or its store.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The state machine refused.
    #[error("cluster was not made: {0}")]
    Refused(#[from] Refused),
    /// A stored value cannot be encoded.
    #[error("bootstrap cannot be encoded")]
    Codec(#[from] CodecError),
}

/// What `bootstrap.bin` holds.
#[derive(Serialize, Deserialize)]
enum Stored {
    /// Keys are being made: what else is in the directory was made by this bootstrap.
    Begun,
    /// Everything is made that will be proposed.
    Prepared(Box<Prepared>),
}

/// A bootstrap that is stored, sealed, and ready to be proposed.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Prepared {
    command: Bootstrap,
}

impl Prepared {
    /// What the founder's store is bound to.
    pub(crate) const fn binding(&self) -> Binding {
        Binding { cluster: self.command.cluster, node: FOUNDER, incarnation: Incarnation(0), store: self.command.store }
    }
}

/// Says that this directory is being made a founder's, before anything else is made in it. Done already: nothing.
pub(crate) fn begin(data: &DataDir) -> Result<(), BootstrapError> {
    if !under_way(data) {
        data.write(file::BOOTSTRAP, &codec::encode(&Stored::Begun)?)?;
    }
    Ok(())
}

/// Whether a bootstrap is under way in this directory.
pub(crate) fn under_way(data: &DataDir) -> bool {
    data.file(file::BOOTSTRAP).exists()
}

/// Makes what the first entry holds, or takes it up from an earlier start.
pub(crate) fn prepare(
    data: &DataDir,
    keys: &Keys,
    cluster: &NewCluster,
    node_name: &Name,
    addresses: &[Address],
    settings: &Settings,
) -> Result<Prepared, BootstrapError> {
    if let Some(prepared) = resume(data)? {
        return Ok(prepared);
    }
    let now = SystemClock.now();
    let id = ClusterId(*random::<16>()?.expose());
    let founding = match &keys.leaf {
        LeafKey::Issued(_) => Founding::with_key(keys, cluster, id, now, settings.key)?,
        LeafKey::Foreign(foreign) => Founding::without_key(foreign, cluster, id)?,
    };
    let pin = AuthorityId::of_certificate(&founding.certificate);
    let token = cluster.token.map(|wanted| {
        let token = JoinToken::new(random::<32>()?, pin);
        let record = TokenRecord {
            verifier: token.key().public(),
            pin: token.pin(),
            suffrage: wanted.suffrage,
            uses: wanted.uses,
            uses_left: wanted.uses,
            not_after: now.plus_secs(wanted.ttl_secs),
            name: None,
            hosts: vec![],
            role: None,
            attributes: Default::default(),
            revoked: false,
            cluster_token: true,
        };
        Ok::<_, KeysError>((token, record))
    });
    let (token, record) = token.transpose()?.unzip();
    let command = Bootstrap {
        cluster: id,
        name: cluster.name.clone(),
        trust_domain: founding.trust_domain,
        authority: founding.certificate,
        authority_key: founding.key,
        authority_validity: founding.validity,
        imported: founding.imported,
        node_name: node_name.clone(),
        addresses: addresses.to_vec(),
        keys: keys.public(),
        store: StoreId(*random::<16>()?.expose()),
        leaf_key: keys.leaf.id(),
        foreign: keys.leaf.foreign().map(ForeignIdentity::leaf),
        node_ttl_secs: settings.node_ttl_secs,
        lease: settings.lease,
        token: record,
        policy: cluster.policy.clone(),
    };
    if let Some(token) = &token {
        data.write(file::CLUSTER_TOKEN, token.reveal().as_bytes())?;
    }
    let prepared = Prepared { command };
    data.write(file::BOOTSTRAP, &codec::encode(&Stored::Prepared(Box::new(prepared.clone())))?)?;
    Ok(prepared)
}

pub(crate) const FOUNDER: NodeId = NodeId(1);

/// What an earlier start stored.
pub(crate) fn resume(data: &DataDir) -> Result<Option<Prepared>, BootstrapError> {
    let Some(bytes) = data.read(file::BOOTSTRAP)? else { return Ok(None) };
    match codec::decode(&bytes)? {
        Stored::Begun => Ok(None),
        Stored::Prepared(prepared) => Ok(Some(*prepared)),
    }
}

/// Proposes the first entry and stores the founder's certificate; the last file written makes the directory a member's.
pub(crate) async fn carry_out(
    data: &DataDir,
    keys: &Keys,
    replica: &Replica,
    prepared: &Prepared,
) -> Result<MemberFile, BootstrapError> {
    let command = &prepared.command;
    match (&command.authority_key, keys.leaf.foreign()) {
        (None, None) => return Err(FilesError::Wanted.into()),
        (Some(_), Some(_)) => return Err(FilesError::Unwanted.into()),
        (None, Some(_)) | (Some(_), None) => {}
    }
    replica.found().await?;
    let time = SystemClock.now();
    // Founding is one request, however often it is begun again.
    let author = Author::of_member(FOUNDER, RequestId(command.cluster.0));
    let first = Command::Bootstrap(Box::new(command.clone()));
    // A cluster begins at the level of its founder.
    let level = replica.state.read().known();
    let stamped = Stamped { level, time, author, command: first };
    match replica.propose(&stamped).await? {
        // A start that was killed after its entry committed comes here again.
        Outcome::Refused(Refused::ClusterExists) => {}
        Outcome::Refused(why) => return Err(why.into()),
        Outcome::Done(_)
        | Outcome::Token(_)
        | Outcome::Admitted(_)
        | Outcome::Renewed(_)
        | Outcome::Issued(_)
        | Outcome::Evicted { .. }
        | Outcome::Revoked { .. }
        | Outcome::Policy { .. }
        | Outcome::Staged
        | Outcome::Placed { .. } => {}
    }
    let damaged = || DataDirError::Damaged { path: data.file(file::BOOTSTRAP), reason: DamageReason::Mismatch };
    let (view, member) = {
        let state = replica.state.read();
        let view = state.view().filter(|v| v.cluster == command.cluster).cloned().ok_or_else(damaged)?;
        let member = view.members.get(&FOUNDER).cloned().ok_or_else(damaged)?;
        (view, member)
    };
    if let (Some(sealed), LeafKey::Issued(key)) = (&command.authority_key, &keys.leaf) {
        let leaf = issue_first(keys, key, command, &sealed.sealed, &view, &member)?;
        let chain = [certificate_pem(&leaf), certificate_pem(&command.authority)].concat();
        data.write(file::LEAF, chain.as_bytes())?;
    }
    data.write(file::VIEW, &codec::encode(&view.without_policy())?)?;
    let member = MemberFile::new(&prepared.binding(), command.name.clone(), member.name);
    data.write_member(&member)?;
    data.remove(file::BOOTSTRAP)?;
    Ok(member)
}

/// The founder's certificate, by the authority that it has just made or imported.
fn issue_first(
    keys: &Keys,
    key: &KeyPair,
    command: &Bootstrap,
    sealed: &[u8],
    view: &View,
    member: &Member,
) -> Result<Vec<u8>, BootstrapError> {
    let authority = open_authority(&keys.sealing, command.cluster, FOUNDER, &command.authority, sealed)?;
    let endorsement = Endorsement::sign(&keys.identity, command.cluster, key.id(), 0);
    let principal = Principal { trust_domain: view.trust_domain.clone(), role: Role::Node(FOUNDER) };
    Ok(authority.issue(&LeafRequest {
        principal: &principal,
        common_name: member.name.as_str(),
        hosts: &member.hosts.all(),
        spki: &key.spki(),
        serial: member.leaf.serial,
        validity: member.leaf.validity,
        endorsement: Some(&endorsement),
    })?)
}

fn create_authority(
    cluster: &NewCluster,
    id: ClusterId,
    now: UnixMillis,
    key: KeyAlgorithm,
) -> Result<(Authority, TrustDomain), BootstrapError> {
    let trust_domain = match &cluster.trust_domain {
        Some(domain) => domain.clone(),
        None => default_trust_domain(&cluster.name, id),
    };
    let parts = AuthorityParts {
        common_name: &format!("{} authority", cluster.name),
        trust_domain: &trust_domain,
        cluster: Some(id),
        serial: serial(&random::<16>()?),
        validity: Validity { not_before: now.minus_secs(SKEW_SECS), not_after: now.plus_secs(AUTHORITY_TTL_SECS) },
    };
    let authority = Authority::create(KeyPair::generate(key)?, &parts)?;
    Ok((authority, trust_domain))
}

/// What a cluster is founded on.
struct Founding {
    certificate: Vec<u8>,
    /// None where the key is held elsewhere.
    key: Option<SealedKey>,
    validity: Validity,
    trust_domain: TrustDomain,
    imported: bool,
}

impl Founding {
    /// An authority whose key is sealed to the founder, made now or elsewhere.
    fn with_key(
        keys: &Keys,
        cluster: &NewCluster,
        id: ClusterId,
        now: UnixMillis,
        key: KeyAlgorithm,
    ) -> Result<Self, BootstrapError> {
        let (authority, trust_domain) = match &cluster.authority {
            None => create_authority(cluster, id, now, key)?,
            Some(imported) => import_authority(cluster, imported)?,
        };
        let info = authority_info(authority.certificate())?;
        let sealed = seal_authority(&authority, id, FOUNDER, &keys.sealing.public())?;
        Ok(Self {
            certificate: authority.certificate().to_vec(),
            key: Some(SealedKey { public: info.key, sealed }),
            validity: info.validity,
            trust_domain,
            imported: cluster.authority.is_some(),
        })
    }

    /// An authority of which the founder has the certificate alone.
    fn without_key(foreign: &ForeignIdentity, cluster: &NewCluster, id: ClusterId) -> Result<Self, BootstrapError> {
        if cluster.authority.is_some() {
            return Err(BootstrapError::TwoAuthorities);
        }
        let trust_domain = match (&cluster.trust_domain, foreign.trust_domain()) {
            (Some(domain), _) => domain.clone(),
            (None, Some(domain)) => domain,
            (None, None) => default_trust_domain(&cluster.name, id),
        };
        foreign.check_domain(&trust_domain)?;
        let certificate = foreign.authority().to_vec();
        Ok(Self { certificate, key: None, validity: foreign.authority_validity(), trust_domain, imported: true })
    }
}

/// `<cluster-name>-<first 8 hex digits of the id>.internal`: two clusters of one name stay apart.
fn default_trust_domain(name: &Name, id: ClusterId) -> TrustDomain {
    let hex: String = id.to_string().chars().take(8).collect();
    let domain = TrustDomain::parse(&format!("{name}-{hex}.internal"));
    domain.unwrap_or_else(|_| unreachable!("a name and hexadecimal digits are trust domain characters"))
}

fn import_authority(
    cluster: &NewCluster,
    imported: &ImportedAuthority,
) -> Result<(Authority, TrustDomain), BootstrapError> {
    let certificate = certificates_from_pem(&imported.certificate)?.into_iter().next().ok_or(PemError)?;
    let pem = core::str::from_utf8(imported.key.expose()).map_err(|_| PemError)?;
    let authority = Authority::from_parts(certificate.to_vec(), KeyPair::from_pem(pem)?)?;
    // As each joiner will: one that no peer takes is refused now.
    Bundle::new([authority.certificate()])?;
    let named = authority_info(authority.certificate())?.trust_domain;
    let domain = match (named, &cluster.trust_domain) {
        (Some(got), Some(expected)) if got != *expected => {
            return Err(BootstrapError::TrustDomain { expected: expected.clone(), got });
        }
        (Some(domain), _) => domain,
        (None, Some(domain)) => domain.clone(),
        (None, None) => return Err(BootstrapError::NoTrustDomain),
    };
    Ok((authority, domain))
}

fn serial(random: &Secret<16>) -> [u8; 16] {
    *random.expose()
}

#[cfg(test)]
mod tests {
    use countersign_core::secret::SecretBytes;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, SanType};

    use super::*;

    /// An authority made elsewhere, whose certificate has this many names besides its trust domain.
    fn elsewhere(names: usize) -> ImportedAuthority {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let names: Vec<String> = (0..names).map(|i| format!("{i:03}.example.org")).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names.push(SanType::URI("spiffe://td.internal".try_into().unwrap()));
        let key_pem = SecretBytes::new(key.serialize_pem().into_bytes());
        ImportedAuthority { certificate: params.self_signed(&key).unwrap().pem(), key: key_pem.into() }
    }

    #[test]
    fn imported_authority_longer_than_peers_read_is_refused() {
        let name = Name::parse("test").unwrap();
        let cluster = NewCluster { name, trust_domain: None, token: None, authority: None, policy: Default::default() };
        import_authority(&cluster, &elsewhere(400)).unwrap();
        let refused = import_authority(&cluster, &elsewhere(500)).unwrap_err();
        assert!(matches!(refused, BootstrapError::Bundle(BundleError::TooLong { .. })), "{refused}");
    }
}
