//! Commands on their way into the log: whatever waits is put into one entry, because each entry costs every member one
//! fsync however much it holds.
//!
//! Every caller is answered within twice the deadline, one for its turn to come and one for its entry, and told whether
//! its command may still take effect: only [`ProposeError::Unknown`] leaves that open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::id::NodeId;
use countersign_core::limits::COMMANDS_PER_ENTRY_MAX;
use openraft::ServerState;
use openraft::error::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::limits::{ENTRY_LEN_MAX, PROPOSAL_BYTES_MAX, PROPOSALS_MAX};
use crate::machine::LogPosition;
use crate::types::{Batch, Raft, TypeConfig, position};

/// Entries under way at once. While one is being replicated the next one fills, so more would only make them smaller.
const ENTRIES_IN_FLIGHT_MAX: usize = 1;

/// A command that was committed and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Where it stands in the log; commands of one entry share it.
    pub position: LogPosition,
    /// What the machine said to it.
    pub outcome: Vec<u8>,
}

/// Why a command was not seen to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead. The command has no effect; ask the leader.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// The command has no effect, here or anywhere.
    #[error("the command has {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its length.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// Too much is waiting, or what is under way takes too long. The command has no effect; come back later.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The group has stopped here. The command has no effect.
    #[error("the group has stopped")]
    Shutdown,
    /// The command may or may not take effect, now or later. Repeat it only if that is harmless.
    #[error("the outcome is not known")]
    Unknown,
}

type Answer = oneshot::Sender<Result<Proposed, ProposeError>>;

/// A command that waits.
struct Pending {
    command: Bytes,
    answer: Answer,
    /// After this its caller has waited long enough for its turn.
    until: Instant,
    /// Its share of the bytes that may wait; given back once it is in an entry.
    _share: OwnedSemaphorePermit,
}

impl Pending {
    /// Itself, unless it waited too long: then its caller is told so.
    fn in_time(self) -> Option<Self> {
        if Instant::now() < self.until {
            return Some(self);
        }
        answer_all(vec![self.answer], ProposeError::Overloaded);
        None
    }
}

/// The way in. Clones share it.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Pending>,
    bytes: Arc<Semaphore>,
    deadline: Duration,
}

impl Proposer {
    pub(crate) fn start(raft: Raft, deadline: Duration) -> Self {
        let (queue, waiting) = mpsc::channel(PROPOSALS_MAX);
        tokio::spawn(run(raft, waiting, deadline));
        Self { queue, bytes: Arc::new(Semaphore::new(PROPOSAL_BYTES_MAX)), deadline }
    }

    pub(crate) async fn propose(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let got = command.len();
        let weight = match u32::try_from(got) {
            Ok(weight) if got <= ENTRY_LEN_MAX => weight,
            _ => return Err(ProposeError::TooLarge { got, max: ENTRY_LEN_MAX }),
        };
        let share = Arc::clone(&self.bytes).try_acquire_many_owned(weight).map_err(|_| ProposeError::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let until = Instant::now() + self.deadline;
        let pending = Pending { command: command.into(), answer, until, _share: share };
        self.queue.try_send(pending).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Shutdown,
        })?;
        // The task drops an answer only when it ends, and then with the command still waiting.
        answered.await.unwrap_or(Err(ProposeError::Shutdown))
    }
}

/// Runs until every [`Proposer`] is gone or Raft has stopped.
async fn run(raft: Raft, mut waiting: mpsc::Receiver<Pending>, deadline: Duration) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut held = None;
    loop {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let next = match held.take() {
            Some(pending) => Some(pending),
            None => waiting.recv().await,
        };
        let Some(first) = next else { return };
        let Some(first) = first.in_time() else { continue };
        let (commands, answers, left) = fill(first, &mut waiting);
        held = left;
        match raft.client_write_ff(Batch(Arc::new(commands))).await {
            Ok(written) => {
                let settling = Settling { raft: raft.clone(), answers, until: Instant::now() + deadline };
                tokio::spawn(settling.run(written, permit));
            }
            Err(_) => {
                answer_all(answers, ProposeError::Shutdown);
                return;
            }
        }
    }
}

/// Takes what waits into one entry; what does not fit any more is returned last.
fn fill(first: Pending, waiting: &mut mpsc::Receiver<Pending>) -> (Vec<Bytes>, Vec<Answer>, Option<Pending>) {
    let mut bytes = first.command.len();
    let (mut commands, mut answers) = (vec![first.command], vec![first.answer]);
    while commands.len() < COMMANDS_PER_ENTRY_MAX {
        let Ok(next) = waiting.try_recv() else { break };
        let Some(next) = next.in_time() else { continue };
        bytes += next.command.len();
        if bytes > ENTRY_LEN_MAX {
            return (commands, answers, Some(next));
        }
        commands.push(next.command);
        answers.push(next.answer);
    }
    (commands, answers, None)
}

fn answer_all(answers: Vec<Answer>, error: ProposeError) {
    for answer in answers {
        // Nobody may be waiting any more.
        drop(answer.send(Err(error)));
    }
}

/// An entry handed to Raft, and who waits for it.
struct Settling {
    raft: Raft,
    answers: Vec<Answer>,
    until: Instant,
}

impl Settling {
    async fn run(self, written: oneshot::Receiver<ClientWriteResult<TypeConfig>>, permit: OwnedSemaphorePermit) {
        let mut permit = Some(permit);
        let mut metrics = self.raft.metrics();
        let mut written = std::pin::pin!(written);
        let result = loop {
            tokio::select! {
                result = &mut written => break result.ok(),
                // why: a leader cut off may never learn its entry's fate; its callers must not wait for ever.
                () = tokio::time::sleep_until(self.until) => break None,
                changed = metrics.changed(), if permit.is_some() => {
                    // A leader deposed may wait long for this entry's fate; those behind it need not.
                    if changed.is_err() || metrics.borrow_and_update().state != ServerState::Leader {
                        permit = None;
                    }
                }
            }
        };
        settle(self.answers, result);
    }
}

fn settle(answers: Vec<Answer>, result: Option<ClientWriteResult<TypeConfig>>) {
    match result {
        Some(Ok(response)) if response.data.0.len() == answers.len() => {
            let position = position(&response.log_id);
            for (answer, outcome) in answers.into_iter().zip(response.data.0) {
                drop(answer.send(Ok(Proposed { position, outcome })));
            }
        }
        // Raft refused the entry, or cut it off because another one was committed in its place.
        Some(Err(ClientWriteError::ForwardToLeader(to))) => {
            answer_all(answers, ProposeError::NotLeader { leader: to.leader_id.map(NodeId) });
        }
        Some(Ok(_) | Err(ClientWriteError::ChangeMembershipError(_))) | None => {
            answer_all(answers, ProposeError::Unknown);
        }
    }
}
