//! Bound addresses, in `endpoints.json`: for tools, and so that a restart on port 0 keeps its port.

use std::net::SocketAddr;

use countersign_core::name::Address;
use serde::{Deserialize, Serialize};

use crate::datadir::{DataDir, DataDirError, file};

/// Where a member listens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// The cluster port.
    pub(crate) cluster: Option<SocketAddr>,
    /// Where others reach it.
    pub(crate) advertise: Vec<Address>,
    /// The HTTPS port.
    pub(crate) https: Option<SocketAddr>,
}

impl Endpoints {
    /// Those of the last start; none if there was none.
    pub(crate) fn load(data: &DataDir) -> Self {
        let bytes = data.read(file::ENDPOINTS).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(crate) fn store(&self, data: &DataDir) -> Result<(), DataDirError> {
        data.write(file::ENDPOINTS, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }
}
