//! Every reachable state of an eviction: no crash in the middle of it leaves a cluster that cannot go on. No member is
//! refused while a quorum may need it. A member that was away does not believe a member that the others evicted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod order;
mod view;

use std::collections::BTreeSet;

use order::{Cluster, Entry, Fault, GROUPS};
use stateright::{Checker, Model, Property};

const GOES_ON: &str = "a majority of the voters that are not evicted goes on";
const FINISHES: &str = "with every voter but the victim up, the command finishes";
const NO_VOTER_CUT_OFF: &str = "no member that votes in a group is refused";
const UNTOUCHED: &str = "before the removal begins, any quorum goes on";
const NOT_STOPPED: &str = "no step of the command stops a cluster that could go on";
const A_VOTER: &str = "a voter remains";
const EVICTED: &str = "the victim is evicted";
const KEPT: &str = "what is committed is kept";

fn up(cluster: &Cluster) -> BTreeSet<usize> {
    (0..cluster.up.len()).filter(|node| cluster.up[*node]).collect()
}

/// What no longer holds without the rule.
fn broken_by(fault: Fault) -> &'static str {
    match fault {
        Fault::EvictsFirst | Fault::ForgetsGroup => GOES_ON,
        Fault::RemovesBlindly => NOT_STOPPED,
        Fault::RemovesTheLast => A_VOTER,
    }
}

/// Some member refuses the victim.
fn refused(scope: &order::Scope, cluster: &Cluster) -> bool {
    (0..scope.voters).any(|member| scope.refuses(cluster, member))
}

impl Model for order::Scope {
    type State = Cluster;
    type Action = order::Event;

    fn init_states(&self) -> Vec<Cluster> {
        self.begin().iter().map(|cluster| self.ordered(cluster)).collect()
    }

    fn actions(&self, cluster: &Cluster, events: &mut Vec<order::Event>) {
        self.events(cluster, events);
    }

    fn next_state(&self, cluster: &Cluster, event: order::Event) -> Option<Cluster> {
        Some(self.ordered(&self.after(cluster, event)?)).filter(|next| next != cluster)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(GOES_ON, |scope: &Self, cluster: &Cluster| {
                let rest = (0..scope.victim()).filter(|node| cluster.up[*node]).count();
                !refused(scope, cluster) || 2 * rest <= scope.victim() || scope.can_commit(cluster)
            }),
            Property::always(FINISHES, |scope: &Self, cluster: &Cluster| {
                let all = (0..scope.victim()).all(|node| cluster.up[node]);
                let quorum = (0..GROUPS).all(|g| scope.is_quorum(g, cluster.groups[g].committed, &up(cluster)));
                scope.voters == 1 || !all || !quorum || scope.can_finish(cluster)
            }),
            Property::always(NO_VOTER_CUT_OFF, |scope: &Self, cluster: &Cluster| {
                let votes = |g: usize| !scope.plan(g)[..cluster.groups[g].committed].contains(&Entry::Removed);
                !refused(scope, cluster) || !(0..GROUPS).any(votes)
            }),
            Property::always(UNTOUCHED, |scope: &Self, cluster: &Cluster| {
                let begun = |g: usize| cluster.groups[g].has.iter().any(|has| *has > 0);
                (0..GROUPS).any(begun) || !scope.is_quorum(0, 0, &up(cluster)) || scope.can_commit(cluster)
            }),
            Property::always(NOT_STOPPED, |scope: &Self, cluster: &Cluster| {
                let step = |group: usize| scope.after(cluster, order::Event::Propose { group });
                let steps: Vec<Cluster> = (0..GROUPS).filter_map(step).collect();
                steps.is_empty() || !scope.can_commit(cluster) || steps.iter().all(|next| scope.can_commit(next))
            }),
            Property::always(A_VOTER, |scope: &Self, cluster: &Cluster| {
                let sets = |g: usize| cluster.groups[g].has.iter().flat_map(move |has| scope.sets(g, *has));
                (0..GROUPS).flat_map(sets).all(|set| !set.is_empty())
            }),
            Property::always(KEPT, |_: &Self, cluster: &Cluster| {
                cluster.groups.iter().all(|g| g.leader.is_none_or(|leader| g.has[leader] >= g.committed))
            }),
            Property::sometimes(EVICTED, |scope: &Self, cluster: &Cluster| scope.is_evicted(cluster)),
        ];
        // A broken order is searched for one thing only, so that what is found is shortest.
        if let Some(fault) = self.fault {
            properties.retain(|property| property.name == broken_by(fault));
        }
        properties
    }
}

impl Model for view::Scope {
    type State = view::Views;
    type Action = view::Event;

    fn init_states(&self) -> Vec<view::Views> {
        vec![self.begin()]
    }

    fn actions(&self, views: &view::Views, events: &mut Vec<view::Event>) {
        self.events(views, events);
    }

    fn next_state(&self, views: &view::Views, event: view::Event) -> Option<view::Views> {
        self.after(views, event)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BELIEVED, |_: &Self, views: &view::Views| !views.captured),
            Property::sometimes("a member is behind", |scope: &Self, views: &view::Views| {
                views.newest == scope.evictions && views.knows.iter().any(|knows| *knows < views.newest)
            }),
        ]
    }
}

const BELIEVED: &str = "no member that was away believes one that is evicted";

fn check<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Send + Sync + Clone + PartialEq + std::fmt::Debug + 'static,
    M::Action: Clone + PartialEq + std::fmt::Debug,
{
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn an_eviction_leaves_no_cluster_that_cannot_go_on() {
    for voters in 2..=4 {
        check(&format!("{voters} voters"), order::Scope::new(voters, None));
    }
}

#[test]
fn the_last_voter_stays() {
    let checker = order::Scope::new(1, None).checker().spawn_bfs().join();
    assert!(checker.discovery(A_VOTER).is_none() && checker.discovery(EVICTED).is_none());
}

#[test]
fn each_rule_of_the_order_left_out_is_missed() {
    for (voters, fault) in
        [(4, Fault::EvictsFirst), (4, Fault::ForgetsGroup), (3, Fault::RemovesBlindly), (1, Fault::RemovesTheLast)]
    {
        let found = order::Scope::new(voters, Some(fault)).checker().spawn_bfs().join();
        let Some(path) = found.discovery(broken_by(fault)) else { panic!("{fault:?} goes unnoticed") };
        println!("{fault:?}: {} states: {:?}", found.unique_state_count(), path.into_actions());
    }
}

const RULES: view::Scope = view::Scope { voters: 5, evictions: 2, asks: true, again: true, waits: true };

#[test]
fn member_that_was_away_believes_no_evicted_member() {
    for (voters, evictions) in [(3, 1), (4, 1), (5, 1), (4, 2), (5, 2)] {
        let scope = view::Scope { voters, evictions, ..RULES };
        check(&format!("{evictions} of {voters} voters evicted"), scope);
    }
}

#[test]
fn each_rule_of_asking_left_out_is_missed() {
    let asks = view::Scope { voters: 3, evictions: 1, asks: false, ..RULES };
    let again = view::Scope { again: false, ..RULES };
    let waits = view::Scope { waits: false, ..RULES };
    // Nothing helps where a majority of those that it knew lies.
    let most = view::Scope { voters: 3, ..RULES };
    for scope in [asks, again, waits, most] {
        let found = scope.checker().spawn_bfs().join();
        let Some(path) = found.discovery(BELIEVED) else { panic!("{scope:?} goes unnoticed") };
        println!("{scope:?}: {:?}", path.into_actions());
    }
}
