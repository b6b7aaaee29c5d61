//! Frames that are wrong by themselves, or where they stand.

use countersign_core::limits::CLIENT_STREAMS_MAX;

use super::super::raw::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, frame,
};
use super::Wanted::{Connection, Ignored, Stream};
use super::{
    COMPRESSION_ERROR, Case, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, Host, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED,
};

/// An identifier of a setting and its value.
fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

const GREATEST: u32 = (1 << 31) - 1;

pub fn cases(host: &Host<'_>) -> Vec<Case> {
    [settings(), numbers(host), lengths(host), windows(host), blocks(host), compression(host)]
        .into_iter()
        .flatten()
        .collect()
}

fn settings() -> Vec<Case> {
    let case = |source, what, wanted, bytes| Case::new(source, what, wanted, bytes);
    vec![
        case("6.5", "SETTINGS with ACK and a payload", Connection(FRAME_SIZE_ERROR), frame(SETTINGS, ACK, 0, &[0; 6])),
        case("6.5", "SETTINGS of 5 bytes", Connection(FRAME_SIZE_ERROR), frame(SETTINGS, 0, 0, &[0; 5])),
        case("6.5", "SETTINGS on stream 1", Connection(PROTOCOL_ERROR), frame(SETTINGS, 0, 1, &[])),
        case("6.5.2", "ENABLE_PUSH of 2", Connection(PROTOCOL_ERROR), setting(2, 2)),
        case("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", Connection(FLOW_CONTROL_ERROR), setting(4, 1 << 31)),
        case("6.5.2", "MAX_FRAME_SIZE of 2^14 - 1", Connection(PROTOCOL_ERROR), setting(5, (1 << 14) - 1)),
        case("6.5.2", "MAX_FRAME_SIZE of 2^24", Connection(PROTOCOL_ERROR), setting(5, 1 << 24)),
        case("6.5.2", "an unknown setting", Ignored, setting(0x7777, 7)),
    ]
}

fn numbers(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, wanted, bytes| Case::new(source, what, wanted, bytes);
    let closed = |bytes: &[u8]| [&host.get(1, &[(":path", Some(b"/free/silent"))])[..], bytes].concat();
    let mut streams: Vec<u8> =
        (0..CLIENT_STREAMS_MAX).flat_map(|at| host.get(1 + 2 * at, &[(":path", Some(b"/free/silent"))])).collect();
    streams.extend(host.get(2 * CLIENT_STREAMS_MAX + 1, &[]));
    vec![
        case("6.1", "DATA on stream 0", Connection(PROTOCOL_ERROR), frame(DATA, 0, 0, b"x")),
        case("6.2", "HEADERS on stream 0", Connection(PROTOCOL_ERROR), host.get(0, &[])),
        case("6.3", "PRIORITY on stream 0", Connection(PROTOCOL_ERROR), frame(PRIORITY, 0, 0, &[0, 0, 0, 5, 1])),
        case("6.4", "RST_STREAM on stream 0", Connection(PROTOCOL_ERROR), frame(RST_STREAM, 0, 0, &[0; 4])),
        case("6.7", "PING on stream 1", Connection(PROTOCOL_ERROR), frame(PING, 0, 1, &[0; 8])),
        case("6.8", "GOAWAY on stream 1", Connection(PROTOCOL_ERROR), frame(GOAWAY, 0, 1, &[0; 8])),
        case("6.10", "CONTINUATION on stream 0", Connection(PROTOCOL_ERROR), frame(CONTINUATION, 4, 0, &[])),
        case("5.1", "DATA on an idle stream", Connection(PROTOCOL_ERROR), frame(DATA, 0, 1, b"x")),
        case("5.1", "RST_STREAM on an idle stream", Connection(PROTOCOL_ERROR), frame(RST_STREAM, 0, 1, &[0; 4])),
        case("5.1", "WINDOW_UPDATE on an idle stream", Connection(PROTOCOL_ERROR), window(1, 1)),
        case("5.1", "DATA after END_STREAM", Stream(STREAM_CLOSED), closed(&frame(DATA, 0, 1, b"x"))).on(1).reaching(),
        case("5.1", "HEADERS after END_STREAM", Stream(STREAM_CLOSED), closed(&host.get(1, &[]))).on(1).reaching(),
        case("5.1.1", "HEADERS on stream 2", Connection(PROTOCOL_ERROR), host.get(2, &[])),
        case(
            "5.1.1",
            "HEADERS on stream 3 after stream 5",
            Connection(PROTOCOL_ERROR),
            [host.trace(5), host.get(3, &[])].concat(),
        ),
        case("5.1.2", "one stream more than allowed", Stream(REFUSED_STREAM), streams)
            .on(2 * CLIENT_STREAMS_MAX + 1)
            .cut()
            .reaching(),
        case(
            "6.6",
            "PUSH_PROMISE",
            Connection(PROTOCOL_ERROR),
            [host.trace(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &host.block(&[])[..]].concat())]
                .concat(),
        ),
        case("5.3.1 of 7540", "PRIORITY on itself", Ignored, frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1])),
        case(
            "5.3.1 of 7540",
            "HEADERS with a priority on itself",
            Stream(PROTOCOL_ERROR),
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 1, 1], &host.block(&[(":method", Some(b"TRACE"))])[..]].concat(),
            ),
        )
        .on(1),
        case("4.1", "an unknown type of frame", Ignored, frame(0x77, 0xff, 1, b"anything")),
        case("4.1", "unknown flags", Ignored, frame(PING, 0xfe, 0, &[0; 8])),
        case("4.1", "the reserved bit of a stream's number", Ignored, frame(PING, 0, 1 << 31, &[0; 8])),
    ]
}

