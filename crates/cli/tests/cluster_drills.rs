//! Restore drills: something is revoked while one voter is down, another voter loses its store or gets an older one,
//! and they come back in every order. No revocation is undone, no two ready members differ, and the printed command
//! brings the node back.
//!
//! Of all combinations the gate runs some that have each pair of values; `cargo xtask soak` runs them all, by setting
//! `COUNTERSIGN_DRILLS=every`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;
use support_cluster::client::Client;
use support_cluster::losses::{assert_agreed, assert_lost, copy, until_back};
use support_cluster::{Node, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    StoreRemoved,
    StoreEmptied,
    RecordRemoved,
    OlderStore,
    OlderButMemberFile,
    OlderDirectory,
}

/// In which order the voter that was down and the one that lost something start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    StaleFirst,
    LosingFirst,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leader {
    Alive,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Revocation,
    Eviction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Drill {
    voters: u8,
    loss: Loss,
    order: Order,
    leader: Leader,
    change: Change,
}

impl Loss {
    const ALL: [Self; 6] = [
        Self::StoreRemoved,
        Self::StoreEmptied,
        Self::RecordRemoved,
        Self::OlderStore,
        Self::OlderButMemberFile,
        Self::OlderDirectory,
    ];

    /// Whether the directory itself tells, so that the node does not start.
    const fn shows(self) -> bool {
        match self {
            Self::StoreRemoved | Self::StoreEmptied | Self::RecordRemoved | Self::OlderStore => true,
            Self::OlderButMemberFile | Self::OlderDirectory => false,
        }
    }

    fn inflict(self, data: &Path, older: &Path) {
        let store = data.join("store");
        match self {
            Self::StoreRemoved => fs::remove_dir_all(store).unwrap(),
            Self::StoreEmptied => {
                fs::remove_dir_all(&store).unwrap();
                fs::create_dir(&store).unwrap();
            }
            Self::RecordRemoved => fs::remove_file(data.join("store.confirmed")).unwrap(),
            Self::OlderStore => {
                fs::remove_dir_all(&store).unwrap();
                copy(&older.join("store"), &store);
            }
            Self::OlderButMemberFile => {
                let member = fs::read(data.join("member.json")).unwrap();
                fs::remove_dir_all(data).unwrap();
                copy(older, data);
                fs::write(data.join("member.json"), member).unwrap();
            }
            Self::OlderDirectory => {
                fs::remove_dir_all(data).unwrap();
                copy(older, data);
            }
        }
    }
}

impl Drill {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for voters in [3, 5] {
            for loss in Loss::ALL {
                for order in [Order::StaleFirst, Order::LosingFirst, Order::Both] {
                    for leader in [Leader::Alive, Leader::Down] {
                        for change in [Change::Revocation, Change::Eviction] {
                            all.push(Self { voters, loss, order, leader, change });
                        }
                    }
                }
            }
        }
        all
    }

    /// Every pair of values that it has, each named by its place.
    fn pairs(self) -> BTreeSet<(usize, usize, usize, usize)> {
        let values = [
            usize::from(self.voters),
            self.loss as usize,
            self.order as usize,
            self.leader as usize,
            self.change as usize,
        ];
        let places = 0..values.len();
        let pair = |a: usize| (a + 1..values.len()).map(move |b| (a, values[a], b, values[b]));
        places.flat_map(pair).collect()
    }

    /// The fewest, about, that have each pair of values.
    fn pairwise() -> Vec<Self> {
        let mut open: BTreeSet<_> = Self::all().into_iter().flat_map(Self::pairs).collect();
        let mut chosen = Vec::new();
        while !open.is_empty() {
            let news = |drill: &Self| drill.pairs().intersection(&open).count();
            let best = Self::all().into_iter().max_by_key(news).unwrap();
            open.retain(|pair| !best.pairs().contains(pair));
            chosen.push(best);
        }
        chosen
    }

    fn run(self) {
        let world = World::new();
        let mut nodes = world.voters_leased(self.voters, None);
        let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
        let leads = nodes.iter().position(|node| node.status()["node"].as_u64() == Some(leader)).unwrap();
        // Moved to the front: the leader, the one that loses, the one that is down meanwhile.
        nodes.swap(0, leads);
        let [first, losing, stale, rest @ ..] = &mut nodes[..] else { panic!("three at least") };
        let mut gone = world.node("gone");
        if self.change == Change::Eviction {
            let token = first.token(&["--role", "learner"]);
            world.join(&mut gone, &token, &first.address());
        }
        let client = Client::issue(first, &world.path("out"), "pay");
        let older = world.path("older");
        losing.stop();
        copy(&losing.data, &older);
        losing.start(&[]);
        losing.until_ready();
        // The voters remember of it what the copy has forgotten.
        for _ in 0..3 {
            first.ask(&["token", "create"]).ok();
        }
        let changes = |status: &Value| status["changes"]["count"].as_u64().unwrap();
        let count = changes(&first.status());
        for node in [&*losing, &*stale] {
            node.until(|status| changes(status) >= count);
        }
        stale.stop();
        first.ask(&["cert", "revoke", "client/pay"]).ok();
        if self.change == Change::Eviction {
            first.ask(&["node", "evict", "gone"]).ok();
        }
        let count = changes(&first.status());
        losing.until(|status| changes(status) >= count);
        losing.stop();
        self.loss.inflict(&losing.data, &older);
        if self.leader == Leader::Down {
            first.kill();
        }
        match self.order {
            Order::StaleFirst => {
                stale.start(&[]);
                stale.until(|_| true);
                self.start_losing(losing);
            }
            Order::LosingFirst => {
                self.start_losing(losing);
                stale.start(&[]);
            }
            Order::Both => {
                stale.start(&[]);
                self.start_losing(losing);
            }
        }
        stale.until(|_| true);
        // A member that is ready knows the revocation, also while the leader is down.
        for node in rest.iter().chain([&*stale]).chain((!self.loss.shows()).then_some(&*losing)) {
            let said = node.ask(&["status"]);
            if said.code == 0 && said.json()["ready"] == true {
                self.assert_revoked(node, &client);
            }
        }
        if self.leader == Leader::Down {
            first.start(&[]);
        }
        for node in rest.iter().chain([&*stale, &*first]) {
            node.until_ready();
        }
        if !self.loss.shows() {
            losing.until(|s| s["ready"] == false && s["warnings"].to_string().contains("--return-as-learner"));
            losing.stop();
        }
        losing.start(&["--return-as-learner"]);
        let name = losing.name.clone();
        let all: Vec<&Node> = nodes.iter().collect();
        until_back(&all, &name);
        assert_agreed(&all, &client);
        for node in &all {
            self.assert_revoked(node, &client);
        }
    }

    /// Where the directory tells, the node does not start and prints the way back. Otherwise it starts, and does not
    /// count.
    fn start_losing(self, node: &mut Node) {
        if self.loss.shows() {
            assert_lost(node, &format!("{self:?}"));
        } else {
            node.start(&[]);
        }
    }

    fn assert_revoked(self, node: &Node, client: &Client) {
        assert!(client.connect(&node.client_address()).is_err(), "{self:?}: {} accepts a revoked client", node.name);
        let status = node.status();
        let evicted = status["evicted"].as_array().unwrap().iter().any(|evicted| evicted["name"] == "gone");
        assert_eq!(evicted, self.change == Change::Eviction, "{self:?}: {status}");
    }
}

/// Runs these, a few at once, and names those that failed.
fn run(drills: Vec<Drill>) {
    const AT_ONCE: usize = 3;
    let (open, failed) = (Mutex::new(drills), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(drill) = { open.lock().unwrap().pop() } {
                    if std::panic::catch_unwind(|| drill.run()).is_err() {
                        failed.lock().unwrap().push(drill);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn each_pair_of_values_is_drilled() {
    let chosen = Drill::pairwise();
    assert!((18..=24).contains(&chosen.len()), "{}", chosen.len());
    let all = |drills: &[Drill]| drills.iter().flat_map(|drill| drill.pairs()).collect::<BTreeSet<_>>();
    assert_eq!(all(&chosen), all(&Drill::all()));
}

#[test]
fn revocation_outlives_stores_that_are_lost_or_older_in_whatever_order_they_come_back() {
    let every = std::env::var_os("COUNTERSIGN_DRILLS").is_some_and(|wanted| wanted == "every");
    run(if every { Drill::all() } else { Drill::pairwise() });
}
