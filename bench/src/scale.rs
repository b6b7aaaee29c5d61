//! What one command of the trust state costs as the state grows, while a reader holds the state before it: `apply`
//! alone, without Raft, disk or network.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use countersign_core::authz::label::LabelEdit;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::group::GroupMembers;
use countersign_core::id::{AuthorityId, ClusterId, GroupId, KeyId, NodeId, RequestId, StoreId, ed25519_spki};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::lease::LeaseLength;
use countersign_core::name::{Address, Name};
use countersign_core::principal::{Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::TrustState;
use countersign_core::trust::author::Author;
use countersign_core::trust::command::{
    AddJoinToken, AssignGroup, Bootstrap, Command, Evict, FEATURE_LEVEL, IssuePrincipal, Label, Renew, RenewPrincipal,
    RevokeKey, RevokePrincipal, SealedKey, Stamped,
};
use countersign_core::trust::join_token::{JoinToken, TokenRecord};
use countersign_core::trust::member::{MemberKeys, Suffrage};
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::AuthorityKey;

use crate::report::Report;

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
const CA: &[u8] = b"a certificate is bytes to the state";
/// Principals on record, the last as many as a cluster may have.
const PRINCIPALS: [u64; 5] = [10, 1_000, 10_000, 50_000, 99_000];
/// Members, the last nearly as many as a cluster may have.
const MEMBERS: [u64; 4] = [4, 100, 1_000, 3_800];
/// Commands of a kind that are timed for one figure.
const TIMED: u64 = 200;

/// A state that commands are applied to.
struct Grown {
    state: TrustState,
    next: u64,
}

fn secret(n: u64) -> SecretKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(Secret::new(seed))
}

fn bytes32(n: u64) -> [u8; 32] {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn spki(n: u64) -> Vec<u8> {
    ed25519_spki(&bytes32(n)).to_vec()
}

fn client(n: u64) -> Result<Role> {
    Ok(Role::Client(Name::parse(&format!("c{n}"))?))
}

fn member_keys(n: u64) -> MemberKeys {
    MemberKeys { identity: secret(n).public(), sealing: bytes32(n), ucan: secret(n + (1 << 40)).public() }
}

impl Grown {
    /// A founder and `members` learners, and as many clients as asked for.
    fn new(members: u64, principals: u64) -> Result<Self> {
        let key = secret(1 << 50).public();
        let validity = Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(86_400 * 3650) };
        let bootstrap = Bootstrap {
            cluster: CLUSTER,
            name: Name::parse("east")?,
            trust_domain: TrustDomain::parse("east.internal")?,
            authority: CA.to_vec(),
            authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(key), sealed: vec![1] }),
            authority_validity: validity,
            imported: false,
            node_name: Name::parse("n1")?,
            addresses: vec![Address::parse("10.0.0.1:7001")?],
            keys: member_keys(1),
            store: StoreId([1; 16]),
            leaf_key: KeyId(bytes32(1)),
            foreign: None,
            node_ttl_secs: 86_400,
            lease: LeaseLength::DEFAULT,
            token: None,
            policy: Default::default(),
        };
        let mut grown = Self { state: TrustState::new(), next: 2 };
        grown.apply(Command::Bootstrap(Box::new(bootstrap)))?;
        grown.token()?;
        for _ in 1..members {
            let command = grown.admission()?;
            grown.apply(command)?;
        }
        for _ in 0..principals {
            let command = grown.issue()?;
            grown.apply(command)?;
        }
        Ok(grown)
    }

    fn apply(&mut self, command: Command) -> Result<Outcome> {
        let author = Author::of_member(NodeId(1), RequestId([0; 16]));
        let stamped = Stamped { level: FEATURE_LEVEL, time: NOW, author, command };
        let outcome = self.state.apply(&stamped, &GroupMembers::default())?;
        ensure!(!matches!(outcome, Outcome::Refused(_)), "refused: {outcome:?}");
        Ok(outcome)
    }

    /// A number that was not given before.
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn join_token() -> JoinToken {
        JoinToken::new(Secret::new([5; 32]), AuthorityId::of_certificate(CA))
    }

    fn token(&mut self) -> Result<()> {
        let token = Self::join_token();
        let record = TokenRecord {
            verifier: token.key().public(),
            pin: token.pin(),
            suffrage: Suffrage::Learner,
            uses: 10_000,
            uses_left: 10_000,
            not_after: NOW.plus_secs(3600),
            name: None,
            hosts: vec![],
            role: None,
            attributes: Default::default(),
            revoked: false,
            cluster_token: false,
        };
        self.apply(Command::AddJoinToken(AddJoinToken(record))).map(drop)
    }

    fn admission(&mut self) -> Result<Command> {
        let n = self.number();
        let token = Self::join_token();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let leaf_key = KeyId(bytes32(n));
        let request = EnrollmentRequest {
            cluster: CLUSTER,
            pin: token.pin(),
            token: token.id(),
            request: RequestId(id),
            name: Name::parse(&format!("n{n}"))?,
            addresses: vec![Address::parse(&format!("10.{}.{}.{}:7001", n >> 16 & 255, n >> 8 & 255, n & 255))?],
            leaf_key,
            foreign: None,
            endorsement: Endorsement::sign(&secret(n), CLUSTER, leaf_key, 0),
            keys: member_keys(n),
            store: StoreId(id),
            feature_level: FEATURE_LEVEL,
            sponsor_leaf: [3; 32],
            exporter: [4; 32],
            signature: [0; 64],
        }
        .signed(&token.key());
        Ok(Command::Admit(Box::new(request.into())))
    }

    fn issue(&mut self) -> Result<Command> {
        let n = self.number();
        Ok(Command::IssuePrincipal(IssuePrincipal { role: client(n)?, spki: spki(n), ttl_secs: 86_400 }))
    }
}

