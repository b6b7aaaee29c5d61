//! The HTTPS port: the admin API for holders of an admin certificate, health and metrics for anybody.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::member::Inner;

/// Why the HTTPS port is not served.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {}

pub(crate) async fn spawn(
    _member: &Arc<Inner>,
    address: SocketAddr,
    _files: Option<&(PathBuf, PathBuf)>,
) -> Result<SocketAddr, HttpsError> {
    Ok(address)
}
