//! Who this member is and where it keeps that: keys, certificate, data directory, two stores.
//!
//! `stored` judges a data directory. `bootstrap` founds a cluster, `join` enrolls, `store_return` comes back with a new
//! store, `data_store` opens the store of the data groups. Each is repeatable at every step at which it may be killed.
//! A file that others could have written or read is never used.

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
