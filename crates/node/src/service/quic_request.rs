//! The bytes of a request over QUIC and of its answer, as the page of the protocol has them. They end when a broker's
//! own protocol takes their place. Nothing is kept of a request beyond its limit.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of an echo.
pub(super) const ECHO_LEN_MAX: u32 = 64 * 1024;

/// What is asked for: the first byte of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who the caller has proven to be.
    Whoami,
    /// The caller's own bytes.
    Echo,
}

/// A whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing more than its kind.
    Whoami,
    /// These bytes again, [`ECHO_LEN_MAX`] at most.
    Echo(Vec<u8>),
}

/// How a request ended: the first byte of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// Answered.
    Ok = 0,
    /// No rule allows it.
    Denied = 1,
    /// The bytes are no request.
    Malformed = 2,
    /// More bytes than are taken.
    TooLarge = 3,
    /// Not now.
    Unavailable = 4,
    /// The caller has as many requests under way as it may.
    Busy = 5,
}

/// An answer: what was asked for, or why not, as UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    /// One with a reason.
    pub(super) fn saying(status: Status, reason: impl Into<String>) -> Self {
        Self { status, bytes: reason.into().into_bytes() }
    }

    fn malformed() -> Self {
        Self::saying(Status::Malformed, "malformed request")
    }

    /// Status, length (u32, big-endian), bytes.
    pub(super) fn encode(self) -> Vec<u8> {
        // No answer is longer than an echo.
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        [&[self.status as u8][..], &len.to_be_bytes(), &self.bytes].concat()
    }
}

/// What was read, or the answer to bytes that are no request.
type Read<T> = io::Result<Result<T, Answer>>;

/// An end within a request makes it malformed; any other error ends the stream.
fn whole<T>(read: io::Result<T>) -> Read<T> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Answer::malformed())),
        Err(error) => Err(error),
    }
}

impl Kind {
    /// Reads one.
    ///
    /// # Errors
    /// The stream has ended by anything but its end.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Read<Self> {
        Ok(match whole(stream.read_u8().await)? {
            Ok(1) => Ok(Self::Whoami),
            Ok(2) => Ok(Self::Echo),
            Ok(_) => Err(Answer::malformed()),
            Err(answer) => Err(answer),
        })
    }

    /// What rules name it by: the caller must be allowed to `write` to this `service`.
    pub(super) const fn service(self) -> &'static str {
        match self {
            Self::Whoami => "countersign.v1.Whoami/Whoami",
            Self::Echo => "countersign.v1.Echo/Echo",
        }
    }
}

impl Asked {
    /// Reads the rest of a request, and no byte after it.
    ///
    /// # Errors
    /// The stream has ended by anything but its end.
    pub(super) async fn read(kind: Kind, stream: &mut (impl AsyncRead + Unpin)) -> Read<Self> {
        match kind {
            Kind::Whoami => Ok(Ok(Self::Whoami)),
            Kind::Echo => {
                let len = match whole(stream.read_u32().await)? {
                    Ok(len) if len <= ECHO_LEN_MAX => len,
                    Ok(len) => {
                        let reason = format!("{len} bytes, expected at most {ECHO_LEN_MAX}");
                        return Ok(Err(Answer::saying(Status::TooLarge, reason)));
                    }
                    Err(answer) => return Ok(Err(answer)),
                };
                // Not allocated before they come.
                let mut bytes = Vec::new();
                stream.take(len.into()).read_to_end(&mut bytes).await?;
                let is_whole = bytes.len() == len as usize;
                Ok(if is_whole { Ok(Self::Echo(bytes)) } else { Err(Answer::malformed()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut bytes: &[u8]) -> (Result<Asked, Answer>, usize) {
        let asked = match Kind::read(&mut bytes).await.unwrap() {
            Ok(kind) => Asked::read(kind, &mut bytes).await.unwrap(),
            Err(answer) => Err(answer),
        };
        (asked, bytes.len())
    }

    fn echo(len: u32, bytes: &[u8]) -> Vec<u8> {
        [&[2][..], &len.to_be_bytes(), bytes].concat()
    }

    #[tokio::test]
    async fn requests_are_read_to_their_last_byte_and_no_further() {
        let longest = vec![7; ECHO_LEN_MAX as usize];
        for (bytes, expected) in [
            (vec![1], Asked::Whoami),
            (echo(0, b""), Asked::Echo(vec![])),
            (echo(3, b"abc"), Asked::Echo(b"abc".to_vec())),
            (echo(ECHO_LEN_MAX, &longest), Asked::Echo(longest.clone())),
        ] {
            assert_eq!(read(&bytes).await, (Ok(expected.clone()), 0));
            assert_eq!(read(&[&bytes[..], b"more"].concat()).await, (Ok(expected), 4));
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_request_are_answered_with_a_status() {
        let longest = vec![7; ECHO_LEN_MAX as usize];
        for (bytes, expected) in [
            (vec![], Status::Malformed),
            (vec![0], Status::Malformed),
            (vec![3, 0, 0, 0, 0], Status::Malformed),
            (vec![2], Status::Malformed),
            (vec![2, 0, 0, 0], Status::Malformed),
            (echo(3, b"ab"), Status::Malformed),
            (echo(ECHO_LEN_MAX, &longest[1..]), Status::Malformed),
            (echo(ECHO_LEN_MAX + 1, &longest), Status::TooLarge),
            (echo(u32::MAX, b""), Status::TooLarge),
        ] {
            assert_eq!(read(&bytes).await.0.unwrap_err().status, expected, "{:?}", bytes.get(..8));
        }
    }

    #[test]
    fn answers_have_these_bytes() {
        let numbers =
            [Status::Ok, Status::Denied, Status::Malformed, Status::TooLarge, Status::Unavailable, Status::Busy];
        for (number, status) in numbers.into_iter().enumerate() {
            let answer = Answer::saying(status, "why");
            assert_eq!(answer.encode(), [&[number as u8, 0, 0, 0, 3][..], b"why"].concat());
        }
    }
}
