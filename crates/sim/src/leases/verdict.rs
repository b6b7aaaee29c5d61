//! What must never happen, and the account of what did.

use core::fmt;

use countersign_core::codec::CodecError;
use countersign_core::id::{Generation, NodeId};
use countersign_core::peer::Refusal;
use countersign_core::principal::Role;
use countersign_core::trust::{UnreadableState, UnsupportedLevel};

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseBroken {
    /// *Revoked is refused.*
    #[error(
        "node {member} served {role} although the barrier over its revocation has returned (open connection: {open})"
    )]
    StaleAllow {
        /// The member that served.
        member: NodeId,
        /// The client that it served.
        role: Role,
        /// On a connection that was open already.
        open: bool,
    },
    /// *It fails closed.*
    #[error("node {member} served {millis} ms after it last asked for a lease that a confirmed leader granted")]
    ServedUnleased {
        /// Who served.
        member: NodeId,
        /// How long after.
        millis: u64,
    },
    /// *Generations only grow.*
    #[error("node {member} is at generation {now} and had been at {was}")]
    GenerationFell {
        /// Whose.
        member: NodeId,
        /// What it had reached in this process, or acknowledged in any.
        was: Generation,
        /// What it is at.
        now: Generation,
    },
    /// A member in good standing was refused by another.
    #[error("node {by} refused node {member}, a member in good standing: {why}")]
    MemberRefused {
        /// The member that refused.
        by: NodeId,
        /// The refused member.
        member: NodeId,
        /// As which reason.
        why: Refusal,
    },
    /// A client in good standing was refused by a member that had a lease and a right clock.
    #[error("node {by} refused {role}, in good standing: {why}")]
    ClientRefused {
        /// The member that refused.
        by: NodeId,
        /// The refused client.
        role: Role,
        /// As which reason.
        why: Refusal,
    },
    /// One member's word, or none at all, made a member leave.
    #[error("node {member} serves no client any more, and was not evicted")]
    LeftUnproven {
        /// Which.
        member: NodeId,
    },
    /// An evicted member went on serving, though it had proof.
    #[error("node {member} served {role} after it was shown that it had been evicted")]
    ServedEvicted {
        /// The member that served.
        member: NodeId,
        /// The client that it served.
        role: Role,
    },
    /// One wrong clock carried the cluster away.
    #[error("the cluster's time is {millis} ms ahead of the true time")]
    TimeAhead {
        /// By how much.
        millis: u64,
    },
    /// *Nothing waits on itself.*
    #[error("after {calm} ms without trouble, {what} (node {member})")]
    Waits {
        /// For how long nothing had gone wrong.
        calm: u64,
        /// What has not happened.
        what: Unmet,
        /// The member concerned; 0 where it is every member.
        member: NodeId,
    },
    /// Two members applied different entries at one place: a defect of the Raft of this simulation.
    #[error("node {0} applied another entry than the others")]
    LogsDiffer(NodeId),
    /// A state could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A command of a level that no member sent.
    #[error(transparent)]
    Level(#[from] UnsupportedLevel),
    /// A snapshot could not be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableState),
    /// A defect here.
    #[error("the simulated world is defective")]
    World,
}

/// What a cluster that is left in peace must come to by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// A leader.
    #[error("no member leads")]
    Leader,
    /// A lease for each member.
    #[error("a member has no lease")]
    Lease,
    /// A valid certificate for each member.
    #[error("a certificate has not been renewed")]
    Certificate,
    /// An evicted member that knows it.
    #[error("an evicted member does not know that it is out")]
    Leaving,
    /// A command committed since the trouble ended.
    #[error("no command has been committed")]
    Command,
    /// Each revocation committed, and its barrier returned.
    #[error("a barrier has not returned")]
    Barrier,
}

/// A broken promise, with all that is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseViolation {
    /// The seed of the run.
    pub seed: u64,
    /// Milliseconds of true time since the world began.
    pub at: u64,
    /// What broke.
    pub broken: LeaseBroken,
    /// The last events, oldest first.
    pub events: Vec<String>,
}

impl fmt::Display for LeaseViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        let Self { seed, at, broken, .. } = self;
        write!(f, "seed {seed}, after {at} ms: {broken}; see it again: COUNTERSIGN_SIM_SEEDS={seed}..{}", seed + 1)
    }
}

