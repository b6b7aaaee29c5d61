//! Brokers, clients and admins in the state: each of their keys is on record before its certificate exists.

use std::sync::Arc;

use super::members::holds;
use super::outcome::{Grant, Limited, Outcome, Refused};
use super::state::{Applied, TrustState, serial};
use super::view::IssuedKey;
use crate::id::KeyId;
use crate::limits::{PRINCIPAL_KEYS_MAX, PRINCIPAL_TTL_SECS_MAX, PRINCIPALS_MAX};
use crate::name::Host;
use crate::principal::{Principal, Role};

/// DER prefixes of the `SubjectPublicKeyInfo` of Ed25519 (RFC 8410 §4) and P-256 (RFC 5480 §2.1.1) keys, and the length of the key.
const SUITABLE: [(&[u8], usize); 2] = [
    (&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], 32),
    (
        &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ],
        64,
    ),
];

impl TrustState {
    pub(super) fn issue_principal(&mut self, role: &Role, spki: &[u8], ttl_secs: u64) -> Applied {
        let view = self.current()?;
        let key = KeyId::of_spki(spki);
        if role.node_id().is_some() {
            return Err(Refused::NotIssued(role.clone()));
        }
        if ttl_secs == 0 || ttl_secs > PRINCIPAL_TTL_SECS_MAX {
            return Err(Refused::Limit { what: Limited::CertificateTtl, max: PRINCIPAL_TTL_SECS_MAX });
        }
        if !SUITABLE.iter().any(|(prefix, len)| spki.strip_prefix(*prefix).is_some_and(|key| key.len() == *len)) {
            return Err(Refused::KeyUnsuitable(key));
        }
        if view.revoked_keys.contains(&key) {
            return Err(Refused::KeyRevoked);
        }
        let members = view.members.values();
        for member in members {
            if member.keys().any(|k| k == key) {
                return Err(Refused::KeyTaken(member.id));
            }
            match role {
                Role::Broker(host) if holds(member, &Host::Dns(host.clone())) => {
                    return Err(Refused::HostTaken { host: host.clone(), by: Role::Node(member.id) });
                }
                _ => {}
            }
        }
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        if record.key.is_none() {
            return Err(Refused::KeyElsewhere(authority));
        }
        let now = self.time();
        let known = view.principals.get(role);
        let live = known.map_or(0, |keys| keys.iter().filter(|(k, i)| **k != key && i.not_after >= now).count());
        if live >= PRINCIPAL_KEYS_MAX {
            return Err(Refused::Limit { what: Limited::PrincipalKeys, max: PRINCIPAL_KEYS_MAX as u64 });
        }
        if known.is_none() && view.principals.len() >= PRINCIPALS_MAX {
            return Err(Refused::Limit { what: Limited::Principals, max: PRINCIPALS_MAX as u64 });
        }
        let principal = Principal { trust_domain: view.trust_domain.clone(), role: role.clone() };
        let validity = self.validity(ttl_secs, record.validity);
        let mut hasher = blake3::Hasher::new_derive_key("countersign v1 certificate serial of a principal");
        hasher.update(&view.cluster.0).update(&key.0).update(&validity.not_after.0.to_be_bytes());
        let grant = Grant { principal, authority, serial: serial(&hasher), validity };
        self.change(|view| {
            let keys = Arc::make_mut(&mut view.principals).entry(role.clone()).or_default();
            keys.retain(|_, issued| issued.not_after >= now);
            // An earlier certificate of the same key is as good as it was.
            let record = keys.entry(key).or_insert(IssuedKey { not_after: validity.not_after });
            record.not_after = record.not_after.max(validity.not_after);
        })?;
        Ok(Outcome::Issued(Box::new(grant)))
    }

    /// Certifies another key for whoever uses the key `in_use` now. Decided here, so that a renewal that was under way when
    /// its certificate was revoked brings nothing.
    pub(super) fn renew_principal(&mut self, role: &Role, in_use: KeyId, spki: &[u8], ttl_secs: u64) -> Applied {
        let view = self.current()?;
        if role.node_id().is_some() {
            return Err(Refused::NotIssued(role.clone()));
        }
        if view.revoked_keys.contains(&in_use) {
            return Err(Refused::KeyRevoked);
        }
        let recorded = view.principals.get(role).and_then(|keys| keys.get(&in_use));
        // What an authority made elsewhere has certified was judged where it was shown, as it is at each handshake.
        let elsewhere = view.authorities.values().any(|authority| authority.imported)
            && !matches!(role, Role::Admin(_))
            && !view.revoked_principals.contains(role);
        let counts = recorded.map_or(elsewhere, |issued| issued.not_after.secs() >= self.time().secs());
        if !counts || in_use == KeyId::of_spki(spki) {
            return Err(Refused::NoSuchPrincipal(role.clone()));
        }
        self.issue_principal(role, spki, ttl_secs)
    }

    /// Refuses every certificate of a broker, client or admin: the keys on record for ever, and those that an authority made
    /// elsewhere has certified without a record. Repeated, it changes nothing.
    pub(super) fn revoke_principal(&mut self, role: &Role) -> Applied {
        let view = self.current()?;
        if role.node_id().is_some() {
            return Err(Refused::NotIssued(role.clone()));
        }
        let known: Vec<KeyId> = view.principals.get(role).into_iter().flatten().map(|(key, _)| *key).collect();
        let elsewhere = view.authorities.values().any(|authority| authority.imported);
        if known.is_empty() && view.revoked_principals.contains(role) {
            return Ok(Outcome::Revoked { generation: view.generation, keys: 0 });
        }
        if known.is_empty() && !elsewhere {
            return Err(Refused::NoSuchPrincipal(role.clone()));
        }
        let keys = known.len();
        self.change(|view| {
            Arc::make_mut(&mut view.principals).remove(role);
            view.revoked_keys.extend(known);
            view.revoked_principals.insert(role.clone());
        })?;
        Ok(Outcome::Revoked { generation: self.current()?.generation, keys })
    }
}
