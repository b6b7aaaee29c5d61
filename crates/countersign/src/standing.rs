//! How far a member is on its way to the role that the cluster gives it, for progress displays. Nothing is decided by
//! it.

use std::time::Duration;

use countersign_core::trust::member::Suffrage;

use crate::member::Member;

/// How often a member that changes nothing by itself looks whether something has.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not heard a leader, or Raft does not count it in yet.
    CatchingUp,
    /// It is promoted: it opens its copy of the CA key, and is counted once it has proved that.
    BecomingVoter,
    /// It has the role that it is meant to have.
    Converged(Suffrage),
}

impl Member {
    /// Where this member stands now.
    pub fn standing(&self) -> Standing {
        let meant = self.view().members.get(&self.node()).map(|member| member.suffrage);
        match meant {
            Some(suffrage) if self.health().is_ready() => {
                let votes = self.node.group.status().voters.contains(&self.node());
                if votes || suffrage == Suffrage::Learner {
                    Standing::Converged(suffrage)
                } else {
                    Standing::BecomingVoter
                }
            }
            _ => Standing::CatchingUp,
        }
    }

    /// Tells where this member stands, now and at each change, until it is what it is meant to be.
    pub async fn converge(&self, mut tell: impl FnMut(Standing)) {
        let mut status = self.node.group.watch();
        let mut last = None;
        loop {
            let standing = self.standing();
            if last.replace(standing) != Some(standing) {
                tell(standing);
            }
            if matches!(standing, Standing::Converged(_)) {
                return;
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                // why: a leader's heartbeat changes nothing that could be waited for
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}
