//! The keys of a member on disk: one file for each, made once, never replaced by a later start.

use std::sync::Arc;

use countersign_core::id::KeyId;
use countersign_core::key::SecretKey;
use countersign_core::secret::{Secret, SecretBytes};
use countersign_core::trust::member::MemberKeys;
use countersign_pki::key::{KeyAlgorithm, KeyError, KeyPair};
use countersign_pki::pem::certificate_pem;
use countersign_pki::seal::{SealError, SealingKey};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::identity::datadir::{DamageReason, DataDir, DataDirError, file};
use crate::identity::files::ForeignIdentity;

const IDENTITY: &str = "keys/identity.key";
const SEALING: &str = "keys/sealing.key";
const UCAN: &str = "keys/ucan.key";
const LEAF: &str = "keys/leaf.key";
const NEXT_LEAF: &str = "keys/next-leaf.key";
/// Key and certificate of the last renewal.
const RENEWED: &str = "keys/renewed-leaf.pem";

/// Why keys cannot be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The key pair.
    #[error("leaf key cannot be made or read")]
    Leaf(#[from] KeyError),
    /// The sealing key.
    #[error("sealing key cannot be used")]
    Sealing(#[from] SealError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
}

/// All keys of a member.
pub(crate) struct Keys {
    /// Signs endorsements, returns, views, receipts.
    pub identity: SecretKey,
    /// Opens what is sealed to this member.
    pub sealing: SealingKey,
    /// The node's DID.
    pub ucan: SecretKey,
    /// In the certificate.
    pub leaf: LeafKey,
}

/// The key in a member's certificate.
pub(crate) enum LeafKey {
    /// Made here, for a certificate that the cluster issues.
    Issued(Box<KeyPair>),
    /// Made elsewhere with its certificate.
    Foreign(Arc<ForeignIdentity>),
}

/// The key of the next certificate, stored before it is asked for.
pub(crate) struct NextLeaf {
    pub(crate) key: KeyPair,
}

impl NextLeaf {
    /// The one of an earlier attempt, or a new one. A stop just after the last renewal leaves the key in use behind:
    /// that is none.
    pub(crate) fn load_or_make(data: &DataDir, in_use: KeyId, algorithm: KeyAlgorithm) -> Result<Self, KeysError> {
        if let Some(pem) = data.read_secret(NEXT_LEAF)? {
            let pem = core::str::from_utf8(pem.expose()).map_err(|_| damaged(data, NEXT_LEAF, DamageReason::Parse))?;
            let key = KeyPair::from_pem(pem)?;
            if key.id() != in_use {
                return Ok(Self { key });
            }
        }
        let key = KeyPair::generate(algorithm)?;
        data.write(NEXT_LEAF, key.to_pem()?.expose().as_bytes())?;
        Ok(Self { key })
    }

    /// Forgets it: the cluster issues no certificate for it any more.
    pub(crate) fn discard(data: &DataDir) -> Result<(), KeysError> {
        Ok(data.remove(NEXT_LEAF)?)
    }
}

/// Puts a renewed certificate beside its key, in one file and one step; what it replaces goes.
pub(crate) fn store_leaf(data: &DataDir, key: &KeyPair, chain: &[Vec<u8>]) -> Result<(), KeysError> {
    let key = key.to_pem()?;
    let certificates: String = chain.iter().map(|der| certificate_pem(der)).collect();
    let both = SecretBytes::new([key.expose().as_bytes(), certificates.as_bytes()].concat());
    data.write(RENEWED, both.expose())?;
    for replaced in [NEXT_LEAF, LEAF, file::LEAF] {
        data.remove(replaced)?;
    }
    Ok(())
}

/// The certificate that a member shows and its key, PEM: the renewed one, or that of its enrollment.
pub(crate) fn stored_chain(data: &DataDir) -> Result<Option<SecretBytes>, DataDirError> {
    match data.read_secret(RENEWED)? {
        Some(renewed) => Ok(Some(renewed)),
        None => Ok(data.read(file::LEAF)?.map(SecretBytes::new)),
    }
}

/// The first key that a member has and that is not there; and whether the member is who it was without it.
pub(crate) fn missing(data: &DataDir, issued: bool) -> Option<(&'static str, bool)> {
    let there = |name: &str| data.file(name).symlink_metadata().is_ok();
    let own = [(IDENTITY, false), (UCAN, false), (SEALING, false)].into_iter().find(|(name, _)| !there(name));
    own.or_else(|| (issued && !there(RENEWED) && !there(LEAF)).then_some((LEAF, true)))
}

/// Whether a member has no certificate any more, or not the key of it. The cluster issues another for its identity key.
pub(crate) fn is_leaf_lost(data: &DataDir) -> bool {
    let there = |name: &str| data.file(name).symlink_metadata().is_ok();
    let first = there(LEAF) && there(file::LEAF);
    !(first || there(RENEWED))
}

/// The key by which a member is known to its cluster.
pub(crate) fn identity(data: &DataDir) -> Result<SecretKey, DataDirError> {
    Ok(SecretKey::from_seed(seed(data, IDENTITY)?))
}

impl LeafKey {
    pub(crate) fn id(&self) -> KeyId {
        match self {
            Self::Issued(key) => key.id(),
            Self::Foreign(foreign) => foreign.key(),
        }
    }

    pub(crate) fn foreign(&self) -> Option<&ForeignIdentity> {
        match self {
            Self::Issued(_) => None,
            Self::Foreign(foreign) => Some(foreign),
        }
    }
}

impl Keys {
    /// Loads the keys, making those that do not exist yet: for a member that is being made. The leaf key is made to
    /// sign with `algorithm`; identity keys are always Ed25519.
    pub(crate) fn load_or_make(
        data: &DataDir,
        foreign: Option<Arc<ForeignIdentity>>,
        algorithm: KeyAlgorithm,
    ) -> Result<Self, KeysError> {
        for name in [IDENTITY, SEALING, UCAN] {
            if data.read_secret(name)?.is_none() {
                let seed = random::<32>()?;
                data.write(name, HEXLOWER.encode(seed.expose()).as_bytes())?;
            }
        }
        if foreign.is_none() && data.read_secret(LEAF)?.is_none() {
            data.write(LEAF, KeyPair::generate(algorithm)?.to_pem()?.expose().as_bytes())?;
        }
        Self::load(data, foreign)
    }

    /// Loads the keys of a member that exists: a missing one is damage, not a reason to make another.
    pub(crate) fn load(data: &DataDir, foreign: Option<Arc<ForeignIdentity>>) -> Result<Self, KeysError> {
        let leaf = match foreign {
            Some(foreign) => LeafKey::Foreign(foreign),
            None => {
                let renewed = data.read_secret(RENEWED)?;
                let leaf = renewed.map_or_else(|| read(data, LEAF), Ok)?;
                let leaf = core::str::from_utf8(leaf.expose()).map_err(|_| damaged(data, LEAF, DamageReason::Parse))?;
                LeafKey::Issued(Box::new(KeyPair::from_pem(leaf)?))
            }
        };
        Ok(Self {
            identity: identity(data)?,
            sealing: SealingKey::from_bytes(seed(data, SEALING)?)?,
            ucan: SecretKey::from_seed(seed(data, UCAN)?),
            leaf,
        })
    }

    /// The public halves, as recorded by the cluster.
    pub(crate) fn public(&self) -> MemberKeys {
        MemberKeys { identity: self.identity.public(), sealing: self.sealing.public(), ucan: self.ucan.public() }
    }
}

fn read(data: &DataDir, name: &str) -> Result<SecretBytes, DataDirError> {
    data.read_secret(name)?.ok_or_else(|| damaged(data, name, DamageReason::Missing))
}

fn seed(data: &DataDir, name: &str) -> Result<Secret<32>, DataDirError> {
    let hex = read(data, name)?;
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.expose().trim_ascii()).ok().map(SecretBytes::new);
    let seed = bytes.and_then(|b| <[u8; 32]>::try_from(b.expose()).ok());
    seed.map(Secret::new).ok_or_else(|| damaged(data, name, DamageReason::Parse))
}

