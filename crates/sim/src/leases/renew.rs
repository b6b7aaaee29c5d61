//! Renewal, one durable step at a time: the key, the certificate, its use, and the cluster's knowledge of its use.

use countersign_core::id::KeyId;
use countersign_core::peer::CertificateClaims;
use countersign_core::trust::command::{AdoptLeaf, Command, Renew};

use super::machine::Machine;
use super::post::Body;
use super::world::Shop;

/// Milliseconds from one attempt to the next, and from one renewal to the next where a clock is wrong by years.
const RETRY: u64 = 400;
const PAUSE: u64 = 8_000;

/// The next certificate of a member, as far as it has come.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    /// The key is stored, and asked for until the cluster has it on record.
    Asked { key: KeyId, renewal: u64 },
    /// The certificate is stored, and not used yet.
    Stored(Box<CertificateClaims>),
}

impl Machine {
    fn renewal(&self) -> u64 {
        self.credential.endorsement.as_ref().map_or(0, |endorsement| endorsement.renewal)
    }

    /// When the certificate in use is to be renewed: somewhere between 50 and 80 % of its life, the same at each start.
    fn due(&self) -> u64 {
        let life = self.credential.validity.not_after.0 - self.credential.validity.not_before.0;
        let drawn = u64::from(self.credential.key.0[0]) * 30 / 255;
        self.credential.validity.not_before.0 + life * (50 + drawn) / 100
    }

    /// One step, if it is time for one. A crash may come between any two.
    pub(crate) fn renew(&mut self, shop: &mut Shop) {
        let Some(leader) = self.raft.leader.filter(|_| shop.now >= self.process.acted_at + RETRY) else { return };
        let Some(member) = self.process.view().and_then(|view| view.members.get(&self.node)) else { return };
        let adopts = member.leaf.key != self.credential.key && member.leaf_of(self.credential.key).is_some();
        let (number, node, cluster) = (self.renewal() + 1, self.node, shop.home.cluster);
        let forward = match &self.next {
            None if adopts => Some(Command::AdoptLeaf(AdoptLeaf { node, renewal: self.renewal() })),
            None if self.judging_time(shop.now).0 < self.due() => return,
            None if self.process.renewed_at > 0 && shop.now < self.process.renewed_at + PAUSE => return,
            None => {
                self.next = Some(Next::Asked { key: KeyId(shop.rng.bytes()), renewal: number });
                None
            }
            Some(Next::Asked { key, renewal }) => {
                let endorsement = self.keys.endorse(cluster, *key, *renewal);
                match member.leaf_of(*key) {
                    Some(leaf) => {
                        let (key, validity, endorsement) = (*key, leaf.validity, Some(endorsement));
                        let next = CertificateClaims { key, validity, endorsement, ..self.credential.clone() };
                        self.next = Some(Next::Stored(Box::new(next)));
                        None
                    }
                    None => Some(Command::Renew(Renew { node, key: *key, endorsement })),
                }
            }
            Some(Next::Stored(next)) => {
                self.credential = (**next).clone();
                self.next = None;
                self.process.renewed_at = shop.now;
                shop.report.renewals += 1;
                shop.published(&self.credential);
                Some(Command::AdoptLeaf(AdoptLeaf { node, renewal: number }))
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
