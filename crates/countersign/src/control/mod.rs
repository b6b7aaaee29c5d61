//! Administration as functions: one for each use case, the same for HTTP handlers and for programs that embed a member.
//!
//! A function gets what it needs as typed arguments and returns a typed outcome or [`ControlError`]. Nothing here knows HTTP.

mod membership;
mod quorum;

use std::sync::Arc;

use countersign_core::id::NodeId;
use countersign_core::name::Name;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::Command;
use countersign_core::trust::member::Member;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;

use crate::datadir::DataDirError;
use crate::member::Inner;
use crate::propose::{CommandError, Done};
pub use membership::{Evicted, Leaving};

/// Administers a cluster through one of its members, in the name of one author.
#[derive(Clone)]
pub struct Control {
    member: Arc<Inner>,
    claim: Claim,
}

/// Why a use case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The command was not carried out, or may not have been.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// There is no such member.
    #[error("there is no node `{text}`")]
    UnknownNode {
        /// What was asked for.
        text: String,
        /// The members that there are.
        known: Vec<Name>,
    },
    /// A member cannot evict itself: once out of the voters it could not ask for the rest.
    #[error("node {0} cannot evict itself")]
    EvictsItself(Name),
    /// A member cannot refuse itself.
    #[error("node {0} cannot refuse itself")]
    QuarantinesItself(Name),
    /// The voters that stay cannot commit anything now. Nothing was changed.
    #[error(
        "node {node} cannot be removed now, and nothing was changed: the voters that stay are no majority without {}",
        unreached.join(", ")
    )]
    NoQuorum {
        /// The member that was to leave.
        node: Name,
        /// The voters that were not reached, and why.
        unreached: Vec<String>,
    },
    /// The change is recorded, and Raft has not followed in time.
    #[error(
        "the change is recorded, but raft has not followed for node {node} within {} seconds",
        membership::CONVERGE_DEADLINE.as_secs()
    )]
    NotConverged {
        /// The member.
        node: Name,
    },
    /// The member votes no more and is not evicted, since voters have not signed what the cluster has become.
    #[error(
        "node {node} is no voter any more, and is not evicted: what the cluster has become lacks signatures, and these have \
         not signed: {}",
        unsigned.join(", ")
    )]
    NotAttested {
        /// The member.
        node: Name,
        /// The voters whose signatures are missing.
        unsigned: Vec<String>,
    },
    /// What this member is to do by itself could not be stored.
    #[error("it could not be stored")]
    NotStored(#[source] DataDirError),
}

impl Control {
    /// Through `member`, in the name of `claim`.
    pub(crate) const fn new(member: Arc<Inner>, claim: Claim) -> Self {
        Self { member, claim }
    }

    /// The member that carries it out.
    pub(crate) const fn member(&self) -> &Arc<Inner> {
        &self.member
    }

    /// Carries out a command of the author, with the key to certify where it issues.
    pub(crate) async fn command(&self, command: Command, spki: &[u8]) -> Result<Done, CommandError> {
        self.member.command_of(&self.claim, command, spki).await
    }

    /// The member of a name or, where no member has it as a name, of a number.
    ///
    /// # Errors
    /// [`ControlError::UnknownNode`], or that it was evicted.
    pub fn find(&self, text: &str) -> Result<NodeId, ControlError> {
        find(&self.member, text).map(|member| member.id)
    }

    /// The member of a number, as it is now.
    fn target(&self, node: NodeId) -> Result<Member, ControlError> {
        let trust = self.member.endpoint.trust().load();
        let state = self.member.state.read();
        // Before its log is here, a member knows the others by the view that it was admitted under.
        let view = state.view().unwrap_or(&trust.view);
        if let Some(member) = view.members.get(&node) {
            return Ok(member.clone());
        }
        let gone = view.evicted.contains_key(&node);
        let why = if gone { Refused::AlreadyEvicted(node) } else { Refused::NoSuchNode(node) };
        Err(CommandError::Refused(why).into())
    }
}

/// By name, or by number: a name may be a number, and is a name then. Whatever a member may be named by must ask here: who
/// is judged must be who is acted on.
pub(crate) fn named<'a>(view: &'a View, text: &str) -> Option<&'a Member> {
    let name = Name::parse(text).ok();
    let by_name = name.and_then(|name| view.members.named(&name));
    by_name.or_else(|| view.members.get(&NodeId(text.parse().ok()?)))
}

/// The member of a name or a number.
pub(crate) fn find(member: &Inner, text: &str) -> Result<Member, ControlError> {
    let trust = member.endpoint.trust().load();
    let state = member.state.read();
    let view = state.view().unwrap_or(&trust.view);
    if let Some(found) = named(view, text) {
        return Ok(found.clone());
    }
    let number = text.parse().ok().map(NodeId);
    let gone = view.evicted.iter().find(|(id, e)| e.name.as_str() == text || Some(**id) == number);
    if let Some((id, _)) = gone {
        return Err(CommandError::Refused(Refused::AlreadyEvicted(*id)).into());
    }
    let known = view.members.values().map(|member| member.name.clone()).collect();
    Err(ControlError::UnknownNode { text: text.to_owned(), known })
}
