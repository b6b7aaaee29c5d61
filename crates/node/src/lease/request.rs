//! One request for a lease on its way: encoded, sent, and its answer read. It decides nothing about the lease.

use std::sync::Arc;

use bytes::Bytes;
use countersign_api::cluster::leases_client::LeasesClient;
use countersign_api::cluster::{LeaseReply, LeaseRequest};
use countersign_core::codec;
use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{Answer, Ask};
use countersign_core::time::UnixMillis;
use countersign_core::trust::agreement::Report;
use countersign_core::trust::digest::Digests;
use countersign_net::{Clock, SystemClock};
use countersign_raft::Refusal;

use super::{Answered, LeaseKeeping, MemberRequest};
use crate::identity::store_return;
use crate::trust::divergence::Compared;

/// An encoded field that may be absent.
fn encoded<T: serde::Serialize>(value: Option<&T>) -> Bytes {
    value.and_then(|value| codec::encode(value).ok()).unwrap_or_default().into()
}

impl LeaseKeeping {
    /// Asks, and returns the answer with the number and the leader of the request; none if none came that counts.
    pub(super) async fn asked_for_lease(self: Arc<Self>, ask: Ask) -> (u64, NodeId, Option<Answered>) {
        let (number, leader) = (ask.number, ask.to.node);
        let answered = self.ask_lease(leader, self.request(ask)).await;
        (number, leader, answered)
    }

    /// What this member says with a request.
    fn request(&self, ask: Ask) -> MemberRequest {
        let Ask { enforced, renew, delegates, enforcements, .. } = ask;
        let (cluster, book) = (self.local.view().cluster, &self.lease.book);
        let signed = |done| book.receipt(done, cluster, self.local.node, &self.local.keys.identity);
        let receipts = enforcements.into_iter().map(signed).collect();
        let digest = self.state.with_digests(Digests::newest);
        let compared = Compared { digest, disputed: self.divergence.disputed() };
        let (clock, store, boot) = (SystemClock.now(), self.local.store, book.boot());
        MemberRequest { enforced, clock, renew, receipts, delegates, store, boot, compared }
    }

    /// A leader refuses this member's store.
    fn refused_for_store(&self, peer: NodeId, refusal: Refusal) {
        match refusal {
            Refusal::OtherStore | Refusal::RolledBack if self.stores.refused_by(peer, refusal) => {
                tracing::error!(%peer, %refusal, "this node's store is refused: it must return with a new one");
                if let Err(error) = store_return::note_refused(&self.local.data, self.local.store) {
                    tracing::error!(error = %crate::chain(&error), "that the store is refused was not noted");
                }
            }
            Refusal::OtherStore | Refusal::RolledBack => {}
            // On its way back: its new store counts once the member has left the group and the record says so.
            Refusal::Conflict
            | Refusal::NotYet
            | Refusal::NotAssigned
            | Refusal::Outsider
            | Refusal::Invalid
            | Refusal::Stopped => {
                tracing::debug!(%peer, %refusal, "no lease");
            }
        }
    }

    /// Whether the leader takes this member's store for the one on record, and answers under the one that is on record
    /// of it.
    fn takes_store(&self, leader: NodeId, reply: &LeaseReply) -> bool {
        if !reply.refused.is_empty() {
            let refusal = codec::decode(&reply.refused).unwrap_or(Refusal::Invalid);
            self.refused_for_store(leader, refusal);
            return false;
        }
        self.stores.taken_by(leader);
        let view = self.state.read().view().cloned();
        let known = self.stores.of(view.as_deref(), leader);
        let counts = known.iter().any(|store| store.0 == *reply.store);
        if !counts {
            // This member is behind, or that one is a copy: a lease of its would be worth nothing.
            tracing::debug!(%leader, "no lease: the leader answers under another store than the one on record");
        }
        counts
    }

    /// The leader's answer; none if there was none.
    async fn ask_lease(&self, leader: NodeId, said: MemberRequest) -> Option<Answered> {
        if leader == self.local.node {
            let answer = self.granting.serve(leader, said).await.ok();
            self.time.compare(self.time.own_stamp());
            return answer;
        }
        let receipts = said.receipts.iter().filter_map(|receipt| codec::encode(receipt).ok());
        let request = LeaseRequest {
            generation: said.enforced.0,
            clock_millis: said.clock.0,
            renew: said.renew,
            receipts: receipts.map(Into::into).collect(),
            delegates: said.delegates,
            store: Bytes::copy_from_slice(&said.store.0),
            boot: Bytes::copy_from_slice(&said.boot.0),
            digest: encoded(said.compared.digest.as_ref()),
            disputed: encoded(said.compared.disputed.as_ref()),
        };
        let mut client = LeasesClient::new(self.peers.channel(leader)?);
        let reply = match client.lease(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => {
                tracing::debug!(%leader, %status, "no lease");
                return None;
            }
        };
        if !self.takes_store(leader, &reply) {
            return None;
        }
        self.time.compare((reply.time_millis > 0).then_some(UnixMillis(reply.time_millis)));
        let report = |bytes: &[u8]| codec::decode::<Report>(bytes).ok().map(Report::bounded);
        let disputed = if reply.disputed.is_empty() { Some(Report::default()) } else { report(&reply.disputed) };
        if let Some(disputed) = disputed {
            self.divergence.follow_leader(&disputed);
        }
        let answer = if reply.replaced {
            Answer::Replaced
        } else if !reply.differs.is_empty() {
            // Unreadable, it still says that there is no lease.
            return Some(Answered { answer: Answer::Differs, report: report(&reply.differs) });
        } else if reply.granted {
            Answer::Granted(Generation(reply.generation))
        } else {
            Answer::Heard
        };
        Some(Answered { answer, report: None })
    }
}
