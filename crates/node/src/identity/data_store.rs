//! The store of all groups but the trust group: made at the first start of a binary that knows it, and made again when
//! it is lost.
//!
//! A directory of an earlier binary has none, and `member.json` names none: one is made and recorded. A store that is
//! lost is put aside, and another one is made under another id. The member answers for no group from it: the cluster
//! takes the member out of every group before it records that id.

use countersign_core::id::StoreId;
use countersign_raft::{BulkStoreError, Groups, OpenError, Store};

use crate::identity::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file};
use crate::identity::keys::{KeysError, random};
use crate::identity::store_return::put_aside;

/// Why the store of the data groups is not open.
#[derive(Debug, thiserror::Error)]
pub enum DataStoreError {
    /// It may be whole and cannot be opened now, or by this binary.
    #[error("data store cannot be opened")]
    Open(#[from] BulkStoreError),
    /// It cannot be made.
    #[error("data store cannot be made")]
    Create(#[from] OpenError),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// No id could be drawn.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Opens the data store of a member, which is made where there is none. Returns `member.json` as it is from now on,
/// and the store's id.
pub(crate) fn open(
    data: &DataDir,
    groups: &Groups,
    member: MemberFile,
) -> Result<(MemberFile, StoreId), DataStoreError> {
    match member.data_binding() {
        Some(binding) => match groups.open_bulk(&data.data_store_place(binding)) {
            Ok(_) => return Ok((member, binding.store)),
            Err(BulkStoreError::Open(lost)) if lost.is_loss() => {
                let error = crate::chain(&lost).to_string();
                tracing::error!(%error, "data store is lost: this member leaves every group but the trust group");
                put_aside(data, binding.store, [file::DATA_STORE, file::DATA_CONFIRMED])?;
            }
            Err(error) => return Err(error.into()),
        },
        // What a killed start left: no answer was ever given from it.
        None => put_aside(data, StoreId([0; 16]), [file::DATA_STORE, file::DATA_CONFIRMED])?,
    }
    let store = StoreId(*random::<16>()?.expose());
    let made = member.with_data_store(store);
    let damaged = || DataDirError::Damaged { path: data.file(file::MEMBER), reason: DamageReason::Parse };
    let place = data.data_store_place(made.data_binding().ok_or_else(damaged)?);
    data.step(file::DATA_STORE)?;
    Store::create(&place, StoreId(*random::<16>()?.expose()))?;
    data.write_member(&made)?;
    groups.open_bulk(&place)?;
    Ok((made, store))
}
