//! What a member decides by itself: the machines that the shell and the simulation drive.
//!
//! Each is told what happened and when, and answers what to do next. None reads a clock, draws randomness, sends or
//! stores.

pub mod membership;
pub mod recognition;
pub mod renewal;
pub mod returning;

#[cfg(test)]
mod tests;
