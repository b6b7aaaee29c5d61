//! Enrollment: from a join token to a membership, as typestate on both sides.
//!
//! [`joiner`] holds what the new node may do at each step, [`sponsor`] what a member checks before it forwards the
//! request. The signature is checked once more by `apply` itself, so that no member can spend a token on a key that its
//! holder did not sign. [`dial_back`] is how a voter finds the joiner where it says that it is. [`returning`] is the
//! way back of a member whose certificate is not accepted any more.

pub mod dial_back;
pub mod dial_budget;
pub mod host_checks;
pub mod joiner;
mod request;
pub mod returning;
pub mod sponsor;

pub use request::{ENROLL_VERSION, EnrollmentRequest};

#[cfg(test)]
mod tests;
