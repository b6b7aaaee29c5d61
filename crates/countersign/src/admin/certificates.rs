//! Certificates of brokers, clients and admins. The key is made where it is used; only its public half comes here.

use std::sync::Arc;

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use countersign_api::admin::{CertificateInfo, CertificateIssued, CertificateRequest, CertificateRevoked, IssuedInfo};
use countersign_core::id::{KeyId, NodeId};
use countersign_core::principal::{Principal, Role};
use countersign_core::trust::command::Command;
use countersign_core::trust::member::Issued;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::{IssuedKey, View};
use countersign_pki::csr::{csr_from_pem, parse_csr};
use countersign_pki::pem::certificate_pem;

use super::access::{Acting, Asking, Permitted};
use super::enforcement;
use super::problem::AdminError;
use super::tokens::parsed;
use crate::member::Inner;
use crate::propose::CommandError;

pub(crate) async fn issue(
    asking: Asking,
    body: Result<Json<CertificateRequest>, JsonRejection>,
) -> Result<Json<CertificateIssued>, AdminError> {
    let wanted = parsed(body)?;
    let role = Role::parse(&wanted.role).map_err(|error| {
        AdminError::invalid(
            format!("`{}`: {error}", wanted.role),
            "name a client (a-z, 0-9, `-`), a broker by its host, or an admin",
        )
    })?;
    let member = asking.about(&role.to_string())?.acting()?;
    let csr = csr_from_pem(&wanted.csr)
        .map_err(|_| AdminError::invalid("the certificate request is not PEM", "send a PKCS#10 request as PEM"))?;
    let csr = parse_csr(&csr).map_err(|error| {
        AdminError::invalid(crate::chain(&error).to_string(), "make the request with an Ed25519 or P-256 key")
    })?;
    let ttl_secs = wanted.ttl_secs.unwrap_or(member.client_ttl_secs);
    let command = Command::IssuePrincipal { role, spki: csr.spki.clone(), ttl_secs };
    let done = member.command(command, &csr.spki).await?;
    let Outcome::Issued(grant) = done.outcome else { return Err(CommandError::Unknown.into()) };
    let pem: Vec<String> = done.chain.iter().map(|der| certificate_pem(der)).collect();
    let [leaf, authority] = pem.as_slice() else { return Err(CommandError::Unknown.into()) };
    Ok(Json(CertificateIssued {
        principal: grant.principal.to_string(),
        chain: format!("{leaf}{authority}"),
        authority: authority.clone(),
        not_after: grant.validity.not_after.secs(),
        key: csr.id.to_string(),
    }))
}

pub(crate) async fn list(admin: Permitted) -> Result<Json<Vec<CertificateInfo>>, AdminError> {
    let member = admin.member()?;
    let view = member.endpoint.trust().load().view.clone();
    let info = |role: &Role, key: &KeyId, not_after, issued: &Issued| CertificateInfo {
        principal: Principal { trust_domain: view.trust_domain.clone(), role: role.clone() }.to_string(),
        key: key.to_string(),
        not_after,
        revoked: view.revoked_keys.contains(key),
        issued: IssuedInfo::of(issued),
    };
    let of_principals = view.principals.iter().flat_map(|(role, keys)| {
        keys.iter().map(|(key, issued)| info(role, key, issued.not_after.secs(), &issued.issued))
    });
    let of_members = view
        .members
        .values()
        .map(|m| info(&Role::Node(m.id), &m.leaf.key, m.leaf.validity.not_after.secs(), &m.leaf.issued));
    Ok(Json(of_members.chain(of_principals).collect()))
}

pub(crate) async fn revoke(admin: Permitted, Path(key): Path<String>) -> Result<Json<CertificateRevoked>, AdminError> {
    let id = KeyId::parse(&key).ok_or_else(|| {
        AdminError::invalid(format!("`{key}` is no key id"), "give a key as `countersign cert list` shows it")
    })?;
    let member = admin.acting()?;
    let view = newest(&member);
    if let Some(node) = view.members.values().find(|m| m.keys().any(|key| key == id)) {
        return Err(of_a_node(&view, node.id));
    }
    // One that has ended is off the record, and what was renewed from it may count.
    let of = |(key, issued): (&KeyId, &IssuedKey)| *key == id || issued.renewed_from == Some(id);
    let principal = view.principals.iter().find(|(_, keys)| keys.iter().any(of)).map(|(role, _)| role);
    // Only an authority made elsewhere can have certified a key that is on no record.
    let elsewhere = view.authorities.values().any(|authority| authority.imported);
    if principal.is_none() && !elsewhere && !view.revoked_keys.contains(&id) {
        return Err(AdminError::new(
            StatusCode::NOT_FOUND,
            "unknown-key",
            format!("no certificate of key `{id}` is on record"),
            "see `countersign cert list`",
        ));
    }
    let principal = principal.map(|role| named(&view, role));
    revoked(&member, Command::RevokeKey(id), principal, Some(id.to_string())).await
}

pub(crate) async fn revoke_principal(
    admin: Permitted,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<CertificateRevoked>, AdminError> {
    let text = format!("{kind}/{name}");
    let role = Role::parse(&text)
        .map_err(|error| AdminError::invalid(format!("`{text}`: {error}"), "see `countersign cert list`"))?;
    let member = admin.acting()?;
    let view = newest(&member);
    if let Some(node) = role.node_id() {
        return Err(of_a_node(&view, node));
    }
    let principal = Some(named(&view, &role));
    revoked(&member, Command::RevokePrincipal(role), principal, None).await
}

/// Repeated, it changes nothing, and waits once more for those who were awaited.
async fn revoked(
    member: &Acting,
    command: Command,
    principal: Option<String>,
    key: Option<String>,
) -> Result<Json<CertificateRevoked>, AdminError> {
    let done = member.command(command, &[]).await?;
    let Outcome::Revoked { generation, keys } = done.outcome else { return Err(CommandError::Unknown.into()) };
    let enforcement = enforcement::of(member, generation).await;
    Ok(Json(CertificateRevoked { principal, key, keys: keys as u64, enforcement }))
}

/// What is applied here; the view that is published may be a moment behind it.
fn newest(member: &Inner) -> Arc<View> {
    let applied = member.state.read().view().cloned();
    applied.unwrap_or_else(|| member.endpoint.trust().load().view.clone())
}

fn named(view: &View, role: &Role) -> String {
    Principal { trust_domain: view.trust_domain.clone(), role: role.clone() }.to_string()
}

fn of_a_node(view: &View, node: NodeId) -> AdminError {
    let name = view.members.get(&node).map_or_else(|| node.to_string(), |member| member.name.to_string());
    AdminError::new(
        StatusCode::CONFLICT,
        "of-a-node",
        format!("certificates of node {name} are not revoked: a node is evicted"),
        format!("`countersign node evict {name}`"),
    )
}
