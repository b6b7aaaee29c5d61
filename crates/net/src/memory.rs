//! Chains verified before: a known member's handshake skips the path, never the key.
//!
//! What is remembered is only that these very bytes chained to this bundle for this use. Whether the certificate is valid
//! now, whether the member still belongs and whether the other end holds the key are asked every time. Only accepts are
//! kept, and only so many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::id::Generation;
use countersign_core::limits::CHAIN_MEMORY_MAX;
use countersign_core::principal::TrustDomain;
use countersign_pki::verify::{ChainError, Usage, VerifiedChain};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// What a verdict depends on. The generation is the one read *before* verifying: a verdict under an old bundle, stored
/// late, is never found under the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChainKey([u8; 32]);

impl ChainKey {
    pub(crate) fn of(chain: &[CertificateDer<'_>], usage: Usage, domain: &TrustDomain, generation: Generation) -> Self {
        let mut hash = Sha256::new();
        hash.update([match usage {
            Usage::Server => 1,
            Usage::Client => 2,
        }]);
        hash.update(generation.0.to_be_bytes());
        for part in core::iter::once(domain.as_str().as_bytes()).chain(chain.iter().map(AsRef::as_ref)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Two halves: the younger fills up, then becomes the older and what was older is forgotten. A hit moves to the younger.
#[derive(Default)]
struct Halves {
    younger: HashMap<ChainKey, Arc<VerifiedChain>>,
    older: HashMap<ChainKey, Arc<VerifiedChain>>,
}

impl Halves {
    fn insert(&mut self, key: ChainKey, chain: Arc<VerifiedChain>) {
        if self.younger.len() >= CHAIN_MEMORY_MAX / 2 {
            self.older = core::mem::take(&mut self.younger);
        }
        self.younger.insert(key, chain);
    }

    fn recall(&mut self, key: &ChainKey) -> Option<Arc<VerifiedChain>> {
        if let Some(chain) = self.younger.get(key) {
            return Some(Arc::clone(chain));
        }
        let chain = self.older.remove(key)?;
        self.insert(*key, Arc::clone(&chain));
        Some(chain)
    }
}

/// The verified chains of one endpoint.
#[derive(Default)]
pub(crate) struct ChainMemory(Mutex<Halves>);

impl ChainMemory {
    /// The chain remembered under `key`, or what `verify` finds. The lock is not held while it verifies.
    pub(crate) fn recall_or(
        &self,
        key: ChainKey,
        verify: impl FnOnce() -> Result<VerifiedChain, ChainError>,
    ) -> Result<Arc<VerifiedChain>, ChainError> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = lock().recall(&key);
        if let Some(chain) = remembered {
            return Ok(chain);
        }
        let chain = Arc::new(verify()?);
        lock().insert(key, Arc::clone(&chain));
        Ok(chain)
    }
}
