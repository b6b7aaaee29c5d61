//! Which hosts stand in certificates of members, and on whose word.

use super::rig::*;
use crate::enroll::EnrollmentRequest;
use crate::id::{KeyId, NodeId, ed25519_spki};
use crate::key::Endorsement;
use crate::limits::{CLIENT_NAMES_LEN_MAX, CLIENT_NAMES_MAX, NODE_HOSTS_LEN_MAX, NODE_HOSTS_MAX, TOKEN_HOSTS_MAX};
use crate::name::{Address, Host, HostName};
use crate::principal::Role;
use crate::trust::addresses_transcript;
use crate::trust::author::permit;
use crate::trust::command::{
    AddJoinToken, Admission, AdoptLeaf, ClusterSetting, Command, EditHosts, IssuePrincipal, ProveHosts, Renew,
    SetAddresses,
};
use crate::trust::hosts::{HostProof, Witness};
use crate::trust::join_token::TokenRecord;
use crate::trust::outcome::{Admitted, Limited, Outcome, Refused};

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn hosts(texts: &[&str]) -> Vec<Host> {
    texts.iter().map(|text| host(text)).collect()
}

fn witness(by: u64, texts: &[&str]) -> Option<Witness> {
    Some(Witness { by: NodeId(by), hosts: hosts(texts) })
}

/// Voters 1 to 3, and a learner, 4. Token 6 names `db.example`, token 5 nothing.
fn rig() -> Rig {
    let mut rig = Rig::three_voters();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 9))));
    rig.apply(Command::AddJoinToken(AddJoinToken(TokenRecord {
        hosts: hosts(&["db.example", "10.0.9.9"]),
        ..record(6, 9)
    })));
    rig.apply(Command::Admit(Box::new(request(4, 5).into())));
    rig
}

/// A request of the node with this seed, that advertises `addresses`.
fn asking(seed: u8, token_seed: u8, addresses: &[&str]) -> EnrollmentRequest {
    let addresses = addresses.iter().map(|text| Address::parse(text).unwrap()).collect();
    EnrollmentRequest { addresses, ..request(seed, token_seed) }.signed(&token(token_seed).key())
}

fn admit(request: EnrollmentRequest, witness: Option<Witness>) -> Command {
    Command::Admit(Box::new(Admission { request, witness }))
}

/// The hosts of the certificate that node 5 gets.
fn admitted(request: EnrollmentRequest, witness: Option<Witness>) -> Vec<String> {
    match rig().apply(admit(request, witness)) {
        Outcome::Admitted(admitted) => shown(&admitted),
        other => panic!("{other:?}"),
    }
}

fn shown(admitted: &Admitted) -> Vec<String> {
    admitted.hosts.iter().map(ToString::to_string).collect()
}

/// The hosts of the next certificate of `node`, which it uses from then on.
fn renewed(rig: &mut Rig, node: u8) -> Vec<String> {
    let id = NodeId(node.into());
    let number = rig.0.view().unwrap().members[&id].renewal() + 1;
    let leaf = KeyId([node.wrapping_mul(16) + number as u8; 32]);
    let endorsement = Endorsement::sign(&key(node), CLUSTER, leaf, number);
    let Outcome::Renewed(admitted) = rig.apply(Command::Renew(Renew { node: id, key: leaf, endorsement })) else {
        panic!()
    };
    rig.apply(Command::AdoptLeaf(AdoptLeaf { node: id, renewal: number }));
    shown(&admitted)
}

fn move_to(rig: &Rig, node: u8, addresses: &[&str]) -> Command {
    let addresses: Vec<Address> = addresses.iter().map(|text| Address::parse(text).unwrap()).collect();
    let node_id = NodeId(node.into());
    let signature = key(node).sign(&addresses_transcript(rig.0.view().unwrap(), node_id, &addresses));
    Command::SetAddresses(SetAddresses { node: node_id, addresses, signature })
}

fn edit(node: u64, add: &[&str], remove: &[&str]) -> Command {
    Command::EditHosts(EditHosts { node: NodeId(node), add: hosts(add), remove: hosts(remove) })
}

