//! What `docs/PROTOCOL.md` says of connections: protocol names and the length of the first frame.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use countersign_core::limits::{CONNECTIONS_PER_PRINCIPAL_MAX, REQUESTS_PER_PRINCIPAL_MAX};
use countersign_net::Alpn;
use countersign_net::frame::FRAME_LEN;
use countersign_net::quic_limits::*;

const PAGE: &str = include_str!("../../../docs/PROTOCOL.md");

#[test]
fn the_protocols_of_the_cluster_port_are_those_of_the_page() {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `countersign/1 "));
    let documented: Vec<String> =
        rows.map(|row| format!("countersign/1 {}", row.split_once('`').expect("a closing backtick").0)).collect();
    let known: Vec<String> = Alpn::ALL.iter().map(|alpn| String::from_utf8(alpn.id().to_vec()).unwrap()).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_first_frame_is_as_long_as_its_fields() {
    let (_, section) = PAGE.split_once("### First frame").expect("the heading exists");
    let rows = section.lines().skip_while(|line| !line.starts_with("| offset")).skip(2);
    let fields: Vec<(usize, usize)> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').map(str::trim).collect::<Vec<_>>())
        .map(|cells| (cells[1].parse().unwrap(), cells[2].parse().unwrap()))
        .collect();
    let end = fields.iter().fold(0, |end, (offset, length)| {
        assert_eq!(*offset, end, "fields follow each other");
        end + length
    });
    assert_eq!(end, FRAME_LEN);
}

#[test]
fn bounds_over_quic_are_those_of_the_page() {
    let (_, section) = PAGE.split_once("### Bounds over QUIC").expect("the heading exists");
    let rows = section.lines().skip_while(|line| !line.starts_with("| limit")).skip(2);
    let documented: Vec<u64> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').nth(2).unwrap().trim().replace(',', "").parse().unwrap())
        .collect();
    let windows = [STREAM_WINDOW.into(), CONNECTION_WINDOW.into(), SEND_WINDOW];
    let silence = [IDLE_MILLIS_MAX.into(), KEEPALIVE_MILLIS];
    let waiting = [INCOMING_MAX as u64, INCOMING_LEN_MAX];
    let of_principal = [CONNECTIONS_PER_PRINCIPAL_MAX, HELD_MAX, REQUESTS_PER_PRINCIPAL_MAX].map(|max| max as u64);
    let known = [&[STREAMS_MAX.into(), 0][..], &windows, &silence, &waiting, &of_principal].concat();
    assert_eq!(documented, known);
    let alpn = String::from_utf8(Alpn::Client.id().to_vec()).unwrap();
    // A line of the page may end within the sentence.
    let page = PAGE.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains(&format!("exactly one protocol, `{alpn}`")));
}
