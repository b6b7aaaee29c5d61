//! The only holders of secret bytes: no `Clone`, no `Serialize`, no `PartialEq`, nothing shown by `Debug`, wiped on
//! drop.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret of `N` bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes ownership of the bytes. The caller's copy, if any, is the caller's to wipe.
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves. Every use of this is a place to look at.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Compares in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(…)")
    }
}

/// A secret of any length, such as a private key in DER.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes ownership of the bytes.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves. Every use of this is a place to look at.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Compares in constant time (the lengths are not hidden).
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let shown = format!("{:?} {:?}", Secret::new([0xAB; 4]), SecretBytes::new(vec![0xAB; 4]));
        assert!(!shown.to_lowercase().contains("ab, ab") && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn secrets_compare_by_content() {
        assert!(Secret::new([7; 32]).ct_eq(&Secret::new([7; 32])));
        assert!(!Secret::new([7; 32]).ct_eq(&Secret::new([8; 32])));
        assert!(!SecretBytes::new(vec![1]).ct_eq(&SecretBytes::new(vec![1, 2])));
    }
}
