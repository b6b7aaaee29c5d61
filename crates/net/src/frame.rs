//! The acceptor's first frame: in TLS 1.3 a dialer's handshake succeeds before the acceptor has looked at its
//! certificate, so only this frame tells it that it is connected. It comes before any other byte, in either direction.
//!
//! Twelve bytes: version, kind, code (u16), then the generation (u64) or the failure id. All big-endian.

use countersign_core::id::{FailureId, Generation};
use countersign_core::peer::Refusal;

/// Bytes of the frame.
pub const FRAME_LEN: usize = 12;

const VERSION: u8 = 1;
const WELCOME: u8 = 1;
const REFUSED: u8 = 2;

/// The acceptor's answer to a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstFrame {
    /// Judged and accepted.
    Welcome {
        /// The generation of the acceptor's view; 0 for an unauthenticated caller, which it does not concern.
        generation: Generation,
    },
    /// Judged and refused; the connection ends.
    Refused {
        /// Why.
        code: RefusalCode,
        /// The attempt, as the acceptor logged it.
        failure_id: FailureId,
    },
}

/// The number of a refusal; a newer acceptor may send one that this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCode(pub u16);

/// Where the refusals begin among the application error codes of a QUIC connection (RFC 9000 §20.2). Codes below it
/// are no refusals: 0 ends a connection or a stream that is done.
const CLOSE_BASE: u32 = 0x100;

impl RefusalCode {
    /// The refusal, if this build knows it.
    pub fn refusal(self) -> Option<Refusal> {
        Refusal::from_code(self.0)
    }

    /// The application error code that says it when a QUIC connection or stream ends: 0x100 and the number.
    pub const fn close_code(self) -> u32 {
        CLOSE_BASE + self.0 as u32
    }

    /// The refusal that an application error code says; none if the code is not of a refusal.
    pub fn of_close(code: u64) -> Option<Self> {
        let number = u16::try_from(code.checked_sub(CLOSE_BASE.into())?).ok()?;
        (number != 0).then_some(Self(number))
    }
}

impl From<Refusal> for RefusalCode {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.code())
    }
}

impl core::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.refusal() {
            Some(refusal) => refusal.fmt(f),
            None => write!(f, "refusal number {}", self.0),
        }
    }
}

/// The bytes are no first frame: the other end speaks something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version of the frame.
    #[error("first frame has version {got}, expected {VERSION}")]
    Version {
        /// The version found.
        got: u8,
    },
    /// It is no welcome and no refusal, or a field that must be zero is not.
    #[error("first frame is malformed")]
    Malformed,
}

impl FirstFrame {
    /// The bytes of the frame.
    pub fn encode(&self) -> [u8; FRAME_LEN] {
        let (kind, code, body) = match self {
            Self::Welcome { generation } => (WELCOME, 0, generation.0.to_be_bytes()),
            Self::Refused { code, failure_id } => (REFUSED, code.0, failure_id.0),
        };
        let [c0, c1] = code.to_be_bytes();
        let [b0, b1, b2, b3, b4, b5, b6, b7] = body;
        [VERSION, kind, c0, c1, b0, b1, b2, b3, b4, b5, b6, b7]
    }

    /// Reads exactly what `encode` writes.
    pub fn decode(bytes: &[u8; FRAME_LEN]) -> Result<Self, FrameError> {
        let [version, kind, c0, c1, body @ ..] = *bytes;
        if version != VERSION {
            return Err(FrameError::Version { got: version });
        }
        let code = u16::from_be_bytes([c0, c1]);
        match (kind, code) {
            (WELCOME, 0) => Ok(Self::Welcome { generation: Generation(u64::from_be_bytes(body)) }),
            (REFUSED, 1..) => Ok(Self::Refused { code: RefusalCode(code), failure_id: FailureId(body) }),
            _ => Err(FrameError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_these() {
        let welcome = FirstFrame::Welcome { generation: Generation(0x0102_0304_0506_0708) };
        assert_eq!(welcome.encode(), [1, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let refused =
            FirstFrame::Refused { code: Refusal::Evicted.into(), failure_id: FailureId([9, 8, 7, 6, 5, 4, 3, 2]) };
        assert_eq!(refused.encode(), [1, 2, 0, 7, 9, 8, 7, 6, 5, 4, 3, 2]);
        for frame in [welcome, refused] {
            assert_eq!(FirstFrame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn every_refusal_survives_the_wire() {
        for refusal in Refusal::ALL {
            assert_eq!(RefusalCode::from(refusal).refusal(), Some(refusal));
        }
        assert_eq!(RefusalCode(9999).to_string(), "refusal number 9999");
    }

    #[test]
    fn every_refusal_survives_as_close_code_and_other_codes_are_none() {
        for refusal in Refusal::ALL {
            let code = RefusalCode::from(refusal);
            assert_eq!(RefusalCode::of_close(code.close_code().into()), Some(code));
        }
        assert_eq!(RefusalCode::from(Refusal::KeyRevoked).close_code(), 0x106);
        assert_eq!(RefusalCode::of_close(0x100 + 0xffff), Some(RefusalCode(0xffff)));
        for none in [0, 0xff, 0x100, 0x100 + 0x1_0000, u64::MAX] {
            assert_eq!(RefusalCode::of_close(none), None, "{none:#x}");
        }
    }

    #[test]
    fn anything_else_is_no_first_frame() {
        for (bytes, expected) in [
            ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], FrameError::Version { got: 0 }),
            (*b"HTTP/1.1 400", FrameError::Version { got: b'H' }),
            ([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], FrameError::Malformed),
            ([1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], FrameError::Malformed),
            ([1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], FrameError::Malformed),
            ([1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], FrameError::Malformed),
        ] {
            assert_eq!(FirstFrame::decode(&bytes), Err(expected), "{bytes:?}");
        }
    }
}
