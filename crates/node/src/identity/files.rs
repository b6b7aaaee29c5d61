//! A certificate made elsewhere: this node's three files, read and checked once at the start.
//!
//! Nothing is used that was not checked here: the key is its owner's alone and the certificate's, the chain leads to
//! the one authority that was given, it is valid now for both ends of a connection, and the mapping rules make a node
//! of it.

use std::path::{Path, PathBuf};

use countersign_core::id::{AuthorityId, KeyId, NodeId};
use countersign_core::limits::CHAIN_LEN_MAX;
use countersign_core::mapped::MappedName;
use countersign_core::name::HostName;
use countersign_core::principal::{SpiffeId, TrustDomain};
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::member::ForeignLeaf;
use countersign_core::trust::view::View;
use countersign_net::Credential;
use countersign_pki::credential::{self, CredentialError};
use countersign_pki::foreign::{ForeignAuthority, ForeignChain, LeafSignature, verify_foreign_chain};
use countersign_pki::mapping::{Rules, Unmapped};
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::{Bundle, BundleError, ChainError, Usage};

use crate::identity::datadir::{DataDirError, read_given_secret, read_optional};
use crate::settings::FilesMode;

/// Why certificates made elsewhere cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read, or a key can be read by others.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// There is no such file.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Not a text.
    #[error("`{}` is not PEM", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// Not exactly one authority.
    #[error("`{}` holds {got} certificates, expected the one of the authority", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// How many it holds.
        got: usize,
    },
    /// The authority cannot be trusted.
    #[error("`{}` is no authority that can be trusted", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BundleError,
    },
    /// Certificate and key are no credential; most often they do not belong together.
    #[error("`{}` and `{}` cannot be used together", cert.display(), key.display())]
    Credential {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: CredentialError,
    },
    /// More certificates than a peer reads. Found out at the start, not by the nodes that cannot join.
    #[error("`{}` and its authority make {got} certificates, a peer reads at most {CHAIN_LEN_MAX}", cert.display())]
    TooMany {
        /// The certificate.
        cert: PathBuf,
        /// How many would be sent.
        got: usize,
    },
    /// The chain does not lead to the authority, or is not valid now, or not for this use.
    #[error("`{}` is not accepted under `{}`", cert.display(), ca.display())]
    Chain {
        /// The certificate.
        cert: PathBuf,
        /// The authority.
        ca: PathBuf,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// The rules map it to no principal.
    #[error("`{}` maps to no principal", cert.display())]
    Unmapped {
        /// The certificate.
        cert: PathBuf,
        /// Why.
        #[source]
        source: Unmapped,
    },
    /// The rules make something else than a node of it.
    #[error("`{}` maps to `{mapped}`, which is no node", cert.display())]
    NotANode {
        /// The certificate.
        cert: PathBuf,
        /// Who it is.
        mapped: MappedName,
    },
    /// The authority is not the one that the join token pins, or that the cluster trusts.
    #[error("`{}` is authority {got}, which is not the one of this cluster", ca.display())]
    OtherAuthority {
        /// The authority's file.
        ca: PathBuf,
        /// Its id.
        got: AuthorityId,
    },
    /// The key is not the one on record for this member.
    #[error("key of `{}` is {got}, on record for this node is {recorded}", cert.display())]
    OtherKey {
        /// The certificate.
        cert: PathBuf,
        /// Its key.
        got: KeyId,
        /// The key on record.
        recorded: KeyId,
    },
    /// The certificate maps to another name than the one that this member is bound to.
    #[error("`{}` maps to `node/{got}`, this node is bound to `node/{recorded}`", cert.display())]
    OtherName {
        /// The certificate.
        cert: PathBuf,
        /// What it maps to.
        got: HostName,
        /// What is on record.
        recorded: HostName,
    },
    /// This member's certificate is made elsewhere, and no files were given.
    #[error("this node's certificate is made elsewhere, and no files were given")]
    Wanted,
    /// This member's cluster issues certificates itself.
    #[error("this node's cluster issues certificates itself, and files were given")]
    Unwanted,
}