impl core::error::Error for LeaseViolation {}

/// What a run did. Equal for equal seeds and settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseReport {
    /// Credentials presented to live members in times of trouble: on new connections, and on open ones.
    pub checks: u64,
    /// Those of them whose revocation's barrier had returned.
    pub after_barrier: u64,
    /// Those on connections opened before.
    pub on_open: u64,
    /// Served.
    pub allowed: u64,
    /// Refused for want of a lease.
    pub unleased: u64,
    /// Requests that waited in a paused process.
    pub queued: u64,
    /// Connections closed by a revocation.
    pub closed: u64,
    /// Revocations whose barrier has returned.
    pub barriers: u64,
    /// Those that waited until a member's lease ran out.
    pub lapses: u64,
    /// Members evicted.
    pub evictions: u64,
    /// Elections won.
    pub elections: u64,
    /// Processes that crashed between two durable steps, or after one.
    pub crashes: u64,
    /// Processes that were paused.
    pub pauses: u64,
    /// Partitions.
    pub partitions: u64,
    /// Times at which the whole cluster was off until every certificate had expired.
    pub nights: u64,
    /// Clocks set wrong by ten years.
    pub jumps: u64,
    /// Messages lost.
    pub lost: u64,
    /// Messages that arrived twice.
    pub twice: u64,
    /// Certificates renewed.
    pub renewals: u64,
    /// Members that recognized their cluster again.
    pub recognitions: u64,
    /// Evicted machines that said they lead, to a member that had been away.
    pub pretended: u64,
    /// Leaders that gave up for their clock.
    pub skewed: u64,
    /// Messages for which a member was refused.
    pub refused: u64,
    /// Refusals for a reason that was not true.
    pub lied: u64,
    /// Forged attestations that were shown to a member, and numbers that no member had given.
    pub forged: u64,
    /// Disks set back to a certificate that was superseded.
    pub set_back: u64,
    /// Those certificates of them whose key an operator revoked as well.
    pub disowned: u64,
    /// Members that came back by their identity key.
    pub returns: u64,
    /// Evicted members that learned it by a proven answer.
    pub proven: u64,
    /// Evicted members that learned it by their own log.
    pub logged: u64,
    /// Times at which nothing was committed but what members need, and one clock was years behind.
    pub idles: u64,
    /// Calm times after which all was well.
    pub calms: u64,
}

impl LeaseReport {
    /// By name.
    pub const fn counts(&self) -> [(&'static str, u64); 32] {
        [
            ("checks", self.checks),
            ("after barrier", self.after_barrier),
            ("on open connections", self.on_open),
            ("allowed", self.allowed),
            ("without lease", self.unleased),
            ("queued in a paused process", self.queued),
            ("connections closed", self.closed),
            ("barriers", self.barriers),
            ("leases waited out", self.lapses),
            ("evictions", self.evictions),
            ("elections", self.elections),
            ("crashes", self.crashes),
            ("pauses", self.pauses),
            ("partitions", self.partitions),
            ("nights", self.nights),
            ("clocks set wrong", self.jumps),
            ("messages lost", self.lost),
            ("messages twice", self.twice),
            ("renewals", self.renewals),
            ("recognitions", self.recognitions),
            ("pretended leaders", self.pretended),
            ("skewed leaders", self.skewed),
            ("refused members", self.refused),
            ("false refusals", self.lied),
            ("forged answers", self.forged),
            ("disks set back", self.set_back),
            ("revoked with their certificate", self.disowned),
            ("returns by identity key", self.returns),
            ("left by proof", self.proven),
            ("left by their log", self.logged),
            ("idle times with a slow clock", self.idles),
            ("calms", self.calms),
        ]
    }

    /// Adds the counts of another run.
    pub const fn absorb(&mut self, other: &Self) {
        macro_rules! add {
            ($($field:ident)*) => { $(self.$field += other.$field;)* };
        }
        add!(checks after_barrier on_open allowed unleased queued closed barriers lapses evictions elections crashes);
        add!(pauses partitions nights jumps lost twice renewals recognitions pretended skewed calms);
        add!(refused lied forged set_back disowned returns proven logged idles);
    }
}

impl fmt::Display for LeaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().iter().try_for_each(|(name, count)| writeln!(f, "{count:>10}  {name}"))
    }
}
