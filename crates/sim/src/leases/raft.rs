//! Raft in small (Ongaro and Ousterhout, USENIX ATC 2014): elections, a replicated log, one change of voters at a
//! time, and rounds by which a leader learns that it still leads. So that a deposed leader that does not know is a
//! real one here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::group::GroupMembers;
use countersign_core::id::NodeId;
use countersign_core::trust::command::{Command, Evict, Stamped};

use crate::rng::Rng;

/// Milliseconds from one heartbeat to the next, and those of silence after which a voter stands for election.
const HEARTBEAT: u64 = 100;
const ELECTION: u64 = 400;
/// Entries that one message carries.
const BATCH_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    Blank,
    Voters(BTreeSet<NodeId>),
    Command(Box<Stamped>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) payload: Payload,
}

#[derive(Debug, Clone)]
pub(crate) enum RaftMessage {
    Vote {
        term: u64,
        last_term: u64,
        len: usize,
    },
    Voted {
        term: u64,
    },
    Append {
        term: u64,
        prev: usize,
        prev_term: u64,
        entries: Vec<Arc<Entry>>,
        committed: usize,
        round: u64,
    },
    /// How much of the leader's log it has, or where to try again.
    Appended {
        term: u64,
        matched: Result<usize, usize>,
        round: u64,
    },
}

