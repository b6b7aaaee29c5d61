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

/// How long an entry waits for callers who were answered a moment ago and are about to come again. Without, those who
/// came while the last entry was under way go alone, and all callers travel in two halves: twice the entries, twice
/// the fsyncs.
const GATHER: Duration = Duration::from_millis(1);
/// With fewer callers than this, no caller waits for another: a saved entry is worth less than their time.
const GATHER_CALLERS_MIN: usize = 8;

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
    /// Its shares of the bytes that may wait, in the group and in all of its kind; given back once it is in an entry.
    _shares: [OwnedSemaphorePermit; 2],
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
    /// Bytes that may still wait here.
    bytes: Arc<Semaphore>,
    /// Bytes that may still wait in all groups of its kind.
    of_kind: Arc<Semaphore>,
    deadline: Duration,
}

impl Proposer {
    pub(crate) fn start(raft: Raft, of_kind: Arc<Semaphore>, deadline: Duration) -> Self {
        let (queue, waiting) = mpsc::channel(PROPOSALS_MAX);
        tokio::spawn(run(raft, waiting, deadline));
        Self { queue, bytes: Arc::new(Semaphore::new(PROPOSAL_BYTES_MAX)), of_kind, deadline }
    }

    pub(crate) async fn propose(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        let got = command.len();
        let weight = match u32::try_from(got) {
            Ok(weight) if got <= ENTRY_LEN_MAX => weight,
            _ => return Err(ProposeError::TooLarge { got, max: ENTRY_LEN_MAX }),
        };
        let share =
            |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(weight).map_err(|_| ProposeError::Overloaded);
        let shares = [share(&self.bytes)?, share(&self.of_kind)?];
        let (answer, answered) = oneshot::channel();
        let until = Instant::now() + self.deadline;
        let pending = Pending { command: command.into(), answer, until, _shares: shares };
        self.queue.try_send(pending).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Shutdown,
        })?;
        // The task drops an answer only when it ends, and then with the command still waiting.
        answered.await.unwrap_or(Err(ProposeError::Shutdown))
    }
}

/// Who proposes at present, by what was seen of the last entry.
#[derive(Debug, Default)]
struct Crowd {
    /// Commands in the entry under way.
    entry: usize,
    /// Callers when it was answered: those that got an answer and those that waited meanwhile.
    callers: usize,
    since: Option<Instant>,
}

impl Crowd {
    /// The entry under way is answered, and `waiting` callers wait.
    fn answered(&mut self, waiting: usize) {
        self.callers = self.entry + waiting;
        self.since = Some(Instant::now());
    }

    /// Whether most of those who were answered just now may still come in time for the next entry, of which `here` are
    /// there.
    fn worth_waiting(&self, here: usize, now: Instant) -> bool {
        let just_now = self.since.is_some_and(|since| now.saturating_duration_since(since) < GATHER);
        just_now && self.callers >= GATHER_CALLERS_MIN && here < self.callers.min(COMMANDS_PER_ENTRY_MAX)
    }
}

/// Runs until every [`Proposer`] is gone or Raft has stopped.
async fn run(raft: Raft, mut waiting: mpsc::Receiver<Pending>, deadline: Duration) {
    let in_flight = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT_MAX));
    let mut held = None;
    let mut crowd = Crowd::default();
    loop {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        crowd.answered(waiting.len());
        let next = match held.take() {
            Some(pending) => Some(pending),
            None => waiting.recv().await,
        };
        let Some(first) = next else { return };
        let Some(first) = first.in_time() else { continue };
        if crowd.worth_waiting(waiting.len() + 1, Instant::now()) {
            // why: nothing tells that a caller is about to come again
            tokio::time::sleep(GATHER).await;
        }
        let (commands, answers, left) = fill(first, &mut waiting);
        held = left;
        crowd.entry = commands.len();
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
        // The caller may have stopped waiting.
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
                // why: a leader cut off may never learn its entry's fate; its callers must not wait without end.
                () = tokio::time::sleep_until(self.until) => break None,
                changed = metrics.changed(), if permit.is_some() => {
                    // A leader deposed may wait long for this entry's fate; those behind it need not.
                    if changed.is_err() || metrics.borrow_and_update().state != ServerState::Leader {
                        permit = None;
                    }
                }
            }
        };
        answer_each(self.answers, result);
    }
}

fn answer_each(answers: Vec<Answer>, result: Option<ClientWriteResult<TypeConfig>>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_waits_only_for_callers_that_were_just_answered() {
        let crowd = |entry, waiting| {
            let mut crowd = Crowd { entry, ..Crowd::default() };
            crowd.answered(waiting);
            crowd
        };
        let now = Instant::now();
        assert!(!Crowd::default().worth_waiting(1, now), "the first command of all");
        let few = GATHER_CALLERS_MIN - 1;
        assert!(!crowd(1, 0).worth_waiting(1, now), "a caller alone");
        assert!(!crowd(few, 0).worth_waiting(1, now) && !crowd(1, few - 1).worth_waiting(1, now));
        assert!(crowd(few, 1).worth_waiting(1, now) && crowd(few + 1, 0).worth_waiting(few, now));
        // All are there, or as many as an entry holds.
        assert!(!crowd(32, 32).worth_waiting(64, now));
        assert!(crowd(COMMANDS_PER_ENTRY_MAX, 99).worth_waiting(COMMANDS_PER_ENTRY_MAX - 1, now));
        assert!(!crowd(COMMANDS_PER_ENTRY_MAX, 99).worth_waiting(COMMANDS_PER_ENTRY_MAX, now));
        // Those who have not come again by now do something else.
        let crowd = crowd(32, 32);
        assert!(!crowd.worth_waiting(32, crowd.since.unwrap() + GATHER));
    }
}
