//! `member.json`: whose a data directory is.

use std::path::Path;

use countersign_core::id::{ClusterId, Incarnation, NodeId, StoreId};
use countersign_core::name::Name;
use countersign_raft::Binding;
use serde::{Deserialize, Serialize};

use crate::identity::datadir::{DamageReason, DataDirError};

/// Who this directory belongs to; written last, so its presence means that bootstrap or enrollment ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFile {
    /// The layout's version.
    version: u32,
    /// The cluster, 32 hexadecimal digits.
    cluster: String,
    /// The cluster's name.
    pub cluster_name: Name,
    /// How often the cluster was restarted from a survivor.
    incarnation: u64,
    /// The member's number.
    node: u64,
    /// The member's name.
    pub name: Name,
    /// The id under which the member answers for what it stored, 32 hexadecimal digits.
    store: String,
    /// The same for what it stores of all groups but the trust group; none before such a store was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_store: Option<String>,
}

/// The version of the directory's layout.
const LAYOUT_VERSION: u32 = 2;

impl MemberFile {
    /// For a member of a cluster, with the store that was made for it.
    pub fn new(binding: &Binding, cluster_name: Name, name: Name) -> Self {
        Self {
            version: LAYOUT_VERSION,
            cluster: binding.cluster.to_string(),
            cluster_name,
            incarnation: binding.incarnation.0,
            node: binding.node.0,
            name,
            store: binding.store.to_string(),
            data_store: None,
        }
    }

    /// The same member, with another store of all groups but the trust group.
    #[must_use]
    pub fn with_data_store(self, store: StoreId) -> Self {
        Self { data_store: Some(store.to_string()), ..self }
    }

    /// The same member, which returned with another store of the trust group.
    #[must_use]
    pub fn with_store(self, store: StoreId) -> Self {
        Self { store: store.to_string(), ..self }
    }

    /// Reads what [`DataDir::write_member`] wrote. One of another layout is refused by name.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, DataDirError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |_| DataDirError::Damaged { path: path.to_owned(), reason: DamageReason::Parse };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != LAYOUT_VERSION {
            return Err(DataDirError::Layout { path: path.to_owned(), got: version, expected: LAYOUT_VERSION });
        }
        let member: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        let data_store = member.data_store.as_deref();
        if member.ids().is_none() || data_store.is_some_and(|id| StoreId::parse(id).is_none()) {
            return Err(DataDirError::Damaged { path: path.to_owned(), reason: DamageReason::Parse });
        }
        Ok(member)
    }

    fn ids(&self) -> Option<(ClusterId, StoreId)> {
        Some((ClusterId::parse(&self.cluster)?, StoreId::parse(&self.store)?))
    }

    /// What the member's stores are bound to.
    pub fn binding(&self) -> Option<Binding> {
        let (cluster, store) = self.ids()?;
        Some(Binding { cluster, node: self.node(), incarnation: self.incarnation(), store })
    }

    /// What the store of all groups but the trust group is bound to; none before one was made.
    pub fn data_binding(&self) -> Option<Binding> {
        Some(Binding { store: StoreId::parse(self.data_store.as_deref()?)?, ..self.binding()? })
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<ClusterId> {
        ClusterId::parse(&self.cluster)
    }

    /// The member's number.
    pub const fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// How often the cluster was restarted from a survivor.
    pub const fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }

    /// The id under which the member answers for what it stored.
    pub fn store(&self) -> Option<StoreId> {
        StoreId::parse(&self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_file_round_trips_and_another_layout_is_refused() {
        let binding = Binding {
            cluster: ClusterId([1; 16]),
            node: NodeId(3),
            incarnation: Incarnation(2),
            store: StoreId([4; 16]),
        };
        let file = MemberFile::new(&binding, Name::parse("east").unwrap(), Name::parse("n3").unwrap());
        let written = serde_json::to_string(&file).unwrap();
        let path = Path::new("member.json");
        let read = MemberFile::parse(path, written.as_bytes()).unwrap();
        assert_eq!((read.binding(), read), (Some(binding), file));
        for (from, to) in [("\"version\":2", "\"version\":1"), ("\"version\":2", "\"version\":3")] {
            let other = written.replace(from, to);
            assert_ne!(other, written);
            let refused = MemberFile::parse(path, other.as_bytes());
            assert!(matches!(refused, Err(DataDirError::Layout { expected: 2, .. })), "{refused:?}");
        }
        // As the build before wrote it.
        let older = br#"{"version":1,"cluster":"00","cluster_name":"east","node":3,"name":"n3"}"#;
        assert!(matches!(MemberFile::parse(path, older), Err(DataDirError::Layout { got: 1, .. })));
        for damage in ["04040404040404040404040404040404", "01010101010101010101010101010101", "\"node\":3,"] {
            let damaged = MemberFile::parse(path, written.replace(damage, "").as_bytes());
            assert!(matches!(damaged, Err(DataDirError::Damaged { .. })), "{damage}: {damaged:?}");
        }
    }
}
