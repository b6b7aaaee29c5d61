//! A start that is killed between any two durable steps is finished by the next one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use countersign_core::codec::FIRST_LEVEL;
use countersign_core::id::GroupId;
use countersign_core::name::{Address, Host, Name};
use countersign_core::trust::command::{Command, CreateGroup, FEATURE_LEVEL, RaiseLevel};
use countersign_core::trust::join_token::JoinToken;

use crate::identity::datadir::{DataDirError, file};
use crate::{ClusterToken, NewCluster, Node, Settings, Start, StartError, Started};
use tonic::service::Routes;

thread_local! {
    /// The directory in which steps are counted, and how many are left.
    static LEFT: RefCell<Option<(PathBuf, usize)>> = const { RefCell::new(None) };
}

/// Called before each durable step; fails where the kill is to come.
pub(crate) fn step(path: &Path) -> Result<(), DataDirError> {
    LEFT.with_borrow_mut(|left| match left {
        Some((dir, 0)) if path.starts_with(&*dir) => {
            let source = io::Error::other("killed here");
            Err(DataDirError::Io { action: "reach", path: path.to_owned(), source })
        }
        Some((dir, left)) if path.starts_with(&*dir) => {
            *left -= 1;
            Ok(())
        }
        _ => Ok(()),
    })
}

fn settings(data: &Path, name: &str) -> Settings {
    let name = Some(Name::parse(name).unwrap());
    Settings { name, ..Settings::new(data, "127.0.0.1:0".parse().unwrap()) }
}

async fn start_node(settings: &Settings, start: Start) -> Result<(Node, Started), StartError> {
    let (node, started) = Node::open(settings, start).await?;
    node.run(Routes::default(), None)?;
    Ok((node, started))
}

fn founding() -> Start {
    Start::Bootstrap(NewCluster {
        name: Name::parse("test").unwrap(),
        trust_domain: None,
        token: Some(ClusterToken::default()),
        authority: None,
        policy: Default::default(),
    })
}

/// What a kill leaves. Files before directories: the record of what was confirmed is not newer than the store.
fn copy(from: &Path, to: &Path) {
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_type().unwrap().is_dir());
    for entry in entries {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => {
                fs::create_dir(&target).unwrap();
                fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
                copy(&entry.path(), &target);
            }
            kind if kind.is_file() => drop(fs::copy(entry.path(), target).unwrap()),
            _ => {}
        }
    }
}

/// Starts with a kill after so many steps. Returns what that leaves, and whether it came to its end.
async fn killed_after(steps: usize, name: &str, start: Start) -> (tempfile::TempDir, bool) {
    let dir = tempfile::tempdir().unwrap();
    LEFT.set(Some((dir.path().to_owned(), steps)));
    let started = start_node(&settings(dir.path(), name), start).await;
    LEFT.set(None);
    let done = match started {
        Ok((member, _)) => {
            member.shutdown().await;
            true
        }
        Err(error) => {
            assert!(crate::chain(&error).to_string().contains("killed here"), "{error:?}");
            false
        }
    };
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    (image, done)
}

fn made(dir: &Path) -> bool {
    dir.join(file::MEMBER).exists()
}

fn left_over(dir: &Path) -> bool {
    dir.join(file::BOOTSTRAP).exists() || dir.join(file::JOIN).exists()
}

#[tokio::test]
async fn a_founding_killed_after_any_step_is_finished_by_the_next_start() {
    for steps in 0.. {
        let (image, done) = killed_after(steps, "n1", founding()).await;
        let was_made = made(image.path());
        let (member, started) = start_node(&settings(image.path(), "n1"), founding()).await.unwrap();
        assert_eq!(started, if was_made { Started::Again } else { Started::Founded }, "killed after {steps}");
        assert_eq!(member.local.view().members.len(), 1);
        member.shutdown().await;
        assert!(!left_over(image.path()), "killed after {steps}");
        if done {
            assert!(steps > 8, "steps were counted: {steps}");
            return;
        }
    }
}

