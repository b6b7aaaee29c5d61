//! A member that its peers refuse: what a refusal may mean, which voters to ask, and what a proven answer leads to.
//!
//! One member's word must never change anything: that it was evicted, a member believes of its own log or of
//! attestations that the voters signed.

use std::collections::VecDeque;

use super::recognition::History;
use crate::id::{AuthorityId, NodeId};
use crate::name::Address;
use crate::peer::Refusal;
use crate::time::BootMillis;
use crate::trust::view::View;

/// Milliseconds after which a member without a lease tries whether its peers still know it.
const LOOK_AGAIN_MILLIS: u64 = 1_000;
/// Milliseconds before it asks again why it is refused, at first and at most: members that answered would say the same
/// again.
const ASK_AGAIN_MILLIS_MIN: u64 = 1_000;
const ASK_AGAIN_MILLIS_MAX: u64 = 60_000;
/// The TLS alert of a peer that has no place for one more handshake (RFC 8446 §6.2, `internal_error`).
const ALERT_INTERNAL_ERROR: u8 = 80;

/// What a refusal may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It claims that this member was evicted.
    Evicted,
    /// It does not take this member's certificate, and might take the next.
    Certificate,
    /// It refused within TLS, which says nothing: its authorities may be others than this member's certificate has.
    Unsaid,
}

impl Meaning {
    /// What a refusal that names its reason means; none where this member can do nothing about it.
    pub const fn of_refusal(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::Evicted => Some(Self::Evicted),
            // A key is revoked with its member, or alone once another has followed it: an older copy of the directory
            // has it.
            Refusal::KeyRevoked | Refusal::Superseded | Refusal::Authority | Refusal::KeyUnknown => {
                Some(Self::Certificate)
            }
            Refusal::TrustDomain
            | Refusal::Cluster
            | Refusal::NotYetValid
            | Refusal::Expired
            | Refusal::NotAMember
            | Refusal::Endorsement
            | Refusal::NotANode
            | Refusal::WrongNode
            | Refusal::PrincipalUnknown
            | Refusal::Handshake
            | Refusal::Protocol
            | Refusal::Overloaded
            | Refusal::Deadline
            | Refusal::NotReady
            | Refusal::PrincipalRevoked
            | Refusal::Quarantined
            | Refusal::NoLease
            | Refusal::Connections => None,
        }
    }

    /// What a TLS alert means; none for that of a peer that is overloaded.
    pub const fn of_alert(alert: u8) -> Option<Self> {
        if alert == ALERT_INTERNAL_ERROR { None } else { Some(Self::Unsaid) }
    }
}

/// What a member knows of its own certificate when it is told why it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It has a lease: some members take its certificate.
    pub leased: bool,
    /// The authority of its certificate, if it is known.
    pub authority: Option<AuthorityId>,
    /// Its certificate is made elsewhere, and renewed there.
    pub foreign: bool,
}

/// What has become of a member, proven by signed attestations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It was evicted.
    Evicted,
    /// It is a member, and another certificate would change nothing.
    Member,
    /// It is a member, and is to have the next certificate issued by its identity key.
    Outdated,
}

/// What `history` says of `node`, which a peer refused with this meaning.
pub fn finding(node: NodeId, meaning: Meaning, history: &History, own: Standing) -> Finding {
    if history.evicted.contains(&node) {
        return Finding::Evicted;
    }
    let useless = match meaning {
        Meaning::Evicted => true,
        // One peer refuses, and others renew the lease: it is no reason to change anything.
        Meaning::Certificate => own.leased,
        Meaning::Unsaid => own.authority.is_some_and(|id| history.newest.authorities.contains(&id)),
    };
    if useless || own.foreign { Finding::Member } else { Finding::Outdated }
}

/// What the member does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Dial this voter, to learn whether it refuses.
    Dial(NodeId, Address),
    /// Ask this voter why, and come back if the answer leads there.
    Ask {
        /// The voter.
        node: NodeId,
        /// Where to dial it.
        address: Address,
        /// What the refusal meant.
        meaning: Meaning,
    },
    /// Serve nothing any more: the member was evicted.
    Leave,
}

/// What a member is doing about a refusal.
#[derive(Debug)]
enum Phase {
    /// It waits for a refusal, and looks for one itself from then on.
    Watching(BootMillis),
    /// It dials a voter.
    Dialing,
    /// It asks the voter that it polled last; these are next.
    Asking { meaning: Meaning, next: VecDeque<(NodeId, Address)> },
    /// It waits before it does anything.
    Pausing(BootMillis),
    /// It knows that it was evicted.
    Out,
}

/// A member's side of being refused. Lost with the process.
#[derive(Debug)]
pub struct RefusalFollower {
    node: NodeId,
    phase: Phase,
    /// The newest failure to connect: the peer, and what that means.
    refused: Option<(NodeId, Meaning)>,
    /// Where in the list of voters it begins next.
    turn: usize,
    pause: u64,
}

