//! Properties of the core for any input: the state machine under random commands, and bytes from anywhere.
//!
//! Nodes, tokens and principals are few, so that commands meet: a random sequence admits, refuses, evicts and comes
//! back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod drawn;
mod reading;

use std::collections::BTreeSet;

use countersign_core::authz::PrincipalPattern;
use countersign_core::authz::change::{ChangeId, PolicyChange, StagedParts};
use countersign_core::authz::label::LabelEdit;
use countersign_core::authz::text::parse_requirements;
use countersign_core::codec::{self, FIRST_LEVEL};
use countersign_core::enroll::{EnrollmentRequest, returning::ReturnChannel, returning::StoreReturn};
use countersign_core::group::GroupMembers;
use countersign_core::id::{
    AuthorityId, ClusterId, Generation, GroupId, KeyId, NodeId, RequestId, StoreId, TokenId, ed25519_spki,
};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::lease::LeaseLength;
use countersign_core::name::{Address, Host, HostName, Name};
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::author::Author;
use countersign_core::trust::command::*;
use countersign_core::trust::hosts::Witness;
use countersign_core::trust::join_token::{JoinToken, TokenRecord};
use countersign_core::trust::member::{MemberKeys, Suffrage};
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::seal::confirm_transcript;
use countersign_core::trust::view::{AuthorityKey, View};
use countersign_core::trust::{Recorded, TrustState, addresses_transcript};
use drawn::{KINDS, kind, removals, rule};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use reading::{reads_or_refuses, state_and_entry_read_or_refuse};

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
const CA: &[u8] = b"a certificate is bytes to the state";
const CA_SEED: u8 = 250;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(Secret::new([seed; 32]))
}

fn pin() -> AuthorityId {
    AuthorityId::of_certificate(CA)
}

fn token(seed: u8) -> JoinToken {
    JoinToken::new(Secret::new([seed; 32]), pin())
}

fn keys(seed: u8) -> MemberKeys {
    MemberKeys { identity: key(seed).public(), sealing: [seed; 32], ucan: key(seed + 100).public() }
}

fn leaf(seed: u8) -> KeyId {
    KeyId([seed; 32])
}

fn name(seed: u8) -> Name {
    Name::parse(&format!("n{seed}")).unwrap()
}

fn address(seed: u8) -> Address {
    Address::parse(&format!("10.0.0.{seed}:7001")).unwrap()
}

fn spki(seed: u8) -> Vec<u8> {
    ed25519_spki(&[seed; 32]).to_vec()
}

fn bootstrap() -> Command {
    Command::Bootstrap(Box::new(Bootstrap {
        cluster: CLUSTER,
        name: name(0),
        trust_domain: TrustDomain::parse("east.internal").unwrap(),
        authority: CA.to_vec(),
        authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(key(CA_SEED).public()), sealed: vec![1] }),
        authority_validity: Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(86_400 * 3650) },
        imported: false,
        node_name: name(1),
        addresses: vec![address(1)],
        keys: keys(1),
        store: StoreId([1; 16]),
        leaf_key: leaf(1),
        foreign: None,
        node_ttl_secs: 86_400,
        lease: LeaseLength::DEFAULT,
        token: None,
        policy: Default::default(),
    }))
}

/// A request for node `seed` by token `by`; `damage` says which field is changed after it was signed, if any.
fn request(seed: u8, by: u8, damage: u8) -> EnrollmentRequest {
    let mut request = EnrollmentRequest {
        cluster: CLUSTER,
        pin: pin(),
        token: token(by).id(),
        request: RequestId([seed; 16]),
        name: name(seed),
        addresses: vec![address(seed)],
        leaf_key: leaf(seed),
        foreign: None,
        endorsement: Endorsement::sign(&key(seed), CLUSTER, leaf(seed), 0),
        keys: keys(seed),
        store: StoreId([seed; 16]),
        feature_level: FEATURE_LEVEL,
        sponsor_leaf: [3; 32],
        exporter: [4; 32],
        signature: [0; 64],
    }
    .signed(&token(by).key());
    match damage {
        0 => request.name = name(seed + 1),
        1 => request.addresses.clear(),
        2 => request.keys = keys(seed + 1),
        3 => request.request = RequestId([seed + 1; 16]),
        4 => request.signature[7] ^= 1,
        5 => request.token = token(by + 1).id(),
        _ => {}
    }
    request
}

fn suffrage() -> impl Strategy<Value = Suffrage> {
    prop_oneof![Just(Suffrage::Voter), Just(Suffrage::Learner)]
}

