//! Administration as JSON over HTTP: the same endpoints on the local socket and on the HTTPS port.
//!
//! The local socket admits root and the daemon's own user, as the kernel names them. The HTTPS port admits holders of a
//! certificate, as the policy allows.
//!
//! - `routes` lists every endpoint with its access; a port's router is made of that table alone.
//! - `access` decides who may call. A handler reaches the member only through the proof that it was asked.
//! - All other files hold handlers: each reads its request, calls one function of `countersign-control`, and writes the
//!   answer.
//!
//! A handler must never hold steps of a use case, propose a command, or ask another member.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod access;
mod acl;
mod apply;
mod asked;
mod body;
mod bounds;
mod certificates;
mod enforcement;
mod hosts;
mod https;
mod https_files;
mod labels;
mod leader;
mod nodes;
mod problem;
mod refusals;
mod routes;
mod socket;
mod status;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use countersign_node::{Node, Settings};

pub use https_files::HttpsError;
use https_files::HttpsFiles;
#[doc(hidden)]
pub use routes::endpoints_for_testing;

/// Why administration is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The HTTPS port cannot be bound.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operator's certificate for the HTTPS port.
    #[error("cannot serve HTTPS")]
    Https(#[from] HttpsError),
    /// The bound addresses cannot be written down.
    #[error(transparent)]
    DataDir(#[from] countersign_node::datadir::DataDirError),
    /// The admin socket.
    #[error("cannot serve the admin socket `{}`", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Serves administration of `node` on the local socket, and over HTTPS where that is wanted, until the node's tasks
/// stop.
///
/// # Errors
/// [`ServeError`]; the tasks that it started end with the node's tasks.
pub async fn serve(node: &Node, settings: &Settings) -> Result<GivenFiles, ServeError> {
    let (mut bound, mut https) = (None, None);
    if let Some(address) = settings.https_addr {
        let (at, files) = https::spawn(node, address, settings).await?;
        (bound, https) = (Some(at), files);
    }
    // A tool that finds the socket finds the addresses, too.
    node.endpoints.serve_https(bound)?;
    socket::spawn(node)?;
    Ok(GivenFiles { https })
}

/// Files that an operator gave to the ports of administration, and may replace.
#[derive(Clone, Default)]
pub struct GivenFiles {
    https: Option<Arc<HttpsFiles>>,
}

impl GivenFiles {
    /// Reads them again now; without it, that happens with the next connection after a change. What cannot be used is
    /// told in the log, and replaces nothing. False if there are none.
    pub fn reload(&self) -> bool {
        self.https.as_deref().map(HttpsFiles::reload).is_some()
    }
}
