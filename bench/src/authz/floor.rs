//! The floor: a session's table as one writes it by hand. One generation compared, one byte loaded, one bit tested;
//! what fills the table, forgets it, knows names or gives reasons is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use countersign_guard::{Action, Guard};

use super::asked::{Pass, pass};

/// The generation in force, on a cache line of its own.
#[repr(align(128))]
struct InForce(AtomicU64);

struct Table {
    in_force: Arc<InForce>,
    generation: u64,
    granted: Vec<u8>,
}

impl Table {
    #[inline]
    fn allows(&self, action: Action, resource: usize) -> bool {
        self.in_force.0.load(Ordering::Acquire) == self.generation
            && self.granted.get(resource).is_some_and(|granted| granted & action.bit() != 0)
    }
}

/// Asks about `count` resources by their places.
pub(crate) fn ask(guard: &Guard, count: usize, questions: usize) -> Result<Pass> {
    let granted = vec![Action::Read.bit(); count];
    let table = Table { in_force: Arc::new(InForce(AtomicU64::new(1))), generation: 1, granted };
    pass(guard, (0..count).collect(), questions, true, move |_, place| table.allows(Action::Read, *place))
}
