//! Verbs and flags are a contract: the help of each is compared with the agreed text. `COUNTERSIGN_BLESS=1` writes it
//! again, for a reviewer to read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::path::Path;

use rig::Home;

const COMMANDS: [&str; 42] = [
    "",
    "server",
    "status",
    "token",
    "token create",
    "token list",
    "token revoke",
    "token rotate",
    "node",
    "node list",
    "node promote",
    "node demote",
    "node evict",
    "node quarantine",
    "node label",
    "node hosts",
    "cluster",
    "cluster show",
    "cluster set",
    "cert",
    "cert issue",
    "cert renew",
    "cert list",
    "cert revoke",
    "call",
    "acl",
    "acl add",
    "acl remove",
    "acl list",
    "acl check",
    "acl explain",
    "acl who-can",
    "acl lint",
    "acl apply",
    "security ca create",
    "security certs create-broker",
    "security certs create-client",
    "explain",
    "eval",
    "eval acl",
    "completions",
    "man",
];

#[test]
fn the_help_of_each_verb_is_the_agreed_one() {
    let home = Home::new();
    let mut help = String::new();
    for command in COMMANDS {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        help.push_str(&format!("$ countersign {}\n{}\n", args.join(" "), home.run(&args).ok().stdout));
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help.txt");
    if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
        std::fs::write(&golden, &help).unwrap();
    }
    let agreed = std::fs::read_to_string(&golden).unwrap();
    let differs = help.lines().zip(agreed.lines()).position(|(now, then)| now != then);
    let at = differs.map(|line| help.lines().skip(line.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n"));
    assert!(help == agreed, "help differs from {}, near\n{}", golden.display(), at.unwrap_or_default());
}

#[test]
fn no_text_of_help_is_wider_than_a_hundred_columns() {
    let golden = include_str!("golden/help.txt");
    let wide: Vec<&str> = golden.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}

#[test]
fn completions_and_manual_pages_come_from_the_same_definitions() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]).ok().stdout;
        assert!(script.contains("create-broker") && script.contains("inter-broker-tls-cert"), "{shell}");
    }
    home.run(&["completions", "csh"]).failed(2, "csh");
    let page = home.run(&["man"]).ok().stdout;
    assert!(page.contains(".TH countersign 1") && page.contains("evict"), "{page}");
    home.run(&["man", "--out", "pages"]).ok();
    let pages = std::fs::read_dir(home.join("pages")).unwrap().count();
    assert!(pages >= COMMANDS.len(), "{pages} pages");
    if let Ok(bash) = std::process::Command::new("bash").arg("-n").stdin(std::process::Stdio::piped()).spawn() {
        let mut bash = bash;
        let script = home.run(&["completions", "bash"]).ok().stdout;
        std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(bash.wait().unwrap().success());
    }
}
