//! A revocation that is committed, until it is in force everywhere: what was seen of it, for people.

use countersign_api::admin::{EnforcedBy, Enforcement, ReceiptInfo};
use countersign_core::id::{Generation, NodeId};
use countersign_core::receipt::{Answer, Barrier};
use countersign_core::trust::view::View;
use countersign_net::{Clock, SystemClock};
use data_encoding::HEXLOWER;

use crate::member::Inner;

/// Waits until every member enforces the revocation of `generation` or denies, and tells what each said.
pub(super) async fn of(member: &Inner, generation: Generation) -> Enforcement {
    let barrier = member.await_barrier(generation).await;
    from(member, generation, barrier.as_ref())
}

/// What each member said of the revocation of `generation`.
pub(super) fn from(member: &Inner, generation: Generation, barrier: Option<&Barrier>) -> Enforcement {
    let view = member.endpoint.trust().load().view.clone();
    shown(generation, barrier, &view, SystemClock.now().0)
}

fn shown(generation: Generation, barrier: Option<&Barrier>, view: &View, now_millis: u64) -> Enforcement {
    let answers = barrier.into_iter().flat_map(|barrier| &barrier.answers);
    let members = answers.map(|(node, answer)| enforced_by(*node, answer, view, now_millis)).collect();
    Enforcement { generation: generation.0, complete: barrier.is_some_and(|barrier| barrier.passed), members }
}

fn enforced_by(node: NodeId, answer: &Answer, view: &View, now_millis: u64) -> EnforcedBy {
    let member = view.members.get(&node).map(|member| member.name.to_string());
    let evicted = || view.evicted.get(&node).map(|gone| format!("{} (evicted)", gone.name));
    let name = member.or_else(evicted).unwrap_or_default();
    let mut shown = EnforcedBy {
        node: node.0,
        name,
        state: "enforced".to_owned(),
        lease_ends_millis: None,
        receipt: None,
        absence_signature: None,
    };
    match answer {
        Answer::Enforced(receipt) => {
            shown.receipt = receipt.as_ref().map(|receipt| ReceiptInfo {
                connections_closed: receipt.closed,
                at_millis: receipt.at.0,
                boot: HEXLOWER.encode(&receipt.boot),
                signature: HEXLOWER.encode(&receipt.signature),
            });
        }
        Answer::Absent(absence) => {
            let lapsed = absence.lease_ends.0 <= now_millis;
            let member = view.members.contains_key(&node);
            let state = match (member, lapsed) {
                // Not waited for: no member lets it in.
                (false, _) => "evicted",
                (true, true) => "lapsed",
                (true, false) => "awaited",
            };
            shown.state = state.to_owned();
            shown.lease_ends_millis = Some(absence.lease_ends.0);
            shown.absence_signature = Some(HEXLOWER.encode(&absence.signature));
        }
    }
    shown
}
