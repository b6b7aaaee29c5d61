//! What a build that is not written yet will know. Tests give it to members, to see how those that lack it behave.

use serde::{Deserialize, Serialize};

use super::LEVEL_FOR_TESTING;
use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::json::Object;
use crate::limits::EVENT_LIST_LEN_MAX;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Keeps a word in a field that no earlier level has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteForTesting(pub String);

impl Operation for NoteForTesting {
    fn level(&self) -> u32 {
        LEVEL_FOR_TESTING
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
        state.notes.push(self.0.clone());
        state.change(|_| {})
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        ("note.kept", Object::default().texts("note", [&self.0], EVENT_LIST_LEN_MAX))
    }
}
