//! The settings of the whole cluster, and the level that its members know.

use serde::{Deserialize, Serialize};

/// The settings of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub cluster: String,
    /// Its id, 32 hexadecimal digits.
    pub cluster_id: String,
    /// The namespace of its principals.
    pub trust_domain: String,
    /// The generation that shows this.
    pub generation: u64,
    /// Names that the certificates of all members hold.
    pub client_names: Vec<String>,
    /// Members whose certificates do not hold just these names yet. They renew by themselves.
    pub renewing: Vec<String>,
    /// The level: what members may use, since all of them know it.
    pub level: u32,
    /// Whether the level rises by itself.
    pub level_auto: bool,
    /// What each member's binary knows.
    pub levels: Vec<MemberLevel>,
    /// Guards on other hosts that follow a member, and what they know.
    pub guards: Vec<GuardLevel>,
    /// Members that did not say which guards follow them.
    pub guards_unheard: Vec<String>,
}

/// What one member's binary knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLevel {
    /// The member's name.
    pub name: String,
    /// The newest level that its binary knows, as it last reported.
    pub level: u32,
    /// When it first reported it, Unix time.
    pub since: u64,
}

/// What one guard on a host that is no member knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardLevel {
    /// Its principal.
    pub name: String,
    /// The newest level that it knows: once the rules need more, it denies.
    pub level: u32,
}

/// Raise the level of the cluster to the newest that all members know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelRaise {
    /// Learners that are not waited for, by name or number.
    #[serde(default)]
    pub without: Vec<String>,
}

/// Settings of the whole cluster to change; an absent field stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterChange {
    /// Names that the certificates of all members hold, in place of those before.
    #[serde(default)]
    pub client_names: Option<Vec<String>>,
    /// Whether the level rises by itself once all members have known the next one for a day.
    #[serde(default)]
    pub level_auto: Option<bool>,
}
