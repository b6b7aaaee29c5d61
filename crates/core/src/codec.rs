//! The one encoding of what is replicated and stored: postcard behind a version byte.
//!
//! Maps are ordered, so equal values have equal bytes. Decoding is strict: a version that is not known,
//! or bytes left over, is an error, never a guess.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this build writes and the only one it reads.
pub const VERSION: u8 = 1;

/// Why bytes could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("no bytes")]
    Empty,
    /// Written by another version.
    #[error("encoding version {got} is not known, expected {VERSION}: update this binary")]
    Version {
        /// The version found.
        got: u8,
    },
    /// Bytes remain after the value.
    #[error("{got} bytes left over")]
    Trailing {
        /// How many.
        got: usize,
    },
    /// The bytes are not such a value.
    #[error("malformed: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Encodes a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(postcard::to_extend(value, vec![VERSION])?)
}

/// Decodes exactly one value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version { got: version });
    }
    let (value, rest) = postcard::take_from_bytes(rest)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing { got: rest.len() }) }
}

/// Decodes the value that bytes begin with, whatever follows: how a value of a later version is recognized.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version { got: version });
    }
    Ok(postcard::take_from_bytes(rest)?.0)
}

/// Serde for `[u8; 64]`, which serde itself leaves out.
pub mod bytes64 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes 64 bytes as two halves.
    pub fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        let (a, b) = bytes.split_at(32);
        (<[u8; 32]>::try_from(a).unwrap_or_default(), <[u8; 32]>::try_from(b).unwrap_or_default()).serialize(serializer)
    }

    /// Reads 64 bytes from two halves.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let (a, b) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        [a, b].concat().try_into().map_err(|_| D::Error::custom("expected 64 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_is_strict() {
        let bytes = encode(&(7u32, "x")).unwrap();
        assert_eq!(decode::<(u32, String)>(&bytes), Ok((7, "x".to_owned())));
        assert_eq!(decode::<u32>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<u32>(&[2, 7]), Err(CodecError::Version { got: 2 }));
        assert_eq!(decode::<u32>(&[1, 7, 0]), Err(CodecError::Trailing { got: 1 }));
        assert!(matches!(decode::<u32>(&[1]), Err(CodecError::Malformed(_))));
    }
}
