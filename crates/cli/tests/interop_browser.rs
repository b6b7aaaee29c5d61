//! Chromium at a member that embeds an axum app and has joined a live cluster of three: it shows a page with the
//! client's certificate from its NSS database. `cargo xtask interop` installs it and runs this, as root: the policy
//! that chooses the certificate is a file under /etc, which is put there for this browser alone, in a mount namespace.
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
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use interop::app::{App, PAGE, be_the_member_if_told};
use interop::{Files, Lines, Report, allow, ended, printed};
use support_cluster::{PATIENCE, World, pause};

/// Puts the directory `$1` at /etc/chromium, and becomes the browser.
const APART: &str = "mount --bind \"$1\" /etc/chromium && shift && exec chromium \"$@\"";

/// A home with the certificate and the authority in its NSS database, and the policy that chooses it for `target`.
fn prepared(home: &Path, target: &str, files: &Files) {
    let (database, policies) = (home.join(".pki/nssdb"), home.join("etc/policies/managed"));
    std::fs::create_dir_all(&database).unwrap();
    std::fs::create_dir_all(&policies).unwrap();
    let rule = serde_json::json!({ "pattern": format!("https://{target}"), "filter": {} }).to_string();
    let policy = serde_json::json!({ "AutoSelectCertificateForUrls": [rule] }).to_string();
    std::fs::write(policies.join("countersign.json"), policy).unwrap();
    let database = format!("sql:{}", database.display());
    let both = home.join("own.p12");
    let both = both.to_str().unwrap();
    printed(Command::new("certutil").args(["-N", "-d", &database, "--empty-password"]));
    let trusted = ["-A", "-d", &database, "-n", "authority", "-t", "C,,", "-i", &files.authorities];
    printed(Command::new("certutil").args(trusted));
    let pack = ["-in", &files.certificate, "-inkey", &files.key, "-out", both, "-passout", "pass:"];
    printed(Command::new("openssl").args(["pkcs12", "-export"]).args(pack));
    printed(Command::new("pk12util").args(["-i", both, "-d", &database, "-W", ""]));
}

/// The browser with this home; `log` has what its pages say.
struct Browser {
    child: Child,
    log: std::path::PathBuf,
}

impl Browser {
    fn command(home: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        command.arg(PATIENCE.as_secs().to_string()).args(["unshare", "--mount", "sh", "-c", APART, "sh"]);
        command.arg(home.join("etc")).args(["--headless", "--no-sandbox", "--disable-gpu", &profile]).args(flags);
        command.env("HOME", home).stdin(Stdio::null());
        command
    }

    fn opens(home: &Path, page: &str) -> Self {
        let log = home.join("console.log");
        // Without a port for a debugger a headless browser ends when it has shown the page.
        let mut command = Self::command(home, &["--enable-logging=stderr", "--remote-debugging-port=0", page]);
        let child = command.stderr(File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        Self { child, log }
    }

    /// Waits until the page has said this, and returns all that it said.
    fn until(&self, word: &str) -> Lines {
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let said = log.lines().filter_map(|line| Some(line.split_once("\"said ")?.1.rsplit_once("\", source")?.0));
            let lines: Vec<&str> = said.collect();
            if lines.iter().any(|line| line.split(' ').next() == Some(word)) {
                return Lines(lines.join("\n"));
            }
            assert!(begun.elapsed() < PATIENCE, "the page said no `{word}`:\n{log}");
            pause();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        ended(&mut self.child);
    }
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn chromium_shows_a_page_with_a_client_certificate() {
    be_the_member_if_told();
    let mut report = Report::new("Chromium");
    let world = World::new();
    let nodes = world.voters(3);
    let mut app = App::join(&world, &nodes[2]);
    let (pay, target, home) = (Files::issue(&world, &nodes[0], "pay"), app.target(), world.path("home"));
    for resource in ["service:/orders", "service:/ticks", "service:/trials"] {
        allow(&nodes[0], "client/pay", resource);
    }
    report.version(&printed(Command::new("chromium").arg("--version")));
    prepared(&home, &target, &pay);
    report.tries("page");
    let orders = format!("https://{target}/orders");
    let shown = printed(&mut Browser::command(&home, &["--dump-dom", &orders]));
    assert!(shown.contains(&format!("{PAGE} by HTTP/2.0")), "{shown}");
    let browser = Browser::opens(&home, &format!("https://{target}/trials"));
    report.tries("unary");
    let said = browser.until("before");
    said.says("unary", &[&format!("200 {PAGE} by HTTP/2.0")]);
    report.tries("stream");
    said.says("stream", &["tick"]);
    report.tries("deadline");
    said.says("deadline", &["TimeoutError"]);
    report.tries("cancellation");
    said.says("cancelled", &["AbortError"]);
    said.says("alive", &["200"]);
    report.tries("denial");
    said.says("denied", &["403"]);
    report.tries("restart");
    app.restart();
    let said = browser.until("watching");
    said.says("after", &["200"]);
    report.tries("revocation");
    nodes[0].ask(&["cert", "revoke", &pay.key_id]).ok();
    let said = browser.until("again");
    said.says("cut", &["failed"]);
    said.says("again", &["403"]);
    said.says("again", &["failure_id"]);
}
