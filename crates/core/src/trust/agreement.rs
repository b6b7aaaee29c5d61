//! Whether the members' states agree, decided by a leader from the digests that members say.
//!
//! A learner whose state differs from the leader's gets no lease. If the states of two voters differ, the digests do
//! not say which one is right. The leader raises an alarm and grants no lease at all, until an operator has put one of
//! them in quarantine or has returned it with a new store. A voter that lies can stop the cluster in this way, and can
//! never open it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::digest::{DigestAt, Digests};
use super::member::Suffrage;
use super::view::View;
use crate::id::{KeyId, NodeId, StateDigest, StoreId};
use crate::limits::{DIGEST_EVERY, REVOCATIONS_COMPARED_MAX, REVOCATIONS_LISTED_MAX, REVOCATIONS_PAGE_MIN, VOTERS_MAX};
use crate::principal::Role;

/// What a member said of its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Said {
    /// The store that the state is in. A member that returned with another store is compared again.
    pub store: StoreId,
    /// The digest.
    pub digest: StateDigest,
}

/// What members said of their states at an index where not all said the same.
pub type Disagreement = BTreeMap<NodeId, Said>;

/// Voters' states differ: what the leader found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who said what, by index of the log: only voters that count, and only indexes at which they differ.
    pub disagreements: BTreeMap<u64, Disagreement>,
    /// Voters that hold committed entries which the leader's log lacks.
    pub conflicts: BTreeSet<NodeId>,
    /// Revocations that some of these voters hold and others lack, at most [`REVOCATIONS_LISTED_MAX`].
    pub uneven: BTreeMap<Revocation, Uneven>,
    /// How many more revocations are held unevenly.
    pub unlisted: u64,
    /// Voters that did not say which revocations they hold.
    pub unheard: BTreeSet<NodeId>,
}

/// Something that is refused for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Revocation {
    /// A member that was evicted.
    Member(NodeId),
    /// A key.
    Key(KeyId),
    /// A principal.
    Principal(Role),
}

impl core::fmt::Display for Revocation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Member(node) => write!(f, "eviction of node {node}"),
            Self::Key(key) => write!(f, "revocation of key {key}"),
            Self::Principal(role) => write!(f, "revocation of {role}"),
        }
    }
}

/// Who holds a revocation and who does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uneven {
    /// Voters that hold it.
    pub held_by: BTreeSet<NodeId>,
    /// Voters that lack it.
    pub lacked_by: BTreeSet<NodeId>,
}

/// A member of the cluster, by number and store.
pub type Speaker = (NodeId, StoreId);

/// A member that compares, with what it compares by.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// Itself.
    pub me: Speaker,
    /// The digests of its own state.
    pub own: &'a Digests,
    /// The index of the last entry that it has applied.
    pub applied: u64,
    /// The members, by its own state.
    pub view: &'a View,
}

/// What a comparison found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing that was not known.
    None,
    /// What is known of the voters has changed.
    Voters,
    /// The state of a learner differs that did not before.
    Learner,
}

/// The disagreements that this member knows of. A leader finds them. Voters keep those that their leader knows, over
/// restarts, and tell the next leader, so that it does not begin by granting leases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Between voters: never more than [`VOTERS_MAX`] words for each index, and as many indexes.
    disagreements: BTreeMap<u64, Disagreement>,
    /// Learners that differ from this member: what it said and what they said.
    #[serde(skip)]
    learners: BTreeMap<NodeId, (u64, Said, Said)>,
    /// Up to which index a voter has agreed with this member, so that older words of it are known to be over.
    #[serde(skip)]
    agreed: BTreeMap<NodeId, (StoreId, u64)>,
}

impl Judge<'_> {
    /// Whether `said` is the word of a voter, of the store on record.
    fn counts(&self, node: NodeId, said: &Said) -> bool {
        self.is_voter(node, said.store)
    }

    /// Whether a member votes and this is its store, by the judge's own state.
    pub fn is_voter(&self, node: NodeId, store: StoreId) -> bool {
        let member = self.view.members.get(&node).filter(|member| member.store == store);
        member.is_some_and(|member| member.suffrage == Suffrage::Voter)
    }
}

