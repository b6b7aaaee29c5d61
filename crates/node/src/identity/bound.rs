//! The sockets of a member, the addresses that it advertises, and its default name.

use std::net::SocketAddr;

use countersign_core::name::{Address, Host, Name};
use tokio::net::TcpListener;

use crate::identity::datadir::DataDir;
use crate::identity::endpoints::Endpoints;
use crate::settings::Settings;
use crate::start_error::StartError;

/// The sockets, bound before anything is asked of anybody: a port in use costs nothing.
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) clients: Option<TcpListener>,
    pub(crate) advertise: Vec<Address>,
}

impl Bound {
    pub(crate) async fn open(data: &DataDir, settings: &Settings) -> Result<Self, StartError> {
        let last = Endpoints::load(data);
        let cannot = |source| StartError::Bind { address: settings.cluster_addr, source };
        let listener = bind_again(settings.cluster_addr, last.cluster).await.map_err(cannot)?;
        let local = listener.local_addr().map_err(cannot)?;
        let clients = match settings.client_addr {
            None => None,
            Some(address) => {
                let cannot = |source| StartError::Bind { address, source };
                Some(bind_again(address, last.client).await.map_err(cannot)?)
            }
        };
        let client = clients.as_ref().and_then(|listener| listener.local_addr().ok());
        let advertise =
            if settings.advertise.is_empty() { vec![advertisable(local)?] } else { settings.advertise.clone() };
        // At once: a start that is killed after it was admitted comes back at the address that was recorded.
        Endpoints { cluster: Some(local), advertise: advertise.clone(), client, https: last.https }.store(data)?;
        Ok(Self { listener, clients, advertise })
    }
}

/// Binds `wanted`; for port 0, the port of the last start is tried first, so that a restart keeps its address.
///
/// # Errors
/// `wanted` cannot be bound.
pub async fn bind_again(wanted: SocketAddr, last: Option<SocketAddr>) -> std::io::Result<TcpListener> {
    if let Some(last) = last.filter(|last| wanted.port() == 0 && last.ip() == wanted.ip())
        && let Ok(listener) = TcpListener::bind(last).await
    {
        return Ok(listener);
    }
    TcpListener::bind(wanted).await
}

/// A join command never says `0.0.0.0`: an address that means "any" falls back to the host's name.
fn advertisable(local: SocketAddr) -> Result<Address, StartError> {
    if !local.ip().is_unspecified() {
        return Ok(Address { host: Host::Ip(local.ip().to_canonical()), port: local.port() });
    }
    let host = host_name();
    match Host::parse(&host) {
        Ok(host) if !host.is_loopback() => Ok(Address { host, port: local.port() }),
        _ => Err(StartError::Advertise { address: local }),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

pub(crate) fn node_name(settings: &Settings) -> Result<Name, StartError> {
    if let Some(name) = &settings.name {
        return Ok(name.clone());
    }
    let host = host_name();
    let label = host.split('.').next().unwrap_or_default();
    Name::parse(label).map_err(|source| StartError::HostName { host: label.to_owned(), source })
}
