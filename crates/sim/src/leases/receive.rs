//! What a member does with a message: which members it refuses, and what it answers the others.

use countersign_core::id::NodeId;
use countersign_core::lease::Ask;
use countersign_core::peer::{Proof, Refusal, Scope, Wanted, verify};
use countersign_core::trust::author::{permit, permit_in_recovery};

use super::LeaseDanger;
use super::leader::Asker;
use super::machine::Machine;
use super::post::{Body, Message};
use super::verdict::LeaseBroken;
use super::world::Shop;

impl Machine {
    /// Whether a message of a member is taken: its certificate is judged as each connection is, and an eviction in the
    /// own log counts, committed or not.
    fn scope_of(&self, proof: &Proof, from: NodeId, shop: &Shop) -> Result<Result<Scope, Refusal>, LeaseBroken> {
        let Some(view) = self.process.view() else { return Ok(Err(Refusal::NotReady)) };
        if self.raft.evicts.contains(&from) {
            return Ok(Err(Refusal::Evicted));
        }
        match verify(proof, view, Wanted::AnyNode, self.judging_time(shop.now)) {
            Ok(peer) if peer.scope() == Scope::Recovery && shop.breaks(LeaseDanger::ExpiresRecovery) => {
                Ok(Err(Refusal::Expired))
            }
            Ok(peer) => Ok(Ok(peer.scope())),
            // A clock that was set back lets nothing begin that the log here does not tell of yet.
            Err(why @ Refusal::NotYetValid) if !self.clocks.is_right() => Ok(Err(why)),
            Err(why) if shop.record.is_out(from) || !view.members.contains_key(&from) => Ok(Err(why)),
            Err(why) if shop.record.outdated.get(&from) == Some(&proof.key()) => Ok(Err(why)),
            Err(why @ Refusal::Superseded) if shop.record.came_back.contains(&from) => Ok(Err(why)),
            Err(why) => Err(LeaseBroken::MemberRefused { by: self.node, member: from, why }),
        }
    }

    /// Whether this member would speak to another that shows it this certificate.
    pub(crate) fn takes(&self, proof: &Proof, shop: &Shop) -> bool {
        let now = self.judging_time(shop.now);
        self.process.view().is_none_or(|view| verify(proof, view, Wanted::AnyNode, now).is_ok())
    }

    /// Takes in a message of a member whose certificate is `proof`.
    pub(crate) fn receive(&mut self, proof: &Proof, message: Message, shop: &mut Shop) -> Result<(), LeaseBroken> {
        let Message { from, body, .. } = message;
        // Questions and answers are for anybody, lease or not: they prove themselves.
        match body {
            Body::Question { nonce, known } => {
                self.show(from, nonce, known, shop);
                return Ok(());
            }
            Body::Recognition { nonce, answer } => {
                let now = self.boot(shop.now);
                self.told_why(&nonce, proof, &answer, shop)?;
                if let Some(recognizer) = &mut self.process.recognizer {
                    let _ = recognizer.handle_answer(&nonce, from, *answer, now);
                    self.believe(shop);
                }
                return Ok(());
            }
            // A member that is refused speaks as a joiner does, to prove itself by its identity key.
            Body::Return { exporter, request } => {
                self.serve_return(from, exporter, *request, shop);
                return Ok(());
            }
            Body::Returned { exporter, answer } => {
                self.returned(&exporter, answer, shop);
                return Ok(());
            }
            Body::Raft(_)
            | Body::Ask { .. }
            | Body::Answer { .. }
            | Body::Forward(_)
            | Body::Dial
            | Body::Dialed
            | Body::Refused(_) => {}
        }
        let scope = match self.scope_of(proof, from, shop)? {
            Ok(scope) => scope,
            Err(why) => {
                if !matches!(body, Body::Refused(_) | Body::Dialed | Body::Answer { .. }) {
                    shop.report.refused += 1;
                    shop.send(self.node, from, Body::Refused(why));
                }
                return Ok(());
            }
        };
        match body {
            Body::Dial => shop.send(self.node, from, Body::Dialed),
            Body::Dialed => self.dialed(from, shop),
            Body::Refused(why) => self.refused_by(from, why, shop),
            Body::Raft(message) if self.process.recognized && !self.process.refused.contains(&from) => {
                let (led, committed) = (self.raft.leads(), self.raft.committed);
                let sends = self.raft.handle(from, message, self.boot(shop.now).0, &mut shop.rng);
                self.post_raft(sends, shop);
                self.elected(led, shop);
                if self.raft.leads() && self.raft.committed > committed {
                    let sends = self.raft.broadcast(self.boot(shop.now).0, &self.members());
                    self.post_raft(sends, shop);
                }
                self.apply(shop)?;
            }
            // What is expired is granted nothing, but its clock counts: a leader whose own is years ahead takes all
            // for expired.
            Body::Ask { .. } if scope == Scope::Recovery && shop.breaks(LeaseDanger::IgnoresExpiredClocks) => {}
            Body::Ask { epoch, ask, clock } => {
                let ask = Ask { renew: ask.renew && scope == Scope::Full, ..ask };
                self.serve_lease(Asker { node: from, epoch }, ask, clock, shop);
            }
            // An answer to a process that has ended finds no connection.
            Body::Answer { epoch, number, answer, time, honest } if epoch == self.epoch => {
                self.answered(number, (answer, time), honest, shop);
            }
            Body::Forward(command) => {
                let permitted = self.process.view().is_some_and(|view| {
                    permit(view, from, &command).is_ok()
                        && (scope == Scope::Full || permit_in_recovery(from, &command).is_ok())
                });
                if permitted {
                    self.propose(from, *command, shop);
                }
            }
            // Raft of a member that is not believed, an answer to an earlier process, and what was taken above.
            Body::Raft(_)
            | Body::Answer { .. }
            | Body::Question { .. }
            | Body::Recognition { .. }
            | Body::Return { .. }
            | Body::Returned { .. } => {}
        }
        if self.raft.leads() {
            self.grant_confirmed(shop);
        }
        Ok(())
    }
}
