//! Members in the state: admitted, sealed to, promoted, demoted, evicted.

use std::sync::Arc;

use super::author::Made;
use super::check::Checked;
use super::hosts::{Admission, HostProof, LeafHosts};
use super::join_token::{Token, TokenRecord};
use super::member::{Evicted, Member, Suffrage};
use super::outcome::{Admitted, Grant, Limited, Outcome, Refused, Signer};
use super::seal::{SealedCopy, confirm_transcript};
use super::state::{Applied, LeafOf, TrustState};
use super::view::View;
use crate::enroll::EnrollmentRequest;
use crate::group::GroupMembers;
use crate::id::{AuthorityId, Generation, NodeId, TokenId};
use crate::limits::{ADDRESSES_MAX, MEMBERS_MAX, VOTERS_MAX};
use crate::name::{Address, Host};
use crate::principal::{Principal, Role};
use crate::transcript::Transcript;

/// What a member signs with its identity key to change its addresses. Good for one change: it names the one before.
pub fn addresses_transcript(view: &View, node: NodeId, addresses: &[Address]) -> Transcript {
    let last = view.members.get(&node).map_or(0, |member| member.addresses_changed.0);
    let transcript = Transcript::new(b"member addresses")
        .fixed(&view.cluster.0)
        .fixed(&node.0.to_be_bytes())
        .fixed(&last.to_be_bytes())
        .fixed(&(addresses.len() as u64).to_be_bytes());
    addresses.iter().fold(transcript, |t, address| t.variable(address.to_string().as_bytes()))
}

pub(super) fn check_addresses(addresses: &[Address]) -> Result<(), Refused> {
    if addresses.is_empty() {
        return Err(Refused::NoAddress);
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(Refused::Limit { what: Limited::Addresses, max: ADDRESSES_MAX as u64 });
    }
    Ok(())
}

impl TrustState {
    pub(super) fn admit(&mut self, admission: &Admission, made: &Made) -> Applied {
        let request = &admission.request;
        if let Some(answer) = self.repeated(request)? {
            return Ok(answer);
        }
        let Token { record: token, made: token_made } = self.usable_token(request.token)?.clone();
        self.check_request(request, &token)?;
        self.check_free(request, &token)?;
        let view = self.current()?;
        let authority = view.active_authority().ok_or(Refused::NoSuchAuthority(request.pin))?;
        let node = NodeId(self.next_node);
        let mut member = Member {
            id: node,
            name: request.name.clone(),
            suffrage: token.suffrage,
            keys: request.keys,
            store: request.store,
            returning: None,
            leaf: self.leaf(
                LeafOf { node, key: request.leaf_key, renewal: 0 },
                request.foreign.as_ref(),
                authority,
                made,
            )?,
            mapped: request.foreign.as_ref().map(|foreign| foreign.mapped.clone()),
            addresses: request.addresses.clone(),
            addresses_changed: Generation(0),
            proved: self.proofs(admission)?,
            hosts: LeafHosts::default(),
            renewed: None,
            role: token.role,
            attributes: token.attributes,
            admitted_by: Some(request.token),
            admitted_at: self.time(),
            token_made: Some(token_made),
            feature_level: request.feature_level,
            level_since: self.time(),
        };
        member.hosts = view.leaf_hosts(&member);
        self.next_node = self.next_node.saturating_add(1);
        self.spend_token(request.token);
        self.enrollments.insert((request.token, request.request), node);
        self.change(|view| {
            view.members.insert(node, member);
        })?;
        self.admitted_outcome(node, false)
    }

    /// Whether the request would be admitted now. The leader asks before it proposes, so that a stranger without a token
    /// writes nothing into the log; `apply` decides again.
    pub fn check_admission(&self, request: &EnrollmentRequest) -> Result<(), Refused> {
        if self.repeated(request)?.is_some() {
            return Ok(());
        }
        let token = &self.usable_token(request.token)?.record;
        self.check_request(request, token)?;
        self.check_free(request, token)
    }

