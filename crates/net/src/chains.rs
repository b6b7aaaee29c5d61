//! Proof by certificate at this end: a presented chain, verified under one trust, now or before in the same generation.
//! Whether the holder of the key belongs here is not decided: that is the judgement.

use std::sync::Arc;

use countersign_core::mapped::MappedName;
use countersign_core::principal::{Principal, Role};
use countersign_pki::foreign::verify_foreign_chain;
use countersign_pki::mapping::{Rules, Unmapped};
use countersign_pki::verify::{ChainError, Usage, VerifiedChain, verify_chain};
use rustls_pki_types::CertificateDer;

use crate::memory::{ChainKey, ChainMemory};
use crate::trust::Trust;

/// How chains become proofs, and those that did.
pub(crate) struct Chains {
    memory: ChainMemory,
    /// How certificates made elsewhere become principals; none where the cluster issues them.
    mapping: Option<Rules>,
}

impl Chains {
    pub(crate) fn new(mapping: Option<Rules>) -> Self {
        Self { memory: ChainMemory::default(), mapping }
    }

    pub(crate) const fn mapping(&self) -> Option<&Rules> {
        self.mapping.as_ref()
    }

    /// Validity in time is not decided here but with membership: that answer reaches the dialer, a TLS alert says
    /// nothing.
    pub(crate) fn verify(
        &self,
        trust: &Trust,
        chain: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<Arc<VerifiedChain>, ChainError> {
        let key = ChainKey::of(chain, usage, &trust.view.trust_domain, trust.view.generation);
        self.memory.recall_or(key, || match &self.mapping {
            None => verify_chain(&trust.bundle, chain, usage, None),
            Some(rules) => verify_mapped(rules, trust, chain, usage),
        })
    }
}

/// A mapped node is the member that the view binds its name to, never one whose number the name happens to spell.
fn verify_mapped(
    rules: &Rules,
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    usage: Usage,
) -> Result<VerifiedChain, ChainError> {
    let foreign = verify_foreign_chain(&trust.bundle, chain, usage, None)?;
    let role = match rules.map(foreign.names(), Some(&trust.view.trust_domain))? {
        MappedName::Node(name) => match trust.view.node_mapped(&name) {
            Some(node) => Role::Node(node),
            None => return Err(Unmapped::Unbound { name }.into()),
        },
        MappedName::Broker(host) => Role::Broker(host),
        MappedName::Client(name) => Role::Client(name),
        MappedName::Admin(name) => Role::Admin(name),
    };
    foreign.believe(Principal { trust_domain: trust.view.trust_domain.clone(), role }, usage)
}
