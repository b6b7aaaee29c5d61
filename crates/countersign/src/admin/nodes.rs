//! Members: promoted, demoted, evicted. Each is a command, then a wait until Raft's membership has followed.

use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use countersign_api::admin::{NodeChanged, NodeQuarantined, NodeRemove};
use countersign_core::id::{Generation, NodeId};
use countersign_core::trust::command::Command;
use countersign_core::trust::member::{Member, Suffrage};
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use countersign_raft::GroupStatus;

use super::access::{Acting, Permitted};
use super::enforcement;
use super::problem::AdminError;
use super::quorum;
use super::tokens::parsed;
use crate::member::Inner;
use crate::propose::CommandError;

/// How long Raft's membership may take to follow.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the voters may take to sign what the cluster becomes before a member is evicted.
const STATED_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) async fn promote(admin: Permitted, Path(node): Path<String>) -> Result<Json<NodeChanged>, AdminError> {
    let (member, target) = target(&admin, &node)?;
    let suffrage = Suffrage::Voter;
    let command = Command::SetSuffrage { node: target.id, suffrage, keep_authority: false };
    match member.command(command, &[]).await {
        // Asked for before, and maybe not settled: wait for the rest.
        Ok(_) | Err(CommandError::Refused(Refused::Unchanged(..))) => {}
        Err(error) => return Err(error.into()),
    }
    settled(&member, &target, |status| status.voters.contains(&target.id)).await?;
    Ok(Json(changed(&member, &target)))
}

pub(crate) async fn demote(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<NodeRemove>, JsonRejection>,
) -> Result<Json<NodeChanged>, AdminError> {
    let how = parsed(body)?;
    let (member, target) = target(&admin, &node)?;
    leave_voters(&member, &target, &how).await?;
    Ok(Json(changed(&member, &target)))
}

pub(crate) async fn evict(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<NodeRemove>, JsonRejection>,
) -> Result<Json<NodeChanged>, AdminError> {
    let how = parsed(body)?;
    let (member, target) = target(&admin, &node)?;
    // Once out of the voters it could not ask for the rest.
    if target.id == member.node {
        return Err(AdminError::new(
            StatusCode::CONFLICT,
            "evicts-itself",
            format!("node {} cannot evict itself", target.name),
            "run the command on another voter",
        ));
    }
    // First out of the voters, so that the eviction does not cut off its own quorum; then refused.
    let demoted = if target.suffrage == Suffrage::Voter { leave_voters(&member, &target, &how).await? } else { None };
    stated(&member, &target, demoted).await?;
    let NodeRemove { compromised, keep_authority } = how;
    let done = member.command(Command::Evict { node: target.id, compromised, keep_authority }, &[]).await?;
    let Outcome::Evicted { generation, tokens_revoked } = done.outcome else {
        return Err(CommandError::Unknown.into());
    };
    let tokens_revoked = tokens_revoked.iter().map(ToString::to_string).collect();
    let enforcement = Some(enforcement::of(&member, generation).await);
    Ok(Json(NodeChanged { tokens_revoked, enforcement, ..changed(&member, &target) }))
}

/// Has this member refuse another by itself, at once and after each start, until it is lifted.
pub(crate) async fn quarantine(
    admin: Permitted,
    Path(node): Path<String>,
) -> Result<Json<NodeQuarantined>, AdminError> {
    quarantined(&*admin.member()?, &node, false)
}

/// Lets another in again, as far as the cluster does.
pub(crate) async fn lift_quarantine(
    admin: Permitted,
    Path(node): Path<String>,
) -> Result<Json<NodeQuarantined>, AdminError> {
    quarantined(&*admin.member()?, &node, true)
}

fn quarantined(member: &Inner, node: &str, lift: bool) -> Result<Json<NodeQuarantined>, AdminError> {
    let target = find(member, node)?;
    if target.id == member.node {
        return Err(AdminError::new(
            StatusCode::CONFLICT,
            "quarantines-itself",
            format!("node {} cannot refuse itself", target.name),
            "stop it, or run the command on other voters",
        ));
    }
    let closed = member.overlay.quarantine(&member.data, target.id, lift).map_err(|error| {
        let next = "make room and see who owns the data directory, then repeat the command";
        AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "not-stored", crate::chain(&error).to_string(), next)
    })?;
    tracing::warn!(node = %target.id, name = %target.name, lift, "quarantine by the operator of this host");
    let (node, name) = (target.id.0, target.name.to_string());
    Ok(Json(NodeQuarantined { node, name, quarantined: !lift, connections_closed: closed as u64 }))
}

