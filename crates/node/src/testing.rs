//! Doors of a member that only tests open: what a member that runs well never does.

use countersign_core::id::KeyId;
use countersign_core::name::Name;
use countersign_core::trust::command::{Command, NoteForTesting};

use crate::node::Node;
use crate::settings::{ClusterToken, NewCluster, Settings, Start};
use crate::start_error::StartError;
use tonic::service::Routes;

impl Node {
    /// Proposes what the level after the newest brings.
    #[doc(hidden)]
    pub async fn note_for_testing(&self, note: String) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        self.proposer.own_command(Command::NoteForTesting(NoteForTesting(note)), &[]).await?;
        Ok(())
    }

    /// What was noted and is applied here.
    #[doc(hidden)]
    pub fn notes_for_testing(&self) -> Vec<String> {
        self.state.read().notes_for_testing().to_vec()
    }

    /// Loses the revocation of `key` from this member's state and its stored snapshot, as one does whose disk is
    /// damaged.
    #[doc(hidden)]
    pub async fn forget_key_for_testing(&self, key: KeyId) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        self.state.forget_key_for_testing(key);
        let applied = self.group.status().applied;
        self.group.snapshot_now().await?;
        self.group.watch().wait_for(|status| status.snapshot >= applied).await?;
        Ok(())
    }

    /// Has the state machine stand still, as one does that waits for a lock which is never given back.
    #[doc(hidden)]
    pub fn stall_for_testing(&self) {
        let state = self.state.clone();
        // On a thread of its own, which ends with the lock.
        let _ = std::thread::spawn(move || state.stall_for_testing()).join();
    }
}

/// A member alone in a cluster of its own, in `data`, running.
///
/// # Errors
/// As [`Node::open`] and [`Node::run`].
pub async fn founded(data: &std::path::Path) -> Result<Node, StartError> {
    let name = |text| Name::parse(text).ok();
    let settings = Settings { name: name("n1"), ..Settings::new(data, ([127, 0, 0, 1], 0).into()) };
    let cluster = NewCluster {
        name: Name::parse("test").map_err(|source| StartError::HostName { host: String::new(), source })?,
        trust_domain: None,
        token: Some(ClusterToken::default()),
        authority: None,
        policy: Default::default(),
    };
    let (node, _) = Node::open(&settings, Start::Bootstrap(cluster)).await?;
    node.run(Routes::default(), None)?;
    let mut applied = node.state.applied();
    // What it says of itself at each start is on record, so that a test sees no entry but its own.
    while node.state.read().placement().data_store(node.local.node).is_none() {
        if applied.changed().await.is_err() {
            break;
        }
    }
    Ok(node)
}
