//! The abstract log: one leader at a time, whose uncommitted tail may be lost with it; followers that apply when they
//! please; restarts and snapshots. Which voters agreed is not modelled: a committed prefix is never taken back.

use std::collections::BTreeMap;

use countersign_core::id::NodeId;
use countersign_core::lease::LeaseLength;
use countersign_core::name::Name;
use countersign_core::time::Validity;
use countersign_core::trust::command::{
    AddJoinToken, AdoptLeaf, AssignGroup, BindDataStore, BindStore, Bootstrap, Command, ConfirmAuthority, CreateGroup,
    EditHosts, Evict, IssuePrincipal, Label, NoteForTesting, ProveHosts, RaiseLevel, Renew, RenewPrincipal,
    ReportClientPort, ReportFeatureLevel, RevokeJoinToken, RevokeKey, RevokePrincipal, RotateClusterToken,
    SealAuthority, SealedKey, SetAddresses, SetSuffrage, SignAttestation, StagePolicy, Stamped,
};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::AuthorityKey;

use crate::actors::{BEGIN, CA, Keys, NODE_TTL_SECS, Token, draw_address};
use crate::ledger::Entry;
use crate::post::{Mail, Reply};
use crate::replica::{Replica, stamped};
use crate::trace::Event;
use crate::violation::Broken;
use crate::world::World;

/// A command that the leader has stamped and not committed.
#[derive(Debug)]
pub(crate) struct Pending {
    stamped: Stamped,
    /// The connection to answer on, while this leader leads.
    reply: Option<u64>,
}

/// Who leads, and what only the leader knows.
#[derive(Debug)]
pub(crate) struct Leadership {
    pub(crate) leader: NodeId,
    tail: Vec<Pending>,
    /// Answers owed, by log index; forgotten when leadership changes.
    replies: BTreeMap<usize, u64>,
}

impl Leadership {
    pub(crate) const fn new(leader: NodeId) -> Self {
        Self { leader, tail: Vec::new(), replies: BTreeMap::new() }
    }
}

