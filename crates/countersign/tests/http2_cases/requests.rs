//! Requests that are malformed, or that two readers may read differently.

use super::super::raw::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, block, frame};
use super::Wanted::{Ignored, Malformed, Refused};
use super::{Case, Host, Wanted};

pub fn cases(host: &Host<'_>) -> Vec<Case> {
    [names(host), pseudo(host), targets(host), tunnels(host), bodies(host)].into_iter().flatten().collect()
}

/// A request on stream 1 that no app may see.
fn get(
    host: &Host<'_>,
    source: &'static str,
    what: &'static str,
    wanted: Wanted,
    changed: &[(&str, Option<&[u8]>)],
) -> Case {
    Case::new(source, what, wanted, host.get(1, changed)).on(1)
}

fn names(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, name, value: &[u8]| get(host, source, what, Malformed, &[(name, Some(value))]);
    vec![
        case("8.2.1", "an upper-case name", "X-A", b"b"),
        case("8.2.1", "a name with a space", "x a", b"b"),
        case("8.2.1", "a name with a line break", "x\r\na", b"b"),
        case("8.2.1", "a name with a colon", "x:a", b"b"),
        case("8.2.1", "an empty name", "", b"b"),
        case("8.2.1", "CR in a value", "x-a", b"b\rc"),
        case("8.2.1", "LF in a value", "x-a", b"b\nc"),
        case("8.2.1", "a second request in a value", "x-a", b"b\r\n\r\nGET /page HTTP/1.1\r\nhost: x"),
        case("8.2.1", "NUL in a value", "x-a", b"b\0c"),
        case("8.2.1", "a space before a value", "x-a", b" b"),
        case("8.2.1", "a tab after a value", "x-a", b"b\t"),
        case("8.2.2", "connection", "connection", b"close"),
        case("8.2.2", "keep-alive", "keep-alive", b"timeout=5"),
        case("8.2.2", "proxy-connection", "proxy-connection", b"close"),
        case("8.2.2", "transfer-encoding", "transfer-encoding", b"chunked"),
        case("8.2.2", "upgrade", "upgrade", b"h2c"),
        case("8.2.2", "te: gzip", "te", b"gzip"),
        get(host, "8.2.2", "te: trailers", Ignored, &[("te", Some(b"trailers"))]).reaching(),
    ]
}

fn pseudo(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, changed: &[(&str, Option<&[u8]>)]| get(host, source, what, Malformed, changed);
    let twice = |what, name, value: &[u8]| {
        let doubled = [block(&[(name, value)]), host.block(&[])].concat();
        Case::new("8.3.1", what, Malformed, frame(HEADERS, END_HEADERS | END_STREAM, 1, &doubled)).on(1)
    };
    let late = [host.block(&[(":path", None), ("x-a", Some(b"b"))]), block(&[(":path", b"/page")])].concat();
    vec![
        case("8.3.1", "no :method", &[(":method", None)]),
        case("8.3.1", "no :scheme", &[(":scheme", None)]),
        case("8.3.1", "no :path", &[(":path", None)]),
        get(host, "8.3.1", "no :authority and no host", Refused, &[(":authority", None)]),
        twice("two :method", ":method", b"GET"),
        twice("two :scheme", ":scheme", b"https"),
        twice("two :path", ":path", b"/other"),
        twice("two :authority", ":authority", b"evil.example"),
        case("8.3", "an unknown pseudo-header", &[(":secret", Some(b"x"))]),
        case("8.3", ":status in a request", &[(":status", Some(b"200"))]),
        Case::new("8.3", "a pseudo-header after a header", Malformed, frame(HEADERS, 5, 1, &late)).on(1),
        case("8.3.1", "an empty :path", &[(":path", Some(b""))]),
        case("8.3.1", "a :path without a slash", &[(":path", Some(b"page"))]),
        case("8.3.1", "a :path with a space", &[(":path", Some(b"/page HTTP/1.1"))]),
        case("8.3.1", "a :path with a line break", &[(":path", Some(b"/page\r\nx-a: b"))]),
        case("8.3.1", "a :path of a whole URI", &[(":path", Some(b"https://evil.example/page"))]),
        case("8.3.1", "GET of *", &[(":path", Some(b"*"))]),
        case("8.3.1", "a :method with a space", &[(":method", Some(b"GET /page"))]),
        case("8.3.1", "a :method with a line break", &[(":method", Some(b"GET\r\n"))]),
        case("8.3.1", "an empty :method", &[(":method", Some(b""))]),
    ]
}