impl Agreement {
    /// Compares what `speaker` said with the judge's own digests.
    ///
    /// An index at which there is no own digest proves nothing, either way.
    pub fn compare(&mut self, by: Judge<'_>, speaker: Speaker, said: DigestAt) -> News {
        let before = self.disagreements.clone();
        let (node, store) = speaker;
        let theirs = Said { store, digest: said.digest };
        let news = match by.own.at(said.index) {
            None => News::None,
            Some(ours) if by.counts(node, &theirs) => {
                self.learners.remove(&node);
                self.compare_voter(by, (node, theirs), (said.index, ours));
                News::None
            }
            Some(ours) if ours == said.digest => {
                self.learners.remove(&node);
                News::None
            }
            Some(ours) => {
                let word = (said.index, Said { store: by.me.1, digest: ours }, theirs);
                let known = self.learners.insert(node, word).is_some_and(|(_, _, before)| before.store == store);
                if known { News::None } else { News::Learner }
            }
        };
        self.refresh(by);
        if self.disagreements == before { news } else { News::Voters }
    }

    fn compare_voter(&mut self, by: Judge<'_>, (node, theirs): (NodeId, Said), (index, ours): (u64, StateDigest)) {
        let mut later = self.disagreements.range(index.saturating_add(1)..);
        let differs = |(index, words): (&u64, &Disagreement)| {
            words.get(&node).is_some_and(|word| word.store == theirs.store && by.own.at(*index) != Some(word.digest))
        };
        if later.any(differs) {
            return; // what it says of an earlier index takes nothing back
        }
        for (_, words) in self.disagreements.range_mut(..index) {
            words.remove(&node);
        }
        let agrees = ours == theirs.digest;
        if agrees {
            self.agreed.insert(node, (theirs.store, index));
            // Where others differ at this index, the report shows which members agree.
            if let Some(words) = self.disagreements.get_mut(&index) {
                words.insert(node, theirs);
            }
        } else {
            let words = self.disagreements.entry(index).or_default();
            words.insert(node, theirs);
            words.insert(by.me.0, Said { store: by.me.1, digest: ours });
        }
    }

    /// Takes in what another member knows. Of its words only those count that a voter may have said: at an index that
    /// was digested and is applied here, of a store on record, and not taken back since.
    pub fn merge(&mut self, by: Judge<'_>, known: &Report) -> News {
        let before = self.disagreements.clone();
        let over = |node: &NodeId, store: StoreId, index: u64| {
            self.agreed.get(node).is_some_and(|(of, upto)| *of == store && index <= *upto)
        };
        let at = |index: &u64| index.is_multiple_of(DIGEST_EVERY) && *index <= by.applied;
        let words = known.disagreements.iter().rev().filter(|(index, _)| at(index)).take(VOTERS_MAX);
        let words: Vec<(u64, NodeId, Said)> = words
            .flat_map(|(index, words)| words.iter().map(|(node, said)| (*index, *node, *said)))
            .filter(|(index, node, said)| by.counts(*node, said) && !over(node, said.store, *index))
            .collect();
        for (index, node, said) in words {
            self.disagreements.entry(index).or_default().entry(node).or_insert(said);
        }
        self.refresh(by);
        if self.disagreements == before { News::None } else { News::Voters }
    }

    /// Takes what the leader knows in place of what was known. Returns true if that has changed.
    pub fn follow(&mut self, by: Judge<'_>, leader: &Report) -> bool {
        let before = core::mem::take(&mut self.disagreements);
        self.merge(by, leader);
        self.disagreements != before
    }

    /// Forgets words that do not count any more, puts this member's own digests in place of what it said before, and
    /// forgets indexes at which all members agree.
    pub fn refresh(&mut self, by: Judge<'_>) {
        for (index, words) in &mut self.disagreements {
            words.retain(|node, said| by.counts(*node, said));
            if let (Some(word), Some(digest)) = (words.get_mut(&by.me.0), by.own.at(*index)) {
                word.digest = digest;
            }
        }
        self.disagreements.retain(|_, words| differ(words));
        while self.disagreements.len() > VOTERS_MAX {
            self.disagreements.pop_first();
        }
        let recorded = |node: &NodeId| by.view.members.get(node);
        self.learners.retain(|node, (_, _, theirs)| {
            recorded(node).is_some_and(|member| member.suffrage == Suffrage::Learner && member.store == theirs.store)
        });
        self.agreed.retain(|node, (store, _)| recorded(node).is_some_and(|member| member.store == *store));
    }

    /// All that is known of voters, whether they count or not.
    pub fn known(&self) -> Report {
        Report { disagreements: self.disagreements.clone(), ..Report::default() }
    }

    /// Whether nothing is known of voters.
    pub fn is_empty(&self) -> bool {
        self.disagreements.is_empty()
    }

