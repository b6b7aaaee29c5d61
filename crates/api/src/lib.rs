//! The schemas that members, clients and people speak. No logic beyond conversion.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

/// What members say to each other over gRPC; generated from `proto/countersign/v1/cluster.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, unused_qualifications)]
pub mod cluster {
    tonic::include_proto!("countersign.v1");
}

pub mod admin;
pub mod convert;
