//! What clients of HTTP/2 may do wrong, and what RFC 9113 or RFC 7541 has a server answer.

#![allow(dead_code, unreachable_pub)]

pub mod floods;
pub mod frames;
pub mod requests;

use super::raw::http2::{END_HEADERS, END_STREAM, HEADERS, block, frame, named};

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const COMPRESSION_ERROR: u32 = 9;

/// What the RFC has the server do.
#[derive(Clone, Copy)]
pub enum Wanted {
    /// End the connection with this code.
    Connection(u32),
    /// Reset the stream with this code, or end the connection with it (RFC 9113 section 5.4).
    Stream(u32),
    /// Refuse the request: reset its stream with PROTOCOL_ERROR, also after an answer of 400 to 499 (section 8.1.1).
    Malformed,
    /// Answer with an error of 400 to 499, or refuse the request as malformed.
    Refused,
    /// Take it as if it were not there.
    Ignored,
    /// Stay alive: no answer is prescribed.
    Bounded,
}

impl Wanted {
    /// In words.
    pub fn say(self) -> String {
        match self {
            Self::Connection(code) => format!("GOAWAY {}", named(code)),
            Self::Stream(code) => format!("RST_STREAM {}", named(code)),
            Self::Malformed => "RST_STREAM PROTOCOL_ERROR".to_owned(),
            Self::Refused => "a refusal".to_owned(),
            Self::Ignored => "nothing".to_owned(),
            Self::Bounded => "a bound, or nothing".to_owned(),
        }
    }
}

/// Bytes after a preface.
pub struct Case {
    /// The section of RFC 9113, or another source.
    pub source: &'static str,
    pub what: &'static str,
    pub bytes: Vec<u8>,
    pub wanted: Wanted,
    /// The stream whose end is waited for.
    pub stream: Option<u32>,
    /// Whether an honest request follows; none can follow an open header block.
    pub goes_on: bool,
    /// The request's head is good, or several are: the app may see it.
    pub reaches: bool,
}

impl Case {
    pub fn new(source: &'static str, what: &'static str, wanted: Wanted, bytes: Vec<u8>) -> Self {
        Self { source, what, bytes, wanted, stream: None, goes_on: true, reaches: false }
    }

    /// What becomes of this stream is the verdict.
    pub fn on(self, stream: u32) -> Self {
        Self { stream: Some(stream), ..self }
    }

    pub fn cut(self) -> Self {
        Self { goes_on: false, ..self }
    }

    pub fn reaching(self) -> Self {
        Self { reaches: true, ..self }
    }
}

/// The authority of the port.
pub struct Host<'a>(pub &'a str);

impl Host<'_> {
    /// A header block with these in place of the usual fields, or beside them; one without a value goes.
    pub fn block(&self, changed: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
        let usual: [(&str, &[u8]); 4] =
            [(":method", b"GET"), (":scheme", b"https"), (":authority", self.0.as_bytes()), (":path", b"/page")];
        let of = |name: &str| changed.iter().find(|(changed, _)| *changed == name);
        let mut fields = Vec::new();
        for (name, value) in usual {
            fields.extend(of(name).map_or(Some(value), |(_, value)| *value).map(|value| (name, value)));
        }
        let others = changed.iter().filter(|(name, _)| usual.iter().all(|(usual, _)| usual != name));
        let (pseudo, rest): (Vec<_>, Vec<_>) = others.partition(|(name, _)| name.starts_with(':'));
        fields.extend(pseudo.iter().chain(&rest).map(|(name, value)| (*name, value.unwrap())));
        block(&fields)
    }

    /// A request without a body.
    pub fn get(&self, stream: u32, changed: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &self.block(changed))
    }

    /// A request with a body, which is to follow.
    pub fn post(&self, stream: u32, changed: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
        let usual: [(&str, Option<&[u8]>); 2] = [(":method", Some(b"POST")), (":path", Some(b"/free/echo"))];
        let changed = [changed, &usual[..]].concat();
        frame(HEADERS, END_HEADERS, stream, &self.block(&changed))
    }

    /// A request that is answered and reaches no app.
    pub fn trace(&self, stream: u32) -> Vec<u8> {
        self.get(stream, &[(":method", Some(b"TRACE"))])
    }
}
