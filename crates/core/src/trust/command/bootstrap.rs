//! The first entry of a cluster: its founder, its authority, and what the cluster begins with.
//!
//! It is applied to an empty state only, and no member passes it on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::addresses::{check_addresses, hosts_of};
use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use super::tokens::check_limits;
use crate::authz::change::PolicyChange;
use crate::authz::{Affected, Policy};
use crate::codec::FIRST_LEVEL;
use crate::id::{AuthorityId, ClusterId, Generation, Incarnation, KeyId, NodeId, StoreId};
use crate::json::Object;
use crate::lease::LeaseLength;
use crate::name::{Address, Name};
use crate::principal::TrustDomain;
use crate::table::{Table, TableSet};
use crate::time::{UnixMillis, Validity};
use crate::trust::attestation::{Attestation, AttestedVoter};
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::hosts::{HostProof, LeafHosts};
use crate::trust::join_token::{Token, TokenRecord, token_id};
use crate::trust::member::{ForeignLeaf, Member, MemberKeys, Suffrage};
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::seal::SealedCopy;
use crate::trust::state::{LeafOf, TrustState};
use crate::trust::view::{Authority, AuthorityKey, AuthorityPhase, Evictions, Groups, Members, Principals, View};

/// An authority's key, as its members keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The public half.
    pub public: AuthorityKey,
    /// The private half, sealed to the founder.
    pub sealed: Vec<u8>,
}

/// The first entry of a cluster: its founder and its authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// 128 random bits.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub name: Name,
    /// The namespace of its principals.
    pub trust_domain: TrustDomain,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
    /// Its key; none if that is held elsewhere, which is when the founder brings a certificate.
    pub authority_key: Option<SealedKey>,
    /// When it is valid.
    pub authority_validity: Validity,
    /// Whether it was made outside.
    pub imported: bool,
    /// The founder's name.
    pub node_name: Name,
    /// The founder's addresses.
    pub addresses: Vec<Address>,
    /// The founder's keys.
    pub keys: MemberKeys,
    /// The founder's store.
    pub store: StoreId,
    /// The founder's first leaf key.
    pub leaf_key: KeyId,
    /// The founder's certificate, if it was made elsewhere.
    pub foreign: Option<ForeignLeaf>,
    /// Seconds that node certificates live.
    pub node_ttl_secs: u64,
    /// How long leases last: the same for all members, or a new leader would not know how long to wait for its
    /// predecessor's.
    pub lease: LeaseLength,
    /// The reusable cluster token, if one is wanted.
    pub token: Option<TokenRecord>,
    /// The rules that the cluster begins with.
    pub policy: PolicyChange,
}

/// The number of the founder.
const FOUNDER: NodeId = NodeId(1);

