//! The events of a run: counted for coverage. The last events are kept for the reader of a violation.

use core::fmt;
use std::collections::{BTreeMap, VecDeque};

use countersign_core::peer::Refusal;
use countersign_core::trust::join_token::TokenUnusable;
use countersign_core::trust::outcome::Refused;

/// Events that a violation shows.
const SHOWN_MAX: usize = 60;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something that a run is worth nothing without: tests ask that each happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Event {
            $($(#[$doc])* $name,)*
        }

        impl Event {
            /// Every event.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

events! {
    /// A command entered the committed log.
    Committed,
    /// Another voter leads.
    LeaderChanged,
    /// A deposed leader's uncommitted command was lost.
    TailLost,
    /// A deposed leader's uncommitted command was committed by its successor.
    TailSurvived,
    /// A leader whose clock is behind stamped a command before the time already applied.
    StampBehind,
    /// A member went on from its own snapshot.
    Restarted,
    /// A member that was behind got another's snapshot.
    SnapshotInstalled,
    /// A message arrived.
    Delivered,
    /// A message was lost.
    Lost,
    /// A message arrived and will arrive again.
    Duplicated,
    /// A command reached a member that does not lead.
    Astray,
    /// A new node got a token.
    JoinerStarted,
    /// A joiner crashed before it verified its sponsor.
    CrashUnpinned,
    /// A joiner crashed after it verified its sponsor.
    CrashPinned,
    /// A joiner crashed with a signed request that it had not sent.
    CrashRequested,
    /// A joiner crashed after it had asked.
    CrashAsked,
    /// A joiner crashed with an answer that it had not stored.
    CrashAnswered,
    /// A new member crashed before it had any of the log.
    CrashEnrolled,
    /// A joiner left a server under another authority.
    ImpostorLeft,
    /// A joiner did not believe a false answer.
    LieRefused,
    /// A joiner gave up and began again with other keys.
    StartedOver,
    /// A joiner is a member.
    Enrolled,
    /// A sponsor passed a request on.
    Sponsored,
    /// A sponsor refused what was made for another connection.
    RelayRefused,
    /// A sponsor refused a request for another reason.
    SponsorRefused,
    /// Bytes were no request.
    Malformed,
    /// A connection that wanted to pass a command on was refused.
    UnauthenticatedRefused,
    /// A member wanted what only voters may.
    NotPermitted,
    /// A member was admitted.
    Admitted,
    /// A retry got its answer again.
    Repeated,
    /// A retry got its answer again although its token is of no more use.
    RepeatedAfterEnd,
    /// A token is on record.
    TokenAdded,
    /// A token was revoked.
    TokenRevoked,
    /// The cluster token was rotated.
    TokenRotated,
    /// A member was evicted.
    Evicted,
    /// A member was evicted as compromised.
    EvictedCompromised,
    /// A learner became a voter.
    Promoted,
    /// A voter became a learner.
    Demoted,
    /// A broker, client or admin got a certificate.
    Issued,
    /// A key was revoked.
    KeyEnded,
    /// A copy of the CA key was sealed to a voter.
    Sealed,
    /// A voter proved that it opened its copy.
    Opened,
    /// A member changed its addresses.
    AddressesChanged,
    /// A group was assigned.
    GroupAssigned,
    /// A member reported its feature level.
    LevelReported,
    /// A member made a new leaf key.
    Renewed,
    /// Refused: the token is not known.
    RefusedTokenUnknown,
    /// Refused: the token has expired.
    RefusedTokenExpired,
    /// Refused: the token is used up.
    RefusedTokenUsedUp,
    /// Refused: the token was revoked.
    RefusedTokenRevoked,
    /// Refused: the token exists.
    RefusedTokenExists,
    /// Refused: a signature does not verify.
    RefusedSignature,
    /// Refused: a key was revoked.
    RefusedKeyRevoked,
    /// Refused: a key is taken.
    RefusedKeyTaken,
    /// Refused: one key for two purposes.
    RefusedKeyReused,
    /// Refused: a request id came with other keys.
    RefusedRequestReused,
    /// Refused: the member was evicted since.
    RefusedEvictedSince,
    /// Refused: a name or an address is taken, or not admitted by the token.
    RefusedName,
    /// Refused: the last voter stays, or the CA key would leave with a voter.
    RefusedVoterStays,
    /// Refused: no such member, token or sealed copy.
    RefusedNoSuch,
    /// Refused: it was so already.
    RefusedAgain,
    /// Refused: beyond a limit.
    RefusedLimit,
    /// Refused for any other reason; nothing here asks for one.
    RefusedOtherwise,
    /// The judgement accepted a peer by its recorded key.
    PeerAccepted,
    /// The judgement accepted a peer by an endorsed key.
    RenewedAccepted,
    /// The judgement accepted a member whose certificate has expired, to recover.
    RecoveryAccepted,
    /// The judgement accepted a broker, client or admin.
    PrincipalAccepted,
    /// The adversary became a member, within the uses of a stolen token.
    ThiefAdmitted,
    /// The adversary sent several requests for the last use of a token.
    ParallelJoins,
    /// The adversary passed on a recorded command once more.
    Replayed,
    /// The adversary passed on a changed request.
    Tampered,
}

/// The event that a refusal counts as.
pub(crate) const fn refused(why: &Refused) -> Event {
    match why {
        Refused::Token(TokenUnusable::Unknown | TokenUnusable::Authority) => Event::RefusedTokenUnknown,
        Refused::Token(TokenUnusable::Expired) => Event::RefusedTokenExpired,
        Refused::Token(TokenUnusable::UsedUp) => Event::RefusedTokenUsedUp,
        Refused::Token(TokenUnusable::Revoked) => Event::RefusedTokenRevoked,
        Refused::TokenExists => Event::RefusedTokenExists,
        Refused::Signature(_) => Event::RefusedSignature,
        Refused::KeyRevoked => Event::RefusedKeyRevoked,
        Refused::KeyTaken(_) => Event::RefusedKeyTaken,
        Refused::KeyReused => Event::RefusedKeyReused,
        Refused::RequestReused => Event::RefusedRequestReused,
        Refused::EvictedSince(_) => Event::RefusedEvictedSince,
        Refused::NameTaken { .. } | Refused::AddressTaken { .. } | Refused::NameNotAdmitted(_) => Event::RefusedName,
        Refused::LastVoter(_) | Refused::KeepAuthority(_) => Event::RefusedVoterStays,
        Refused::NoSuchNode(_) | Refused::NoSuchToken(_) | Refused::NotSealed(_) => Event::RefusedNoSuch,
        Refused::Unchanged(..) | Refused::AlreadyEvicted(_) => Event::RefusedAgain,
        Refused::Limit { .. } => Event::RefusedLimit,
        _ => Event::RefusedOtherwise,
    }
}

/// What a run did. Equal for equal seeds and steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How often each event happened.
    pub events: BTreeMap<Event, u64>,
    /// How often the judgement refused for each reason.
    pub refusals: BTreeMap<Refusal, u64>,
    /// Commands committed.
    pub committed: usize,
    /// Digest of the state after all of them.
    pub digest: [u8; 32],
}

impl Report {
    /// How often `event` happened.
    pub fn count(&self, event: Event) -> u64 {
        self.events.get(&event).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn absorb(&mut self, other: &Self) {
        for (event, n) in &other.events {
            *self.events.entry(*event).or_default() += n;
        }
        for (refusal, n) in &other.refusals {
            *self.refusals.entry(*refusal).or_default() += n;
        }
        self.committed += other.committed;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} commands committed", self.committed)?;
        for (event, n) in &self.events {
            writeln!(f, "{n:>8}  {event:?}")?;
        }
        for (refusal, n) in &self.refusals {
            writeln!(f, "{n:>8}  peer refused: {}", refusal.label())?;
        }
        Ok(())
    }
}

/// The record of one run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) report: Report,
    pub(crate) step: u32,
    shown: VecDeque<String>,
}

impl Trace {
    pub(crate) fn note(&mut self, event: Event, detail: fmt::Arguments<'_>) {
        *self.report.events.entry(event).or_default() += 1;
        self.show(format!("{event:?} {detail}"));
    }

    pub(crate) fn note_refusal(&mut self, refusal: Refusal, detail: fmt::Arguments<'_>) {
        *self.report.refusals.entry(refusal).or_default() += 1;
        self.show(format!("PeerRefused {} {detail}", refusal.label()));
    }

    fn show(&mut self, line: String) {
        if self.shown.len() >= SHOWN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(format!("{:>6}  {line}", self.step));
    }

    pub(crate) fn shown(&self) -> Vec<String> {
        self.shown.iter().cloned().collect()
    }
}
