//! Questions that this member asks all others: of requests that they decided lately, on which a change of rules is
//! tried before it is made, and of guards that follow them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_api::cluster::RecentRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::convert::decoded;
use countersign_core::authz::Recorded;
use countersign_core::id::NodeId;
use countersign_core::limits::RECENT_REQUESTS_MAX;
use countersign_core::trust::view::View;
use countersign_guard::Guard;
use countersign_node::{Local, Peers};
use tokio::task::JoinSet;

/// How long a member may take to tell its recent requests.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Members that are asked at once.
const ASKED_AT_ONCE: usize = 8;
/// Bytes of what one member tells: all that it records, at its longest.
const REPLY_LEN_MAX: usize = 8 * 1024 * 1024;

/// Requests that were decided lately, each once, and the members that did not tell theirs.
pub(crate) struct Recent {
    pub(crate) requests: Vec<Recorded>,
    pub(crate) unheard: Vec<String>,
}

/// What every member of `view` records.
pub(crate) async fn recent(guard: &Guard, local: &Local, peers: &Peers, view: &View) -> Recent {
    let mut all: BTreeSet<Recorded> = guard.recent().into_iter().collect();
    let mut unheard = BTreeSet::new();
    for (id, told) in ask_others(local, peers, view, told).await {
        if !told.is_some_and(|told| added(&mut all, told)) {
            unheard.insert(id);
        }
    }
    Recent { requests: all.into_iter().collect(), unheard: names(view, unheard) }
}

/// What each other member of `view` answers, a few asked at once; none of those that do not.
pub(crate) async fn ask_others<T: Send + 'static, F: Future<Output = Option<T>> + Send + 'static>(
    local: &Local,
    peers: &Peers,
    view: &View,
    ask: impl Fn(Peers, NodeId) -> F,
) -> BTreeMap<NodeId, Option<T>> {
    let others: Vec<NodeId> = view.members.scan().keys().copied().filter(|id| *id != local.node).collect();
    let mut answers: BTreeMap<NodeId, Option<T>> = others.iter().map(|id| (*id, None)).collect();
    let mut others = others.into_iter();
    let mut asked = JoinSet::new();
    loop {
        for id in others.by_ref().take(ASKED_AT_ONCE.saturating_sub(asked.len())) {
            let answer = ask(peers.clone(), id);
            asked.spawn(async move { (id, answer.await) });
        }
        match asked.join_next().await {
            None => return answers,
            Some(Ok((id, answer))) => drop(answers.insert(id, answer)),
            Some(Err(_)) => {}
        }
    }
}

/// The names of members.
pub(crate) fn names(view: &View, of: impl IntoIterator<Item = NodeId>) -> Vec<String> {
    of.into_iter().filter_map(|id| view.members.get(&id)).map(|member| member.name.to_string()).collect()
}

/// Adds what one member told, unless that would be too much.
fn added(all: &mut BTreeSet<Recorded>, told: Vec<Recorded>) -> bool {
    let fits = all.len().saturating_add(told.len()) <= RECENT_REQUESTS_MAX;
    if fits {
        all.extend(told);
    }
    fits
}

/// What one member records; nothing if it does not say so in time, or says what cannot be read.
async fn told(peers: Peers, of: NodeId) -> Option<Vec<Recorded>> {
    let channel = peers.channel(of)?;
    let mut client = MembersClient::new(channel).max_decoding_message_size(REPLY_LEN_MAX);
    let reply = tokio::time::timeout(ANSWER_DEADLINE, client.recent(RecentRequest {})).await;
    let requests = reply.ok()?.ok()?.into_inner().requests;
    requests.iter().map(|request| decoded("request", request).ok()).collect()
}

#[cfg(test)]
mod tests {
    use countersign_core::authz::{Action, Kind};
    use countersign_core::principal::Role;

    use super::*;

    #[test]
    fn what_a_member_tells_is_taken_whole_up_to_the_limit_and_not_at_all_past_it() {
        let requests = |names: std::ops::Range<usize>| {
            let principal = Role::Node(NodeId(1));
            let request = |name: usize| (principal.clone(), name.to_string());
            let recorded =
                |(principal, name)| Recorded { principal, action: Action::Read, kind: Kind::TOPIC, name, from: None };
            names.map(request).map(recorded).collect::<Vec<_>>()
        };
        let mut all = BTreeSet::new();
        assert!(added(&mut all, requests(0..RECENT_REQUESTS_MAX - 2)));
        assert!(!added(&mut all, requests(70_000..70_003)));
        assert_eq!(all.len(), RECENT_REQUESTS_MAX - 2);
        assert!(added(&mut all, requests(70_000..70_002)));
        assert!(!added(&mut all, requests(70_003..70_004)));
        assert_eq!(all.len(), RECENT_REQUESTS_MAX);
    }
}
