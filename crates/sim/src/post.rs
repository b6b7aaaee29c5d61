//! Messages under way: delivered in any order, late, twice or never. Connections know what TLS would know of them.

use std::sync::Arc;

use countersign_core::codec;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::enroll::sponsor::{SponsorError, SponsorSide};
use countersign_core::id::{KeyId, NodeId};
use countersign_core::peer::{CertificateClaims, Scope, Wanted};
use countersign_core::time::Validity;
use countersign_core::trust::author::permit_in_recovery;
use countersign_core::trust::command::{
    BindDataStore, Command, ConfirmAuthority, ProveHosts, ReportClientPort, ReportFeatureLevel, SetAddresses,
};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;

use crate::actors::Keys;
use crate::trace::Event;
use crate::violation::Broken;
use crate::world::World;

/// Messages that may be under way at once.
const MAIL_MAX: usize = 96;

/// Who opened a connection for enrollment.
#[derive(Debug, Clone)]
pub(crate) enum Asker {
    /// An honest joiner.
    Joiner(u64),
    /// The adversary, with keys of its choice.
    Thief(Box<Keys>),
}

/// A connection for enrollment: its ends, and what both ends see of it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) asker: Asker,
    pub(crate) sponsor: NodeId,
    pub(crate) leaf: [u8; 32],
    pub(crate) exporter: [u8; 32],
}

/// What a joiner is told.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// It is this member of this cluster.
    Admitted {
        /// Its number.
        node: NodeId,
        /// Of its first leaf.
        validity: Validity,
        /// The cluster.
        view: Arc<View>,
    },
    /// It is not admitted.
    Refused(Refused),
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) enum Mail {
    /// From a joiner to its sponsor: the key of its CSR, and its request as bytes.
    Enroll { connection: u64, csr_key: KeyId, request: Vec<u8> },
    /// From a member to the one that it takes for the leader, on a connection that proves `evidence`.
    Forward { to: NodeId, evidence: Box<CertificateClaims>, command: Box<Command>, reply: Option<u64> },
    /// From the leader, by the sponsor, to the caller that opened the connection.
    Answer { connection: u64, reply: Reply },
}

impl World {
    pub(crate) fn send(&mut self, mail: Mail) {
        if self.mail.len() >= MAIL_MAX {
            let at = self.rng.index(self.mail.len());
            self.mail.swap_remove(at);
            self.trace.note(Event::Lost, format_args!("for want of room"));
        }
        self.mail.push(mail);
    }

    /// Has a member pass a command on to the leader, or now and then to another member.
    pub(crate) fn forward(&mut self, evidence: CertificateClaims, command: Command, reply: Option<u64>) {
        let stale = self.rng.one_in(12);
        let astray = if stale { self.any_host() } else { None };
        let to = astray.unwrap_or(self.leadership.leader);
        self.send(Mail::Forward { to, evidence: Box::new(evidence), command: Box::new(command), reply });
    }

    /// Opens a connection for enrollment to a member.
    pub(crate) fn connect(&mut self, asker: Asker, sponsor: NodeId) -> Option<(u64, Connection)> {
        let leaf = self.hosts.get(&sponsor)?.leaf_digest();
        let connection = Connection { asker, sponsor, leaf, exporter: self.rng.bytes() };
        let id = self.next_serial();
        self.connections.insert(id, connection.clone());
        Some((id, connection))
    }

    pub(crate) fn deliver(&mut self) -> Result<(), Broken> {
        let at = self.rng.index(self.mail.len());
        if self.mail.is_empty() {
            return Ok(());
        }
        let mail = self.mail.swap_remove(at);
        match self.rng.below(10) {
            0 => {
                self.trace.note(Event::Lost, format_args!(""));
                return Ok(());
            }
            1 => {
                self.trace.note(Event::Duplicated, format_args!(""));
                self.mail.push(mail.clone());
            }
            _ => self.trace.note(Event::Delivered, format_args!("")),
        }
        match mail {
            Mail::Enroll { connection, csr_key, request } => self.receive_enroll(connection, csr_key, &request),
            Mail::Forward { to, evidence, command, reply } => self.receive_forward(to, &evidence, *command, reply),
            Mail::Answer { connection, reply } => self.receive_answer(connection, reply),
        }
    }

