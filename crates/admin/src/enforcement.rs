//! A revocation that is committed, until it is in force everywhere: a report of it for people.

use countersign_api::admin::{EnforcedBy, Enforcement, ReceiptInfo};
use countersign_control::Control;
use countersign_core::id::{Generation, NodeId};
use countersign_core::receipt::{Answer, Barrier};
use countersign_core::trust::view::View;
use countersign_net::{Clock, SystemClock};
use data_encoding::HEXLOWER;

/// What each member said of the revocation of `generation`, by the view in force.
pub(super) fn rendered_for(view: &View, generation: Generation, barrier: Option<&Barrier>) -> Enforcement {
    rendered(generation, barrier, view, SystemClock.now().0)
}

/// Waits until every member enforces the revocation of `generation` or denies, if `wait`, and tells what each said.
pub(super) async fn wait_for(control: &Control, generation: Generation, wait: bool) -> Option<Enforcement> {
    if !wait {
        return None;
    }
    let barrier = control.await_barrier(generation).await;
    Some(rendered_for(&control.view(), generation, barrier.as_ref()))
}

fn rendered(generation: Generation, barrier: Option<&Barrier>, view: &View, now_millis: u64) -> Enforcement {
    let answers = barrier.into_iter().flat_map(|barrier| &barrier.answers);
    let members = answers.map(|(node, answer)| enforced_by(*node, answer, view, now_millis)).collect();
    Enforcement { generation: generation.0, complete: barrier.is_some_and(|barrier| barrier.passed), members }
}

fn enforced_by(node: NodeId, answer: &Answer, view: &View, now_millis: u64) -> EnforcedBy {
    let member = view.members.get(&node).map(|member| member.name.to_string());
    let evicted = || view.evicted.get(&node).map(|gone| format!("{} (evicted)", gone.name));
    let name = member.or_else(evicted).unwrap_or_default();
    let mut rendered = EnforcedBy {
        node: node.0,
        name,
        state: "enforced".to_owned(),
        lease_ends_millis: None,
        receipt: None,
        absence_signature: None,
    };
    match answer {
        Answer::Enforced(receipt) => {
            rendered.receipt = receipt.as_ref().map(|receipt| ReceiptInfo {
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
                (true, false) => "pending",
            };
            rendered.state = state.to_owned();
            rendered.lease_ends_millis = Some(absence.lease_ends.0);
            rendered.absence_signature = Some(HEXLOWER.encode(&absence.signature));
        }
    }
    rendered
}
