//! Operators and members at work: tokens, roles, evictions, certificates, groups. They repeat themselves, as people do
//! whose answer was lost, and ask at members that may not help them.

use countersign_core::id::{GroupId, KeyId, NodeId, StoreId, ed25519_spki};
use countersign_core::limits::ADDRESSES_MAX;
use countersign_core::name::{Address, Host, HostName, Name};
use countersign_core::peer::CertificateClaims;
use countersign_core::principal::{Principal, Role};
use countersign_core::time::Validity;
use countersign_core::trust::command::{
    AddJoinToken, AssignGroup, BindDataStore, Command, ConfirmAuthority, CreateGroup, Evict, FEATURE_LEVEL,
    IssuePrincipal, ReportClientPort, ReportFeatureLevel, RevokeJoinToken, RevokeKey, RotateClusterToken,
    SealAuthority, SetAddresses, SetSuffrage,
};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::seal::confirm_transcript;
use countersign_core::trust::{addresses_transcript, view::View};

use crate::actors::{NODE_TTL_SECS, Token, draw_address, draw_name};
use crate::rng::Rng;
use crate::trace::Event;
use crate::violation::Broken;
use crate::world::World;

/// Tokens that an operator remembers, newest last.
const TOKENS_KEPT: usize = 12;
/// Commands that an operator may come to repeat.
const RECENT_MAX: usize = 8;
/// Members below which hardly anybody is evicted.
const MEMBERS_MIN: usize = 5;

/// What operators remember.
#[derive(Debug, Default)]
pub(crate) struct Admin {
    tokens: Vec<Token>,
    recent: Vec<Command>,
    /// Certificates asked for: the principal and the key.
    certificates: Vec<(Role, Vec<u8>)>,
}

impl Admin {
    pub(crate) fn keep_token(&mut self, token: Token) {
        if self.tokens.len() >= TOKENS_KEPT {
            self.tokens.remove(0);
        }
        self.tokens.push(token);
    }

    /// A token for a new node: mostly the newest, now and then an old one that may be of no more use.
    pub(crate) fn hand_out(&self, rng: &mut Rng) -> Option<Token> {
        if rng.one_in(4) { rng.pick(&self.tokens).cloned() } else { self.tokens.last().cloned() }
    }
}

impl World {
    pub(crate) fn administer(&mut self) -> Result<(), Broken> {
        let Some(command) = self.draw_command()? else { return Ok(()) };
        if self.admin.recent.len() >= RECENT_MAX {
            self.admin.recent.remove(0);
        }
        self.admin.recent.push(command.clone());
        if self.rng.one_in(2) {
            self.propose(self.leadership.leader, command, None);
            return Ok(());
        }
        let through = self.any_host();
        if let Some(host) = through.and_then(|node| self.hosts.get(&node)) {
            let evidence = host.credential.clone();
            self.forward(evidence, command, None);
        }
        Ok(())
    }

    fn draw_command(&mut self) -> Result<Option<Command>, Broken> {
        Ok(match self.rng.below(26) {
            0..5 => Some(Command::AddJoinToken(AddJoinToken(self.draw_token()?.record))),
            5 => self
                .rng
                .pick(&self.admin.tokens)
                .map(|token| Command::RevokeJoinToken(RevokeJoinToken(token.held().id()))),
            6 => Some(Command::RotateClusterToken(RotateClusterToken(self.draw_token()?.record))),
            7..9 => self.draw_suffrage(Suffrage::Voter),
            9 => self.draw_suffrage(Suffrage::Learner),
            10..13 => self.draw_eviction(),
            13..15 => Some(self.draw_certificate()?),
            15 => self.draw_revocation(),
            16 => self.draw_group(),
            17 => self.member().map(|node| {
                let even = node.0.is_multiple_of(2);
                if even { client_port(node) } else { known_level(node) }
            }),
            18 => self.draw_addresses()?,
            19..22 => self.draw_seal(),
            22..25 => self.draw_confirmation(),
            _ => self.rng.pick(&self.admin.recent).cloned(),
        })
    }

