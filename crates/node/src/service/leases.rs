//! What the leader serves members besides Raft: leases, and barriers over them.

use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::leases_server::Leases;
use countersign_api::cluster::{BarrierReply, BarrierRequest, LeaseReply, LeaseRequest};
use countersign_api::convert::decoded;
use countersign_core::codec;
use countersign_core::id::{BootId, Generation, NodeId, StoreId};
use countersign_core::lease::Answer;
use countersign_core::receipt::Receipt;
use countersign_core::time::UnixMillis;
use countersign_core::trust::agreement::Report;
use countersign_core::trust::digest::DigestAt;
use countersign_core::trust::member::Suffrage;
use countersign_net::{Clock, SystemClock};
use countersign_raft::{Refusal, StoreFault};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::peers::{PeerService, caller};
use super::unreadable;
use crate::lease::{Answered, MemberRequest};
use crate::trust::divergence::Compared;

/// Receipts that one request may carry.
const RECEIPTS_MAX: usize = 64;

#[tonic::async_trait]
impl Leases for PeerService {
    async fn lease(&self, request: Request<LeaseRequest>) -> Result<Response<LeaseReply>, Status> {
        let from = caller(&request)?;
        let may_lease = super::recovery::may_lease(&request);
        let LeaseRequest { generation, clock_millis, renew, receipts, delegates, store, boot, digest, disputed } =
            request.into_inner();
        let store = store.as_ref().try_into().map(StoreId).map_err(|_| Status::invalid_argument("malformed store"))?;
        let boot = boot.as_ref().try_into().map(BootId).map_err(|_| Status::invalid_argument("malformed boot"))?;
        let digest: Option<DigestAt> = match digest.as_ref() {
            [] => None,
            bytes => Some(decoded("digest", bytes).map_err(|error| unreadable("digest", error))?),
        };
        let disputed: Option<Report> = match disputed.as_ref() {
            [] => None,
            bytes => Some(decoded("disputed", bytes).map_err(|error| unreadable("disputed", error))?),
        };
        let compared = Compared { digest, disputed: disputed.map(Report::bounded) };
        if receipts.len() > RECEIPTS_MAX {
            return Err(Status::invalid_argument("too many receipts"));
        }
        let receipts: Result<Vec<Receipt>, _> = receipts.iter().map(|bytes| decoded("receipt", bytes)).collect();
        let receipts = receipts.map_err(|error| unreadable("receipt", error))?;
        let (enforced, clock) = (Generation(generation), UnixMillis(clock_millis));
        if let Err(refused) = self.counts(from, store) {
            let refused = codec::encode(&refused).map_err(|_| Status::internal("refused"))?;
            return Ok(Response::new(LeaseReply { refused: refused.into(), ..LeaseReply::default() }));
        }
        let own = Bytes::copy_from_slice(&self.local.store.0);
        let renew = renew && may_lease;
        let answered = self
            .granting
            .serve(from, MemberRequest { enforced, clock, renew, receipts, delegates, store, boot, compared })
            .await;
        let Answered { answer, report } = answered.map_err(|_| Status::failed_precondition("not the leader"))?;
        // The leader's clock where the voters' bear it out, never the last stamp: a stamp that ran ahead would make
        // every right clock a wrong one.
        let time_millis = self.time.stamp().map_or(0, |_| SystemClock.now().0);
        let disputed = self.divergence.disputed().and_then(|report| codec::encode(&report).ok()).unwrap_or_default();
        let heard = LeaseReply { time_millis, store: own, disputed: disputed.into(), ..LeaseReply::default() };
        Ok(Response::new(match answer {
            Answer::Heard => heard,
            Answer::Granted(generation) => LeaseReply { granted: true, generation: generation.0, ..heard },
            Answer::Replaced => LeaseReply { replaced: true, ..heard },
            Answer::Differs => {
                let differs = codec::encode(&report.unwrap_or_default()).map_err(|_| Status::internal("report"))?;
                LeaseReply { differs: differs.into(), ..heard }
            }
        }))
    }

    async fn barrier(&self, request: Request<BarrierRequest>) -> Result<Response<BarrierReply>, Status> {
        let from = caller(&request)?;
        let votes = {
            let state = self.state.read();
            state.view().and_then(|view| view.members.get(&from)).is_some_and(|m| m.suffrage == Suffrage::Voter)
        };
        if !votes {
            return Err(Status::permission_denied("not a voter"));
        }
        let BarrierRequest { generation, wait_millis } = request.into_inner();
        let wait = Duration::from_millis(wait_millis).min(self.granting.barrier_patience());
        let barrier = self.granting.barrier(Generation(generation), Instant::now() + wait).await;
        let barrier = barrier.map_err(|_| Status::failed_precondition("not the leader"))?;
        let report = codec::encode(&barrier).map_err(|_| Status::internal("report"))?;
        Ok(Response::new(BarrierReply { report: report.into() }))
    }
}

impl PeerService {
    /// Whether `store` counts as the store of `node`, so that what it says of itself may be believed.
    fn counts(&self, node: NodeId, store: StoreId) -> Result<(), Refusal> {
        let view = self.state.read().view().cloned();
        let stores = self.stores.of(view.as_deref(), node);
        let Some(expected) = stores.first() else { return Err(Refusal::NotYet) };
        if stores.contains(&store) {
            return if self.group.is_rolled_back(node, store) { Err(Refusal::RolledBack) } else { Ok(()) };
        }
        // On its way back: it counts once the member has left the group.
        if view.and_then(|view| view.members.get(&node)?.returning) == Some(store) {
            return Err(Refusal::NotYet);
        }
        self.stores.distrusted(&StoreFault::Other { node, expected: *expected, got: store });
        Err(Refusal::OtherStore)
    }
}
