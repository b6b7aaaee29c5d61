//! Admission: a joiner spends one use of a join token and becomes a member.
//!
//! The holders of the token and of the identity key have signed the request. No key, name, host or store of another
//! member is among what it brings. The same request again gets the same answer, and no second member.

use serde::{Deserialize, Serialize};

use super::addresses::{check_addresses, check_addresses_free};
use super::membership::check_room_for_voter;
use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::enroll::EnrollmentRequest;
use crate::id::{Generation, NodeId};
use crate::json::Object;
use crate::limits::{EVENT_LIST_LEN_MAX, MEMBERS_MAX};
use crate::name::Address;
use crate::principal::{Principal, Role};
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, leaf};
use crate::trust::hosts::{HostProof, LeafHosts, Witness};
use crate::trust::join_token::{Token, TokenRecord};
use crate::trust::member::{Member, Proved, Suffrage};
use crate::trust::outcome::{Admitted, Grant, Limited, Outcome, Refused, Signer};
use crate::trust::state::{LeafOf, TrustState};
use crate::trust::view::View;

/// A request to be admitted, with what its sponsor observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The request that the joiner signed.
    pub request: EnrollmentRequest,
    /// Where the joiner was found; none where no voter has looked.
    pub witness: Option<Witness>,
}

impl From<EnrollmentRequest> for Admission {
    fn from(request: EnrollmentRequest) -> Self {
        Self { request, witness: None }
    }
}

impl Operation for Admission {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        let EnrollmentRequest { token, request, .. } = self.request;
        Authorship::Joiner { token, request, witness: self.witness.as_ref().map(|witness| witness.by) }
    }

    fn effect(&self) -> Effect<'_> {
        Effect::CertifiesNode(&self.request.endorsement)
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        // A newcomer has a role from its token: earlier answers about it were given without that role.
        Affected { who: true, ..Affected::nodes() }
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        state.check_admission(&self.request).map(|()| None)
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let request = &self.request;
        if let Some(answer) = state.repeated(request)? {
            return Ok(answer);
        }
        let node = NodeId(state.next_node);
        let member = self.newcomer(node, state, entry)?;
        state.next_node = state.next_node.saturating_add(1);
        state.spend_token(request.token);
        state.enrollments.insert((request.token, request.request), node);
        state.change(|view| {
            view.members.insert(node, member);
        })?;
        Ok(Outcome::Admitted(state.admitted(node, false)?))
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let request = &self.request;
        let Outcome::Admitted(admitted) = draft.outcome else { return ("node.admitted", Object::default()) };
        let details = draft.node(admitted.node).text("role", admitted.suffrage).text("token", request.token);
        let details = details.texts("addresses", &request.addresses, EVENT_LIST_LEN_MAX);
        ("node.admitted", leaf(details.text("identity", request.keys.identity.id()), &admitted.leaf))
    }
}

impl Admission {
    fn newcomer(&self, id: NodeId, state: &TrustState, entry: &Entry<'_>) -> Result<Member, Refused> {
        let request = &self.request;
        let Token { record: token, made: token_made } = state.usable_token(request.token)?.clone();
        let view = state.current()?;
        let authority = view.active_authority().ok_or(Refused::NoSuchAuthority(request.pin))?;
        let of = LeafOf { node: id, key: request.leaf_key, renewal: 0 };
        let mut member = Member {
            id,
            name: request.name.clone(),
            suffrage: token.suffrage,
            keys: request.keys,
            store: request.store,
            returning: None,
            leaf: state.leaf_in(view.cluster, of, request.foreign.as_ref(), authority, &entry.made),
            mapped: request.foreign.as_ref().map(|foreign| foreign.mapped.clone()),
            addresses: request.addresses.clone(),
            addresses_changed: Generation(0),
            proved: self.proofs(view, &token),
            hosts: LeafHosts::default(),
            renewed: None,
            role: token.role,
            attributes: token.attributes,
            admitted_by: Some(request.token),
            admitted_at: state.time,
            token_made: Some(token_made),
            feature_level: request.feature_level,
            level_since: state.time,
        };
        member.hosts = view.leaf_hosts(&member);
        Ok(member)
    }

    /// What proves hosts of a joiner: its token, and what a voter observed.
    fn proofs(&self, view: &View, token: &TokenRecord) -> Proved {
        let seen = self.witness.iter().flat_map(|witness| {
            let seen = view.witnessed(witness, &self.request.addresses).filter(|host| !host.is_loopback());
            seen.map(|host| (host.clone(), HostProof::Voter(witness.by)))
        });
        let named = token.hosts.iter().map(|host| (host.clone(), HostProof::Token));
        seen.chain(named).collect()
    }
}

impl TrustState {
    /// Whether the request would be admitted now. The leader asks before it proposes, so that a caller without a token
    /// writes nothing into the log; `apply` decides again.
    pub fn check_admission(&self, request: &EnrollmentRequest) -> Result<(), Refused> {
        if self.repeated(request)?.is_some() {
            return Ok(());
        }
        let token = &self.usable_token(request.token)?.record;
        self.check_request(request, token)?;
        self.check_free(request, token)
    }

    /// The addresses of a joiner that a voter looks for it at: those that nothing else proves. Refused where the
    /// request itself is: a joiner that has not proved its token is dialed nowhere. Nothing where it was admitted
    /// before.
    pub fn hosts_to_prove(&self, request: &EnrollmentRequest) -> Result<Vec<Address>, Refused> {
        self.check_admission(request)?;
        if self.enrollments.contains_key(&(request.token, request.request)) || self.current()?.key_is_elsewhere() {
            return Ok(vec![]);
        }
        let token = self.usable_token(request.token)?;
        let named = |address: &&Address| address.host.is_loopback() || token.record.hosts.contains(&address.host);
        Ok(request.addresses.iter().filter(|address| !named(address)).cloned().collect())
    }

    /// The answer of an earlier, equal request: also when the token is used up or expired by now.
    fn repeated(&self, request: &EnrollmentRequest) -> Checked {
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
        Ok(Some(Outcome::Admitted(self.admitted(*node, true)?)))
    }

    /// Whether the holders of the token and of the identity key signed this very request, for this very cluster.
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
            Some(_) | None => Ok(()),
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
    pub(super) fn admitted(&self, node: NodeId, repeated: bool) -> Result<Box<Admitted>, Refused> {
        let view = self.current()?;
        let member = self.member(node)?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        let grant = record.key.is_some().then(|| Grant {
            principal: Principal { trust_domain: view.trust_domain.clone(), role: Role::Node(node) },
            authority,
            serial: member.leaf.serial,
            validity: member.leaf.validity,
        });
        Ok(Box::new(Admitted {
            node,
            name: member.name.clone(),
            suffrage: member.suffrage,
            hosts: member.hosts.all(),
            leaf: member.leaf.clone(),
            grant,
            generation: view.generation,
            repeated,
        }))
    }
}
