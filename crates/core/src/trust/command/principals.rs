//! Certificates of brokers, clients and admins: each of their keys is on record before its certificate exists.
//!
//! No key of a member, of another principal or of a revoked certificate is certified.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::KeyId;
use crate::json::Object;
use crate::limits::{PRINCIPAL_KEYS_MAX, PRINCIPAL_TTL_SECS_MAX, PRINCIPALS_MAX};
use crate::name::Host;
use crate::principal::{Principal, Role};
use crate::time::{UnixMillis, Validity};
use crate::trust::author::{Authorship, Made};
use crate::trust::event::{Account, Draft};
use crate::trust::member::Issued;
use crate::trust::outcome::{Grant, Limited, Outcome, Refused};
use crate::trust::state::{TrustState, serial};
use crate::trust::view::{IssuedKey, View};

/// Seconds that the renewal of a certificate lives of which there is no record: an authority made elsewhere signed it.
const UNRECORDED_TTL_SECS: u64 = 86_400;

/// DER prefixes of the `SubjectPublicKeyInfo` of Ed25519 (RFC 8410 §4) and P-256 (RFC 5480 §2.1.1) keys, with the
/// length of the key.
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

/// Records a certificate for a broker, client or admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuePrincipal {
    /// The principal.
    pub role: Role,
    /// Its public key, DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// Seconds that the certificate lives.
    pub ttl_secs: u64,
}

/// A broker's, client's or admin's next certificate, asked for with the one that it uses. That one stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewPrincipal {
    /// The principal.
    pub role: Role,
    /// The key in use: it counts when this is applied, or nothing is certified.
    pub in_use: KeyId,
    /// The next public key, DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
}

impl Operation for IssuePrincipal {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::CertifiesPrincipal(&self.spki)
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let Self { role, spki, ttl_secs } = self;
        let wanted = Wanted { role, spki, ttl_secs: *ttl_secs, renewed_from: None };
        wanted.check(state, state.time)?;
        wanted.record(state, &entry.made)
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("certificate.issued", issued(draft, &self.role, &self.spki))
    }
}

impl Operation for RenewPrincipal {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::CertifiesPrincipal(&self.spki)
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, state: &TrustState, now: UnixMillis) -> Checked {
        let Self { role, in_use, spki } = self;
        let view = state.current()?;
        let key = KeyId::of_spki(spki);
        if role.node_id().is_some() {
            return Err(Refused::NotIssued(role.clone()));
        }
        if view.revoked_keys.contains(in_use) {
            return Err(Refused::KeyRevoked);
        }
        let keys = view.principals.get(role);
        let recorded = keys.and_then(|keys| keys.get(in_use));
        // What an authority made elsewhere has certified was judged where it was shown, as it is at each handshake.
        let counts =
            recorded.map_or_else(|| certified_elsewhere(view, role), |issued| issued.not_after.secs() >= now.secs());
        if !counts || *in_use == key {
            return Err(Refused::NoSuchPrincipal(role.clone()));
        }
        // Two keys of a line count at a time: one stolen key must not take the places of all the others.
        let predecessor = recorded.and_then(|issued| issued.renewed_from);
        let live = keys
            .into_iter()
            .flatten()
            .filter(|(id, issued)| issued.not_after >= now && !view.revoked_keys.contains(*id));
        for (id, issued) in live {
            let successor = issued.renewed_from == Some(*in_use);
            if *id == key && successor {
                let validity = Validity { not_before: issued.not_before, not_after: issued.not_after };
                return Ok(Some(Outcome::Issued(Box::new(grant(view, role, key, validity)?))));
            }
            if successor || predecessor == Some(*id) {
                return Err(Refused::RenewedBefore { until: issued.not_after.secs() });
            }
            if *id == key {
                return Err(Refused::KeyReused);
            }
        }
        self.wanted(view).check(state, now).map(|()| None)
    }

    /// Decided when it is applied, so that a renewal that was under way when its certificate was revoked brings
    /// nothing.
    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let wanted = self.wanted(state.current()?);
        wanted.record(state, &entry.made)
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("certificate.renewed", issued(draft, &self.role, &self.spki).text("renewed_from", self.in_use))
    }
}

impl RenewPrincipal {
    /// It lives as long as was recorded when the key in use was issued. What its certificate says now does not count:
    /// the holder of a stolen CA key may have written that.
    fn wanted(&self, view: &View) -> Wanted<'_> {
        let Self { role, in_use, spki } = self;
        let recorded = view.principals.get(role).and_then(|keys| keys.get(in_use));
        let ttl_secs = recorded.map_or(UNRECORDED_TTL_SECS, |issued| issued.ttl_secs);
        Wanted { role, spki, ttl_secs, renewed_from: Some(*in_use) }
    }
}

