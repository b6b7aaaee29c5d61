//! What a client may take of this member over one QUIC connection. quinn's defaults would allow it 250 MB.
//!
//! A client of these limits does not move: packets from another address are dropped, since rules may name the address
//! that a client connects from. It connects again from its new address.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use countersign_core::limits::CONNECTIONS_PER_PRINCIPAL_MAX;
use countersign_core::principal::Principal;
use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn::{ServerConfig, TransportConfig, VarInt};

use crate::share::{Share, Shares};

/// Bidirectional streams that a client may have open at once on one connection; none before it was judged. It may open
/// no unidirectional stream.
pub const STREAMS_MAX: u32 = 64;

/// Bytes of one stream that a client may send before they are read.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of all streams of one connection that a client may send before they are read.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes that this end keeps for one connection because the client has not confirmed that it has them.
pub const SEND_WINDOW: u64 = 1024 * 1024;

/// Silence after which a connection has ended, in milliseconds.
pub const IDLE_MILLIS_MAX: u32 = 30_000;

/// Silence after which this end asks whether the client is still there, in milliseconds. It is a third of
/// [`IDLE_MILLIS_MAX`], so that two losses end no connection.
pub const KEEPALIVE_MILLIS: u64 = 10_000;

/// Connections whose first packet came and that the acceptor has not looked at yet, on one port. More are
/// not heard: their clients say it again.
pub const INCOMING_MAX: usize = 256;

/// Bytes that are kept of one connection until the acceptor has looked at it.
pub const INCOMING_LEN_MAX: u64 = 16 * 1024;

/// Connections of one principal that quinn holds at once: those that are open, and as many that have ended. quinn keeps
/// the bytes of a connection for three probe timeouts after its end (RFC 9000 §10.2), and a client that confirms late
/// makes these minutes long.
pub const HELD_MAX: usize = 2 * CONNECTIONS_PER_PRINCIPAL_MAX;

/// Sets what all connections share, and turns off what is not needed: datagrams (RFC 9221) and migration (RFC 9000 §9).
pub(crate) fn bound(config: &mut ServerConfig) {
    config
        .transport_config(transport(&Held::default()))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_LEN_MAX)
        .incoming_buffer_size_total(INCOMING_LEN_MAX.saturating_mul(INCOMING_MAX as u64));
}

/// The bounds of one connection, with what is held for it.
pub(crate) fn transport(held: &Held) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        // A caller that will be refused leaves no bytes here.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_MILLIS_MAX).into()))
        .keep_alive_interval(Some(Duration::from_millis(KEEPALIVE_MILLIS)))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(Holding { cubic: Arc::default(), _held: held.clone() }));
    Arc::new(transport)
}

/// Lets a client that was judged open streams.
pub(crate) fn open(connection: &quinn::Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
}

/// What is given up when quinn forgets a connection: nothing before the connection was judged. quinn does not tell when
/// that is, but drops the configuration, which is of this connection alone.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<OnceLock<Share<Principal>>>);

impl Held {
    /// Takes a place of `principal`, if it has one left.
    pub(crate) fn by(&self, shares: &Arc<Shares<Principal>>, principal: &Principal) -> Option<()> {
        let share = shares.take(principal.clone())?;
        self.0.set(share).ok()
    }
}

/// The controller of quinn, in a factory that holds something for as long as quinn holds the factory.
struct Holding {
    cubic: Arc<CubicConfig>,
    _held: Held,
}

impl ControllerFactory for Holding {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Arc::clone(&self.cubic).build(now, current_mtu)
    }
}
