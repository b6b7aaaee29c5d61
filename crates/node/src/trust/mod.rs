//! The replicated trust state on this member, commands on their way into it, and what this member refuses by itself.
//!
//! `replica` runs the trust group, `machine` applies its entries and publishes each view, `propose` carries commands to
//! the leader. `denylist` and `gate` refuse or disbelieve ahead of the view; they never let anything in.

pub(crate) mod assignments;
pub(crate) mod authority;
pub(crate) mod denylist;
pub(crate) mod divergence;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod in_flight;
pub(crate) mod machine;
pub(crate) mod own_status;
pub(crate) mod propose;
pub(crate) mod replica;
pub(crate) mod store_warnings;
pub(crate) mod stores;
