//! The tables of the state: the records, with an index for each question that a command, a check or a task asks.
//! Encoded they are maps by their first key; an index is made again when one is decoded.
//!
//! [`Table::scan`](crate::table::Table::scan) reads a whole table. No command and no check may call it.

mod attestations;
mod evictions;
mod groups;
mod members;
mod principals;
#[cfg(test)]
mod tests;
mod tokens;

pub use attestations::Attestations;
pub use evictions::Evictions;
pub use groups::Groups;
pub use members::Members;
pub use principals::{IssuedKeys, Principals};
pub use tokens::Tokens;

use crate::map::{Map, Set};

/// Enters `found` in an index.
fn add<K: Ord + Clone, T: Ord + Clone>(index: &mut Map<K, Set<T>>, key: K, found: T) {
    let mut all = index.remove(&key).unwrap_or_default();
    all.insert(found);
    index.insert(key, all);
}

/// Takes `found` out of an index.
fn take<K: Ord + Clone, T: Ord + Clone>(index: &mut Map<K, Set<T>>, key: &K, found: T) {
    let mut all = index.remove(key).unwrap_or_default();
    all.remove(&found);
    if !all.is_empty() {
        index.insert(key.clone(), all);
    }
}
