//! Chains verified before: a known member's handshake skips the path, never the key.
//!
//! It remembers only that these very bytes chained to this bundle for this use. Three checks are made every time:
//! whether the certificate is valid now, whether the member still belongs, and whether the other end holds the key.
//! Only accepts are kept, and only so many.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_core::id::Generation;
use countersign_core::limits::CHAIN_MEMORY_MAX;
use countersign_core::locked::Locked;
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

/// Two halves: the younger fills up, then becomes the older and the older one before it is forgotten. A hit moves to
/// the younger.
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
pub(crate) struct ChainMemory(Locked<Halves>);

impl ChainMemory {
    /// The chain remembered under `key`, or what `verify` finds. The lock is not held while it verifies.
    pub(crate) fn recall_or(
        &self,
        key: ChainKey,
        verify: impl FnOnce() -> Result<VerifiedChain, ChainError>,
    ) -> Result<Arc<VerifiedChain>, ChainError> {
        let lock = || self.0.lock();
        let remembered = lock().recall(&key);
        if let Some(chain) = remembered {
            return Ok(chain);
        }
        let chain = Arc::new(verify()?);
        lock().insert(key, Arc::clone(&chain));
        Ok(chain)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use core::cell::Cell;

    use countersign_core::principal::Principal;
    use countersign_core::time::{UnixMillis, Validity};
    use countersign_pki::authority::{Authority, AuthorityParts, LeafRequest};
    use countersign_pki::key::{KeyAlgorithm, KeyPair};
    use countersign_pki::verify::{Bundle, verify_chain};

    use super::*;

    fn domain(text: &str) -> TrustDomain {
        TrustDomain::parse(text).unwrap()
    }

    fn key(n: u64) -> ChainKey {
        let chain = [CertificateDer::from(n.to_be_bytes().to_vec())];
        ChainKey::of(&chain, Usage::Client, &domain("td"), Generation(1))
    }

    /// A client's chain, newly made and verified.
    pub(crate) fn chain() -> VerifiedChain {
        let draw = || KeyPair::generate(KeyAlgorithm::default()).unwrap();
        let validity = Validity { not_before: UnixMillis(0), not_after: UnixMillis::from_secs(4_000_000_000) };
        let td = domain("td");
        let parts = AuthorityParts { common_name: "a", trust_domain: &td, cluster: None, serial: [1; 16], validity };
        let authority = Authority::create(draw(), &parts).unwrap();
        let request = LeafRequest {
            principal: &Principal::parse("spiffe://td/client/c").unwrap(),
            common_name: "c",
            hosts: &[],
            spki: &draw().spki(),
            serial: [2; 16],
            validity,
            endorsement: None,
        };
        let leaf = CertificateDer::from(authority.issue(&request).unwrap());
        let bundle = Bundle::new([authority.certificate()]).unwrap();
        verify_chain(&bundle, &[leaf], Usage::Client, None).unwrap()
    }

    #[test]
    fn a_verdict_is_found_only_under_all_that_it_depends_on() {
        let (a, b) = (CertificateDer::from(vec![1, 2]), CertificateDer::from(vec![3]));
        let of = |chain: &[CertificateDer<'_>], usage, td, generation| {
            ChainKey::of(chain, usage, &domain(td), Generation(generation))
        };
        let base = of(&[a.clone(), b.clone()], Usage::Client, "td", 1);
        assert_eq!(base, of(&[a.clone(), b.clone()], Usage::Client, "td", 1));
        for other in [
            of(&[a.clone(), b.clone()], Usage::Server, "td", 1),
            of(&[a.clone(), b.clone()], Usage::Client, "te", 1),
            of(&[a.clone(), b.clone()], Usage::Client, "td", 2),
            of(&[b.clone(), a.clone()], Usage::Client, "td", 1),
            of(core::slice::from_ref(&a), Usage::Client, "td", 1),
            of(&[a.clone(), b.clone(), b.clone()], Usage::Client, "td", 1),
            of(&[CertificateDer::from(vec![1]), CertificateDer::from(vec![2, 3])], Usage::Client, "td", 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn an_accept_is_remembered_and_a_refusal_is_not() {
        let memory = ChainMemory::default();
        let verified = chain();
        let asked = Cell::new(0);
        let ask = |outcome: Result<VerifiedChain, ChainError>| {
            memory.recall_or(key(1), || {
                asked.set(asked.get() + 1);
                outcome
            })
        };
        let refusal = ChainError::PinNotInChain;
        assert_eq!(ask(Err(refusal.clone())), Err(refusal.clone()));
        assert_eq!(ask(Err(refusal.clone())), Err(refusal.clone()));
        assert_eq!(asked.get(), 2);
        assert_eq!(*ask(Ok(verified.clone())).unwrap(), verified);
        assert_eq!(*ask(Err(refusal)).unwrap(), verified);
        assert_eq!(asked.get(), 3, "remembered: not asked again");
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let memory = ChainMemory::default();
        let verified = chain();
        let learn = |n: u64| memory.recall_or(key(n), || Ok(verified.clone())).unwrap();
        let known = |n: u64| memory.recall_or(key(n), || Err(ChainError::PinNotInChain)).is_ok();
        for n in 0..3 * CHAIN_MEMORY_MAX as u64 {
            learn(n);
            assert!(known(0), "used all the time");
            let halves = memory.0.lock();
            assert!(halves.younger.len() + halves.older.len() <= CHAIN_MEMORY_MAX);
        }
        assert!(!known(1), "not used since");
    }
}
