//! What is broken on purpose, so that the model is seen to notice.

/// A rule of the lease or of the barrier that is left out. Without any one of them, a client is served after the
/// barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Members serve without a lease.
    NoLeaseCheck,
    /// A member acknowledges while a connection of the client is open.
    AcknowledgesBeforeClosing,
    /// A member acknowledges while a handshake of the client goes on that was judged before.
    AcknowledgesDuringHandshake,
    /// A lease counts from the moment of the answer.
    CountsFromAnswer,
    /// A leader answers although no quorum has confirmed it since the request came.
    AnswersUnconfirmed,
    /// A new leader does not reckon with leases that its predecessor granted.
    ForgetsPredecessor,
    /// A new leader names a newest generation before it has applied the first entry of its own term.
    GrantsBeforeItsTermBegan,
    /// A lease counts although the generation that it names is not in force.
    CountsBeforeEnforced,
    /// A task takes its proof, is paused, and acts on it afterwards.
    FreshBeforePause,
    /// The barrier waits for as long as the lease lasts by the leader's own clock.
    IgnoresDrift,
    /// The newest generation is read in one step, and the grant recorded in another.
    TwoSteps,
    /// The answer to a request of a process that has ended counts for the next one.
    AnswerOutlivesRestart,
    /// A leader forgets a member that may still hold a lease.
    ForgetsMember,
}

impl Fault {
    pub(crate) const ALL: [Self; 13] = [
        Self::NoLeaseCheck,
        Self::AcknowledgesBeforeClosing,
        Self::AcknowledgesDuringHandshake,
        Self::CountsFromAnswer,
        Self::AnswersUnconfirmed,
        Self::ForgetsPredecessor,
        Self::GrantsBeforeItsTermBegan,
        Self::CountsBeforeEnforced,
        Self::FreshBeforePause,
        Self::IgnoresDrift,
        Self::TwoSteps,
        Self::AnswerOutlivesRestart,
        Self::ForgetsMember,
    ];
}
