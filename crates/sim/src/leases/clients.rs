//! The account of who was issued what and when it was revoked, and the adversary that presents all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::group::GroupMembers;
use countersign_core::id::{Generation, KeyId, NodeId};
use countersign_core::lease::NoLease;
use countersign_core::peer::{CertificateClaims, CertificateProof, Proof, Wanted, verify};
use countersign_core::principal::{Principal, Role};
use countersign_core::time::UnixMillis;
use countersign_core::trust::TrustState;
use countersign_core::trust::attestation::Attestation;
use countersign_core::trust::command::{
    AdoptLeaf, Command, Evict, IssuePrincipal, Renew, RevokeKey, RevokePrincipal, Stamped,
};
use countersign_core::trust::outcome::Outcome;

use super::LeaseDanger;
use super::machine::Machine;
use super::operator::Wish;
use super::post::Due;
use super::raft::{Entry, Payload};
use super::verdict::LeaseBroken;
use super::world::Shop;
use crate::actors::BEGIN;

/// Credentials that are presented at a time: those in good standing, and those revoked.
const GOOD_MAX: usize = 12;
const REVOKED_MAX: usize = 28;
/// Milliseconds by which the cluster's time may be ahead: the skew bound, and two clocks that are right.
const AHEAD_MAX: u64 = 65_000;

/// A certificate with its key, which the adversary has a copy of.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) proof: Proof,
    /// The generation that it is on record from.
    generation: Generation,
    /// The wish that revoked it.
    pub(crate) revoked: Option<usize>,
}

impl Credential {
    pub(crate) fn role(&self) -> &Role {
        &self.proof.principal().role
    }

    pub(crate) fn key(&self) -> KeyId {
        self.proof.key()
    }
}

/// The events so far, which no member of the world knows.
#[derive(Debug)]
pub(crate) struct Record {
    log: Vec<Arc<Entry>>,
    pub(crate) state: TrustState,
    /// Who votes by the entries so far. Learners are not modelled.
    members: GroupMembers,
    pub(crate) founding: Arc<Attestation>,
    pub(crate) credentials: Vec<Credential>,
    presented: Vec<usize>,
    pub(crate) wishes: Vec<Wish>,
    /// Who was evicted, by which wish.
    pub(crate) out: BTreeMap<NodeId, usize>,
    /// Evicted members that the adversary has; the others are honest, and know nothing of it yet.
    pub(crate) fallen: BTreeSet<NodeId>,
    /// Members that are to have another certificate, with the key of the one in use: their disk was set back, or they
    /// asked for the next by their identity key. Others may refuse this one.
    pub(crate) outdated: BTreeMap<NodeId, KeyId>,
    /// Members that ever asked by their identity key: they may ask twice, and the first of two certificates that no
    /// member has seen in use gives way to the second.
    pub(crate) came_back: BTreeSet<NodeId>,
    /// When a command was last committed.
    pub(crate) committed_at: u64,
}

impl Record {
    pub(crate) fn new(machine: &Machine) -> Result<Self, LeaseBroken> {
        let state = machine.process.state.clone();
        let founding = Arc::clone(&state.view().ok_or(LeaseBroken::World)?.attestation);
        let (credentials, presented, wishes, out) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self {
            log: machine.raft.log.clone(),
            state,
            members: machine.raft.members_at(machine.raft.log.len()),
            founding,
            credentials,
            presented,
            wishes,
            out,
            fallen: BTreeSet::new(),
            outdated: BTreeMap::new(),
            came_back: BTreeSet::new(),
            committed_at: 0,
        })
    }

    pub(crate) fn is_out(&self, node: NodeId) -> bool {
        self.out.contains_key(&node)
    }

    /// Whether other members may refuse the certificate of this member, which is in good standing.
    pub(crate) fn may_be_refused(&self, node: NodeId) -> bool {
        self.outdated.contains_key(&node) || self.came_back.contains(&node)
    }

    fn learn(&mut self, parts: CertificateClaims, generation: Generation) {
        let revoked = parts.principal.role.node_id().and_then(|node| self.out.get(&node).copied());
        self.presented.push(self.credentials.len());
        let proof = Proof::Certificate(CertificateProof::asserted(parts));
        self.credentials.push(Credential { proof, generation, revoked });
        for (revoked, most) in [(false, GOOD_MAX), (true, REVOKED_MAX)] {
            let of = |at: &&usize| self.credentials.get(**at).is_some_and(|c| c.revoked.is_some() == revoked);
            if self.presented.iter().filter(of).count() > most {
                // The one that is known longest.
                let oldest = self.presented.iter().find(of).copied();
                self.presented.retain(|at| Some(*at) != oldest);
            }
        }
    }

    fn revoke(&mut self, wish: usize, command: &Command) {
        for credential in self.credentials.iter_mut().filter(|c| c.revoked.is_none()) {
            let hit = match command {
                Command::Evict(Evict { node, .. }) => credential.role().node_id() == Some(*node),
                Command::RevokeKey(RevokeKey(key)) => credential.key() == *key,
                Command::RevokePrincipal(RevokePrincipal(role)) => credential.role() == role,
                _ => false,
            };
            if hit {
                credential.revoked = Some(wish);
            }
        }
    }

    /// Clients that no operator has revoked or wishes to revoke.
    pub(crate) fn good(&self) -> impl Iterator<Item = &Credential> + '_ {
        let wished = |c: &Credential| {
            self.wishes.iter().any(|wish| match &wish.command {
                Command::RevokeKey(RevokeKey(key)) => c.key() == *key,
                Command::RevokePrincipal(RevokePrincipal(role)) => c.role() == role,
                _ => false,
            })
        };
        self.credentials.iter().filter(move |c| c.revoked.is_none() && c.role().node_id().is_none() && !wished(c))
    }
}

