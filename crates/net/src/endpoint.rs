//! One member on the network: what its acceptors and dialers share. Trust changes through here, so that no connection
//! outlives the trust that it was opened under.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::NodeId;
use countersign_core::mapped::MappedName;
use countersign_core::peer::{Evidence, Refusal, Scope, VerifiedPeer, Wanted, judge};
use countersign_core::principal::{Principal, Role};
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;
use countersign_pki::foreign::verify_foreign_chain;
use countersign_pki::mapping::{Rules, Unmapped};
use countersign_pki::verify::{BundleError, ChainError, Usage, VerifiedChain, verify_chain};
use rustls_pki_types::CertificateDer;

use crate::alpn::Alpn;
use crate::clock::Clock;
use crate::credential::Credential;
use crate::denied::Denied;
use crate::memory::{ChainKey, ChainMemory};
use crate::refusal::Refusals;
use crate::registry::{ClosedConnection, Connection, Registration, Registry};
use crate::trust::{LiveTrust, StaleGeneration, Trust};

/// Why a view cannot be published. The one before it stays in force.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is older than the one in force.
    #[error("view is stale")]
    Stale(#[from] StaleGeneration),
    /// Its authorities make no trust bundle.
    #[error("view's authorities make no trust bundle")]
    Bundle(#[from] BundleError),
}

/// Why peers would refuse a credential.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceRefused {
    /// Its chain.
    #[error("chain does not verify")]
    Chain(#[from] ChainError),
    /// Its holder.
    #[error(transparent)]
    Judged(#[from] Refusal),
}

struct Shared {
    trust: LiveTrust,
    memory: ChainMemory,
    registry: Registry,
    denied: Denied,
    clock: Box<dyn Clock>,
    refusals: Arc<dyn Refusals>,
    /// How certificates made elsewhere become principals; none where the cluster issues them.
    mapping: Option<Rules>,
}

/// A member on the network. Clones are the same member.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

impl Endpoint {
    /// Starts with `trust`; refusals are told to `refusals`.
    pub fn new(trust: Trust, clock: impl Clock, refusals: Arc<dyn Refusals>) -> Self {
        Self::with(trust, clock, refusals, None)
    }

    /// As [`Endpoint::new`], for a cluster whose certificates are made elsewhere: `rules` say who their holders are, and
    /// nothing of our own profile is read from them.
    pub fn mapped(trust: Trust, clock: impl Clock, refusals: Arc<dyn Refusals>, rules: Rules) -> Self {
        Self::with(trust, clock, refusals, Some(rules))
    }

    fn with(trust: Trust, clock: impl Clock, refusals: Arc<dyn Refusals>, mapping: Option<Rules>) -> Self {
        Self(Arc::new(Shared {
            mapping,
            trust: LiveTrust::new(trust),
            memory: ChainMemory::default(),
            registry: Registry::default(),
            denied: Denied::default(),
            clock: Box::new(clock),
            refusals,
        }))
    }

    /// The trust in force.
    pub fn trust(&self) -> &LiveTrust {
        &self.0.trust
    }

    /// The open connections.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// How certificates made elsewhere become principals, if they are made elsewhere.
    pub fn mapping(&self) -> Option<&Rules> {
        self.0.mapping.as_ref()
    }

    pub(crate) fn refusals(&self) -> &dyn Refusals {
        &*self.0.refusals
    }

    /// The later of the local clock and the last applied time.
    pub fn now(&self) -> UnixMillis {
        self.trust().load().at(self.0.clock.now())
    }

    /// Puts `view` in force, then judges every open connection under it. When this returns, no connection that the view
    /// refuses is open, and no handshake will open one.
    pub fn publish(&self, view: Arc<View>, applied: UnixMillis) -> Result<Vec<ClosedConnection>, PublishError> {
        let current = self.trust().load();
        // Most views change a member, not an authority: parsing certificates again would be for nothing.
        let bundle = if view.authorities == current.view.authorities {
            Arc::clone(&current.bundle)
        } else {
            Trust::of_view(Arc::clone(&view), None, applied)?.bundle
        };
        self.trust().publish(Arc::clone(&view), bundle, applied)?;
        Ok(self.registry().rejudge(&view, self.now()))
    }

    /// Refuses these members from now on, whatever the view says, and nobody else beyond the view. When this returns, no
    /// connection of theirs is open, accepted or dialed, and no handshake will open one.
    pub fn deny(&self, nodes: BTreeMap<NodeId, Refusal>) -> Vec<ClosedConnection> {
        // First the word, then the search: a handshake registers before it is judged, so it meets one or the other.
        self.0.denied.replace(nodes.clone());
        nodes.into_iter().flat_map(|(node, refusal)| self.registry().close_node(node, refusal)).collect()
    }

    /// How this member refuses `node` by itself, if it does.
    pub fn denied(&self, node: NodeId) -> Option<Refusal> {
        self.0.denied.of(node)
    }

    /// Whether peers will take `credential` for the member `node`: its chain verified in both roles, and judged, as theirs do.
    pub fn check_own(&self, credential: &Credential, node: NodeId) -> Result<(), EvidenceRefused> {
        let trust = self.trust().load();
        for usage in [Usage::Server, Usage::Client] {
            let verified = credential.verify(&trust.bundle, usage, self.now())?;
            let peer = self.judge(&trust, verified.evidence(), Wanted::Node(node))?;
            if peer.scope() != Scope::Full {
                return Err(Refusal::Expired.into());
            }
        }
        Ok(())
    }

    /// Shows `credential` from now on. Open connections keep the one that they began with.
    pub fn publish_credential(&self, credential: Arc<Credential>) {
        self.trust().publish_credential(credential);
    }

    /// Ends each connection when its certificate does. Never returns; an acceptor runs it.
    pub async fn expire_connections(&self) -> Infallible {
        /// The wall clock may be set while this sleeps, so it looks again at least this often.
        const LOOK_AGAIN: Duration = Duration::from_secs(30);
        loop {
            let now = self.now();
            for closed in self.registry().expire(now) {
                tracing::info!(principal = %closed.principal, key = %closed.key, "connection closed: {}", closed.refusal);
            }
            let next = self.registry().next_expiry().map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
            // why: validity ends by the passing of time alone
            let expiry = tokio::time::sleep(next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN));
            tokio::select! {
                () = expiry => {}
                () = self.registry().changed() => {}
            }
        }
    }

    /// The chain as verified under `trust`, now or before in the same generation. Validity in time is not judged here but
    /// with membership, by `judge`: its answer reaches the dialer, a TLS alert says nothing.
    pub(crate) fn verify(
        &self,
        trust: &Trust,
        chain: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<Arc<VerifiedChain>, ChainError> {
        let key = ChainKey::of(chain, usage, &trust.view.trust_domain, trust.view.generation);
        self.0.memory.recall_or(key, || match &self.0.mapping {
            None => verify_chain(&trust.bundle, chain, usage, None),
            Some(rules) => verify_mapped(rules, trust, chain, usage),
        })
    }

    /// Judges a peer under `trust`, now.
    pub(crate) fn judge(&self, trust: &Trust, evidence: &Evidence, wanted: Wanted) -> Result<VerifiedPeer, Refusal> {
        let peer = judge(&trust.view, evidence, wanted, trust.at(self.0.clock.now()))?;
        self.0.denied.check(peer.principal())?;
        Ok(peer)
    }

    /// Registers a connection whose handshake has ended, then judges it under the trust in force by now. Registered
    /// first: a view published in between either is the one that judges here, or finds the connection and closes it.
    pub(crate) fn admit(&self, connection: Connection) -> Result<(Registration, VerifiedPeer), Refusal> {
        let (evidence, wanted) = (connection.evidence.clone(), connection.wanted);
        if connection.alpn == Alpn::Service && !connection.dialed {
            self.registry().check_room(&evidence.parts().principal)?;
        }
        let recovers = connection.recovers();
        let registration = self.registry().register(connection);
        let peer = self.judge(&self.trust().load(), &evidence, wanted)?;
        if peer.scope() == Scope::Recovery && !recovers {
            return Err(Refusal::Expired);
        }
        registration.judged(peer.scope());
        match registration.closed().refusal() {
            None => Ok((registration, peer)),
            Some(refusal) => Err(refusal),
        }
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
