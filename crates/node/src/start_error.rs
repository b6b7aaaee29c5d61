//! Why a member does not start.

use std::net::SocketAddr;

use countersign_core::id::NodeId;
use countersign_core::name::NameError;
use countersign_core::trust::member::{Member, Suffrage};
use countersign_core::trust::view::View;
use countersign_net::{CredentialError, QuicBindError};
use countersign_pki::pem::PemError;
use countersign_pki::verify::BundleError;
use countersign_raft::OpenError;

use crate::identity::bootstrap::BootstrapError;
use crate::identity::data_store::DataStoreError;
use crate::identity::datadir::{DataDirError, file};
use crate::identity::files::FilesError;
use crate::identity::join::JoinError;
use crate::identity::keys::KeysError;
use crate::identity::store_return::StoreReturnError;
use crate::trust::replica::ReplicaError;

/// How a member comes back that has lost a part of what it kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    /// The cluster has other voters: they take it back as a learner, under its number, with a new store.
    ReturnAsLearner,
    /// It cannot show who it was, or does not know its cluster: it is evicted, and joins as another.
    JoinAgain,
    /// It was the only voter, and no other member has what it stored.
    OnlyVoter,
}

impl WayBack {
    /// The way for `node`, by the newest view that it still has. `itself`: whether it still has the keys that it is
    /// known by.
    pub(crate) fn of(view: Option<&View>, node: NodeId, itself: bool) -> Self {
        let other = |member: &Member| member.id != node && member.suffrage == Suffrage::Voter;
        match view {
            Some(view) if !view.members.scan().values().any(other) => Self::OnlyVoter,
            Some(_) if itself => Self::ReturnAsLearner,
            Some(_) | None => Self::JoinAgain,
        }
    }
}

fn listed(found: &[&'static str]) -> String {
    found.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Why a member did not start. Nothing is lost: the same command goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificates made elsewhere.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The directory holds no member, and nothing was asked that would make one.
    #[error("data directory `{}` holds no member yet", path.display())]
    Empty {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// A member was here, and what says which one is gone. It is neither founded over nor joined over.
    #[error("`{}` holds {} of a member, but no `{}`", path.display(), listed(found), file::MEMBER)]
    NoMemberFile {
        /// The directory.
        path: std::path::PathBuf,
        /// What is left of the member.
        found: Vec<&'static str>,
    },
    /// What this member stored is missing, another's, an older copy, or damaged. It must not vote as if it had it.
    #[error("this member's store cannot be used")]
    StoreLost {
        /// The data directory.
        data: std::path::PathBuf,
        /// How the member comes back.
        way: WayBack,
        /// What is wrong with the store.
        #[source]
        source: OpenError,
    },
    /// The member did not come back with a new store.
    #[error(transparent)]
    Return(#[from] StoreReturnError),
    /// A file that every member has is gone.
    #[error("`{part}` is missing in `{}`", data.display())]
    PartLost {
        /// The data directory.
        data: std::path::PathBuf,
        /// What is missing.
        part: &'static str,
        /// How the member comes back.
        way: WayBack,
    },
    /// An enrollment was begun here and needs its token to go on.
    #[error("an enrollment was begun in `{}` and is not finished", path.display())]
    JoinUnfinished {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// A bootstrap was begun here; joining another cluster would leave half of one behind.
    #[error("a bootstrap was begun in `{}` and is not finished", path.display())]
    BootstrapUnfinished {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// An address cannot be bound.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Clients cannot be served over QUIC.
    #[error("cannot serve clients over QUIC")]
    Quic(#[from] QuicBindError),
    /// The bootstrap.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The enrollment.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The store of all groups but the trust group.
    #[error(transparent)]
    DataStore(#[from] DataStoreError),
    /// Raft or its store.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The stored certificate.
    #[error("stored certificate cannot be used")]
    Credential(#[from] CredentialError),
    /// The stored certificate is not PEM.
    #[error("stored certificate is not PEM")]
    Pem(#[from] PemError),
    /// The stored view's authorities.
    #[error("stored view cannot be used")]
    Bundle(#[from] BundleError),
    /// No name was given, and the host's name is no node name.
    #[error("host name `{host}` is not usable as a node name: {source}")]
    HostName {
        /// The host's name.
        host: String,
        /// Why it is not.
        #[source]
        source: NameError,
    },
    /// An address that means every address, or port 0, cannot be advertised.
    #[error("`{address}` is not an address that other nodes can dial")]
    Advertise {
        /// The bound address.
        address: SocketAddr,
    },
    /// No thread can be started.
    #[error("cannot start the thread that watches over the state machine")]
    Watchdog(#[source] std::io::Error),
}
