//! Tests of leases, each part by itself and all of them together.

mod barrier;
mod keeper;
mod manager;
mod together;
mod values;

use super::{Leader, LeaseKeeper, LeaseLength};
use crate::group::GroupMembers;
use crate::id::{Generation, NodeId};
use crate::time::BootMillis;
use crate::trust::TrustState;
use crate::trust::tests::rig::{NOW, bootstrap, stamped};
use crate::trust::view::View;

const TEN: LeaseLength = LeaseLength::DEFAULT;
const LEADER: Leader = Leader { node: NodeId(1), term: 5 };

fn at(millis: u64) -> BootMillis {
    BootMillis(millis)
}

/// A view of this generation with `members` voters.
fn view(generation: u64, members: u64) -> View {
    let mut state = TrustState::new();
    state.apply(&stamped(NOW, bootstrap()), &GroupMembers::default()).unwrap();
    let mut view = View::clone(state.view().unwrap());
    let founder = view.members[&NodeId(1)].clone();
    for id in (2..=members).map(NodeId) {
        view.members.insert(id, crate::trust::member::Member { id, ..founder.clone() });
    }
    view.generation = Generation(generation);
    view
}

/// A member that enforces this generation and knows its leader.
fn keeper(enforced: u64) -> LeaseKeeper {
    let mut keeper = LeaseKeeper::default();
    keeper.handle_enforced(Generation(enforced));
    keeper.handle_length(TEN);
    keeper.handle_leader(Some(LEADER));
    keeper
}