fn client_names(names: &[&str]) -> Command {
    Command::SetCluster(ClusterSetting::ClientNames(hosts(names)))
}

fn broker(name: &str) -> Command {
    let role = Role::Broker(HostName::parse(name).unwrap());
    Command::IssuePrincipal(IssuePrincipal { role, spki: ed25519_spki(&key(77).public().0).to_vec(), ttl_secs: 60 })
}

#[test]
fn learner_gets_no_certificate_for_a_name_it_only_claims() {
    assert!(admitted(asking(5, 5, &["postgres.internal:5432"]), None).is_empty());
    assert!(admitted(asking(5, 6, &["postgres.internal:5432"]), None).is_empty(), "the token names another");
    assert!(admitted(asking(5, 5, &["postgres.internal:5432"]), witness(1, &[])).is_empty(), "not found there");
}

#[test]
fn learner_gets_no_certificate_for_the_ip_of_another_host() {
    assert!(admitted(asking(5, 5, &["10.7.7.7:5432"]), None).is_empty());
    // Found at its own address, and claimed another one beside it.
    let asked = asking(5, 5, &["10.0.0.5:7001", "10.7.7.7:5432"]);
    assert_eq!(admitted(asked, witness(1, &["10.0.0.5"])), ["10.0.0.5"]);
}

#[test]
fn token_named_hosts_stand_in_the_certificate_if_advertised() {
    assert_eq!(admitted(asking(5, 6, &["db.example:1", "10.0.9.9:1"]), None), ["10.0.9.9", "db.example"]);
    assert_eq!(admitted(asking(5, 6, &["db.example:1"]), None), ["db.example"]);
    assert!(admitted(asking(5, 6, &["db.example.evil:1"]), None).is_empty());
}

#[test]
fn hosts_where_a_voter_found_the_joiner_stand_in_its_certificate() {
    let asked = || asking(5, 5, &["n5.example:1", "10.0.0.5:1"]);
    assert_eq!(admitted(asked(), witness(3, &["n5.example", "10.0.0.5"])), ["10.0.0.5", "n5.example"]);
    assert_eq!(admitted(asked(), witness(3, &["n5.example"])), ["n5.example"]);
    assert_eq!(admitted(asked(), witness(3, &["n6.example"])), [""; 0], "not advertised");
}

#[test]
fn loopback_needs_no_proof() {
    assert_eq!(
        admitted(asking(5, 5, &["127.0.0.1:1", "localhost:1", "[::1]:1"]), None),
        ["127.0.0.1", "::1", "localhost"]
    );
}

#[test]
fn word_of_a_learner_or_of_no_member_proves_nothing() {
    for by in [4, 5, 9] {
        assert!(admitted(asking(5, 5, &["n5.example:1"]), witness(by, &["n5.example"])).is_empty(), "{by}");
    }
}

#[test]
fn member_speaks_for_itself_alone_when_it_proves_hosts() {
    let rig = rig();
    let view = rig.0.view().unwrap();
    let asked = || asking(5, 5, &["n5.example:1"]);
    for (from, by, allowed) in [
        (2, Some(2), true),
        (2, None, true),
        (4, None, true),
        (2, Some(1), false),
        (4, Some(4), false),
        (4, Some(1), false),
        (9, Some(1), false),
        (9, None, false),
    ] {
        let seen = by.and_then(|by| witness(by, &["n5.example"]));
        let mut commands = vec![admit(asked(), seen.clone())];
        commands.extend(seen.map(|witness| Command::ProveHosts(ProveHosts { node: NodeId(4), witness })));
        for command in commands {
            assert_eq!(permit(view, NodeId(from), &command).is_ok(), allowed, "{from} as {by:?}: {command:?}");
        }
    }
}

#[test]
fn learner_adds_no_hosts_and_sets_nothing_for_the_cluster() {
    let rig = rig();
    let view = rig.0.view().unwrap();
    for command in [edit(4, &["postgres.internal"], &[]), client_names(&["postgres.internal"])] {
        assert!(permit(view, NodeId(4), &command).is_err());
        assert!(permit(view, NodeId(2), &command).is_ok());
    }
}

