//! `view.bin` follows the membership, so that a member that has lost its store still knows its cluster: the members to
//! ask and the authorities to believe.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::codec;
use countersign_core::id::AuthorityId;
use countersign_core::table::Sum;
use countersign_core::trust::view::View;

use crate::identity::datadir::{DataDirError, file};
use crate::identity::local::Local;
use crate::trust::machine::SharedState;

/// A burst of changes is written once in so long.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// What a member without its store needs to know. Renewals and rules are no part of it. Members and evictions are
/// compared by the digests that their tables keep, so that a change of the view costs the same in any cluster.
#[derive(PartialEq, Eq)]
struct Membership {
    members: Sum,
    authorities: BTreeSet<AuthorityId>,
    evicted: Sum,
    attested: u64,
}

impl Membership {
    fn of(view: &View) -> Self {
        Self {
            members: view.members.reach(),
            authorities: view.authorities.keys().copied().collect(),
            evicted: view.evicted.sum(),
            attested: view.attested,
        }
    }
}

/// The task that writes the membership down, at the start and whenever it has changed.
pub(crate) struct ViewFile {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
}

impl ViewFile {
    /// Runs until the member stops.
    pub(crate) async fn run(self) {
        let mut applied = self.state.applied();
        let mut written = None;
        loop {
            let view = self.local.view();
            let now = Membership::of(&view);
            if written.as_ref() != Some(&now) {
                match self.write(&view) {
                    Ok(()) => written = Some(now),
                    // The store has it; it is tried again with the next change.
                    Err(error) => tracing::warn!(error = %crate::chain(&error), "membership not written down"),
                }
                // why: a burst of changes is one write
                tokio::time::sleep(WRITE_EVERY).await;
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    fn write(&self, view: &View) -> Result<(), DataDirError> {
        let Ok(bytes) = codec::encode(&view.without_policy()) else { return Ok(()) };
        self.local.data.write(file::VIEW, &bytes)
    }
}
