//! Each index answers as a search through the whole table does, whatever was done to the table, and again once it was
//! read from its encoding.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::id::{Generation, NodeId, StoreId, TokenId};
use crate::name::{Address, HostName};
use crate::time::UnixMillis;
use crate::trust::TrustState;
use crate::trust::attestation::{Signature, SignedAttestation};
use crate::trust::author::Made;
use crate::trust::command::FEATURE_LEVEL;
use crate::trust::hosts::HostProof;
use crate::trust::join_token::Token;
use crate::trust::member::{Evicted, Leaf, Member, Suffrage};
use crate::trust::placement::PLACEMENT_LEVEL;
use crate::trust::tests::rig::{NOW, Rig, author, keys, leaf_key, name, record};

/// What decides in which index a member is.
type Shape = (bool, bool, u8, Option<bool>, u32, u64);

fn shape() -> impl Strategy<Value = Shape> {
    (any::<bool>(), any::<bool>(), 0..4_u8, any::<Option<bool>>(), 0..4_u32, 0..4_u64)
}

/// Members 1 to 7, each with a name, keys and a store of its own.
fn distinct() -> Vec<Member> {
    let rig = Rig::founded();
    let founder = &rig.0.view().unwrap().members[&NodeId(1)];
    let distinct = |seed: u8| Member {
        id: NodeId(seed.into()),
        name: name(&format!("n{seed}")),
        keys: keys(seed),
        store: StoreId([seed; 16]),
        leaf: Leaf { key: leaf_key(seed), ..founder.leaf.clone() },
        ..founder.clone()
    };
    (1..8).map(distinct).collect()
}

fn member(one: &Member, (votes, returning, host, proved, feature_level, since): Shape) -> Member {
    let id = one.id;
    let address = Address::parse(if host == 0 { "127.0.0.1:7001" } else { "10.0.0.9:7001" }).unwrap();
    let by = |voter: bool| if voter { HostProof::Voter(id) } else { HostProof::Admin };
    Member {
        suffrage: if votes { Suffrage::Voter } else { Suffrage::Learner },
        returning: returning.then(|| StoreId([one.store.0[0] + 100; 16])),
        proved: proved.map(|voter| (address.host.clone(), by(voter))).into_iter().collect(),
        addresses: vec![address],
        feature_level,
        level_since: UnixMillis(since),
        admitted_at: UnixMillis(1),
        ..one.clone()
    }
}

fn mapped(at: u64) -> HostName {
    HostName::parse(&format!("n{at}.example")).unwrap()
}

fn check_members(members: &Members) {
    let ids = |found: Vec<&Member>| found.iter().map(|member| member.id).collect::<Vec<_>>();
    let all = || members.scan().values();
    assert_eq!(ids(members.voters().collect()), ids(all().filter(|m| m.suffrage == Suffrage::Voter).collect()));
    assert_eq!(members.voter_count(), members.voters().count());
    assert_eq!(ids(members.returning().collect()), ids(all().filter(|m| m.returning.is_some()).collect()));
    assert_eq!(ids(members.unproved().collect()), ids(all().filter(|m| m.unproved().next().is_some()).collect()));
    let mut by_level: Vec<&Member> = all().collect();
    by_level.sort_by_key(|member| (member.feature_level, member.id));
    assert_eq!(members.newest_level(), by_level.last().map(|member| member.feature_level));
    for level in 0..5 {
        let below = by_level.iter().copied().filter(|member| member.feature_level < level).collect();
        assert_eq!(ids(members.below_level(level).collect()), ids(below), "below {level}");
    }
    assert_eq!(ids(members.lowest_level_first().collect()), ids(by_level));
    for time in (0..5).map(UnixMillis) {
        let took_up = |m: &&Member| m.level_since >= time && !(m.suffrage == Suffrage::Learner && m.level_since.0 == 1);
        let mut took_up: Vec<&Member> = all().filter(took_up).collect();
        took_up.sort_by_key(|member| (member.level_since, member.id));
        assert_eq!(ids(members.took_level_up_since(time).collect()), ids(took_up), "since {time:?}");
    }
}

fn check_evictions(evictions: &Evictions) {
    let all = || evictions.scan().iter();
    for at in 0..4 {
        let named = all().find(|(_, evicted)| evicted.name == name(&format!("n{at}"))).map(|(id, _)| *id);
        assert_eq!(evictions.named(&name(&format!("n{at}"))), named);
        let with = |(_, evicted): &(&NodeId, &Evicted)| evicted.mapped == Some(mapped(at));
        assert_eq!(evictions.mapped(&mapped(at)), all().rev().find(with).map(|(id, _)| *id));
        let mut after: Vec<NodeId> =
            all().filter(|(_, evicted)| evicted.generation.0 > at).map(|(id, _)| *id).collect();
        let mut found: Vec<NodeId> = evictions.after(Generation(at)).collect();
        after.sort();
        found.sort();
        assert_eq!(found, after, "after {at}");
    }
}

fn check_tokens(tokens: &Tokens) {
    let ids = |of: &dyn Fn(&Token) -> bool| -> Vec<TokenId> {
        tokens.scan().iter().filter(|(_, token)| of(token)).map(|(id, _)| *id).collect()
    };
    for now in (0..5).map(UnixMillis) {
        let usable = |token: &Token| token.record.usable(now).is_ok();
        assert_eq!(tokens.usable(now), ids(&usable), "at {now:?}");
        assert_eq!(tokens.usable_of_cluster(now), ids(&|token| usable(token) && token.record.cluster_token));
        let mut unusable: Vec<TokenId> = tokens.unusable(now).collect();
        unusable.sort();
        assert_eq!(unusable, ids(&|token| !usable(token)), "at {now:?}");
    }
}