/// The generation that shows it; none where it was shown before.
async fn leave_voters(member: &Acting, target: &Member, how: &NodeRemove) -> Result<Option<Generation>, AdminError> {
    quorum::check(member, target).await?;
    let suffrage = Suffrage::Learner;
    let command = Command::SetSuffrage { node: target.id, suffrage, keep_authority: how.keep_authority };
    let demoted = match member.command(command, &[]).await {
        Ok(done) => match done.outcome {
            Outcome::Done(generation) => Some(generation),
            _ => None,
        },
        Err(CommandError::Refused(Refused::Unchanged(..))) if member.group.status().voters.contains(&target.id) => None,
        Err(error) => return Err(error.into()),
    };
    settled(member, target, |status| !status.voters.contains(&target.id)).await?;
    Ok(demoted)
}

/// Waits until enough voters have signed that `target` votes no more, which may need its own signature: once it is evicted
/// it gives none, and whoever is away could never recognize the cluster again.
async fn stated(member: &Inner, target: &Member, demoted: Option<Generation>) -> Result<(), AdminError> {
    let done = || {
        let state = member.state.read();
        let applied = state.view().map_or(Generation(0), |view| view.generation);
        let shown = demoted.is_none_or(|generation| applied >= generation && state.is_stated(generation));
        shown && state.needs(target.id).is_none()
    };
    let mut applied = member.state.applied();
    let signed = async {
        while !done() {
            if applied.changed().await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(STATED_DEADLINE, signed).await.is_ok() && done() {
        return Ok(());
    }
    let state = member.state.read();
    let name = |id: &NodeId| {
        let known = state.view().and_then(|view| view.members.get(id));
        known.map_or_else(|| id.to_string(), |member| member.name.to_string())
    };
    let unsigned: Vec<String> = state.unsigned().iter().map(name).collect();
    Err(AdminError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-stated",
        format!(
            "node {} is no voter any more, and is not evicted: what the cluster has become lacks signatures, and these have \
             not signed: {}",
            target.name,
            unsigned.join(", ")
        ),
        "start them, so that they sign, and repeat the command; until then, `countersign node quarantine` it",
    ))
}

async fn settled(member: &Inner, target: &Member, reached: impl FnMut(&GroupStatus) -> bool) -> Result<(), AdminError> {
    let mut status = member.group.watch();
    let waited = tokio::time::timeout(SETTLE_DEADLINE, status.wait_for(reached)).await;
    if matches!(waited, Ok(Ok(_))) {
        return Ok(());
    }
    Err(AdminError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-settled",
        format!(
            "the change is recorded, but raft has not followed for node {} within {} seconds",
            target.name,
            SETTLE_DEADLINE.as_secs()
        ),
        "see which members are not reached: `countersign status`; then repeat the command",
    ))
}

/// The member that a path names, if the request was judged by the name that it has.
pub(super) fn target(admin: &Permitted, text: &str) -> Result<(Acting, Member), AdminError> {
    let member = admin.acting()?;
    let target = find(&member, text)?;
    if admin.is_about(target.name.as_str()) {
        return Ok((member, target));
    }
    let message = format!("members have changed: `{text}` is node {} now", target.name);
    Err(AdminError::new(
        StatusCode::CONFLICT,
        "changed",
        message,
        "see `countersign node list`, and repeat the command",
    ))
}

/// By name, or by number: a name may be a number, and is a name then. Whatever a member may be named by must ask here: who
/// is judged must be who is acted on.
pub(super) fn named<'a>(view: &'a View, text: &str) -> Option<&'a Member> {
    let by_name = view.members.values().find(|member| member.name.as_str() == text);
    by_name.or_else(|| view.members.get(&NodeId(text.parse().ok()?)))
}

pub(super) fn find(member: &Inner, text: &str) -> Result<Member, AdminError> {
    let trust = member.endpoint.trust().load();
    let state = member.state.read();
    let view = state.view().unwrap_or(&trust.view);
    let number = text.parse().ok().map(NodeId);
    let found = named(view, text);
    if let Some(found) = found {
        return Ok(found.clone());
    }
    let gone = view.evicted.iter().find(|(id, e)| e.name.as_str() == text || Some(**id) == number);
    if let Some((id, _)) = gone {
        return Err(CommandError::Refused(Refused::AlreadyEvicted(*id)).into());
    }
    let names: Vec<&str> = view.members.values().map(|m| m.name.as_str()).collect();
    Err(AdminError::new(
        StatusCode::NOT_FOUND,
        "unknown-node",
        format!("there is no node `{text}`"),
        format!("name one of: {}", names.join(", ")),
    ))
}

