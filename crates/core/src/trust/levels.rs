//! The level of the cluster: what its members may use, since all of them know it.
//!
//! It is part of the state and only rises. Nothing above it is proposed or stored. So a release can be taken back for
//! as long as the level has not risen, and members can be replaced one by one, in any order.

use std::collections::BTreeSet;

use super::command::{Command, LEVEL_FOR_TESTING, RaiseLevel};
use super::member::{Member, Suffrage};
use super::outcome::Refused;
use super::state::TrustState;
use crate::codec::FIRST_LEVEL;
use crate::id::NodeId;
use crate::limits::LEVEL_PROVEN_SECS;
use crate::name::Name;

impl TrustState {
    /// The level of the cluster.
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// Whether the leader raises the level by itself.
    pub const fn level_auto(&self) -> bool {
        self.level_auto
    }

    /// The level that a guard must know to decide by the rules.
    pub fn policy_level(&self) -> u32 {
        if self.notes_for_testing().is_empty() { FIRST_LEVEL } else { LEVEL_FOR_TESTING }
    }

    /// Members other than `without` whose binaries know less than `level`, by number.
    pub fn behind(&self, level: u32, without: &BTreeSet<NodeId>) -> Vec<(NodeId, Name)> {
        self.members_but(without).filter(|m| m.feature_level < level).map(named).collect()
    }

    /// The newest level that every member knows, `without` not counted.
    pub fn level_known_by_all(&self, without: &BTreeSet<NodeId>) -> u32 {
        self.members_but(without).map(|m| m.feature_level).min().unwrap_or(self.level)
    }

    /// What the leader proposes by itself: the newest level that all members have known for long enough. `silent` are
    /// the members that have held no lease for as long; those of them that vote are waited for all the same.
    pub fn level_to_raise(&self, silent: &BTreeSet<NodeId>) -> Option<Command> {
        let view = self.view()?;
        let votes = |node: &NodeId| view.members.get(node).is_some_and(|m| m.suffrage == Suffrage::Voter);
        let without: BTreeSet<NodeId> = silent.iter().copied().filter(|node| !votes(node)).collect();
        let level = self.level_known_by_all(&without);
        let wanted = self.level_auto && level > self.level && self.unproven(level, &without).is_empty();
        wanted.then_some(Command::RaiseLevel(RaiseLevel { level, without, by_itself: true }))
    }

    /// Whether a command of `needed` level may be applied.
    pub(super) fn check_command_level(&self, needed: u32) -> Result<(), Refused> {
        if needed <= self.level {
            return Ok(());
        }
        Err(Refused::AboveLevel { needed, level: self.level, behind: self.behind(needed, &BTreeSet::new()) })
    }

    /// Members that do not know `level`, or have not known it for long enough to tell that their release is no bad one.
    /// A learner that joined with it took nothing up: else a cluster that grows every day would never rise.
    pub(super) fn unproven(&self, level: u32, without: &BTreeSet<NodeId>) -> Vec<(NodeId, Name)> {
        let joined_with_it = |m: &Member| m.suffrage == Suffrage::Learner && m.level_since == m.admitted_at;
        let for_long = |m: &Member| self.time().secs_since(m.level_since) >= LEVEL_PROVEN_SECS;
        let proven = |m: &Member| m.feature_level >= level && (for_long(m) || joined_with_it(m));
        self.members_but(without).filter(|m| !proven(m)).map(named).collect()
    }

    fn members_but<'a>(&'a self, without: &'a BTreeSet<NodeId>) -> impl Iterator<Item = &'a Member> {
        self.view().into_iter().flat_map(|view| view.members.values()).filter(|m| !without.contains(&m.id))
    }
}

fn named(member: &Member) -> (NodeId, Name) {
    (member.id, member.name.clone())
}