impl RaftMessage {
    pub(crate) const fn term(&self) -> u64 {
        match self {
            Self::Vote { term, .. }
            | Self::Voted { term }
            | Self::Append { term, .. }
            | Self::Appended { term, .. } => *term,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Follower {
    next: usize,
    matched: usize,
    round: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Role {
    Follower,
    Candidate(BTreeSet<NodeId>),
    Leader { followers: BTreeMap<NodeId, Follower>, round: u64, beat: u64 },
}

#[derive(Debug, Clone)]
pub(crate) struct Raft {
    pub(crate) me: NodeId,
    // Durable, like the index of what is known to be committed.
    pub(crate) term: u64,
    voted: Option<NodeId>,
    pub(crate) log: Vec<Arc<Entry>>,
    // Lost with the process.
    pub(crate) committed: usize,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    /// When to stand for election, by this host's clock.
    due: u64,
    /// The members that an entry of the log evicts, committed or not.
    pub(crate) evicts: BTreeSet<NodeId>,
}

pub(crate) type Sends = Vec<(NodeId, RaftMessage)>;

impl Raft {
    pub(crate) fn new(me: NodeId, log: Vec<Arc<Entry>>) -> Self {
        let committed = log.len();
        let role = Role::Follower;
        Self { me, term: 1, voted: None, log, committed, role, leader: None, due: 0, evicts: BTreeSet::new() }
    }

    /// What is left after a crash.
    pub(crate) fn restart(&mut self, committed: usize, now: u64, rng: &mut Rng) {
        (self.role, self.leader, self.committed) = (Role::Follower, None, committed);
        self.put_off(now, rng);
    }

    pub(crate) fn put_off(&mut self, now: u64, rng: &mut Rng) {
        self.due = now + ELECTION + rng.below(ELECTION);
    }

    /// Gives leadership up, and lets others go first for `millis`.
    pub(crate) fn stand_back(&mut self, now: u64, millis: u64) {
        (self.role, self.leader) = (Role::Follower, None);
        self.due = now + millis;
    }

    pub(crate) const fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    /// The voters of the last entry that names some, committed or not, and its place.
    pub(crate) fn voters(&self) -> (usize, BTreeSet<NodeId>) {
        let last = self.log.iter().enumerate().rev().find_map(|(at, entry)| match &entry.payload {
            Payload::Voters(voters) => Some((at, voters.clone())),
            _ => None,
        });
        last.unwrap_or_default()
    }

    /// The members by the first `len` entries.
    pub(crate) fn members_at(&self, len: usize) -> GroupMembers {
        let last = self.log.iter().take(len).rev().find_map(|entry| match &entry.payload {
            Payload::Voters(voters) => Some(voters.clone()),
            Payload::Blank | Payload::Command(_) => None,
        });
        GroupMembers { voters: last.unwrap_or_default(), learners: BTreeSet::new() }
    }

    /// How much of the leader's log each follower is known to have.
    pub(crate) fn matched(&self) -> BTreeMap<NodeId, u64> {
        let Role::Leader { followers, .. } = &self.role else { return BTreeMap::new() };
        followers.iter().map(|(id, follower)| (*id, follower.matched as u64)).collect()
    }

    fn term_at(&self, len: usize) -> u64 {
        len.checked_sub(1).and_then(|at| self.log.get(at)).map_or(0, |entry| entry.term)
    }

    fn follow(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.voted) = (term, None);
            (self.role, self.leader) = (Role::Follower, None);
        }
    }

    /// As time passes: stands for election, or sends heartbeats to `members`.
    pub(crate) fn tick(&mut self, now: u64, rng: &mut Rng, members: &BTreeSet<NodeId>) -> Sends {
        if let Role::Leader { beat, .. } = &self.role {
            return if now >= *beat + HEARTBEAT { self.broadcast(now, members) } else { Vec::new() };
        }
        let (_, voters) = self.voters();
        if now < self.due || !voters.contains(&self.me) {
            return Vec::new();
        }
        self.put_off(now, rng);
        self.term += 1;
        (self.voted, self.leader) = (Some(self.me), None);
        self.role = Role::Candidate(BTreeSet::from([self.me]));
        self.count_votes();
        let (term, last_term, len) = (self.term, self.term_at(self.log.len()), self.log.len());
        let others = voters.into_iter().filter(|id| *id != self.me);
        others.map(|id| (id, RaftMessage::Vote { term, last_term, len })).collect()
    }

    /// One round: each follower gets what it lacks, and confirms this leader by answering.
    pub(crate) fn broadcast(&mut self, now: u64, members: &BTreeSet<NodeId>) -> Sends {
        let (term, committed, len) = (self.term, self.committed, self.log.len());
        let Role::Leader { followers, round, beat } = &mut self.role else { return Vec::new() };
        (*round, *beat) = (*round + 1, now);
        let mut sends = Vec::new();
        for id in members.iter().filter(|id| **id != self.me) {
            let follower = followers.entry(*id).or_insert_with(|| Follower { next: len, ..Follower::default() });
            let prev = follower.next.min(len);
            let prev_term = prev.checked_sub(1).and_then(|at| self.log.get(at)).map_or(0, |entry| entry.term);
            let entries = self.log.iter().skip(prev).take(BATCH_MAX).cloned().collect();
            sends.push((*id, RaftMessage::Append { term, prev, prev_term, entries, committed, round: *round }));
        }
        sends
    }

    /// The round by which this leader will be confirmed, if it begins after now.
    pub(crate) const fn next_round(&self) -> u64 {
        match &self.role {
            Role::Leader { round, .. } => *round + 1,
            _ => u64::MAX,
        }
    }

    /// Whether a majority has confirmed this leader in `round` or later, and all before its term is known to be
    /// committed.
    pub(crate) fn is_confirmed(&self, round: u64) -> bool {
        let Role::Leader { followers, round: begun, .. } = &self.role else { return false };
        let (_, voters) = self.voters();
        let confirmed = |id: &&NodeId| **id == self.me || followers.get(id).is_some_and(|f| f.round >= round);
        *begun >= round
            && 2 * voters.iter().filter(confirmed).count() > voters.len()
            && self.term_at(self.committed) == self.term
    }

    pub(crate) fn append(&mut self, payload: Payload) {
        let entry = Arc::new(Entry { term: self.term, payload });
        self.note_evictions(core::slice::from_ref(&entry));
        self.log.push(entry);
        self.advance();
    }

    fn note_evictions(&mut self, entries: &[Arc<Entry>]) {
        self.evicts.extend(entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Command(stamped) => match &stamped.command {
                Command::Evict(Evict { node, .. }) => Some(*node),
                _ => None,
            },
            _ => None,
        }));
    }

