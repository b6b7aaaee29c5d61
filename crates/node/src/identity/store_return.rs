//! The way back of a member whose store is lost, or does not count any more: it makes another store, proves by its
//! identity key that it asks itself, and comes back as a learner. Repeatable at every crash point, and nothing is
//! deleted.
//!
//! What is stored says how far it came: `return.json` names the new store before anybody is asked. Once the cluster has
//! accepted the return, the store before it is put aside, `member.json` names the new one, and only then it is made.

mod ask;

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use countersign_core::codec::{self, CodecError};
use countersign_core::id::StoreId;
use countersign_core::name::Address;
use countersign_core::trust::outcome::Refused;
use countersign_core::trust::view::View;
use countersign_pki::key::KeyAlgorithm;
use countersign_raft::{Binding, OpenError, Store};
use serde::{Deserialize, Serialize};

use crate::identity::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file, sync_parent};
use crate::identity::files::ForeignIdentity;
use crate::identity::keys::{self, Keys, KeysError, NextLeaf, random};
use crate::node::Started;
use crate::settings::Start;
use crate::trust::divergence;
pub use ask::NotTaken;
use ask::{Wanted, ask_all};

/// Why a member did not come back. Nothing is lost: the same command goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum StoreReturnError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The keys: without them the node cannot prove which member it is.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The new store cannot be made, or the one before it cannot be read.
    #[error("store cannot be made")]
    Store(#[from] OpenError),
    /// The request cannot be encoded.
    #[error("request cannot be encoded")]
    Codec(#[from] CodecError),
    /// The cluster refused.
    #[error("the cluster refused: {0}")]
    Refused(#[source] Refused),
    /// The voters attest that this member was evicted.
    #[error("this node was evicted from its cluster")]
    Evicted,
    /// No member was reached that could carry it out.
    #[error("no member of the cluster took this node back")]
    NotTaken(#[source] Box<NotTaken>),
    /// There is no member to ask.
    #[error("no other member is known here")]
    Alone,
}

/// A return under way, stored before anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReturnFile {
    replaces: String,
    store: String,
}

/// The store that ends, and the one that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stores {
    replaces: StoreId,
    store: StoreId,
}

/// The member of this directory, with a new store if it returns with one, and with another certificate if its own is
/// lost.
pub(crate) async fn come_back(
    data: &DataDir,
    member: MemberFile,
    foreign: Option<Arc<ForeignIdentity>>,
    (start, key): (&Start, KeyAlgorithm),
) -> Result<(MemberFile, Started), StoreReturnError> {
    let hints: &[Address] = match start {
        Start::ReturnAsLearner { hints } => {
            if foreign.is_none() && keys::is_leaf_lost(data) {
                fetch_leaf(data, &member, hints, key).await?;
            }
            if !is_needed(data, &member)? {
                tracing::info!("this member's store is whole and no member refuses it: this member keeps its place");
                return Ok((member, Started::Again));
            }
            hints
        }
        Start::Existing | Start::Bootstrap(_) | Start::Join { .. } => {
            if !is_accepted(data, &member)? {
                return Ok((member, Started::Again));
            }
            &[]
        }
    };
    Ok((carry_out(data, member, hints, foreign).await?, Started::Returned))
}

/// Whether this member must return: its store is lost, peers refuse it, what it holds differs, or a return is under
/// way.
pub(crate) fn is_needed(data: &DataDir, member: &MemberFile) -> Result<bool, StoreReturnError> {
    let differs = member.store().map_or(Ok(false), |store| divergence::is_known_to_differ(data, store));
    if data.file(file::RETURN).exists() || is_refused(data, member)? || differs? {
        return Ok(true);
    }
    match Store::open(&data.store_place(binding(data, member)?)) {
        Ok(store) => {
            store.close();
            Ok(false)
        }
        Err(lost) if lost.is_loss() => Ok(true),
        Err(other) => Err(other.into()),
    }
}

/// Whether a return was accepted and not finished. It needs no other member to finish.
pub(crate) fn is_accepted(data: &DataDir, member: &MemberFile) -> Result<bool, StoreReturnError> {
    Ok(under_way(data)?.is_some_and(|stores| member.store() == Some(stores.store)))
}

/// Remembers that peers refuse `store`, so that the operator may have this member return although its store is whole.
pub(crate) fn note_refused(data: &DataDir, store: StoreId) -> Result<(), DataDirError> {
    data.write(file::STORE_REFUSED, store.to_string().as_bytes())
}

fn is_refused(data: &DataDir, member: &MemberFile) -> Result<bool, DataDirError> {
    let refused = data.read(file::STORE_REFUSED)?;
    Ok(refused.is_some_and(|refused| member.store().is_some_and(|store| store.to_string().as_bytes() == refused)))
}

/// Brings the member back with a new store, or finishes what an earlier start began.
pub(crate) async fn carry_out(
    data: &DataDir,
    member: MemberFile,
    hints: &[Address],
    foreign: Option<Arc<ForeignIdentity>>,
) -> Result<MemberFile, StoreReturnError> {
    let keys = Keys::load(data, foreign)?;
    let before = binding(data, &member)?;
    let stores = begin(data, before.store)?;
    let after = Binding { store: stores.store, ..before };
    let returned = member.with_store(stores.store);
    if before.store != stores.store {
        let view = stored_view(data)?;
        ask_all(&view, before, Wanted::Place(&keys, stores), hints).await?;
        put_aside(data, before.store, [file::STORE, file::CONFIRMED])?;
        data.write_member(&returned)?;
    }
    // Nothing has ever been promised by it: until `return.json` is gone, the member does not run.
    Store::create(&data.store_place(after), StoreId(*random::<16>()?.expose()))?;
    for done in [file::STORE_REFUSED, file::DIVERGENCE, file::RETURN] {
        data.remove(done)?;
    }
    Ok(returned)
}

fn binding(data: &DataDir, member: &MemberFile) -> Result<Binding, DataDirError> {
    let damaged = || DataDirError::Damaged { path: data.file(file::MEMBER), reason: DamageReason::Parse };
    member.binding().ok_or_else(damaged)
}

fn stored_view(data: &DataDir) -> Result<View, DataDirError> {
    let damaged = |reason| DataDirError::Damaged { path: data.file(file::VIEW), reason };
    let stored = data.read(file::VIEW)?.ok_or_else(|| damaged(DamageReason::Missing))?;
    codec::decode(&stored).map_err(|_| damaged(DamageReason::Parse))
}

fn under_way(data: &DataDir) -> Result<Option<Stores>, DataDirError> {
    let Some(bytes) = data.read(file::RETURN)? else { return Ok(None) };
    let damaged = || DataDirError::Damaged { path: data.file(file::RETURN), reason: DamageReason::Parse };
    let ReturnFile { replaces, store } = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let ids = StoreId::parse(&replaces).zip(StoreId::parse(&store)).ok_or_else(damaged)?;
    Ok(Some(Stores { replaces: ids.0, store: ids.1 }))
}

/// The return that is under way, or a new one. The id stays, so that a lost answer is found again.
fn begin(data: &DataDir, recorded: StoreId) -> Result<Stores, StoreReturnError> {
    if let Some(stores) = under_way(data)?.filter(|stores| [stores.replaces, stores.store].contains(&recorded)) {
        return Ok(stores);
    }
    let stores = Stores { replaces: recorded, store: StoreId(*random::<16>()?.expose()) };
    let stored = ReturnFile { replaces: stores.replaces.to_string(), store: stores.store.to_string() };
    data.write(file::RETURN, &serde_json::to_vec_pretty(&stored).unwrap_or_default())?;
    Ok(stores)
}

/// Moves what there is of a store, and of the record of what it confirmed, out of the way: `names` are the two.
pub(super) fn put_aside(data: &DataDir, store: StoreId, names: [&str; 2]) -> Result<(), DataDirError> {
    let io = |action, path| move |source| DataDirError::Io { action, path, source };
    if !names.iter().any(|name| data.file(name).symlink_metadata().is_ok()) {
        return Ok(());
    }
    let aside = (0_u32..).map(|turn| data.file(file::REPLACED).join(format!("{store}.{turn}")));
    let aside = aside.into_iter().find(|path| !path.exists()).unwrap_or_else(|| data.file(file::REPLACED));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&aside);
    made.map_err(io("create", aside.clone()))?;
    for name in names {
        match std::fs::rename(data.file(name), aside.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("move", data.file(name))(error)),
            _ => {}
        }
    }
    let [store, _] = names;
    for moved in [aside.join(store), data.file(store), aside] {
        sync_parent(&moved)?;
    }
    Ok(())
}

