//! X.509 for a cluster: keys, profiles, issuing, strict verification, sealing.
//!
//! - [`authority`] issues certificates, from a record and never from a CSR; [`csr`] reads only the key of one.
//! - [`verify`] says what the network believes of a presented chain.
//! - [`foreign`] and [`mapping`] read certificates made elsewhere and name their holders.
//! - [`seal`] encrypts a secret to one member; [`key`] holds private keys.
//! - [`offline`] makes authorities and certificates by hand.
//!
//! Bytes come in and typed results go out. Nothing here may open a file or a socket, read a clock, or know Raft or
//! policy.

// Tests may say "any other".
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod authority;
mod certificate;
mod constraint;
pub mod credential;
pub mod csr;
mod der;
mod extension;
pub mod foreign;
pub mod key;
pub mod key_kind;
pub mod limbo;
pub mod mapping;
pub mod offline;
mod oid;
mod path;
mod peer_name;
pub mod pem;
mod profile;
pub mod seal;
mod signature;
pub mod verify;
