//! One member on the network: what its acceptors and dialers share. Trust changes through here, so that no connection
//! outlives the trust that it was opened under.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::NodeId;
use countersign_core::peer::{Proof, Refusal, Scope, VerifiedPeer, Wanted, verify};
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;
use countersign_pki::mapping::Rules;
use countersign_pki::verify::{BundleError, ChainError, Usage};

use crate::chains::Chains;
use crate::clock::Clock;
use crate::credential::Credential;
use crate::denied::Denied;
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
pub enum CredentialRefused {
    /// Its chain.
    #[error("chain does not verify")]
    Chain(#[from] ChainError),
    /// Its holder.
    #[error(transparent)]
    Judged(#[from] Refusal),
}

struct Shared {
    trust: LiveTrust,
    chains: Chains,
    registry: Registry,
    denied: Denied,
    clock: Box<dyn Clock>,
    refusals: Arc<dyn Refusals>,
}

/// A member on the network. Clones are the same member.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

impl Endpoint {
    /// Starts with `trust`; refusals are told to `refusals`.
    pub fn new(trust: Trust, clock: impl Clock, refusals: Arc<dyn Refusals>) -> Self {
        Self::with(trust, clock, refusals, None)
    }

    /// As [`Endpoint::new`], for a cluster whose certificates are made elsewhere: `rules` say who their holders are,
    /// and nothing of our own profile is read from them.
    pub fn mapped(trust: Trust, clock: impl Clock, refusals: Arc<dyn Refusals>, rules: Rules) -> Self {
        Self::with(trust, clock, refusals, Some(rules))
    }

    fn with(trust: Trust, clock: impl Clock, refusals: Arc<dyn Refusals>, mapping: Option<Rules>) -> Self {
        Self(Arc::new(Shared {
            trust: LiveTrust::new(trust),
            chains: Chains::new(mapping),
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
        self.0.chains.mapping()
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
        let bundle = self.trust().load().bundle_of(&view)?;
        self.trust().publish(Arc::clone(&view), bundle, applied)?;
        Ok(self.registry().rejudge(&view, self.now()))
    }

    /// Refuses these members from now on, whatever the view says, and adds no other refusal to the view's. When this
    /// returns, no connection of theirs is open, accepted or dialed, and no handshake will open one.
    pub fn deny(&self, nodes: BTreeMap<NodeId, Refusal>) -> Vec<ClosedConnection> {
        // First the word, then the search: a handshake registers before it is judged, so it meets one or the other.
        self.0.denied.replace(nodes.clone());
        nodes.into_iter().flat_map(|(node, refusal)| self.registry().close_node(node, refusal)).collect()
    }

    /// How this member refuses `node` by itself, if it does.
    pub fn denied(&self, node: NodeId) -> Option<Refusal> {
        self.0.denied.of(node)
    }

    /// Whether peers will take `credential` for the member `node`: its chain verified in both roles, and judged, as
    /// theirs do.
    pub fn check_own(&self, credential: &Credential, node: NodeId) -> Result<(), CredentialRefused> {
        let trust = self.trust().load();
        for usage in [Usage::Server, Usage::Client] {
            let verified = credential.verify(&trust.bundle, usage, self.now())?;
            let peer = self.judge(&trust, &verified.proof(), Wanted::Node(node))?;
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

    /// Ends each connection when its proof does. Never returns; an acceptor runs it.
    pub async fn expire_connections(&self) -> Infallible {
        /// The wall clock may be set while this sleeps, so it looks again at least this often.
        const LOOK_AGAIN: Duration = Duration::from_secs(30);
        loop {
            let now = self.now();
            for closed in self.registry().expire(now) {
                let ClosedConnection { principal, key, refusal } = closed;
                tracing::info!(%principal, %key, "connection closed: {refusal}");
            }
            let next = self.registry().next_expiry().map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
            // why: a proof expires by the passing of time alone
            let expiry = tokio::time::sleep(next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN));
            tokio::select! {
                () = expiry => {}
                () = self.registry().changed() => {}
            }
        }
    }

    /// How presented chains become proofs here.
    pub(crate) fn chains(&self) -> &Chains {
        &self.0.chains
    }

    /// Judges a peer under `trust`, now.
    pub(crate) fn judge(&self, trust: &Trust, proof: &Proof, wanted: Wanted) -> Result<VerifiedPeer, Refusal> {
        let peer = verify(proof, &trust.view, wanted, trust.at(self.0.clock.now()))?;
        self.0.denied.check(peer.principal())?;
        Ok(peer)
    }

    /// Registers a connection whose handshake has ended, then judges it under the trust in force by now. Registered
    /// first: a view published in between either is the one that judges here, or finds the connection and closes it.
    pub(crate) fn admit(&self, connection: Connection) -> Result<(Registration, VerifiedPeer), Refusal> {
        let (proof, wanted) = (connection.proof.clone(), connection.wanted);
        let recovers = connection.recovers();
        // That there is no room is told to those alone who would have been let in.
        let registration = self.registry().register(connection).map_err(|full| {
            let judged = self.judge(&self.trust().load(), &proof, wanted);
            judged.err().unwrap_or(full)
        })?;
        let peer = self.judge(&self.trust().load(), &proof, wanted)?;
        if peer.scope() == Scope::Recovery && !recovers {
            return Err(Refusal::Expired);
        }
        registration.judged(&peer);
        match registration.closed().refusal() {
            None => Ok((registration, peer)),
            Some(refusal) => Err(refusal),
        }
    }
}
