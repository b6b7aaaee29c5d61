//! The members and the voters: promoted, demoted, evicted. Each change is a command, then a wait until Raft's
//! membership has followed. It also holds the quarantine, by which this member refuses nodes by itself.

use std::time::Duration;

use countersign_core::id::{Generation, NodeId, TokenId};
use countersign_core::receipt::Barrier;
use countersign_core::trust::command::{Command, Evict, SetSuffrage};
use countersign_core::trust::member::{Member, Suffrage};
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_node::CommandError;
use countersign_raft::GroupStatus;

use crate::{Control, ControlError, quorum};

/// How long Raft's membership may take to follow.
pub(super) const CONVERGE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the voters may take to sign what the cluster becomes before a member is evicted.
const ATTEST_DEADLINE: Duration = Duration::from_secs(5);

/// How a member leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leaving {
    /// Its keys are in wrong hands: every join token ends as well.
    pub compromised: bool,
    /// The CA key stays although a voter leaves that holds a copy: its machine was wiped.
    pub keep_authority: bool,
}

/// A member that was evicted.
#[derive(Debug, Clone)]
pub struct Evicted {
    /// The generation from which it is refused.
    pub generation: Generation,
    /// Join tokens that ended with it.
    pub tokens_revoked: Vec<TokenId>,
    /// What each member said about enforcing it; none if no leader told.
    pub barrier: Option<Barrier>,
}

impl Control {
    /// Makes a voter of a member, and waits until Raft counts its vote.
    ///
    /// # Errors
    /// [`ControlError`]. Repeated, it goes on where it stopped.
    pub async fn promote(&self, node: NodeId) -> Result<(), ControlError> {
        let target = self.target(node)?;
        let command = Command::SetSuffrage(SetSuffrage { node, suffrage: Suffrage::Voter, keep_authority: false });
        match self.command(command, &[]).await {
            // Asked for before, and maybe not there yet: wait for the rest.
            Ok(_) | Err(CommandError::Refused(Refused::Unchanged(..))) => {}
            Err(error) => return Err(error.into()),
        }
        self.converged(&target, |status| status.voters.contains(&node)).await
    }

    /// Makes a learner of a voter, and waits until Raft does not count its vote any more.
    ///
    /// # Errors
    /// [`ControlError`]. Nothing is changed where the voters that stay could not commit it.
    pub async fn demote(&self, node: NodeId, keep_authority: bool) -> Result<(), ControlError> {
        let target = self.target(node)?;
        self.leave_voters(&target, keep_authority).await.map(drop)
    }

    /// Removes a member for good, and waits until every member enforces that or serves no client.
    ///
    /// # Errors
    /// [`ControlError`]. Repeated, it goes on where it stopped.
    pub async fn evict(&self, node: NodeId, how: Leaving) -> Result<Evicted, ControlError> {
        let target = self.target(node)?;
        if node == self.parts.local.node {
            return Err(ControlError::EvictsItself(target.name));
        }
        let Leaving { compromised, keep_authority } = how;
        // First out of the voters, so that the eviction does not cut off its own quorum; then refused.
        let votes = target.suffrage == Suffrage::Voter;
        let demoted = if votes { self.leave_voters(&target, keep_authority).await? } else { None };
        self.attested(&target, demoted).await?;
        let done = self.command(Command::Evict(Evict { node, compromised, keep_authority }), &[]).await?;
        let (generation, tokens_revoked) = done.answered(|outcome| {
            let Outcome::Evicted { generation, tokens_revoked } = outcome else { return None };
            Some((generation, tokens_revoked))
        })?;
        let barrier = self.await_barrier(generation).await;
        Ok(Evicted { generation, tokens_revoked, barrier })
    }

    /// Has this member alone refuse another, at once and after each start, until that is lifted. Needs no leader and no
    /// quorum. Returns how many connections were closed.
    ///
    /// # Errors
    /// [`ControlError::QuarantinesItself`], [`ControlError::NotStored`].
    pub fn quarantine(&self, node: NodeId) -> Result<usize, ControlError> {
        self.set_quarantine(node, true)
    }

