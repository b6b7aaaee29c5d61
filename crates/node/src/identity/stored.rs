//! What a data directory holds, judged alike by a start and by a check of one.
//!
//! A member is what `member.json` says, together with its keys, its certificate and its store. Where a part is gone the
//! member does not start, and the error names the way back; no part is ever made again in place of one that is lost.

use std::sync::Arc;

use countersign_core::codec;
use countersign_core::id::NodeId;
use countersign_core::trust::view::View;
use countersign_net::Credential;
use countersign_pki::pem::certificates_from_pem;
use countersign_raft::Store;

use crate::identity::bootstrap;
use crate::identity::datadir::{DamageReason, DataDir, DataDirError, MemberFile, file};
use crate::identity::files::{self, ForeignIdentity};
use crate::identity::join;
use crate::identity::keys::{self, Keys, LeafKey, stored_chain};
use crate::settings::Start;
use crate::start_error::{StartError, WayBack};
use crate::trust::replica::ReplicaError;

/// The member that the directory holds. None where one may be made, or its making may go on, as `start` says.
pub(crate) fn judge(data: &DataDir, start: &Start) -> Result<Option<MemberFile>, StartError> {
    if let Some(member) = data.member()? {
        return Ok(Some(member));
    }
    let path = || data.path().to_owned();
    let joins = matches!(start, Start::Join { .. });
    match (bootstrap::under_way(data), join::under_way(data)) {
        (true, _) if joins => return Err(StartError::BootstrapUnfinished { path: path() }),
        (false, true) if !joins => return Err(StartError::JoinUnfinished { path: path() }),
        (true, _) | (false, true) => return Ok(None),
        (false, false) => {}
    }
    let found = data.remains()?;
    if !found.is_empty() {
        return Err(StartError::NoMemberFile { path: path(), found });
    }
    if matches!(start, Start::Existing | Start::ReturnAsLearner { .. }) {
        return Err(StartError::Empty { path: path() });
    }
    Ok(None)
}

/// Takes away what a kill after the last step of a making left: it must not be taken for one that is under way.
pub(crate) fn clear(data: &DataDir) -> Result<(), StartError> {
    for left in [file::BOOTSTRAP, file::JOIN].into_iter().filter(|left| data.file(left).exists()) {
        data.remove(left)?;
    }
    Ok(())
}

/// A member as its directory has it, but for its store.
pub(crate) struct Stored {
    pub(crate) file: MemberFile,
    /// The newest membership that was written down. Without, what the store holds must say it.
    pub(crate) view: Option<Arc<View>>,
    pub(crate) keys: Keys,
    /// The certificate that it shows.
    pub(crate) credential: Arc<Credential>,
}

impl Stored {
    /// Reads the parts. One that is missing is told with the way back.
    pub(crate) fn read(
        data: &DataDir,
        file: MemberFile,
        foreign: Option<Arc<ForeignIdentity>>,
    ) -> Result<Self, StartError> {
        let node = file.node();
        let view = stored_view(data)?;
        if let Some(view) = &view {
            // Before the keys: a node without the files that it needs has no leaf key either.
            files::check(view, node, foreign.as_deref())?;
        }
        let lost = |part, itself| StartError::PartLost {
            data: data.path().to_owned(),
            part,
            way: WayBack::of(view.as_deref(), node, itself),
        };
        if let Some((part, itself)) = keys::missing(data, foreign.is_none()) {
            return Err(lost(part, itself));
        }
        let keys = Keys::load(data, foreign)?;
        let credential = stored_credential(data, &keys.leaf)?.ok_or_else(|| lost(file::LEAF, true))?;
        Ok(Self { file, view, keys, credential: Arc::new(credential) })
    }

    /// Opens the member's store. One that is lost is told with the way back.
    pub(crate) fn open_store(&self, data: &DataDir) -> Result<Store, StartError> {
        let damaged = || DataDirError::Damaged { path: data.file(file::MEMBER), reason: DamageReason::Parse };
        let place = data.store_place(self.file.binding().ok_or_else(damaged)?);
        Store::open(&place).map_err(|source| {
            if !source.is_loss() {
                return ReplicaError::Store(source).into();
            }
            let way = WayBack::of(self.view.as_deref(), self.file.node(), true);
            StartError::StoreLost { data: data.path().to_owned(), way, source }
        })
    }
}

/// Neither `view.bin` nor the store says which cluster this is: a learner that lost the one before it received the
/// other.
pub(crate) fn unknown_cluster(data: &DataDir, node: NodeId) -> StartError {
    let way = WayBack::of(None, node, true);
    StartError::PartLost { data: data.path().to_owned(), part: file::VIEW, way }
}

fn stored_view(data: &DataDir) -> Result<Option<Arc<View>>, StartError> {
    let Some(bytes) = data.read(file::VIEW)? else { return Ok(None) };
    let damaged = |_| DataDirError::Damaged { path: data.file(file::VIEW), reason: DamageReason::Parse };
    let view: View = codec::decode(&bytes).map_err(damaged)?;
    Ok(Some(Arc::new(view)))
}

/// The certificate that this member shows; none if its file is gone.
fn stored_credential(data: &DataDir, leaf: &LeafKey) -> Result<Option<Credential>, StartError> {
    let key = match leaf {
        LeafKey::Foreign(foreign) => return Ok(Some(foreign.credential())),
        LeafKey::Issued(key) => key,
    };
    let Some(pem) = stored_chain(data)? else { return Ok(None) };
    let damaged = |_| DataDirError::Damaged { path: data.file(file::LEAF), reason: DamageReason::Parse };
    let pem = core::str::from_utf8(pem.expose()).map_err(damaged)?;
    let chain = certificates_from_pem(pem)?;
    Ok(Some(Credential::new(chain.iter().map(|der| der.to_vec()), key)?))
}