impl Shop {
    /// Applies a command as every member does.
    pub(crate) fn apply(
        &self,
        state: &mut TrustState,
        members: &GroupMembers,
        stamped: &Stamped,
    ) -> Result<Outcome, LeaseBroken> {
        let outcome = state.apply(stamped, members)?;
        if let (Command::Renew(Renew { node, endorsement, .. }), true) =
            (&stamped.command, self.breaks(LeaseDanger::DropsOldCertificate))
        {
            let adopt = Command::AdoptLeaf(AdoptLeaf { node: *node, renewal: endorsement.renewal });
            state.apply(&Stamped { command: adopt, ..stamped.clone() }, members)?;
        }
        Ok(outcome)
    }

    /// A member found that this entry is committed. The first to find out tells what it means.
    pub(crate) fn committed(&mut self, node: NodeId, at: usize, entry: &Arc<Entry>) -> Result<(), LeaseBroken> {
        if let Some(known) = self.record.log.get(at) {
            let same = Arc::ptr_eq(known, entry) || known == entry;
            return if same { Ok(()) } else { Err(LeaseBroken::LogsDiffer(node)) };
        }
        self.record.log.push(Arc::clone(entry));
        let stamped = match &entry.payload {
            Payload::Command(stamped) => stamped,
            Payload::Voters(voters) => {
                self.record.members.voters.clone_from(voters);
                return Ok(());
            }
            Payload::Blank => return Ok(()),
        };
        let mut state = core::mem::take(&mut self.record.state);
        let outcome = self.apply(&mut state, &self.record.members, stamped);
        self.record.state = state;
        self.record.committed_at = self.now;
        let outcome = outcome?;
        let ahead = self.record.state.time().0.saturating_sub(BEGIN.0 + self.now);
        if ahead > AHEAD_MAX {
            return Err(LeaseBroken::TimeAhead { millis: ahead });
        }
        self.account(&stamped.command, &outcome);
        Ok(())
    }

    fn account(&mut self, command: &Command, outcome: &Outcome) {
        let generation = self.record.state.view().map_or(Generation(0), |view| view.generation);
        let wish = self.record.wishes.iter().position(|w| w.generation.is_none() && w.command == *command);
        if let (Command::IssuePrincipal(IssuePrincipal { role, spki, .. }), Outcome::Issued(grant)) = (command, outcome)
        {
            let parts = CertificateClaims {
                principal: Principal { trust_domain: self.home.trust_domain.clone(), role: role.clone() },
                key: KeyId::of_spki(spki),
                authority: self.home.authority,
                cluster: Some(self.home.cluster),
                endorsement: None,
                validity: grant.validity,
            };
            self.record.learn(parts, generation);
        }
        let refused = matches!(outcome, Outcome::Refused(_));
        let at = match wish {
            Some(at) => at,
            // Committed once more, in the term of another leader: it also revokes what was issued in between.
            None if matches!(command, Command::RevokePrincipal(_)) && !refused => {
                self.record.wishes.push(Wish::of(command.clone()));
                self.record.wishes.len() - 1
            }
            None => return,
        };
        let now = self.now;
        if let Some(wish) = self.record.wishes.get_mut(at) {
            wish.generation = Some(generation);
            wish.committed_at = now;
            if refused || !wish.revokes() {
                wish.returned = Some(now);
            }
        }
        self.note(format_args!("committed as {}: wish {at}, refused: {refused}", generation.0));
        if refused {
            return;
        }
        if let Command::Evict(Evict { node, .. }) = command {
            self.record.out.insert(*node, at);
            self.report.evictions += 1;
            self.captured.push(*node);
        }
        self.record.revoke(at, command);
    }

    /// A member uses a new certificate: the adversary sees it as everybody does.
    pub(crate) fn published(&mut self, parts: &CertificateClaims) {
        self.record.outdated.retain(|node, _| Some(*node) != parts.principal.role.node_id());
        let generation = self.record.state.view().map_or(Generation(0), |view| view.generation);
        self.record.learn(parts.clone(), generation);
    }

    pub(crate) fn returned(&mut self, wish: usize, lapsed: usize) {
        let now = self.now;
        if let Some(wish) = self.record.wishes.get_mut(wish) {
            wish.returned = Some(now);
        }
        self.report.barriers += 1;
        self.report.lapses += u64::from(lapsed > 0);
        self.note(format_args!("the barrier of wish {wish} has returned, {lapsed} lapsed"));
    }
}