    /// Lets another in again, as far as the cluster does.
    ///
    /// # Errors
    /// [`ControlError::NotStored`].
    pub fn lift_quarantine(&self, node: NodeId) -> Result<usize, ControlError> {
        self.set_quarantine(node, false)
    }

    fn set_quarantine(&self, node: NodeId, refuse: bool) -> Result<usize, ControlError> {
        let target = self.target(node)?;
        if node == self.parts.local.node {
            return Err(ControlError::QuarantinesItself(target.name));
        }
        let closed = self.parts.denylist.quarantine(&self.parts.local.data, node, !refuse);
        let closed = closed.map_err(ControlError::NotStored)?;
        tracing::warn!(%node, name = %target.name, lift = !refuse, "quarantine by the operator of this host");
        Ok(closed)
    }

    /// The generation that shows it; none where it was shown before.
    async fn leave_voters(&self, target: &Member, keep_authority: bool) -> Result<Option<Generation>, ControlError> {
        quorum::check(&self.parts, target).await?;
        let node = target.id;
        let command = Command::SetSuffrage(SetSuffrage { node, suffrage: Suffrage::Learner, keep_authority });
        let votes = || self.parts.group.status().voters.contains(&node);
        let demoted = match self.command(command, &[]).await {
            Ok(done) => done.outcome.generation(),
            Err(CommandError::Refused(Refused::Unchanged(..))) if votes() => None,
            Err(error) => return Err(error.into()),
        };
        self.converged(target, |status| !status.voters.contains(&node)).await?;
        Ok(demoted)
    }

