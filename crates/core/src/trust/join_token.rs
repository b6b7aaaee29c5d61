//! Join tokens: what the operator carries, and what the state keeps of it.
//!
//! The secret never travels. An Ed25519 key is derived from it; the state holds only the public half. So a reader of
//! the log, a thief of a snapshot or a man in the middle cannot join.

use core::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::author::Made;
use super::member::{Attributes, Suffrage};
use crate::id::{AuthorityId, TokenId};
use crate::key::{PublicKey, SecretKey};
use crate::name::{Host, Name};
use crate::secret::Secret;
use crate::time::UnixMillis;

/// What each secret begins with, so that scanners for leaked secrets can find one.
pub const SECRET_PREFIX: &str = "cst_";
const CHECKSUM_LEN: usize = 4;

/// Why a text is no join token. None of these shows any part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// No colon between secret and fingerprint.
    #[error("join token has no `:`, expected <secret>:<sha256 of the CA certificate>")]
    NoFingerprint,
    /// The fingerprint is not 64 hexadecimal digits.
    #[error("fingerprint of the join token has {got} characters, expected 64 hexadecimal digits")]
    Fingerprint {
        /// Characters given.
        got: usize,
    },
    /// The secret does not begin with [`SECRET_PREFIX`] or is not of its alphabet and length.
    #[error("secret of the join token is not of the form {SECRET_PREFIX}…")]
    Secret,
    /// The checksum does not match: a character is wrong or missing.
    #[error("join token is mistyped: its checksum does not match")]
    Checksum,
}

/// A join token as the operator holds it: a secret, and the fingerprint of the one authority to trust.
#[derive(Debug)]
pub struct JoinToken {
    secret: Secret<32>,
    pin: AuthorityId,
}

impl JoinToken {
    /// A token from 32 bytes of the operating system's randomness.
    pub const fn new(secret: Secret<32>, pin: AuthorityId) -> Self {
        Self { secret, pin }
    }

    /// Parses `<secret>:<sha256 of the CA certificate, hex>`; white space around it is ignored.
    /// The checksum covers secret and fingerprint, so that a mistyped token is caught before any network.
    pub fn parse(text: &str) -> Result<Self, JoinTokenError> {
        let (secret, pin) = text.trim().split_once(':').ok_or(JoinTokenError::NoFingerprint)?;
        let pin = AuthorityId::parse(pin).ok_or(JoinTokenError::Fingerprint { got: pin.chars().count() })?;
        let encoded = secret.strip_prefix(SECRET_PREFIX).ok_or(JoinTokenError::Secret)?;
        let bytes = BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).map_err(|_| JoinTokenError::Secret)?;
        let (secret, given) = bytes.split_first_chunk::<32>().ok_or(JoinTokenError::Secret)?;
        if given.len() != CHECKSUM_LEN {
            return Err(JoinTokenError::Secret);
        }
        let token = Self { secret: Secret::new(*secret), pin };
        if token.checksum() == given { Ok(token) } else { Err(JoinTokenError::Checksum) }
    }

    /// The text to hand to the joiner. Shown once, by the command that made the token.
    pub fn reveal(&self) -> String {
        let bytes = [self.secret.expose().as_slice(), &self.checksum()].concat();
        format!("{SECRET_PREFIX}{}:{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase(), HEXLOWER.encode(&self.pin.0))
    }

    /// The authority that this token pins.
    pub const fn pin(&self) -> AuthorityId {
        self.pin
    }

    /// The key that signs the enrollment.
    pub fn key(&self) -> SecretKey {
        SecretKey::from_seed(Secret::new(blake3::derive_key("countersign v1 join token key", self.secret.expose())))
    }

    /// The token's id, which reveals nothing.
    pub fn id(&self) -> TokenId {
        token_id(self.key().public())
    }

    fn checksum(&self) -> [u8; CHECKSUM_LEN] {
        let mut hasher = blake3::Hasher::new_derive_key("countersign v1 join token checksum");
        hasher.update(self.secret.expose()).update(&self.pin.0);
        let mut checksum = [0; CHECKSUM_LEN];
        hasher.finalize_xof().fill(&mut checksum);
        checksum
    }
}

