//! HTTP/2 by hand (RFC 9113): frames and header blocks, whole or broken, and what a server sends back.

use std::collections::BTreeMap;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;

/// Names of the error codes 0 to 13 (RFC 9113 section 7).
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, and settings that keep the server's header blocks free of references (RFC 7541 section 4.2).
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])[..]].concat()
}

/// A header block of literals without an index (RFC 7541 section 6.2.2), each at most 126 bytes long.
pub fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    let field = |(name, value): &(&str, &[u8])| [&[0], &text(name.as_bytes())[..], &text(value)].concat();
    assert!(fields.iter().all(|(name, value)| name.len().max(value.len()) < 127));
    fields.iter().flat_map(field).collect()
}

/// A call of a gRPC method with an empty message, on stream 1 after a preface.
pub fn call(authority: &str, path: &str) -> Vec<u8> {
    let fields: [(&str, &[u8]); 6] = [
        (":method", b"POST"),
        (":scheme", b"https"),
        (":authority", authority.as_bytes()),
        (":path", path.as_bytes()),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
    ];
    let head = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    [preface(), head, frame(DATA, END_STREAM, 1, &[0; 5])].concat()
}

/// What became of a stream.
#[derive(Debug, Default, Clone)]
pub struct Stream {
    pub status: Option<u16>,
    /// Bytes of DATA.
    pub body: usize,
    pub ended: bool,
    pub reset: Option<u32>,
}

/// What a server sent.
#[derive(Debug, Default)]
pub struct Sent {
    pub streams: BTreeMap<u32, Stream>,
    /// The code of the last GOAWAY.
    pub goaway: Option<u32>,
    pub ping_acks: usize,
    /// The connection has ended.
    pub ended: bool,
    pub settings: usize,
    pub settings_acks: usize,
}

impl Sent {
    /// Reads whole frames; the rest waits.
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut sent = Self::default();
        while bytes.len() >= 9 {
            let len = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
            let (kind, flags) = (bytes[3], bytes[4]);
            let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
            let Some(payload) = bytes.get(9..9 + len) else { break };
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match kind {
                DATA => sent.streams.entry(stream).or_default().body += len,
                HEADERS => _ = sent.streams.entry(stream).or_default().status.get_or_insert_with(|| status(payload)),
                RST_STREAM => sent.streams.entry(stream).or_default().reset = Some(code(0)),
                SETTINGS if flags & ACK == 0 => sent.settings += 1,
                SETTINGS => sent.settings_acks += 1,
                PING => sent.ping_acks += usize::from(flags & ACK),
                GOAWAY => sent.goaway = Some(code(4)),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                sent.streams.entry(stream).or_default().ended = true;
            }
            bytes = &bytes[9 + len..];
        }
        sent
    }

    /// Whether the server has done with a stream.
    pub fn is_done(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.ended || stream.reset.is_some())
    }

    /// What became of a stream, in words.
    pub fn of(&self, stream: u32) -> String {
        let Some(Stream { status, body, ended, reset }) = self.streams.get(&stream) else { return "nothing".into() };
        let status =
            status.map(|status| format!("{status}{}", if *body > 0 { " with a body" } else { " without a body" }));
        let reset = reset.map(|code| format!("RST_STREAM {}", named(code)));
        let open = (!ended && reset.is_none()).then(|| "goes on".to_owned());
        status.into_iter().chain(reset).chain(open).collect::<Vec<_>>().join(", ")
    }
}

pub fn named(code: u32) -> &'static str {
    CODES.get(code as usize).copied().unwrap_or("an unknown code")
}

/// The status of a header block that begins with it, as every server's does (RFC 9113 section 8.3).
fn status(mut block: &[u8]) -> u16 {
    // A change of the table's size (RFC 7541 section 6.3).
    while block[0] & 0xe0 == 0x20 {
        block = &block[1..];
    }
    match block[0] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        // A literal whose name is `:status`.
        0x48 | 0x08 | 0x18 => {
            let (len, text) = (usize::from(block[1] & 0x7f), &block[2..]);
            let digits = if block[1] & 0x80 == 0 { text[..len].to_vec() } else { digits(&text[..len]) };
            String::from_utf8(digits).unwrap().parse().unwrap()
        }
        other => panic!("{other:#x} begins no status"),
    }
}

/// Three digits in Huffman's code (RFC 7541 appendix B): 0 to 2 have five bits, the others six.
fn digits(coded: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0, |value, bit| value << 1 | bit);
    let (mut at, mut digits) = (0, Vec::new());
    while digits.len() < 3 {
        let five = value(&bits[at..at + 5]);
        let (digit, len) = if five < 3 { (five, 5) } else { (value(&bits[at..at + 6]) - 0b01_1001 + 3, 6) };
        digits.push(b'0' + digit);
        at += len;
    }
    digits
}