    /// Waits until enough voters have signed that `target` votes no more, which may need its own signature: once it is
    /// evicted it gives none, and a member that is away could never recognize the cluster again.
    async fn attested(&self, target: &Member, demoted: Option<Generation>) -> Result<(), ControlError> {
        let state = &self.parts.state;
        let done = || {
            let state = state.read();
            let applied = state.view().map_or(Generation(0), |view| view.generation);
            let attested = demoted.is_none_or(|generation| applied >= generation && state.is_attested(generation));
            attested && state.needs(target.id).is_none()
        };
        let mut applied = state.applied();
        let signed = async {
            while !done() {
                if applied.changed().await.is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(ATTEST_DEADLINE, signed).await.is_ok() && done() {
            return Ok(());
        }
        let state = state.read();
        let name = |id: &NodeId| {
            let known = state.view().and_then(|view| view.members.get(id));
            known.map_or_else(|| id.to_string(), |member| member.name.to_string())
        };
        let unsigned = state.unsigned().iter().map(name).collect();
        Err(ControlError::NotAttested { node: target.name.clone(), unsigned })
    }

    async fn converged(&self, target: &Member, reached: impl FnMut(&GroupStatus) -> bool) -> Result<(), ControlError> {
        let mut status = self.parts.group.watch();
        let waited = tokio::time::timeout(CONVERGE_DEADLINE, status.wait_for(reached)).await;
        if matches!(waited, Ok(Ok(_))) { Ok(()) } else { Err(ControlError::NotConverged { node: target.name.clone() }) }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::enroll::EnrollmentRequest;
    use countersign_core::id::{RequestId, StoreId};
    use countersign_core::key::{Endorsement, SecretKey};
    use countersign_core::name::{Address, Name};
    use countersign_core::secret::Secret;
    use countersign_core::trust::command::{AddJoinToken, ConfirmAuthority, ReportFeatureLevel, SealAuthority};
    use countersign_core::trust::join_token::{JoinToken, TokenRecord};
    use countersign_core::trust::member::MemberKeys;

    use super::*;
    use crate::Controls;
    use countersign_core::trust::author::{Actor, Claim};
    use countersign_node::Node;
    use countersign_node::testing::founded;

    /// Admits a voter that holds the CA key, and never runs: node 2.
    async fn admit_silent_voter(node: &Node) {
        // So much log that Raft never counts it as caught up, and goes on without it.
        for level in 0..150 {
            node.proposer
                .own_command(Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(1), level }), &[])
                .await
                .unwrap();
        }
        let view = node.local.view();
        let (authority, _) = view.active_authority().unwrap();
        let key = |seed| SecretKey::from_seed(Secret::new([seed; 32]));
        let (token, suffrage) = (JoinToken::new(Secret::new([7; 32]), authority), Suffrage::Voter);
        let (verifier, pin, not_after) = (token.key().public(), authority, node.local.now().plus_secs(600));
        let (name, role, attributes) = (None, None, std::collections::BTreeMap::new());
        let (uses, uses_left, revoked, cluster_token) = (1, 1, false, false);
        let record = TokenRecord {
            verifier,
            pin,
            suffrage,
            uses,
            uses_left,
            not_after,
            name,
            hosts: vec![],
            role,
            attributes,
            revoked,
            cluster_token,
        };
        node.proposer.own_command(Command::AddJoinToken(AddJoinToken(record)), &[]).await.unwrap();
        let leaf_key = key(2).public().id();
        let request = EnrollmentRequest {
            cluster: view.cluster,
            pin,
            token: token.id(),
            request: RequestId([1; 16]),
            name: Name::parse("silent").unwrap(),
            addresses: vec![Address::parse("127.0.0.1:1").unwrap()],
            leaf_key,
            foreign: None,
            endorsement: Endorsement::sign(&key(1), view.cluster, leaf_key, 0),
            keys: MemberKeys { identity: key(1).public(), sealing: [1; 32], ucan: key(3).public() },
            store: StoreId([2; 16]),
            feature_level: countersign_core::trust::command::FEATURE_LEVEL,
            sponsor_leaf: [3; 32],
            exporter: [4; 32],
            signature: [0; 64],
        };
        node.proposer.own_command(Command::Admit(Box::new(request.signed(&token.key()).into())), &[]).await.unwrap();
        let (voter, sealed) = (NodeId(2), vec![9]);
        node.proposer
            .own_command(Command::SealAuthority(SealAuthority { authority, node: voter, sealed }), &[])
            .await
            .unwrap();
        let copy = node.state.read().sealed()[&(authority, voter)].ciphertext.clone();
        let signature = node.key_holder.confirm_for_testing(&view, voter, &copy).unwrap();
        node.proposer
            .own_command(Command::ConfirmAuthority(ConfirmAuthority { authority, node: voter, signature }), &[])
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_voter_whose_own_signature_is_missing_is_named_and_not_evicted() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let claim = Claim { actor: Actor::Operator { uid: 0 }, source: None, request: RequestId([0; 16]) };
        let (node, control) = (&running, Controls::of(&running).author(claim));
        admit_silent_voter(node).await;
        let target = control.target(control.find("silent").unwrap()).unwrap();
        let demoted = control.leave_voters(&target, true).await.unwrap();
        let unsigned = control.attested(&target, demoted).await.unwrap_err();
        assert!(
            matches!(&unsigned, ControlError::NotAttested { unsigned, .. } if unsigned == &["silent"]),
            "{unsigned}"
        );
        // Asked for again, now of a learner; and by itself.
        let how = Leaving { keep_authority: true, ..Leaving::default() };
        let again = control.evict(target.id, how).await.unwrap_err();
        assert!(matches!(again, ControlError::NotAttested { .. }), "{again}");
        let evict = Command::Evict(Evict { node: target.id, compromised: false, keep_authority: true });
        let refused = node.proposer.own_command(evict, &[]).await.unwrap_err();
        assert!(
            matches!(refused, CommandError::Refused(Refused::SignatureMissing { node: NodeId(2), .. })),
            "{refused:?}"
        );
        assert!(node.state.read().view().unwrap().members.contains_key(&target.id));
        running.shutdown().await;
    }
}
