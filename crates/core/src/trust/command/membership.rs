//! Whether members vote, and how they leave: promotion, demotion, eviction.
//!
//! A voter leaves only if another that opened the CA key remains, and Raft removes it before it is refused.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{Generation, NodeId, TokenId};
use crate::limits::VOTERS_MAX;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::member::{Evicted, Member, Suffrage};
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Promotes or demotes a member. Raft's membership follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSuffrage {
    /// The member.
    pub node: NodeId,
    /// What it becomes.
    pub suffrage: Suffrage,
    /// The authority stays although a voter leaves: its machine was wiped.
    pub keep_authority: bool,
}

/// Removes a member and refuses its keys, without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evict {
    /// The member.
    pub node: NodeId,
    /// Its keys are in wrong hands: every join token ends as well, since the holder of its machine may have made some.
    pub compromised: bool,
    /// The authority stays although a voter leaves: its machine was wiped.
    pub keep_authority: bool,
}

impl Operation for SetSuffrage {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        match self.suffrage {
            Suffrage::Voter => Precondition::Agrees(self.node),
            Suffrage::Learner => Precondition::Quorum,
        }
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { node, suffrage, keep_authority } = *self;
        let member = state.member(node)?;
        match (member.suffrage, suffrage) {
            (now, wanted) if now == wanted => return Err(Refused::Unchanged(node, wanted)),
            (_, Suffrage::Voter) if member.returning.is_some() => return Err(Refused::Returning(node)),
            (_, Suffrage::Voter) => check_room_for_voter(state.current()?)?,
            (_, Suffrage::Learner) => state.check_voter_may_leave(node, keep_authority)?,
        }
        if suffrage == Suffrage::Learner {
            state.sealed.retain(|(_, holder), _| *holder != node);
        }
        state.change(|view| {
            view.members.update(&node, |member| member.suffrage = suffrage);
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let Self { node, suffrage, keep_authority } = *self;
        let details = draft.node(node).text("role", suffrage).flag("keep_authority", keep_authority);
        ("node.role_changed", details)
    }
}

impl Operation for Evict {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Evicts(self.node)
    }

    fn precondition(&self) -> Precondition {
        Precondition::Quorum
    }

    fn affects(&self, _: &View) -> Affected {
        Affected { who: true, ..Affected::principal(&Role::Node(self.node)) }
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let Self { node, keep_authority, .. } = *self;
        let member = state.member(node)?.clone();
        // INVARIANT: a voter leaves Raft before it is refused, or the refusal would cut the group off from its own
        // quorum.
        if entry.members.voters.contains(&node) {
            return Err(Refused::StillVotes(node));
        }
        if member.suffrage == Suffrage::Voter {
            state.check_voter_may_leave(node, keep_authority)?;
        }
        if let Some(number) = state.needs(node) {
            return Err(Refused::SignatureMissing { node, number });
        }
        let at = state.time;
        state.sealed.retain(|(_, holder), _| *holder != node);
        let tokens_revoked = state.revoke_tokens(&self.tokens_to_end(state, &member));
        let generation = state.edit(|view| {
            view.members.remove(&node);
            view.revoked_keys.extend(member.keys());
            view.groups.remove_member(&node);
            let generation = Generation(view.generation.0.saturating_add(1));
            let Member { name, mapped, keys, .. } = member;
            let record = Evicted { name, mapped, identity: keys.identity, at, generation };
            view.evicted.insert(node, record);
        })?;
        state.displace(node);
        state.close_client_port(node);
        Ok(Outcome::Evicted { generation, tokens_revoked })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let Self { node, compromised, keep_authority } = *self;
        let ended = if let Outcome::Evicted { tokens_revoked, .. } = draft.outcome { tokens_revoked.len() } else { 0 };
        let details = draft.node(node).flag("compromised", compromised).flag("keep_authority", keep_authority);
        ("node.evicted", details.number("tokens_revoked", count(ended)))
    }
}

impl Evict {
    fn tokens_to_end(&self, state: &TrustState, member: &Member) -> Vec<TokenId> {
        if self.compromised {
            // The holder of its machine may have made tokens of any kind.
            return state.tokens.usable(state.time);
        }
        match member.admitted_by {
            Some(token) => vec![token],
            // The founder was admitted by no token, and holds the cluster's.
            None => state.tokens.usable_of_cluster(state.time),
        }
    }
}

pub(super) fn check_room_for_voter(view: &View) -> Result<(), Refused> {
    if view.members.voter_count() >= VOTERS_MAX {
        return Err(Refused::Limit { what: Limited::Voters, max: VOTERS_MAX as u64 });
    }
    Ok(())
}

impl TrustState {
    /// A voter leaves only if another that opened the CA key remains, and its copy of that key is accounted for. Where
    /// the key is held elsewhere there are no copies.
    pub(super) fn check_voter_may_leave(&self, node: NodeId, keep_authority: bool) -> Result<(), Refused> {
        let view = self.current()?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        let copies = record.key.is_some();
        let other = view.members.voters().any(|m| {
            let opened = self.sealed.get(&(authority, m.id)).is_some_and(|copy| copy.opened);
            m.id != node && (opened || !copies)
        });
        if !other {
            return Err(Refused::LastVoter(node));
        }
        if keep_authority || !copies { Ok(()) } else { Err(Refused::KeepAuthority(node)) }
    }
}
