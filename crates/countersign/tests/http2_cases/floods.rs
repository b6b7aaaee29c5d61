//! Much of what is cheap to send, or costs the server more than the client.

use super::super::raw::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    frame,
};
use super::Wanted::Bounded;
use super::{Case, Host};

/// More than any limit of a number.
const MANY: u32 = 20_000;

/// The numbers of `MANY` streams.
fn streams() -> impl Iterator<Item = u32> {
    (0..MANY).map(|at| 1 + 2 * at)
}

pub fn cases(host: &Host<'_>) -> Vec<Case> {
    [blocks(host), resets(host), small(host)].into_iter().flatten().collect()
}

/// Long header blocks.
fn blocks(host: &Host<'_>) -> Vec<Case> {
    let head = host.block(&[]);
    let long: Vec<u8> = (0..200).flat_map(|_| block(&[("x-a", &[b'x'; 100])])).collect();
    let endless = |piece: &[u8]| {
        [frame(HEADERS, END_STREAM, 1, &head), frame(CONTINUATION, 0, 1, piece).repeat(MANY as usize)].concat()
    };
    let over = [frame(HEADERS, END_STREAM, 1, &head), frame(CONTINUATION, 0, 1, &long[..9_000])];
    let over = [over.concat(), frame(CONTINUATION, END_HEADERS, 1, &long[9_000..])].concat();
    // One field of 4,000 bytes put into the table (RFC 7541 section 6.2.1), and then 4,000 references to it.
    let literal = [&[0x40, 3][..], b"x-a", &[0x7f, 0xa1, 0x1e], &[b'x'; 4_000]].concat();
    let bomb = [head.clone(), literal, vec![0xbe; 4_000]].concat();
    vec![
        Case::new("CVE-2024-27316", "CONTINUATION without an end", Bounded, endless(&long[..1_060])).cut(),
        Case::new("CVE-2024-27316", "empty CONTINUATION without an end", Bounded, endless(&[])).cut(),
        Case::new("6.5.2", "20,000 bytes of fields", Bounded, over).on(1),
        Case::new("10.5.1", "16,000,000 bytes of fields in 8,000", Bounded, frame(HEADERS, 5, 1, &bomb)).on(1),
    ]
}

/// Streams that end as soon as they have begun.
fn resets(host: &Host<'_>) -> Vec<Case> {
    let cancel = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let silent: &[(&str, Option<&[u8]>)] = &[(":path", Some(b"/free/silent"))];
    let case = |source, what, bytes: Vec<u8>| Case::new(source, what, Bounded, bytes).reaching();
    let rapid = streams().flat_map(|stream| [host.get(stream, silent), cancel(stream)].concat()).collect();
    let overflow = |stream| frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
    let made = streams().flat_map(|stream| [host.post(stream, silent), overflow(stream)].concat()).collect();
    let closed = |stream| frame(DATA, 0, stream, b"x");
    let after = streams().flat_map(|stream| [host.get(stream, silent), closed(stream)].concat()).collect();
    let malformed = streams().flat_map(|stream| host.get(stream, &[("connection", Some(b"close"))])).collect();
    let refused = streams().flat_map(|stream| host.get(stream, silent)).collect();
    vec![
        case("CVE-2023-44487", "HEADERS and RST_STREAM", rapid),
        case("CVE-2025-8671", "HEADERS and a window that overflows", made),
        case("CVE-2025-8671", "HEADERS and DATA after END_STREAM", after),
        case("CVE-2025-8671", "malformed HEADERS", malformed),
        case("10.5", "HEADERS of more streams than allowed", refused),
    ]
}

/// Frames that cost nothing.
fn small(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, bytes: &[u8]| Case::new(source, what, Bounded, bytes.repeat(MANY as usize));
    let to_silent = |case: Case| Case {
        bytes: [host.post(1, &[(":path", Some(b"/free/silent"))]), case.bytes].concat(),
        reaches: true,
        ..case
    };
    vec![
        case("CVE-2019-9512", "PING", &frame(PING, 0, 0, &[0; 8])),
        case("CVE-2019-9515", "SETTINGS", &frame(SETTINGS, 0, 0, &[])),
        case("CVE-2019-9513", "PRIORITY", &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        case("10.5", "an unknown frame", &frame(0x77, 0, 0, b"x")),
        case("10.5", "WINDOW_UPDATE by 1", &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        to_silent(case("CVE-2019-9518", "DATA of no bytes", &frame(DATA, 0, 1, &[]))),
        to_silent(case("10.5", "DATA of one byte", &frame(DATA, 0, 1, b"x"))),
        to_silent(case("10.5", "DATA of padding alone", &frame(DATA, 8, 1, &[0]))),
    ]
}
