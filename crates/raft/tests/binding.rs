//! Whose a store is, and whether it is as far as it was: one that is missing, made for another member, or an older
//! copy is never used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::fs;
use std::path::Path;

use countersign_core::id::{ClusterId, Incarnation, StoreId};
use countersign_raft::{Binding, GroupState, OpenError, Store, StorePlace};
use support::*;
use tempfile::TempDir;

/// A member alone in its group, with so many commands, stopped in good order.
async fn used(number: u64, commands: u32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    use_again(number, dir, commands).await
}

async fn use_again(number: u64, dir: TempDir, commands: u32) -> TempDir {
    let roster = Roster::default();
    roster.set(TRUST, &[number]);
    let mut member = Member::open(number, dir, &Net::default(), &roster);
    let group = member.start(TRUST, config()).await;
    let _ = group.initialize(&ids(&[number])).await;
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    for n in 0..commands {
        group.propose(n.to_string().into_bytes()).await.unwrap();
    }
    member.shutdown().await
}

/// Why the store cannot be opened. It must be the same at a second try: refusing changes nothing.
#[track_caller]
fn refused(place: &StorePlace) -> OpenError {
    let first = Store::open(place).unwrap_err();
    let second = Store::open(place).unwrap_err();
    assert_eq!(first.to_string(), second.to_string());
    second
}

/// The store of `from` in place of that of `to`, and nothing else.
fn replace_store(from: &Path, to: &Path) {
    fs::remove_dir_all(to.join("store")).unwrap();
    fs::create_dir(to.join("store")).unwrap();
    copy(&from.join("store"), &to.join("store"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_store_is_an_error_and_not_made_again() {
    let dir = used(1, 2).await;
    let at = place(1, dir.path());
    let lock = fs::read(at.path.join("lock")).unwrap();
    fs::remove_dir_all(&at.path).unwrap();
    assert!(matches!(refused(&at), OpenError::Missing { .. }));
    fs::create_dir(&at.path).unwrap();
    assert!(matches!(refused(&at), OpenError::Missing { .. }), "emptied");
    fs::write(at.path.join("lock"), lock).unwrap();
    assert!(matches!(refused(&at), OpenError::Missing { .. }), "emptied but for its lock");
    // Nor by what makes stores: something was confirmed here.
    let made = Store::create(&at, StoreId([9; 16])).unwrap_err();
    assert!(matches!(made, OpenError::LostWrites { found: 0, .. }), "{made}");
    assert!(matches!(refused(&at), OpenError::Missing { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_made_for_another_is_never_used() {
    let dir = used(1, 2).await;
    let at = place(1, dir.path());
    let Binding { cluster, node, incarnation, store } = at.binding;
    for binding in [
        Binding { cluster: ClusterId([7; 16]), ..at.binding },
        Binding { node: id(2), ..at.binding },
        Binding { incarnation: Incarnation(1), ..at.binding },
        Binding { store: StoreId([7; 16]), ..at.binding },
    ] {
        let asked = StorePlace { binding, ..at.clone() };
        let OpenError::Foreign { expected, got, .. } = refused(&asked) else { panic!("{binding}") };
        assert_eq!((*expected, *got), (binding, Binding { cluster, node, incarnation, store }));
        // What makes stores leaves it as it is, since it was used.
        assert!(matches!(Store::create(&asked, StoreId([9; 16])), Err(OpenError::Foreign { .. })), "{binding}");
    }
    Store::open(&at).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_members_store_copied_in_is_never_used() {
    let (own, other) = (used(1, 2).await, used(2, 5).await);
    let at = place(1, own.path());
    replace_store(other.path(), own.path());
    assert!(matches!(refused(&at), OpenError::Foreign { .. }));
    // With its record as well.
    fs::copy(other.path().join("record"), &at.record).unwrap();
    assert!(matches!(refused(&at), OpenError::Foreign { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_store_alone_is_never_used() {
    let dir = used(1, 2).await;
    let older = tempfile::tempdir().unwrap();
    copy(dir.path(), older.path());
    let dir = use_again(1, dir, 3).await;
    let newer = tempfile::tempdir().unwrap();
    copy(dir.path(), newer.path());
    let at = place(1, dir.path());
    replace_store(older.path(), dir.path());
    let error = refused(&at);
    assert!(matches!(error, OpenError::LostWrites { found, confirmed, .. } if found < confirmed), "{error}");
    // A store that is ahead of its record is honest: a kill or a power cut leaves it so.
    replace_store(newer.path(), dir.path());
    fs::copy(older.path().join("record"), &at.record).unwrap();
    Store::open(&at).unwrap().close();
    // And the record is raised by that: the older copy is known again.
    replace_store(older.path(), dir.path());
    assert!(matches!(refused(&at), OpenError::LostWrites { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_without_either_mark_or_with_anothers_is_never_used() {
    let (dir, other) = (used(1, 2).await, used(1, 2).await);
    let at = place(1, dir.path());
    for mark in [at.record.clone(), at.path.join("confirmed")] {
        let good = fs::read(&mark).unwrap();
        fs::remove_file(&mark).unwrap();
        assert!(matches!(refused(&at), OpenError::NoRecord { path } if path == mark));
        for bad in [vec![], good[..31].to_vec(), [&good[..], b"x"].concat()] {
            fs::write(&mark, bad).unwrap();
            assert!(matches!(refused(&at), OpenError::Corrupt { .. }));
        }
        // Of a store of the same member, with another id of its own.
        let mut theirs = good.clone();
        theirs[..16].copy_from_slice(&[1; 16]);
        fs::write(&mark, theirs).unwrap();
        assert!(matches!(refused(&at), OpenError::Corrupt { .. }));
        fs::write(&mark, good).unwrap();
    }
    Store::open(&at).unwrap();
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_store_is_replaced_and_a_store_in_use_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = place(1, dir.path());
    Store::create(&first, StoreId([8; 16])).unwrap();
    let record = fs::read(&first.record).unwrap();
    // A start that was killed comes here again, with another id in hand.
    Store::create(&first, StoreId([9; 16])).unwrap();
    assert_eq!(fs::read(&first.record).unwrap(), record);
    let second = StorePlace { binding: Binding { node: id(2), ..first.binding }, ..first.clone() };
    Store::create(&second, StoreId([9; 16])).unwrap();
    assert!(matches!(refused(&first), OpenError::Foreign { .. }));
    Store::open(&second).unwrap().close();
    assert!(!dir.path().join("store.new").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_is_never_ahead_of_its_store() {
    let roster = Roster::default();
    roster.set(TRUST, &[1]);
    let mut member = Member::new(1, &Net::default(), &roster);
    let group = member.start(TRUST, config()).await;
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    for n in 0..20_u32 {
        group.propose(n.to_string().into_bytes()).await.unwrap();
        // The marks are read before the store is copied, as a kill between the two would leave them.
        let image = tempfile::tempdir().unwrap();
        let at = place(1, image.path());
        fs::copy(member.dir.path().join("record"), &at.record).unwrap();
        fs::create_dir(&at.path).unwrap();
        copy(&member.dir.path().join("store"), &at.path);
        Store::open(&at).unwrap().close();
    }
    member.shutdown().await;
}
