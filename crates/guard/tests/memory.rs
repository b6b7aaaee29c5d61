//! What compiling takes of memory, in a process where nothing else takes any.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_guard::{Action, Kind, Session};
use support::{NOW, World, rule};

#[test]
fn conditional_rules_of_wider_patterns_are_not_copied_into_each_narrower_one() {
    let world = World::new(&["pay"]);
    let ending = |id: String, text: &str| {
        let mut ends = rule(&id, text);
        ends.not_after = Some(NOW.plus_secs(3600));
        ends
    };
    let wide = (0..500).map(|i| {
        let mut rule = rule(&format!("w{i}"), "deny client/pay read topic");
        rule.network = Some(format!("10.{}.{}.0/24", i / 250 + 1, i % 250).parse().unwrap());
        rule
    });
    let narrow = (0..4000).map(|i| ending(format!("n{i}"), &format!("allow client/pay read topic:t{i}")));
    world.put(wide.chain(narrow));
    let fresh = world.guard.fresh().unwrap();
    let asks = |session: &Session| session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, "t7").map(|_| ());
    let before = resident();
    let session = world.session("pay");
    assert!(asks(&session).is_ok());
    // Copied, it would be two million pointers: sixteen megabytes.
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes");
    let denied = world.guard.session(&world.peer("pay"), Some("10.2.3.4".parse().unwrap())).unwrap();
    assert!(asks(&denied).is_err());
}

/// Bytes that this process holds.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