impl World {
    /// Commits the first entry and lets the founder apply it.
    pub(crate) fn found(&mut self, keys: &Keys) -> Result<(), Broken> {
        let mut token = Token::draw(&mut self.rng, self.home.authority, self.now);
        token.record.cluster_token = true;
        self.faults.learn_token(token.held().id(), token.secret);
        let bootstrap = Bootstrap {
            cluster: self.home.cluster,
            name: Name::parse("east").map_err(|_| Broken::World)?,
            trust_domain: self.home.trust_domain.clone(),
            authority: CA.to_vec(),
            authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(self.ca().public()), sealed: vec![1] }),
            authority_validity: Validity {
                not_before: BEGIN.minus_secs(60),
                not_after: BEGIN.plus_secs(86_400 * 3650),
            },
            imported: false,
            node_name: Name::parse("founder").map_err(|_| Broken::World)?,
            addresses: vec![draw_address(&mut self.rng)?],
            keys: keys.public,
            store: keys.store(),
            leaf_key: keys.leaf,
            foreign: None,
            node_ttl_secs: NODE_TTL_SECS,
            lease: LeaseLength::DEFAULT,
            token: Some(token.record.clone()),
            policy: Default::default(),
        };
        self.admin.keep_token(token);
        let founder = self.leadership.leader;
        self.commit(stamped(self.now, founder, Command::Bootstrap(Box::new(bootstrap))))?;
        self.apply(self.leadership.leader, usize::MAX)
    }

    /// The leader stamps a command: its clock, or what it has seen if that is later. What it has not applied yet it has
    /// not seen, so the log's stamps may run backwards.
    pub(crate) fn propose(&mut self, from: NodeId, command: Command, reply: Option<u64>) {
        let Some(leader) = self.hosts.get(&self.leadership.leader) else { return };
        let seen = self.leadership.tail.last().map_or(leader.replica.time(), |p| p.stamped.time);
        let time = leader.clock(self.now).max(leader.replica.time()).max(seen);
        self.leadership.tail.push(Pending { stamped: stamped(time, from, command), reply });
    }

    pub(crate) fn commit_some(&mut self) -> Result<(), Broken> {
        let n = (1 + self.rng.index(4)).min(self.leadership.tail.len());
        let batch: Vec<Pending> = self.leadership.tail.drain(..n).collect();
        for pending in batch {
            if let Some(reply) = pending.reply {
                self.leadership.replies.insert(self.ledger.len(), reply);
            }
            self.commit(pending.stamped)?;
        }
        self.depose_if_unfit()
    }

    fn commit(&mut self, entry: Stamped) -> Result<(), Broken> {
        let command = entry.command.clone();
        if entry.time < self.ledger.reference().state().time() {
            self.trace.note(Event::StampBehind, format_args!("at index {}", self.ledger.len()));
        }
        if let Command::Evict(Evict { node, .. }) = &command
            && let Some(member) = self.ledger.view().and_then(|view| view.members.get(node))
        {
            self.faults.bury(member.clone());
        }
        let index = self.ledger.len();
        let event = self.ledger.commit(entry, &self.faults)?;
        self.trace.note(Event::Committed, format_args!("index {index}"));
        let outcome = self.ledger.entries().last().map(|entry| &entry.outcome);
        self.trace.note(event, format_args!("{}", describe(&command, outcome)));
        if self.rng.one_in(16) {
            self.ledger.reference().snapshot()?;
        }
        let evicted = matches!(outcome_of(self.ledger.entries()), Some(Outcome::Evicted { .. }));
        self.adversary.read_log(&mut self.rng, &command);
        if let (Command::Evict(Evict { node, .. }), true) = (&command, evicted) {
            self.hand_over(*node);
        }
        Ok(())
    }

    /// The machine of an evicted member is the adversary's, keys and all.
    fn hand_over(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.remove(&node) {
            self.keep_evidence(host.credential.clone());
            self.adversary.capture(host);
        }
    }

    fn depose_if_unfit(&mut self) -> Result<(), Broken> {
        let leader = self.leadership.leader;
        let votes = self.ledger.view().and_then(|view| view.members.get(&leader)).map(|m| m.suffrage);
        if votes == Some(Suffrage::Voter) && self.hosts.contains_key(&leader) { Ok(()) } else { self.elect() }
    }

    /// Another voter leads. Of the old leader's tail it has a prefix; the rest is lost, and so is every answer owed.
    pub(crate) fn elect(&mut self) -> Result<(), Broken> {
        let Some(view) = self.ledger.view() else { return Ok(()) };
        let voters = view.members.voters().map(|m| m.id);
        let fit: Vec<NodeId> = voters.filter(|id| self.hosts.contains_key(id)).collect();
        let Some(next) = self.rng.pick(&fit).copied() else { return Ok(()) };
        let survive = self.rng.index(self.leadership.tail.len() + 1);
        let lost = self.leadership.tail.split_off(survive);
        let mut tail = core::mem::take(&mut self.leadership.tail);
        for pending in &lost {
            let what = describe(&pending.stamped.command, None);
            self.trace.note(Event::TailLost, format_args!("{what}"));
        }
        for pending in &mut tail {
            pending.reply = None;
            self.trace.note(Event::TailSurvived, format_args!("{}", describe(&pending.stamped.command, None)));
        }
        if next != self.leadership.leader {
            self.trace.note(Event::LeaderChanged, format_args!("to {next}"));
        }
        self.leadership = Leadership { leader: next, tail, replies: BTreeMap::new() };
        Ok(())
    }

    pub(crate) fn apply_somewhere(&mut self) -> Result<(), Broken> {
        let n = 1 + self.rng.index(8);
        match self.any_host() {
            // A leader applies more eagerly than its followers: its clients wait.
            Some(_) if self.rng.one_in(2) => self.apply(self.leadership.leader, n),
            Some(node) => self.apply(node, n),
            None => Ok(()),
        }
    }

    /// `node` applies up to `most` entries, and is compared with what the log gives.
    pub(crate) fn apply(&mut self, node: NodeId, most: usize) -> Result<(), Broken> {
        let Some(host) = self.hosts.get_mut(&node) else { return Ok(()) };
        let leads = node == self.leadership.leader;
        let mut touched = false;
        let mut answers = Vec::new();
        let from = host.replica.applied();
        for (index, entry) in self.ledger.entries().iter().enumerate().skip(from).take(most) {
            if self.faults.skips(node, index) {
                host.replica.danger_skip();
                continue;
            }
            let outcome = host.replica.apply(&entry.stamped, &self.faults)?;
            if outcome != entry.outcome {
                return Err(Broken::OutcomesDiffer { node, index });
            }
            touched |= matches!(entry.stamped.command, Command::Evict(_) | Command::RevokeKey(_));
            if leads && let Some(connection) = self.leadership.replies.remove(&index) {
                answers.push((connection, outcome, host.replica.view().cloned()));
            }
        }
        check_digest(node, &host.replica, self.ledger.entries())?;
        for (connection, outcome, view) in answers {
            let reply = match (outcome, view) {
                (Outcome::Admitted(admitted), Some(view)) => {
                    Reply::Admitted { node: admitted.node, validity: admitted.leaf.validity, view }
                }
                (Outcome::Refused(why), _) => Reply::Refused(why),
                _ => continue,
            };
            self.send(Mail::Answer { connection, reply });
        }
        if touched { self.present_wallet(node) } else { Ok(()) }
    }

    /// A member crashes and goes on from what it stored; before it serves a caller it is where it was.
    pub(crate) fn restart_member(&mut self) -> Result<(), Broken> {
        let Some(host) = self.rng.pick_of(self.hosts.values_mut()) else { return Ok(()) };
        let was = host.replica.applied();
        let saved = match host.saved.take() {
            Some(saved) => saved,
            None => host.replica.snapshot()?,
        };
        if self.faults.restarts_from_the_old_snapshot() {
            host.replica.danger_install_as_present(&saved)?;
        } else {
            let mut replica = Replica::of(&saved)?;
            for entry in self.ledger.entries().iter().take(was).skip(replica.applied()) {
                replica.apply(&entry.stamped, &self.faults)?;
            }
            host.replica = replica;
        }
        check_digest(host.node, &host.replica, self.ledger.entries())?;
        if self.rng.one_in(2) {
            host.saved = Some(host.replica.snapshot()?);
        }
        let node = host.node;
        self.trace.note(Event::Restarted, format_args!("node {node} at {was}"));
        // A leader that crashes owes no answer any more.
        if node == self.leadership.leader { self.elect() } else { Ok(()) }
    }

    /// A member that is behind gets the snapshot of one that is ahead.
    pub(crate) fn install_snapshot_somewhere(&mut self) -> Result<(), Broken> {
        let (Some(from), Some(to)) = (self.any_host(), self.any_host()) else { return Ok(()) };
        let Some(ahead) = self.hosts.get(&from) else { return Ok(()) };
        let snapshot = ahead.replica.snapshot()?;
        let ahead = ahead.replica.applied();
        let Some(behind) = self.hosts.get_mut(&to).filter(|h| h.replica.applied() < ahead) else { return Ok(()) };
        behind.replica.install(&snapshot)?;
        check_digest(to, &behind.replica, self.ledger.entries())?;
        self.trace.note(Event::SnapshotInstalled, format_args!("of {from} at {to}"));
        self.present_wallet(to)
    }
}

