//! Compiled groups, each made once however many sessions need it, and made again only when its own rules changed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use countersign_core::authz::{Group, Policy, PrincipalPattern, Subject};
use countersign_core::locked::Locked;
use hashbrown::DefaultHashBuilder;

use crate::cells::{Cells, compile};

/// Groups kept that no rule names any more, before they are looked for.
const STALE_MAX: usize = 64;

/// One group, made by the session that needs it first; the others wait for that.
struct Made {
    source: Arc<Group>,
    cells: OnceLock<Arc<[Arc<Cells>]>>,
}

/// The compiled groups of a guard. Bounded by what the rules name.
#[derive(Default)]
pub(crate) struct Groups {
    hasher: DefaultHashBuilder,
    made: Locked<HashMap<PrincipalPattern, Arc<Made>>>,
}

impl Groups {
    pub(crate) const fn hasher(&self) -> &DefaultHashBuilder {
        &self.hasher
    }

    /// The same for a policy of one principal, which shares no group with another's: nothing is kept here.
    pub(crate) fn of_slice(&self, policy: &Policy, subject: &Subject) -> Vec<Arc<[Arc<Cells>]>> {
        policy.groups_of(subject).map(|(_, group)| compile(group, &self.hasher).into()).collect()
    }

    /// What rules say of `subject`, group by group, kind by kind.
    pub(crate) fn of(&self, policy: &Policy, subject: &Subject) -> Vec<Arc<[Arc<Cells>]>> {
        policy.groups_of(subject).map(|(pattern, group)| self.cells(policy, pattern, group)).collect()
    }

    fn cells(&self, policy: &Policy, pattern: &PrincipalPattern, group: &Arc<Group>) -> Arc<[Arc<Cells>]> {
        let made = {
            let mut all = self.made.lock();
            match all.get(pattern).filter(|made| Arc::ptr_eq(&made.source, group)) {
                Some(made) => Arc::clone(made),
                None => {
                    if all.len() >= policy.group_count() + STALE_MAX {
                        all.retain(|pattern, _| policy.group(pattern).is_some());
                    }
                    let made = Arc::new(Made { source: Arc::clone(group), cells: OnceLock::new() });
                    all.insert(pattern.clone(), Arc::clone(&made));
                    made
                }
            }
        };
        // Outside the lock: a large group takes its time, and others do not wait for it.
        Arc::clone(made.cells.get_or_init(|| compile(&made.source, &self.hasher).into()))
    }

    /// How many groups are kept.
    pub(crate) fn len(&self) -> usize {
        self.made.lock().len()
    }
}
