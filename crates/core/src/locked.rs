//! A mutex that cannot wait on itself: a thread that holds one may take only locks of a later order, else debug builds
//! stop at once. Nothing here decides anything; the module is in core because every shell uses it.
//!
//! A member once froze for good because a guard that lived to the end of an expression was still held when the same
//! expression locked again. No lint sees that through a call. This type does, in every test that comes by. So all locks
//! of shipped code are of this type, and the replicated state is read as a shared snapshot, never through a guard.

use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Where a lock stands among those that one thread may hold at once: later ones are taken last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// LockGuard while others are taken, which is said where it is made and why.
    Outer,
    /// Between the two.
    Middle,
    /// LockGuard for a few instructions that lock nothing else: all but a few.
    Leaf,
}

/// A value behind a lock that is never poisoned and never taken twice by one thread.
#[derive(Debug)]
pub struct Locked<T> {
    order: Order,
    value: Mutex<T>,
}

impl<T> Locked<T> {
    /// A lock under which nothing else is locked.
    pub const fn new(value: T) -> Self {
        Self::of(Order::Leaf, value)
    }

    /// A lock under which locks of a later order may be taken.
    pub const fn of(order: Order, value: T) -> Self {
        Self { order, value: Mutex::new(value) }
    }

    /// Waits for the lock. The guard ends with the statement, or with the variable that it is bound to.
    ///
    /// Stops the process in debug builds if this thread holds a lock that is not of an earlier order: two threads that
    /// did so could wait for each other, and one could wait for itself.
    #[track_caller]
    pub fn lock(&self) -> LockGuard<'_, T> {
        let held = order::Entered::new(self.order);
        // A panic under the lock left the value as it was between two statements; each user keeps that state valid.
        LockGuard { value: self.value.lock().unwrap_or_else(PoisonError::into_inner), _order: held }
    }
}

impl<T> Locked<T> {
    /// The value, once no thread can hold the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lock could be had at this moment: for a watcher, which must not wait for it.
    pub fn is_free(&self) -> bool {
        !matches!(self.value.try_lock(), Err(TryLockError::WouldBlock))
    }
}

impl<T: Default> Default for Locked<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// The value, while it is locked.
#[derive(Debug)]
pub struct LockGuard<'a, T> {
    value: MutexGuard<'a, T>,
    _order: order::Entered,
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(debug_assertions)]
mod order {
    use core::cell::RefCell;
    use std::io::Write;

    use super::Order;

    std::thread_local! {
        static HELD: RefCell<Vec<Order>> = const { RefCell::new(Vec::new()) };
    }

    /// Why a lock may not be taken now.
    pub(super) fn refused(wanted: Order) -> Option<Order> {
        HELD.with_borrow(|held| held.iter().copied().find(|order| *order >= wanted))
    }

    /// A lock that this thread holds, or is about to.
    #[derive(Debug)]
    pub(super) struct Entered(Order);

    impl Entered {
        #[track_caller]
        pub(super) fn new(order: Order) -> Self {
            // INVARIANT: locks are taken in their order. A panic would be swallowed by the task it happens in.
            if let Some(held) = refused(order) {
                let at = core::panic::Location::caller();
                // Not by `eprintln!`, which the harness of a test that is about to die keeps for itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "{at}: a thread that holds a lock ({held:?}) takes another ({order:?}): it could wait for itself"
                );
                std::process::abort();
            }
            HELD.with_borrow_mut(|held| held.push(order));
            Self(order)
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| {
                if let Some(at) = held.iter().rposition(|order| *order == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod order {
    #[derive(Debug)]
    pub(super) struct Entered;

    impl Entered {
        #[inline(always)]
        pub(super) const fn new(_: super::Order) -> Self {
            Self
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_later_order_may_be_taken_under_an_earlier_one_and_no_other() {
        let (outer, leaf) = (Locked::of(Order::Outer, 1), Locked::new(2));
        assert_eq!(order::refused(Order::Outer), None);
        {
            let first = outer.lock();
            for (wanted, refused) in [(Order::Outer, true), (Order::Middle, false), (Order::Leaf, false)] {
                assert_eq!(order::refused(wanted).is_some(), refused, "{wanted:?}");
            }
            assert_eq!(*first + *leaf.lock(), 3);
        }
        let _last = leaf.lock();
        for wanted in [Order::Outer, Order::Middle, Order::Leaf] {
            assert_eq!(order::refused(wanted), Some(Order::Leaf), "{wanted:?}");
        }
    }

    #[test]
    fn a_lock_that_was_given_back_is_held_no_more() {
        let leaf = Locked::new(0);
        *leaf.lock() += 1;
        assert_eq!(*leaf.lock(), 1);
        assert!(leaf.is_free());
        {
            let _held = leaf.lock();
            assert!(!leaf.is_free());
        }
        assert_eq!(order::refused(Order::Outer), None);
        // A guard that is a temporary lives to the end of its statement: this is what once froze a member.
        assert_eq!((*leaf.lock(), order::refused(Order::Outer)), (1, Some(Order::Leaf)));
    }
}