    /// The answer of an earlier, equal request: also when the token is spent or expired by now.
    fn repeated(&self, request: &EnrollmentRequest) -> Result<Option<Outcome>, Refused> {
        let Some(node) = self.enrollments.get(&(request.token, request.request)) else { return Ok(None) };
        if self.current()?.evicted.contains_key(node) {
            return Err(Refused::EvictedSince(*node));
        }
        let view = self.current()?;
        let member = self.member(*node)?;
        let mapped = request.foreign.as_ref().map(|foreign| &foreign.mapped);
        let same = member.keys == request.keys
            && member.store == request.store
            && member.leaf.key == request.leaf_key
            && member.mapped.as_ref() == mapped;
        if !same || request.cluster != view.cluster {
            return Err(Refused::RequestReused);
        }
        request.verify_identity().map_err(|_| Refused::Signature(Signer::Identity))?;
        if let Some(token) = self.tokens.get(&request.token) {
            request.verify_token(token.record.verifier).map_err(|_| Refused::Signature(Signer::Token))?;
        }
        if [member.leaf.key, member.keys.ucan.id()].iter().any(|key| view.revoked_keys.contains(key)) {
            return Err(Refused::KeyRevoked);
        }
        self.admitted_outcome(*node, true).map(Some)
    }

    /// Whether holder of the token and holder of the identity key signed this very request, for this very cluster.
    fn check_request(&self, request: &EnrollmentRequest, token: &TokenRecord) -> Result<(), Refused> {
        let view = self.current()?;
        if request.cluster != view.cluster || request.pin != token.pin {
            return Err(Refused::Signature(Signer::Token));
        }
        request.verify_token(token.verifier).map_err(|_| Refused::Signature(Signer::Token))?;
        request.verify_identity().map_err(|_| Refused::Signature(Signer::Identity))?;
        match (&request.foreign, view.key_is_elsewhere()) {
            (None, true) => return Err(Refused::CertificateMissing),
            (Some(_), false) => return Err(Refused::CertificateUnwanted),
            (None, false) | (Some(_), true) => {}
        }
        if request.feature_level < self.level {
            return Err(Refused::BelowLevel { level: self.level, got: request.feature_level });
        }
        check_addresses(&request.addresses)?;
        match &token.name {
            Some(name) if *name != request.name => Err(Refused::NameNotAdmitted(name.clone())),
            _ => Ok(()),
        }
    }

    /// Whether name, addresses and keys are free, and whether there is room.
    fn check_free(&self, request: &EnrollmentRequest, token: &TokenRecord) -> Result<(), Refused> {
        let view = self.current()?;
        if view.members.len() >= MEMBERS_MAX {
            return Err(Refused::Limit { what: Limited::Members, max: MEMBERS_MAX as u64 });
        }
        if token.suffrage == Suffrage::Voter {
            check_room_for_voter(view)?;
        }
        let keys = [request.keys.identity.id(), request.leaf_key, request.keys.ucan.id()];
        let [identity, leaf, ucan] = keys;
        if identity == leaf || identity == ucan || leaf == ucan {
            return Err(Refused::KeyReused);
        }
        if keys.iter().any(|key| view.revoked_keys.contains(key)) {
            return Err(Refused::KeyRevoked);
        }
        let holder = keys.iter().find_map(|key| view.members.with_key(key));
        if let Some(holder) = holder.or_else(|| view.members.with_sealing_key(&request.keys.sealing)) {
            return Err(Refused::KeyTaken(holder));
        }
        if view.members.with_store(&request.store).is_some() {
            return Err(Refused::StoreTaken(request.store));
        }
        if let Some(member) = view.members.named(&request.name) {
            return Err(Refused::NameTaken { name: member.name.clone(), node: member.id });
        }
        let mapped = request.foreign.as_ref().map(|foreign| &foreign.mapped);
        if let Some((name, node)) = mapped.and_then(|name| Some((name, view.members.mapped(name)?))) {
            return Err(Refused::MappedTaken { name: name.clone(), node });
        }
        check_addresses_free(view, None, &request.addresses)
    }