impl Machine {
    /// Presents everything that the adversary has, on new connections and on those that are open.
    pub(crate) fn presented_all(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        let presented = shop.record.presented.clone();
        if self.paused {
            let room = 64_usize.saturating_sub(self.queue.len());
            self.queue.extend(presented.into_iter().take(room));
            return Ok(());
        }
        presented.into_iter().try_for_each(|at| self.presented(at, shop))
    }

    /// What waited in the sockets of a paused process comes first when it goes on.
    pub(crate) fn resume(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        self.paused = false;
        let queue = core::mem::take(&mut self.queue);
        shop.report.queued += queue.len() as u64;
        queue.into_iter().try_for_each(|at| self.presented(at, shop))
    }

    fn presented(&mut self, at: usize, shop: &mut Shop) -> Result<(), LeaseBroken> {
        self.served(at, self.process.connections.contains(&at), true, shop)?;
        if self.served(at, true, false, shop)? && shop.rng.one_in(3) {
            let (node, epoch) = (self.node, self.epoch);
            shop.later_within(1, 40, Due::HandshakeEnds { node, epoch, credential: at });
        }
        Ok(())
    }

    /// One presentation: whether this member serves the holder, and whether it may.
    fn served(&self, at: usize, connected: bool, open: bool, shop: &mut Shop) -> Result<bool, LeaseBroken> {
        let Some(credential) = shop.record.credentials.get(at) else { return Ok(false) };
        if !connected {
            return Ok(false);
        }
        let fresh = if shop.breaks(LeaseDanger::CountsFromAnswer) {
            if self.process.miscounted.holds(self.boot(shop.now)) { Ok(()) } else { Err(NoLease) }
        } else {
            self.process.clock.fresh(self.boot(shop.now)).map(|_| ())
        };
        let fresh = if shop.breaks(LeaseDanger::ServesWithoutLease) { Ok(()) } else { fresh };
        let verdict = if open { Ok(()) } else { self.judges(credential, shop) };
        let returned = credential.revoked.and_then(|wish| shop.record.wishes.get(wish)?.returned).is_some();
        let role = credential.role().clone();
        if let Err(why) = verdict
            && self.ought_to_serve(credential, shop.now)
        {
            return Err(LeaseBroken::ClientRefused { by: self.node, role, why });
        }
        let allowed = fresh.is_ok() && verdict.is_ok();
        if allowed && self.process.proven && !shop.setting.only_stale {
            return Err(LeaseBroken::ServedEvicted { member: self.node, role });
        }
        if allowed && returned && self.is_waited_for(credential, shop) {
            return Err(LeaseBroken::StaleAllow { member: self.node, role, open });
        }
        let bound = shop.size.lease.waited_millis();
        let since = shop.now - self.process.basis.unwrap_or(0);
        if allowed && since > bound && !shop.setting.only_stale {
            return Err(LeaseBroken::ServedUnleased { member: self.node, millis: since });
        }
        if shop.trouble {
            shop.report.checks += 1;
            shop.report.after_barrier += u64::from(returned);
            shop.report.on_open += u64::from(open);
            shop.report.allowed += u64::from(allowed);
            shop.report.unleased += u64::from(fresh == Err(NoLease));
        }
        Ok(allowed)
    }

    /// Whether the barrier over a revocation waited for this member: one that was evicted before is only told.
    fn is_waited_for(&self, credential: &Credential, shop: &Shop) -> bool {
        let wish = |at: usize| shop.record.wishes.get(at);
        let Some(out) = shop.record.out.get(&self.node).and_then(|at| wish(*at)) else { return true };
        let returned = credential.revoked.and_then(|at| wish(at)?.returned);
        returned.is_some_and(|returned| returned <= out.committed_at)
    }

    fn judges(&self, credential: &Credential, shop: &Shop) -> Result<(), countersign_core::peer::Refusal> {
        let Some(view) = self.process.view() else { return Err(countersign_core::peer::Refusal::NotReady) };
        verify(&credential.proof, view, Wanted::AnyPrincipal, self.judging_time(shop.now)).map(|_| ())
    }

    /// A client in good standing that this member knows of, whose certificate is valid by all clocks that are right.
    fn ought_to_serve(&self, credential: &Credential, now: u64) -> bool {
        let last = UnixMillis(BEGIN.0 + now + AHEAD_MAX);
        credential.revoked.is_none()
            && credential.role().node_id().is_none()
            && self.clocks.is_right()
            && self.process.generation() >= credential.generation
            && credential.proof.not_after() > last
    }

    /// A handshake ends: its peer is judged again.
    pub(crate) fn handshake_ends(&mut self, at: usize, shop: &Shop) {
        let known = shop.record.credentials.get(at);
        if known.is_some_and(|credential| self.judges(credential, shop).is_ok()) {
            self.process.connections.insert(at);
        }
    }
}
