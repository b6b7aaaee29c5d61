//! The schemas that members, clients and people speak: gRPC between members, and JSON for administration.
//!
//! [`cluster`] is generated from `proto/countersign/v1/cluster.proto`, and committed: building takes no compiler of
//! schemas, and the test `generated` refuses code that is not of the schema. [`admin`] holds the JSON types, which
//! `openapi.json` describes. [`convert`] makes checked values of messages and names what does not fit.
//!
//! This crate must never hold logic beyond conversion.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

/// What members say to each other over gRPC; generated from `proto/countersign/v1/cluster.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, unused_qualifications)]
pub mod cluster {
    include!("generated/countersign.v1.rs");
}

/// The schema of [`cluster`] as a `FileDescriptorSet`: for programs that make messages of it at run time.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/countersign.v1.binpb");

pub mod admin;
pub mod convert;
