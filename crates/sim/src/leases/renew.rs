//! Renewal, one durable step at a time: the key, the certificate, its use, and the cluster's knowledge of its use.
//! When it is due, the core decides.

use countersign_core::id::KeyId;
use countersign_core::member::renewal::{Action, renewal_number};
use countersign_core::peer::CertificateClaims;
use countersign_core::trust::command::{Command, Renew};

use super::machine::Machine;
use super::post::Body;
use super::world::Shop;

/// Milliseconds from one attempt to the next.
const RETRY: u64 = 400;

/// The next certificate of a member, as far as it has come.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    /// The key is stored, and asked for until the cluster has it on record.
    Asked(KeyId),
    /// The certificate is stored, and not used yet.
    Stored(Box<CertificateClaims>),
}

/// Copies of a disk that are kept.
const COPIES_MAX: usize = 4;

impl Machine {
    /// Keeps a copy of what the disk holds.
    fn copy(&mut self) {
        if self.copies.len() >= COPIES_MAX {
            self.copies.remove(0);
        }
        self.copies.push((self.credential.clone(), self.next.clone()));
    }

    /// One step, if it is time for one. A crash may come between any two.
    pub(crate) fn renew(&mut self, shop: &mut Shop) {
        let Some(leader) = self.raft.leader.filter(|_| shop.now >= self.process.acted_at + RETRY) else { return };
        let Some(view) = self.process.view().cloned() else { return };
        let Some(member) = view.members.get(&self.node) else { return };
        // Where the certificate in use is not on record, only a return leads on.
        if member.leaf_of(self.credential.key).is_none() {
            return;
        }
        let (node, time, now) = (self.node, self.judging_time(shop.now), self.boot(shop.now));
        let keeper = &mut self.process.certificate;
        let forward = match &self.next {
            None => {
                // The same at each start.
                let [high, low, ..] = self.credential.key.0;
                keeper.handle_certificate(self.credential.key, u16::from_be_bytes([high, low]));
                match keeper.poll_action(&view, time, now) {
                    Some(Action::Adopt(adopt)) => {
                        // Whether the cluster was told, only its record says.
                        keeper.handle_not_adopted(now);
                        Some(Command::AdoptLeaf(adopt))
                    }
                    Some(Action::Renew { .. }) => {
                        self.copy();
                        self.next = Some(Next::Asked(KeyId(shop.rng.bytes())));
                        self.copy();
                        None
                    }
                    None => return,
                }
            }
            Some(Next::Asked(key)) => {
                let (key, cluster) = (*key, shop.home.cluster);
                match member.leaf_of(key) {
                    Some(leaf) => {
                        let endorsement = Some(self.keys.endorse(cluster, key, leaf.renewal));
                        let validity = leaf.validity;
                        let next = CertificateClaims { key, validity, endorsement, ..self.credential.clone() };
                        self.next = Some(Next::Stored(Box::new(next)));
                        None
                    }
                    None => {
                        let endorsement = self.keys.endorse(cluster, key, renewal_number(member, key, time));
                        Some(Command::Renew(Renew { node, key, endorsement }))
                    }
                }
            }
            Some(Next::Stored(next)) => {
                self.credential = (**next).clone();
                self.next = None;
                keeper.handle_renewed(now);
                shop.report.renewals += 1;
                shop.published(&self.credential);
                None
            }
        };
        self.process.acted_at = shop.now;
        if let Some(command) = forward {
            self.process.acted_at += RETRY;
            shop.send(node, leader, Body::Forward(Box::new(command)));
        } else {
            self.process.acted_at = 0;
        }
    }
}
