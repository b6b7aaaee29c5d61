//! The configuration of `countersign server`: a TOML file, `COUNTERSIGN_*` variables and flags, in rising precedence.
//!
//! [`schema`] is the one table of keys; files, environment, flags and help are made from it. [`layer`] reads,
//! [`checked`] judges, [`effective`] shows. Nothing here opens a socket or the data directory, and no secret is ever
//! shown.

pub(crate) mod checked;
pub(crate) mod clients;
pub(crate) mod effective;
pub(crate) mod layer;
pub(crate) mod schema;
mod sections;
#[cfg(test)]
mod tests;
pub(crate) mod unavailable;
pub(crate) mod value;