    /// What the leader signs for a member, if it signs at all, and what its joiner is told.
    pub(super) fn admitted_outcome(&self, node: NodeId, repeated: bool) -> Applied {
        let view = self.current()?;
        let member = self.member(node)?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        let grant = record.key.is_some().then(|| Grant {
            principal: Principal { trust_domain: view.trust_domain.clone(), role: Role::Node(node) },
            authority,
            serial: member.leaf.serial,
            validity: member.leaf.validity,
        });
        Ok(Outcome::Admitted(Box::new(Admitted {
            node,
            name: member.name.clone(),
            suffrage: member.suffrage,
            hosts: member.hosts.all(),
            leaf: member.leaf.clone(),
            grant,
            generation: view.generation,
            repeated,
        })))
    }

    pub(super) fn seal(&mut self, authority: AuthorityId, node: NodeId, sealed: &[u8]) -> Applied {
        self.member(node)?;
        let view = self.current()?;
        let record = view.authorities.get(&authority).ok_or(Refused::NoSuchAuthority(authority))?;
        if record.key.is_none() {
            return Err(Refused::KeyElsewhere(authority));
        }
        let generation = view.generation;
        // A copy that was opened is never replaced: a later one might not open.
        let opened = self.sealed.get(&(authority, node)).is_some_and(|copy| copy.opened);
        if !opened {
            let copy = SealedCopy { ciphertext: sealed.to_vec(), opened };
            self.sealed.insert((authority, node), copy);
            self.revise();
        }
        Ok(Outcome::Done(generation))
    }

    pub(super) fn confirm(&mut self, authority: AuthorityId, node: NodeId, signature: &[u8]) -> Applied {
        let view = Arc::clone(self.current()?);
        let record = view.authorities.get(&authority).ok_or(Refused::NoSuchAuthority(authority))?;
        let key = record.key.as_ref().ok_or(Refused::KeyElsewhere(authority))?;
        let copy = self.sealed.get_mut(&(authority, node)).ok_or(Refused::NotSealed(node))?;
        if !key.verifies(&confirm_transcript(view.cluster, authority, node, &copy.ciphertext), signature) {
            return Err(Refused::Signature(Signer::Authority));
        }
        if copy.opened {
            return Ok(Outcome::Done(view.generation));
        }
        copy.opened = true;
        self.change(|_| {})
    }

    pub(super) fn set_suffrage(&mut self, node: NodeId, suffrage: Suffrage, keep_authority: bool) -> Applied {
        let member = self.member(node)?;
        match (member.suffrage, suffrage) {
            (now, wanted) if now == wanted => return Err(Refused::Unchanged(node, wanted)),
            (_, Suffrage::Voter) if member.returning.is_some() => return Err(Refused::Returning(node)),
            (_, Suffrage::Voter) => check_room_for_voter(self.current()?)?,
            (_, Suffrage::Learner) => self.check_voter_may_leave(node, keep_authority)?,
        }
        if suffrage == Suffrage::Learner {
            self.sealed.retain(|(_, holder), _| *holder != node);
        }
        self.change(|view| {
            view.members.update(&node, |member| member.suffrage = suffrage);
        })
    }

