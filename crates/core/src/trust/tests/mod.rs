//! The state machine, command by command. Each refusal leaves the state as it was.

mod admission;
mod agreement;
mod attestations;
mod authorization;
mod client_ports;
mod events;
mod foreign;
mod golden;
mod hosts;
mod labels;
mod levels;
mod members;
mod operations;
mod placement;
mod principals;
mod renewal;
pub(crate) mod rig;
mod store_return;
mod tokens;
