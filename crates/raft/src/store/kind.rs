//! Which of a member's two stores a group is kept in.
//!
//! The trust group has a store of its own, so that no amount of data delays a revocation: other files, another writing
//! thread, other fsyncs. All other groups share the bulk store. Each store has its own id, and each can be lost alone.

use std::fmt;

use countersign_core::id::GroupId;

/// A store of a member, by the kind of group that it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKind {
    /// The store of the trust group alone.
    Trust,
    /// The store of all other groups.
    Bulk,
}

impl StoreKind {
    /// The kind of store that `group` is kept in: alike on every member.
    pub const fn of(group: GroupId) -> Self {
        if group.0 == GroupId::TRUST.0 { Self::Trust } else { Self::Bulk }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trust => "trust store",
            Self::Bulk => "bulk store",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_group_alone_is_kept_in_the_trust_store() {
        assert_eq!(StoreKind::of(GroupId::TRUST), StoreKind::Trust);
        for group in [1, 2, u64::MAX] {
            assert_eq!(StoreKind::of(GroupId(group)), StoreKind::Bulk);
        }
    }
}