fn changed(member: &Inner, target: &Member) -> NodeChanged {
    NodeChanged {
        node: target.id.0,
        name: target.name.to_string(),
        generation: member.endpoint.trust().load().view.generation.0,
        tokens_revoked: vec![],
        enforcement: None,
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::enroll::EnrollmentRequest;
    use countersign_core::id::{RequestId, StoreId};
    use countersign_core::key::{Endorsement, SecretKey};
    use countersign_core::name::{Address, Name};
    use countersign_core::secret::Secret;
    use countersign_core::trust::join_token::{JoinToken, TokenRecord};
    use countersign_core::trust::member::MemberKeys;

    use super::*;
    use crate::propose::tests::founded;

    /// Admits a voter that holds the CA key, and never runs: node 2.
    async fn admit_silent_voter(member: &Inner) {
        // So much log that Raft never counts it as caught up, and goes on without it.
        for level in 0..150 {
            member.own_command(Command::ReportFeatureLevel { node: NodeId(1), level }, &[]).await.unwrap();
        }
        let view = member.endpoint.trust().load().view.clone();
        let (authority, _) = view.active_authority().unwrap();
        let key = |seed| SecretKey::from_seed(Secret::new([seed; 32]));
        let (token, suffrage) = (JoinToken::new(Secret::new([7; 32]), authority), Suffrage::Voter);
        let (verifier, pin, not_after) = (token.key().public(), authority, member.now().plus_secs(600));
        let (name, role, attributes) = (None, None, std::collections::BTreeMap::new());
        let (uses, uses_left, revoked, cluster_token) = (1, 1, false, false);
        let record = TokenRecord {
            verifier,
            pin,
            suffrage,
            uses,
            uses_left,
            not_after,
            name,
            hosts: vec![],
            role,
            attributes,
            revoked,
            cluster_token,
        };
        member.own_command(Command::AddJoinToken(record), &[]).await.unwrap();
        let leaf_key = key(2).public().id();
        let request = EnrollmentRequest {
            cluster: view.cluster,
            pin,
            token: token.id(),
            request: RequestId([1; 16]),
            name: Name::parse("silent").unwrap(),
            addresses: vec![Address::parse("127.0.0.1:1").unwrap()],
            leaf_key,
            foreign: None,
            endorsement: Endorsement::sign(&key(1), view.cluster, leaf_key, 0),
            keys: MemberKeys { identity: key(1).public(), sealing: [1; 32], ucan: key(3).public() },
            store: StoreId([2; 16]),
            feature_level: 1,
            sponsor_leaf: [3; 32],
            exporter: [4; 32],
            signature: [0; 64],
        };
        member.own_command(Command::Admit(Box::new(request.signed(&token.key()).into())), &[]).await.unwrap();
        let (node, sealed) = (NodeId(2), vec![9]);
        member.own_command(Command::SealAuthority { authority, node, sealed }, &[]).await.unwrap();
        let copy = member.state.read().sealed()[&(authority, node)].ciphertext.clone();
        let signature = member.keeper.confirm(&view, node, &copy).unwrap();
        member.own_command(Command::ConfirmAuthority { authority, node, signature }, &[]).await.unwrap();
    }

    #[tokio::test]
    async fn a_voter_whose_own_signature_is_missing_is_named_and_not_evicted() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(&data).await;
        let member = &Permitted::for_testing(&running.0, "silent").acting().unwrap();
        admit_silent_voter(member).await;
        let target = find(member, "silent").unwrap();
        let how = NodeRemove { compromised: false, keep_authority: true };
        let demoted = leave_voters(member, &target, &how).await.unwrap();
        let problem = format!("{:?}", stated(member, &target, demoted).await.unwrap_err());
        assert!(problem.contains("not-stated") && problem.contains("not signed: silent"), "{problem}");
        // Asked for again, now of a learner; and by itself.
        stated(member, &target, None).await.unwrap_err();
        let evict = Command::Evict { node: target.id, compromised: false, keep_authority: true };
        let refused = member.own_command(evict, &[]).await.unwrap_err();
        assert!(
            matches!(refused, CommandError::Refused(Refused::SignatureMissing { node: NodeId(2), .. })),
            "{refused:?}"
        );
        assert!(member.state.read().view().unwrap().members.contains_key(&target.id));
        running.shutdown().await;
    }

    #[tokio::test]
    async fn nobody_is_acted_on_but_whom_the_request_was_judged_by() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(&data).await;
        let found = |judged: &str, text: &str| {
            let found = target(&Permitted::for_testing(&running.0, judged), text);
            found.map(|(_, member)| member.id).map_err(|error| error.problem.code)
        };
        assert_eq!((found("n1", "n1"), found("n1", "1")), (Ok(NodeId(1)), Ok(NodeId(1))));
        // Judged when there was no such member, and when another had the name.
        assert_eq!(found("1", "1"), Err("changed".to_owned()));
        assert_eq!(found("other", "n1"), Err("changed".to_owned()));

        let view = running.0.endpoint.trust().load().view.clone();
        let mut odd = View::clone(&view);
        let member = view.members[&NodeId(1)].clone();
        for (id, name) in [(2, "3"), (3, "n3")] {
            let (id, name) = (NodeId(id), Name::parse(name).unwrap());
            odd.members.insert(id, Member { id, name, ..member.clone() });
        }
        let id = |text: &str| named(&odd, text).map(|member| member.id.0);
        assert_eq!([id("3"), id("2"), id("n3"), id("1"), id("4")], [Some(2), Some(2), Some(3), Some(1), None]);
        running.shutdown().await;
    }
}