/// The kinds of command that are timed, and how each next one is made.
#[derive(Clone, Copy)]
enum Kind {
    Issue,
    Renew,
    RevokeKey,
    RevokePrincipal,
    Label,
    AssignGroup,
    AdmitMember,
    RenewMember,
    EvictMember,
}

impl Kind {
    const OF_PRINCIPALS: [Self; 6] =
        [Self::Issue, Self::Renew, Self::RevokeKey, Self::RevokePrincipal, Self::Label, Self::AssignGroup];
    const OF_MEMBERS: [Self; 4] = [Self::AdmitMember, Self::RenewMember, Self::EvictMember, Self::Issue];

    const fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue to a new principal",
            Self::Renew => "renew a principal's certificate",
            Self::RevokeKey => "revoke a key",
            Self::RevokePrincipal => "revoke a principal",
            Self::Label => "label a principal",
            Self::AssignGroup => "assign a group",
            Self::AdmitMember => "admit a member (two signatures checked)",
            Self::RenewMember => "renew a member's certificate (one signature checked)",
            Self::EvictMember => "evict a member",
        }
    }

    fn command(self, grown: &mut Grown) -> Result<Command> {
        let members = grown.state.view().context("a view")?.members.len() as u64;
        Ok(match self {
            Self::Issue => grown.issue()?,
            Self::Renew => {
                // Of one that was just issued: each key is renewed once.
                let n = grown.number();
                grown.apply(Command::IssuePrincipal(IssuePrincipal {
                    role: client(n)?,
                    spki: spki(n),
                    ttl_secs: 86_400,
                }))?;
                let in_use = KeyId::of_spki(&spki(n));
                Command::RenewPrincipal(RenewPrincipal { role: client(n)?, in_use, spki: spki(n + (1 << 41)) })
            }
            Self::RevokeKey => Command::RevokeKey(RevokeKey(KeyId(bytes32(grown.number() + (1 << 42))))),
            Self::RevokePrincipal => {
                let n = grown.number();
                grown.apply(Command::IssuePrincipal(IssuePrincipal {
                    role: client(n)?,
                    spki: spki(n),
                    ttl_secs: 86_400,
                }))?;
                Command::RevokePrincipal(RevokePrincipal(client(n)?))
            }
            Self::Label => {
                let edit = LabelEdit { name: "zone".to_owned(), value: Some(format!("z{}", grown.number())) };
                // The first client is the first number after the members.
                let first = grown.state.view().context("a view")?.principals.scan().keys().next().cloned();
                Command::Label(Label { role: first.context("a principal")?, edits: vec![edit] })
            }
            Self::AssignGroup => {
                Command::AssignGroup(AssignGroup { group: GroupId(grown.number()), members: vec![NodeId(1)] })
            }
            Self::AdmitMember => grown.admission()?,
            Self::RenewMember => {
                let n = grown.number();
                let id = NodeId(1 + n % members);
                let member = grown.state.view().context("a view")?.members.get(&id).context("a member")?;
                // Members have the numbers that they were given, and the keys of the numbers that they were made from.
                let seed = if id.0 == 1 { 1 } else { id.0 + 1 };
                let (key, renewal) = (KeyId(bytes32(n + (1 << 43))), member.renewal() + 1);
                let endorsement = Endorsement::sign(&secret(seed), CLUSTER, key, renewal);
                Command::Renew(Renew { node: id, key, endorsement })
            }
            Self::EvictMember => {
                let last = grown.state.view().context("a view")?.members.scan().keys().next_back().copied();
                Command::Evict(Evict { node: last.context("a member")?, compromised: false, keep_authority: true })
            }
        })
    }

    /// Microseconds of one command, the median of many. A reader holds the state before each.
    fn measure(self, grown: &mut Grown) -> Result<f64> {
        let timed = match self {
            // There must be some left.
            Self::EvictMember => TIMED.min(grown.state.view().context("a view")?.members.len() as u64 / 2),
            _ => TIMED,
        };
        let mut took = Vec::new();
        for _ in 0..timed {
            let command = self.command(grown)?;
            let author = Author::of_member(NodeId(1), RequestId([0; 16]));
            let stamped = Stamped { level: FEATURE_LEVEL, time: NOW, author, command };
            // What a handshake and an admin's question hold meanwhile.
            let reader = grown.state.clone();
            let begun = Instant::now();
            let outcome = grown.state.apply(&stamped, &GroupMembers::default())?;
            took.push(begun.elapsed().as_secs_f64() * 1e6);
            drop(reader);
            ensure!(!matches!(outcome, Outcome::Refused(_)), "{}: {outcome:?}", self.name());
        }
        took.sort_by(f64::total_cmp);
        took.get(took.len() / 2).copied().context("nothing was timed")
    }
}

fn table(title: &str, sizes: &[u64], kinds: &[Kind], grow: impl Fn(u64) -> Result<Grown>) -> Result<String> {
    let mut rows: Vec<String> = kinds.iter().map(|kind| format!("| {} |", kind.name())).collect();
    for size in sizes {
        eprintln!("  {size} …");
        for (row, kind) in rows.iter_mut().zip(kinds) {
            // Each kind meets a state of this very size.
            let mut grown = grow(*size)?;
            row.push_str(&format!(" {:.1} |", kind.measure(&mut grown)?));
        }
    }
    let header: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    let line = "---:|".repeat(sizes.len());
    Ok(format!("### {title}\n\n| µs in `apply` | {} |\n|---|{line}\n{}\n", header.join(" | "), rows.join("\n")))
}

/// Every command at every size.
pub(crate) fn run() -> Result<Report> {
    let principals =
        table("One command, by principals on record", &PRINCIPALS, &Kind::OF_PRINCIPALS, |n| Grown::new(1, n))?;
    let members = table("One command, by members", &MEMBERS, &Kind::OF_MEMBERS, |n| Grown::new(n, 0))?;
    Ok(Report { sections: vec![principals, members], ..Report::default() })
}