impl FilesError {
    /// What to do about it.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::File(DataDirError::Exposed { .. }) => {
                "chmod 600 the key, and make a new one if others may have read it"
            }
            Self::File(_) | Self::Missing { .. } => "check the paths of --inter-broker-tls-cert, -key and -ca",
            Self::NotPem { .. } => "convert the file to PEM",
            Self::Authorities { .. } | Self::Authority { .. } => {
                "give the authority's own certificate with --inter-broker-tls-ca; intermediates go into the -cert file"
            }
            Self::Credential { .. } => "give a certificate and its own key, the node's certificate first in its file",
            Self::TooMany { .. } => {
                "leave certificates out that the path from the node's to the authority does not need"
            }
            Self::Chain { .. } => {
                "have a certificate made under this authority, valid now, for serverAuth and clientAuth"
            }
            Self::Unmapped { .. } => "set principal_mapping to a rule that makes `node/NAME` of the certificate",
            Self::NotANode { .. } => "have a certificate made whose name a principal_mapping rule makes a node's",
            Self::OtherAuthority { .. } => "give the authority that the cluster was founded with",
            Self::OtherKey { .. } => {
                "have a new certificate made for the key on record, or join again with another --data directory"
            }
            Self::OtherName { .. } => "have the certificate made for the name on record",
            Self::Wanted => "give --inter-broker-tls-cert, --inter-broker-tls-key and --inter-broker-tls-ca",
            Self::Unwanted => "leave the --inter-broker-tls flags out",
        }
    }
}

/// This node's certificate, made elsewhere.
pub(crate) struct ForeignIdentity {
    files: FilesMode,
    checked: credential::Credential,
    ca: Vec<u8>,
    authority: ForeignAuthority,
    chain: ForeignChain,
    mapped: HostName,
}

impl ForeignIdentity {
    /// Reads and checks the three files.
    pub(crate) fn load(files: &FilesMode, now: UnixMillis) -> Result<Self, FilesError> {
        let FilesMode { cert, key, ca, mapping } = files;
        let authorities = certificates_from_pem(&text(ca, read_optional(ca)?)?)
            .map_err(|_| FilesError::NotPem { path: ca.clone() })?;
        let [der] = authorities.as_slice() else {
            return Err(FilesError::Authorities { path: ca.clone(), got: authorities.len() });
        };
        let unusable = |source| FilesError::Authority { path: ca.clone(), source };
        let authority = ForeignAuthority::read(der).map_err(unusable)?;
        let chain = text(cert, read_optional(cert)?)?;
        let secret = read_given_secret(key)?.ok_or_else(|| FilesError::Missing { path: key.clone() })?;
        let secret = core::str::from_utf8(secret.expose()).map_err(|_| FilesError::NotPem { path: key.clone() })?;
        let checked = credential::Credential::from_pem(&chain, secret).map_err(|source| FilesError::Credential {
            cert: cert.clone(),
            key: key.clone(),
            source,
        })?;
        let bundle = Bundle::new([der.as_ref()]).map_err(unusable)?;
        // A node dials and is dialed.
        let verify = |usage| {
            verify_foreign_chain(&bundle, &checked.certified_key().cert, usage, Some(now))
                .map_err(|source| FilesError::Chain { cert: cert.clone(), ca: ca.clone(), source })
        };
        verify(Usage::Client)?;
        let chain = verify(Usage::Server)?;
        let mapped = node_of(cert, mapping, &chain, None)?;
        let got = Credential::foreign(&checked, der).chain().count();
        if got > CHAIN_LEN_MAX {
            return Err(FilesError::TooMany { cert: cert.clone(), got });
        }
        Ok(Self { files: files.clone(), checked, ca: der.to_vec(), authority, chain, mapped })
    }

    /// The authority's certificate, DER.
    pub(crate) fn authority(&self) -> &[u8] {
        &self.ca
    }

    /// When the authority is valid.
    pub(crate) const fn authority_validity(&self) -> Validity {
        self.authority.validity
    }

    /// The trust domain that the authority or, if that is silent, this node's own SPIFFE id names.
    pub(crate) fn trust_domain(&self) -> Option<TrustDomain> {
        let own = match self.chain.names().uris.as_slice() {
            [uri] => SpiffeId::parse(uri).ok().and_then(|id| TrustDomain::parse(id.trust_domain()).ok()),
            _ => None,
        };
        self.authority.trust_domain.clone().or(own)
    }

