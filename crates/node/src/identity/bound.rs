//! The sockets of a member, the addresses that it advertises, and its default name.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use countersign_core::name::{Address, Host, Name};
use tokio::net::TcpListener;

use crate::identity::datadir::DataDir;
use crate::identity::endpoints::Endpoints;
use crate::settings::Settings;
use crate::start_error::StartError;

/// The sockets, bound before anything is asked of anybody: a port in use costs nothing.
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) clients: Option<ClientSockets>,
    pub(crate) advertise: Vec<Address>,
}

/// The sockets of the client port: both have one number.
pub(crate) struct ClientSockets {
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
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
                Some(ClientSockets::bind(address, last.client).await.map_err(cannot)?)
            }
        };
        let client = clients.as_ref().and_then(|sockets| sockets.tcp.local_addr().ok());
        let advertise =
            if settings.advertise.is_empty() { vec![advertisable(local)?] } else { settings.advertise.clone() };
        // At once: a start that is killed after it was admitted comes back at the address that was recorded.
        let client_advertise = client.and(settings.client_advertise.clone());
        let advertise_now = advertise.clone();
        Endpoints { cluster: Some(local), advertise: advertise_now, client, client_advertise, https: last.https }
            .store(data)?;
        Ok(Self { listener, clients, advertise })
    }
}

/// How often the system is asked for a port that is free on TCP and then turns out to be taken on UDP.
const PAIRS_MAX: usize = 16;

impl ClientSockets {
    /// Binds `wanted` on TCP and on UDP. For port 0, the system chooses a number that is free on both, and the number
    /// of the last start comes first.
    ///
    /// # Errors
    /// `wanted` cannot be bound on one of the two.
    async fn bind(wanted: SocketAddr, last: Option<SocketAddr>) -> io::Result<Self> {
        let mut last = last;
        let mut tries = 1..if wanted.port() == 0 { PAIRS_MAX } else { 1 };
        loop {
            let tcp = bind_again(wanted, last.take()).await?;
            let local = tcp.local_addr()?;
            match UdpSocket::bind(local) {
                Ok(udp) => return Ok(Self { tcp, udp }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("UDP: {error}"))),
            }
        }
    }
}

/// Binds `wanted`; for port 0, the port of the last start is tried first, so that a restart keeps its address.
///
/// # Errors
/// `wanted` cannot be bound.
pub async fn bind_again(wanted: SocketAddr, last: Option<SocketAddr>) -> io::Result<TcpListener> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[tokio::test]
    async fn client_port_has_one_number_on_both_and_keeps_it() {
        let first = ClientSockets::bind(any(), None).await.unwrap();
        let address = first.tcp.local_addr().unwrap();
        assert_eq!(first.udp.local_addr().unwrap(), address);
        drop(first);
        let again = ClientSockets::bind(any(), Some(address)).await.unwrap();
        assert_eq!((again.tcp.local_addr().unwrap(), again.udp.local_addr().unwrap()), (address, address));
    }

    #[tokio::test]
    async fn number_that_is_taken_on_udp_is_an_error_if_it_is_wanted_and_another_is_found_if_not() {
        let taken = UdpSocket::bind(any()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = ClientSockets::bind(address, None).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with("UDP: "), "{error}");
        // The number of the last start is taken meanwhile.
        let other = ClientSockets::bind(any(), Some(address)).await.unwrap();
        assert_ne!(other.udp.local_addr().unwrap(), address);
        assert_eq!(other.udp.local_addr().unwrap(), other.tcp.local_addr().unwrap());
    }
}
