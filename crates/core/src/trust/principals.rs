//! Brokers, clients and admins in the state: each of their keys is on record before its certificate exists.

use std::collections::BTreeSet;

use super::author::Made;
use super::check::Checked;
use super::member::Issued;
use super::outcome::{Grant, Limited, Outcome, Refused};
use super::state::{Applied, TrustState, serial};
use super::view::IssuedKey;
use crate::id::KeyId;
use crate::limits::{PRINCIPAL_KEYS_MAX, PRINCIPAL_TTL_SECS_MAX, PRINCIPALS_MAX};
use crate::name::Host;
use crate::principal::{Principal, Role};
use crate::time::{UnixMillis, Validity};

/// Seconds that the renewal of a certificate lives that an authority made elsewhere signed, of which there is no record.
const UNRECORDED_TTL_SECS: u64 = 86_400;

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

/// A certificate to record.
struct Wanted<'a> {
    spki: &'a [u8],
    ttl_secs: u64,
    renewed_from: Option<KeyId>,
}

impl TrustState {
    pub(super) fn issue_principal(&mut self, role: &Role, spki: &[u8], ttl_secs: u64, made: &Made) -> Applied {
        self.check_issue(role, spki, ttl_secs, self.time())?;
        let wanted = Wanted { spki, ttl_secs, renewed_from: None };
        self.record_principal(role, &wanted, made)
    }

    fn check_issue(&self, role: &Role, spki: &[u8], ttl_secs: u64, now: UnixMillis) -> Result<(), Refused> {
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
        // Whoever shows somebody's request for a certificate does not hold the key: it would be revoked with their own.
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

    fn record_principal(&mut self, role: &Role, wanted: &Wanted<'_>, made: &Made) -> Applied {
        let Wanted { spki, ttl_secs, renewed_from } = *wanted;
        let (authority, record) = self.current()?.active_authority().ok_or(Refused::NoCluster)?;
        let (key, now, validity) = (KeyId::of_spki(spki), self.time(), self.validity(ttl_secs, record.validity));
        let Validity { not_before, not_after } = validity;
        let grant = self.principal_grant(role, key, validity)?;
        self.change(|view| {
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

    /// The serial follows from what is certified, so that a repeated answer is the same certificate.
    fn principal_grant(&self, role: &Role, key: KeyId, validity: Validity) -> Result<Grant, Refused> {
        let view = self.current()?;
        let (authority, _) = view.active_authority().ok_or(Refused::NoCluster)?;
        let mut hasher = blake3::Hasher::new_derive_key("countersign v1 certificate serial of a principal");
        hasher.update(&view.cluster.0).update(&key.0).update(&validity.not_after.0.to_be_bytes());
        let principal = Principal { trust_domain: view.trust_domain.clone(), role: role.clone() };
        Ok(Grant { principal, authority, serial: serial(&hasher), validity })
    }

    /// Seconds that a renewal lives: as recorded when the key in use was issued, whatever its certificate says now, which
    /// whoever has a stolen CA key wrote.
    fn renewal_ttl_secs(&self, role: &Role, in_use: KeyId) -> Result<u64, Refused> {
        let recorded = self.current()?.principals.get(role).and_then(|keys| keys.get(&in_use));
        Ok(recorded.map_or(UNRECORDED_TTL_SECS, |issued| issued.ttl_secs))
    }

    /// Whether whoever uses the key `in_use` may have another certified at `now`; `Some` where it has.
    pub(super) fn check_principal_renewal(&self, role: &Role, in_use: KeyId, spki: &[u8], now: UnixMillis) -> Checked {
        let view = self.current()?;
        let key = KeyId::of_spki(spki);
        if role.node_id().is_some() {
            return Err(Refused::NotIssued(role.clone()));
        }
        if view.revoked_keys.contains(&in_use) {
            return Err(Refused::KeyRevoked);
        }
        let keys = view.principals.get(role);
        let recorded = keys.and_then(|keys| keys.get(&in_use));
        // What an authority made elsewhere has certified was judged where it was shown, as it is at each handshake.
        let elsewhere = view.authorities.values().any(|authority| authority.imported)
            && !matches!(role, Role::Admin(_))
            && !view.revoked_principals.contains(role);
        let counts = recorded.map_or(elsewhere, |issued| issued.not_after.secs() >= now.secs());
        if !counts || in_use == key {
            return Err(Refused::NoSuchPrincipal(role.clone()));
        }
        // Two keys of a line count at a time: one stolen key must not take the places of all the others.
        let predecessor = recorded.and_then(|issued| issued.renewed_from);
        let live = keys
            .into_iter()
            .flatten()
            .filter(|(id, issued)| issued.not_after >= now && !view.revoked_keys.contains(*id));
        for (id, issued) in live {
            let successor = issued.renewed_from == Some(in_use);
            if *id == key && successor {
                let validity = Validity { not_before: issued.not_before, not_after: issued.not_after };
                let grant = self.principal_grant(role, key, validity)?;
                return Ok(Some(Outcome::Issued(Box::new(grant))));
            }
            if successor || predecessor == Some(*id) {
                return Err(Refused::RenewedBefore { until: issued.not_after.secs() });
            }
            if *id == key {
                return Err(Refused::KeyReused);
            }
        }
        self.check_issue(role, spki, self.renewal_ttl_secs(role, in_use)?, now).map(|()| None)
    }

    /// Certifies another key for whoever uses the key `in_use` now. Decided here, so that a renewal that was under way when
    /// its certificate was revoked brings nothing.
    pub(super) fn renew_principal(&mut self, role: &Role, in_use: KeyId, spki: &[u8], made: &Made) -> Applied {
        if let Some(repeated) = self.check_principal_renewal(role, in_use, spki, self.time())? {
            return Ok(repeated);
        }
        let ttl_secs = self.renewal_ttl_secs(role, in_use)?;
        self.record_principal(role, &Wanted { spki, ttl_secs, renewed_from: Some(in_use) }, made)
    }

    /// Refuses a key and what was renewed from it: whoever stole it may have renewed. Repeated, it changes nothing.
    pub(super) fn revoke_key(&mut self, key: KeyId) -> Applied {
        let view = self.current()?;
        if let Some(member) = view.members.with_key(&key) {
            return Err(Refused::KeyOfNode(member));
        }
        let (mut doomed, mut open) = (BTreeSet::from([key]), vec![key]);
        while let Some(key) = open.pop() {
            open.extend(view.principals.successors(&key).copied().filter(|successor| doomed.insert(*successor)));
        }
        doomed.retain(|key| !view.revoked_keys.contains(key));
        let keys = doomed.len();
        if keys == 0 {
            return Ok(Outcome::Revoked { generation: view.generation, keys });
        }
        self.change(|view| view.revoked_keys.extend(doomed))?;
        Ok(Outcome::Revoked { generation: self.current()?.generation, keys })
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
            view.principals.remove(role);
            // Whoever gets the name next is not what this one was.
            view.labels.remove(role);
            view.revoked_keys.extend(known);
            view.revoked_principals.insert(role.clone());
        })?;
        Ok(Outcome::Revoked { generation: self.current()?.generation, keys })
    }
}
