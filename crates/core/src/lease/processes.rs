//! Which process of a member counts where two run with the same keys and the same store, as after a copy of its
//! directory.

use std::collections::{BTreeMap, VecDeque};

use super::LeaseLength;
use crate::id::{BootId, NodeId};
use crate::time::BootMillis;

/// Processes of one member that are remembered as replaced.
const REPLACED_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    current: BootId,
    heard: BootMillis,
    replaced: VecDeque<BootId>,
    /// When a replaced process spoke last.
    second: Option<BootMillis>,
}

/// The processes that asked a leader for leases. The one that started last counts: a member that is started again need
/// not wait. The one that it replaces does not count any more for as long as the other one speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Processes {
    by_member: BTreeMap<NodeId, Process>,
}

impl Processes {
    /// Whether `boot` is the process of `member` that counts, at `now`.
    pub(super) fn counts(&mut self, member: NodeId, boot: BootId, length: LeaseLength, now: BootMillis) -> bool {
        let first = || Process { current: boot, heard: now, replaced: VecDeque::new(), second: None };
        let process = self.by_member.entry(member).or_insert_with(first);
        if process.current != boot {
            let speaks = now.since(process.heard) < length.waited_millis();
            if speaks && process.replaced.contains(&boot) {
                process.second = Some(now);
                return false;
            }
            process.replaced.retain(|replaced| *replaced != boot);
            process.replaced.push_back(process.current);
            if process.replaced.len() > REPLACED_MAX {
                process.replaced.pop_front();
            }
            process.current = boot;
        }
        process.heard = now;
        true
    }

    /// Whether a second process of `member` spoke less than a lease ago.
    pub(super) fn are_two(&self, member: NodeId, length: LeaseLength, now: BootMillis) -> bool {
        let second = self.by_member.get(&member).and_then(|process| process.second);
        second.is_some_and(|at| now.since(at) < length.waited_millis())
    }

    /// Forgets members that are gone, once more of them are known than there are `members`: so that not every request
    /// looks at all.
    pub(super) fn keep(&mut self, members: usize, is_member: impl Fn(NodeId) -> bool) {
        if self.by_member.len() > members {
            self.by_member.retain(|member, _| is_member(*member));
        }
    }
}
