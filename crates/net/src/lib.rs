//! Authenticated connections: the acceptor, the dialer, and live trust.
//!
//! This crate proves who is at the other end of a connection, and ends the connection when that stops being true.
//!
//! - An [`Endpoint`] is one member on the network. [`Endpoint::publish`] puts a view in force for all its connections.
//! - [`acceptor`] is the life of an accepted connection, [`dialer`] that of a dialed one.
//! - [`registry`] ends connections that are open when trust changes; [`trust`] keeps what handshakes judge by.
//! - [`stream`] has one type for each protocol, so an unauthenticated connection cannot reach what only members may
//!   reach.
//! - [`session`] is what a stream needs of its transport; [`quic`] and [`https`] are ports beside the cluster port.
//! - [`client_dialer`] is for programs outside the cluster: a certificate, a trust bundle, and no view.
//!
//! It must never hand over a stream whose peer was not judged, or read a byte of a peer before `Welcome`. It must never
//! fall back to anything weaker than TLS 1.3. It knows nothing of Raft, of the schemas or of policy.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod acceptor;
pub mod alpn;
mod attempt;
mod budget;
mod chains;
pub mod client_acceptor;
pub mod client_dialer;
pub mod clock;
mod config;
mod counted;
pub mod credential;
mod denied;
pub mod dial_error;
pub mod dialer;
pub mod endpoint;
pub mod enroll;
pub mod frame;
mod gate;
mod handshake;
// Hidden rather than behind a feature: the shipped binary's `demo` needs it, so every build of the workspace would turn
// it on, and testing one crate alone would build this one once more.
#[doc(hidden)]
pub mod hostile;
pub mod https;
mod memory;
pub mod quic;
pub mod quic_acceptor;
pub mod quic_dialer;
pub mod quic_limits;
pub mod refusal;
pub mod registry;
pub mod returning;
pub mod routes;
pub mod session;
mod share;
mod sni;
pub mod stream;
pub mod trust;
mod verifier;
pub mod view;

pub use acceptor::{Acceptor, AcceptorLimits};
pub use alpn::{Alpn, HttpVersion};
pub use client_acceptor::{ClientAcceptor, ClientConnection, RefusedStream};
pub use client_dialer::{ClientDialer, ClientFilesError, Judge, ServedBy, ServerStream, Unverified};
pub use clock::{Clock, SystemClock};
pub use credential::{Credential, CredentialError};
pub use dial_error::{DialCause, DialError};
pub use dialer::{Dialer, Expected};
pub use endpoint::{CredentialRefused, Endpoint, PublishError};
pub use enroll::{PinnedStream, SponsorChain, dial_enroll, dial_enroll_mapped, dial_enroll_within};
pub use quic::{QuicConnection, QuicPurpose, QuicStream};
pub use quic_acceptor::{QuicAcceptor, QuicBindError};
pub use quic_dialer::QuicDialer;
pub use refusal::{LoggedRefusals, RefusalRecord, Refusals};
pub use registry::{ClosedConnection, LiveConnection, Registry};
pub use returning::{RecognizedServer, ReturnStream, Unrecognized, UnrecognizedServer, dial_return};
pub use routes::Routes;
pub use session::{Protection, Session};
pub use stream::{ClientStream, EnrollStream, PeerStream, SponsorProof};
pub use trust::{LiveTrust, StaleGeneration, Trust};
pub use view::{ViewStream, dial_view};
