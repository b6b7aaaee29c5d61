//! The order of an eviction: leadership moves away from the victim, it leaves the voters of every group, its eviction
//! is committed. Members refuse it from the moment that the eviction is in their log.
//!
//! Raft is abstract: of each group's log only how many entries of the eviction's plan a member has, a candidate needs a
//! quorum of its own configuration none of which has more, and an entry commits when a quorum has it. A configuration
//! counts as soon as it is in the log; a joint one needs a majority of both sets (Raft, section 6).

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::group::GroupMembers;
use countersign_core::id::{NodeId, RequestId};
use countersign_core::member::membership::{GroupProgress, Step, can_remove, next_step};
use countersign_core::time::UnixMillis;
use countersign_core::trust::TrustState;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::{Command, Evict, FEATURE_LEVEL, Stamped};
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_sim::eviction_begun;

/// An entry of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Joint,
    Removed,
    Evicted,
}

/// Groups that the victim votes in; the first holds the record of who is evicted.
pub(crate) const GROUPS: usize = 2;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The eviction comes before the removal from the voters.
    EvictsFirst,
    /// The eviction waits for the first group only.
    ForgetsGroup,
    /// The removal begins although a majority of those that remain cannot be reached.
    RemovesBlindly,
    /// The last voter is removed too.
    RemovesTheLast,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub(crate) leader: Option<usize>,
    /// How many entries of the plan each member has.
    pub(crate) has: Vec<usize>,
    pub(crate) committed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    pub(crate) up: Vec<bool>,
    pub(crate) groups: Vec<Group>,
}

/// How many voters there are; the last one is the victim.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) voters: usize,
    pub(crate) fault: Option<Fault>,
    /// The voters that core has begin the removal while they lead.
    removes: BTreeSet<usize>,
    /// Whether core takes the eviction while Raft counts the victim's vote. The command then evicts first.
    evicts_voter: bool,
    /// The same once it does not.
    evicts_learner: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Crash(usize),
    Start(usize),
    Elect {
        group: usize,
        candidate: usize,
    },
    /// The victim hands its leadership over.
    StepDown {
        group: usize,
    },
    Replicate {
        group: usize,
        to: usize,
    },
    Commit {
        group: usize,
    },
    /// The command, run for the first time or again, does the next thing that the state asks for.
    Propose {
        group: usize,
    },
}

fn node(number: usize) -> NodeId {
    NodeId(number as u64 + 1)
}

fn nodes(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(node).collect()
}

/// Whether core has `leader` take the victim, the last of so many voters, out of them.
fn removes(state: &TrustState, voters: usize, leader: usize) -> bool {
    let members = GroupMembers { voters: nodes(0..voters), learners: BTreeSet::new() };
    let group = GroupProgress { members, matched: BTreeMap::new(), last_log: 0 };
    next_step(state, &group, node(leader)) == Some(Step::SetVoters(nodes(0..voters - 1)))
}

/// Whether core takes the eviction of `victim` while these vote.
fn evicts(state: &TrustState, victim: usize, voters: BTreeSet<NodeId>) -> bool {
    let command = Command::Evict(Evict { node: node(victim), compromised: false, keep_authority: true });
    let author = Claim::of_member(node(0), RequestId([0; 16])).taken_by(node(0), &command);
    let stamped = Stamped { level: FEATURE_LEVEL, time: UnixMillis::from_secs(1_800_000_000), author, command };
    match state.clone().apply(&stamped, &GroupMembers { voters, learners: BTreeSet::new() }) {
        Ok(Outcome::Evicted { .. }) => true,
        Ok(Outcome::Refused(Refused::StillVotes(_) | Refused::LastVoter(_))) => false,
        other => panic!("{other:?}"),
    }
}

impl Scope {
    pub(crate) fn new(voters: usize, fault: Option<Fault>) -> Self {
        let (state, victim) = (eviction_begun(voters as u64).unwrap(), voters - 1);
        let removes = (0..voters).filter(|leader| removes(&state, voters, *leader)).collect();
        let evicts_voter = evicts(&state, victim, nodes(0..voters)) || fault == Some(Fault::EvictsFirst);
        let evicts_learner = evicts(&state, victim, nodes(0..victim));
        Self { voters, fault, removes, evicts_voter, evicts_learner }
    }