fn record() -> impl Strategy<Value = TokenRecord> {
    let shape = (200..206_u8, suffrage(), 0..4_u32, 0..2_u32, 0..5000_u64);
    (shape, any::<bool>(), any::<bool>(), prop::option::of(2..9_u8)).prop_map(
        |((seed, suffrage, uses, spent, ttl), revoked, cluster_token, named)| TokenRecord {
            verifier: token(seed).key().public(),
            pin: if ttl == 7 { AuthorityId([7; 32]) } else { pin() },
            suffrage,
            uses,
            uses_left: if ttl % 16 == 0 { spent } else { uses },
            not_after: NOW.plus_secs(ttl),
            name: named.filter(|n| n % 4 == 0).map(name),
            hosts: named.into_iter().map(|n| address(n).host).collect(),
            role: None,
            attributes: Default::default(),
            revoked: revoked && cluster_token,
            cluster_token,
        },
    )
}

/// Hosts that members advertise, and the broker's.
fn host() -> impl Strategy<Value = Host> {
    let broker = Just(Host::parse("b1.example.org").unwrap());
    prop_oneof![8 => (1..20_u8).prop_map(|n| address(n).host), 1 => broker]
}

fn witness() -> impl Strategy<Value = Witness> {
    (node(), vec(host(), 0..3)).prop_map(|(by, hosts)| Witness { by, hosts })
}

fn node() -> impl Strategy<Value = NodeId> {
    (0..9_u64).prop_map(NodeId)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        (0..3_u8).prop_map(|n| Role::Client(name(n))),
        (0..2_u8).prop_map(|n| Role::Admin(name(n))),
        Just(Role::Broker(HostName::parse("b1.example.org").unwrap())),
        node().prop_map(Role::Node),
    ]
}

/// Leaf keys and principals' keys. A member's identity key ends by eviction, not by being revoked.
fn revocable() -> impl Strategy<Value = KeyId> {
    prop_oneof![(1..9_u8).prop_map(leaf), (20..26_u8).prop_map(|n| KeyId::of_spki(&spki(n)))]
}

fn policy_change() -> impl Strategy<Value = PolicyChange> {
    let staged = prop::option::weighted(0.3, (0..3_u8, 1..3_u32));
    let staged = staged.prop_map(|s| s.map(|(n, parts)| StagedParts { change: ChangeId([n; 16]), parts }));
    let patterns = prop::sample::select(vec!["admin/*", "admin/n1", "*"]).prop_map(|text| text.parse().unwrap());
    let super_users = prop::option::weighted(0.2, prop::collection::btree_set(patterns, 0..2));
    let required =
        prop::option::weighted(0.2, prop::collection::btree_map("[ab]{0,1}", Just(vec!["W".to_owned()]), 0..2));
    let if_generation = prop::option::weighted(0.2, (0..30_u64).prop_map(Generation));
    (if_generation, staged, removals(), vec(rule(), 0..3), super_users, required).prop_map(
        |(if_generation, staged, remove, put, super_users, required)| {
            let requirements = required.map(|required| parse_requirements(&required).unwrap());
            PolicyChange { if_generation, staged, remove, put, super_users, requirements }
        },
    )
}

fn label_edit() -> impl Strategy<Value = LabelEdit> {
    let names = prop::sample::select(vec!["role", "gpu", "zone", "a b"]);
    (names, prop::option::of(prop::sample::select(vec!["W", "true", "eu"])))
        .prop_map(|(name, value)| LabelEdit { name: name.to_owned(), value: value.map(str::to_owned) })
}

