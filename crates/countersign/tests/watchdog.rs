//! A member whose state machine stands still ends its process. Seen from outside: this test runs itself as a child.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use countersign::{Member, NewCluster, Settings, Start};
use countersign_core::name::Name;

/// Set in the child.
const CHILD: &str = "COUNTERSIGN_TEST_STALLS";

#[test]
fn member_whose_state_machine_stands_still_ends_by_name() {
    if let Ok(data) = std::env::var(CHILD) {
        stall(data);
        unreachable!("the watchdog ends this process");
    }
    let data = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this)
        .args(["--exact", "member_whose_state_machine_stands_still_ends_by_name", "--nocapture"])
        .env(CHILD, data.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.signal(), Some(6), "{said}");
    assert!(said.contains("state machine stands still") && said.contains("name=n1"), "{said}");
}

fn stall(data: String) {
    tracing_subscriber::fmt().with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut settings = Settings::new(std::path::Path::new(&data), "127.0.0.1:0".parse().unwrap());
        settings.name = Some(Name::parse("n1").unwrap());
        let cluster = NewCluster {
            name: Name::parse("test").unwrap(),
            trust_domain: None,
            token: None,
            authority: None,
            policy: Default::default(),
        };
        let (member, _) = Member::start(settings, Start::Bootstrap(cluster)).await.unwrap();
        member.node_for_testing().stall_for_testing();
        std::future::pending::<()>().await;
    });
}
