//! Authenticated connections between members: the acceptor, the dialer, live trust.
//!
//! This crate knows nothing of Raft, of the API's schema or of policy. It proves who is at the other end of a
//! connection, and it ends the connection when that stops being true. What it must never do: hand over a stream whose
//! peer was not judged, read one byte of a peer before `Welcome`, or fall back to anything weaker than TLS 1.3.
//!
//! Read [`acceptor`] for the life of an accepted connection, [`dialer`] for a dialed one, [`registry`] for how trust
//! reaches the connections that are open, and [`trust`] for where it is kept.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod acceptor;
pub mod alpn;
mod attempt;
mod budget;
mod chains;
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
pub mod refusal;
pub mod registry;
pub mod returning;
pub mod routes;
pub mod service_client;
pub mod session;
mod share;
mod sni;
pub mod stream;
pub mod trust;
mod verifier;
pub mod view;

pub use acceptor::{Acceptor, AcceptorLimits};
pub use alpn::Alpn;
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
pub use returning::{PresentedServer, RecognizedServer, ReturnStream, Unrecognized, dial_return};
pub use routes::Routes;
pub use service_client::{ClientStream, Judge, ServedBy, ServiceClient, Unverified};
pub use session::{Protection, Session};
pub use stream::{EnrollStream, PeerStream, ServiceStream, SponsorProof};
pub use trust::{LiveTrust, StaleGeneration, Trust};
pub use view::{ViewStream, dial_view};