    pub(crate) const fn rules(&self) -> &Rules {
        &self.files.mapping
    }

    /// The certificate's key.
    pub(crate) fn key(&self) -> KeyId {
        self.chain.key()
    }

    /// When the certificate is valid.
    pub(crate) const fn validity(&self) -> Validity {
        self.chain.validity()
    }

    /// What a cluster records of the certificate.
    pub(crate) fn leaf(&self) -> ForeignLeaf {
        ForeignLeaf { mapped: self.mapped.clone(), validity: self.chain.validity() }
    }

    /// The certificate in the form in which a sponsor reads it.
    pub(crate) fn presented(&self) -> impl Iterator<Item = &[u8]> {
        self.checked.certified_key().cert.iter().map(AsRef::as_ref)
    }

    /// Signs with the certificate's key.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<LeafSignature, FilesError> {
        let FilesMode { cert, key, .. } = &self.files;
        let failed = |source| FilesError::Credential { cert: cert.clone(), key: key.clone(), source };
        self.checked.sign(message).map_err(failed)
    }

    /// What handshakes show.
    pub(crate) fn credential(&self) -> Credential {
        Credential::foreign(&self.checked, &self.ca)
    }

    /// Whether the rules make the same node of the certificate once the cluster's trust domain is known.
    pub(crate) fn check_domain(&self, domain: &TrustDomain) -> Result<(), FilesError> {
        node_of(&self.files.cert, &self.files.mapping, &self.chain, Some(domain)).map(drop)
    }

    /// Whether `pin` is the authority that was given.
    pub(crate) fn check_pin(&self, pin: AuthorityId) -> Result<(), FilesError> {
        let got = AuthorityId::of_certificate(&self.ca);
        if got == pin { Ok(()) } else { Err(FilesError::OtherAuthority { ca: self.files.ca.clone(), got }) }
    }

    /// Whether the files are those of the member that `view` has under this number.
    fn check_member(&self, view: &View, node: NodeId) -> Result<(), FilesError> {
        let got = AuthorityId::of_certificate(&self.ca);
        if !view.authorities.contains_key(&got) {
            return Err(FilesError::OtherAuthority { ca: self.files.ca.clone(), got });
        }
        self.check_domain(&view.trust_domain)?;
        let cert = || self.files.cert.clone();
        // An evicted member is told so by all others.
        let Some(member) = view.members.get(&node) else { return Ok(()) };
        let recorded = member.mapped.clone().ok_or(FilesError::Unwanted)?;
        if recorded != self.mapped {
            return Err(FilesError::OtherName { cert: cert(), got: self.mapped.clone(), recorded });
        }
        if member.leaf.key != self.key() {
            return Err(FilesError::OtherKey { cert: cert(), got: self.key(), recorded: member.leaf.key });
        }
        Ok(())
    }
}

/// Whether files were given exactly where the cluster wants them, and are those of this member.
pub(crate) fn check(view: &View, node: NodeId, given: Option<&ForeignIdentity>) -> Result<(), FilesError> {
    match (given, view.key_is_elsewhere()) {
        (None, false) => Ok(()),
        (None, true) => Err(FilesError::Wanted),
        (Some(_), false) => Err(FilesError::Unwanted),
        (Some(foreign), true) => foreign.check_member(view, node),
    }
}

fn node_of(
    cert: &Path,
    rules: &Rules,
    chain: &ForeignChain,
    domain: Option<&TrustDomain>,
) -> Result<HostName, FilesError> {
    match rules.map(chain.names(), domain) {
        Ok(MappedName::Node(name)) => Ok(name),
        Ok(mapped) => Err(FilesError::NotANode { cert: cert.to_owned(), mapped }),
        Err(source) => Err(FilesError::Unmapped { cert: cert.to_owned(), source }),
    }
}

fn text(path: &Path, bytes: Option<Vec<u8>>) -> Result<String, FilesError> {
    let bytes = bytes.ok_or_else(|| FilesError::Missing { path: path.to_owned() })?;
    String::from_utf8(bytes).map_err(|_| FilesError::NotPem { path: path.to_owned() })
}
