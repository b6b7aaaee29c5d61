//! Which names and addresses stand in certificates: of one member, and of all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{
    ClusterChange, ClusterSettings, GuardLevel, LevelRaise, MemberLevel, NodeHost, NodeHosts, NodeHostsChange,
};
use countersign_api::cluster::GuardsRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_core::id::NodeId;
use countersign_core::name::Host;
use countersign_core::trust::command::Command;
use countersign_core::trust::hosts::ClusterSetting;
use countersign_core::trust::member::Member;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;

use super::access::{Acting, Permitted};
use super::problem::AdminError;
use super::tokens::{hosts, parsed};
use super::{acl, apply, nodes, recent};
use crate::member::Inner;
use crate::propose::CommandError;

/// How long a member may take to say which guards follow it.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

pub(crate) async fn change(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<NodeHostsChange>, JsonRejection>,
) -> Result<Json<NodeHosts>, AdminError> {
    let NodeHostsChange { add, remove } = parsed(body)?;
    let (add, remove) = (hosts(&add)?, hosts(&remove)?);
    let (member, target) = nodes::target(&admin, &node)?;
    carry_out(&member, Command::EditHosts { node: target.id, add, remove }).await?;
    let view = acl::in_force(&member);
    let target = view.members.get(&target.id).ok_or(CommandError::Unknown)?;
    Ok(Json(NodeHosts {
        node: target.id.0,
        name: target.name.to_string(),
        generation: view.generation.0,
        hosts: view.leaf_hosts(target).all().into_iter().map(|host| with_proof(&view, target, host)).collect(),
        unproved: unproved(&view, target),
    }))
}

pub(crate) async fn cluster(admin: Permitted) -> Result<Json<ClusterSettings>, AdminError> {
    Ok(Json(settings(&admin.member()?).await))
}

pub(crate) async fn set_cluster(
    admin: Permitted,
    body: Result<Json<ClusterChange>, JsonRejection>,
) -> Result<Json<ClusterSettings>, AdminError> {
    let ClusterChange { client_names, level_auto } = parsed(body)?;
    let names = client_names.map(|names| hosts(&names)).transpose()?;
    let member = admin.acting()?;
    if let Some(names) = names {
        carry_out(&member, Command::SetCluster(ClusterSetting::ClientNames(names))).await?;
    }
    if let Some(auto) = level_auto {
        carry_out(&member, Command::SetCluster(ClusterSetting::LevelAuto(auto))).await?;
    }
    Ok(Json(settings(&member).await))
}

pub(crate) async fn raise_level(
    admin: Permitted,
    body: Result<Json<LevelRaise>, JsonRejection>,
) -> Result<Json<ClusterSettings>, AdminError> {
    let LevelRaise { without } = parsed(body)?;
    let member = admin.acting()?;
    let without = without.iter().map(|node| Ok(member.control().find(node)?));
    let without: BTreeSet<NodeId> = without.collect::<Result<_, AdminError>>()?;
    // To the newest that this member knows; where others know less, `apply` names them.
    let level = member.state.read().known();
    carry_out(&member, Command::RaiseLevel { level, without, by_itself: false }).await?;
    Ok(Json(settings(&member).await))
}

/// A guard on a host that is no member.
fn guard((name, level): (String, u32)) -> GuardLevel {
    GuardLevel { name, level }
}

/// Has the command applied here before anything is answered.
async fn carry_out(member: &Acting, command: Command) -> Result<(), AdminError> {
    let done = member.command(command, &[]).await?;
    let Outcome::Done(generation) = done.outcome else { return Err(CommandError::Unknown.into()) };
    apply::applied(member, generation, apply::BEHIND_MAX).await
}

/// The guards that follow a member; none if it does not say so in time.
async fn guards_of(member: Arc<Inner>, of: NodeId) -> Option<Vec<GuardLevel>> {
    let mut client = MembersClient::new(member.peers.channel(of)?);
    let reply = tokio::time::timeout(ANSWER_DEADLINE, client.guards(GuardsRequest {})).await;
    let guards = reply.ok()?.ok()?.into_inner().guards.into_iter();
    Some(guards.map(|told| guard((told.name, told.level))).collect())
}

async fn settings(member: &Arc<Inner>) -> ClusterSettings {
    let view = acl::in_force(member);
    let answers = recent::ask_others(member, &view, guards_of).await;
    let unheard = answers.iter().filter(|(_, guards)| guards.is_none()).map(|(id, _)| *id);
    let guards_unheard = recent::names(&view, unheard);
    let own = member.lease.subleases.below(u32::MAX).into_iter().map(guard);
    let guards = own.chain(answers.into_values().flatten().flatten()).collect();
    let state = member.state.read();
    let known =
        |m: &Member| MemberLevel { name: m.name.to_string(), level: m.feature_level, since: m.level_since.secs() };
    let behind = |m: &&Member| m.hosts.shared.iter().ne(&view.client_names);
    // Where certificates are made elsewhere, nothing is known of what they hold.
    let renewing = view.members.values().filter(behind).filter(|_| !view.key_is_elsewhere());
    ClusterSettings {
        cluster: view.name.to_string(),
        cluster_id: view.cluster.to_string(),
        trust_domain: view.trust_domain.to_string(),
        generation: view.generation.0,
        client_names: view.client_names.iter().map(ToString::to_string).collect(),
        renewing: renewing.map(|m| m.name.to_string()).collect(),
        level: state.level(),
        level_auto: state.level_auto(),
        levels: view.members.values().map(known).collect(),
        guards,
        guards_unheard,
    }
}

fn with_proof(view: &View, member: &Member, host: Host) -> NodeHost {
    let proof = match member.proved.get(&host) {
        Some(proof) => proof.to_string(),
        None if view.client_names.contains(&host) => "client_names".to_owned(),
        None => "loopback".to_owned(),
    };
    NodeHost { host: host.to_string(), proof }
}

/// Hosts that a member advertises and nothing proves.
pub(super) fn unproved(view: &View, member: &Member) -> Vec<String> {
    if view.key_is_elsewhere() {
        return vec![];
    }
    let mut hosts: Vec<String> = view.unproved(member).iter().map(|address| address.host.to_string()).collect();
    hosts.dedup();
    hosts
}

/// What an operator should know of hosts that nothing proves.
pub(super) fn warning(view: &View, member: &Member) -> Option<String> {
    let unproved = unproved(view, member);
    let (first, name) = (unproved.first()?, &member.name);
    Some(format!(
        "certificates of {name} do not hold `{}`: no voter finds it there, and no join token names it; try: \
         `countersign node hosts {name} add {first}`",
        unproved.join("`, `")
    ))
}
