//! A member that its peers refuse: it asks why, learns that it was evicted, or comes back by its identity key. What it
//! does about a refusal, the core decides.
//!
//! A voter is asked as a member is that was away. Its answer proves itself, or counts for nothing.

use countersign_core::enroll::returning::{ReturnChannel, ReturnError, ReturnRequest, Returning};
use countersign_core::id::{KeyId, NodeId};
use countersign_core::member::recognition::{Answer, History};
use countersign_core::member::returning::{Action, Finding, Meaning, Standing, finding};
use countersign_core::peer::{CertificateClaims, Proof, Refusal};
use countersign_core::time::BootMillis;
use countersign_core::trust::author::permit;
use countersign_core::trust::command::{Command, Renew};
use countersign_core::trust::member::Leaf;
use countersign_core::trust::outcome::{Outcome, Refused};

use super::LeaseDanger;
use super::machine::Machine;
use super::post::{Body, Denied};
use super::renew::Next;
use super::verdict::LeaseBroken;
use super::world::Shop;

/// Milliseconds that one voter may take to be dialed, and to prove an answer and issue a certificate.
const DIAL: u64 = 500;
const ANSWER: u64 = 3_000;
/// Milliseconds from one request for a certificate to the same once more.
const AGAIN: u64 = 400;
/// Times that a renewal number may turn out to be another.
const NUMBERS_MAX: u32 = 3;

/// What a member waits for that asks why it is refused.
#[derive(Debug)]
pub(crate) enum Inquiry {
    /// A voter that it dials.
    Dialing { voter: NodeId, until: BootMillis },
    /// A voter that it asks.
    Asking(Asking),
}

#[derive(Debug)]
pub(crate) struct Asking {
    voter: NodeId,
    meaning: Meaning,
    /// The nonce of the question, and what tells this connection from others.
    exporter: [u8; 32],
    history: History,
    until: BootMillis,
    returning: Option<Request>,
}

/// A request for the next certificate.
#[derive(Debug, Clone, Copy)]
struct Request {
    key: KeyId,
    number: u64,
    /// What the voter showed when it was dialed.
    server: KeyId,
    tries: u32,
    again: BootMillis,
}

impl Machine {
    /// One step of what follows from refusals.
    pub(crate) fn follow_refusals(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        let Some(view) = self.process.view().cloned() else { return Ok(()) };
        let now = self.boot(shop.now);
        if view.evicted.contains_key(&self.node) {
            self.process.follower.handle_evicted();
            shop.report.logged += u64::from(!self.process.proven);
            self.process.proven = true;
            self.process.inquiry = None;
        }
        match &self.process.inquiry {
            Some(Inquiry::Dialing { voter, until }) if *until <= now => {
                self.process.follower.handle_failure(*voter, None, now);
                self.process.inquiry = None;
            }
            Some(Inquiry::Asking(asking)) if asking.until <= now => self.process.inquiry = None,
            Some(Inquiry::Asking(_)) => self.ask_again(now, shop),
            Some(Inquiry::Dialing { .. }) | None => {}
        }
        if self.process.inquiry.is_some() {
            return Ok(());
        }
        let leased = self.has_lease(shop.now);
        match self.process.follower.poll_action(&view, leased, now) {
            Some(Action::Dial(..) | Action::Ask { .. }) if shop.breaks(LeaseDanger::NeverAsksWhy) => {}
            Some(Action::Dial(voter, _)) => {
                self.process.inquiry = Some(Inquiry::Dialing { voter, until: now.plus(DIAL) });
                shop.send(self.node, voter, Body::Dial);
            }
            Some(Action::Ask { node: voter, meaning, .. }) => {
                let history = History::from(view.attestation.clone());
                let (exporter, known) = (shop.rng.bytes(), history.newest.number);
                let until = now.plus(ANSWER);
                let asking = Asking { voter, meaning, exporter, history, until, returning: None };
                self.process.inquiry = Some(Inquiry::Asking(asking));
                shop.send(self.node, voter, Body::Question { nonce: exporter, known });
            }
            Some(Action::Leave) => return self.leave(shop),
            None => {}
        }
        Ok(())
    }