    fn receive_enroll(&mut self, connection: u64, csr_key: KeyId, request: &[u8]) -> Result<(), Broken> {
        let Some(over) = self.connections.get(&connection) else { return Ok(()) };
        let Some(host) = self.hosts.get(&over.sponsor) else { return Ok(()) };
        let Some(view) = host.replica.view() else { return Ok(()) };
        let Ok(request) = codec::decode::<EnrollmentRequest>(request) else {
            self.trace.note(Event::Malformed, format_args!("at {}", host.node));
            return Ok(());
        };
        let (sponsor, exporter) = (host.node, over.exporter);
        let made_for = request.exporter;
        let side = SponsorSide { leaf: over.leaf, exporter, csr_key, foreign: None };
        match self.faults.sponsor(request, &side, view) {
            Ok(_) if made_for != exporter => Err(Broken::RelayedSponsored(sponsor)),
            Ok(sponsored) => {
                let evidence = host.credential.clone();
                self.trace.note(Event::Sponsored, format_args!("by {sponsor}, connection {connection}"));
                let command = Command::Admit(Box::new(sponsored.into_request().into()));
                self.forward(evidence, command, Some(connection));
                Ok(())
            }
            Err(SponsorError::Relayed) => {
                self.trace.note(Event::RelayRefused, format_args!("by {sponsor}, connection {connection}"));
                Ok(())
            }
            Err(why) => {
                self.trace.note(Event::SponsorRefused, format_args!("by {sponsor}: {why}"));
                Ok(())
            }
        }
    }

    fn receive_forward(
        &mut self,
        to: NodeId,
        evidence: &CertificateClaims,
        command: Command,
        reply: Option<u64>,
    ) -> Result<(), Broken> {
        if to != self.leadership.leader {
            self.trace.note(Event::Astray, format_args!("to {to}"));
            return Ok(());
        }
        let peer = self.judge(to, evidence, Wanted::AnyNode)?;
        let Some((from, scope)) = peer.and_then(|peer| Some((peer.node_id()?, peer.scope()))) else {
            self.trace.note(Event::UnauthenticatedRefused, format_args!("{}", evidence.principal.role));
            return Ok(());
        };
        if scope == Scope::Recovery && permit_in_recovery(from, &command).is_err() {
            self.trace.note(Event::NotPermitted, format_args!("{from}, whose certificate has expired"));
            return Ok(());
        }
        let Some(view) = self.hosts.get(&to).and_then(|host| host.replica.view()) else { return Ok(()) };
        match self.faults.permit(view, from, &command) {
            Ok(()) if !may_ask(view, from, &command) => Err(Broken::Unpermitted(from)),
            Ok(()) => {
                self.propose(from, command, reply);
                Ok(())
            }
            Err(_) => {
                self.trace.note(Event::NotPermitted, format_args!("{from}"));
                Ok(())
            }
        }
    }
}

/// Said a second time, in other words than the core's: what a member may have proposed.
fn may_ask(view: &View, from: NodeId, command: &Command) -> bool {
    let votes = view.members.get(&from).is_some_and(|m| m.suffrage == Suffrage::Voter);
    match command {
        Command::Bootstrap(_) => false,
        Command::Admit(admission) => admission.witness.as_ref().is_none_or(|witness| votes && witness.by == from),
        Command::ProveHosts(ProveHosts { witness, .. }) => votes && witness.by == from,
        Command::BindDataStore(BindDataStore { node, .. })
        | Command::ConfirmAuthority(ConfirmAuthority { node, .. })
        | Command::ReportClientPort(ReportClientPort { node, .. })
        | Command::ReportFeatureLevel(ReportFeatureLevel { node, .. })
        | Command::SetAddresses(SetAddresses { node, .. }) => votes || *node == from,
        _ => votes,
    }
}