    /// What voters disagree about; none if they do not. `conflicts` are those that hold committed entries which the
    /// leader's log lacks. A voter in quarantine does not count.
    pub fn alarm(
        &self,
        by: Judge<'_>,
        conflicts: &BTreeMap<NodeId, StoreId>,
        quarantined: &BTreeSet<NodeId>,
    ) -> Option<Report> {
        let counted = self.disagreements.iter().map(|(index, words)| {
            let counts = |(node, _): &(&NodeId, &Said)| !quarantined.contains(*node);
            (*index, words.iter().filter(counts).map(|(node, said)| (*node, *said)).collect::<Disagreement>())
        });
        let disagreements: BTreeMap<u64, Disagreement> = counted.filter(|(_, words)| differ(words)).collect();
        let voter = |(node, store): (&NodeId, &StoreId)| {
            let counts = by.is_voter(*node, *store) && !quarantined.contains(node);
            counts.then_some(*node)
        };
        let conflicts: BTreeSet<NodeId> = conflicts.iter().filter_map(voter).collect();
        let differ = !disagreements.is_empty() || !conflicts.is_empty();
        differ.then(|| Report { disagreements, conflicts, ..Report::default() })
    }

    /// The learners whose states are known to differ from this member's.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        self.learners.keys().copied()
    }

    /// What `me` and a learner said where they differ; none if its state is not known to differ.
    pub fn learner(&self, me: NodeId, speaker: Speaker) -> Option<Report> {
        let (node, store) = speaker;
        let (index, ours, theirs) = self.learners.get(&node).filter(|(_, _, theirs)| theirs.store == store)?;
        let words = Disagreement::from([(me, *ours), (node, *theirs)]);
        Some(Report { disagreements: [(*index, words)].into(), ..Report::default() })
    }
}

/// Whether not all of them said the same.
fn differ(by: &Disagreement) -> bool {
    let mut digests = by.values().map(|said| said.digest);
    digests.next().is_some_and(|first| digests.any(|digest| digest != first))
}

impl View {
    /// Everything that is refused for good, in its order, from behind `after` on. Finding the beginning costs no more
    /// than a look-up.
    pub fn revocations(&self, after: Option<&Revocation>) -> impl Iterator<Item = Revocation> {
        use core::ops::Bound::{Excluded, Unbounded};
        let (mut members, mut keys, mut principals) = (Some(Unbounded), Some(Unbounded), Unbounded);
        match after.cloned() {
            None => {}
            Some(Revocation::Member(node)) => members = Some(Excluded(node)),
            Some(Revocation::Key(key)) => (members, keys) = (None, Some(Excluded(key))),
            Some(Revocation::Principal(role)) => (members, keys, principals) = (None, None, Excluded(role)),
        }
        let members = members.into_iter().flat_map(|from| self.evicted.range((from, Unbounded)));
        let keys = keys.into_iter().flat_map(|from| self.revoked_keys.range((from, Unbounded)));
        let principals = self.revoked_principals.range((principals, Unbounded));
        let members = members.map(|(node, _)| Revocation::Member(*node));
        let keys = keys.map(|key| Revocation::Key(*key));
        members.chain(keys).chain(principals.map(|role| Revocation::Principal(role.clone())))
    }

    /// Whether it is refused here.
    pub fn holds(&self, revocation: &Revocation) -> bool {
        match revocation {
            Revocation::Member(node) => self.evicted.contains_key(node),
            Revocation::Key(key) => self.revoked_keys.contains(key),
            Revocation::Principal(role) => self.revoked_principals.contains(role),
        }
    }
}

/// Why another voter's revocations are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// They do not come in their order.
    #[error("revocations come out of order")]
    Order,
    /// A page that is not the last one is too short: there would be no end of them.
    #[error("a page of {got} revocations, at least {REVOCATIONS_PAGE_MIN} are expected")]
    Short {
        /// How many it has.
        got: usize,
    },
    /// There are too many.
    #[error("more than {REVOCATIONS_COMPARED_MAX} revocations")]
    TooMany,
}

/// Compares the revocations of this member with those of another one, which come page by page.
#[derive(Debug)]
pub struct RevocationsCompared<'a> {
    ours: &'a View,
    after: Option<Revocation>,
    seen: usize,
    /// Those that only the other one holds.
    pub theirs_alone: BTreeSet<Revocation>,
    /// Those that only this member holds.
    pub ours_alone: BTreeSet<Revocation>,
    /// How many more there are than the two sets have.
    pub unlisted: u64,
}