#[test]
fn name_of_a_broker_is_refused_to_every_member() {
    let mut rig = rig();
    rig.apply(broker("db.example"));
    let taken =
        Refused::HostTaken { host: host("db.example"), by: Role::Broker(HostName::parse("db.example").unwrap()) };
    assert_eq!(rig.refused(admit(asking(5, 5, &["db.example:1"]), witness(1, &["db.example"]))), taken);
    assert_eq!(rig.refused(admit(asking(5, 6, &["db.example:1"]), None)), taken, "though the token names it");
    assert_eq!(rig.refused(move_to(&rig, 4, &["db.example:1"])), taken);
    assert_eq!(rig.refused(edit(4, &["db.example"], &[])), taken);
    assert_eq!(rig.refused(client_names(&["db.example"])), taken);
}

#[test]
fn host_of_one_member_is_refused_to_another() {
    let mut rig = rig();
    rig.apply(edit(2, &["n2.example"], &[]));
    let of_two = |text: &str| Refused::AddressTaken { address: Address::parse(text).unwrap(), node: NodeId(2) };
    for text in ["10.0.0.2:99", "n2.example:99"] {
        let found = witness(1, &["10.0.0.2", "n2.example"]);
        assert_eq!(rig.refused(admit(asking(5, 5, &[text]), found)), of_two(text));
        assert_eq!(rig.refused(move_to(&rig, 4, &[text])), of_two(text));
    }
    let taken = Refused::HostTaken { host: host("n2.example"), by: Role::Node(NodeId(2)) };
    assert_eq!(rig.refused(edit(4, &["n2.example"], &[])), taken);
    assert_eq!(rig.refused(client_names(&["n2.example"])), taken);
    assert_eq!(rig.refused(broker("n2.example")), taken);
}

#[test]
fn shared_name_is_refused_to_each_member_and_broker() {
    let mut rig = rig();
    rig.apply(client_names(&["lb.example", "10.0.0.99"]));
    for name in ["lb.example", "10.0.0.99"] {
        let shared = Refused::HostShared(host(name));
        let address = format!("{name}:1");
        assert_eq!(rig.refused(admit(asking(5, 5, &[&address]), witness(1, &[name]))), shared);
        assert_eq!(rig.refused(move_to(&rig, 4, &[&address])), shared);
        assert_eq!(rig.refused(edit(4, &[name], &[])), shared);
    }
    assert_eq!(rig.refused(broker("lb.example")), Refused::HostShared(host("lb.example")));
}

#[test]
fn shared_names_stand_in_each_next_certificate_until_they_are_taken_away() {
    let mut rig = rig();
    rig.apply(client_names(&["lb.example"]));
    let again = client_names(&["lb.example"]);
    let before = rig.0.view().unwrap().generation;
    assert_eq!(rig.apply(again), Outcome::Done(before), "nothing changes twice");
    for node in 1..=3 {
        assert!(renewed(&mut rig, node).contains(&"lb.example".to_owned()));
    }
    let Outcome::Admitted(new) = rig.apply(admit(asking(5, 5, &["n5.example:1"]), None)) else { panic!() };
    assert_eq!(shown(&new), ["lb.example"]);
    rig.apply(client_names(&[]));
    // Until the members have renewed, their certificates hold it: only all of them together may have it again.
    assert!(matches!(rig.refused(broker("lb.example")), Refused::HostTaken { .. }));
    let node = rig.refused(move_to(&rig, 4, &["lb.example:1"]));
    assert!(matches!(node, Refused::AddressTaken { .. }), "{node:?}");
    rig.apply(client_names(&["lb.example"]));
    rig.apply(client_names(&[]));
    for node in [1, 2, 3, 5] {
        assert!(!renewed(&mut rig, node).contains(&"lb.example".to_owned()));
    }
    assert!(matches!(rig.apply(broker("lb.example")), Outcome::Issued(_)));
}