proptest! {
    #[test]
    fn members_are_found_as_a_search_finds_them(
        done in vec((0..7_usize, prop::option::of(shape()), any::<bool>()), 0..40),
    ) {
        let (all, mut members) = (distinct(), Members::default());
        for (at, shape, update) in done {
            let one = &all[at];
            match shape {
                Some(shape) if update => drop(members.update(&one.id, |before| *before = member(one, shape))),
                Some(shape) => members.insert(one.id, member(one, shape)),
                None => drop(members.remove(&one.id)),
            }
            check_members(&members);
        }
        let read: Members = codec::decode(&codec::encode(&members).unwrap()).unwrap();
        check_members(&read);
        prop_assert_eq!((read.reach(), &read), (members.reach(), &members));
    }

    #[test]
    fn reach_differs_where_who_votes_or_addresses_differ(one in vec(shape(), 1..4), other in vec(shape(), 1..4)) {
        let all = distinct();
        let of = |shapes: &[Shape]| -> Members {
            all.iter().zip(shapes).map(|(of, shape)| (of.id, member(of, *shape))).collect()
        };
        let (one, other) = (of(&one), of(&other));
        let reached = |members: &Members| {
            let of = |(id, member): (&NodeId, &Member)| (*id, member.suffrage, member.addresses.clone());
            members.scan().iter().map(of).collect::<Vec<_>>()
        };
        prop_assert_eq!(one.reach() == other.reach(), reached(&one) == reached(&other));
    }

    #[test]
    fn evictions_are_found_as_a_search_finds_them(
        done in vec((1..6_u64, 0..4_u64, prop::option::of(0..4_u64), 0..5_u64), 0..24),
    ) {
        let identity = crate::trust::tests::rig::key(9).public();
        let mut evictions = Evictions::default();
        for (id, at, to, generation) in done {
            let (name, generation) = (name(&format!("n{at}")), Generation(generation));
            evictions.insert(NodeId(id), Evicted { name, mapped: to.map(mapped), identity, at: NOW, generation });
            check_evictions(&evictions);
        }
        let read: Evictions = codec::decode(&codec::encode(&evictions).unwrap()).unwrap();
        check_evictions(&read);
        prop_assert_eq!(read, evictions);
    }

    #[test]
    fn tokens_are_found_as_a_search_finds_them(
        done in vec(
            (0..6_u8, prop::option::of((0..5_u64, 0..2_u32, any::<bool>(), any::<bool>())), any::<bool>()),
            0..32,
        ),
    ) {
        let mut tokens = Tokens::default();
        for (id, shape, update) in done {
            let id = TokenId([id; 8]);
            let Some((not_after, uses_left, revoked, cluster_token)) = shape else {
                tokens.remove(&id);
                continue;
            };
            let mut wanted = record(5, 1);
            (wanted.not_after, wanted.uses_left) = (UnixMillis(not_after), uses_left);
            (wanted.revoked, wanted.cluster_token) = (revoked, cluster_token);
            if update {
                tokens.update(&id, |token| token.record = wanted);
            } else {
                tokens.insert(id, Token { record: wanted, made: Made::new(&author(), NOW) });
            }
            check_tokens(&tokens);
        }
        let read: Tokens = codec::decode(&codec::encode(&tokens).unwrap()).unwrap();
        check_tokens(&read);
        prop_assert_eq!(read, tokens);
    }
}

#[test]
fn attestations_are_a_list_by_number_digested_with_its_signatures() {
    let mut rig = Rig::three_voters();
    rig.attest();
    let all: Vec<SignedAttestation> = rig.0.attestations().all().cloned().collect();
    let count = u64::try_from(all.len()).unwrap();
    let mut table = Attestations::default();
    assert_eq!((table.next_number(), table.last()), (0, None));
    all.iter().cloned().for_each(|signed| table.push(signed));
    assert_eq!((table.next_number(), table.last()), (count, Some((count - 1, &all[all.len() - 1]))));
    assert_eq!((table.get(1), table.get(count)), (Some(&all[1]), None));
    assert!(table.range(1..count).eq(&all[1..]) && table.range(1..u64::MAX).eq(&all[1..]));
    assert!(table.range(count..u64::MAX).next().is_none() && table.range(count..1).next().is_none());
    assert_eq!(codec::encode(&table).unwrap(), codec::encode(&all).unwrap());
    let again: Attestations = codec::decode(&codec::encode(&table).unwrap()).unwrap();
    assert_eq!((again.sum(), &again), (table.sum(), &table));
    // A signature more is another digest; one under an attestation that there is none of changes nothing.
    let before = table.sum();
    assert!(!table.sign(count, NodeId(9), Signature([1; 64])) && table.sum() == before);
    assert!(table.sign(0, NodeId(9), Signature([1; 64])) && table.sum() != before);
    assert!(table.get(0).unwrap().signatures.contains_key(&NodeId(9)));
}

/// From the level at which the table's own sum is the digest, a signature shows in the digest of the state.
#[test]
fn state_of_the_placement_level_is_digested_with_its_attestations() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    rig.attest();
    let mut edited = rig.0.clone();
    assert!(edited.attestations.sign(0, NodeId(9), Signature([1; 64])));
    assert_ne!(edited.digest().unwrap(), rig.0.digest().unwrap());
    let again = TrustState::decode(FEATURE_LEVEL, &rig.0.encode().unwrap()).unwrap();
    assert_eq!((again.digest().unwrap(), again), (rig.0.digest().unwrap(), rig.0));
}
