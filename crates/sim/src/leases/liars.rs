//! What evicted machines say that fell to the adversary, and what a member says that lies about a refusal alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::id::NodeId;
use countersign_core::lease::Answer;
use countersign_core::member::recognition::{self, Excerpt, Page};
use countersign_core::peer::Refusal;
use countersign_core::trust::attestation::{Attestation, Signature, SignedAttestation};
use countersign_core::trust::recognition::AttestationClaim;

use super::machine::Machine;
use super::post::{Body, Denied, Due, Message};
use super::raft::RaftMessage;
use super::world::World;

/// What a member that hears it could do something about. Of a member without a lease it is only said that it was
/// evicted: see the limits at the top of this simulation.
const REASONS: [Refusal; 5] =
    [Refusal::Evicted, Refusal::KeyRevoked, Refusal::Superseded, Refusal::Authority, Refusal::KeyUnknown];

impl World {
    /// What an evicted machine answers: whatever keeps the asker as it is, or drives it away.
    pub(crate) fn deceive(&mut self, message: Message) {
        let Message { from, to, body } = message;
        let Some(own) = self.fallen.get(&to) else { return };
        let body = match body {
            Body::Ask { epoch, ask, .. } if self.may_lie(to, from) => {
                let answer = Answer::Granted(ask.enforced);
                Body::Answer { epoch, number: ask.number, answer, time: None, honest: false }
            }
            Body::Question { nonce, .. } => {
                let Some(view) = own.process.view() else { return };
                if self.shop.rng.one_in(2) {
                    self.shop.report.forged += 1;
                    Body::Recognition { nonce, answer: Box::new(forged(own, &view.attestation, from, &nonce)) }
                } else {
                    let excerpt = Excerpt::of([], &self.shop.record.founding);
                    let answer = Box::new(excerpt.answer(to, &own.keys.identity(), &nonce, view));
                    Body::Recognition { nonce, answer }
                }
            }
            Body::Dial => {
                self.shop.report.lied += 1;
                Body::Refused(self.untrue(from))
            }
            Body::Return { exporter, .. } => {
                self.shop.report.forged += 1;
                Body::Returned { exporter, answer: Err(Denied::Number(self.shop.rng.below(u64::MAX))) }
            }
            _ => return,
        };
        self.shop.later(1, Due::Deliver(Message { from: to, to: from, body }));
    }

    /// An evicted machine says to a member that has been away that it leads, in a term that no member has seen.
    pub(crate) fn pretend(&mut self) {
        self.shop.later_within(20, 150, Due::Pretend);
        let (live, gone): (Vec<_>, Vec<_>) = (self.live(), self.fallen.keys().copied().collect());
        let Some(from) = self.shop.rng.pick(&gone).copied() else { return };
        let Some(to) = self.shop.rng.pick(&live).copied() else { return };
        let Some(machine) = self.machines.get(&to).filter(|machine| machine.up) else { return };
        if self.may_lie(from, to) {
            self.shop.report.pretended += 1;
            let (term, entries) = (machine.raft.term + 1, Vec::new());
            let append = RaftMessage::Append { term, prev: 0, prev_term: 0, entries, committed: 0, round: 1 };
            self.shop.later(1, Due::Deliver(Message { from, to, body: Body::Raft(append) }));
        }
    }

    /// A machine, evicted or not, refuses a member for no reason.
    pub(crate) fn slander(&mut self) {
        self.shop.later_within(200, 3_000, Due::Slander);
        let live = self.live();
        let all: Vec<NodeId> = live.iter().chain(self.fallen.keys()).copied().collect();
        let (Some(from), Some(to)) = (self.shop.rng.pick(&all).copied(), self.shop.rng.pick(&live).copied()) else {
            return;
        };
        let why = self.untrue(to);
        if from != to {
            self.shop.report.lied += 1;
            self.shop.later(1, Due::Deliver(Message { from, to, body: Body::Refused(why) }));
        }
    }

    fn untrue(&mut self, to: NodeId) -> Refusal {
        let leased = self.machines.get(&to).is_some_and(|machine| machine.has_lease(self.shop.now));
        let drawn = self.shop.rng.pick(&REASONS).copied().filter(|_| leased);
        drawn.unwrap_or(Refusal::Evicted)
    }

    /// Whether the evicted `from` says to `to` that it leads, or that it grants a lease: to a member that has been
    /// away since the barrier over its eviction returned, and so has to recognize its cluster; to others only where
    /// that is looked at.
    pub(crate) fn may_lie(&self, from: NodeId, to: NodeId) -> bool {
        let wish = self.shop.record.out.get(&from).and_then(|wish| self.shop.record.wishes.get(*wish));
        let (returned, member) = (wish.and_then(|wish| wish.returned), self.machines.get(&to));
        let away = returned.zip(member).is_some_and(|(returned, member)| member.process.away_since > returned);
        away || self.shop.setting.captures
    }
}

/// An attestation that evicts `victim`, signed only by the member that shows it.
fn forged(own: &Machine, known: &Arc<Attestation>, victim: NodeId, nonce: &[u8; 32]) -> recognition::Answer {
    let mut next = Attestation::clone(known);
    (next.number, next.previous) = (known.number + 1, known.digest());
    next.generation.0 += 1;
    (next.evicted, next.voters) = (BTreeSet::from([victim]), known.voters.clone());
    next.voters.remove(&victim);
    let next = Arc::new(next);
    let identity = own.keys.identity();
    let signatures = BTreeMap::from([(own.node, Signature(identity.sign(&next.transcript())))]);
    let claim = AttestationClaim::of(own.node, &next);
    let page = Page::of(vec![SignedAttestation { attestation: next, signatures }], claim.number);
    let signature = Some(claim.sign(&identity, nonce));
    recognition::Answer { claim, page, signature, voters: Vec::new() }
}
