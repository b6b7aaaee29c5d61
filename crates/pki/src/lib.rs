//! X.509 for a cluster: keys, profiles, issuing, strict verification, sealing.
//!
//! Read [`authority`] for the certificates that are issued, [`verify`] for those that are believed.

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
