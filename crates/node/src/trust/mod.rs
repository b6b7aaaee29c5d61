//! The replicated trust state on this member: the group and what is applied of it, commands on their way into it, and what the
//! member refuses or believes ahead of it.

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