/// Gets another certificate for this member, which is known by its identity key. The key of it is stored first.
async fn fetch_leaf(
    data: &DataDir,
    member: &MemberFile,
    hints: &[Address],
    algorithm: KeyAlgorithm,
) -> Result<(), StoreReturnError> {
    let (identity, view, before) = (keys::identity(data)?, stored_view(data)?, binding(data, member)?);
    let recorded = view.members.get(&before.node).ok_or(StoreReturnError::Refused(Refused::NoSuchNode(before.node)))?;
    let NextLeaf { key } = NextLeaf::load_or_make(data, recorded.leaf.key, algorithm)?;
    let wanted = Wanted::Certificate { data, identity: &identity, key: &key };
    ask_all(&view, before, wanted, hints).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_core::id::{ClusterId, Incarnation, NodeId};
    use countersign_core::name::Name;

    fn member(store: u8) -> MemberFile {
        let (cluster, node, incarnation) = (ClusterId([1; 16]), NodeId(2), Incarnation(0));
        let binding = Binding { cluster, node, incarnation, store: StoreId([store; 16]) };
        MemberFile::new(&binding, Name::parse("test").unwrap(), Name::parse("n2").unwrap())
    }

    fn directory() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        Keys::load_or_make(&data, None, KeyAlgorithm::P256).unwrap();
        (dir, data)
    }

    fn make_store(data: &DataDir, member: &MemberFile) {
        Store::create(&data.store_place(member.binding().unwrap()), StoreId([9; 16])).unwrap();
    }

    #[test]
    fn member_with_a_whole_store_does_not_return_unless_peers_refuse_it() {
        let (_dir, data) = directory();
        let member = member(5);
        make_store(&data, &member);
        assert!(!is_needed(&data, &member).unwrap());
        note_refused(&data, StoreId([6; 16])).unwrap();
        assert!(!is_needed(&data, &member).unwrap(), "an earlier store was refused");
        note_refused(&data, StoreId([5; 16])).unwrap();
        assert!(is_needed(&data, &member).unwrap());
    }

    #[test]
    fn member_returns_whose_store_is_missing_or_another() {
        let (_dir, data) = directory();
        assert!(is_needed(&data, &member(5)).unwrap());
        make_store(&data, &member(5));
        assert!(is_needed(&data, &member(6)).unwrap());
    }

    #[tokio::test]
    async fn return_goes_on_after_a_kill_at_each_step_and_deletes_nothing() {
        let (dir, data) = directory();
        let before = member(5);
        data.write_member(&before).unwrap();
        make_store(&data, &before);
        std::fs::write(data.file(file::STORE).join("witness"), b"kept").unwrap();
        // Killed before anybody was asked: the same id is asked with again.
        let stores = begin(&data, StoreId([5; 16])).unwrap();
        assert_eq!(begin(&data, StoreId([5; 16])).unwrap(), stores);
        assert!(is_needed(&data, &before).unwrap() && !is_accepted(&data, &before).unwrap());
        // Killed after the store was put aside, and once more.
        put_aside(&data, StoreId([5; 16]), [file::STORE, file::CONFIRMED]).unwrap();
        put_aside(&data, StoreId([5; 16]), [file::STORE, file::CONFIRMED]).unwrap();
        assert_eq!(begin(&data, StoreId([5; 16])).unwrap(), stores);
        // Killed after the member file was written: no voter needs to be asked any more.
        let binding = Binding { store: stores.store, ..before.binding().unwrap() };
        let after = MemberFile::new(&binding, before.cluster_name.clone(), before.name.clone());
        data.write_member(&after).unwrap();
        assert!(is_accepted(&data, &after).unwrap());
        let returned = carry_out(&data, after.clone(), &[], None).await.unwrap();
        assert_eq!(returned.store(), Some(stores.store));
        assert!(!data.file(file::RETURN).exists() && !is_needed(&data, &returned).unwrap());
        let aside = dir.path().join(file::REPLACED).join(format!("{}.0", StoreId([5; 16])));
        assert_eq!(std::fs::read(aside.join(file::STORE).join("witness")).unwrap(), b"kept");
        assert!(aside.join(file::CONFIRMED).exists());
    }

    #[tokio::test]
    async fn node_without_keys_or_view_proves_nothing() {
        let (_dir, data) = directory();
        let lost = carry_out(&data, member(5), &[], None).await.unwrap_err();
        assert!(
            matches!(&lost, StoreReturnError::DataDir(DataDirError::Damaged { path, .. }) if path.ends_with(file::VIEW))
        );
        std::fs::remove_dir_all(data.file(file::KEYS)).unwrap();
        let lost = carry_out(&data, member(5), &[], None).await.unwrap_err();
        assert!(matches!(lost, StoreReturnError::Keys(_)), "{lost}");
    }
}