impl<'a> RevocationsCompared<'a> {
    /// Against those in `ours`.
    pub fn new(ours: &'a View) -> Self {
        Self { ours, after: None, seen: 0, theirs_alone: BTreeSet::new(), ours_alone: BTreeSet::new(), unlisted: 0 }
    }

    /// The last revocation of the pages so far: the next page begins behind it.
    pub const fn after(&self) -> Option<&Revocation> {
        self.after.as_ref()
    }

    /// Takes the next page; `last` if there is none behind it.
    ///
    /// Errors: [`Incomparable`].
    pub fn page(&mut self, page: Vec<Revocation>, last: bool) -> Result<(), Incomparable> {
        if !last && page.len() < REVOCATIONS_PAGE_MIN {
            return Err(Incomparable::Short { got: page.len() });
        }
        self.seen = self.seen.saturating_add(page.len());
        if self.seen > REVOCATIONS_COMPARED_MAX {
            return Err(Incomparable::TooMany);
        }
        let sorted = page.is_sorted_by(|a, b| a < b);
        if !sorted || page.first().is_some_and(|first| self.after.as_ref().is_some_and(|after| first <= after)) {
            return Err(Incomparable::Order);
        }
        let upto = page.last().cloned();
        let (ours, after) = (self.ours, self.after.clone());
        let within = |revocation: &Revocation| last || upto.as_ref().is_some_and(|upto| revocation <= upto);
        let mut theirs = page.into_iter().peekable();
        for revocation in ours.revocations(after.as_ref()).take_while(within) {
            while let Some(before) = theirs.next_if(|t| *t < revocation) {
                self.note(before, true);
            }
            if theirs.next_if(|t| *t == revocation).is_none() {
                self.note(revocation, false);
            }
        }
        for rest in theirs {
            self.note(rest, true);
        }
        self.after = upto.or(after);
        Ok(())
    }

    fn note(&mut self, revocation: Revocation, theirs: bool) {
        let alone = if theirs { &mut self.theirs_alone } else { &mut self.ours_alone };
        if alone.len() < REVOCATIONS_LISTED_MAX {
            alone.insert(revocation);
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}

impl Report {
    /// As much of a report that another member sent as such a report may have.
    #[must_use]
    pub fn bounded(self) -> Self {
        let disagreements = self.disagreements.into_iter().rev().take(VOTERS_MAX);
        let words = |words: Disagreement| words.into_iter().take(VOTERS_MAX).collect();
        Self {
            disagreements: disagreements.map(|(index, by)| (index, words(by))).collect(),
            conflicts: self.conflicts.into_iter().take(VOTERS_MAX).collect(),
            uneven: self.uneven.into_iter().take(REVOCATIONS_LISTED_MAX).collect(),
            unlisted: self.unlisted,
            unheard: self.unheard.into_iter().take(VOTERS_MAX).collect(),
        }
    }

    /// The voters that the report is about.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let differing = self.disagreements.values().flat_map(|by| by.keys().copied());
        differing.chain(self.conflicts.iter().copied()).collect()
    }

    /// Enters what was found by comparing `ours`, the revocations of `me`, with those of others. What `me` has in
    /// common with a voter is not listed for it, so each revocation is judged for all of them.
    pub fn enter<'a>(
        &mut self,
        me: NodeId,
        ours: &View,
        compared: impl Iterator<Item = (NodeId, &'a RevocationsCompared<'a>)>,
    ) {
        let compared: Vec<(NodeId, &RevocationsCompared<'_>)> = compared.collect();
        let mut uneven: BTreeMap<Revocation, Uneven> = BTreeMap::new();
        for (_, with) in &compared {
            self.unlisted = self.unlisted.saturating_add(with.unlisted);
            for revocation in with.theirs_alone.iter().chain(&with.ours_alone) {
                uneven.entry(revocation.clone()).or_default();
            }
        }
        for (revocation, who) in &mut uneven {
            let ours = ours.holds(revocation);
            let mut enter = |node, holds| if holds { who.held_by.insert(node) } else { who.lacked_by.insert(node) };
            enter(me, ours);
            for (node, with) in &compared {
                let holds =
                    if ours { !with.ours_alone.contains(revocation) } else { with.theirs_alone.contains(revocation) };
                enter(*node, holds);
            }
        }
        let surplus = uneven.len().saturating_sub(REVOCATIONS_LISTED_MAX);
        self.unlisted = self.unlisted.saturating_add(surplus as u64);
        self.uneven = uneven.into_iter().take(REVOCATIONS_LISTED_MAX).collect();
    }
}
