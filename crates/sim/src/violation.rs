//! What must never happen, and the text that lets anybody see it happen again.

use core::fmt;

use countersign_core::codec::CodecError;
use countersign_core::id::{Generation, KeyId, NodeId, RequestId, TokenId};
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::{InvariantBroken, UnreadableState, UnsupportedLevel};

/// Why a peer that was accepted must not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfounded {
    /// Another cluster's, trust domain's or authority's.
    #[error("the certificate is foreign")]
    Foreign,
    /// Outside its validity.
    #[error("the certificate is not valid now")]
    OutOfTime,
    /// Another kind of peer, or another node, than was wanted.
    #[error("another peer was wanted")]
    NotWanted,
    /// No admission of this node was applied.
    #[error("the node was never admitted")]
    NeverAdmitted,
    /// Its eviction was applied.
    #[error("the node was evicted")]
    Evicted,
    /// Its revocation was applied.
    #[error("the key was revoked")]
    Revoked,
    /// The key is neither the admitted one, nor did the holder of the identity key endorse it.
    #[error("the node's identity key never vouched for the key")]
    NotVouched,
    /// No certificate for this key was issued to this broker, client or admin.
    #[error("the key was never issued to this principal")]
    NotIssued,
}

/// A promise of the cluster that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A peer was accepted without ground.
    #[error("node {judge} accepted {role} with key {key}, though {why}")]
    Accepted {
        /// Who judged.
        judge: NodeId,
        /// The judged principal.
        role: Role,
        /// With which key.
        key: KeyId,
        /// Why it must not.
        why: Unfounded,
    },
    /// A peer was refused without ground.
    #[error("node {judge} refused {role}, a member in good standing")]
    MemberRefused {
        /// Who judged.
        judge: NodeId,
        /// The judged principal.
        role: Role,
    },
    /// The proof says something else than what was judged.
    #[error("node {0} made a proof that differs from what it judged")]
    ProofDiffers(NodeId),
    /// A token was used more often than it says.
    #[error("join token {token} admitted {used} nodes, it allows {allowed}")]
    Overspent {
        /// Which.
        token: TokenId,
        /// Nodes that it admitted.
        used: u32,
        /// Uses that its record allowed.
        allowed: u32,
    },
    /// A token was used that was never on record, was revoked, or had expired.
    #[error("join token {0} admitted a node, though it was not on record, revoked or expired")]
    EndedTokenUsed(TokenId),
    /// A request was admitted that the token's holder did not sign.
    #[error("join token {token} admitted node {node} by a request that its holder never signed")]
    Unsigned {
        /// Which token.
        token: TokenId,
        /// The node admitted.
        node: NodeId,
    },
    /// An identity key was admitted whose holder never vouched for the leaf key.
    #[error("node {0} was admitted with an identity key whose holder never vouched for its leaf")]
    IdentityUnproven(NodeId),
    /// A member is more, or named otherwise, than its token admits.
    #[error("node {0} is not what its join token admits")]
    TokenExceeded(NodeId),
    /// An address belongs to two members.
    #[error("an address of node {0} belongs to another member as well")]
    AddressTwice(NodeId),
    /// A member's addresses changed without its signature.
    #[error("addresses of node {0} changed, and it never signed that")]
    AddressesUnsigned(NodeId),
    /// A voter counts as one that opened the CA key, and never showed it.
    #[error("node {0} counts as one that opened the key of the authority, and never signed with it")]
    NeverOpened(NodeId),
    /// The same request got two answers.
    #[error("request {0} got different answers")]
    AnswersDiffer(RequestId),
    /// A node id was given twice.
    #[error("node id {0} was given twice")]
    NodeIdTwice(NodeId),
    /// An evicted or revoked key was admitted or issued again.
    #[error("key {0} was admitted or issued after it was revoked")]
    RevokedReturned(KeyId),
    /// A sponsor passed on what was made for another connection.
    #[error("sponsor {0} passed on a request made for another connection")]
    RelayedSponsored(NodeId),
    /// A joiner believed an answer that does not hold it.
    #[error("a joiner believed that it is node {0}")]
    LieBelieved(NodeId),
    /// A member administered that may not.
    #[error("node {0} had a command proposed that it may not ask for")]
    Unpermitted(NodeId),
    /// A generation shrank, or the view changed without a new one.
    #[error("view changed or shrank from generation {before} to {after}")]
    Generation {
        /// Before.
        before: Generation,
        /// After.
        after: Generation,
    },
    /// Time ran backwards.
    #[error("time ran backwards, from {} ms to {} ms", before.0, after.0)]
    Time {
        /// Before.
        before: UnixMillis,
        /// After.
        after: UnixMillis,
    },
    /// Equal prefixes gave different states.
    #[error("node {node} has another state than the log gives at index {index}")]
    StatesDiffer {
        /// Whose.
        node: NodeId,
        /// Entries applied.
        index: usize,
    },
    /// Equal prefixes gave different outcomes.
    #[error("node {node} got another outcome than the log gives at index {index}")]
    OutcomesDiffer {
        /// Whose.
        node: NodeId,
        /// The entry.
        index: usize,
    },
    /// A refusal changed more than the time.
    #[error("a refused command changed the state")]
    RefusalChanged,
    /// A state differs from what its snapshot gives.
    #[error("a snapshot does not give back its state")]
    Snapshot,
    /// No voter is left that opened the CA key.
    #[error("no voter is left that opened the key of the authority")]
    CaKeyLost,
    /// The state's own invariants.
    #[error(transparent)]
    Invariant(#[from] InvariantBroken),
    /// A state could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A command of a level that no member sent.
    #[error(transparent)]
    Level(#[from] UnsupportedLevel),
    /// A snapshot could not be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableState),
    /// The simulation itself could not go on: a defect here, not in the core.
    #[error("the simulated world is defective: its names must parse")]
    World,
}

/// A broken promise, with all that is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// Steps that the run was to have.
    pub steps: u32,
    /// The step at which the promise broke.
    pub step: u32,
    /// What broke.
    pub broken: Broken,
    /// The last events, oldest first.
    pub events: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        let Self { seed, steps, step, broken, .. } = self;
        writeln!(f, "seed {seed}, step {step}: {broken}")?;
        write!(f, "see it again: cargo run -p countersign-sim --example replay -- {seed} {steps}")
    }
}

impl core::error::Error for Violation {}
