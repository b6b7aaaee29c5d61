//! Attestations: how a member that was away recognizes its cluster.
//!
//! Each change of voters, authorities or evictions makes an attestation of what the cluster has become. A majority of
//! the voters of the attestation *before* it sign it with their identity keys, as a new root is signed in The Update
//! Framework (specification §5.3.4). So an old CA key forges no successor, and a member that knows one attestation
//! recognizes all later ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::TrustState;
use super::view::{AuthorityPhase, View};
use crate::id::{AuthorityId, ClusterId, Generation, Incarnation, NodeId, StoreId};
use crate::key::PublicKey;
use crate::transcript::Transcript;

/// What the cluster was at one moment, as far as a member that was away must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The cluster.
    pub cluster: ClusterId,
    /// How often it was restarted from a survivor.
    pub incarnation: Incarnation,
    /// 0 for the founding, one more with each.
    pub number: u64,
    /// The generation that it describes.
    pub generation: Generation,
    /// BLAKE3 of the attestation before; zero for the founding.
    pub previous: [u8; 32],
    /// The members whose role is voter.
    pub voters: BTreeMap<NodeId, AttestedVoter>,
    /// The authorities that are trusted.
    pub authorities: BTreeSet<AuthorityId>,
    /// The nodes that were evicted since the attestation before.
    pub evicted: BTreeSet<NodeId>,
}

/// A voter, as an attestation names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedVoter {
    /// Its identity key.
    pub identity: PublicKey,
    /// Its store: a member that was away may know only the store before.
    pub store: StoreId,
}

/// An Ed25519 signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "crate::codec::bytes64")] pub [u8; 64]);

/// An attestation with the signatures that it has so far: no more are kept than a majority needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAttestation {
    /// The attestation.
    pub attestation: Arc<Attestation>,
    /// By voter of the attestation before.
    pub signatures: BTreeMap<NodeId, Signature>,
}

/// Why a chain of attestations is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainBroken {
    /// An attestation does not follow the one before it.
    #[error("attestation {0} does not follow the one before it")]
    Order(u64),
    /// Fewer than a majority of the voters before it have signed.
    #[error("attestation {0} is not signed by a majority of the voters before it")]
    Signatures(u64),
}

/// How many of `voters` are a majority.
pub(super) const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Attestation {
    /// The first of a cluster.
    pub fn founding(cluster: ClusterId, founder: NodeId, voter: AttestedVoter, authority: AuthorityId) -> Self {
        Self {
            cluster,
            incarnation: Incarnation(0),
            number: 0,
            generation: Generation(1),
            previous: [0; 32],
            voters: BTreeMap::from([(founder, voter)]),
            authorities: BTreeSet::from([authority]),
            evicted: BTreeSet::new(),
        }
    }

    /// What voters sign.
    pub fn transcript(&self) -> Transcript {
        let start = Transcript::new(b"statement")
            .fixed(&self.cluster.0)
            .fixed(&self.incarnation.0.to_be_bytes())
            .fixed(&self.number.to_be_bytes())
            .fixed(&self.generation.0.to_be_bytes())
            .fixed(&self.previous)
            .fixed(&(self.voters.len() as u64).to_be_bytes());
        let voters = self
            .voters
            .iter()
            .fold(start, |t, (id, voter)| t.fixed(&id.0.to_be_bytes()).fixed(&voter.identity.0).fixed(&voter.store.0));
        let authorities = voters.fixed(&(self.authorities.len() as u64).to_be_bytes());
        let authorities = self.authorities.iter().fold(authorities, |t, id| t.fixed(&id.0));
        let evicted = authorities.fixed(&(self.evicted.len() as u64).to_be_bytes());
        self.evicted.iter().fold(evicted, |t, id| t.fixed(&id.0.to_be_bytes()))
    }

    /// By which the next attestation names this one.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(self.transcript().as_bytes()).as_bytes()
    }

    /// The attestation that follows if `view` says anything else.
    fn next(&self, view: &View, holds_key: impl Fn(NodeId) -> bool) -> Option<Self> {
        // Not before it holds the CA key, as it must before it votes: one that never comes so far is not waited for.
        let voters = view.members.voters().filter(|m| holds_key(m.id));
        let voters: BTreeMap<_, _> =
            voters.map(|m| (m.id, AttestedVoter { identity: m.keys.identity, store: m.store })).collect();
        let trusted = view.authorities.iter().filter(|(_, a)| a.phase != AuthorityPhase::Tainted);
        let authorities: BTreeSet<_> = trusted.map(|(id, _)| *id).collect();
        let evicted: BTreeSet<_> = view.evicted.after(self.generation).collect();
        if voters == self.voters && authorities == self.authorities && evicted.is_empty() {
            return None;
        }
        Some(Self {
            cluster: view.cluster,
            incarnation: view.incarnation,
            number: self.number.saturating_add(1),
            generation: view.generation,
            previous: self.digest(),
            voters,
            authorities,
            evicted,
        })
    }
}

impl SignedAttestation {
    /// Whether a majority of `before`'s voters have signed; each signature counts only if it verifies.
    fn verify(&self, before: &Attestation) -> Result<(), ChainBroken> {
        let number = self.attestation.number;
        let follows = self.attestation.cluster == before.cluster
            && self.attestation.incarnation == before.incarnation
            && before.number.checked_add(1) == Some(number)
            && self.attestation.generation > before.generation
            && self.attestation.previous == before.digest();
        if !follows {
            return Err(ChainBroken::Order(number));
        }
        let transcript = self.attestation.transcript();
        let of_voter = |(node, signature): (&NodeId, &Signature)| {
            before.voters.get(node).is_some_and(|voter| voter.identity.verify(&transcript, &signature.0).is_ok())
        };
        let valid = self.signatures.iter().filter(|entry| of_voter(*entry)).count();
        if valid < majority(before.voters.len()) { Err(ChainBroken::Signatures(number)) } else { Ok(()) }
    }
}

