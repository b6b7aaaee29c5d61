//! The leader's task that keeps Raft's membership as the trust state wants it, one step at a time. It takes the steps
//! that [`next_step`] names, and decides none.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::group::GroupMembers;
use countersign_core::id::NodeId;
use countersign_core::member::membership::{GroupProgress, Step, next_step};
use countersign_core::trust::clocks::StampError;
use countersign_core::trust::command::{BindStore, Command, SealAuthority};
use countersign_raft::{Group, GroupState, GroupStatus, MembershipError};

use crate::identity::local::Local;
use crate::lease::Granting;
use crate::time::ClusterTime;
use crate::trust::authority::{KeyHolder, SignError};
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer};

/// A step that did not succeed is tried again after this time; a lost message leaves nothing to wait for.
const TICK: Duration = Duration::from_secs(1);
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
            let Some(heir) = progress(&status).heir_among(&self.time.in_step()) else { return Ok(false) };
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
            next_step(&state, &progress(&status), self.local.node)
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
        if let Some(raise) = self.granting.level_to_raise() {
            self.proposer.own_command(raise, &[]).await?;
        }
        Ok(())
    }
}

/// Before a stop: another voter that is up to date takes over, so that no caller waits for an election.
pub(crate) async fn hand_over_leadership(group: &Group, node: NodeId) {
    let status = group.status();
    if status.state != GroupState::Leader {
        return;
    }
    if let Some(heir) = progress(&status).heir(node)
        && let Err(error) = group.step_down_to(heir).await
    {
        tracing::debug!(error = %crate::chain(&error), "leadership was not handed over");
    }
}

/// What the leader's Raft says of its group.
fn progress(status: &GroupStatus) -> GroupProgress {
    let members = GroupMembers { voters: status.voters.clone(), learners: status.learners.clone() };
    let matched = status.matched.iter().filter_map(|(id, matched)| Some((*id, (*matched)?))).collect();
    GroupProgress { members, matched, last_log: status.last_log.unwrap_or(0) }
}
