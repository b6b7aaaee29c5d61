//! gRPC over one connection that the caller has made and verified. It is never dialed again.

use std::io;

use countersign_core::locked::Locked;
use countersign_core::name::Address;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};

/// A channel over `stream` alone. Once that is lost, calls fail: a caller that wants another connection verifies
/// another one.
pub fn channel_over<S>(endpoint: &Endpoint, stream: S) -> Channel
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Locked::new(Some(stream));
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let stream = stream.lock().take();
        async move { stream.map(TokioIo::new).ok_or_else(|| io::Error::other("the connection was closed")) }
    }))
}

/// A channel over a connection to the client port at `address`, as [`channel_over`]. Each call names that address: a
/// member answers for no other.
///
/// # Errors
/// The address is no authority of a URL.
pub fn channel_to<S>(address: &Address, stream: S) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let endpoint = Endpoint::try_from(format!("https://{address}"))?;
    Ok(channel_over(&endpoint, stream))
}