    pub(super) fn evict(
        &mut self,
        node: NodeId,
        compromised: bool,
        keep_authority: bool,
        members: &GroupMembers,
    ) -> Applied {
        let member = self.member(node)?.clone();
        // INVARIANT: a voter leaves Raft before it is refused, or the refusal would cut the group off from its own quorum.
        if members.voters.contains(&node) {
            return Err(Refused::StillVotes(node));
        }
        if member.suffrage == Suffrage::Voter {
            self.check_voter_may_leave(node, keep_authority)?;
        }
        if let Some(number) = self.needs(node) {
            return Err(Refused::SignatureMissing { node, number });
        }
        let at = self.time();
        self.sealed.retain(|(_, holder), _| *holder != node);
        let doomed: Vec<TokenId> = match member.admitted_by {
            // Whoever held its machine may have made tokens of any kind.
            _ if compromised => self.tokens.keys().copied().collect(),
            Some(token) => vec![token],
            // The founder was admitted by no token, and holds the cluster's.
            None => self.tokens.iter().filter(|(_, token)| token.record.cluster_token).map(|(id, _)| *id).collect(),
        };
        let tokens_revoked = self.revoke_tokens(&doomed);
        let changed = self.change(|view| {
            view.members.remove(&node);
            view.revoked_keys.extend(member.keys());
            view.groups.remove_member(&node);
            let generation = Generation(view.generation.0.saturating_add(1));
            let Member { name, mapped, keys, .. } = member;
            let record = Evicted { name, mapped, identity: keys.identity, at, generation };
            view.evicted.insert(node, record);
        })?;
        match changed {
            Outcome::Done(generation) => Ok(Outcome::Evicted { generation, tokens_revoked }),
            other => Ok(other),
        }
    }

    /// A voter leaves only if another that opened the CA key remains, and its copy of that key is accounted for. Where
    /// the key is held elsewhere there are no copies.
    pub(super) fn check_voter_may_leave(&self, node: NodeId, keep_authority: bool) -> Result<(), Refused> {
        let view = self.current()?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        let copies = record.key.is_some();
        let other = view.members.voters().any(|m| {
            let opened = self.sealed.get(&(authority, m.id)).is_some_and(|copy| copy.opened);
            m.id != node && (opened || !copies)
        });
        if !other {
            return Err(Refused::LastVoter(node));
        }
        if keep_authority || !copies { Ok(()) } else { Err(Refused::KeepAuthority(node)) }
    }

    /// Whether the member may be reached at `addresses`; `Some` where it is already.
    pub(super) fn check_move(&self, node: NodeId, addresses: &[Address], signature: &[u8; 64]) -> Checked {
        let member = self.member(node)?;
        let view = self.current()?;
        check_addresses(addresses)?;
        member
            .keys
            .identity
            .verify(&addresses_transcript(view, node, addresses), signature)
            .map_err(|_| Refused::Signature(Signer::Identity))?;
        if member.addresses == addresses {
            return Ok(Some(Outcome::Done(view.generation)));
        }
        check_addresses_free(view, Some(node), addresses).map(|()| None)
    }

    pub(super) fn set_addresses(&mut self, node: NodeId, addresses: &[Address], signature: &[u8; 64]) -> Applied {
        if let Some(done) = self.check_move(node, addresses, signature)? {
            return Ok(done);
        }
        let addresses = addresses.to_vec();
        self.change(|view| {
            let generation = Generation(view.generation.0.saturating_add(1));
            view.members.update(&node, |member| {
                // A voter found it there, where it is no more.
                let stays = |host: &Host| addresses.iter().any(|address| address.host == *host);
                member.proved.retain(|host, proof| !matches!(proof, HostProof::Voter(_)) || stays(host));
                member.addresses = addresses;
                member.addresses_changed = generation;
            });
        })
    }
}

fn check_room_for_voter(view: &View) -> Result<(), Refused> {
    if view.members.voter_count() >= VOTERS_MAX {
        return Err(Refused::Limit { what: Limited::Voters, max: VOTERS_MAX as u64 });
    }
    Ok(())
}

/// Whether a member may be reached at `addresses`. What another member holds is refused by its address.
fn check_addresses_free(view: &View, except: Option<NodeId>, addresses: &[Address]) -> Result<(), Refused> {
    addresses.iter().try_for_each(|address| match view.check_host_free(except, &address.host) {
        Err(Refused::HostTaken { by: Role::Node(node), .. }) => {
            Err(Refused::AddressTaken { address: address.clone(), node })
        }
        checked => checked,
    })
}

/// The hosts of addresses, each once and in order.
pub(super) fn hosts(addresses: &[Address]) -> Vec<Host> {
    let mut hosts: Vec<Host> = addresses.iter().map(|a| a.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
