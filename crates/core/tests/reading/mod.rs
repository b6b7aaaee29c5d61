//! What can be read can be written, whatever the bytes were.

#![allow(unreachable_pub)]

use countersign_core::codec;
use countersign_core::trust::TrustState;
use countersign_core::trust::command::{FEATURE_LEVEL, LEVEL_FOR_TESTING, Stamped};

/// The same of what carries a level of its own.
pub fn state_and_entry_read_or_refuse(bytes: &[u8]) {
    for known in [FEATURE_LEVEL, LEVEL_FOR_TESTING] {
        if let Ok(state) = TrustState::decode(known, bytes) {
            assert_eq!(TrustState::decode(known, &state.encode().unwrap()).unwrap(), state);
        }
        if let Ok(entry) = Stamped::decode(known, bytes) {
            assert_eq!(Stamped::decode(known, &entry.encode().unwrap()).unwrap(), entry);
        }
    }
}

/// What can be read can be written, and reads the same again.
pub fn reads_or_refuses<T>(bytes: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + core::fmt::Debug,
{
    if let Ok(value) = codec::decode::<T>(bytes) {
        assert_eq!(codec::decode::<T>(&codec::encode(&value).unwrap()).unwrap(), value);
    }
}
