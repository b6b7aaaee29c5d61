//! Which members speak for a group and under which stores, by the newest state that this member knows.

use std::sync::{Arc, OnceLock, Weak};

use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_core::trust::command::{Effect, Stamped};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::view::View;
use countersign_core::trust::{TrustState, UnreadableState};
use countersign_net::Endpoint;
use countersign_raft::{Assignments, Group, Refusal, StoreFault, StoreKind};

use crate::trust::denylist::Denylist;
use crate::trust::gate::Gate;
use crate::trust::machine::SharedState;
use crate::trust::stores::Stores;

/// Which members speak for a group, by the newest view that this member knows.
pub(super) struct AssignedByView {
    pub(super) me: NodeId,
    /// The id of this member's store.
    pub(super) own: StoreId,
    /// The id of the store of its other groups, once that is open.
    pub(super) data_store: OnceLock<StoreId>,
    pub(super) stores: Arc<Stores>,
    /// The newest level that this member can apply.
    pub(super) known: u32,
    pub(super) gate: Arc<Gate>,
    pub(super) denylist: Arc<Denylist>,
    pub(super) stored: Option<Arc<View>>,
    pub(super) state: SharedState,
    pub(super) endpoint: OnceLock<Endpoint>,
    pub(super) group: OnceLock<Group>,
}

impl AssignedByView {
    fn view(&self) -> Option<Arc<View>> {
        let trust = self.endpoint.get().map(|endpoint| Arc::clone(&endpoint.trust().load().view));
        let applied = || self.state.read().view().cloned();
        trust.or_else(applied).or_else(|| self.stored.clone())
    }
}

/// The same for the groups, which do not keep it alive.
pub(super) struct WeakAssigned(pub(super) Weak<AssignedByView>);

impl Assignments for WeakAssigned {
    fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool> {
        let this = self.0.upgrade()?;
        if group != GroupId::TRUST {
            return this.state.read().assigned(group, node);
        }
        match this.view() {
            Some(view) => view.assigned(group, node),
            // Before there is a view there is only the founder.
            None => (node == this.me).then_some(true),
        }
    }

    /// Raft obeys each member that claims to lead, and a learner is not trusted to. Besides the members whose role is
    /// voter, these are the members that still vote: a voter that is being demoted hands over first.
    ///
    /// No member is believed before this member has recognized the cluster. A member that it refuses by itself is never
    /// believed.
    fn may_lead(&self, group: GroupId, node: NodeId) -> Option<bool> {
        let this = self.0.upgrade()?;
        if this.endpoint.get().is_some_and(|endpoint| endpoint.denied(node).is_some()) {
            return Some(false);
        }
        if !this.gate.is_open() {
            return None;
        }
        if group != GroupId::TRUST {
            return self.assigned(group, node);
        }
        let Some(view) = this.view() else { return (node == this.me).then_some(true) };
        let member = view.members.get(&node);
        let votes = || this.group.get().is_some_and(|group| group.status().voters.contains(&node));
        Some(member.is_some_and(|m| m.suffrage == Suffrage::Voter || votes()))
    }

    /// An eviction in this member's own log counts for refusal at once, until it is applied: it may be committed
    /// without this member knowing.
    fn appended(&self, group: GroupId, index: u64, command: &[u8]) {
        let Some(this) = self.0.upgrade().filter(|_| group == GroupId::TRUST) else { return };
        let Ok(Stamped { command, .. }) = Stamped::decode(this.known, command) else { return };
        this.stores.logged(index, &command);
        if let Effect::Evicts(node) = command.effect()
            && node != this.me
        {
            this.denylist.logged(index, node);
        }
    }

    fn truncated(&self, group: GroupId, index: u64) {
        if let Some(this) = self.0.upgrade().filter(|_| group == GroupId::TRUST) {
            this.denylist.truncated(index);
            this.stores.truncated(index);
        }
    }

    fn stores(&self, kind: StoreKind, node: NodeId) -> Vec<StoreId> {
        let Some(this) = self.0.upgrade() else { return Vec::new() };
        match kind {
            StoreKind::Trust => {}
            StoreKind::Bulk => return this.state.read().placement().data_store(node).into_iter().collect(),
        }
        match this.view() {
            // Before there is a view there is only the founder.
            None if node == this.me => vec![this.own],
            view => this.stores.of(view.as_deref(), node),
        }
    }

    /// By this member's own log alone, never by the stored view: a new store holds none of the earlier
    /// promises, and its log must have come as far as the entry that says that it counts.
    ///
    /// In any other group: by the store that the cluster has on record of it, which it was assigned to its groups with.
    fn may_vote(&self, group: GroupId) -> bool {
        let Some(this) = self.0.upgrade() else { return false };
        if group != GroupId::TRUST {
            let recorded = this.state.read().placement().data_store(this.me);
            return recorded.is_some() && recorded == this.data_store.get().copied();
        }
        let recorded = this.state.read().view().map(|view| view.members.get(&this.me).map(|member| member.store));
        match recorded {
            // The founder before the first entry: no other member has no stored view.
            None if this.stored.is_none() => true,
            None => this.stores.is_logged(this.me, this.own),
            Some(recorded) => recorded == Some(this.own) || this.stores.is_logged(this.me, this.own),
        }
    }

    fn distrusted(&self, group: GroupId, fault: &StoreFault) {
        if let Some(this) = self.0.upgrade().filter(|_| group == GroupId::TRUST) {
            this.stores.distrusted(fault);
        }
    }

    fn refused_by(&self, group: GroupId, peer: NodeId, refusal: Refusal) {
        if let Some(this) = self.0.upgrade().filter(|_| group == GroupId::TRUST) {
            let term = this.group.get().map_or(0, |group| group.status().term);
            this.stores.refused(peer, refusal, this.view().as_deref(), term);
        }
    }

    /// A member that was away knows none of those who came meanwhile: the snapshot of the trust group says who they
    /// are.
    fn admits(&self, group: GroupId, member: NodeId, snapshot: &[u8]) -> bool {
        let Some(this) = self.0.upgrade() else { return false };
        if group != GroupId::TRUST || self.assigned(group, member) == Some(true) {
            return self.assigned(group, member) == Some(true);
        }
        let state = match TrustState::decode(this.known, snapshot) {
            Ok(state) => state,
            // Installing it stops this member by name; refused here, the member would lag without a word.
            Err(unreadable) => return matches!(unreadable, UnreadableState::Level(_)),
        };
        let (Some(theirs), Some(ours)) = (state.view(), this.view()) else { return false };
        theirs.cluster == ours.cluster && (theirs.members.contains_key(&member) || theirs.evicted.contains_key(&member))
    }
}
