//! Why a member does not start.

use std::net::SocketAddr;

use countersign_core::name::NameError;
use countersign_net::CredentialError;
use countersign_pki::pem::PemError;
use countersign_pki::verify::BundleError;

use crate::bootstrap::BootstrapError;
use crate::datadir::DataDirError;
use crate::files::FilesError;
use crate::join::JoinError;
use crate::keys::KeysError;
use crate::replica::ReplicaError;

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
    /// The bootstrap.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The enrollment.
    #[error(transparent)]
    Join(#[from] JoinError),
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
    /// The admin socket.
    #[error("cannot serve the admin socket `{}`", path.display())]
    Socket {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The HTTPS port.
    #[error("cannot serve HTTPS")]
    Https(#[from] crate::admin::https_files::HttpsError),
}
