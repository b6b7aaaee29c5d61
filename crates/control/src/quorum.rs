//! Whether the members that stay can decide, asked before one is removed: a change that cannot be committed is not
//! begun.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_api::cluster::AdminAddressRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_core::id::NodeId;
use countersign_core::member::membership::can_remove;
use countersign_core::trust::member::Member;
use countersign_node::Peers;
use tokio::task::JoinSet;

use crate::{ControlError, Parts};

/// How long a voter may take to show that it is there.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Errors, naming who is not reached and why, where `leaving` cannot be removed from the voters now. Nothing has
/// changed.
pub(super) async fn check(parts: &Parts, leaving: &Member) -> Result<(), ControlError> {
    let voters = parts.group.status().voters;
    if voters.iter().all(|id| *id == leaving.id) {
        return Ok(()); // that it is the last one is the state machine's to say
    }
    let mut asked = JoinSet::new();
    for id in voters.iter().copied().filter(|id| *id != parts.local.node) {
        let peers = parts.peers.clone();
        asked.spawn(async move { (id, answers(&peers, id).await) });
    }
    let mut reached = BTreeSet::from([parts.local.node]);
    while let Some(answered) = asked.join_next().await {
        if let Ok((id, true)) = answered {
            reached.insert(id);
        }
    }
    if can_remove(&voters, leaving.id, &reached) {
        return Ok(());
    }
    let view = parts.local.view();
    let name = |id: &NodeId| view.members.get(id).map_or_else(|| id.to_string(), |member| member.name.to_string());
    let unreached: BTreeMap<String, String> = voters
        .difference(&reached)
        .map(|id| {
            (
                name(id),
                parts
                    .peers
                    .failure(*id)
                    .map_or_else(String::new, |why| format!(" ({})", countersign_node::chain(&*why))),
            )
        })
        .collect();
    let unreached: Vec<String> = unreached.into_iter().map(|(name, why)| format!("{name}{why}")).collect();
    Err(ControlError::NoQuorum { node: leaving.name.clone(), unreached })
}

async fn answers(peers: &Peers, voter: NodeId) -> bool {
    let Some(channel) = peers.channel(voter) else { return false };
    let mut client = MembersClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_DEADLINE, client.admin_address(AdminAddressRequest {})).await;
    // Whatever it says, it is there.
    match answer {
        Ok(Ok(_)) => true,
        Ok(Err(status)) => status.code() != tonic::Code::Unavailable,
        Err(_) => false,
    }
}
