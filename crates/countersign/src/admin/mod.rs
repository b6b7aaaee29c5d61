//! Administration as JSON: the same routes on the local socket (the peer's uid checked) and on the HTTPS port (an admin
//! certificate). Who may call is decided by the port; what a call does is decided by the state machine.

mod certificates;
mod enforcement;
pub(crate) mod https;
mod leader;
mod nodes;
mod problem;
mod quorum;
mod routes;
pub(crate) mod socket;
mod status;
mod tokens;

pub(crate) use routes::{api, local, public};
pub(crate) use status::{certificate, is_ready};
