//! Certificates of brokers, clients and admins. The key is made where it is used; only its public half comes here.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{CertificateInfo, CertificateIssued, CertificateRequest, CertificateRevoked, IssuedInfo};
use countersign_control::{Control, IssuedCertificate, NewCertificate, RevokedCertificates};
use countersign_core::id::KeyId;
use countersign_core::principal::{Principal, Role};
use countersign_core::trust::member::Issued;
use countersign_node::chain;
use countersign_pki::csr::{csr_from_pem, parse_csr};
use countersign_pki::pem::certificate_pem;

use crate::access::{Asking, Permitted};
use crate::enforcement;
use crate::problem::AdminError;
use crate::tokens::parsed;

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
    let control = asking.about(&role.to_string())?.control()?;
    let csr = csr_from_pem(&wanted.csr)
        .map_err(|_| AdminError::invalid("the certificate request is not PEM", "send a PKCS#10 request as PEM"))?;
    let csr = parse_csr(&csr).map_err(|error| {
        AdminError::invalid(chain(&error).to_string(), "make the request with an Ed25519 or P-256 key")
    })?;
    let wanted = NewCertificate { role, spki: csr.spki, ttl_secs: wanted.ttl_secs };
    let IssuedCertificate { principal, leaf, authority, validity } = control.issue_certificate(wanted).await?;
    let (leaf, authority) = (certificate_pem(&leaf), certificate_pem(&authority));
    Ok(Json(CertificateIssued {
        principal: principal.to_string(),
        chain: format!("{leaf}{authority}"),
        authority,
        not_after: validity.not_after.secs(),
        key: csr.id.to_string(),
    }))
}

pub(crate) async fn list(admin: Permitted) -> Result<Json<Vec<CertificateInfo>>, AdminError> {
    let member = admin.member()?;
    let view = member.local.view();
    let info = |role: &Role, key: &KeyId, not_after, issued: &Issued| CertificateInfo {
        principal: Principal { trust_domain: view.trust_domain.clone(), role: role.clone() }.to_string(),
        key: key.to_string(),
        not_after,
        revoked: view.revoked_keys.contains(key),
        issued: IssuedInfo::of(issued),
    };
    let of_principals = view.principals.scan().iter().flat_map(|(role, keys)| {
        keys.iter().map(|(key, issued)| info(role, key, issued.not_after.secs(), &issued.issued))
    });
    let of_members = view
        .members
        .scan()
        .values()
        .map(|m| info(&Role::Node(m.id), &m.leaf.key, m.leaf.validity.not_after.secs(), &m.leaf.issued));
    Ok(Json(of_members.chain(of_principals).collect()))
}

pub(crate) async fn revoke(admin: Permitted, Path(key): Path<String>) -> Result<Json<CertificateRevoked>, AdminError> {
    let id = KeyId::parse(&key).ok_or_else(|| {
        AdminError::invalid(format!("`{key}` is no key id"), "give a key as `countersign cert list` shows it")
    })?;
    let control = admin.control()?;
    let revoked = control.revoke_key(id).await?;
    Ok(Json(rendered(&control, revoked, Some(id))))
}

pub(crate) async fn revoke_principal(
    admin: Permitted,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Json<CertificateRevoked>, AdminError> {
    let text = format!("{kind}/{name}");
    let role = Role::parse(&text)
        .map_err(|error| AdminError::invalid(format!("`{text}`: {error}"), "see `countersign cert list`"))?;
    let control = admin.control()?;
    let revoked = control.revoke_principal(role).await?;
    Ok(Json(rendered(&control, revoked, None)))
}

fn rendered(control: &Control, revoked: RevokedCertificates, key: Option<KeyId>) -> CertificateRevoked {
    let RevokedCertificates { principal, keys, generation, barrier } = revoked;
    let enforcement = enforcement::rendered_for(&control.view(), generation, barrier.as_ref());
    let (principal, key) = (principal.map(|principal| principal.to_string()), key.map(|key| key.to_string()));
    CertificateRevoked { principal, key, keys: keys as u64, enforcement }
}
