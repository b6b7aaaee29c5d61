//! The leader's task that keeps Raft's membership as the trust state wants it: it adds, promotes, demotes and removes members,
//! one step at a time. What is committed says which step is next, so a crash anywhere is resumed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{AuthorityId, NodeId, StoreId};
use countersign_core::limits::LEVEL_PROVEN_SECS;
use countersign_core::trust::TrustState;
use countersign_core::trust::clocks::StampError;
use countersign_core::trust::command::{BindStore, Command, SealAuthority};
use countersign_core::trust::member::Suffrage;
use countersign_raft::{Group, GroupState, GroupStatus, MembershipError};

use crate::identity::local::Local;
use crate::lease::Granting;
use crate::time::ClusterTime;
use crate::trust::authority::{KeyHolder, SignError};
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer};

/// A step that did not succeed is tried again after this time; a lost message leaves nothing to wait for.
const TICK: Duration = Duration::from_secs(1);
/// Entries that a learner may lack and still be made a voter.
const LAG_MAX: u64 = 100;

/// What the leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    AddLearner(NodeId),
    Seal { authority: AuthorityId, node: NodeId, sealing: [u8; 32] },
    SetVoters(BTreeSet<NodeId>),
    HandOver(NodeId),
    Remove(NodeId),
    BindStore { node: NodeId, store: StoreId },
}

/// Why a step did not succeed this time.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// The task of the leader that has Raft's membership follow the trust state.
pub(crate) struct Membership {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) group: Group,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) key_holder: Arc<KeyHolder>,
    pub(crate) time: Arc<ClusterTime>,
    pub(crate) granting: Arc<Granting>,
}

impl Membership {
    /// Runs until the member stops.
    pub(crate) async fn run(self) {
        let mut applied = self.state.applied();
        let mut status = self.group.watch();
        loop {
            // What changes from here on is seen below, also while a step is under way.
            applied.mark_unchanged();
            status.mark_unchanged();
            match self.lead().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(error = %crate::chain(&error), "membership step failed, will be tried again");
                }
            }
            // why: a step whose message was lost is tried again, though nothing has changed
            let retry = tokio::time::sleep(TICK);
            tokio::select! {
                _ = applied.changed() => {}
                _ = status.changed() => {}
                () = retry => {}
            }
        }
    }

    /// Takes one step of the leader; true if there may be another at once.
    async fn lead(&self) -> Result<bool, StepError> {
        let status = self.group.status();
        if status.state != GroupState::Leader {
            return Ok(false);
        }
        if let Err(StampError::Skewed { off_secs }) = self.time.stamp() {
            // It proposes nothing; one whose clock is right as the others see it will not hand leadership back.
            let Some(heir) = heir_among(&status, &self.time.in_step()) else { return Ok(false) };
            tracing::warn!(off_secs, %heir, "this host's clock is wrong: leadership is handed over");
            let _ = self.group.step_down_to(heir).await;
            return Ok(false);
        }
        {
            // The leader seals with its own opened copy.
            let state = self.state.read();
            self.key_holder.follow(&state, self.local.node, &self.local.keys.sealing)?;
        }
        let step = {
            let state = self.state.read();
            next_step(&state, &status, self.local.node)
        };
        let Some(step) = step else {
            self.raise_level().await?;
            return Ok(false);
        };
        tracing::debug!(?step, "membership step");
        match step {
            Step::AddLearner(node) => drop(self.group.add_learner(node).await?),
            Step::SetVoters(voters) => drop(self.group.set_voters(&voters, true).await?),
            Step::Remove(node) => drop(self.group.remove(node).await?),
            Step::BindStore { node, store } => {
                drop(self.proposer.own_command(Command::BindStore(BindStore { node, store }), &[]).await?);
            }
            Step::HandOver(node) => {
                let _ = self.group.step_down_to(node).await;
                return Ok(false);
            }
            Step::Seal { authority, node, sealing } => {
                let view = self.local.endpoint.trust().load().view.clone();
                let sealed = self.key_holder.seal_to(authority, &view, (node, &sealing))?;
                self.proposer
                    .own_command(Command::SealAuthority(SealAuthority { authority, node, sealed }), &[])
                    .await?;
            }
        }
        Ok(true)
    }

    /// As leader, raises the level of the cluster once all members have known the next one for long enough.
    async fn raise_level(&self) -> Result<(), StepError> {
        let silent = self.granting.silent_members(LEVEL_PROVEN_SECS);
        let raise = self.state.read().level_to_raise(&silent);
        if let Some(raise) = raise {
            self.proposer.own_command(raise, &[]).await?;
        }
        Ok(())
    }
}

