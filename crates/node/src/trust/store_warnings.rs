//! What `status` says about stores that do not count: this member's own, and those of others.

use std::sync::Arc;

use countersign_core::trust::member::Member;
use countersign_core::trust::view::View;
use countersign_raft::{Group, Refusal, StoreFault};

use crate::identity::local::Local;
use crate::lease::{Granting, Leasehold};
use crate::trust::stores::Stores;

/// Where the warnings come from.
#[derive(Clone)]
pub struct StoreWarnings {
    pub(crate) local: Arc<Local>,
    pub(crate) group: Group,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) granting: Arc<Granting>,
    pub(crate) stores: Arc<Stores>,
}

impl StoreWarnings {
    /// A line for each member whose store does not count, or that is on its way back with a new one.
    pub fn of(&self, view: &View) -> Vec<String> {
        let mut warnings: Vec<String> =
            view.members.scan().values().filter_map(|member| self.of_member(member)).collect();
        for (peer, refusal) in self.stores.refusing() {
            let by = view.members.get(&peer).map_or_else(|| peer.to_string(), |member| member.name.to_string());
            let why = match refusal {
                Refusal::RolledBack => "it is an older copy",
                Refusal::OtherStore => "it is not the one on record",
                Refusal::Conflict
                | Refusal::NotYet
                | Refusal::NotAssigned
                | Refusal::Outsider
                | Refusal::Invalid
                | Refusal::Stopped => continue,
            };
            let data = self.local.data.path().display();
            warnings.push(format!(
                "{by} refuses this node's store: {why}; stop this node and run `countersign server \
                 --return-as-learner --data {data}`"
            ));
        }
        if self.lease.is_replaced() {
            warnings.push(
                "another process runs with this node's keys and store, and counts: stop one of the two".to_owned(),
            );
        }
        warnings
    }

    fn of_member(&self, member: &Member) -> Option<String> {
        let name = &member.name;
        if member.returning.is_some() {
            return Some(format!("{name} is returning as a learner with a new store"));
        }
        if self.granting.runs_twice(member.id) {
            return Some(format!("two processes run as {name}: a copy of its directory is in use; stop one of them"));
        }
        if self.group.is_rolled_back(member.id, member.store) {
            return Some(format!(
                "{name} was rolled back: its store is an older copy and does not count; run `countersign server \
                 --return-as-learner` there"
            ));
        }
        match self.stores.fault(member.id)? {
            StoreFault::Other { expected, got, .. } if expected == member.store => Some(format!(
                "{name} speaks under another store ({got}) than the one on record: a copy of it is running, or its \
                 store was made again"
            )),
            StoreFault::Conflict { index, .. } => Some(format!(
                "{name} leads without log entry {index}, which is committed here: voters were restored from older \
                 copies; see `countersign status` there"
            )),
            StoreFault::Other { .. } | StoreFault::Log { .. } | StoreFault::Vote { .. } | StoreFault::Before { .. } => {
                None
            }
        }
    }
}
