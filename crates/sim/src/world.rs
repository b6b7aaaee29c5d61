//! The whole simulated world and its steps. One step is one thing that happens to one actor; which one, the seed says.

use std::collections::BTreeMap;

use countersign_core::id::{AuthorityId, ClusterId, NodeId};
use countersign_core::key::SecretKey;
use countersign_core::peer::{CertificateClaims, Refusal, Scope, VerifiedPeer, Wanted};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};

use crate::actors::{BEGIN, CA, Host, Keys, NODE_TTL_SECS, domain};
use crate::admin::Admin;
use crate::adversary::Adversary;
use crate::consensus::Leadership;
use crate::danger::{Danger, Faults};
use crate::history::Home;
use crate::joiner::Joiner;
use crate::ledger::Ledger;
use crate::post::{Connection, Mail};
use crate::replica::Replica;
use crate::rng::Rng;
use crate::trace::{Event, Report, Trace};
use crate::violation::{Broken, Unfounded};

/// Evidence that is kept to be presented again.
const WALLET_MAX: usize = 48;
/// Milliseconds by which a clock may come to be wrong.
const DRIFT_MAX: i64 = 300_000;

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) faults: Faults,
    /// True time, which no member can read.
    pub(crate) now: UnixMillis,
    pub(crate) home: Home,
    /// The key of the authority, which adversaries have stolen.
    pub(crate) ca_key: [u8; 32],
    pub(crate) ledger: Ledger,
    pub(crate) leadership: Leadership,
    pub(crate) hosts: BTreeMap<NodeId, Host>,
    pub(crate) joiners: BTreeMap<u64, Joiner>,
    pub(crate) admin: Admin,
    pub(crate) adversary: Adversary,
    pub(crate) mail: Vec<Mail>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    /// Everything that was ever proven by anybody, or could be with a stolen CA key.
    pub(crate) wallet: Vec<CertificateClaims>,
    serial: u64,
}

impl World {
    /// A cluster of one, with its first entry committed.
    pub(crate) fn new(seed: u64, danger: Option<Danger>) -> Result<Self, Broken> {
        let mut rng = Rng::new(seed);
        let home = Home {
            cluster: ClusterId(rng.bytes()),
            trust_domain: domain("east.internal")?,
            authority: AuthorityId::of_certificate(CA),
        };
        let keys = Keys::draw(&mut rng);
        let founder = NodeId(1);
        let validity = Validity { not_before: BEGIN.minus_secs(60), not_after: BEGIN.plus_secs(NODE_TTL_SECS) };
        let host = Host::new(founder, keys, Replica::default(), &home, validity);
        let mut world = Self {
            ca_key: rng.bytes(),
            rng,
            trace: Trace::default(),
            faults: Faults::new(danger),
            now: BEGIN,
            home,
            ledger: Ledger::default(),
            leadership: Leadership::new(founder),
            hosts: BTreeMap::from([(founder, host)]),
            joiners: BTreeMap::new(),
            admin: Admin::default(),
            adversary: Adversary::default(),
            mail: Vec::new(),
            connections: BTreeMap::new(),
            wallet: Vec::new(),
            serial: 0,
        };
        world.found(&keys)?;
        Ok(world)
    }

    pub(crate) fn step(&mut self) -> Result<(), Broken> {
        self.trace.step += 1;
        self.now.0 += self.rng.below(6_000);
        self.drift();
        match self.rng.below(100) {
            0..36 => self.deliver(),
            36..50 => self.apply_somewhere(),
            50..62 => self.commit_some(),
            62 => self.elect(),
            63..65 => self.restart_member(),
            65..67 => self.install_snapshot_somewhere(),
            67..76 => self.join(),
            76..86 => self.administer(),
            86..90 => self.dial(),
            90..92 => self.renew_member(),
            _ => self.attack(),
        }
    }

    /// Lets each member apply all entries, and compares all members once more.
    pub(crate) fn apply_all(&mut self) -> Result<(), Broken> {
        let nodes: Vec<NodeId> = self.hosts.keys().copied().collect();
        for node in nodes {
            self.apply(node, usize::MAX)?;
            self.present_wallet(node)?;
        }
        Ok(())
    }