    pub(crate) fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn victim(&self) -> usize {
        self.voters - 1
    }

    pub(crate) fn plan(&self, group: usize) -> &'static [Entry] {
        match group {
            0 if self.evicts_voter => &[Entry::Evicted, Entry::Joint, Entry::Removed],
            0 => &[Entry::Joint, Entry::Removed, Entry::Evicted],
            _ => &[Entry::Joint, Entry::Removed],
        }
    }

    fn entries(&self, group: usize, has: usize) -> &'static [Entry] {
        &self.plan(group)[..has]
    }

    /// The sets of voters of which each must give a majority, for a member that has so many entries.
    pub(crate) fn sets(&self, group: usize, has: usize) -> Vec<BTreeSet<usize>> {
        let old: BTreeSet<usize> = (0..self.voters).collect();
        let rest = (0..self.victim()).collect();
        match self.entries(group, has) {
            entries if entries.contains(&Entry::Removed) => vec![rest],
            entries if entries.contains(&Entry::Joint) => vec![old, rest],
            _ => vec![old],
        }
    }

    pub(crate) fn is_quorum(&self, group: usize, has: usize, of: &BTreeSet<usize>) -> bool {
        self.sets(group, has).iter().all(|set| 2 * set.intersection(of).count() > set.len())
    }

    pub(crate) fn begin(&self) -> Vec<Cluster> {
        let group = |leader| Group { leader: Some(leader), has: vec![0; self.voters], committed: 0 };
        let cluster = |leader| Cluster { up: vec![true; self.voters], groups: vec![group(leader); GROUPS] };
        vec![cluster(0), cluster(self.victim())]
    }

    /// Whether this member refuses the victim.
    pub(crate) fn refuses(&self, cluster: &Cluster, member: usize) -> bool {
        member != self.victim() && self.entries(0, cluster.groups[0].has[member]).contains(&Entry::Evicted)
    }

    fn linked(&self, cluster: &Cluster, a: usize, b: usize) -> bool {
        let cut = |x, y| x == self.victim() && x != y && self.refuses(cluster, y);
        cluster.up[a] && cluster.up[b] && !cut(a, b) && !cut(b, a)
    }

    fn reach(&self, cluster: &Cluster, from: usize, also: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        (0..self.voters).filter(|to| self.linked(cluster, from, *to) && also(*to)).collect()
    }

    pub(crate) fn is_evicted(&self, cluster: &Cluster) -> bool {
        (0..GROUPS).all(|g| cluster.groups[g].committed == self.plan(g).len())
    }

    fn may_propose(&self, cluster: &Cluster, group: usize) -> bool {
        let Group { leader: Some(leader), has, committed } = &cluster.groups[group] else { return false };
        if (*leader == self.victim() && !self.breaks(Fault::RemovesTheLast))
            || !cluster.up[*leader]
            || has[*leader] != *committed
        {
            return false;
        }
        let removed = |g: usize| self.entries(g, cluster.groups[g].committed).contains(&Entry::Removed);
        match self.plan(group).get(*committed) {
            None => false,
            Some(Entry::Joint) => {
                let reached = nodes(self.reach(cluster, *leader, |_| true));
                let reaches = can_remove(&nodes(0..self.voters), node(self.victim()), &reached);
                let begins = self.removes.contains(leader) && (reaches || self.breaks(Fault::RemovesBlindly));
                begins || self.breaks(Fault::RemovesTheLast)
            }
            Some(Entry::Removed) => true,
            Some(Entry::Evicted) => {
                let takes = if removed(0) { self.evicts_learner } else { self.evicts_voter };
                takes && (self.evicts_voter || self.breaks(Fault::ForgetsGroup) || (1..GROUPS).all(removed))
            }
        }
    }

    /// The cluster after `event`, if it can happen.
    pub(crate) fn after(&self, before: &Cluster, event: Event) -> Option<Cluster> {
        let mut next = before.clone();
        match event {
            Event::Crash(node) => {
                next.up[node] = false;
                next.groups.iter_mut().filter(|g| g.leader == Some(node)).for_each(|g| g.leader = None);
            }
            Event::Start(node) => next.up[node] = true,
            Event::Elect { group, candidate } => {
                let has = &before.groups[group].has;
                let votes = self.reach(before, candidate, |to| has[to] <= has[candidate]);
                let votes_itself = self.sets(group, has[candidate]).iter().any(|set| set.contains(&candidate));
                (votes_itself && self.is_quorum(group, has[candidate], &votes)).then_some(())?;
                next.groups[group].leader = Some(candidate);
            }
            Event::StepDown { group } => {
                (before.groups[group].leader == Some(self.victim())).then_some(())?;
                next.groups[group].leader = None;
            }
            Event::Replicate { group, to } => {
                let leader = before.groups[group].leader?;
                self.linked(before, leader, to).then_some(())?;
                next.groups[group].has[to] = before.groups[group].has[leader];
            }
            Event::Commit { group } => {
                let Group { leader, has, .. } = &before.groups[group];
                let last = has[(*leader)?];
                let holders = self.reach(before, (*leader)?, |to| has[to] >= last);
                self.is_quorum(group, last, &holders).then_some(())?;
                next.groups[group].committed = last;
            }
            Event::Propose { group } => {
                self.may_propose(before, group).then_some(())?;
                let leader = before.groups[group].leader?;
                next.groups[group].has[leader] += 1;
            }
        }
        (next != *before).then_some(next)
    }

    /// The same cluster with its members but the victim in one order: which of them is which decides nothing.
    pub(crate) fn ordered(&self, cluster: &Cluster) -> Cluster {
        let key = |node: &usize| {
            let of = |g: &Group| (g.has[*node], g.leader == Some(*node));
            (cluster.up[*node], cluster.groups.iter().map(of).collect::<Vec<_>>())
        };
        let mut order: Vec<usize> = (0..self.victim()).collect();
        order.sort_by_key(key);
        order.push(self.victim());
        let group = |g: &Group| Group {
            leader: g.leader.and_then(|leader| order.iter().position(|node| *node == leader)),
            has: order.iter().map(|node| g.has[*node]).collect(),
            committed: g.committed,
        };
        Cluster {
            up: order.iter().map(|node| cluster.up[*node]).collect(),
            groups: cluster.groups.iter().map(group).collect(),
        }
    }

    pub(crate) fn events(&self, cluster: &Cluster, events: &mut Vec<Event>) {
        for node in 0..self.voters {
            events.push(if cluster.up[node] { Event::Crash(node) } else { Event::Start(node) });
        }
        for group in 0..GROUPS {
            events.extend([Event::StepDown { group }, Event::Commit { group }, Event::Propose { group }]);
            events.extend((0..self.voters).map(|candidate| Event::Elect { group, candidate }));
            events.extend((0..self.voters).map(|to| Event::Replicate { group, to }));
        }
    }

    /// Whether the members that are up can commit in every group as they are: one is elected, and what it has commits.
    pub(crate) fn can_commit(&self, cluster: &Cluster) -> bool {
        (0..GROUPS).all(|group| self.led(cluster, group, 0..self.voters).is_some())
    }

    fn led(&self, cluster: &Cluster, group: usize, by: std::ops::Range<usize>) -> Option<Cluster> {
        by.filter_map(|candidate| {
            let mut next = cluster.clone();
            next.groups[group].leader = None;
            next = self.after(&next, Event::Elect { group, candidate })?;
            for to in 0..self.voters {
                next = self.after(&next, Event::Replicate { group, to }).unwrap_or(next);
            }
            next = self.after(&next, Event::Commit { group }).unwrap_or(next);
            (next.groups[group].committed == next.groups[group].has[candidate]).then_some(next)
        })
        .next()
    }

    /// Whether the same command, run now, finishes while no member crashes or starts: a witness, found greedily.
    pub(crate) fn can_finish(&self, cluster: &Cluster) -> bool {
        let mut now = cluster.clone();
        for _ in 0..=self.plan(0).len() {
            for group in (0..GROUPS).rev() {
                let Some(next) = self.led(&now, group, 0..self.victim()) else { return false };
                now = self.after(&next, Event::Propose { group }).unwrap_or(next);
            }
        }
        self.is_evicted(&now)
    }
}