/// To levels that this build knows: a state of a later one is not read again.
fn raise() -> impl Strategy<Value = RaiseLevel> {
    let without = prop::collection::btree_set(node(), 0..9);
    (FIRST_LEVEL..=FEATURE_LEVEL, without, any::<bool>()).prop_map(|(level, without, by_itself)| RaiseLevel {
        level,
        without,
        by_itself,
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (0..3_u8, 0..3_u32, removals(), vec(rule(), 0..3)).prop_map(|(n, part, remove, put)| {
            Command::StagePolicy(StagePolicy { change: ChangeId([n; 16]), part, remove, put })
        }),
        4 => policy_change().prop_map(|change| Command::ChangePolicy(Box::new(change))),
        3 => (role(), vec(label_edit(), 0..3)).prop_map(|(role, edits)| Command::Label(Label { role, edits })),
        1 => Just(bootstrap()),
        5 => record().prop_map(AddJoinToken).prop_map(Command::AddJoinToken),
        1 => (200..206_u8).prop_map(|t| Command::RevokeJoinToken(RevokeJoinToken(token(t).id()))),
        1 => record().prop_map(RotateClusterToken).prop_map(Command::RotateClusterToken),
        9 => (2..9_u8, 200..206_u8, 0..24_u8, prop::option::of(witness())).prop_map(|(n, t, d, witness)| {
            Command::Admit(Box::new(Admission { request: request(n, t, d), witness }))
        }),
        3 => (node(), witness()).prop_map(|(node, witness)| Command::ProveHosts(ProveHosts { node, witness })),
        3 => (node(), vec(host(), 0..3), vec(host(), 0..3))
            .prop_map(|(node, add, remove)| Command::EditHosts(EditHosts { node, add, remove })),
        2 => vec(host(), 0..3).prop_map(|names| Command::SetCluster(ClusterSetting::ClientNames(names))),
        2 => node().prop_map(|node| Command::SealAuthority(SealAuthority { authority: pin(), node, sealed: vec![9] })),
        2 => (node(), node()).prop_map(|(node, other)| {
            let signed = if other.0 == 0 { other } else { node };
            let signature = key(CA_SEED).sign(&confirm_transcript(CLUSTER, pin(), signed, &[1])).to_vec();
            Command::ConfirmAuthority(ConfirmAuthority { authority: pin(), node, signature })
        }),
        8 => (node(), suffrage(), any::<bool>()).prop_map(|(node, suffrage, keep_authority)| {
            Command::SetSuffrage(SetSuffrage { node, suffrage, keep_authority })
        }),
        6 => (node(), any::<bool>(), any::<bool>()).prop_map(|(node, compromised, keep_authority)| {
            Command::Evict(Evict { node, compromised, keep_authority })
        }),
        2 => (role(), 20..26_u8, 0..999_u64, 0..40_usize).prop_map(|(role, n, ttl_secs, cut)| {
            let mut spki = spki(n);
            spki.truncate(44 + 30 - cut.max(30));
            Command::IssuePrincipal(IssuePrincipal { role, spki, ttl_secs })
        }),
        2 => (role(), 20..26_u8, 20..26_u8).prop_map(|(role, n, next)| {
            Command::RenewPrincipal(RenewPrincipal { role, in_use: KeyId::of_spki(&spki(n)), spki: spki(next) })
        }),
        1 => revocable().prop_map(RevokeKey).prop_map(Command::RevokeKey),
        3 => (0..3_u64, vec(node(), 0..3))
            .prop_map(|(group, members)| Command::AssignGroup(AssignGroup { group: GroupId(group), members })),
        2 => vec((1..9_u64).prop_map(NodeId), 0..3).prop_map(|members| Command::CreateGroup(CreateGroup { members })),
        2 => (node(), 70..73_u8)
            .prop_map(|(node, store)| Command::BindDataStore(BindDataStore { node, store: StoreId([store; 16]) })),
        2 => (node(), prop::option::of(1..60_u8)).prop_map(|(node, host)| {
            Command::ReportClientPort(ReportClientPort { node, address: host.map(address) })
        }),
        2 => (node(), any::<u32>())
            .prop_map(|(node, level)| Command::ReportFeatureLevel(ReportFeatureLevel { node, level })),
        2 => raise().prop_map(Command::RaiseLevel),
        1 => Just(Command::NoteForTesting(NoteForTesting("kept".to_owned()))),
        1 => ((1..4_u64).prop_map(NodeId), 1..4_u8, vec(1..60_u8, 0..3)).prop_map(|(node, signer, addresses)| {
            let addresses: Vec<Address> = addresses.into_iter().map(address).collect();
            let signature = key(signer).sign(&addresses_transcript(&bare_view(), node, &addresses));
            Command::SetAddresses(SetAddresses { node, addresses, signature })
        }),
        6 => ((1..3_u64).prop_map(NodeId), 1..3_u8, 30..33_u8, 0..3_u64).prop_map(|(node, signer, n, renewal)| {
            let endorsement = Endorsement::sign(&key(signer), CLUSTER, leaf(n), renewal);
            Command::Renew(Renew { node, key: leaf(n), endorsement })
        }),
        2 => (node(), 0..4_u64).prop_map(|(node, renewal)| Command::AdoptLeaf(AdoptLeaf { node, renewal })),
        12 => (2..9_u8).prop_map(|seed| {
            let stores = (StoreId([seed; 16]), StoreId([42; 16]));
            let channel = ReturnChannel { leaf: [3; 32], exporter: [4; 32] };
            Command::ReturnStore(Box::new(StoreReturn::sign(&key(seed), (CLUSTER, NodeId(2)), stores, channel)))
        }),
        8 => Just(Command::BindStore(BindStore { node: NodeId(2), store: StoreId([42; 16]) })),
        1 => role().prop_map(RevokePrincipal).prop_map(Command::RevokePrincipal),
        1 => (0..2_u64, node(), 1..3_u8).prop_map(|(number, node, signer)| {
            let signature = key(signer).sign(&bare_view().attestation.transcript());
            Command::SignAttestation(SignAttestation { number, node, signature })
        }),
    ]
}

/// The members of the trust group when an entry is applied: as its time has it, so that equal logs have equal ones.
fn among(stamped: &Stamped) -> GroupMembers {
    let of = |shift| (1..4).filter(|node| stamped.time.secs() >> (shift + node) & 1 == 1).map(NodeId).collect();
    GroupMembers { voters: of(0), learners: of(3) }
}

/// A view for texts that are signed over the cluster alone.
fn bare_view() -> View {
    let mut state = TrustState::new();
    state.apply(&at(0, bootstrap()), &GroupMembers::default()).unwrap();
    (**state.view().unwrap()).clone()
}

fn at(secs: u64, command: Command) -> Stamped {
    let author = Author::of_member(NodeId(1), RequestId([0; 16]));
    Stamped { level: FEATURE_LEVEL, time: NOW.plus_secs(secs), author, command }
}

/// Stamps run in any order, and once in a while a command is of a level to come.
fn log() -> impl Strategy<Value = Vec<Stamped>> {
    let stamped = (0..3000_u64, 0..64_u32, command()).prop_map(|(secs, level, command)| Stamped {
        level: if level == 0 { FEATURE_LEVEL + 1 } else { FEATURE_LEVEL },
        ..at(secs, command)
    });
    // Most logs begin as logs do, at either level.
    (0..8_u8, FIRST_LEVEL..=FEATURE_LEVEL, vec(stamped, 1..60)).prop_map(|(begins, level, mut log)| {
        // A change in two parts seldom comes together by chance.
        if begins == 1 {
            let change = ChangeId([0; 16]);
            let part = |part| Command::StagePolicy(StagePolicy { change, part, remove: vec![], put: vec![] });
            let staged = Some(StagedParts { change, parts: 2 });
            let whole = Command::ChangePolicy(Box::new(PolicyChange { staged, ..PolicyChange::default() }));
            log.splice(0..0, [part(0), part(1), whole].map(|command| at(0, command)));
        }
        if begins > 0 {
            log.insert(0, Stamped { level, ..at(0, bootstrap()) });
        }
        log
    })
}

/// The state in which nothing but the time was changed by `stamped`.
fn with_time_of(mut state: TrustState, stamped: &Stamped) -> TrustState {
    let nothing = Command::RevokeJoinToken(RevokeJoinToken(TokenId([0; 8])));
    let refused = state.apply(&Stamped { command: nothing, ..stamped.clone() }, &among(stamped));
    assert!(matches!(refused, Ok(Outcome::Refused(_))));
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_log_keeps_the_invariants_and_a_refusal_changes_only_the_time(log in log()) {
        let mut state = TrustState::new();
        for stamped in &log {
            let before = state.clone();
            let Ok(Recorded { outcome, event }) = state.apply_recorded(stamped, &among(stamped)) else {
                prop_assert!(stamped.level.max(stamped.command.level()) > FEATURE_LEVEL);
                prop_assert_eq!(&state, &before);
                continue;
            };
            // Nothing changes but by an event, which the chain goes on by.
            prop_assert_eq!(event.is_some(), state != with_time_of(before.clone(), stamped), "{:?}", stamped);
            let number = before.chain().count() + u64::from(event.is_some());
            prop_assert_eq!(state.chain().count(), number);
            prop_assert!(event.is_none_or(|event| (event.number, event.head) == (number, state.chain().head())));
            prop_assert_eq!(state.time(), before.time().max(stamped.time));
            prop_assert!(state.check_invariants().is_ok(), "{:?} after {:?}", state.check_invariants(), stamped);
            if matches!(outcome, Outcome::Refused(_)) {
                prop_assert_eq!(&state, &with_time_of(before, stamped));
                continue;
            }
            let (was, is) = (before.view().map(|v| v.generation), state.view().map(|v| v.generation));
            prop_assert!(is > was || (is == was && state.view() == before.view()));
            rules_change_by_their_command_alone(&before, &state, stamped);
        }
    }

    #[test]
    fn equal_logs_give_equal_states_also_over_a_snapshot_anywhere(log in log(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(log.len());
        let (mut one, mut other) = (TrustState::new(), TrustState::new());
        for (index, stamped) in log.iter().enumerate() {
            if index == cut {
                other = TrustState::decode(FEATURE_LEVEL, &one.encode().unwrap()).unwrap();
                prop_assert_eq!(&one, &other);
            }
            // The log replicates bytes.
            let replicated = Stamped::decode(u32::MAX, &stamped.encode().unwrap()).unwrap();
            prop_assert_eq!(&replicated, stamped);
            let first = one.apply_recorded(stamped, &among(stamped));
            let outcomes = (first, other.apply_recorded(&replicated, &among(&replicated)));
            if let Ok(Recorded { outcome, .. }) = &outcomes.0 {
                prop_assert_eq!(&codec::decode::<Outcome>(&codec::encode(outcome).unwrap()).unwrap(), outcome);
            }
            prop_assert_eq!(outcomes.0, outcomes.1);
        }
        prop_assert_eq!(one.digest().unwrap(), other.digest().unwrap());
        let read = TrustState::decode(FEATURE_LEVEL, &one.encode().unwrap()).unwrap();
        prop_assert_eq!((one.digest().unwrap(), &one), (read.digest().unwrap(), &read));
    }

    #[test]
    fn a_damaged_snapshot_or_command_is_an_error_or_a_value_and_never_a_panic(
        log in log(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut state = TrustState::new();
        for stamped in &log {
            let _ = state.apply(stamped, &among(stamped));
        }
        let command = log.last().unwrap().encode().unwrap();
        for mut bytes in [state.encode().unwrap(), command] {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            state_and_entry_read_or_refuse(&bytes);
        }
        let longer = [state.encode().unwrap(), vec![0]].concat();
        prop_assert!(TrustState::decode(FEATURE_LEVEL, &longer).is_err(), "bytes left over");
    }
}

/// A policy changes as a whole, in the generation that says so; nothing else changes it.
fn rules_change_by_their_command_alone(before: &TrustState, state: &TrustState, stamped: &Stamped) {
    let (Some(was), Some(is)) = (before.view(), state.view()) else { return };
    if was.policy == is.policy {
        return;
    }
    assert!(matches!(stamped.command, Command::ChangePolicy(_)), "{stamped:?}");
    assert_eq!(is.policy.changed(), is.generation);
    assert!(is.policy.rules().all(|rule| rule.check().is_ok()));
    assert!(!is.policy.super_users().contains(&PrincipalPattern::Any));
}

/// The properties above say little about logs in which everything is refused.
#[test]
fn random_logs_reach_every_kind_of_outcome_for_every_kind_of_command() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..2400 {
        let mut state = TrustState::new();
        for stamped in log().new_tree(&mut runner).unwrap().current() {
            let command = kind(&stamped.command);
            let what = match state.apply(&stamped, &among(&stamped)) {
                Ok(Outcome::Refused(_)) => "refused",
                Ok(Outcome::Admitted(admitted) | Outcome::Renewed(admitted)) if admitted.repeated => "repeated",
                Ok(_) => "done",
                Err(_) => "stopped",
            };
            if let Command::ChangePolicy(change) = &stamped.command
                && let Some(StagedParts { parts, .. }) = change.staged
            {
                reached.insert(format!("{parts} parts {what}"));
            }
            reached.insert(format!("{command} {what}"));
        }
    }
    for command in KINDS {
        for what in ["done", "refused", "stopped"] {
            // What a later level brings stops a member of this one.
            let awaited = *command != "NoteForTesting" || what == "stopped";
            assert_eq!(reached.contains(&format!("{command} {what}")), awaited, "{command}: {what}");
        }
    }
    assert!((1..3).all(|parts| reached.contains(&format!("{parts} parts done"))), "one and two parts: {reached:?}");
    assert!(reached.contains("Admit repeated") && reached.contains("Renew repeated"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_bytes_are_an_error_or_a_value_and_never_a_panic(mut bytes in vec(any::<u8>(), 0..400), first: bool) {
        if let (true, Some(version)) = (first, bytes.first_mut()) {
            *version = codec::VERSION;
        }
        // Half of them at a level that is known.
        if let (true, Some(level)) = (first, bytes.get_mut(1)) {
            *level = 1 + *level % 2;
        }
        state_and_entry_read_or_refuse(&bytes);
        reads_or_refuses::<EnrollmentRequest>(&bytes);
        reads_or_refuses::<Outcome>(&bytes);
        reads_or_refuses::<View>(&bytes);
        reads_or_refuses::<(Principal, Address, Endorsement)>(&bytes);
    }
}
