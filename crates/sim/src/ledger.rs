//! The committed log and the account of it: which token admitted which node, which request got which answer. Kept by
//! the simulation from commands and outcomes; it never believes the state's own counters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::enroll::EnrollmentRequest;
use countersign_core::id::{KeyId, NodeId, RequestId, StateDigest, TokenId};
use countersign_core::name::{Address, Name};
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::{
    AddJoinToken, Bootstrap, Command, ConfirmAuthority, Evict, IssuePrincipal, RevokeJoinToken, RevokeKey,
    RotateClusterToken, SetAddresses, SetSuffrage, Stamped,
};
use countersign_core::trust::join_token::{TokenRecord, token_id};
use countersign_core::trust::member::{MemberKeys, Suffrage};
use countersign_core::trust::outcome::{Admitted, Outcome};
use countersign_core::trust::view::View;

use crate::danger::Faults;
use crate::history::History;
use crate::replica::Replica;
use crate::trace::{self, Event};
use crate::violation::Broken;

/// A committed command, and what it did.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) stamped: Stamped,
    pub(crate) outcome: Outcome,
    /// Of the state after it.
    pub(crate) digest: StateDigest,
}

/// What a token may still do, counted here.
#[derive(Debug)]
struct TokenLife {
    suffrage: Suffrage,
    name: Option<Name>,
    allowed: u32,
    used: u32,
    not_after: UnixMillis,
    ended: bool,
    cluster_token: bool,
}

impl TokenLife {
    fn of(record: &TokenRecord) -> Self {
        Self {
            suffrage: record.suffrage,
            name: record.name.clone(),
            allowed: record.uses,
            used: 0,
            not_after: record.not_after,
            ended: record.revoked,
            cluster_token: record.cluster_token,
        }
    }
}

/// The answer that a request got.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    node: NodeId,
    keys: MemberKeys,
    leaf: KeyId,
    serial: [u8; 16],
}

/// The committed log, the state that it gives, and the account.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    reference: Replica,
    pub(crate) history: History,
    tokens: BTreeMap<TokenId, TokenLife>,
    answers: BTreeMap<(TokenId, RequestId), Answer>,
    admitted_by: BTreeMap<NodeId, TokenId>,
    /// Transcripts that a holder of the token really signed.
    signed: BTreeSet<Vec<u8>>,
    /// Addresses that a member really signed, and members that really opened the CA key.
    addresses: BTreeSet<(NodeId, Vec<Address>)>,
    opened: BTreeSet<NodeId>,
}

impl Ledger {
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The state after the whole log.
    pub(crate) const fn reference(&self) -> &Replica {
        &self.reference
    }

    pub(crate) const fn view(&self) -> Option<&Arc<View>> {
        self.reference.view()
    }

    pub(crate) fn sign(&mut self, request: &EnrollmentRequest) {
        self.signed.insert(request.transcript().as_bytes().to_vec());
    }

    pub(crate) fn sign_addresses(&mut self, node: NodeId, addresses: &[Address]) {
        self.addresses.insert((node, addresses.to_vec()));
    }

    pub(crate) fn open(&mut self, node: NodeId) {
        self.opened.insert(node);
    }

    /// Uses left of a token, by this account; none once it ended.
    pub(crate) fn uses_left(&self, token: TokenId) -> u32 {
        let life = self.tokens.get(&token).filter(|t| !t.ended && t.not_after >= self.reference.time());
        life.map_or(0, |t| t.allowed.saturating_sub(t.used))
    }

    /// Appends a command, and checks its outcome against the account. Returns what it counts as.
    pub(crate) fn commit(&mut self, stamped: Stamped, faults: &Faults) -> Result<Event, Broken> {
        let index = self.entries.len();
        let outcome = self.reference.apply_strictly(&stamped, faults)?;
        let event = self.account(index, &stamped.command, &outcome)?;
        self.check_ca_key()?;
        self.check_addresses()?;
        let digest = self.reference.digest()?;
        self.entries.push(Entry { stamped, outcome, digest });
        Ok(event)
    }

    fn account(&mut self, index: usize, command: &Command, outcome: &Outcome) -> Result<Event, Broken> {
        if let Outcome::Refused(why) = outcome {
            return Ok(trace::refused(why));
        }
        match (command, outcome) {
            (Command::Bootstrap(bootstrap), Outcome::Admitted(admitted)) => self.found(index, bootstrap, admitted),
            (Command::Admit(admission), Outcome::Admitted(admitted)) => self.admit(index, &admission.request, admitted),
            (Command::AddJoinToken(AddJoinToken(record)), _) => {
                self.tokens.insert(token_id(record.verifier), TokenLife::of(record));
                Ok(Event::TokenAdded)
            }
            (Command::RotateClusterToken(RotateClusterToken(record)), _) => {
                self.end_tokens(|_, life| life.cluster_token);
                let life = TokenLife { cluster_token: true, ..TokenLife::of(record) };
                self.tokens.insert(token_id(record.verifier), life);
                Ok(Event::TokenRotated)
            }
            (Command::RevokeJoinToken(RevokeJoinToken(token)), _) => {
                self.end_tokens(|id, _| id == token);
                Ok(Event::TokenRevoked)
            }
            (Command::Evict(Evict { node, compromised, .. }), _) => {
                self.history.evict(index, *node);
                if *compromised {
                    self.end_tokens(|_, _| true);
                    return Ok(Event::EvictedCompromised);
                }
                let token = self.admitted_by.get(node).copied();
                self.end_tokens(|id, _| Some(*id) == token);
                Ok(Event::Evicted)
            }
            (Command::IssuePrincipal(IssuePrincipal { role, spki, .. }), Outcome::Issued(grant)) => {
                self.history.issue(index, role, KeyId::of_spki(spki), grant.validity.not_after)?;
                Ok(Event::Issued)
            }
            (Command::RevokeKey(RevokeKey(key)), _) => {
                self.history.revoke(index, *key);
                Ok(Event::KeyEnded)
            }
            (Command::SetAddresses(SetAddresses { node, addresses, .. }), _) => {
                let signed = self.addresses.contains(&(*node, addresses.clone()));
                if signed { Ok(Event::AddressesChanged) } else { Err(Broken::AddressesUnsigned(*node)) }
            }
            (Command::ConfirmAuthority(ConfirmAuthority { node, .. }), _) => {
                if self.opened.contains(node) {
                    Ok(Event::Opened)
                } else {
                    Err(Broken::NeverOpened(*node))
                }
            }
            (command, _) => Ok(plain(command)),
        }
    }