#[tokio::test]
async fn killed_join_is_finished_by_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let (founder, _) = start_node(&settings(home.path(), "n1"), founding()).await.unwrap();
    let token = fs::read_to_string(home.path().join(file::CLUSTER_TOKEN)).unwrap();
    let at = founder.acceptor.local_addr().unwrap();
    let sponsor = Address { host: Host::Ip(at.ip()), port: at.port() };
    let join = || Start::Join { token: JoinToken::parse(&token).unwrap(), sponsor: sponsor.clone() };
    for steps in 0.. {
        let name = format!("j{steps}");
        let (image, done) = killed_after(steps, &name, join()).await;
        let was_made = made(image.path());
        let (member, started) = start_node(&settings(image.path(), &name), join()).await.unwrap();
        assert_eq!(started, if was_made { Started::Again } else { Started::Joined }, "killed after {steps}");
        member.shutdown().await;
        assert!(!left_over(image.path()), "killed after {steps}");
        assert_eq!(founder.local.view().members.len(), steps + 2, "killed after {steps}");
        if done {
            assert!(steps > 8, "steps were counted: {steps}");
            break;
        }
    }
    founder.shutdown().await;
}

/// As a binary left it that knew no data store.
fn without_data_store(dir: &Path) {
    let path = dir.join(file::MEMBER);
    let mut member: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(member.as_object_mut().unwrap().remove("data_store").is_some());
    fs::write(&path, serde_json::to_vec(&member).unwrap()).unwrap();
    fs::remove_dir_all(dir.join(file::DATA_STORE)).unwrap();
    fs::remove_file(dir.join(file::DATA_CONFIRMED)).unwrap();
}

async fn until_placed(node: &Node) {
    let (me, store) = (node.local.node, node.local.data_store);
    let mut applied = node.state.applied();
    let placed = async {
        while node.state.read().placement().data_store(me) != Some(store) {
            applied.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), placed).await.expect("not on record");
}

#[tokio::test]
async fn directory_without_data_store_gets_one_whatever_step_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let first = Settings { level_for_testing: Some(FIRST_LEVEL), ..settings(home.path(), "n1") };
    let (founder, _) = start_node(&first, founding()).await.unwrap();
    founder.shutdown().await;
    without_data_store(home.path());
    for steps in 0.. {
        let dir = tempfile::tempdir().unwrap();
        copy(home.path(), dir.path());
        LEFT.set(Some((dir.path().to_owned(), steps)));
        let killed = start_node(&settings(dir.path(), "n1"), Start::Existing).await;
        LEFT.set(None);
        let done = killed.is_ok();
        if let Ok((node, _)) = killed {
            node.shutdown().await;
        }
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let (node, started) = start_node(&settings(image.path(), "n1"), Start::Existing).await.unwrap();
        assert_eq!(started, Started::Again, "killed after {steps}");
        // The cluster learns of it once it has risen to the level that has a place for it.
        assert_eq!(node.state.read().level(), FIRST_LEVEL);
        let known = async {
            let mut applied = node.state.applied();
            while !node.state.read().behind(FEATURE_LEVEL, &BTreeSet::new()).is_empty() {
                applied.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), known).await.expect("never reported its level");
        let raise = RaiseLevel { level: FEATURE_LEVEL, without: BTreeSet::new(), by_itself: false };
        node.proposer.own_command(Command::RaiseLevel(raise), &[]).await.unwrap();
        until_placed(&node).await;
        node.shutdown().await;
        if done {
            assert!(steps >= 2, "steps were counted: {steps}");
            return;
        }
    }
}

#[tokio::test]
async fn lost_data_store_is_put_aside_and_its_member_leaves_every_group() {
    let home = tempfile::tempdir().unwrap();
    let (founder, _) = start_node(&settings(home.path(), "n1"), founding()).await.unwrap();
    until_placed(&founder).await;
    let before = founder.local.data_store;
    let create = Command::CreateGroup(CreateGroup { members: vec![founder.local.node] });
    founder.proposer.own_command(create, &[]).await.unwrap();
    let assigned = |node: &Node| node.state.read().assigned(GroupId(1), node.local.node);
    assert_eq!(assigned(&founder), Some(true));
    founder.shutdown().await;
    drop(founder);
    // Only its record is lost: what the store holds may be anything now.
    fs::remove_file(home.path().join(file::DATA_STORE).join("confirmed")).unwrap();
    let (again, _) = start_node(&settings(home.path(), "n1"), Start::Existing).await.unwrap();
    assert_ne!(again.local.data_store, before);
    until_placed(&again).await;
    assert_eq!(assigned(&again), Some(false));
    assert!(home.path().join(file::REPLACED).join(format!("{before}.0")).join(file::DATA_STORE).exists());
    assert_eq!(again.group.status().voters.len(), 1, "the trust group is as it was");
    again.shutdown().await;
}
