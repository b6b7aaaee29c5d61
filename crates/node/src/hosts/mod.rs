//! Looks for members at the addresses that they advertise: a certificate holds a name or an address only with a proof.
//!
//! `look` is a voter's search for a joiner, `check` the leader's task that searches for running members, `answer` the
//! joiner's side. The result is "found" or "not found", and "not found" takes the same time whatever is there. The
//! asker is no member yet, and must not learn which ports of other hosts are open.

mod answer;
mod check;
mod look;

pub(crate) use answer::answer;
pub(crate) use check::HostLookup;
pub(crate) use look::{Asker, HostWitness};
