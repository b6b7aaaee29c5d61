//! What `docs/PROTOCOL.md` says of connections: protocol names and the length of the first frame.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use countersign_net::Alpn;
use countersign_net::frame::FRAME_LEN;

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