/// The id of the token whose public half is `verifier`.
pub fn token_id(verifier: PublicKey) -> TokenId {
    let mut id = [0; 8];
    blake3::Hasher::new_derive_key("countersign v1 join token id").update(&verifier.0).finalize_xof().fill(&mut id);
    TokenId(id)
}

/// What the state keeps of a token. Suffrage, role, attributes and name come from here, not from the joiner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The public half of the token's key.
    pub verifier: PublicKey,
    /// The authority that the token pins.
    pub pin: AuthorityId,
    /// What its joiners become.
    pub suffrage: Suffrage,
    /// How often it could be used when it was made.
    pub uses: u32,
    /// Uses left.
    pub uses_left: u32,
    /// The last moment at which it may be used.
    pub not_after: UnixMillis,
    /// The only name that it admits, if any.
    pub name: Option<Name>,
    /// Hosts that the certificates of its joiners may hold, if they advertise them.
    pub hosts: Vec<Host>,
    /// The role that it gives.
    pub role: Option<String>,
    /// The attributes that it gives.
    pub attributes: Attributes,
    /// Revoked by an admin, or by the eviction of a member that it admitted.
    pub revoked: bool,
    /// The one made at bootstrap, which `token rotate` replaces.
    pub cluster_token: bool,
}

/// A token on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What it gives, and how often still.
    pub record: TokenRecord,
    /// Who made it, and when.
    pub made: Made,
}

/// Why a token is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum TokenUnusable {
    /// Not on record.
    #[error("join token is not known to this cluster")]
    Unknown,
    /// Past its time.
    #[error("join token has expired")]
    Expired,
    /// No uses left.
    #[error("join token has no uses left")]
    UsedUp,
    /// Revoked.
    #[error("join token was revoked")]
    Revoked,
    /// Its authority is no longer trusted.
    #[error("join token pins an authority that is no longer trusted")]
    Authority,
}

impl TokenRecord {
    /// Whether one more use is allowed at `now`.
    pub const fn usable(&self, now: UnixMillis) -> Result<(), TokenUnusable> {
        if self.revoked {
            return Err(TokenUnusable::Revoked);
        }
        if now.0 > self.not_after.0 {
            return Err(TokenUnusable::Expired);
        }
        if self.uses_left == 0 {
            return Err(TokenUnusable::UsedUp);
        }
        Ok(())
    }
}

impl fmt::Display for TokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {} uses left)", token_id(self.verifier), self.suffrage, self.uses_left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(Secret::new([7; 32]), AuthorityId([9; 32]))
    }

    #[test]
    fn a_token_round_trips() {
        let parsed = JoinToken::parse(&format!("  {}\n", token().reveal())).unwrap();
        assert_eq!((parsed.id(), parsed.pin()), (token().id(), token().pin()));
    }

    #[test]
    fn every_single_character_typo_is_caught_before_any_network() {
        let text = token().reveal();
        for at in 0..text.len() {
            for other in ["a", "7", "z", "0", ""] {
                let mut typo = text.clone();
                typo.replace_range(at..=at, other);
                if typo != text {
                    assert!(JoinToken::parse(&typo).is_err(), "{typo}");
                }
            }
        }
    }

    #[test]
    fn debug_and_errors_hide_the_secret() {
        let text = token().reveal();
        let secret = text.split(':').next().unwrap().trim_start_matches(SECRET_PREFIX);
        assert!(!format!("{:?}", token()).contains(secret));
        for broken in [secret.to_owned(), format!("{secret}:aa"), format!("x{text}"), format!("{text}0")] {
            let error = JoinToken::parse(&broken).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret.get(..12).unwrap()));
        }
    }
}
