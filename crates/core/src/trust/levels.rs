//! The level of the cluster: what its members may use, since all of them know it.
//!
//! It is part of the state and only rises. Nothing above it is proposed or stored. So a release can be taken back for
//! as long as the level has not risen, and members can be replaced one by one, in any order.

use std::collections::BTreeSet;

use super::command::{Command, LEVEL_FOR_TESTING, RaiseLevel};
use super::member::{Member, Suffrage};
use super::outcome::Refused;
use super::state::TrustState;
use super::tables::Members;
use crate::codec::FIRST_LEVEL;
use crate::id::NodeId;
use crate::limits::LEVEL_PROVEN_SECS;
use crate::name::Name;
use crate::time::UnixMillis;

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
        let behind = self.view().into_iter().flat_map(|view| view.members.below_level(level));
        named(behind.filter(|member| !without.contains(&member.id)))
    }

    /// The newest level that every member knows, `without` not counted.
    pub fn level_known_by_all(&self, without: &BTreeSet<NodeId>) -> u32 {
        let mut members = self.view().into_iter().flat_map(|view| view.members.lowest_level_first());
        members.find(|member| !without.contains(&member.id)).map_or(self.level, |member| member.feature_level)
    }

    /// What the leader proposes by itself: the newest level that all members have known for long enough. `is_silent`
    /// tells the members that have held no lease for as long; those of them that vote are waited for all the same.
    pub fn level_to_raise(&self, is_silent: impl Fn(NodeId) -> bool) -> Option<Command> {
        let members = &self.view()?.members;
        if !self.level_auto || members.newest_level()? <= self.level {
            return None;
        }
        let waited_for = |member: &&Member| member.suffrage == Suffrage::Voter || !is_silent(member.id);
        let level = members.lowest_level_first().find(waited_for)?.feature_level;
        if level <= self.level || self.took_up_lately(members).any(|member| waited_for(&member)) {
            return None;
        }
        let silent = members.below_level(level).chain(self.took_up_lately(members));
        let without = silent.map(|member| member.id).collect();
        Some(Command::RaiseLevel(RaiseLevel { level, without, by_itself: true }))
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
        let Some(view) = self.view() else { return vec![] };
        let lately = self.took_up_lately(&view.members).filter(|member| member.feature_level >= level);
        named(view.members.below_level(level).chain(lately).filter(|member| !without.contains(&member.id)))
    }

    /// The members that took their level up too short a time ago.
    fn took_up_lately<'a>(&self, members: &'a Members) -> impl Iterator<Item = &'a Member> {
        let now = self.time();
        let since = UnixMillis(now.0.saturating_sub(LEVEL_PROVEN_SECS.saturating_mul(1000)));
        members.took_level_up_since(since).filter(move |member| now.secs_since(member.level_since) < LEVEL_PROVEN_SECS)
    }
}

/// Members by number, with their names.
fn named<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<(NodeId, Name)> {
    let mut named: Vec<(NodeId, Name)> = members.map(|member| (member.id, member.name.clone())).collect();
    named.sort();
    named
}
