//! Bound addresses, in `endpoints.json`: for tools, and so that a restart on port 0 keeps its port.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign_core::locked::Locked;
use countersign_core::name::Address;
use serde::{Deserialize, Serialize};

use crate::identity::datadir::{DataDir, DataDirError, file};
use crate::identity::local::Local;

/// Where a member listens.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Endpoints {
    /// The cluster port.
    pub cluster: Option<SocketAddr>,
    /// Where others reach it.
    pub advertise: Vec<Address>,
    /// The client port.
    #[serde(default)]
    pub client: Option<SocketAddr>,
    /// Where clients reach it, if that is another address.
    #[serde(default)]
    pub client_advertise: Option<Address>,
    /// The HTTPS port.
    pub https: Option<SocketAddr>,
}

impl Endpoints {
    /// Those of the last start; none if there was none.
    pub fn load(data: &DataDir) -> Self {
        let bytes = data.read(file::ENDPOINTS).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn reached(&self, bound: Option<SocketAddr>) -> Option<Address> {
        let (bound, host) = (bound?, self.advertise.first()?.host.clone());
        let reached = host.is_loopback() || !bound.ip().to_canonical().is_loopback();
        reached.then_some(Address { host, port: bound.port() })
    }

    pub(crate) fn store(&self, data: &DataDir) -> Result<(), DataDirError> {
        data.write(file::ENDPOINTS, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }
}

/// Where this member is reached now, written down whenever that changes.
pub struct OwnEndpoints {
    now: Locked<Endpoints>,
    local: Arc<Local>,
}

impl OwnEndpoints {
    pub(crate) fn new(endpoints: Endpoints, local: Arc<Local>) -> Self {
        Self { now: Locked::new(endpoints), local }
    }

    /// The addresses that this member advertises.
    pub fn advertised(&self) -> Vec<Address> {
        self.now.lock().advertise.clone()
    }

    /// Where the client port is bound; none if it is not served.
    pub fn client(&self) -> Option<SocketAddr> {
        self.now.lock().client
    }

    /// Where the HTTPS port is bound; none while it is not served.
    pub fn https(&self) -> Option<SocketAddr> {
        self.now.lock().https
    }

    /// Where others reach this member's HTTPS port: under a host that it advertises, since its certificate holds
    /// those. None if the port is not served, or on loopback only while members are on other hosts.
    pub fn admin_address(&self) -> Option<Address> {
        let now = self.now.lock();
        now.reached(now.https)
    }

    /// Where clients reach this member's client port: as the settings say, else as [`OwnEndpoints::admin_address`].
    pub fn client_address(&self) -> Option<Address> {
        let now = self.now.lock();
        now.client_advertise.clone().or_else(|| now.reached(now.client))
    }

    /// Records where the HTTPS port is bound.
    ///
    /// # Errors
    /// `endpoints.json` cannot be written.
    pub fn serve_https(&self, bound: Option<SocketAddr>) -> Result<(), DataDirError> {
        let now = {
            let mut now = self.now.lock();
            now.https = bound;
            now.clone()
        };
        now.store(&self.local.data)
    }
}
