//! Identifiers: numbers and digests with a type each, so that one is never taken for another.

use core::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A member's number. Assigned by the log, never by an argument; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A Raft group. Group 0 is the trust state; each partition of a topic is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The group that replicates the trust state.
    pub const TRUST: Self = Self(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version of the trust view. Grows with every change that a handshake can see; never shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often a cluster was restarted from a survivor; 0 for one that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Parses exactly the hexadecimal digits that `Display` writes; either case.
            pub fn parse(hex: &str) -> Option<Self> {
                let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

byte_id! {
    /// A cluster: 128 random bits, drawn once at bootstrap.
    ClusterId, 16
}
byte_id! {
    /// A join token, named without revealing it: derived from the public half of its key.
    TokenId, 8
}
byte_id! {
    /// One request: the same however often it is retried or forwarded. A joiner draws and stores that of its enrollment
    /// before it asks; for all others the member draws it that takes the request.
    RequestId, 16
}
byte_id! {
    /// A refused or failed connection attempt; the same on both ends.
    FailureId, 8
}
byte_id! {
    /// A public key: SHA-256 of its DER `SubjectPublicKeyInfo` (as in RFC 7469 §2.4).
    KeyId, 32
}
byte_id! {
    /// A member's store: 128 random bits, drawn when the store is made. A member whose store is lost gets another.
    StoreId, 16
}
byte_id! {
    /// A process of a member: 128 random bits, drawn at its start.
    BootId, 16
}
byte_id! {
    /// A member's replicated state at one index of the log.
    StateDigest, 32
}
byte_id! {
    /// An authority: SHA-256 of its DER certificate. It is what a join token pins.
    AuthorityId, 32
}

impl KeyId {
    /// The id of a key given as DER `SubjectPublicKeyInfo`.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }
}

impl AuthorityId {
    /// The id of an authority given as its DER certificate.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

/// The DER `SubjectPublicKeyInfo` of an Ed25519 key: a fixed prefix and 32 bytes (RFC 8410 §4).
pub fn ed25519_spki(public: &[u8; 32]) -> [u8; 44] {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let mut spki = [0; 44];
    for (to, from) in spki.iter_mut().zip(PREFIX.iter().chain(public)) {
        *to = *from;
    }
    spki
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_ids_round_trip_and_refuse_other_lengths() {
        let id = TokenId([1, 2, 3, 4, 5, 6, 7, 255]);
        assert_eq!(id.to_string(), "01020304050607ff");
        assert_eq!(TokenId::parse(&id.to_string()), Some(id));
        for bad in ["", "01", "01020304050607ff00", "0102030405060zff", " 01020304050607ff"] {
            assert_eq!(TokenId::parse(bad), None, "{bad}");
        }
    }
}
