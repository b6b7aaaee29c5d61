//! One member's copy of the state, and what must hold at each of its steps. It only ever applies the log in order.

use std::sync::Arc;

use countersign_core::group::GroupMembers;
use countersign_core::id::{Generation, NodeId, RequestId, StateDigest, TokenId};
use countersign_core::time::UnixMillis;
use countersign_core::trust::TrustState;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::{Command, FEATURE_LEVEL, RevokeJoinToken, Stamped};
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;

use crate::danger::Faults;
use crate::violation::Broken;

/// A state and how much of the log it has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replica {
    state: TrustState,
    applied: usize,
    time: UnixMillis,
}

/// A state as bytes, with its place in the log.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    bytes: Vec<u8>,
    applied: usize,
}

impl Replica {
    pub(crate) const fn state(&self) -> &TrustState {
        &self.state
    }

    /// Entries applied.
    pub(crate) const fn applied(&self) -> usize {
        self.applied
    }

    pub(crate) const fn view(&self) -> Option<&Arc<View>> {
        self.state.view()
    }

    pub(crate) const fn time(&self) -> UnixMillis {
        self.time
    }

    pub(crate) fn digest(&self) -> Result<StateDigest, Broken> {
        Ok(self.state.digest()?)
    }

    /// Applies the next entry.
    pub(crate) fn apply(&mut self, stamped: &Stamped, faults: &Faults) -> Result<Outcome, Broken> {
        let before = self.view().cloned();
        let outcome = faults.apply(&mut self.state, stamped)?;
        self.applied += 1;
        self.advance(faults.time(&self.state, stamped))?;
        check_views(before.as_ref(), self.view())?;
        self.state.check_invariants()?;
        Ok(outcome)
    }

    /// As [`Self::apply`], and a refusal must leave everything but the time as it was. Costs a copy of the state.
    pub(crate) fn apply_strictly(&mut self, stamped: &Stamped, faults: &Faults) -> Result<Outcome, Broken> {
        let mut before = self.state.clone();
        let outcome = self.apply(stamped, faults)?;
        if matches!(outcome, Outcome::Refused(_)) {
            let nothing =
                Stamped { command: Command::RevokeJoinToken(RevokeJoinToken(TokenId([0; 8]))), ..stamped.clone() };
            before.apply(&nothing, &GroupMembers::default())?;
            if before != self.state {
                return Err(Broken::RefusalChanged);
            }
        }
        Ok(outcome)
    }

    /// Passes over an entry without applying it: only a fault does.
    pub(crate) const fn danger_skip(&mut self) {
        self.applied += 1;
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, Broken> {
        let bytes = self.state.encode()?;
        let again = TrustState::decode(FEATURE_LEVEL, &bytes)?;
        if again != self.state || again.encode()? != bytes {
            return Err(Broken::Snapshot);
        }
        Ok(Snapshot { bytes, applied: self.applied })
    }

    /// What a snapshot gives, before anything else is applied.
    pub(crate) fn of(snapshot: &Snapshot) -> Result<Self, Broken> {
        let state = TrustState::decode(FEATURE_LEVEL, &snapshot.bytes)?;
        let time = state.time();
        Ok(Self { state, applied: snapshot.applied, time })
    }

    /// Goes on from another's snapshot, which must lie ahead.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) -> Result<(), Broken> {
        let before = self.view().cloned();
        let next = Self::of(snapshot)?;
        let time = next.time;
        *self = Self { time: self.time, ..next };
        self.advance(time)?;
        check_views(before.as_ref(), self.view())
    }

    /// Goes on from a snapshot as though it were the present state: only a fault does.
    pub(crate) fn danger_install_as_present(&mut self, snapshot: &Snapshot) -> Result<(), Broken> {
        let applied = self.applied;
        self.install(snapshot)?;
        self.applied = applied;
        Ok(())
    }

    fn advance(&mut self, to: UnixMillis) -> Result<(), Broken> {
        if to < self.time {
            return Err(Broken::Time { before: self.time, after: to });
        }
        self.time = to;
        Ok(())
    }
}

/// A view only ever grows its generation, and two views of one generation are one.
fn check_views(before: Option<&Arc<View>>, after: Option<&Arc<View>>) -> Result<(), Broken> {
    let generation = |view: Option<&Arc<View>>| view.map_or(Generation(0), |v| v.generation);
    let (was, is) = (generation(before), generation(after));
    if is < was || (is == was && before != after) {
        return Err(Broken::Generation { before: was, after: is });
    }
    Ok(())
}

/// A command of this build's level, taken by `member`.
pub(crate) fn stamped(time: UnixMillis, member: NodeId, command: Command) -> Stamped {
    let author = Claim::of_member(member, RequestId([0; 16])).taken_by(member, &command);
    Stamped { level: FEATURE_LEVEL, time, author, command }
}