    /// Serves no client any more.
    fn leave(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        if !shop.record.is_out(self.node) {
            return Err(LeaseBroken::LeftUnproven { member: self.node });
        }
        if !self.process.left {
            self.process.left = true;
            shop.note(format_args!("node {} leaves", self.node));
        }
        if !shop.breaks(LeaseDanger::ServesEvicted) {
            self.process.keeper.surrender();
            self.process.connections.clear();
        }
        Ok(())
    }

    /// A peer does not take this member's certificate, or says so.
    pub(crate) fn refused_by(&mut self, peer: NodeId, why: Refusal, shop: &mut Shop) {
        let now = self.boot(shop.now);
        let meaning = Meaning::of_refusal(why);
        if meaning == Some(Meaning::Evicted) && shop.breaks(LeaseDanger::BelievesRefusal) {
            self.process.follower.handle_finding(Finding::Evicted, now);
        }
        self.process.follower.handle_failure(peer, meaning, now);
        if matches!(self.process.inquiry, Some(Inquiry::Dialing { voter, .. }) if voter == peer) {
            self.process.inquiry = None;
        }
    }

    pub(crate) fn dialed(&mut self, peer: NodeId, shop: &Shop) {
        if matches!(self.process.inquiry, Some(Inquiry::Dialing { voter, .. }) if voter == peer) {
            self.process.inquiry = None;
            self.process.follower.handle_dialed(self.boot(shop.now));
        }
    }

    /// The answer of a voter that was asked why. `server` is what it showed when it was dialed.
    pub(crate) fn told_why(
        &mut self,
        nonce: &[u8; 32],
        server: &Proof,
        answer: &Answer,
        shop: &mut Shop,
    ) -> Result<(), LeaseBroken> {
        self.take_why(nonce, server, answer, shop);
        self.follow_refusals(shop)
    }

    fn take_why(&mut self, nonce: &[u8; 32], server: &Proof, answer: &Answer, shop: &mut Shop) {
        let now = self.boot(shop.now);
        let leased = self.has_lease(shop.now);
        let Some(Inquiry::Asking(asking)) = &mut self.process.inquiry else { return };
        if asking.exporter != *nonce || asking.returning.is_some() {
            return;
        }
        if asking.history.follow(&answer.page).is_err() {
            // It proves nothing: the next voter is asked.
            self.process.inquiry = None;
            return;
        }
        if answer.page.has_more() {
            let known = asking.history.newest.number;
            shop.send(self.node, asking.voter, Body::Question { nonce: *nonce, known });
            return;
        }
        if asking.history.evicted.contains(&self.node) && !self.process.proven {
            self.process.proven = true;
            shop.report.proven += 1;
        }
        let own = Standing { leased, authority: Some(self.credential.authority), foreign: false };
        let finding = finding(self.node, asking.meaning, &asking.history, own);
        if finding == Finding::Outdated {
            if is_recognized(server, &asking.history, shop) {
                self.begin_return(server.key(), now, shop);
            } else {
                self.process.inquiry = None;
            }
            return;
        }
        self.process.inquiry = None;
        self.process.follower.handle_finding(finding, now);
    }

    /// Asks for the next certificate: with the key that is stored already, or a new one.
    fn begin_return(&mut self, server: KeyId, now: BootMillis, shop: &mut Shop) {
        let key = match &self.next {
            _ if shop.breaks(LeaseDanger::ReturnsWithOldKey) => self.credential.key,
            Some(Next::Asked(key)) => *key,
            Some(Next::Stored(next)) => next.key,
            None => KeyId(shop.rng.bytes()),
        };
        self.next = Some(Next::Asked(key));
        shop.record.outdated.insert(self.node, self.credential.key);
        shop.record.came_back.insert(self.node);
        let record = self.process.view().and_then(|view| view.members.get(&self.node));
        let number = record.map_or(1, |member| member.renewal().saturating_add(1));
        if let Some(Inquiry::Asking(asking)) = &mut self.process.inquiry {
            asking.returning = Some(Request { key, number, server, tries: 1, again: now });
        }
        self.ask_again(now, shop);
    }