    fn count_votes(&mut self) {
        let (_, voters) = self.voters();
        let Role::Candidate(votes) = &self.role else { return };
        if 2 * votes.intersection(&voters).count() > voters.len() {
            self.role = Role::Leader { followers: BTreeMap::new(), round: 0, beat: 0 };
            self.leader = Some(self.me);
            self.append(Payload::Blank);
        }
    }

    /// Commits what a majority has, once an entry of this term is among it.
    fn advance(&mut self) {
        let (_, voters) = self.voters();
        let Role::Leader { followers, .. } = &self.role else { return };
        let has =
            |id: &NodeId| if *id == self.me { self.log.len() } else { followers.get(id).map_or(0, |f| f.matched) };
        let mut lens: Vec<usize> = voters.iter().map(has).collect();
        lens.sort_unstable();
        let most = lens.get(lens.len().saturating_sub(1) / 2).copied().unwrap_or(0);
        if most > self.committed && self.term_at(most) == self.term {
            self.committed = most;
        }
    }

    /// Takes in a message of `from`; what it promises is durable before the answers are sent.
    pub(crate) fn handle(&mut self, from: NodeId, message: RaftMessage, now: u64, rng: &mut Rng) -> Sends {
        self.follow(message.term());
        let current = message.term() == self.term;
        match message {
            RaftMessage::Vote { last_term, len, .. } => {
                let upto = (last_term, len) >= (self.term_at(self.log.len()), self.log.len());
                let free = self.voted.is_none_or(|voted| voted == from) && matches!(self.role, Role::Follower);
                if !(current && upto && free) {
                    return Vec::new();
                }
                self.voted = Some(from);
                self.put_off(now, rng);
                vec![(from, RaftMessage::Voted { term: self.term })]
            }
            RaftMessage::Voted { .. } if current => {
                if let Role::Candidate(votes) = &mut self.role {
                    votes.insert(from);
                    self.count_votes();
                }
                Vec::new()
            }
            RaftMessage::Append { prev, prev_term, entries, committed, round, .. } if current && !self.leads() => {
                (self.role, self.leader) = (Role::Follower, Some(from));
                self.put_off(now, rng);
                let matched = self.take(prev, prev_term, entries, committed);
                vec![(from, RaftMessage::Appended { term: self.term, matched, round })]
            }
            RaftMessage::Append { .. } => {
                let again = RaftMessage::Appended { term: self.term, matched: Err(self.log.len()), round: 0 };
                if current { Vec::new() } else { vec![(from, again)] }
            }
            RaftMessage::Appended { matched, round, .. } if current => {
                let Role::Leader { followers, .. } = &mut self.role else { return Vec::new() };
                let follower = followers.entry(from).or_default();
                follower.round = follower.round.max(round);
                match matched {
                    Ok(len) => {
                        follower.matched = follower.matched.max(len);
                        follower.next = follower.next.max(len);
                    }
                    Err(next) => follower.next = next.min(follower.next).max(follower.matched),
                }
                self.advance();
                Vec::new()
            }
            RaftMessage::Voted { .. } | RaftMessage::Appended { .. } => Vec::new(),
        }
    }

    fn take(
        &mut self,
        prev: usize,
        prev_term: u64,
        entries: Vec<Arc<Entry>>,
        committed: usize,
    ) -> Result<usize, usize> {
        if prev > self.log.len() || self.term_at(prev) != prev_term {
            // What is committed agrees, so that a follower that led alone for long is not gone through entry by entry.
            return Err(prev.saturating_sub(1).min(self.committed));
        }
        let len = prev + entries.len();
        for (at, entry) in entries.into_iter().enumerate() {
            let at = prev + at;
            match self.log.get(at) {
                Some(have) if have.term == entry.term => {}
                have => {
                    if have.is_some() {
                        self.log.truncate(at);
                        self.evicts.clear();
                        let log = core::mem::take(&mut self.log);
                        self.note_evictions(&log);
                        self.log = log;
                    }
                    self.note_evictions(core::slice::from_ref(&entry));
                    self.log.push(entry);
                }
            }
        }
        self.committed = self.committed.max(committed.min(len));
        Ok(len)
    }
}
