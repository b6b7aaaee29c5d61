//! The authors of records, and when they made them.

use countersign_core::trust::author;
use countersign_core::trust::member;
use serde::{Deserialize, Serialize};

/// Who made a record, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeInfo {
    /// `KIND/NAME` of a principal, `uid/NUMBER` of a local operator, or `token/ID` of a joiner.
    pub by: String,
    /// The member that took the request.
    pub taken_by: u64,
    /// When: milliseconds since the Unix epoch.
    pub at_millis: u64,
}

impl MadeInfo {
    /// The author on record.
    pub fn of(made: &author::Made) -> Self {
        Self { by: made.by.to_string(), taken_by: made.taken_by.0, at_millis: made.at.0 }
    }
}

/// How a certificate came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedInfo {
    /// SHA-256 of the authority that issued it; null where certificates are made elsewhere.
    pub authority: Option<String>,
    /// Who asked for it.
    pub made: MadeInfo,
}

impl IssuedInfo {
    /// The author on record.
    pub fn of(issued: &member::Issued) -> Self {
        Self { authority: issued.authority.map(|id| id.to_string()), made: MadeInfo::of(&issued.made) }
    }
}
