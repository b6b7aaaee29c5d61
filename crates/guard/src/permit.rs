//! What a session answers: a permit, or why not.

use countersign_core::authz::{Action, Decision, Kind};
use countersign_core::id::Generation;
use countersign_core::lease::{Fresh, NoLease};
use countersign_core::peer::Refusal;
use countersign_core::time::BootMillis;

use crate::guard::Guard;
use crate::resource::Resource;

/// What a permit is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About<'a> {
    Resource(&'a Resource),
    Named(&'a Kind, &'a str),
}

/// Proof that an action on a thing was allowed, under one generation, as long as a lease lasts. A function that has an
/// effect takes it, and asks [`Permit::holds`] where the effect begins.
#[derive(Debug)]
#[must_use = "a permit that is not looked at allowed nothing"]
pub struct Permit<'a> {
    pub(crate) about: About<'a>,
    pub(crate) action: Action,
    pub(crate) generation: Generation,
    pub(crate) deadline: BootMillis,
}

impl<'a> Permit<'a> {
    /// The allowed action.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// To what kind of thing.
    pub const fn kind(&self) -> &'a Kind {
        match self.about {
            About::Resource(resource) => resource.kind(),
            About::Named(kind, _) => kind,
        }
    }

    /// Of which name.
    pub const fn name(&self) -> &'a str {
        match self.about {
            About::Resource(resource) => resource.name(),
            About::Named(_, name) => name,
        }
    }

    /// The generation that it was allowed under.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// When it ends by itself: with the lease, the rules that were weighed, or the proof of the peer.
    pub const fn deadline(&self) -> BootMillis {
        self.deadline
    }

    /// Whether it still counts where the effect begins: nothing has changed since, and the lease lasts. An effect that
    /// has begun by then may end.
    ///
    /// # Errors
    /// [`Denial::NoLease`] past [`Permit::deadline`], also where a rule or the proof ended; [`Denial::Outdated`] after
    /// any change.
    pub fn holds(&self, guard: &Guard, fresh: &Fresh<'_>) -> Result<(), Denial> {
        if fresh.now() >= self.deadline {
            return Err(Denial::NoLease(NoLease));
        }
        let generation = guard.generation();
        if generation <= self.generation {
            return Ok(());
        }
        Err(Denial::Outdated { permitted: self.generation, generation })
    }
}

/// Why something may not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nothing is known to be fresh.
    #[error(transparent)]
    NoLease(#[from] NoLease),
    /// The cluster does not know the caller, or knows it no longer.
    #[error("{0}")]
    Refused(Refusal),
    /// The rules say so, or nothing says otherwise.
    #[error("denied in generation {}: {}", .0.generation, .0.reason)]
    Denied(Decision),
    /// Something has changed since the permit was given: ask again.
    #[error("rules changed since generation {permitted}: now {generation}")]
    Outdated {
        /// Under which it was given.
        permitted: Generation,
        /// The generation in force now.
        generation: Generation,
    },
    /// The request asks for rules that are not here yet.
    #[error("generation {wanted} is asked for, {generation} is in force here")]
    Behind {
        /// The generation asked for.
        wanted: Generation,
        /// The generation in force.
        generation: Generation,
    },
    /// The rules about the caller are not here: [`Guard::fetch`] fetches them.
    #[error("rules about this principal are not here yet")]
    Unfetched,
    /// A peer whose proof has expired may recover, and nothing else.
    #[error("certificate has expired")]
    RecoveryOnly,
}