impl Operation for Bootstrap {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Founder
    }

    fn effect(&self) -> Effect<'_> {
        Effect::BindsStore { node: FOUNDER, store: self.store }
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::everything()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        if state.view.is_some() {
            return Err(Refused::ClusterExists);
        }
        check_addresses(&self.addresses)?;
        match (&self.authority_key, &self.foreign) {
            (None, None) => return Err(Refused::CertificateMissing),
            (Some(_), Some(_)) => return Err(Refused::CertificateUnwanted),
            (None, Some(_)) | (Some(_), None) => {}
        }
        if let Some(token) = &self.token {
            check_limits(token, state.time)?;
        }
        let policy = self.first_policy(state, entry)?;
        let (founder, authority) = (FOUNDER, AuthorityId::of_certificate(&self.authority));
        state.node_ttl_secs = self.node_ttl_secs;
        state.lease = self.lease;
        state.next_node = founder.0 + 1;
        state.level = entry.level;
        let copy = |key: &SealedKey| SealedCopy { ciphertext: key.sealed.clone(), opened: true };
        state.sealed.extend(self.authority_key.iter().map(|key| ((authority, founder), copy(key))));
        let token = |record: &TokenRecord| Token { record: record.clone(), made: entry.made.clone() };
        if let Some(record) = &self.token {
            state.tokens.insert(token_id(record.verifier), token(record));
        }
        let record = self.authority_record();
        let member = self.founder(founder, (authority, &record), state, entry);
        let voter = AttestedVoter { identity: self.keys.identity, store: self.store };
        state.view = Some(Arc::new(View {
            cluster: self.cluster,
            name: self.name.clone(),
            trust_domain: self.trust_domain.clone(),
            incarnation: Incarnation(0),
            generation: Generation(1),
            authorities: BTreeMap::from([(authority, record)]),
            members: Members::from([(founder, member)]),
            evicted: Evictions::default(),
            principals: Principals::default(),
            labels: Table::new(),
            policy: Arc::new(policy),
            revoked_keys: TableSet::new(),
            revoked_principals: TableSet::new(),
            groups: Groups::default(),
            client_names: BTreeSet::new(),
            attestation: Arc::new(Attestation::founding(self.cluster, founder, voter, authority)),
            attested: 0,
        }));
        state.make_attestation();
        Ok(Outcome::Admitted(state.admitted(founder, false)?))
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let node = if let Outcome::Admitted(admitted) = draft.outcome { admitted.node } else { NodeId(0) };
        let authority = AuthorityId::of_certificate(&self.authority);
        let details = Object::default().text("cluster", self.cluster).text("name", &self.name);
        let details = details.text("trust_domain", &self.trust_domain);
        let details = details.text("authority", authority).flag("imported", self.imported);
        let details = details.number("node", node.0).text("node_name", &self.node_name);
        let details = details.text("identity", self.keys.identity.id()).text("leaf", self.leaf_key);
        let token = self.token.as_ref().map(|record| token_id(record.verifier));
        ("cluster.founded", details.maybe("token", token))
    }
}

impl Bootstrap {
    fn first_policy(&self, state: &TrustState, entry: &Entry<'_>) -> Result<Policy, Refused> {
        let staged = state.staged_for(&self.policy)?;
        let policy = Policy::initial().changed_by(&self.policy, staged, Generation(1))?;
        let mut policy = policy.map_or_else(Policy::initial, |(policy, _)| policy);
        policy.record(self.policy.put.iter().map(|rule| &rule.id), &Arc::new(entry.made.clone()));
        policy.check()?;
        Ok(policy)
    }

    fn authority_record(&self) -> Authority {
        Authority {
            certificate: self.authority.clone(),
            key: self.authority_key.as_ref().map(|key| key.public.clone()),
            phase: AuthorityPhase::Active,
            validity: self.authority_validity,
            // No member ever sees the signed certificates where the key is held elsewhere.
            imported: self.imported || self.authority_key.is_none(),
        }
    }

    fn founder(
        &self,
        id: NodeId,
        authority: (AuthorityId, &Authority),
        state: &TrustState,
        entry: &Entry<'_>,
    ) -> Member {
        let of = LeafOf { node: id, key: self.leaf_key, renewal: 0 };
        Member {
            id,
            name: self.node_name.clone(),
            suffrage: Suffrage::Voter,
            keys: self.keys,
            store: self.store,
            returning: None,
            leaf: state.leaf_in(self.cluster, of, self.foreign.as_ref(), authority, &entry.made),
            mapped: self.foreign.as_ref().map(|foreign| foreign.mapped.clone()),
            addresses: self.addresses.clone(),
            addresses_changed: Generation(0),
            proved: self.addresses.iter().map(|a| (a.host.clone(), HostProof::Founder)).collect(),
            hosts: LeafHosts { own: hosts_of(&self.addresses), shared: vec![] },
            renewed: None,
            role: None,
            attributes: BTreeMap::new(),
            admitted_by: None,
            admitted_at: state.time,
            token_made: None,
            feature_level: entry.level,
            level_since: state.time,
        }
    }
}
