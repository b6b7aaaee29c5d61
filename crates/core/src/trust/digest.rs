//! Digests of the state, by which members find out that their states differ.
//!
//! All members apply the same entries, so their states are equal at each index of the log. A member digests its state
//! at each index that is divisible by [`DIGEST_EVERY`] and says the newest digest with each request for a lease. The
//! digest is that of the state at the cluster's level, so members of different releases agree while a cluster is
//! updated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TrustState;
use super::client_ports::CLIENT_PORTS_LEVEL;
use super::command::LEVEL_FOR_TESTING;
use super::placement::PLACEMENT_LEVEL;
use super::view::View;
use crate::codec::{self, CodecError};
use crate::id::StateDigest;
use crate::limits::{DIGEST_EVERY, DIGESTS_MAX};

/// The digest of a state at an index of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DigestAt {
    /// The index of the last entry that the state includes.
    pub index: u64,
    /// The digest.
    pub digest: StateDigest,
}

impl TrustState {
    /// The digest by which members compare their states, at the level of the cluster. It takes time by what is not in
    /// tables: those keep their own ([`crate::table`]).
    ///
    /// Errors: [`CodecError`] where a part of the state has no encoding, which is a defect.
    pub fn digest(&self) -> Result<StateDigest, CodecError> {
        // All fields by name: a new one does not compile until it is here.
        let Self {
            view,
            tokens,
            enrollments,
            sealed,
            next_node,
            node_ttl_secs,
            lease,
            attestations,
            staged,
            revision,
            chain,
            time,
            level,
            level_auto,
            known: _,
            placement,
            client_ports,
            notes,
        } = self;
        // The first level digests all attestations each time, as its first release did.
        let whole = (*level < PLACEMENT_LEVEL).then_some(attestations);
        let mut parts = match whole {
            Some(all) => {
                let rest = (sealed, next_node, node_ttl_secs, lease, all, staged, revision, chain, time, level_auto);
                vec![codec::encode_at(*level, &rest)?]
            }
            None => {
                let rest = (sealed, next_node, node_ttl_secs, lease, staged, revision, chain, time, level_auto);
                vec![codec::encode_at(*level, &rest)?, attestations.sum().to_bytes().to_vec()]
            }
        };
        parts.extend([tokens.sum(), enrollments.sum()].map(|sum| sum.to_bytes().to_vec()));
        if let Some(view) = view {
            let View {
                cluster,
                name,
                trust_domain,
                incarnation,
                generation,
                authorities,
                members,
                evicted,
                principals,
                labels,
                policy,
                revoked_keys,
                revoked_principals,
                groups,
                client_names,
                attestation,
                attested,
            } = &**view;
            let who = (cluster, name, trust_domain, incarnation, generation, authorities);
            let rest = (client_names, attestation, attested);
            parts.push(codec::encode(&(who, rest))?);
            parts.push(codec::encode(&(policy.super_users(), policy.requirements(), policy.changed()))?);
            let tables = [members.sum(), evicted.sum(), principals.sum(), labels.sum()];
            let more = [revoked_keys.sum(), revoked_principals.sum(), groups.sum()];
            let all = tables.into_iter().chain(more).chain(policy.sums());
            parts.extend(all.map(|sum| sum.to_bytes().to_vec()));
        }
        if *level >= PLACEMENT_LEVEL {
            parts.extend(placement.parts()?);
        }
        if *level >= CLIENT_PORTS_LEVEL {
            parts.push(client_ports.sum().to_bytes().to_vec());
        }
        if *level >= LEVEL_FOR_TESTING {
            parts.push(codec::appended(notes)?);
        }
        let mut hasher = blake3::Hasher::new_derive_key("countersign v1 state digest");
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(&part);
        }
        Ok(StateDigest(*hasher.finalize().as_bytes()))
    }
}

/// The digests of this member's own state, at most [`DIGESTS_MAX`] of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests {
    by_index: BTreeMap<u64, StateDigest>,
    /// No digest is due for an index up to here.
    upto: u64,
}

impl Digests {
    /// At which index the present state is to be digested, while it includes the entries up to `applied`; none if it
    /// was digested there, or if it is not known any more what the state was there.
    ///
    /// To be asked before each entry that changes the state and after each run of entries: in between, only entries
    /// that leave the state as it is can have passed the index.
    pub fn due(&self, applied: u64) -> Option<u64> {
        let index = applied - applied % DIGEST_EVERY;
        (index > self.upto).then_some(index)
    }

    /// Enters the digest at `index`. The oldest one goes if there are too many.
    pub fn enter(&mut self, index: u64, digest: StateDigest) {
        self.upto = self.upto.max(index);
        self.by_index.insert(index, digest);
        while self.by_index.len() > DIGESTS_MAX {
            self.by_index.pop_first();
        }
    }

    /// A state that includes the entries up to `applied` has replaced this one. Earlier digests say nothing of it.
    pub fn replaced(&mut self, applied: u64) {
        // At the very index, the state that was put in place is the one to digest.
        *self = Self { by_index: BTreeMap::new(), upto: applied.saturating_sub(1) / DIGEST_EVERY * DIGEST_EVERY };
    }

    /// The newest digest.
    pub fn newest(&self) -> Option<DigestAt> {
        self.by_index.last_key_value().map(|(index, digest)| DigestAt { index: *index, digest: *digest })
    }

    /// The digest at `index`, if it is kept.
    pub fn at(&self, index: u64) -> Option<StateDigest> {
        self.by_index.get(&index).copied()
    }
}
