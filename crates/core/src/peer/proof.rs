//! The proof that a handshake gave. The kinds are told apart here and nowhere else in this module; each kind has a file
//! for the checks that it alone needs. A proof of one kind must never be read as one of another.

use crate::id::KeyId;
use crate::peer::{CertificateProof, Refusal};
use crate::principal::{Principal, Role};
use crate::time::UnixMillis;
use crate::trust::member::Member;
use crate::trust::view::View;

/// What a handshake proved about the other end, one variant for each way to prove it. Clones are cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A certificate, and the use of its key.
    Certificate(CertificateProof),
}

impl Proof {
    /// The principal that was proven.
    pub fn principal(&self) -> &Principal {
        match self {
            Self::Certificate(certificate) => &certificate.claims().principal,
        }
    }

    /// The key whose possession was proven.
    pub fn key(&self) -> KeyId {
        match self {
            Self::Certificate(certificate) => certificate.claims().key,
        }
    }

    /// The last moment at which the proof counts, as it says itself; the record may end it earlier.
    pub fn not_after(&self) -> UnixMillis {
        match self {
            Self::Certificate(certificate) => certificate.claims().validity.not_after,
        }
    }

    /// Whether it comes from where this cluster takes proofs from.
    pub(super) fn check_origin(&self, view: &View) -> Result<(), Refusal> {
        match self {
            Self::Certificate(certificate) => certificate.check_origin(view),
        }
    }

    /// Whether it counts at `now`, as it says itself.
    pub(super) fn check_time(&self, now: UnixMillis) -> Result<(), Refusal> {
        match self {
            Self::Certificate(certificate) => certificate.check_time(now),
        }
    }

    /// Whether it is a proof of the recorded `member`.
    pub(super) fn check_member(&self, view: &View, member: &Member) -> Result<(), Refusal> {
        match self {
            Self::Certificate(certificate) => certificate.check_member(view, member),
        }
    }

    /// Whether it is a proof of the broker, client or admin `role`, as recorded, at `now`.
    pub(super) fn check_principal(&self, view: &View, role: &Role, now: UnixMillis) -> Result<(), Refusal> {
        match self {
            Self::Certificate(certificate) => certificate.check_principal(view, role, now),
        }
    }

    /// Whether the record still has room for it as a proof of the broker, client or admin `role`.
    pub(super) fn check_still_recorded(&self, view: &View, role: &Role) -> Result<(), Refusal> {
        match self {
            Self::Certificate(certificate) => certificate.check_still_recorded(view, role),
        }
    }

    /// The last moment at which it counts under `view`.
    pub(super) fn end_under(&self, view: &View) -> UnixMillis {
        match self {
            Self::Certificate(certificate) => certificate.end_under(view),
        }
    }
}