/// Which host and scheme are asked for.
fn targets(host: &Host<'_>) -> Vec<Case> {
    let case = |source, what, changed: &[(&str, Option<&[u8]>)]| get(host, source, what, Refused, changed);
    let of_user = format!("user@{}", host.0);
    let own = host.0.as_bytes();
    vec![
        case("8.3.1", "an :authority with a user", &[(":authority", Some(of_user.as_bytes()))]),
        case("8.3.1", "an empty :authority", &[(":authority", Some(b""))]),
        case("8.3.1", "an :authority with a path", &[(":authority", Some(b"evil.example/x"))]),
        case("8.3.1", "a host that differs from :authority", &[("host", Some(b"evil.example"))]),
        case(
            "8.3.1",
            "an :authority that differs from host",
            &[(":authority", Some(b"evil.example")), ("host", Some(own))],
        ),
        case("7.4 of 9110", "another :authority", &[(":authority", Some(b"evil.example"))]),
        case("7.4 of 9110", ":scheme http", &[(":scheme", Some(b"http"))]),
        case("8.3.1", ":scheme ftp", &[(":scheme", Some(b"ftp"))]),
        case("8.3.1", "an empty :scheme", &[(":scheme", Some(b""))]),
        case("8.3.1", "a :scheme with a line break", &[(":scheme", Some(b"https\r\nx: y"))]),
        get(host, "8.3.1", "host and no :authority", Ignored, &[(":authority", None), ("host", Some(own))]).reaching(),
    ]
}

fn tunnels(host: &Host<'_>) -> Vec<Case> {
    let connect: (&str, Option<&[u8]>) = (":method", Some(b"CONNECT"));
    let plain = [connect, (":scheme", None), (":path", None)];
    let protocol: (&str, Option<&[u8]>) = (":protocol", Some(b"websocket"));
    let case = |source, what, wanted, changed: &[(&str, Option<&[u8]>)]| get(host, source, what, wanted, changed);
    vec![
        case("8.5", "CONNECT", Refused, &plain),
        case("8.5", "CONNECT with a :path", Malformed, &[connect]),
        case(
            "8.5",
            "CONNECT without :authority",
            Malformed,
            &[connect, (":authority", None), (":scheme", None), (":path", None)],
        ),
        case("3 of 8441", "CONNECT with a :protocol", Malformed, &[connect, protocol]),
        case("4 of 8441", "GET with a :protocol", Malformed, &[protocol]),
        case("9.3.8 of 9110", "TRACE", Refused, &[(":method", Some(b"TRACE"))]),
    ]
}

/// Bodies and trailers.
fn bodies(host: &Host<'_>) -> Vec<Case> {
    let data = |bytes: &[u8]| frame(DATA, END_STREAM, 1, bytes);
    let of_length = |what, length: &[u8], rest: &[u8]| {
        let bytes = [&host.post(1, &[("content-length", Some(length))])[..], rest].concat();
        Case::new("8.1.1", what, Malformed, bytes).on(1).reaching()
    };
    let trailed = |what, flags, fields: &[(&str, &[u8])]| {
        let trailers = frame(HEADERS, END_HEADERS | flags, 1, &block(fields));
        let bytes = [host.post(1, &[]), frame(DATA, 0, 1, b"abc"), trailers].concat();
        Case::new("8.1", what, Malformed, bytes).on(1).reaching()
    };
    let lengths = [host.block(&[("content-length", Some(b"3"))]), block(&[("content-length", b"5")])].concat();
    let [first, rest] = [&lengths[..20], &lengths[20..]];
    let two = [frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest), data(b"abc")].concat();
    vec![
        of_length("less DATA than content-length", b"5", &data(b"abc")),
        of_length("more DATA than content-length", b"3", &data(b"abcde")),
        of_length("a length with a sign", b"+3", &data(b"abc")),
        of_length("a length of letters", b"abc", &data(b"abc")),
        of_length("a list of lengths", b"3, 3", &data(b"abc")),
        of_length("a length above 2^64", b"18446744073709551619", &data(b"abc")),
        Case::new("8.1.1", "two lengths", Malformed, two).on(1).reaching(),
        get(host, "8.1.1", "a length and END_STREAM", Malformed, &[("content-length", Some(b"3"))]),
        trailed("trailers with a pseudo-header", END_STREAM, &[(":path", b"/other")]),
        trailed("trailers with an upper-case name", END_STREAM, &[("X-A", b"b")]),
        trailed("trailers without END_STREAM", 0, &[("x-a", b"b")]),
        Case { wanted: Ignored, ..trailed("trailers", END_STREAM, &[("x-a", b"b")]) },
    ]
}
