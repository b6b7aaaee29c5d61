//! Proposing: on the leader into the log, elsewhere on to the leader, until a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::cluster::{ProposeReply, ProposeRequest};
use countersign_api::convert::{MessageError, decoded};
use countersign_core::codec::{self, CodecError};
use countersign_core::id::{KeyId, NodeId, RequestId};
use countersign_core::limits::COMMAND_LEN_MAX;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::{Author, Claim, NotPermitted, permit};
use countersign_core::trust::clocks::StampError;
use countersign_core::trust::command::{Admission, Command, Effect, Precondition, Stamped};
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use countersign_raft::{Group, GroupState};
use tokio::time::Instant;

use crate::hosts::{Asker, HostWitness};
use crate::identity::keys::{KeysError, random};
use crate::identity::local::Local;
use crate::lease::{Granting, NotLeader};
use crate::peers::Peers;
use crate::time::ClusterTime;
use crate::trust::authority::{KeyHolder, SignError};
use crate::trust::divergence::Divergence;
use crate::trust::in_flight::{Busy, InFlight};
use crate::trust::machine::SharedState;

/// How long a command may look for a leader.
pub(crate) const PROPOSE_DEADLINE: Duration = Duration::from_secs(15);
/// How long to wait before looking for the leader again.
const RETRY: Duration = Duration::from_millis(100);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The state machine refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No leader was found in time: too few voters are up or reachable.
    #[error("no leader was found within {} seconds", PROPOSE_DEADLINE.as_secs())]
    NoLeader,
    /// The leader cannot tell the time, and the cluster goes by its word; nothing was carried out.
    #[error("the leader cannot tell the time: {0}")]
    Clock(StampError),
    /// Sent, but the answer was lost: it may or may not have been carried out.
    #[error("the answer was lost: the command may or may not have been carried out")]
    Unknown,
    /// The leader answered with the outcome of another kind of command: it runs another version.
    #[error("the leader answered with the outcome of another command")]
    OtherOutcome,
    /// This member may not administer.
    #[error(transparent)]
    NotPermitted(#[from] NotPermitted),
    /// This author has as many commands waiting as it may; nothing was carried out.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The command is too long; nothing was carried out.
    #[error("the command takes {got} bytes, more than {COMMAND_LEN_MAX}")]
    TooLong {
        /// Its bytes, encoded.
        got: usize,
    },
    /// This member is overloaded.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The member is shutting down.
    #[error("this member is shutting down")]
    Shutdown,
    /// No certificate could be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The request could not be numbered.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A message could not be encoded or decoded.
    #[error("message is malformed")]
    Message(#[from] MessageError),
    /// A command could not be encoded.
    #[error("command cannot be encoded")]
    Codec(#[from] CodecError),
}

/// What a command did, with what the leader made from it.
#[derive(Debug, Clone)]
pub struct Done {
    /// What the state machine answered.
    pub outcome: Outcome,
    /// The certificate signed from the outcome, leaf first.
    pub chain: Vec<Bytes>,
    /// The view that shows the change, encoded, where the command admits.
    pub view: Bytes,
    /// The time that is applied by then.
    pub time: UnixMillis,
}

impl Done {
    /// The part of the outcome that such a command answers with.
    ///
    /// # Errors
    /// [`CommandError::OtherOutcome`] where `of` finds none.
    pub fn answered<T>(self, of: impl FnOnce(Outcome) -> Option<T>) -> Result<T, CommandError> {
        of(self.outcome).ok_or(CommandError::OtherOutcome)
    }
}

/// The command as it is sent: here, on to the leader and within an entry it has the same limit.
fn encoded(command: &Command) -> Result<Vec<u8>, CommandError> {
    let encoded = command.encode()?;
    if encoded.len() <= COMMAND_LEN_MAX { Ok(encoded) } else { Err(CommandError::TooLong { got: encoded.len() }) }
}

/// What one attempt came to.
enum Attempt {
    Done(Box<Done>),
    /// Not carried out; the leader is another or not known.
    Elsewhere,
    /// Not carried out: the leader does not know what to stamp it with.
    Clock(StampError),
}

/// A number for a request that this member takes.
///
/// # Errors
/// The operating system gives no randomness.
pub fn new_request() -> Result<RequestId, KeysError> {
    Ok(RequestId(*random::<16>()?.expose()))
}

/// Proposes commands: into the log where this member leads, on to the leader elsewhere.
pub struct Proposer {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) group: Group,
    pub(crate) peers: Peers,
    pub(crate) key_holder: Arc<KeyHolder>,
    pub(crate) leading: Leading,
    pub(crate) in_flight: InFlight,
}

/// What the leader asks besides the state before it proposes.
pub(crate) struct Leading {
    pub(crate) time: Arc<ClusterTime>,
    pub(crate) granting: Arc<Granting>,
    pub(crate) divergence: Arc<Divergence>,
    pub(crate) witness: Arc<HostWitness>,
}

impl Proposer {
    /// Carries out what this member does by itself, with the key to certify where it renews.
    pub async fn own_command(&self, command: Command, spki: &[u8]) -> Result<Done, CommandError> {
        self.command_of(&Claim::of_member(self.local.node, new_request()?), command, spki).await
    }

    /// Carries out a command that a caller asked this member for, with the key to certify where it admits or issues.
    pub async fn command_of(&self, claim: &Claim, command: Command, spki: &[u8]) -> Result<Done, CommandError> {
        let deadline = Instant::now() + PROPOSE_DEADLINE;
        let mut turn = 0;
        loop {
            // A member that moved, and that no leader has reached yet, asks the voters one after the other.
            let leader = self.group.leader().or_else(|| self.some_voter(turn));
            turn += 1;
            let attempt = match leader {
                Some(leader) if leader == self.local.node => {
                    let author = claim.clone().taken_by(self.local.node, &command);
                    self.propose_here(author, &command, spki).await?
                }
                Some(leader) => self.forward(leader, claim, &command, spki).await?,
                None => Attempt::Elsewhere,
            };
            match attempt {
                Attempt::Done(done) => {
                    if let Outcome::Refused(why) = done.outcome {
                        return Err(why.into());
                    }
                    return Ok(*done);
                }
                Attempt::Elsewhere | Attempt::Clock(_) if Instant::now() + RETRY < deadline => {
                    // why: a new leader is being elected, or waits for the voters' clocks; there is nothing to be
                    // woken by that covers a lost message
                    tokio::time::sleep(RETRY).await;
                }
                Attempt::Elsewhere => return Err(CommandError::NoLeader),
                Attempt::Clock(why) => return Err(CommandError::Clock(why)),
            }
        }
    }

    /// Another voter of the view in force, each in its turn.
    fn some_voter(&self, turn: usize) -> Option<NodeId> {
        let trust = self.local.endpoint.trust().load();
        let others = trust.view.members.voters().map(|member| member.id).filter(|id| *id != self.local.node);
        let voters: Vec<NodeId> = others.collect();
        voters.get(turn.checked_rem(voters.len())?).copied()
    }

    /// Carries out what a member passed on; only the leader does. `Ok(None)`: this member is not the leader.
    pub(crate) async fn propose_for(
        &self,
        from: NodeId,
        claim: Claim,
        command: &Command,
        spki: &[u8],
    ) -> Result<Option<ProposeReply>, CommandError> {
        // `from` took the request of any caller: the transport verified that peer.
        match self.propose_here(claim.taken_by(from, command), command, spki).await? {
            Attempt::Elsewhere => Ok(None),
            Attempt::Clock(why) => Err(CommandError::Clock(why)),
            Attempt::Done(done) => Ok(Some(ProposeReply {
                outcome: codec::encode(&done.outcome)?.into(),
                chain: done.chain,
                view: done.view,
                time_millis: done.time.0,
            })),
        }
    }

    async fn propose_here(&self, author: Author, command: &Command, spki: &[u8]) -> Result<Attempt, CommandError> {
        let taken_by = author.taken_by;
        self.permit(taken_by, command)?;
        let encoded = encoded(command)?;
        if self.group.status().state != GroupState::Leader {
            return Ok(Attempt::Elsewhere);
        }
        if let Err(why) = self.check_level(command) {
            // One that was just elected may not have applied that the level has risen.
            if self.group.ensure_linearizable().await.is_err() {
                return Ok(Attempt::Elsewhere);
            }
            if self.check_level(command).is_err() {
                let outcome = Outcome::Refused(why);
                let done = Done { outcome, chain: vec![], view: Bytes::new(), time: UnixMillis(0) };
                return Ok(Attempt::Done(Box::new(done)));
            }
        }
        let precondition = command.precondition();
        if precondition != Precondition::None && self.group.ensure_linearizable().await.is_err() {
            return Ok(Attempt::Elsewhere);
        }
        let time = match self.leading.time.stamp() {
            Ok(time) => time,
            Err(why) => return Ok(Attempt::Clock(why)),
        };
        let _turn = self.in_flight.enter(taken_by, encoded.len())?;
        if let Some(outcome) = self.answered(command, time).await {
            return self.certify(outcome, command, spki).map(|done| Attempt::Done(Box::new(done)));
        }
        let unmet = match precondition {
            Precondition::None | Precondition::Quorum => None,
            Precondition::Away(node) => match self.leading.granting.check_away(node) {
                Err(NotLeader) => return Ok(Attempt::Elsewhere),
                Ok(checked) => checked.err(),
            },
            Precondition::Agrees(node) => self.leading.divergence.check_state_of_new_voter(node),
        };
        if let Some(why) = unmet {
            let done = self.certify(Outcome::Refused(why), command, spki);
            return done.map(|done| Attempt::Done(Box::new(done)));
        }
        let witnessed = self.witnessed(taken_by, command).await;
        // The author may have been evicted or demoted while this waited.
        self.permit(taken_by, command)?;
        let time = if witnessed.is_some() { self.leading.time.stamp().unwrap_or(time) } else { time };
        let command = witnessed.as_ref().unwrap_or(command);
        let stamped = Stamped { level: command.level(), time, author, command: command.clone() };
        let proposed = match self.group.propose(stamped.encode()?).await {
            Ok(proposed) => proposed,
            Err(countersign_raft::ProposeError::NotLeader { .. }) => return Ok(Attempt::Elsewhere),
            Err(countersign_raft::ProposeError::Unknown) => return Err(CommandError::Unknown),
            Err(countersign_raft::ProposeError::Shutdown) => return Err(CommandError::Shutdown),
            Err(_) => return Err(CommandError::Overloaded),
        };
        let outcome: Outcome = decoded("outcome", &proposed.outcome)?;
        self.certify(outcome, command, spki).map(|done| Attempt::Done(Box::new(done)))
    }

    /// An admission that no voter has looked at yet, with what this one finds: a learner's word would not count.
    async fn witnessed(&self, taken_by: NodeId, command: &Command) -> Option<Command> {
        let Command::Admit(admission) = command else { return None };
        if admission.witness.is_some() || taken_by == self.local.node {
            return None;
        }
        let request = &admission.request;
        let witness = Some(self.leading.witness.witness(request, Asker::Sponsor(taken_by)).await?);
        Some(Command::Admit(Box::new(Admission { request: request.clone(), witness })))
    }

    /// What not all members know is not written: it would stop those that do not.
    fn check_level(&self, command: &Command) -> Result<(), Refused> {
        if command.level() <= self.state.read().level() { Ok(()) } else { Err(self.above_level(command)) }
    }

    /// The refusal of a command that not all members know.
    fn above_level(&self, command: &Command) -> Refused {
        let (state, needed) = (self.state.read(), command.level());
        Refused::AboveLevel { needed, level: state.level(), behind: state.behind(needed, &BTreeSet::new()) }
    }

    /// Whether the member that took the command may have it proposed, as far as is applied here. What this member
    /// took, it has judged itself.
    fn permit(&self, taken_by: NodeId, command: &Command) -> Result<(), NotPermitted> {
        if taken_by == self.local.node {
            return Ok(());
        }
        self.state.read().view().map_or(Ok(()), |view| permit(view, taken_by, command))
    }

    /// What `apply` would answer without a change, so that neither unauthenticated callers nor members fill the log
    /// with it. A leader that has just been elected may lack what is committed: before it answers, it makes sure that
    /// it has applied everything.
    async fn answered(&self, command: &Command, time: UnixMillis) -> Option<Outcome> {
        let first = self.state.read().answered(command, time)?;
        if matches!(first, Outcome::Refused(Refused::NoCluster)) || self.group.ensure_linearizable().await.is_err() {
            return None; // not the leader (any more): proposing says so
        }
        self.state.read().answered(command, time)
    }

    /// Signs what the outcome grants, for the very key that the command recorded.
    fn certify(&self, outcome: Outcome, command: &Command, spki: &[u8]) -> Result<Done, CommandError> {
        let mut done = Done { outcome, chain: vec![], view: Bytes::new(), time: UnixMillis(0) };
        let view = {
            let state = self.state.read();
            self.key_holder.follow(&state, self.local.node, &self.local.keys.sealing)?;
            done.time = state.time();
            state.view().cloned()
        };
        if let (Outcome::Admitted(admitted), Effect::CertifiesNode(_), Some(view)) =
            (&done.outcome, command.effect(), view)
            && admitted.leaf.key == KeyId::of_spki(spki)
        {
            // Rules come with the log: until it has that, a joiner allows nothing.
            done.view = codec::encode::<View>(&view.without_policy())?.into();
        }
        let chain = self.key_holder.sign_granted(&done.outcome, command, spki)?;
        done.chain = chain.into_iter().map(Bytes::from).collect();
        Ok(done)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "gRPC has codes that no member of ours answers with")]
    async fn forward(
        &self,
        leader: NodeId,
        claim: &Claim,
        command: &Command,
        spki: &[u8],
    ) -> Result<Attempt, CommandError> {
        let claim = codec::encode(claim)?.into();
        let request = ProposeRequest { command: encoded(command)?.into(), spki: spki.to_vec().into(), claim };
        let mut request = tonic::Request::new(request);
        request.set_timeout(PROPOSE_DEADLINE);
        let Some(channel) = self.peers.channel(leader) else { return Ok(Attempt::Elsewhere) };
        match MembersClient::new(channel).propose(request).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                Ok(Attempt::Done(Box::new(Done {
                    outcome: decoded("outcome", &reply.outcome)?,
                    chain: reply.chain,
                    view: reply.view,
                    time: UnixMillis(reply.time_millis),
                })))
            }
            Err(status) => match status.code() {
                // Not the leader (any more), or not reached at all: nothing was carried out.
                tonic::Code::FailedPrecondition => Ok(Attempt::Elsewhere),
                tonic::Code::Unavailable if self.peers.unconnected(leader) => Ok(Attempt::Elsewhere),
                tonic::Code::Aborted => match codec::decode(status.details()) {
                    Ok(why) => Ok(Attempt::Clock(why)),
                    Err(_) => Err(CommandError::Unknown),
                },
                // The leader itself does not know what the command needs.
                tonic::Code::Unimplemented => Err(self.above_level(command).into()),
                tonic::Code::PermissionDenied => Err(NotPermitted(self.local.node).into()),
                tonic::Code::ResourceExhausted => Err(CommandError::Overloaded),
                _ => Err(CommandError::Unknown),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::id::TokenId;
    use countersign_core::limits::COMMANDS_PER_AUTHOR_MAX;
    use countersign_core::trust::command::{
        AdoptLeaf, ClusterSetting, FEATURE_LEVEL, ReportFeatureLevel, RevokeJoinToken, SealAuthority, SetAddresses,
        SignAttestation,
    };

    use super::*;
    use crate::testing::founded;

    fn claim() -> Claim {
        Claim::of_member(NodeId(1), RequestId([1; 16]))
    }

    #[tokio::test]
    async fn what_would_be_refused_or_change_nothing_is_answered_and_not_written() {
        let data = tempfile::tempdir().unwrap();
        let member = founded(data.path()).await.unwrap();
        let (inner, group) = (&member.proposer, &member.group);
        let node = member.local.node;
        let reported = |level| Command::ReportFeatureLevel(ReportFeatureLevel { node, level });
        inner.own_command(Command::SetCluster(ClusterSetting::LevelAuto(false)), &[]).await.unwrap();
        let written = || group.status().last_log;
        let before = written();
        for command in [
            reported(FEATURE_LEVEL),
            Command::SignAttestation(SignAttestation { number: 9, node, signature: [0; 64] }),
            Command::AdoptLeaf(AdoptLeaf { node, renewal: 3 }),
            Command::SetAddresses(SetAddresses { node, addresses: vec![], signature: [0; 64] }),
        ] {
            inner.propose_for(node, claim(), &command, &[]).await.unwrap().unwrap();
        }
        assert_eq!(written(), before);
        inner.own_command(Command::SetCluster(ClusterSetting::LevelAuto(true)), &[]).await.unwrap();
        assert!(written() > before);
        member.shutdown().await;
    }

    #[tokio::test]
    async fn a_command_has_a_length_at_most_that_is_the_same_for_all_authors() {
        let data = tempfile::tempdir().unwrap();
        let member = founded(data.path()).await.unwrap();
        let (inner, group) = (&member.proposer, &member.group);
        let of_length = |len: usize| {
            let sealed = |n: usize| {
                Command::SealAuthority(SealAuthority {
                    authority: countersign_core::id::AuthorityId([7; 32]),
                    node: NodeId(9),
                    sealed: vec![0; n],
                })
            };
            // All but what is around the bytes.
            let around = codec::encode(&sealed(len)).unwrap().len() - len;
            let command = sealed(len - around);
            assert_eq!(command.encode().unwrap().len(), len);
            command
        };
        let written = || group.status().last_log;
        let before = written();
        let past = of_length(COMMAND_LEN_MAX + 1);
        let refused = inner.own_command(past.clone(), &[]).await.unwrap_err();
        assert!(matches!(refused, CommandError::TooLong { got } if got == COMMAND_LEN_MAX + 1), "{refused:?}");
        let refused = inner.propose_for(member.local.node, claim(), &past, &[]).await.unwrap_err();
        assert!(matches!(refused, CommandError::TooLong { .. }), "{refused:?}");
        assert_eq!(written(), before);
        // At the limit the state machine decides, by what it says.
        let decided = inner.own_command(of_length(COMMAND_LEN_MAX), &[]).await.unwrap_err();
        assert!(matches!(decided, CommandError::Refused(_)), "{decided:?}");
        assert!(inner.propose_for(member.local.node, claim(), &of_length(COMMAND_LEN_MAX), &[]).await.is_ok());
        member.shutdown().await;
    }

    #[tokio::test]
    async fn author_with_too_much_waiting_is_told_to_try_again() {
        let data = tempfile::tempdir().unwrap();
        let member = founded(data.path()).await.unwrap();
        let command = Command::RevokeJoinToken(RevokeJoinToken(TokenId([7; 8])));
        let flood = |node| -> Vec<_> {
            (0..COMMANDS_PER_AUTHOR_MAX).map_while(|_| member.proposer.in_flight.enter(node, 1).ok()).collect()
        };
        let mut held = flood(member.local.node);
        while held.len() < COMMANDS_PER_AUTHOR_MAX {
            held.clear();
            // why: the member still puts its own record right, by commands of its own
            tokio::time::sleep(Duration::from_millis(10)).await;
            held = flood(member.local.node);
        }
        let refused = member.proposer.own_command(command.clone(), &[]).await.unwrap_err();
        assert!(matches!(refused, CommandError::Busy(Busy::Commands)), "{refused:?}");
        drop(held);
        // Another member's commands delay no other command: the state machine answers that there is no such token.
        let _others = flood(NodeId(2));
        let answered = member.proposer.own_command(command, &[]).await.unwrap_err();
        assert!(matches!(answered, CommandError::Refused(Refused::NoSuchToken(_))), "{answered:?}");
        member.shutdown().await;
    }
}
