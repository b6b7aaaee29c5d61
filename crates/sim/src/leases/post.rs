//! What travels between machines, and everything else that comes due.

use countersign_core::id::NodeId;
use countersign_core::lease::{Answer, Ask};
use countersign_core::member::recognition;
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::Command;

use super::raft::RaftMessage;

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Raft(RaftMessage),
    /// A request of the member's process `epoch`, with what its clock shows.
    Ask {
        epoch: u64,
        ask: Ask,
        clock: UnixMillis,
    },
    /// The answer to a request of that process. `honest`: of a leader that a quorum confirmed.
    Answer {
        epoch: u64,
        number: u64,
        answer: Answer,
        honest: bool,
    },
    Question {
        nonce: [u8; 32],
        known: u64,
    },
    Recognition {
        nonce: [u8; 32],
        answer: Box<recognition::Answer>,
    },
    Forward(Box<Command>),
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) body: Body,
}

/// Something that comes due. An epoch names one process of a machine: what it began ends with it.
#[derive(Debug, Clone)]
pub(crate) enum Due {
    Deliver(Message),
    Tick {
        node: NodeId,
        epoch: u64,
    },
    /// What this generation refuses is shut by now.
    Closed {
        node: NodeId,
        epoch: u64,
    },
    HandshakeEnds {
        node: NodeId,
        epoch: u64,
        credential: usize,
    },
    Present,
    Operate,
    /// A client is issued a certificate.
    Issue,
    Trouble,
    Pretend,
    Resume(NodeId),
    Restart(NodeId),
    Heal(NodeId),
}