/// Before a stop: another voter that is up to date takes over, so that nobody waits for an election.
pub(crate) async fn hand_over_leadership(group: &Group, node: NodeId) {
    let status = group.status();
    if status.state != GroupState::Leader {
        return;
    }
    if let Some(heir) = heir(&status, node)
        && let Err(error) = group.step_down_to(heir).await
    {
        tracing::debug!(error = %crate::chain(&error), "leadership was not handed over");
    }
}

/// The voter that is furthest, other than `leader`.
fn heir(status: &GroupStatus, leader: NodeId) -> Option<NodeId> {
    let others = status.voters.iter().copied().filter(|id| *id != leader).collect();
    heir_among(status, &others)
}

/// The voter that is furthest among `candidates`.
fn heir_among(status: &GroupStatus, candidates: &BTreeSet<NodeId>) -> Option<NodeId> {
    let voters = status.voters.intersection(candidates);
    voters.max_by_key(|id| status.matched.get(id).copied().flatten()).copied()
}

/// The one next step from what Raft has to what the state wants. Removals come first: they are why somebody waits.
fn next_step(state: &TrustState, status: &GroupStatus, leader: NodeId) -> Option<Step> {
    let view = state.view()?;
    let (authority, record) = view.active_authority()?;
    // A member that returns with a new store leaves the group altogether first.
    let wanted = |node: &NodeId| view.members.get(node).filter(|m| m.returning.is_none()).map(|m| m.suffrage);
    let leaving: Vec<NodeId> = status.voters.iter().filter(|id| wanted(id) != Some(Suffrage::Voter)).copied().collect();
    if let Some(node) = leaving.first() {
        if *node == leader {
            return heir(status, leader).map(Step::HandOver);
        }
        let rest: BTreeSet<NodeId> = status.voters.iter().filter(|id| *id != node).copied().collect();
        return (!rest.is_empty()).then_some(Step::SetVoters(rest));
    }
    if let Some(node) = status.learners.iter().find(|id| wanted(id).is_none()) {
        return Some(Step::Remove(*node));
    }
    if let Some((node, store)) = view.members.values().find_map(|m| Some((m.id, m.returning?))) {
        return Some(Step::BindStore { node, store });
    }
    let missing = |id: &&NodeId| !status.voters.contains(id) && !status.learners.contains(id);
    if let Some(node) = view.members.keys().find(missing) {
        return Some(Step::AddLearner(*node));
    }
    for member in view.members.values().filter(|m| m.suffrage == Suffrage::Voter) {
        // Where the CA key is held elsewhere there is nothing to open first.
        if record.key.is_none() {
            if let Some(voters) = promoted(status, member.id) {
                return Some(Step::SetVoters(voters));
            }
            continue;
        }
        match state.sealed().get(&(authority, member.id)) {
            None => {
                return Some(Step::Seal { authority, node: member.id, sealing: member.keys.sealing });
            }
            Some(copy) if copy.opened => {
                if let Some(voters) = promoted(status, member.id) {
                    return Some(Step::SetVoters(voters));
                }
            }
            Some(_) => {}
        }
    }
    None
}

/// The voters with `node` among them, if it is none yet and has caught up.
fn promoted(status: &GroupStatus, node: NodeId) -> Option<BTreeSet<NodeId>> {
    let ready = !status.voters.contains(&node) && caught_up(status, node);
    ready.then(|| status.voters.iter().copied().chain([node]).collect())
}

fn caught_up(status: &GroupStatus, node: NodeId) -> bool {
    let matched = status.matched.get(&node).copied().flatten().unwrap_or(0);
    matched.saturating_add(LAG_MAX) >= status.last_log.unwrap_or(0)
}
