//! Doors of a member that only tests open: what a member that runs well never does.

use countersign_core::codec::FIRST_LEVEL;
use countersign_core::id::RequestId;
use countersign_core::trust::author::Author;
use countersign_core::trust::command::{Command, Stamped};
use countersign_core::trust::hosts::ClusterSetting;

use crate::member::Member;

impl Member {
    /// Proposes what the level after the newest brings.
    #[doc(hidden)]
    pub async fn note_for_testing(&self, note: String) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        self.0.own_command(Command::NoteForTesting(note), &[]).await?;
        Ok(())
    }

    /// What was noted and is applied here.
    #[doc(hidden)]
    pub fn notes_for_testing(&self) -> Vec<String> {
        self.0.state.read().notes_for_testing().to_vec()
    }

    /// Has the state machine of a leader stand still at an entry, as one does that waits for a lock which is never given back.
    #[doc(hidden)]
    pub async fn stall_for_testing(&self) {
        let author = Author::of_member(self.0.node, RequestId([0; 16]));
        let command = Command::SetCluster(ClusterSetting::LevelAuto(true));
        let entry = Stamped { level: FIRST_LEVEL, time: self.0.now(), author, command }.encode();
        let state = self.0.state.clone();
        // On a thread of its own, which ends with the lock.
        let _ = std::thread::spawn(move || state.stall_for_testing()).join();
        if let Ok(entry) = entry {
            let _ = self.0.group.propose(entry).await;
        }
    }
}