    fn view(&self) -> Option<&View> {
        self.ledger.view().map(|view| &**view)
    }

    /// A member, as the whole log has it: operators see further than the member that they ask.
    pub(crate) fn member(&mut self) -> Option<NodeId> {
        let members: Vec<NodeId> = self.view()?.members.scan().keys().copied().collect();
        self.rng.pick(&members).copied()
    }

    fn draw_token(&mut self) -> Result<Token, Broken> {
        let mut token = Token::draw(&mut self.rng, self.home.authority, self.now);
        if self.rng.one_in(8) {
            token.record.name = Some(draw_name(&mut self.rng)?);
        }
        self.faults.learn_token(token.held().id(), token.secret);
        self.admin.keep_token(token.clone());
        if self.rng.one_in(3) {
            self.adversary.steal(&mut self.rng, token.clone());
        }
        Ok(token)
    }

    fn draw_suffrage(&mut self, suffrage: Suffrage) -> Option<Command> {
        let keep_authority = !self.rng.one_in(3);
        // A voter that no host runs would only wait: promote those that run.
        let node = if suffrage == Suffrage::Voter { self.any_host() } else { self.member() };
        node.map(|node| Command::SetSuffrage(SetSuffrage { node, suffrage, keep_authority }))
    }

    fn draw_eviction(&mut self) -> Option<Command> {
        let members = self.view().map_or(0, |view| view.members.len());
        if members < MEMBERS_MIN && !self.rng.one_in(8) {
            return None;
        }
        let (compromised, keep_authority) = (self.rng.one_in(4), !self.rng.one_in(3));
        self.member().map(|node| Command::Evict(Evict { node, compromised, keep_authority }))
    }

    fn draw_certificate(&mut self) -> Result<Command, Broken> {
        let n = self.rng.below(6);
        let name = |kind: &str| Name::parse(&format!("{kind}{n}")).map_err(|_| Broken::World);
        // An operator certifies a key again before it expires; some try with one that was revoked.
        let known = if self.rng.one_in(3) { self.rng.pick(&self.admin.certificates).cloned() } else { None };
        let role = match self.rng.below(4) {
            0 => Role::Admin(name("root")?),
            1 => Role::Broker(HostName::parse("broker.example.org").map_err(|_| Broken::World)?),
            _ => Role::Client(name("pay")?),
        };
        let (role, spki) = known.unwrap_or((role, ed25519_spki(&self.rng.bytes()).to_vec()));
        let (key, ttl_secs) = (KeyId::of_spki(&spki), 600 + self.rng.below(NODE_TTL_SECS));
        let validity = Validity { not_before: self.now.minus_secs(60), not_after: self.now.plus_secs(ttl_secs) };
        self.admin.certificates.push((role.clone(), spki.clone()));
        let principal = Principal { trust_domain: self.home.trust_domain.clone(), role: role.clone() };
        let (authority, cluster) = (self.home.authority, Some(self.home.cluster));
        self.keep_evidence(CertificateClaims { principal, key, authority, cluster, endorsement: None, validity });
        Ok(Command::IssuePrincipal(IssuePrincipal { role, spki, ttl_secs }))
    }

    /// Revokes a principal's key, or a member's leaf key: it must make another. A member's identity key ends by
    /// eviction.
    fn draw_revocation(&mut self) -> Option<Command> {
        if self.rng.one_in(3) {
            return self
                .rng
                .pick_of(self.hosts.values())
                .map(|host| Command::RevokeKey(RevokeKey(host.credential.key)));
        }
        self.rng.pick(&self.admin.certificates).map(|(_, spki)| Command::RevokeKey(RevokeKey(KeyId::of_spki(spki))))
    }

    fn draw_group(&mut self) -> Option<Command> {
        let members = [self.member()?, self.member()?].to_vec();
        match self.rng.below(4) {
            0 => return Some(Command::CreateGroup(CreateGroup { members })),
            1 => {
                let store = StoreId([u8::try_from(self.rng.below(3)).unwrap_or(0); 16]);
                return Some(Command::BindDataStore(BindDataStore { node: self.member()?, store }));
            }
            _ => {}
        }
        // Mostly one of the first groups that exist; now and then one that never did.
        let known = if self.rng.one_in(8) { 100 } else { 3 };
        let group = GroupId(1 + self.rng.below(known));
        let members = if self.rng.one_in(6) { Vec::new() } else { members };
        Some(Command::AssignGroup(AssignGroup { group, members }))
    }

