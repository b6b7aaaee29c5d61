//! The local socket: the member on this host, reached by a user that may open it.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

use crate::admin_client::AdminError;

/// The socket's name in a data directory.
const SOCKET: &str = "admin.sock";
/// Bytes that a socket's address holds (unix(7): 108 with the final NUL).
const ADDRESS_LEN_MAX: usize = 107;

/// Connects to the member whose data directory this is.
pub(crate) async fn connect(data: &Path) -> Result<UnixStream, AdminError> {
    let failed = |source: std::io::Error| AdminError::Socket { data: data.to_owned(), source };
    let direct = data.join(SOCKET);
    if direct.as_os_str().len() <= ADDRESS_LEN_MAX {
        return UnixStream::connect(&direct).await.map_err(failed);
    }
    // A longer path is reached through the open directory; it stays open until the connection stands.
    let directory = rustix::fs::open(data, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(SOCKET);
    UnixStream::connect(&short).await.map_err(failed)
}