fn damaged(data: &DataDir, name: &str, reason: DamageReason) -> DataDirError {
    DataDirError::Damaged { path: data.file(name), reason }
}

/// Bytes from the operating system, the only source of secrets.
pub fn random<const N: usize>() -> Result<Secret<N>, KeysError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| KeysError::Random)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_keys_are_of_the_kind_that_is_asked_for() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Ed25519] {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let keys = Keys::load_or_make(&data, None, algorithm).unwrap();
            let LeafKey::Issued(leaf) = &keys.leaf else { panic!("no files were given") };
            assert_eq!(leaf.algorithm(), algorithm);
            let next = NextLeaf::load_or_make(&data, keys.leaf.id(), algorithm).unwrap();
            assert_eq!(next.key.algorithm(), algorithm);
        }
    }

    #[test]
    fn keys_are_made_once_and_a_missing_one_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let made = Keys::load_or_make(&data, None, KeyAlgorithm::P256).unwrap();
        let again = Keys::load_or_make(&data, None, KeyAlgorithm::P256).unwrap();
        assert_eq!((made.public(), made.leaf.id()), (again.public(), again.leaf.id()));
        // One that exists is kept, whatever is asked for.
        let kept = Keys::load_or_make(&data, None, KeyAlgorithm::Ed25519).unwrap();
        assert_eq!(kept.leaf.id(), made.leaf.id());
        data.remove(SEALING).unwrap();
        assert!(matches!(Keys::load(&data, None), Err(KeysError::DataDir(DataDirError::Damaged { .. }))));
        data.write(SEALING, b"abc").unwrap();
        assert!(matches!(Keys::load(&data, None), Err(KeysError::DataDir(DataDirError::Damaged { .. }))));
    }
}