    /// Sends the request for the next certificate, if it is time to.
    fn ask_again(&mut self, now: BootMillis, shop: &mut Shop) {
        let Some(Inquiry::Asking(Asking { voter, exporter, returning: Some(request), .. })) = &mut self.process.inquiry
        else {
            return;
        };
        if now < request.again {
            return;
        }
        request.again = now.plus(AGAIN);
        let channel = ReturnChannel { leaf: request.server.0, exporter: *exporter };
        let ids = (shop.home.cluster, self.node);
        let signed = ReturnRequest::sign(&self.keys.identity(), ids, (request.key, request.number), channel);
        shop.send(self.node, *voter, Body::Return { exporter: *exporter, request: Box::new(signed) });
    }

    /// Takes the certificate over, or asks for it by the number that counts.
    pub(crate) fn returned(&mut self, exporter: &[u8; 32], answer: Result<Box<Leaf>, Denied>, shop: &mut Shop) {
        let now = self.boot(shop.now);
        let Some(Inquiry::Asking(asking)) = &mut self.process.inquiry else { return };
        let Some(request) = asking.returning.as_mut().filter(|_| asking.exporter == *exporter) else { return };
        match answer {
            Ok(leaf) if leaf.key == request.key => {
                let endorsement = Some(self.keys.endorse(shop.home.cluster, leaf.key, leaf.renewal));
                let (key, validity) = (leaf.key, leaf.validity);
                self.credential = CertificateClaims { key, validity, endorsement, ..self.credential.clone() };
                self.next = None;
                self.process.inquiry = None;
                self.process.follower.handle_finding(Finding::Outdated, now);
                shop.report.returns += 1;
                shop.published(&self.credential);
                shop.note(format_args!("node {} has returned as renewal {}", self.node, leaf.renewal));
            }
            Err(Denied::Number(number)) if number != request.number && request.tries < NUMBERS_MAX => {
                (request.number, request.tries, request.again) = (number, request.tries + 1, now);
                self.ask_again(now, shop);
            }
            Err(Denied::Key) => (self.next, self.process.inquiry) = (None, None),
            Ok(_) | Err(Denied::Number(_)) => self.process.inquiry = None,
        }
    }

    /// A voter's side: the request is on its way to the leader, unless its number is another.
    pub(crate) fn serve_return(&mut self, from: NodeId, exporter: [u8; 32], request: ReturnRequest, shop: &mut Shop) {
        let Some(view) = self.process.view().cloned() else { return };
        let channel = ReturnChannel { leaf: self.credential.key.0, exporter };
        let key = request.leaf_key;
        match Returning::check(request, &channel, key, (&view, self.judging_time(shop.now))) {
            Ok(returning) => {
                let command = returning.into_command();
                let Some(leader) = self.raft.leader.filter(|_| permit(&view, self.node, &command).is_ok()) else {
                    return;
                };
                self.process.sponsored.insert(from, (key, exporter));
                shop.send(self.node, leader, Body::Forward(Box::new(command)));
            }
            Err(ReturnError::Refused(Refused::RenewalOutOfOrder { next, .. })) => {
                shop.send(self.node, from, Body::Returned { exporter, answer: Err(Denied::Number(next)) });
            }
            Err(_) => {}
        }
    }

    /// The answer to a request for a certificate is what became of it in the log: the state here may be behind.
    pub(crate) fn answer_return(&mut self, command: &Command, outcome: &Outcome, shop: &mut Shop) {
        let Command::Renew(Renew { node, key, .. }) = command else { return };
        let Some((sponsored, exporter)) = self.process.sponsored.get(node).copied() else { return };
        let answer = match outcome {
            Outcome::Renewed(renewed) if renewed.leaf.key == sponsored => Ok(Box::new(renewed.leaf.clone())),
            Outcome::Refused(Refused::RenewalOutOfOrder { next, .. }) if *key == sponsored => {
                Err(Denied::Number(*next))
            }
            Outcome::Refused(Refused::KeyRevoked) if *key == sponsored => Err(Denied::Key),
            _ => return,
        };
        self.process.sponsored.remove(node);
        shop.send(self.node, *node, Body::Returned { exporter, answer });
    }
}

/// Whether a server is of the cluster as its attestations show it.
fn is_recognized(server: &Proof, history: &History, shop: &Shop) -> bool {
    let Proof::Certificate(certificate) = server;
    let CertificateClaims { authority, cluster, principal, .. } = certificate.claims();
    let evicted = principal.role.node_id().is_none_or(|node| history.evicted.contains(&node));
    history.newest.authorities.contains(authority) && *cluster == Some(shop.home.cluster) && !evicted
}