fn outcome_of(entries: &[Entry]) -> Option<&Outcome> {
    entries.last().map(|entry| &entry.outcome)
}

fn check_digest(node: NodeId, replica: &Replica, log: &[Entry]) -> Result<(), Broken> {
    let index = replica.applied();
    let Some(entry) = index.checked_sub(1).and_then(|last| log.get(last)) else { return Ok(()) };
    if replica.digest()? == entry.digest { Ok(()) } else { Err(Broken::StatesDiffer { node, index }) }
}

/// A command in a few words.
fn describe(command: &Command, outcome: Option<&Outcome>) -> String {
    let what = match command {
        Command::Bootstrap(_) => "bootstrap".to_owned(),
        Command::AddJoinToken(AddJoinToken(record)) => format!("add token {record}"),
        Command::RevokeJoinToken(RevokeJoinToken(token)) => format!("revoke token {token}"),
        Command::RotateClusterToken(RotateClusterToken(record)) => format!("rotate to token {record}"),
        Command::Admit(admission) => {
            let request = &admission.request;
            format!("admit {} by {} as {}", request.request, request.token, request.name)
        }
        Command::SealAuthority(SealAuthority { node, .. }) => format!("seal to {node}"),
        Command::ConfirmAuthority(ConfirmAuthority { node, .. }) => format!("opened by {node}"),
        Command::SetSuffrage(SetSuffrage { node, suffrage, .. }) => format!("make {node} a {suffrage}"),
        Command::Evict(Evict { node, compromised, .. }) => format!("evict {node}, compromised: {compromised}"),
        Command::IssuePrincipal(IssuePrincipal { role, .. }) => format!("issue {role}"),
        Command::RenewPrincipal(RenewPrincipal { role, in_use, .. }) => format!("renew {role} from {in_use}"),
        Command::RevokeKey(RevokeKey(key)) => format!("revoke key {key}"),
        Command::AssignGroup(AssignGroup { group, members }) => format!("assign group {group} to {members:?}"),
        Command::ReportFeatureLevel(ReportFeatureLevel { node, level }) => format!("{node} knows level {level}"),
        Command::RaiseLevel(RaiseLevel { level, without, .. }) => format!("raise level to {level} without {without:?}"),
        Command::CreateGroup(CreateGroup { members }) => format!("create a group of {members:?}"),
        Command::BindDataStore(BindDataStore { node, store }) => format!("{node} keeps its groups in {store}"),
        Command::ReportClientPort(ReportClientPort { node, address }) => format!("clients reach {node} at {address:?}"),
        Command::NoteForTesting(NoteForTesting(note)) => format!("note {note}"),
        Command::SetAddresses(SetAddresses { node, .. }) => format!("addresses of {node}"),
        Command::ProveHosts(ProveHosts { node, witness }) => format!("hosts of {node}, seen by {}", witness.by),
        Command::EditHosts(EditHosts { node, .. }) => format!("hosts of {node}"),
        Command::SetCluster(_) => "a setting of the cluster".to_owned(),
        Command::RevokePrincipal(RevokePrincipal(role)) => format!("revoke {role}"),
        Command::Renew(Renew { node, endorsement, .. }) => format!("renewal {} of {node}", endorsement.renewal),
        Command::AdoptLeaf(AdoptLeaf { node, renewal }) => format!("{node} uses renewal {renewal}"),
        Command::SignAttestation(SignAttestation { number, node, .. }) => format!("{node} signs attestation {number}"),
        Command::StagePolicy(StagePolicy { part, remove, put, .. }) => {
            format!("part {part} of a change of rules: take out {}, put in {}", remove.len(), put.len())
        }
        Command::ChangePolicy(change) => format!("take out {} rules, put in {}", change.remove.len(), change.put.len()),
        Command::Label(Label { role, .. }) => format!("label {role}"),
        Command::ReturnStore(request) => format!("{} returns with store {}", request.node, request.store),
        Command::BindStore(BindStore { node, store }) => format!("store {store} of {node}"),
    };
    match outcome {
        None => what,
        Some(Outcome::Admitted(admitted)) => format!("{what}: node {}, repeated: {}", admitted.node, admitted.repeated),
        Some(Outcome::Refused(why)) => format!("{what}: {why}"),
        Some(_) => format!("{what}: done"),
    }
}
