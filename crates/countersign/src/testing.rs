//! Doors of a member that only tests open: what a member that runs well never does.

use countersign_core::id::KeyId;
use countersign_core::trust::command::Command;

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

    /// Loses the revocation of `key` from this member's state and its stored snapshot, as one does whose disk is damaged.
    #[doc(hidden)]
    pub async fn forget_key_for_testing(&self, key: KeyId) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        self.0.state.forget_key_for_testing(key);
        let applied = self.0.group.status().applied;
        self.0.group.snapshot_now().await?;
        self.0.group.watch().wait_for(|status| status.snapshot >= applied).await?;
        Ok(())
    }

    /// Has the state machine stand still, as one does that waits for a lock which is never given back.
    #[doc(hidden)]
    pub fn stall_for_testing(&self) {
        let state = self.0.state.clone();
        // On a thread of its own, which ends with the lock.
        let _ = std::thread::spawn(move || state.stall_for_testing()).join();
    }
}
