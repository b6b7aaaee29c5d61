//! A start that is killed between any two durable steps is finished by the next one.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use countersign_core::name::{Address, Host, Name};
use countersign_core::trust::join_token::JoinToken;

use crate::identity::datadir::{DataDirError, file};
use crate::{ClusterToken, NewCluster, Node, Settings, Start, StartError, Started};

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
    node.run()?;
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
async fn a_join_killed_after_any_step_is_finished_by_the_next_start_and_admits_one() {
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
