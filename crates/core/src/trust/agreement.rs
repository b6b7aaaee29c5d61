//! Whether the members' states agree, decided by a leader from the digests that members say.
//!
//! A learner whose state differs from the leader's gets no lease. If the states of two voters differ, nobody can tell from
//! the digests which one is right. The leader raises an alarm and grants no lease at all, until an operator has put one of
//! them in quarantine or has returned it with a new store. A voter that lies can stop the cluster in this way, and can never
//! open it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::digest::{DigestAt, Digests};
use super::member::Suffrage;
use super::view::View;
use crate::id::{KeyId, NodeId, StateDigest, StoreId};
use crate::limits::{REVOCATIONS_COMPARED_MAX, REVOCATIONS_LISTED_MAX, VOTERS_MAX};
use crate::principal::Role;

/// What a member said of its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Said {
    /// The store that the state is in. A member that returned with another store is judged anew.
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

/// The disagreements that this member knows of. A leader finds them; every member keeps those that its leader reports, over
/// restarts, so that the next leader does not begin by granting leases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    disagreements: BTreeMap<u64, Disagreement>,
}

/// A member of the cluster, by number and store.
pub type Speaker = (NodeId, StoreId);

impl Agreement {
    /// Compares what `speaker` said with `own`, the digests of `me`. Returns true if what is known has changed.
    ///
    /// An index at which there is no own digest proves nothing, either way.
    pub fn compare(&mut self, me: Speaker, own: &Digests, speaker: Speaker, said: DigestAt) -> bool {
        let Some(ours) = own.at(said.index) else { return false };
        let before = self.disagreements.clone();
        let (node, store) = speaker;
        let theirs = Said { store, digest: said.digest };
        let later = self.disagreements.range(said.index.saturating_add(1)..);
        let differs_later =
            |(index, by): (&u64, &Disagreement)| by.get(&node).is_some_and(|word| own.at(*index) != Some(word.digest));
        if later.into_iter().any(differs_later) {
            return false; // what it says of an earlier index takes nothing back
        }
        self.drop_words(node, said.index);
        if ours == said.digest {
            // Where others differ at this index, the report says who agrees with whom.
            if let Some(by) = self.disagreements.get_mut(&said.index) {
                by.insert(node, theirs);
            }
        } else {
            let by = self.disagreements.entry(said.index).or_default();
            by.insert(node, theirs);
            by.insert(me.0, Said { store: me.1, digest: ours });
        }
        self.prune();
        self.disagreements != before
    }

    /// Takes up what a leader reports. Returns true if what is known has changed.
    pub fn take_up(&mut self, report: &Report) -> bool {
        let taken: BTreeMap<u64, Disagreement> =
            report.disagreements.iter().take(VOTERS_MAX).map(|(index, by)| (*index, by.clone())).collect();
        let changed = self.disagreements != taken;
        self.disagreements = taken;
        changed
    }

    /// Forgets everything. Returns true if there was anything.
    pub fn clear(&mut self) -> bool {
        !core::mem::take(&mut self.disagreements).is_empty()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.disagreements.is_empty()
    }

    /// What voters disagree about; none if they do not. A voter in quarantine does not count, nor one whose store has been
    /// replaced since it spoke.
    pub fn alarm(&self, view: &View, quarantined: &BTreeSet<NodeId>) -> Option<Report> {
        let counts = |node: &NodeId, said: &Said| {
            let member = view.members.get(node).filter(|member| member.store == said.store);
            member.is_some_and(|member| member.suffrage == Suffrage::Voter) && !quarantined.contains(node)
        };
        let counted = self.disagreements.iter().map(|(index, by)| {
            let by: Disagreement = by.iter().filter(|(node, said)| counts(node, said)).map(|(n, s)| (*n, *s)).collect();
            (*index, by)
        });
        let disagreements: BTreeMap<u64, Disagreement> = counted.filter(|(_, by)| differ(by)).collect();
        (!disagreements.is_empty()).then(|| Report { disagreements, ..Report::default() })
    }

    /// What `me` and `speaker` said where they differ; none if the state of `speaker` is not known to differ.
    pub fn between(&self, me: NodeId, speaker: Speaker) -> Option<Report> {
        let (node, store) = speaker;
        self.disagreements.iter().find_map(|(index, by)| {
            let (ours, theirs) = (by.get(&me)?, by.get(&node)?);
            let differ = theirs.store == store && theirs.digest != ours.digest;
            let by = Disagreement::from([(me, *ours), (node, *theirs)]);
            differ.then(|| Report { disagreements: [(*index, by)].into(), ..Report::default() })
        })
    }

    /// Forgets what `node` said at indexes before `upto`.
    fn drop_words(&mut self, node: NodeId, upto: u64) {
        for (_, by) in self.disagreements.range_mut(..upto) {
            by.remove(&node);
        }
    }

    /// Forgets indexes at which nobody differs any more.
    fn prune(&mut self) {
        self.disagreements.retain(|_, by| differ(by));
    }
}

/// Whether not all of them said the same.
fn differ(by: &Disagreement) -> bool {
    let mut digests = by.values().map(|said| said.digest);
    digests.next().is_some_and(|first| digests.any(|digest| digest != first))
}

impl View {
    /// Everything that is refused for good, in its order, from behind `after` on.
    pub fn revocations(&self, after: Option<&Revocation>) -> impl Iterator<Item = Revocation> {
        let members = self.evicted.keys().map(|node| Revocation::Member(*node));
        let keys = self.revoked_keys.iter().map(|key| Revocation::Key(*key));
        let principals = self.revoked_principals.iter().map(|role| Revocation::Principal(role.clone()));
        let after = after.cloned();
        members.chain(keys).chain(principals).filter(move |revocation| after.as_ref().is_none_or(|a| revocation > a))
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
    /// The voters that the report is about.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.disagreements.values().flat_map(|by| by.keys().copied()).collect()
    }

    /// Enters what was found by comparing `ours`, the revocations of `me`, with those of others. What `me` has in common with
    /// a voter is not listed for it, so each revocation is judged for all of them.
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