/// The newest attestation that `chain` leads to from `known`, and everybody evicted on the way.
pub fn follow(
    known: &Arc<Attestation>,
    chain: &[SignedAttestation],
) -> Result<(Arc<Attestation>, BTreeSet<NodeId>), ChainBroken> {
    let mut newest = Arc::clone(known);
    let mut evicted = BTreeSet::new();
    for signed in chain {
        signed.verify(&newest)?;
        evicted.extend(&signed.attestation.evicted);
        newest = Arc::clone(&signed.attestation);
    }
    Ok((newest, evicted))
}

impl TrustState {
    /// Makes the next attestation if the view has come to say something else.
    pub(super) fn make_attestation(&mut self) {
        let Some(view) = &mut self.view else { return };
        let unsigned = |attestation| SignedAttestation { attestation, signatures: BTreeMap::new() };
        if self.attestations.last().is_none() {
            self.attestations.push(unsigned(Arc::clone(&view.attestation)));
        }
        let (sealed, authority) = (&self.sealed, view.active_authority());
        let opened = |id, node| sealed.get(&(id, node)).is_some_and(|copy| copy.opened);
        let holds_key = |node| authority.is_some_and(|(id, record)| record.key.is_none() || opened(id, node));
        if let Some(next) = view.attestation.next(view, holds_key) {
            let next = Arc::new(next);
            Arc::make_mut(view).attestation = Arc::clone(&next);
            self.attestations.push(unsigned(next));
        }
    }

    /// The attestation whose voters sign attestation `number`: the one before it; the founder signs its own.
    pub(super) fn signers(&self, number: u64) -> Option<&Arc<Attestation>> {
        self.attestations.get(number.saturating_sub(1)).map(|signed| &signed.attestation)
    }

    pub(super) fn is_complete(&self, number: u64) -> bool {
        let enough = self.signers(number).map(|before| majority(before.voters.len()));
        self.attestations.get(number).zip(enough).is_some_and(|(signed, enough)| signed.signatures.len() >= enough)
    }

    /// The number of the first attestation that lacks signatures: none before the number that the view shows does.
    pub(super) fn first_open(&self) -> u64 {
        let (attested, end) = (self.attested(), self.attestations.next_number());
        (attested..end).find(|number| !self.is_complete(*number)).unwrap_or(end)
    }

    fn attested(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.attested)
    }

    /// The first attestation that lacks a signature of `node`, which may give one.
    pub fn to_sign(&self, node: NodeId) -> Option<&Arc<Attestation>> {
        let open = (self.first_open()..self.attestations.next_number()).find(|number| {
            let may = self.signers(*number).is_some_and(|before| before.voters.contains_key(&node));
            let signed = self.attestations.get(*number).is_some_and(|s| s.signatures.contains_key(&node));
            may && !signed && !self.is_complete(*number)
        });
        open.and_then(|number| self.attestations.get(number)).map(|signed| &signed.attestation)
    }

    /// The number of the first attestation that could never be signed by enough were `leaving` evicted now; the one
    /// that its eviction makes counts as well. Signatures that are given count, and so do those that members can still
    /// give.
    pub fn needs(&self, leaving: NodeId) -> Option<u64> {
        let view = self.view.as_ref()?;
        (view.attested..=self.attestations.next_number()).find(|number| {
            let Some(before) = self.signers(*number) else { return false };
            let signed = |id| self.attestations.get(*number).is_some_and(|s| s.signatures.contains_key(id));
            let stays = |id: &NodeId, voter: &AttestedVoter| {
                *id != leaving && view.members.get(id).is_some_and(|member| member.keys.identity == voter.identity)
            };
            let signers = before.voters.iter().filter(|(id, voter)| signed(id) || stays(id, voter)).count();
            before.voters.contains_key(&leaving) && signers < majority(before.voters.len())
        })
    }

    /// The voters that have not signed the first attestation that lacks signatures, and could.
    pub fn unsigned(&self) -> BTreeSet<NodeId> {
        let open = self.first_open();
        let signers = self.attestations.get(open).zip(self.signers(open));
        let missing = signers
            .into_iter()
            .flat_map(|(signed, before)| before.voters.keys().filter(|id| !signed.signatures.contains_key(id)));
        missing.copied().collect()
    }

    /// The attestations after number `known` that are signed by enough, without a gap, in order.
    pub fn chain_after(&self, known: u64) -> impl DoubleEndedIterator<Item = &SignedAttestation> {
        self.attestations.range(known.saturating_add(1)..self.first_open())
    }

    /// The newest attestation that enough have signed, as they have all before it.
    pub fn newest_attested(&self) -> Option<&Arc<Attestation>> {
        let attested = self.view.as_ref()?.attested;
        self.attestations.get(attested).map(|signed| &signed.attestation)
    }

    /// Whether what the view of `generation` says of voters, authorities and evictions is signed by enough: every
    /// attestation that is not was made later.
    pub fn is_attested(&self, generation: Generation) -> bool {
        let made = |number| self.attestations.get(number).map(|signed| signed.attestation.generation);
        let later = made(self.attested().saturating_add(1)).is_none_or(|open| open > generation);
        later && made(0).is_some_and(|first| first <= generation)
    }
}
