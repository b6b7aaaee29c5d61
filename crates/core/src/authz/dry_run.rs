//! provisional
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::resource::Kind;
use crate::principal::Role;

/// A request that was decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Recorded {
    /// Who.
    pub principal: Role,
    /// What.
    pub action: Action,
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// From where.
    pub from: Option<IpAddr>,
}
