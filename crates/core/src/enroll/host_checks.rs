//! When a leader looks for a running member at the addresses that it advertises and nothing proves: at once, and then
//! less and less often.
//!
//! Pure: the time is an argument. Who moves is looked for at once again.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::limits::{HOST_CHECK_SECS_MAX, HOST_CHECKS_MAX};
use crate::name::Address;
use crate::time::BootMillis;
use crate::trust::view::View;

/// The members that were looked for, and when each is looked for again.
#[derive(Debug, Default)]
pub struct HostChecks(BTreeMap<NodeId, Looked>);

#[derive(Debug)]
struct Looked {
    addresses: Vec<Address>,
    times: u32,
    next: BootMillis,
}

/// A member to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCheck {
    /// Which.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<Address>,
}

impl HostChecks {
    /// The members to look for now: those that wait for longest, and so many at once.
    pub fn due(&mut self, view: &View, now: BootMillis) -> Vec<HostCheck> {
        if view.key_is_elsewhere() {
            return vec![];
        }
        self.0.retain(|node, looked| {
            view.members.get(node).is_some_and(|member| member.unproved().eq(looked.addresses.iter()))
        });
        for member in view.members.unproved() {
            let looked = || Looked { addresses: member.unproved().cloned().collect(), times: 0, next: now };
            self.0.entry(member.id).or_insert_with(looked);
        }
        let mut due: Vec<(BootMillis, NodeId)> =
            self.0.iter().filter(|(_, looked)| looked.next <= now).map(|(node, looked)| (looked.next, *node)).collect();
        due.sort();
        due.truncate(HOST_CHECKS_MAX);
        due.iter().filter_map(|(_, node)| self.begin(*node, now)).collect()
    }

    fn begin(&mut self, node: NodeId, now: BootMillis) -> Option<HostCheck> {
        let looked = self.0.get_mut(&node)?;
        let wait_secs = 1_u64.checked_shl(looked.times).unwrap_or(u64::MAX).min(HOST_CHECK_SECS_MAX);
        looked.times = looked.times.saturating_add(1);
        looked.next = BootMillis(now.0.saturating_add(wait_secs.saturating_mul(1000)));
        Some(HostCheck { node, addresses: looked.addresses.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::member::Member;
    use crate::trust::tests::rig::Rig;

    /// A founder and `n` members at addresses that nothing proves.
    fn view(n: u64) -> View {
        let rig = Rig::three_voters();
        let mut view = View::clone(rig.0.view().unwrap());
        let member = view.members.remove(&NodeId(3)).unwrap();
        view.members.remove(&NodeId(2));
        for id in 2..2 + n {
            let addresses = vec![Address::parse(&format!("10.1.0.{id}:1")).unwrap()];
            view.members.insert(NodeId(id), Member { id: NodeId(id), addresses, ..member.clone() });
        }
        view
    }

    fn nodes(due: &[HostCheck]) -> Vec<u64> {
        due.iter().map(|check| check.node.0).collect()
    }

    const SECOND: u64 = 1000;

    #[test]
    fn member_that_is_not_found_is_looked_for_less_and_less() {
        let (view, mut checks) = (view(1), HostChecks::default());
        let mut at = Vec::new();
        for second in 0..2000 {
            if !checks.due(&view, BootMillis(second * SECOND)).is_empty() {
                at.push(second);
            }
        }
        assert_eq!(at.get(..10).unwrap(), [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]);
        let last: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).skip(9).collect();
        assert!(last.iter().all(|wait| *wait == HOST_CHECK_SECS_MAX), "{last:?}");
    }

    #[test]
    fn so_many_are_looked_for_at_once_and_each_in_its_turn() {
        let (view, mut checks) = (view(2 * HOST_CHECKS_MAX as u64), HostChecks::default());
        let first = nodes(&checks.due(&view, BootMillis(0)));
        assert_eq!(first.len(), HOST_CHECKS_MAX);
        let second = nodes(&checks.due(&view, BootMillis(0)));
        assert_eq!(second.len(), HOST_CHECKS_MAX);
        assert!(first.iter().all(|node| !second.contains(node)));
        assert!(checks.due(&view, BootMillis(0)).is_empty());
    }

    #[test]
    fn who_moved_is_looked_for_at_once_and_who_is_proved_no_more() {
        let (mut view, mut checks) = (view(1), HostChecks::default());
        for second in 0..100 {
            checks.due(&view, BootMillis(second * SECOND));
        }
        view.members
            .update(&NodeId(2), |member| member.addresses = vec![Address::parse("n2.example:1").unwrap()])
            .unwrap();
        let due = checks.due(&view, BootMillis(100 * SECOND));
        assert_eq!(due, [HostCheck { node: NodeId(2), addresses: vec![Address::parse("n2.example:1").unwrap()] }]);
        view.members
            .update(&NodeId(2), |member| member.addresses = vec![Address::parse("127.0.0.1:1").unwrap()])
            .unwrap();
        assert!(checks.due(&view, BootMillis(1000 * SECOND)).is_empty());
        assert!(checks.0.is_empty(), "forgotten");
    }
}