#[test]
fn admin_adds_hosts_and_takes_them_away() {
    let mut rig = rig();
    rig.apply(edit(4, &["postgres.internal", "10.8.8.8"], &[]));
    assert_eq!(renewed(&mut rig, 4), ["10.8.8.8", "postgres.internal"]);
    let generation = rig.0.view().unwrap().generation;
    assert_eq!(rig.apply(edit(4, &["postgres.internal"], &["no.example"])), Outcome::Done(generation));
    rig.apply(edit(4, &[], &["postgres.internal"]));
    // As long as its certificate holds it, it is no other's.
    assert!(matches!(rig.refused(edit(2, &["postgres.internal"], &[])), Refused::HostTaken { .. }));
    assert_eq!(renewed(&mut rig, 4), ["10.8.8.8"]);
    assert!(matches!(rig.apply(edit(2, &["postgres.internal"], &[])), Outcome::Done(_)));
    assert_eq!(rig.refused(edit(9, &["x.example"], &[])), Refused::NoSuchNode(NodeId(9)));
    // All or none.
    let taken = rig.refused(edit(4, &["y.example", "postgres.internal"], &["10.8.8.8"]));
    assert!(matches!(taken, Refused::HostTaken { .. }), "{taken:?}");
}

#[test]
fn what_a_token_gave_an_admin_takes_away() {
    let mut rig = rig();
    rig.apply(admit(asking(5, 6, &["db.example:1"]), None));
    rig.apply(edit(5, &[], &["db.example"]));
    assert!(renewed(&mut rig, 5).is_empty());
}

#[test]
fn what_a_voter_finds_is_not_taken_away_by_name() {
    let mut rig = rig();
    rig.apply(admit(asking(5, 5, &["n5.example:1"]), witness(1, &["n5.example"])));
    let refused = rig.refused(edit(5, &[], &["n5.example"]));
    assert_eq!(refused, Refused::HostNotAdded { host: host("n5.example"), node: NodeId(5) });
}

#[test]
fn moved_member_is_dialed_at_once_and_certified_once_found() {
    let mut rig = rig();
    rig.apply(admit(asking(5, 5, &["n5.example:1"]), witness(1, &["n5.example"])));
    rig.apply(move_to(&rig, 5, &["postgres.internal:1"]));
    let address = |rig: &Rig| rig.0.view().unwrap().members[&NodeId(5)].addresses[0].to_string();
    assert_eq!(address(&rig), "postgres.internal:1");
    assert!(renewed(&mut rig, 5).is_empty(), "not the new one, and not the one that it has left");
    let found = |by: u64, text: &str| {
        Command::ProveHosts(ProveHosts { node: NodeId(5), witness: witness(by, &[text]).unwrap() })
    };
    for by in [4, 5] {
        assert_eq!(rig.refused(found(by, "postgres.internal")), Refused::NotAVoter(NodeId(by)));
    }
    assert_eq!(rig.refused(found(9, "postgres.internal")), Refused::NoSuchNode(NodeId(9)));
    let elsewhere = Refused::HostNotAdvertised { host: host("n5.example"), node: NodeId(5) };
    assert_eq!(rig.refused(found(1, "n5.example")), elsewhere);
    rig.apply(found(2, "postgres.internal"));
    assert_eq!(renewed(&mut rig, 5), ["postgres.internal"]);
    let generation = rig.0.view().unwrap().generation;
    assert_eq!(rig.apply(found(3, "postgres.internal")), Outcome::Done(generation), "known already");
    // There and back: it is to be found again.
    rig.apply(move_to(&rig, 5, &["n5.example:1"]));
    rig.apply(move_to(&rig, 5, &["postgres.internal:1"]));
    assert!(renewed(&mut rig, 5).is_empty());
}

#[test]
fn proof_by_an_admin_is_not_weakened_by_a_voter() {
    let mut rig = rig();
    rig.apply(move_to(&rig, 4, &["10.0.0.4:1", "n4.example:1"]));
    rig.apply(edit(4, &["10.0.0.4"], &[]));
    let found = witness(1, &["10.0.0.4", "n4.example"]).unwrap();
    rig.apply(Command::ProveHosts(ProveHosts { node: NodeId(4), witness: found }));
    assert_eq!(rig.0.view().unwrap().members[&NodeId(4)].proved[&host("n4.example")], HostProof::Voter(NodeId(1)));
    assert_eq!(rig.0.view().unwrap().members[&NodeId(4)].proved[&host("10.0.0.4")], HostProof::Admin);
    rig.apply(move_to(&rig, 4, &["10.0.0.44:1"]));
    assert_eq!(renewed(&mut rig, 4), ["10.0.0.4"]);
}