impl RefusalFollower {
    /// No peer has refused `node` yet.
    pub const fn new(node: NodeId, now: BootMillis) -> Self {
        let phase = Phase::Watching(now.plus(LOOK_AGAIN_MILLIS));
        Self { node, phase, refused: None, turn: 0, pause: ASK_AGAIN_MILLIS_MIN }
    }

    /// Entries were applied here: the member hears of its cluster.
    pub fn handle_applied(&mut self, now: BootMillis) {
        if let Phase::Watching(_) = self.phase {
            self.watch(now);
        }
    }

    /// The member's own log says that it was evicted.
    pub fn handle_evicted(&mut self) {
        self.phase = Phase::Out;
    }

    /// A connection to `peer` failed; `meaning` is none where that calls for nothing.
    pub fn handle_failure(&mut self, peer: NodeId, meaning: Option<Meaning>, now: BootMillis) {
        self.refused = meaning.map(|meaning| (peer, meaning));
        if matches!(self.phase, Phase::Dialing) {
            self.watch(now);
        }
    }

    /// The voter that was dialed takes this member.
    pub fn handle_dialed(&mut self, now: BootMillis) {
        if matches!(self.phase, Phase::Dialing) {
            self.watch(now);
        }
    }

    /// The voter that was asked has proven what became of this member, and what that led to is done.
    pub fn handle_finding(&mut self, finding: Finding, now: BootMillis) {
        match finding {
            Finding::Evicted => self.phase = Phase::Out,
            Finding::Member | Finding::Outdated => self.back_off(now),
        }
    }

    /// What to do, as `view` has the voters. `leased` tells whether the lease counts. While an action is under way
    /// there is none but the next voter to ask: the one before did not answer.
    pub fn poll_action(&mut self, view: &View, leased: bool, now: BootMillis) -> Option<Action> {
        if let Phase::Pausing(until) = self.phase
            && until <= now
        {
            self.watch(now);
        }
        if let Phase::Watching(look) = self.phase {
            if let Some((peer, meaning)) = self.refused.take() {
                let next = self.voters_from(view, Some(peer)).into();
                self.phase = Phase::Asking { meaning, next };
            } else if look <= now {
                return self.look(view, leased, now);
            }
        }
        match &mut self.phase {
            Phase::Asking { meaning, next } => {
                let meaning = *meaning;
                let Some((node, address)) = next.pop_front() else {
                    // No voter has answered, so that another time they may: it was cut off.
                    self.phase = Phase::Pausing(now.plus(ASK_AGAIN_MILLIS_MIN));
                    return None;
                };
                Some(Action::Ask { node, address, meaning })
            }
            Phase::Out => Some(Action::Leave),
            Phase::Watching(_) | Phase::Dialing | Phase::Pausing(_) => None,
        }
    }

    /// A member with a lease is taken; one without dials a voter, another one each time.
    fn look(&mut self, view: &View, leased: bool, now: BootMillis) -> Option<Action> {
        self.watch(now);
        if leased {
            self.pause = ASK_AGAIN_MILLIS_MIN;
            return None;
        }
        let (node, address) = self.voters_from(view, None).into_iter().next()?;
        self.phase = Phase::Dialing;
        Some(Action::Dial(node, address))
    }

    /// When [`Self::poll_action`] may have something to do, after it had nothing; none if only an event can bring that
    /// about.
    pub const fn poll_timeout(&self) -> Option<BootMillis> {
        match self.phase {
            Phase::Watching(at) | Phase::Pausing(at) => Some(at),
            Phase::Dialing | Phase::Asking { .. } | Phase::Out => None,
        }
    }

    fn watch(&mut self, now: BootMillis) {
        self.phase = Phase::Watching(now.plus(LOOK_AGAIN_MILLIS));
    }

    fn back_off(&mut self, now: BootMillis) {
        self.phase = Phase::Pausing(now.plus(self.pause));
        let doubled = self.pause.saturating_mul(2);
        self.pause = if doubled < ASK_AGAIN_MILLIS_MAX { doubled } else { ASK_AGAIN_MILLIS_MAX };
    }

    /// The other voters with an address, `first` before all others. Another one leads the rest each time.
    fn voters_from(&mut self, view: &View, first: Option<NodeId>) -> Vec<(NodeId, Address)> {
        let others = view.members.voters().filter(|member| member.id != self.node);
        let mut voters: Vec<_> = others.filter_map(|m| Some((m.id, m.addresses.first()?.clone()))).collect();
        let turns = self.turn.checked_rem(voters.len()).unwrap_or(0);
        self.turn = self.turn.wrapping_add(1);
        voters.rotate_left(turns);
        voters.sort_by_key(|(id, _)| Some(*id) != first);
        voters
    }
}
