//! Levels: members report what their binaries know, and the level of the cluster rises. It never falls.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::NodeId;
use crate::json::Object;
use crate::limits::EVENT_LIST_LEN_MAX;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::placement::PLACEMENT_LEVEL;
use crate::trust::state::{TrustState, UnsupportedLevel};
use crate::trust::view::View;

/// A member says which level its binary knows. A lower report replaces a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFeatureLevel {
    /// The member.
    pub node: NodeId,
    /// The newest level that it knows.
    pub level: u32,
}

/// Raises the level of the cluster: from then on its members may use what that level brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseLevel {
    /// The level.
    pub level: u32,
    /// Learners that are not waited for, although they know less or have not been heard of.
    pub without: BTreeSet<NodeId>,
    /// Whether the leader raises it by itself, which needs all members to have known it for a while.
    pub by_itself: bool,
}

impl Operation for ReportFeatureLevel {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Member { node: self.node, in_recovery: false }
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        let generation = state.current()?.generation;
        Ok((state.member(self.node)?.feature_level == self.level).then_some(Outcome::Done(generation)))
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let (level, at) = (self.level, state.time);
        state.change(|view| {
            view.members.update(&self.node, |member| (member.feature_level, member.level_since) = (level, at));
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("node.level_reported", draft.node(self.node).number("level", u64::from(self.level)))
    }
}

impl Operation for RaiseLevel {
    /// Read by all: a member that lacks the level stops only once the level has risen ([`RaiseLevel::check_known`]).
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let generation = state.current()?.generation;
        if !self.rises(state)? {
            return Ok(Outcome::Done(generation));
        }
        let before = core::mem::replace(&mut state.level, self.level);
        if before < PLACEMENT_LEVEL && self.level >= PLACEMENT_LEVEL {
            state.part_placement()?;
        }
        // A generation of its own, so that every task that waits for news looks.
        state.change(|_| {})
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        let Self { level, without, by_itself } = self;
        let details = Object::default().number("level", u64::from(*level)).flag("by_itself", *by_itself);
        let details = details.number("without_count", count(without.len()));
        ("cluster.level_raised", details.texts("without", without, EVENT_LIST_LEN_MAX))
    }
}

impl RaiseLevel {
    /// Whether the binary of this member knows the level to which the cluster's is about to rise. One that is refused
    /// stops no member.
    pub(in crate::trust) fn check_known(&self, state: &TrustState) -> Result<(), UnsupportedLevel> {
        if self.level > state.known && self.rises(state) == Ok(true) {
            return Err(UnsupportedLevel { needed: self.level, known: state.known });
        }
        Ok(())
    }

    /// Whether the level rises; false where it is as high already.
    fn rises(&self, state: &TrustState) -> Result<bool, Refused> {
        let Self { level, without, by_itself } = self;
        let view = state.current()?;
        if *level <= state.level {
            return Ok(false);
        }
        let voter = |node: &&NodeId| view.members.get(node).is_some_and(|m| m.suffrage == Suffrage::Voter);
        if let Some(voter) = without.iter().find(voter) {
            return Err(Refused::LevelNeedsVoter(*voter));
        }
        let behind = if *by_itself { state.unproven(*level, without) } else { state.behind(*level, without) };
        if !behind.is_empty() || (*by_itself && !state.level_auto) {
            return Err(Refused::AboveLevel { needed: *level, level: state.level, behind });
        }
        Ok(true)
    }
}
