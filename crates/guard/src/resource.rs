//! A thing that is asked about often: named once.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::authz::Kind;

/// Ids are never used twice in a process: a session remembers answers by them.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A thing that is asked about often, such as a topic that is served. Its owner keeps it and no guard does, so that
/// names cost memory only where they are served.
#[derive(Debug)]
pub struct Resource {
    id: u64,
    kind: Kind,
    name: Box<str>,
}

impl Resource {
    /// Of this kind and name.
    pub fn new(kind: Kind, name: &str) -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), kind, name: name.into() }
    }

    /// Its kind.
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its name.
    pub const fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }
}
