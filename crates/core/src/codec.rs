//! The one encoding of replicated, stored and sent values: postcard behind a version byte and a level.
//!
//! Maps are ordered, so equal values have equal bytes. Decoding is strict: a version that is not known, a level above
//! what the reader knows, or bytes left over, is an error, never a guess. The level stands before the value, so a
//! reader that cannot decode the value still learns which level it needs.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the encoding itself. This build reads no other: earlier builds wrote values without a level.
pub const VERSION: u8 = 2;

/// The level of a value whose shape has never changed.
pub const FIRST_LEVEL: u32 = 1;

/// Why bytes could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("no bytes")]
    Empty,
    /// Written by another version.
    #[error("encoding version {got} is not known, expected {VERSION}: it was written by another build")]
    Version {
        /// The version found.
        got: u8,
    },
    /// Written at a level that the reader does not know.
    #[error("unsupported level {needed}, at most {known} is known")]
    Level {
        /// The level that the value needs.
        needed: u32,
        /// The newest level that the reader knows.
        known: u32,
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

/// Encodes a value whose shape has never changed.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_at(FIRST_LEVEL, value)
}

/// Encodes a value that needs `level` to be understood.
pub fn encode_at<T: Serialize + ?Sized>(level: u32, value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_extend(&level, vec![VERSION])?;
    Ok(postcard::to_extend(value, bytes)?)
}

/// Decodes exactly one value whose shape has never changed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (level, rest) = level_of(bytes)?;
    if level != FIRST_LEVEL {
        return Err(CodecError::Level { needed: level, known: FIRST_LEVEL });
    }
    exactly(rest)
}

/// The level of an encoded value, and its bytes, if `known` levels are enough for it.
pub fn up_to(known: u32, bytes: &[u8]) -> Result<(u32, &[u8]), CodecError> {
    let (level, rest) = level_of(bytes)?;
    if level > known { Err(CodecError::Level { needed: level, known }) } else { Ok((level, rest)) }
}

/// Decodes exactly one value that is encoded without a version, as [`up_to`] returns it.
pub fn exactly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = take(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing { got: rest.len() }) }
}

/// Decodes the value that `bytes` begin with. Returns what follows it: the fields that a later level added.
pub fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    Ok(postcard::take_from_bytes(bytes)?)
}

/// The bytes of a field that a later level added, to stand after what stood there before.
pub fn appended<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(postcard::to_allocvec(value)?)
}

/// The value of fields that a later level adds, where there are none yet.
pub fn nothing<T: Default>(rest: &[u8]) -> Result<T, CodecError> {
    if rest.is_empty() { Ok(T::default()) } else { Err(CodecError::Trailing { got: rest.len() }) }
}

/// The level that stands before a value.
fn level_of(bytes: &[u8]) -> Result<(u32, &[u8]), CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version { got: version });
    }
    take(rest)
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
        for got in [0, 1, 3, 255] {
            assert_eq!(decode::<u32>(&[got, 1, 7]), Err(CodecError::Version { got }));
        }
        assert_eq!(decode::<u32>(&[2, 1, 7, 0]), Err(CodecError::Trailing { got: 1 }));
        assert!(matches!(decode::<u32>(&[2, 1]), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<u32>(&[2]), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn level_is_known_before_the_value_is_read() {
        for needed in [2, 3, u32::MAX] {
            let bytes = encode_at(needed, &7_u32).unwrap();
            let unknown = Err(CodecError::Level { needed, known: 1 });
            assert_eq!(decode::<u32>(&bytes), unknown);
            assert_eq!(decode::<Vec<String>>(&bytes), Err(CodecError::Level { needed, known: 1 }));
            assert_eq!(up_to(needed - 1, &bytes).unwrap_err(), CodecError::Level { needed, known: needed - 1 });
            assert_eq!(up_to(needed, &bytes).map(|(level, rest)| (level, exactly(rest))), Ok((needed, Ok(7_u32))));
        }
        // There is no level before the first.
        assert!(matches!(decode::<u32>(&encode_at(0, &7_u32).unwrap()), Err(CodecError::Level { needed: 0, .. })));
    }
}
