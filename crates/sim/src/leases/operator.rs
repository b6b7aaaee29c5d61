//! Operators: what they wish, and how the leader carries it out.

use countersign_core::id::{Generation, NodeId};
use countersign_core::member::recognition::Excerpt;
use countersign_core::name::Name;
use countersign_core::principal::Role;
use countersign_core::trust::command::{Command, Evict, IssuePrincipal, RevokeKey, RevokePrincipal, SetSuffrage};
use countersign_core::trust::member::Suffrage;

use super::machine::Machine;
use super::post::Body;
use super::world::Shop;

/// Clients that there are at least, seconds that their certificates live, and wishes under way at once.
const CLIENTS: usize = 8;
const CLIENT_TTL_SECS: u64 = 600;
const WISHES_MAX: usize = 5;
/// The prefix of an Ed25519 public key in DER (RFC 8410 §4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A command that an operator wants the leader to carry out.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) command: Command,
    /// From when on it is in force.
    pub(crate) generation: Option<Generation>,
    pub(crate) committed_at: u64,
    /// When the operator was told that no member serves the revoked principal.
    pub(crate) returned: Option<u64>,
}

impl Wish {
    pub(crate) const fn of(command: Command) -> Self {
        Self { command, generation: None, committed_at: 0, returned: None }
    }

    pub(crate) const fn revokes(&self) -> bool {
        matches!(self.command, Command::Evict(_) | Command::RevokeKey(_) | Command::RevokePrincipal(_))
    }

    const fn victim(&self) -> Option<NodeId> {
        match self.command {
            Command::Evict(Evict { node, .. }) => Some(node),
            _ => None,
        }
    }
}

pub(crate) const fn eviction(node: NodeId) -> Command {
    Command::Evict(Evict { node, compromised: true, keep_authority: true })
}

impl Shop {
    pub(crate) fn issue(&mut self) -> Option<Command> {
        let mut spki = SPKI.to_vec();
        spki.extend(self.rng.bytes::<32>());
        let name = Name::parse(&format!("c{}", self.rng.below(400))).ok()?;
        Some(Command::IssuePrincipal(IssuePrincipal { role: Role::Client(name), spki, ttl_secs: CLIENT_TTL_SECS }))
    }

    /// Draws the next wish.
    pub(crate) fn operate(&mut self) {
        let open = self.record.wishes.iter().filter(|wish| wish.returned.is_none()).count();
        if open >= WISHES_MAX {
            return;
        }
        let good: Vec<(Role, _)> = self.record.good().map(|c| (c.role().clone(), c.key())).collect();
        let command = match self.rng.below(10) {
            _ if good.len() < CLIENTS => self.issue(),
            0 => self.victim().map(eviction),
            1..5 => self.rng.pick(&good).map(|(_, key)| Command::RevokeKey(RevokeKey(*key))),
            5..8 => self.rng.pick(&good).map(|(role, _)| Command::RevokePrincipal(RevokePrincipal(role.clone()))),
            _ => self.issue(),
        };
        let pending = |command: &Command| self.record.wishes.iter().any(|wish| wish.command == *command);
        if let Some(command) = command.filter(|command| !pending(command)) {
            self.record.wishes.push(Wish::of(command));
        }
    }

    /// Three voters stay, and four members.
    fn victim(&mut self) -> Option<NodeId> {
        let victims: Vec<NodeId> = self.record.wishes.iter().filter_map(Wish::victim).collect();
        let voters = victims.iter().filter(|node| node.0 <= self.size.voters).count() as u64;
        let node = NodeId(1 + self.rng.below(self.size.members));
        let votes = node.0 <= self.size.voters;
        let spared = votes && voters + 3 >= self.size.voters || victims.len() as u64 + 4 > self.size.members;
        (!spared && !victims.contains(&node)).then_some(node)
    }
}

impl Machine {
    /// Shows what the cluster has become to a member that was away.
    pub(crate) fn show(&self, to: NodeId, nonce: [u8; 32], known: u64, shop: &mut Shop) {
        let Some(view) = self.process.view() else { return };
        let state = &self.process.state;
        let excerpt = Excerpt::of(state.chain_after(known), state.newest_attested().unwrap_or(&view.attestation));
        let answer = Box::new(excerpt.answer(self.node, &self.keys.identity(), &nonce, view));
        shop.send(self.node, to, Body::Recognition { nonce, answer });
    }

    /// One step towards what an operator wishes, once in a term.
    pub(crate) fn carry_out(&mut self, wish: usize, shop: &mut Shop) {
        let Some(command) = shop.record.wishes.get(wish).map(|wish| wish.command.clone()) else { return };
        if self.process.work.proposed.contains(&wish) {
            return;
        }
        if let Command::Evict(Evict { node, .. }) = command
            && !self.may_evict(node, shop)
        {
            return;
        }
        if self.propose(self.node, command, shop) {
            self.process.work.proposed.insert(wish);
        }
    }

    /// The order of an eviction: the victim is demoted, the leader's steps take its vote, and only then is it refused.
    fn may_evict(&mut self, victim: NodeId, shop: &mut Shop) -> bool {
        // A log that has an eviction refuses the victim at once. So nothing is proposed that its own state would
        // refuse.
        if self.process.applied < self.raft.log.len() {
            return false;
        }
        let member = self.process.view().and_then(|view| view.members.get(&victim));
        if member.is_some_and(|member| member.suffrage == Suffrage::Voter) {
            let demotion = SetSuffrage { node: victim, suffrage: Suffrage::Learner, keep_authority: true };
            self.propose(self.node, Command::SetSuffrage(demotion), shop);
            return false;
        }
        if self.raft.voters().1.contains(&victim) || self.process.state.needs(victim).is_some() {
            return false;
        }
        let before = shop.record.wishes.iter().filter(|wish| wish.victim().is_some_and(|v| v != victim));
        let last = before.filter_map(|wish| wish.generation).max();
        last.is_none_or(|generation| self.all_voters_enforce(generation, victim, shop))
    }
}