fn lengths(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, wanted, bytes| Case::new(source, what, wanted, bytes);
    let padded = |kind, stream| frame(kind, PADDED | END_HEADERS, stream, &[9, b'x']);
    let long = [host.block(&[]), vec![0; 16_385]].concat();
    let post = |bytes: &[u8]| [&host.post(1, &[])[..], bytes].concat();
    vec![
        case("6.3", "PRIORITY of 4 bytes", Stream(FRAME_SIZE_ERROR), frame(PRIORITY, 0, 1, &[0; 4])),
        case(
            "6.4",
            "RST_STREAM of 3 bytes",
            Connection(FRAME_SIZE_ERROR),
            [host.trace(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        ),
        case("6.7", "PING of 7 bytes", Connection(FRAME_SIZE_ERROR), frame(PING, 0, 0, &[0; 7])),
        case("6.8", "GOAWAY of 7 bytes", Connection(FRAME_SIZE_ERROR), frame(GOAWAY, 0, 0, &[0; 7])),
        case("6.9", "WINDOW_UPDATE of 3 bytes", Connection(FRAME_SIZE_ERROR), frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        case("4.2", "DATA of 2^14 + 1 bytes", Stream(FRAME_SIZE_ERROR), post(&frame(DATA, 0, 1, &[0; 16_385])))
            .on(1)
            .reaching(),
        case("4.2", "HEADERS of more than 2^14 bytes", Connection(FRAME_SIZE_ERROR), frame(HEADERS, 5, 1, &long)),
        case("6.1", "DATA with more padding than bytes", Connection(PROTOCOL_ERROR), post(&padded(DATA, 1))).reaching(),
        case("6.2", "HEADERS with more padding than bytes", Connection(PROTOCOL_ERROR), padded(HEADERS, 1)),
    ]
}

fn windows(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, wanted, bytes| Case::new(source, what, wanted, bytes);
    let silent = |bytes: &[u8]| [&host.post(1, &[(":path", Some(b"/free/silent"))])[..], bytes].concat();
    let more = frame(DATA, 0, 1, &[0; 16_384]).repeat(17);
    vec![
        case("6.9", "WINDOW_UPDATE by 0", Connection(PROTOCOL_ERROR), window(0, 0)),
        case("6.9", "WINDOW_UPDATE of a stream by 0", Stream(PROTOCOL_ERROR), silent(&window(1, 0))).on(1).reaching(),
        case("6.9.1", "a window above 2^31 - 1", Connection(FLOW_CONTROL_ERROR), window(0, GREATEST)),
        case("6.9.1", "a window of a stream above 2^31 - 1", Stream(FLOW_CONTROL_ERROR), silent(&window(1, GREATEST)))
            .on(1)
            .reaching(),
        case(
            "6.9.2",
            "settings that make a window larger than 2^31 - 1",
            Connection(FLOW_CONTROL_ERROR),
            silent(&[window(1, GREATEST - 65_535), setting(4, 65_536)].concat()),
        )
        .reaching(),
        case("6.9", "more DATA than the window of a stream", Stream(FLOW_CONTROL_ERROR), silent(&more))
            .on(1)
            .reaching(),
    ]
}

/// Header blocks in several frames.
fn blocks(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, bytes| Case::new(source, what, Connection(PROTOCOL_ERROR), bytes);
    let head = host.block(&[]);
    let (first, rest) = head.split_at(9);
    let begun = |bytes: &[u8]| [&frame(HEADERS, END_STREAM, 1, first)[..], bytes].concat();
    let ends = frame(CONTINUATION, END_HEADERS, 1, rest);
    let within = |bytes: &[u8]| begun(&[bytes, &ends].concat());
    let fine = begun(&[frame(CONTINUATION, 0, 1, &[]), ends.clone()].concat());
    vec![
        case("6.10", "CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &head)),
        case("6.10", "CONTINUATION after a whole block", [host.trace(1), ends.clone()].concat()),
        case("6.10", "PING within a header block", within(&frame(PING, 0, 0, &[0; 8]))),
        case("6.10", "HEADERS of another stream within a block", within(&host.get(3, &[]))),
        case("6.10", "CONTINUATION of another stream", within(&frame(CONTINUATION, 0, 3, &[]))),
        case("5.5", "an unknown frame within a header block", within(&frame(0x77, 0, 1, b"x"))),
        Case::new("6.10", "a block in three frames, one of them empty", Ignored, fine).on(1).reaching(),
    ]
}

fn compression(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, bytes: &[u8]| {
        let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&host.block(&[]), bytes].concat());
        Case::new(source, what, Connection(COMPRESSION_ERROR), bytes)
    };
    vec![
        case("6.1 of 7541", "the index 0", &[0x80]),
        case("2.3.3 of 7541", "an index beyond the table", &[0xff, 0x80, 0x01]),
        case("5.1 of 7541", "an index without an end", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        case("5.2 of 7541", "a text longer than its block", &[0, 1, b'a', 9, b'x']),
        case("5.2 of 7541", "Huffman padding of 8 bits", &[0, 1, b'a', 0x82, 0x1f, 0xff]),
        case("5.2 of 7541", "Huffman padding of zeros", &[0, 1, b'a', 0x81, 0x18]),
        case("5.2 of 7541", "the end of a Huffman text within it", &[0, 1, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]),
        case("4.2 of 7541", "a table above the limit", &[0x3f, 0xe1, 0xff, 0x03]),
        case("4.2 of 7541", "a table's size after a field", &[0x20]),
    ]
}
