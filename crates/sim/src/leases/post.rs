//! What travels between machines, and everything else that comes due.

use countersign_core::enroll::returning::ReturnRequest;
use countersign_core::id::NodeId;
use countersign_core::lease::{Answer, Ask};
use countersign_core::member::recognition;
use countersign_core::peer::Refusal;
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::Command;
use countersign_core::trust::member::Leaf;

use super::raft::RaftMessage;

/// Why a member is issued no certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Denied {
    /// This is the number that counts.
    Number(u64),
    /// The key was revoked: it is to make another.
    Key,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Raft(RaftMessage),
    /// A request of the member's process `epoch`, with what its clock shows.
    Ask {
        epoch: u64,
        ask: Ask,
        clock: UnixMillis,
    },
    /// The answer to a request of that process, with the leader's stamp if it has one. `honest`: of a leader that a
    /// quorum confirmed.
    Answer {
        epoch: u64,
        number: u64,
        answer: Answer,
        time: Option<UnixMillis>,
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
    /// A handshake, to learn whether the other takes this member's certificate.
    Dial,
    /// It does.
    Dialed,
    /// What a member says that does not take the certificate of the one that spoke to it.
    Refused(Refusal),
    /// A member asks for its next certificate by its identity key, over the connection that has this exporter.
    Return {
        exporter: [u8; 32],
        request: Box<ReturnRequest>,
    },
    /// The certificate that is on record, or why there is none.
    Returned {
        exporter: [u8; 32],
        answer: Result<Box<Leaf>, Denied>,
    },
}

impl Body {
    /// Whether only members say this to each other, of which each takes the other's certificate. A refusal, and what a
    /// member says that is refused, is none of it.
    pub(crate) const fn is_of_peers(&self) -> bool {
        match self {
            Self::Raft(_) | Self::Ask { .. } | Self::Answer { .. } | Self::Forward(_) | Self::Dial | Self::Dialed => {
                true
            }
            Self::Question { .. }
            | Self::Recognition { .. }
            | Self::Refused(_)
            | Self::Return { .. }
            | Self::Returned { .. } => false,
        }
    }
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
    /// A member refuses another for a reason that is not true.
    Slander,
    Resume(NodeId),
    Restart(NodeId),
    Heal(NodeId),
}