    fn draw_addresses(&mut self) -> Result<Option<Command>, Broken> {
        let count = if self.rng.one_in(8) { ADDRESSES_MAX + 1 } else { 1 };
        let addresses = (0..count).map(|_| draw_address(&mut self.rng)).collect::<Result<Vec<_>, _>>()?;
        let Some(host) = self.rng.pick_of(self.hosts.values()) else { return Ok(None) };
        let Some(view) = host.replica.view() else { return Ok(None) };
        let signature = host.keys.identity().sign(&addresses_transcript(view, host.node, &addresses));
        self.ledger.sign_addresses(host.node, &addresses);
        Ok(Some(Command::SetAddresses(SetAddresses { node: host.node, addresses, signature })))
    }

    /// A copy of the CA key for a voter that has none.
    fn draw_seal(&mut self) -> Option<Command> {
        let sealed = self.ledger.reference().state().sealed();
        let authority = self.home.authority;
        let voters = self.view()?.members.voters();
        let without: Vec<NodeId> = voters.map(|m| m.id).filter(|id| !sealed.contains_key(&(authority, *id))).collect();
        let node = *self.rng.pick(&without)?;
        Some(Command::SealAuthority(SealAuthority { authority, node, sealed: self.rng.bytes::<8>().to_vec() }))
    }

    /// A voter opens its copy, and so has the CA key to show it with.
    fn draw_confirmation(&mut self) -> Option<Command> {
        let authority = self.home.authority;
        let holds = |node: &NodeId, host: &crate::actors::Host| {
            host.replica.state().sealed().get(&(authority, *node)).is_some_and(|copy| !copy.opened)
        };
        let ready: Vec<NodeId> = self.hosts.iter().filter(|(node, host)| holds(node, host)).map(|(n, _)| *n).collect();
        let node = *self.rng.pick(&ready)?;
        let ciphertext = self.hosts.get(&node)?.replica.state().sealed().get(&(authority, node))?.ciphertext.clone();
        self.ledger.open(node);
        let transcript = confirm_transcript(self.home.cluster, authority, node, &ciphertext);
        let signature = self.ca().sign(&transcript).to_vec();
        Some(Command::ConfirmAuthority(ConfirmAuthority { authority, node, signature }))
    }

    /// A member makes a new leaf key, endorses it, and has it certified.
    pub(crate) fn renew_member(&mut self) -> Result<(), Broken> {
        let leaf = KeyId(self.rng.bytes());
        let Some(host) = self.rng.pick_of(self.hosts.values_mut()) else { return Ok(()) };
        let validity = Validity { not_before: self.now.minus_secs(60), not_after: self.now.plus_secs(NODE_TTL_SECS) };
        host.renewal += 1;
        let endorsement = host.keys.endorse(self.home.cluster, leaf, host.renewal);
        self.ledger.history.endorse(host.keys.public.identity, leaf, host.renewal);
        let renewed =
            CertificateClaims { key: leaf, endorsement: Some(endorsement), validity, ..host.credential.clone() };
        let old = core::mem::replace(&mut host.credential, renewed);
        self.trace.note(Event::Renewed, format_args!("node {}, renewal {}", host.node, host.renewal));
        self.keep_evidence(old);
        Ok(())
    }
}

fn known_level(node: NodeId) -> Command {
    Command::ReportFeatureLevel(ReportFeatureLevel { node, level: FEATURE_LEVEL })
}

/// What a member says that serves clients on the host of its cluster port.
fn client_port(node: NodeId) -> Command {
    let octet = u8::try_from(node.0).unwrap_or_default();
    let address = Address { host: Host::Ip([10, 0, 2, octet].into()), port: 7102 };
    Command::ReportClientPort(ReportClientPort { node, address: Some(address) })
}
