//! What a member may rely on after a crash, and what it does when the disk cannot be relied on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_core::codec;
use countersign_core::id::StoreId;
use countersign_raft::{GroupState, GroupStopped, HubError, OpenError, ProposeError, RaftRpc, StartError};
use support::*;
use tempfile::TempDir;

// The wire form: (term, node), elected; then what the log ends with.
type Ballot = ((u64, u64), bool);
type LogEnd = Option<((u64, u64), u64)>;
type VoteAnswer = (Ballot, bool, LogEnd);

async fn ask_vote(member: &Member, term: u64, candidate: u64) -> VoteAnswer {
    let request: (Ballot, LogEnd) = (((term, candidate), false), None);
    let body = codec::encode(&(first_store(id(candidate)), request)).unwrap();
    let answer = member.groups.handle(id(candidate), TRUST, RaftRpc::Vote, &body).await.unwrap();
    let (_, _, answer): (StoreId, (Ballot, Option<u64>), VoteAnswer) = codec::decode(&answer).unwrap();
    answer
}

/// A member that is the only one of its group, with commands `0..count`.
async fn alone(count: u32) -> (Roster, Member) {
    let roster = Roster::default();
    roster.set(TRUST, &[1]);
    let mut member = Member::new(1, &Net::default(), &roster);
    let group = member.start(TRUST, config()).await;
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    for n in 0..count {
        group.propose(n.to_string().into_bytes()).await.unwrap();
    }
    (roster, member)
}

