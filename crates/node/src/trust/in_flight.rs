//! How much of one author's the leader holds: commands that wait or are under way. Past it that author is told to come
//! again, and everybody else is served as before.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::id::NodeId;
use countersign_core::limits::{COMMAND_BYTES_PER_AUTHOR_MAX, COMMANDS_PER_AUTHOR_MAX};
use countersign_core::locked::{LockGuard, Locked};

/// An author has as much waiting as it may; nothing was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// In number.
    #[error("{COMMANDS_PER_AUTHOR_MAX} commands of this author are waiting: try again")]
    Commands,
    /// In length.
    #[error("{COMMAND_BYTES_PER_AUTHOR_MAX} bytes of this author's commands are waiting: try again")]
    Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Held {
    commands: usize,
    bytes: usize,
}

/// What each member has waiting that took commands: this one for itself and its operators, others by forwarding.
/// Members that have nothing waiting are absent.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Locked<BTreeMap<NodeId, Held>>>);

/// A command's place; given back when it is dropped.
pub(crate) struct InFlightPlace {
    in_flight: InFlight,
    taken_by: NodeId,
    bytes: usize,
}

impl InFlight {
    fn lock(&self) -> LockGuard<'_, BTreeMap<NodeId, Held>> {
        self.0.lock()
    }

    /// A place for a command of `bytes`, encoded, that this member took.
    pub(crate) fn enter(&self, taken_by: NodeId, bytes: usize) -> Result<InFlightPlace, Busy> {
        let mut in_flight = self.lock();
        let held = in_flight.get(&taken_by).copied().unwrap_or_default();
        if held.commands >= COMMANDS_PER_AUTHOR_MAX {
            return Err(Busy::Commands);
        }
        if held.bytes.saturating_add(bytes) > COMMAND_BYTES_PER_AUTHOR_MAX {
            return Err(Busy::Bytes);
        }
        in_flight.insert(taken_by, Held { commands: held.commands + 1, bytes: held.bytes + bytes });
        Ok(InFlightPlace { in_flight: self.clone(), taken_by, bytes })
    }
}

impl Drop for InFlightPlace {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock();
        if let Some(held) = in_flight.get_mut(&self.taken_by) {
            held.commands = held.commands.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(self.bytes);
            if *held == Held::default() {
                in_flight.remove(&self.taken_by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: NodeId = NodeId(2);
    const HERE: NodeId = NodeId(1);

    #[test]
    fn author_that_floods_waits_and_delays_no_other_author() {
        let in_flight = InFlight::default();
        let mut held: Vec<InFlightPlace> =
            (0..COMMANDS_PER_AUTHOR_MAX).map(|_| in_flight.enter(MEMBER, 1).unwrap()).collect();
        assert_eq!(in_flight.enter(MEMBER, 1).err(), Some(Busy::Commands));
        assert!(in_flight.enter(HERE, 1).is_ok() && in_flight.enter(NodeId(3), 1).is_ok());
        held.pop();
        assert!(in_flight.enter(MEMBER, 1).is_ok());
        drop(held);
        assert!(in_flight.lock().is_empty(), "what is over leaves nothing behind");
    }

    #[test]
    fn an_author_s_commands_are_bounded_in_bytes_as_well() {
        let in_flight = InFlight::default();
        let half = COMMAND_BYTES_PER_AUTHOR_MAX / 2;
        let (first, _second) = (in_flight.enter(MEMBER, half).unwrap(), in_flight.enter(MEMBER, half).unwrap());
        assert_eq!(in_flight.enter(MEMBER, 1).err(), Some(Busy::Bytes));
        assert!(in_flight.enter(HERE, COMMAND_BYTES_PER_AUTHOR_MAX).is_ok());
        drop(first);
        assert!(in_flight.enter(MEMBER, half).is_ok());
        assert_eq!(in_flight.enter(HERE, usize::MAX).err(), Some(Busy::Bytes));
    }
}
