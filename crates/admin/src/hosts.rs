//! Names and addresses in certificates, of one member and of all; and the settings of the whole cluster.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{ClusterChange, ClusterSettings, LevelRaise, NodeHost, NodeHosts, NodeHostsChange};
use countersign_control::unproved;
use countersign_core::id::NodeId;
use countersign_core::name::Host;
use countersign_core::trust::member::Member;
use countersign_core::trust::view::View;

use crate::access::Permitted;
use crate::nodes;
use crate::problem::AdminError;
use crate::tokens::{hosts, parsed};

pub(crate) async fn change(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<NodeHostsChange>, JsonRejection>,
) -> Result<Json<NodeHosts>, AdminError> {
    let NodeHostsChange { add, remove } = parsed(body)?;
    let (add, remove) = (hosts(&add)?, hosts(&remove)?);
    let (control, target) = nodes::target(&admin, &node)?;
    let view = control.edit_hosts(target.id, add, remove).await?;
    let target = view.members.get(&target.id).unwrap_or(&target);
    Ok(Json(NodeHosts {
        node: target.id.0,
        name: target.name.to_string(),
        generation: view.generation.0,
        hosts: view.leaf_hosts(target).all().into_iter().map(|host| with_proof(&view, target, host)).collect(),
        unproved: unproved(&view, target),
    }))
}

pub(crate) async fn cluster(admin: Permitted) -> Result<Json<ClusterSettings>, AdminError> {
    Ok(Json(admin.control()?.cluster_settings().await))
}

pub(crate) async fn set_cluster(
    admin: Permitted,
    body: Result<Json<ClusterChange>, JsonRejection>,
) -> Result<Json<ClusterSettings>, AdminError> {
    let ClusterChange { client_names, level_auto } = parsed(body)?;
    let names = client_names.map(|names| hosts(&names)).transpose()?;
    let control = admin.control()?;
    if let Some(names) = names {
        control.set_client_names(names).await?;
    }
    if let Some(auto) = level_auto {
        control.set_level_auto(auto).await?;
    }
    Ok(Json(control.cluster_settings().await))
}

pub(crate) async fn raise_level(
    admin: Permitted,
    body: Result<Json<LevelRaise>, JsonRejection>,
) -> Result<Json<ClusterSettings>, AdminError> {
    let LevelRaise { without } = parsed(body)?;
    let control = admin.control()?;
    let without = without.iter().map(|node| control.find(node));
    let without: BTreeSet<NodeId> = without.collect::<Result<_, _>>()?;
    control.raise_level(without).await?;
    Ok(Json(control.cluster_settings().await))
}

fn with_proof(view: &View, member: &Member, host: Host) -> NodeHost {
    let proof = match member.proved.get(&host) {
        Some(proof) => proof.to_string(),
        None if view.client_names.contains(&host) => "client_names".to_owned(),
        None => "loopback".to_owned(),
    };
    NodeHost { host: host.to_string(), proof }
}
