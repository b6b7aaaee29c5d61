//! Administration as JSON: the same routes on the local socket (the peer's uid checked) and on the HTTPS port (an admin
//! certificate that policy allows it). Who may call is decided by [`access`]; what a call does, by the state machine.

pub(crate) mod access;
mod acl;
mod apply;
mod asked;
mod body;
mod bounds;
mod certificates;
mod enforcement;
mod hosts;
pub(crate) mod https;
pub(crate) mod https_files;
mod labels;
mod leader;
mod nodes;
mod problem;
mod recent;
pub(crate) mod routes;
pub(crate) mod socket;
mod status;
mod tokens;

pub(crate) use status::{certificate, is_ready};