#[test]
fn joiner_is_looked_for_only_after_its_token_is_proved() {
    let rig = rig();
    let asked = asking(5, 6, &["n5.example:1", "db.example:1", "127.0.0.1:1"]);
    assert_eq!(rig.0.hosts_to_prove(&asked).unwrap(), [Address::parse("n5.example:1").unwrap()]);
    let mut forged = asked.clone();
    forged.addresses.push(Address::parse("10.7.7.7:22").unwrap());
    assert!(matches!(rig.0.hosts_to_prove(&forged), Err(Refused::Signature(_))));
    let taken = asking(5, 5, &["10.0.0.2:22"]);
    assert!(matches!(rig.0.hosts_to_prove(&taken), Err(Refused::AddressTaken { .. })));
    let mut rig = rig;
    rig.apply(admit(asked.clone(), None));
    assert_eq!(rig.0.hosts_to_prove(&asked), Ok(vec![]), "admitted already: no host is dialed for a repetition");
}

#[test]
fn repeated_admission_gets_the_hosts_of_the_first() {
    let mut rig = rig();
    let asked = || asking(5, 5, &["n5.example:1"]);
    rig.apply(admit(asked(), None));
    let Outcome::Admitted(again) = rig.apply(admit(asked(), witness(1, &["n5.example"]))) else { panic!() };
    assert!(again.repeated && again.hosts.is_empty());
}

#[test]
fn hosts_of_tokens_nodes_and_the_cluster_are_bounded() {
    let names = |n: usize, len: usize| -> Vec<Host> {
        (0..n).map(|i| host(&format!("{}.{i:03}.x", "a".repeat(len - 6)))).collect()
    };
    let limit = |what, max: usize| Refused::Limit { what, max: max as u64 };
    let mut rig = rig();
    let token = |hosts| Command::AddJoinToken(AddJoinToken(TokenRecord { hosts, ..record(9, 1) }));
    assert_eq!(rig.refused(token(names(TOKEN_HOSTS_MAX + 1, 8))), limit(Limited::TokenHosts, TOKEN_HOSTS_MAX));
    assert!(matches!(rig.apply(token(names(TOKEN_HOSTS_MAX, 8))), Outcome::Token(_)));

    let add = |add| Command::EditHosts(EditHosts { node: NodeId(4), add, remove: vec![] });
    assert_eq!(rig.refused(add(names(NODE_HOSTS_MAX + 1, 8))), limit(Limited::NodeHosts, NODE_HOSTS_MAX));
    let len = NODE_HOSTS_LEN_MAX / NODE_HOSTS_MAX;
    let mut long = names(NODE_HOSTS_MAX, len);
    assert!(matches!(rig.apply(add(long.clone())), Outcome::Done(_)));
    rig.apply(Command::EditHosts(EditHosts { node: NodeId(4), add: vec![], remove: long.clone() }));
    long[0] = host(&format!("{}.{}", "b".repeat(len - 1), "c"));
    assert_eq!(rig.refused(add(long)), limit(Limited::NodeHosts, NODE_HOSTS_LEN_MAX));

    let set = |names| Command::SetCluster(ClusterSetting::ClientNames(names));
    assert_eq!(rig.refused(set(names(CLIENT_NAMES_MAX + 1, 8))), limit(Limited::ClientNames, CLIENT_NAMES_MAX));
    let len = CLIENT_NAMES_LEN_MAX / CLIENT_NAMES_MAX;
    let mut long = names(CLIENT_NAMES_MAX, len);
    assert!(matches!(rig.apply(set(long.clone())), Outcome::Done(_)));
    long[0] = host(&format!("{}.{}", "b".repeat(len - 1), "c"));
    assert_eq!(rig.refused(set(long)), limit(Limited::ClientNames, CLIENT_NAMES_LEN_MAX));
}
