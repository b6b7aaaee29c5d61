//! What a member says of itself and of its cluster.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use countersign_api::admin::{AuthorityStatus, CertificateStatus, EvictedStatus, MemberStatus, RaftStatus, Status};
use countersign_core::trust::member::{Member, Suffrage};
use countersign_core::trust::view::View;
use countersign_raft::{GroupState, GroupStatus};

use super::problem::AdminError;
use super::routes::Admin;
use crate::files::ForeignIdentity;
use crate::member::Inner;

/// How long a leader, or a leader's followers, may be silent: ten heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Seconds before its end at which a certificate is warned of: a third of the 90 days that it lives.
const EXPIRY_WARNING_SECS: u64 = 30 * 86_400;

pub(crate) async fn status(State(admin): State<Admin>) -> Result<Json<Status>, AdminError> {
    Ok(Json(of(&*admin.member()?)))
}

pub(crate) async fn nodes(State(admin): State<Admin>) -> Result<Json<Vec<MemberStatus>>, AdminError> {
    let member = admin.member()?;
    let trust = member.endpoint.trust().load();
    Ok(Json(members(&member, &trust.view, &member.group.status())))
}

/// Whether this member takes part: it follows or is a leader, Raft counts it in, and it holds a lease to serve by.
pub(crate) fn is_ready(member: &Inner) -> bool {
    let status = member.group.status();
    let counted = status.voters.contains(&member.node) || status.learners.contains(&member.node);
    let heard = match status.state {
        // A leader that lost its quorum keeps its state for a while; its followers' silence gives it away.
        GroupState::Leader => {
            let silent = u128::from(status.millis_since_quorum_ack.unwrap_or(u64::MAX));
            status.voters.len() == 1 || silent < SILENCE_MAX.as_millis()
        }
        GroupState::Follower | GroupState::Learner => status.leader.is_some() && member.heard.lately(SILENCE_MAX),
        GroupState::Candidate | GroupState::Stopped => false,
    };
    counted && heard && member.lease.fresh().is_ok()
}

pub(crate) const fn state_label(state: GroupState) -> &'static str {
    match state {
        GroupState::Leader => "leader",
        GroupState::Follower => "follower",
        GroupState::Learner => "learner",
        GroupState::Candidate => "candidate",
        GroupState::Stopped => "stopped",
    }
}

fn of(member: &Inner) -> Status {
    let trust = member.endpoint.trust().load();
    let view = &trust.view;
    let raft = member.group.status();
    let recorded = view.members.get(&member.node).map(|m| m.leaf.validity);
    let shown = member.keys.leaf.foreign().map(ForeignIdentity::validity).or(recorded);
    let (authority_id, authority) = match view.active_authority() {
        Some((id, authority)) => (id.to_string(), Some(authority)),
        None => (String::new(), None),
    };
    Status {
        node: member.node.0,
        name: member.file.name.to_string(),
        cluster: view.name.to_string(),
        cluster_id: view.cluster.to_string(),
        trust_domain: view.trust_domain.to_string(),
        generation: view.generation.0,
        ready: is_ready(member),
        lease_millis_left: member.lease.millis_left(),
        members: members(member, view, &raft),
        evicted: view
            .evicted
            .iter()
            .map(|(id, e)| EvictedStatus { node: id.0, name: e.name.to_string(), generation: e.generation.0 })
            .collect(),
        authority: AuthorityStatus {
            fingerprint: authority_id,
            not_after: authority.map_or(0, |a| a.validity.not_after.secs()),
            imported: authority.is_some_and(|a| a.imported),
        },
        certificate: CertificateStatus {
            principal: format!("spiffe://{}/node/{}", view.trust_domain, member.node),
            not_before: shown.map_or(0, |validity| validity.not_before.secs()),
            not_after: shown.map_or(0, |validity| validity.not_after.secs()),
        },
        signs: member.keeper.holds(),
        key_protection: key_protection(view).to_owned(),
        connections: member.endpoint.registry().connections().len(),
        warnings: warnings(member, view, &raft),
        raft: RaftStatus {
            state: state_label(raft.state).to_owned(),
            leader: raft.leader.map(|id| id.0),
            term: raft.term,
            last_index: raft.last_log.unwrap_or(0),
            applied_index: raft.applied.map_or(0, |at| at.index),
            voters: raft.voters.iter().map(|id| id.0).collect(),
            learners: raft.learners.iter().map(|id| id.0).collect(),
        },
    }
}

fn key_protection(view: &View) -> &'static str {
    if view.key_is_elsewhere() {
        return "CA key held elsewhere: this cluster issues no certificates";
    }
    "CA key sealed to each voter (HPKE); sealing keys protected by file permissions only"
}

fn members(member: &Inner, view: &View, raft: &GroupStatus) -> Vec<MemberStatus> {
    let state = member.state.read();
    let authority = view.active_authority().map(|(id, _)| id);
    let opened = |m: &Member| authority.and_then(|a| state.sealed().get(&(a, m.id))).is_some_and(|copy| copy.opened);
    let status = |m: &Member| MemberStatus {
        node: m.id.0,
        name: m.name.to_string(),
        suffrage: m.suffrage,
        settled: match m.suffrage {
            Suffrage::Voter => raft.voters.contains(&m.id),
            Suffrage::Learner => raft.learners.contains(&m.id) && !raft.voters.contains(&m.id),
        },
        addresses: m.addresses.iter().map(ToString::to_string).collect(),
        role: m.role.clone(),
        attributes: m.attributes.clone(),
        holds_authority: opened(m),
        certificate_not_after: m.leaf.validity.not_after.secs(),
        identity: m.keys.identity.id().to_string(),
        this: m.id == member.node,
    };
    view.members.values().map(status).collect()
}

fn warnings(member: &Inner, view: &View, raft: &GroupStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    let now = member.now();
    if raft.voters.len() == 1 && view.members.len() > 1 {
        warnings.push("one voter only: if it fails, the cluster cannot change; promote others".to_owned());
    }
    if raft.voters.len() == 2 {
        warnings.push("two voters: if either fails, the cluster cannot change; promote a third".to_owned());
    }
    for m in view.members.values() {
        let not_after = match member.keys.leaf.foreign() {
            None => m.leaf.validity.not_after,
            Some(foreign) if m.id == member.node => foreign.validity().not_after,
            // Made anew for the same key it is not told: its holder warns of it.
            Some(_) => now.plus_secs(EXPIRY_WARNING_SECS),
        };
        let left = not_after.secs_since(now);
        if not_after < now {
            warnings.push(format!("certificate of {} has expired", m.name));
        } else if left < EXPIRY_WARNING_SECS {
            warnings.push(format!("certificate of {} expires in {} days", m.name, left / 86_400));
        }
        if m.id != member.node
            && let Some(failure) = member.peers.failure(m.id)
        {
            warnings.push(format!("{} is not reached: {}", m.name, crate::chain(&*failure)));
        }
    }
    if matches!(raft.state, GroupState::Follower | GroupState::Learner) && !member.heard.lately(SILENCE_MAX) {
        warnings.push("the leader is silent: it is down, out of reach, or this node was evicted".to_owned());
    }
    if !view.members.contains_key(&member.node) {
        warnings.push("this node was evicted: empty its data directory before it joins again".to_owned());
    }
    warnings
}
