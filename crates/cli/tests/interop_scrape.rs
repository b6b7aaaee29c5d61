//! Prometheus at the HTTPS ports of a live cluster of three, trusting the authority of a file and nothing else. `cargo
//! xtask interop` installs it and runs this.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod interop;
mod support_cluster;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use interop::{Files, Report, endpoint, printed};
use support_cluster::{Node, PATIENCE, World, pause};

/// It trusts the authority in the first job, and what the machine trusts in the other.
fn configuration(authorities: &str, targets: &str) -> String {
    format!(
        "\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: members
    scheme: https
    tls_config:
      ca_file: {authorities}
    static_configs:
      - targets: [{targets}]
  - job_name: strangers
    scheme: https
    static_configs:
      - targets: [{targets}]
"
    )
}

/// A Prometheus that runs on a port of its own.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    fn start(directory: &Path, configuration: &Path) -> Self {
        let log: PathBuf = directory.join("prometheus.log");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("series").display()));
        command.arg("--web.listen-address=127.0.0.1:0").stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn();
        let mut running = Self { child: child.expect("cargo xtask interop installs it"), url: String::new() };
        let begun = Instant::now();
        while running.url.is_empty() {
            let said = std::fs::read_to_string(&log).unwrap();
            let address = said.lines().find_map(|line| line.split_once("msg=\"Listening on\" address="));
            running.url = address.map(|(_, address)| format!("http://{address}")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "{said}");
            pause();
        }
        running
    }

    /// The answers to a question in its language, once they are `expected`.
    fn until(&self, question: &str, expected: impl Fn(&[f64]) -> bool) {
        let begun = Instant::now();
        loop {
            // `{…} => 1 @[…]`; it fails while Prometheus reads its directory.
            let asked = Command::new("promtool").args(["query", "instant", &self.url, question]).output().unwrap();
            let said = String::from_utf8_lossy(&asked.stdout).into_owned();
            let values = said.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next()?.parse().ok());
            if asked.status.success() && expected(&values.collect::<Vec<f64>>()) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{question}: {said}{}", String::from_utf8_lossy(&asked.stderr));
            pause();
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The member serves HTTPS from now on, at `https`.
fn serves_https(node: &mut Node, https: &str) {
    let cluster = node.address();
    assert!(node.stop().success(), "{}", node.log());
    node.start(&["--cluster-addr", &cluster, "--https-addr", https]);
    node.until_ready();
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn prometheus_scrapes_every_member_by_the_authority_of_a_file() {
    let mut report = Report::new("Prometheus");
    let world = World::new();
    let mut nodes = world.voters(3);
    for node in &mut nodes {
        serves_https(node, "127.0.0.1:0");
    }
    let pay = Files::issue(&world, &nodes[0], "pay");
    let targets: Vec<String> = nodes.iter().map(|node| format!("\"{}\"", endpoint(node, "https"))).collect();
    let file = world.path("prometheus.yml");
    std::fs::write(&file, configuration(&pay.authorities, &targets.join(", "))).unwrap();
    let version = printed(Command::new("prometheus").arg("--version"));
    report.version(version.split(" (").next().unwrap());
    report.tries("configuration");
    printed(Command::new("promtool").args(["check", "config", file.to_str().unwrap()]));
    let prometheus = Prometheus::start(world.dir.path(), &file);
    report.tries("scrape");
    prometheus.until("up{job=\"members\"}", |values| values == [1.0, 1.0, 1.0]);
    prometheus.until("countersign_voters", |values| values == [3.0, 3.0, 3.0]);
    prometheus.until("sum(countersign_raft_leads)", |values| values == [1.0]);
    report.tries("no authority");
    prometheus.until("up{job=\"strangers\"}", |values| values == [0.0, 0.0, 0.0]);
    report.tries("restart");
    let https = endpoint(&nodes[1], "https");
    nodes[1].kill();
    let up = format!("up{{job=\"members\",instance=\"{https}\"}}");
    prometheus.until(&up, |values| values == [0.0]);
    nodes[1].start(&["--https-addr", &https]);
    nodes[1].until_ready();
    prometheus.until(&up, |values| values == [1.0]);
    report.tries("revocation");
    // Each member counts the key as refused, and shows it.
    nodes[0].ask(&["cert", "revoke", &pay.key_id]).ok();
    prometheus.until("countersign_revoked_keys", |values| values == [1.0, 1.0, 1.0]);
}
