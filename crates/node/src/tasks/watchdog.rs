//! Ends a member whose state machine stands still, at an entry or because the state is never given back. What starts
//! it again (systemd, an orchestrator) gets a member that works, where a frozen one would go on looking alive. It runs
//! on a thread of its own and waits for no lock.

use std::time::Duration;
use std::{io, thread};

use countersign_core::lease::LeaseLength;
use countersign_raft::Group;
use tokio_util::sync::CancellationToken;

use crate::identity::local::Local;
use crate::trust::machine::SharedState;

/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(250);

/// The shortest time after which a machine is taken to stand still: on a loaded host, applying one entry may take as
/// long as the shortest leases.
const PATIENCE_MIN: Duration = Duration::from_secs(10);

/// Stands for the state being held, which is no piece of work: those are odd and small.
const STATE_HELD: u64 = u64::MAX - 1;

/// Counts looks, not time: a process that was stopped, or a host that slept, is not a machine that stands still.
struct Watch {
    looks_max: u32,
    seen: Option<(u64, u32)>,
}

impl Watch {
    fn new(lease: LeaseLength) -> Self {
        let patience = Duration::from_millis(lease.millis()).max(PATIENCE_MIN);
        let looks_max = u32::try_from(patience.as_millis() / LOOK.as_millis()).unwrap_or(u32::MAX);
        Self { looks_max, seen: None }
    }

    /// Takes in which piece of work is under way; true if the same one was found too often.
    fn look(&mut self, working: Option<u64>) -> bool {
        let Some(work) = working else {
            self.seen = None;
            return false;
        };
        let looks = match self.seen {
            Some((same, looks)) if same == work => looks.saturating_add(1),
            Some(_) | None => 0,
        };
        self.seen = Some((work, looks));
        looks >= self.looks_max
    }
}

/// Watches the member until it stops.
///
/// # Errors
/// The operating system starts no thread.
pub(crate) fn spawn(local: &Local, state: &SharedState, group: &Group, stop: CancellationToken) -> io::Result<()> {
    let (work, state) = (group.work(), state.clone());
    let (node, name) = (local.node, local.file.name.clone());
    let mut watch = Watch::new(state.read().lease().unwrap_or_default());
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        while !stop.is_cancelled() {
            thread::park_timeout(LOOK);
            // Where every thread waits for the state, none is left to apply anything.
            let working = if state.is_free() { work.under_way() } else { Some(STATE_HELD) };
            if watch.look(working) {
                let secs = LOOK.saturating_mul(watch.looks_max).as_secs();
                tracing::error!(
                    %node, %name, secs,
                    "this member's state machine stands still: the process ends, start it again"
                );
                std::process::abort();
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_of_work_for_too_many_looks_is_a_machine_that_stands_still() {
        let mut watch = Watch { looks_max: 3, seen: None };
        let looks = [Some(1), Some(1), Some(1), None, Some(3), Some(3), Some(5), Some(5), Some(5)];
        for working in looks {
            assert!(!watch.look(working), "{working:?}");
        }
        assert!(watch.look(Some(5)));
    }

    #[test]
    fn a_short_lease_ends_no_member_of_a_loaded_host() {
        let secs = |secs| Watch::new(LeaseLength::from_secs(secs).unwrap()).looks_max / 4;
        assert_eq!((secs(2), secs(10), secs(30)), (10, 10, 30));
    }
}