    fn found(&mut self, index: usize, bootstrap: &Bootstrap, admitted: &Admitted) -> Result<Event, Broken> {
        if let Some(record) = &bootstrap.token {
            self.tokens.insert(token_id(record.verifier), TokenLife::of(record));
        }
        self.history.admit(index, admitted.node, bootstrap.keys, bootstrap.leaf_key)?;
        Ok(Event::Admitted)
    }

    fn admit(&mut self, index: usize, request: &EnrollmentRequest, admitted: &Admitted) -> Result<Event, Broken> {
        let token = request.token;
        let key = (token, request.request);
        let answer =
            Answer { node: admitted.node, keys: request.keys, leaf: request.leaf_key, serial: admitted.leaf.serial };
        if let Some(earlier) = self.answers.get(&key) {
            if *earlier != answer || !admitted.repeated {
                return Err(Broken::AnswersDiffer(request.request));
            }
            if self.history.is_evicted(answer.node) {
                return Err(Broken::RevokedReturned(answer.keys.identity.id()));
            }
            return Ok(if self.uses_left(token) == 0 { Event::RepeatedAfterEnd } else { Event::Repeated });
        }
        if admitted.repeated {
            return Err(Broken::AnswersDiffer(request.request));
        }
        if !self.signed.contains(request.transcript().as_bytes()) {
            return Err(Broken::Unsigned { token, node: answer.node });
        }
        if !self.history.is_endorsed(answer.keys.identity, answer.leaf, 0) {
            return Err(Broken::IdentityUnproven(answer.node));
        }
        let now = self.reference.time();
        let ended = |life: &&mut TokenLife| !life.ended && now <= life.not_after;
        let life = self.tokens.get_mut(&token).filter(ended).ok_or(Broken::EndedTokenUsed(token))?;
        if admitted.suffrage != life.suffrage || life.name.as_ref().is_some_and(|name| *name != admitted.name) {
            return Err(Broken::TokenExceeded(answer.node));
        }
        life.used += 1;
        if life.used > life.allowed {
            return Err(Broken::Overspent { token, used: life.used, allowed: life.allowed });
        }
        self.history.admit(index, answer.node, answer.keys, answer.leaf)?;
        self.admitted_by.insert(answer.node, token);
        self.answers.insert(key, answer);
        Ok(Event::Admitted)
    }

    fn end_tokens(&mut self, which: impl Fn(&TokenId, &TokenLife) -> bool) {
        for (id, life) in &mut self.tokens {
            life.ended |= which(id, life);
        }
    }

    /// A dialer of an address reaches one member. None of the addresses here is on loopback.
    fn check_addresses(&self) -> Result<(), Broken> {
        let Some(view) = self.view() else { return Ok(()) };
        let mut known = BTreeMap::new();
        for member in view.members.scan().values() {
            for address in &member.addresses {
                if known.insert(address, member.id).is_some_and(|other| other != member.id) {
                    return Err(Broken::AddressTwice(member.id));
                }
            }
        }
        Ok(())
    }

    /// Of the voters, one at least can sign: else the cluster could admit no node any more.
    fn check_ca_key(&self) -> Result<(), Broken> {
        let Some(view) = self.view() else { return Ok(()) };
        let sealed = self.reference.state().sealed();
        let opened = |node: NodeId| sealed.iter().any(|((_, holder), copy)| *holder == node && copy.opened);
        let voters = view.members.scan().values().filter(|m| m.suffrage == Suffrage::Voter);
        if voters.into_iter().any(|m| opened(m.id)) { Ok(()) } else { Err(Broken::CaKeyLost) }
    }
}

/// The event of a command that changes neither tokens nor identities.
const fn plain(command: &Command) -> Event {
    match command {
        Command::SetSuffrage(SetSuffrage { suffrage: Suffrage::Voter, .. }) => Event::Promoted,
        Command::SetSuffrage(SetSuffrage { suffrage: Suffrage::Learner, .. }) => Event::Demoted,
        Command::SealAuthority(_) => Event::Sealed,
        Command::AssignGroup(_) => Event::GroupAssigned,
        Command::ReportFeatureLevel(_) => Event::LevelReported,
        _ => Event::Committed,
    }
}
