//! Looking for members where they say that they are reached: their certificates hold a name or an address only with a proof.
//!
//! What comes out is "found" or "not found", and not found takes the same time whatever is there: who may ask for it is no
//! member yet, and must not learn by it which ports of other hosts are open.

mod answer;
mod check;
mod look;

pub(crate) use answer::answer;
pub(crate) use check::HostLookup;
pub(crate) use look::{Asker, HostWitness};
