//! Certificates of brokers, clients and admins. The key is made where it is used; only its public half comes here.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use countersign_api::admin::{CertificateInfo, CertificateIssued, CertificateRequest};
use countersign_core::id::KeyId;
use countersign_core::principal::{Principal, Role};
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::Outcome;
use countersign_pki::csr::{csr_from_pem, parse_csr};
use countersign_pki::pem::certificate_pem;

use super::problem::AdminError;
use super::routes::Admin;
use super::tokens::parsed;
use crate::propose::CommandError;

pub(crate) async fn issue(
    State(admin): State<Admin>,
    body: Result<Json<CertificateRequest>, JsonRejection>,
) -> Result<Json<CertificateIssued>, AdminError> {
    let wanted = parsed(body)?;
    let role = Role::parse(&wanted.role).map_err(|error| {
        AdminError::invalid(
            format!("`{}`: {error}", wanted.role),
            "name a client (a-z, 0-9, `-`), a broker by its host, or an admin",
        )
    })?;
    let csr = csr_from_pem(&wanted.csr)
        .map_err(|_| AdminError::invalid("the certificate request is not PEM", "send a PKCS#10 request as PEM"))?;
    let csr = parse_csr(&csr).map_err(|error| {
        AdminError::invalid(crate::chain(&error).to_string(), "make the request with an Ed25519 or P-256 key")
    })?;
    let member = admin.member()?;
    let command = Command::IssuePrincipal { role, spki: csr.spki.clone(), ttl_secs: wanted.ttl_secs };
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

pub(crate) async fn list(State(admin): State<Admin>) -> Result<Json<Vec<CertificateInfo>>, AdminError> {
    let member = admin.member()?;
    let view = member.endpoint.trust().load().view.clone();
    let info = |role: &Role, key: &KeyId, not_after| CertificateInfo {
        principal: Principal { trust_domain: view.trust_domain.clone(), role: role.clone() }.to_string(),
        key: key.to_string(),
        not_after,
        revoked: view.revoked_keys.contains(key),
    };
    let of_principals = view
        .principals
        .iter()
        .flat_map(|(role, keys)| keys.iter().map(|(key, issued)| info(role, key, issued.not_after.secs())));
    let of_members =
        view.members.values().map(|m| info(&Role::Node(m.id), &m.leaf.key, m.leaf.validity.not_after.secs()));
    Ok(Json(of_members.chain(of_principals).collect()))
}

pub(crate) async fn revoke(
    State(admin): State<Admin>,
    Path(key): Path<String>,
) -> Result<Json<CertificateInfo>, AdminError> {
    let id = KeyId::parse(&key).ok_or_else(|| {
        AdminError::invalid(format!("`{key}` is no key id"), "give a key as `countersign cert list` shows it")
    })?;
    let member = admin.member()?;
    let view = member.endpoint.trust().load().view.clone();
    if let Some(node) = view.members.values().find(|m| m.leaf.key == id) {
        return Err(AdminError::new(
            axum::http::StatusCode::CONFLICT,
            "key-of-a-node",
            format!("the key is that of node {}", node.name),
            format!("`countersign node evict {}`", node.name),
        ));
    }
    let known = view.principals.iter().find_map(|(role, keys)| keys.get(&id).map(|issued| (role, issued)));
    let principal = known.map(|(role, _)| Principal { trust_domain: view.trust_domain.clone(), role: role.clone() });
    member.command(Command::RevokeKey(id), &[]).await?;
    Ok(Json(CertificateInfo {
        principal: principal.map_or_else(|| "not on record".to_owned(), |p| p.to_string()),
        key: id.to_string(),
        not_after: known.map_or(0, |(_, issued)| issued.not_after.secs()),
        revoked: true,
    }))
}