/// Whether an authority made elsewhere may have certified `role` without a record: no admin, and no revoked principal.
pub(super) fn certified_elsewhere(view: &View, role: &Role) -> bool {
    view.authorities.values().any(|authority| authority.imported)
        && !matches!(role, Role::Admin(_))
        && !view.revoked_principals.contains(role)
}

fn issued(draft: &Draft<'_>, role: &Role, spki: &[u8]) -> Object {
    let details = Object::default().text("principal", role).text("key", KeyId::of_spki(spki));
    let Outcome::Issued(grant) = draft.outcome else { return details };
    let Grant { authority, serial, validity, .. } = &**grant;
    let details = details.text("serial", data_encoding::HEXLOWER.encode(serial)).text("authority", authority);
    let details = details.number("not_before_millis", validity.not_before.0);
    details.number("not_after_millis", validity.not_after.0)
}

/// The serial follows from the certified fields, so that a repeated answer is the same certificate.
fn grant(view: &View, role: &Role, key: KeyId, validity: Validity) -> Result<Grant, Refused> {
    let (authority, _) = view.active_authority().ok_or(Refused::NoCluster)?;
    let mut hasher = blake3::Hasher::new_derive_key("countersign v1 certificate serial of a principal");
    hasher.update(&view.cluster.0).update(&key.0).update(&validity.not_after.0.to_be_bytes());
    let principal = Principal { trust_domain: view.trust_domain.clone(), role: role.clone() };
    Ok(Grant { principal, authority, serial: serial(&hasher), validity })
}

/// A certificate to record.
struct Wanted<'a> {
    role: &'a Role,
    spki: &'a [u8],
    ttl_secs: u64,
    renewed_from: Option<KeyId>,
}

impl Wanted<'_> {
    fn check(&self, state: &TrustState, now: UnixMillis) -> Result<(), Refused> {
        let Self { role, spki, ttl_secs, .. } = *self;
        let view = state.current()?;
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
        if let Role::Broker(host) = role
            && view.client_names.contains(&Host::Dns(host.clone()))
        {
            return Err(Refused::HostShared(Host::Dns(host.clone())));
        }
        if let Some(member) = view.members.with_key(&key) {
            return Err(Refused::KeyTaken(member));
        }
        if let Role::Broker(host) = role {
            let host = Host::Dns(host.clone());
            let by = view.members.with_host(&host).next().map(|member| Role::Node(member.id));
            if let Some(by) = by {
                return Err(Refused::HostTaken { host, by });
            }
        }
        // The key of another principal's request is not the caller's: it would be revoked with the caller's own.
        if view.principals.holder(&key).is_some_and(|of| of != role) {
            return Err(Refused::KeyReused);
        }
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        if record.key.is_none() {
            return Err(Refused::KeyElsewhere(authority));
        }
        let known = view.principals.get(role);
        let live = known.map_or(0, |keys| keys.iter().filter(|(k, i)| **k != key && i.not_after >= now).count());
        if live >= PRINCIPAL_KEYS_MAX {
            return Err(Refused::Limit { what: Limited::PrincipalKeys, max: PRINCIPAL_KEYS_MAX as u64 });
        }
        if known.is_none() && view.principals.len() >= PRINCIPALS_MAX {
            return Err(Refused::Limit { what: Limited::Principals, max: PRINCIPALS_MAX as u64 });
        }
        Ok(())
    }

    fn record(&self, state: &mut TrustState, made: &Made) -> Applied {
        let Self { role, spki, ttl_secs, renewed_from } = *self;
        let view = state.current()?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        let (key, now, validity) = (KeyId::of_spki(spki), state.time, state.validity(ttl_secs, record.validity));
        let Validity { not_before, not_after } = validity;
        let grant = grant(view, role, key, validity)?;
        state.change(|view| {
            view.principals.update(role, |keys| {
                keys.retain(|_, issued| issued.not_after >= now);
                let issued = Issued { authority: Some(authority), made: made.clone() };
                let issued = IssuedKey { not_after, not_before, ttl_secs, renewed_from, issued };
                let record = keys.entry(key).or_insert_with(|| issued.clone());
                // An earlier certificate of the same key is as good as it was, and what it came from is not forgotten.
                if record.not_after < not_after {
                    *record = IssuedKey { renewed_from: record.renewed_from, ..issued };
                }
            });
        })?;
        Ok(Outcome::Issued(Box::new(grant)))
    }
}