    pub(crate) fn report(&mut self) -> Result<Report, Broken> {
        let mut report = core::mem::take(&mut self.trace.report);
        report.committed = self.ledger.len();
        report.digest = self.ledger.reference().digest()?.0;
        Ok(report)
    }

    fn drift(&mut self) {
        let by = i64::try_from(self.rng.below(8_000)).unwrap_or(0) - 4_000;
        if let Some(host) = self.rng.pick_of(self.hosts.values_mut()) {
            host.drift = (host.drift + by).clamp(-DRIFT_MAX, DRIFT_MAX);
        }
    }

    /// A number that was never given before.
    pub(crate) const fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn any_host(&mut self) -> Option<NodeId> {
        self.rng.pick_of(self.hosts.keys()).copied()
    }

    pub(crate) const fn ca(&self) -> SecretKey {
        SecretKey::from_seed(Secret::new(self.ca_key))
    }

    pub(crate) fn keep_evidence(&mut self, parts: CertificateClaims) {
        if self.wallet.len() >= WALLET_MAX {
            let at = self.rng.index(self.wallet.len());
            self.wallet.swap_remove(at);
        }
        self.wallet.push(parts);
    }

    /// `host` judges a peer, and its verdict is compared with what the log gives ground for.
    pub(crate) fn judge(
        &mut self,
        judge: NodeId,
        parts: &CertificateClaims,
        wanted: Wanted,
    ) -> Result<Option<VerifiedPeer>, Broken> {
        let Some(host) = self.hosts.get(&judge) else { return Ok(None) };
        let Some(view) = host.replica.view() else { return Ok(None) };
        let now = host.judging_time(self.now);
        let verdict = self.faults.judge(view, parts, wanted, now);
        let role = &parts.principal.role;
        // A member that expired is taken for what it was, to recover and for nothing else.
        let expired = now.secs() > parts.validity.not_after.secs();
        let recovers = expired && role.node_id().is_some() && wanted != Wanted::AnyPrincipal;
        let at = if recovers { parts.validity.not_after } else { now };
        let ground = self.ledger.history.ground(&self.home, host.replica.applied(), parts, wanted, at);
        match (&verdict, ground) {
            (Ok(peer), Ok(())) if recovers && peer.scope() == Scope::Full => {
                Err(Broken::Accepted { judge, role: role.clone(), key: parts.key, why: Unfounded::OutOfTime })
            }
            (Ok(_), Err(why)) => Err(Broken::Accepted { judge, role: role.clone(), key: parts.key, why }),
            (Err(refusal), Ok(())) if !is_stricter(*refusal) => {
                Err(Broken::MemberRefused { judge, role: role.clone() })
            }
            (Err(refusal), _) => {
                self.trace.note_refusal(*refusal, format_args!("{role} at {judge}"));
                Ok(None)
            }
            (Ok(peer), Ok(())) => {
                let applied = host.replica.applied();
                let issued = self.ledger.history.issued_until(applied, role, parts.key);
                let until = issued.map_or(parts.validity.not_after, |issued| issued.min(parts.validity.not_after));
                let same = (peer.scope() == Scope::Recovery) == recovers
                    && *peer.principal() == parts.principal
                    && peer.key() == parts.key
                    && peer.generation() == view.generation
                    && peer.not_after() == until;
                if !same {
                    return Err(Broken::ProofDiffers(judge));
                }
                let event = match peer.node_id() {
                    None => Event::PrincipalAccepted,
                    Some(_) if recovers => Event::RecoveryAccepted,
                    Some(_) if parts.endorsement.as_ref().is_some_and(|e| e.renewal > 0) => Event::RenewedAccepted,
                    Some(_) => Event::PeerAccepted,
                };
                self.trace.note(event, format_args!("{role} at {judge}"));
                Ok(verdict.ok())
            }
        }
    }

    /// Presents all known evidence to one member: what it has just applied may have changed the verdict on any of it.
    pub(crate) fn present_wallet(&mut self, judge: NodeId) -> Result<(), Broken> {
        for at in 0..self.wallet.len() {
            let Some(parts) = self.wallet.get(at).cloned() else { break };
            self.judge(judge, &parts, Wanted::AnyPrincipal)?;
        }
        Ok(())
    }
}

/// The state may forget what the log once said, and refuse: keys of principals that expired, say.
const fn is_stricter(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::PrincipalUnknown)
}
