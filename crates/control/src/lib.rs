//! Administration as functions, one for each use case: for HTTP handlers and for programs that embed a member.
//!
//! Start with [`Control`]: it acts in the name of one author, takes typed arguments, and returns a typed outcome or a
//! [`ControlError`]. [`Controls`] makes one for each author. [`Health`] says how a member is, and changes nothing.
//!
//! A use case is a command with its checks before and its waiting after: `Control::evict` demotes, waits for the signed
//! attestations, evicts, and waits for the barrier. Each stops where it can be repeated.
//!
//! Nothing here may know HTTP. A check that must be atomic belongs in `countersign-core`.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod error;
mod health;
mod hosts;
mod labels;
mod leader;
mod membership;
mod metrics;
mod others;
mod policy;
mod principals;
mod quorum;
mod target;
mod tokens;

use std::sync::Arc;

use countersign_core::id::Generation;
use countersign_core::receipt::Barrier;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;
use countersign_guard::Guard;
use countersign_node::{
    Barriers, CommandError, Denylist, Done, Leasehold, Local, Node, OwnEndpoints, Peers, Proposer, SharedState,
};
use countersign_raft::Group;

pub use error::ControlError;
pub use health::Health;
pub use hosts::unproved;
pub use membership::{Evicted, Leaving};
pub use policy::{PolicyChanged, PolicyPlan};
pub use principals::{IssuedCertificate, NewCertificate, RevokedCertificates};
pub use target::named;
pub use tokens::{CreatedToken, NewToken};

/// What the use cases work with.
struct Parts {
    local: Arc<Local>,
    state: SharedState,
    group: Group,
    peers: Peers,
    proposer: Arc<Proposer>,
    barriers: Barriers,
    denylist: Arc<Denylist>,
    guard: Guard,
    lease: Arc<Leasehold>,
    endpoints: Arc<OwnEndpoints>,
    client_ttl_secs: u64,
}

/// Makes [`Control`]s of one member, each for one author. Clones are of the same member.
#[derive(Clone)]
pub struct Controls(Arc<Parts>);

impl Controls {
    /// Of this member.
    pub fn of(node: &Node) -> Self {
        Self(Arc::new(Parts {
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            group: node.group.clone(),
            peers: node.peers.clone(),
            proposer: Arc::clone(&node.proposer),
            barriers: node.barriers.clone(),
            denylist: Arc::clone(&node.denylist),
            guard: node.guard.clone(),
            lease: Arc::clone(&node.lease),
            endpoints: Arc::clone(&node.endpoints),
            client_ttl_secs: node.client_ttl_secs,
        }))
    }

    /// In the name of the author that `claim` names.
    pub fn author(&self, claim: Claim) -> Control {
        Control { parts: Arc::clone(&self.0), claim }
    }
}

/// Administers a cluster through one of its members, in the name of one author.
#[derive(Clone)]
pub struct Control {
    parts: Arc<Parts>,
    claim: Claim,
}

impl Control {
    /// The trust view in force here.
    pub fn view(&self) -> Arc<View> {
        self.parts.local.view()
    }

    /// The cluster's time, as this member knows it.
    pub fn now(&self) -> UnixMillis {
        self.parts.local.now()
    }

    /// Waits until every member enforces the revocation of `generation` or denies. None if no leader told how far the
    /// members are.
    pub async fn await_barrier(&self, generation: Generation) -> Option<Barrier> {
        self.parts.barriers.await_passed(generation).await
    }

    /// Carries out a command of the author, with the key to certify where it issues.
    async fn command(&self, command: Command, spki: &[u8]) -> Result<Done, CommandError> {
        self.parts.proposer.command_of(&self.claim, command, spki).await
    }

    /// Carries out a command that answers with no more than a generation, and returns that.
    async fn carry_out(&self, command: Command) -> Result<Generation, CommandError> {
        self.command(command, &[]).await?.answered(|outcome| {
            let Outcome::Done(generation) = outcome else { return None };
            Some(generation)
        })
    }
}