fn numbers(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_string().into_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_given_before_a_crash_is_not_given_again() {
    let roster = Roster::default();
    roster.set(TRUST, &[1, 2, 3]);
    let net = Net::default();
    let mut member = Member::new(1, &net, &roster);
    member.start(TRUST, config()).await;
    // The mark moves only after an fsync.
    let mark = || std::fs::read(member.dir.path().join("store/confirmed")).unwrap()[16];
    let before = mark();
    let granted = ask_vote(&member, 5, 3).await;
    assert_eq!(mark(), before + 1);
    assert_eq!((granted.0, granted.1), (((5, 3), false), true));
    // The image is of the moment in which the answer came.
    let mut member = Member::open(1, member.crash().await, &net, &roster);
    member.start(TRUST, config()).await;
    assert_eq!(member.group(TRUST).status().term, 5);
    for (term, candidate) in [(5, 2), (4, 3), (1, 2)] {
        let refused = ask_vote(&member, term, candidate).await;
        assert_eq!((refused.0, refused.1), (((5, 3), false), false), "{term} {candidate}");
    }
    assert!(ask_vote(&member, 6, 2).await.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_applied_before_any_peer_is_met() {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    for n in numbers(30) {
        members[at].group(TRUST).propose(n).await.unwrap();
    }
    level(&members, TRUST).await;
    for member in members {
        let number = member.id.0;
        // Once by a crash, once in good order; there is no other member to ask in either case.
        let image = member.dir.path().to_owned();
        let crashed = tempfile::tempdir().unwrap();
        copy(&image, crashed.path());
        for dir in [crashed, member.shutdown().await] {
            let mut back = Member::open(number, dir, &Net::default(), &roster);
            back.start(TRUST, config()).await;
            // The index of the last one may have been on its way to the disk.
            let found = back.journal(TRUST);
            assert!(found.len() >= 29 && numbers(30).starts_with(&found), "{}", found.len());
            back.shutdown().await;
        }
    }
}

/// Not a test of its own: the process that the next test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_proposes_until_it_is_killed() {
    let Ok(dir) = std::env::var("COUNTERSIGN_RAFT_TEST_DIR") else { return };
    let roster = Roster::default();
    roster.set(TRUST, &[1]);
    let net = Net::default();
    let store = open_store(1, Path::new(&dir)).unwrap();
    let own = first_store(id(1));
    let groups = countersign_raft::Groups::new(id(1), own, store, net.wire(id(1)), roster.of(id(1), own));
    let group = groups.start(TRUST, Recorder::publishing().0, config()).await.unwrap();
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    let mut out = std::io::stdout();
    for n in 0_u64.. {
        group.propose(n.to_string().into_bytes()).await.unwrap();
        writeln!(out, "answered {n}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_proposes_until_it_is_killed", "--exact", "--nocapture"])
        .env("COUNTERSIGN_RAFT_TEST_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let answered = |line: String| line.split_once("answered ").map(|(_, n)| n.parse::<u32>().unwrap());
    let mut last = lines.by_ref().filter_map(answered).nth(100).unwrap();
    // While the child lives, no other process may have its store.
    assert!(matches!(open_store(1, dir.path()), Err(OpenError::Locked { .. })));
    child.kill().unwrap();
    child.wait().unwrap();
    last = lines.filter_map(answered).last().unwrap_or(last);

    let roster = Roster::default();
    roster.set(TRUST, &[1]);
    let mut member = Member::open(1, dir, &Net::default(), &roster);
    let group = member.start(TRUST, config()).await;
    assert!(member.journal(TRUST).len() >= last as usize, "all but the last one are known to be committed");
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    group.ensure_linearizable().await.unwrap();
    let journal = member.journal(TRUST);
    assert!(journal.len() > last as usize);
    assert_eq!(journal, numbers(u32::try_from(journal.len()).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(1, dir.path()).unwrap();
    let error = open_store(1, dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().ends_with("is in use by another process"), "{error}");
    store.close();
    let store = open_store(1, dir.path()).unwrap();
    drop(store);
    open_store(1, dir.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_whose_promise_cannot_be_kept_stops_and_says_so() {
    let (_, member) = alone(3).await;
    let group = member.group(TRUST);
    assert!(group.running().is_ok() && !member.store.failed());
    member.store.fail_writes_for_testing();
    assert!(matches!(group.propose(b"x".to_vec()).await, Err(ProposeError::Unknown | ProposeError::Shutdown)));
    until(&group, "it stopped", |s| s.state == GroupState::Stopped).await;
    let error = group.running().unwrap_err();
    assert!(matches!(error, GroupStopped::Storage(_)), "{error}");
    assert!(error.source().unwrap().to_string().contains("accepts nothing more"), "{:?}", error.source());
    assert!(member.store.failed());
    assert_eq!(group.propose(b"x".to_vec()).await, Err(ProposeError::Shutdown));
    let body = codec::encode(&(first_store(id(1)), (((9_u64, 1_u64), false), LogEnd::None))).unwrap();
    let refused = member.groups.handle(id(1), TRUST, RaftRpc::Vote, &body).await.unwrap_err();
    assert!(matches!(refused, HubError::Stopped { .. }), "{refused}");
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Opens a store and its group where no other member answers. What was confirmed must be there, or the start must be
/// refused.
async fn find(dir: TempDir, roster: &Roster, confirmed: &[Vec<u8>], what: &str) -> Result<(), OpenError> {
    let store = open_store(1, dir.path())?;
    let net = Net::default();
    let groups = countersign_raft::Groups::new(
        id(1),
        first_store(id(1)),
        store,
        net.wire(id(1)),
        roster.of(id(1), first_store(id(1))),
    );
    let (machine, journal) = Recorder::publishing();
    if let Ok(group) = groups.start(TRUST, machine, config()).await {
        let status = group.status();
        assert_eq!((status.term, status.last_log), (1, Some(confirmed.len() as u64 + 1)), "{what}");
        let found = journal.lock().unwrap().clone();
        assert!(
            found.len() + 1 >= confirmed.len() && confirmed.starts_with(&found),
            "{what}: {} of {}",
            found.len(),
            confirmed.len()
        );
    }
    groups.shutdown().await;
    Ok(())
}

/// Flips one bit in each of `flips` places of each of these files, and looks what a start makes of it.
async fn flip(dir: &Path, paths: &[PathBuf], flips: usize, roster: &Roster, confirmed: &[Vec<u8>]) -> Vec<String> {
    let mut refused = Vec::new();
    for path in paths {
        let bytes = std::fs::read(path).unwrap();
        // Journals are preallocated: what lies behind the last byte written is no part of the data.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        for at in (0..used).step_by(used.div_ceil(flips).max(1)) {
            let image = tempfile::tempdir().unwrap();
            copy(dir, image.path());
            let name = path.strip_prefix(dir).unwrap();
            let what = format!("byte {at} of {}", name.display());
            let mut damaged = bytes[..used].to_vec();
            damaged[at] ^= 0x01;
            std::fs::write(image.path().join(name), damaged).unwrap();
            match find(image, roster, confirmed, &what).await {
                Ok(()) => refused.push("opened".to_owned()),
                Err(OpenError::Corrupt { .. }) => refused.push("corrupt".to_owned()),
                Err(OpenError::LostWrites { .. }) => refused.push("lost".to_owned()),
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_refused_or_harmless_but_never_forgets() {
    let (roster, member) = alone(8).await;
    let dir = member.shutdown().await;
    let mut paths = Vec::new();
    files(dir.path(), &mut paths);
    let found = flip(dir.path(), &paths, 60, &roster, &numbers(8)).await;
    assert!(found.iter().any(|found| found == "corrupt"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_table_is_refused_as_well() {
    let (roster, member) = alone(0).await;
    let mut confirmed = Vec::new();
    let mut tables = Vec::new();
    // Until the database moves the first entries from its journal into a table.
    while tables.is_empty() {
        let command = vec![u8::try_from(confirmed.len()).unwrap(); 1 << 20];
        member.group(TRUST).propose(command.clone()).await.unwrap();
        confirmed.push(command);
        files(member.dir.path(), &mut tables);
        tables.retain(|path| std::fs::metadata(path).is_ok_and(|file| file.len() > 1 << 20));
        tables.retain(|path| path.extension().is_none_or(|extension| extension != "jnl"));
    }
    let dir = member.shutdown().await;
    flip(dir.path(), &tables, 10, &roster, &confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_write_is_forgiven_and_a_lost_one_is_not() {
    const CONFIRMED: u32 = 8;
    let (roster, member) = alone(CONFIRMED).await;
    let dir = member.shutdown().await;
    let journal = Path::new("store").join("tables/0.jnl");
    let bytes = std::fs::read(dir.path().join(&journal)).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    let with = |content: &[u8]| {
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        std::fs::write(image.path().join(&journal), content).unwrap();
        image
    };
    // A batch whose end never reached the disk: the beginning of the first one, of 54 bytes, once more.
    for torn in [1, 5, 13, 40, 53] {
        let content = [&bytes[..used], &bytes[..torn]].concat();
        find(with(&content), &roster, &numbers(CONFIRMED), &format!("torn after {torn}")).await.unwrap();
    }
    // The last batch may be one that waited for no fsync, and so may be lost: the index of the last commit.
    for lost in [1, 20] {
        find(with(&bytes[..used - lost]), &roster, &numbers(CONFIRMED), "unsynced").await.unwrap();
    }
    for lost in [200, 300, used / 2, used] {
        let error = find(with(&bytes[..used - lost]), &roster, &numbers(CONFIRMED), "lost").await.unwrap_err();
        let expected = matches!(error, OpenError::LostWrites { .. } | OpenError::Corrupt { .. });
        assert!(expected, "{lost}: {error}");
    }
    // Opened once more after it was refused, it is refused still.
    let image = with(&bytes[..used - 200]);
    for _ in 0..2 {
        assert!(matches!(open_store(1, image.path()), Err(OpenError::LostWrites { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_failed_halfway_does_not_block_the_next() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("store.new/tables/keyspaces")).unwrap();
    std::fs::write(dir.path().join("store.new/tables/0.jnl"), b"half").unwrap();
    std::fs::write(dir.path().join("store.new/confirmed"), b"half").unwrap();
    open_store(1, dir.path()).unwrap().close();
    open_store(1, dir.path()).unwrap().close();
    // But a store that was in use is never made again.
    std::fs::remove_dir_all(dir.path().join("store/tables")).unwrap();
    assert!(matches!(open_store(1, dir.path()), Err(OpenError::Corrupt { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_command_stops_the_group_until_an_update() {
    let (net, roster) = (Net::seeded(9), Roster::default());
    roster.set(TRUST, &[1]);
    let mut member = Member::new(1, &net, &roster);
    let group = member.start(TRUST, config()).await;
    group.initialize(&ids(&[1])).await.unwrap();
    leader(std::slice::from_ref(&member), TRUST).await;
    group.propose(b"known".to_vec()).await.unwrap();
    // Both in one entry, as a rule: then its first half is applied in memory and must leave no trace.
    let (_, newer) = tokio::join!(group.propose(b"beside it".to_vec()), group.propose(NEWER.to_vec()));
    assert!(matches!(newer, Err(ProposeError::Unknown | ProposeError::Shutdown)), "{newer:?}");
    until(&group, "it stopped", |s| s.state == GroupState::Stopped).await;
    let stopped = group.running().unwrap_err();
    let GroupStopped::Apply(refused) = &stopped else { panic!("{stopped:?}") };
    let reason = Error::source(refused.as_ref()).unwrap().to_string();
    assert_eq!(reason, "it needs a newer recorder");
    assert!(group.snapshot_now().await.is_err());
    assert!(!member.journal(TRUST).contains(&NEWER.to_vec()));

    // The same binary stops again, and says the same: at its start, or if that came before it was recorded as
    // committed, once it leads.
    let image = member.crash().await;
    let mut again = Member::open(1, image, &net, &roster);
    let (machine, _) = Recorder::publishing();
    let stopped = match again.groups.start(TRUST, machine, config()).await {
        Err(StartError::Stopped(stopped)) => stopped,
        Err(other) => panic!("{other:?}"),
        Ok(group) => {
            until(&group, "it stopped again", |s| s.state == GroupState::Stopped).await;
            group.running().unwrap_err()
        }
    };
    assert!(matches!(stopped, GroupStopped::Apply(_)), "{stopped:?}");
    let image = again.crash().await;
    again = Member::open(1, image, &net, &roster);
    let (machine, journal) = Recorder::of_version(true);
    let group = again.groups.start(TRUST, machine, config()).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    group.ensure_linearizable().await.unwrap();
    let applied = journal.lock().unwrap().clone();
    assert_eq!(applied, [b"known".to_vec(), b"beside it".to_vec(), NEWER.to_vec()], "each once");
}
