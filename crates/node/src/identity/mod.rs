//! Who this member is and where it keeps that: keys, certificate, data directory, and how it got them: by founding a cluster,
//! by joining one, or by returning with a new store.

pub(crate) mod bootstrap;
pub(crate) mod bound;
pub(crate) mod data_store;
pub mod datadir;
pub(crate) mod endpoints;
pub mod file;
pub(crate) mod files;
pub(crate) mod join;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod member_file;
pub(crate) mod ownership;
pub(crate) mod store_return;
pub(crate) mod stored;
pub(crate) mod view_file;
