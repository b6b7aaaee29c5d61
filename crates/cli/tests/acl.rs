//! Rules on the command line, against members as processes: added, asked about, put in place from a file, and in force.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use rig::{Done, Home, Server};
use serde_json::Value;

/// One member, and its operator.
struct One {
    home: Home,
    server: Server,
}

impl One {
    fn new(flags: &[&str]) -> Self {
        let home = Home::new();
        let server =
            home.server(&[&["--data", "d", "--name", "n1", "--bootstrap", "--cluster-name", "test"], flags].concat());
        Self { home, server }
    }

    fn run(&self, words: &str) -> Done {
        let args: Vec<&str> = words.split(' ').chain(["--data", "d"]).collect();
        self.home.run(&args)
    }

    /// The words of `acl check` come to this: an answer and an exit code.
    #[track_caller]
    fn check(&self, words: &str, allowed: bool) -> String {
        let done = self.run(&format!("acl check {words}"));
        let said = done.stdout.clone();
        if allowed {
            done.ok();
        } else {
            done.failed(1, "denied: ");
        }
        assert!(said.starts_with(if allowed { "ALLOW (" } else { "DENY (" }), "{said}");
        said
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.home.join(name), text).unwrap();
    }
}

#[test]
fn a_rule_is_added_asked_about_explained_and_removed_by_the_same_words() {
    let one = One::new(&[]);
    let pay = "--principal client/pay --action read --topic payments";
    let said = one.check(pay, false);
    assert!(said.contains("no rule allows it, generation "), "{said}");
    let words = "--principal client/pay --action read,write --topic payments";
    let added = one.run(&format!("acl add {words} --wait")).ok().stdout;
    assert!(added.starts_with("added: r-") && added.contains("decides by it"), "{added}");
    assert!(one.run(&format!("acl add {words}")).ok().stdout.starts_with("was there before: r-"));
    let said = one.check(pay, true);
    assert!(said.contains("allow client/pay read,write topic `payments`"), "{said}");
    for other in [
        "--principal client/pay --action delete --topic payments",
        "--principal client/pay --action read --topic payments2",
        "--principal client/pa --action read --topic payments",
        "--principal client/pay --action read --resource group:payments",
    ] {
        one.check(other, false);
    }
    // Implied, and denied by a rule that was made before or after: the deny wins.
    one.check("--principal client/pay --action describe --topic payments", true);
    one.run("acl add --principal client/* --action read --topic-prefix pay --deny --id no-reads --from 10.0.0.0/8")
        .ok();
    one.check(&format!("{pay} --from 11.0.0.1"), true);
    let said = one.check(&format!("{pay} --from 10.0.0.1"), false);
    assert!(said.contains("rule `no-reads`"), "{said}");
    one.check(pay, false);
    let told = one.run(&format!("acl explain {pay} --from 11.0.0.1")).ok().stdout;
    assert!(told.contains("client/pay has the roles: none; attributes: none"), "{told}");
    assert!(told.contains("[does not count: 11.0.0.1 is not within 10.0.0.0/8]"), "{told}");
    assert!(told.contains("topic `payments`  [decides]"), "{told}");

    one.run("cert issue --client pay --out c").ok();
    let who = one.run("acl who-can --action write --topic payments --json").ok().json();
    let who: Vec<&str> =
        who["principals"].as_array().unwrap().iter().map(|p| p["principal"].as_str().unwrap()).collect();
    assert_eq!(who, ["client/pay"]);

    one.run("acl remove --id no-reads").ok();
    one.check(pay, true);
    let removed = one.run(&format!("acl remove {words} --wait")).ok().stdout;
    assert!(removed.starts_with("removed: r-") && removed.contains("decides by it"), "{removed}");
    one.check(pay, false);
    one.run(&format!("acl remove {words}")).failed(1, "there is no rule `r-");
    // For a while alone.
    one.run(&format!("acl add {words} --ttl 1h --id hour")).ok();
    assert!(one.run("acl list").ok().stdout.contains("(in "));
    one.check(pay, true);
    // Not before the later change.
    one.run(&format!("acl check {pay} --min-generation 999999")).failed(3, "999999");
    one.server.stop();
}

#[test]
fn words_that_say_no_rule_are_refused_with_what_to_write() {
    let one = One::new(&[]);
    for (words, expected) in [
        ("acl add --principal client/pay --action rread --topic t", "`rread` is no action"),
        ("acl add --principal pay --action read --topic t", "`pay` is no principal"),
        ("acl add --principal client/*pay --action read --topic t", "an asterisk can only end"),
        ("acl add --principal role:Worker[gpu --action read --topic t", "column 11"),
        ("acl add --principal client/pay --action read --resource t", "`t` has no kind"),
        ("acl add --principal client/pay --action read --resource T:t", "kind `T`"),
        ("acl add --principal client/pay --action read --topic t --from here", "`here` is no network"),
        ("acl add --principal client/pay --action read --topic t --from 10.0.0.1/8", "goes on beyond its prefix"),
        ("acl add --principal client/pay --action read --topic t --topic-prefix u", "cannot be used"),
        ("acl add --principal client/pay --action read", "--topic"),
        ("acl add --action read --topic t", "--principal"),
        ("acl add --principal client/pay --action read --topic t --id a/b", "`a/b` cannot name a rule"),
        ("acl remove --principal client/pay --topic t", "--action"),
        ("acl remove --id r --topic t", "cannot be used"),
        ("acl remove --id r --deny", "cannot be used"),
        ("acl remove --id r --from 10.0.0.0/8", "cannot be used"),
        ("acl remove", "--principal"),
        ("acl check --principal client/pay --action read,write --topic t", "`read,write` is no action"),
        ("acl check --principal client/* --action read --topic t", "`client/*`"),
        ("acl check --principal client/pay --action read --topic t --from here", "here"),
        ("node label n1 gpu", "`gpu` changes no label"),
        ("node label client/A gpu=1", "`client/A`"),
    ] {
        let done = one.run(words);
        assert_eq!(done.code, Some(2), "{words}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(expected) && done.stderr.contains("\ntry: "), "{words}: {}", done.stderr);
    }
    // An asterisk is a letter, which is said.
    let starred = one.run("acl add --principal client/pay --action read --topic * --id star").ok();
    assert!(starred.stderr.contains("--any topic means all"), "{}", starred.stderr);
    one.check("--principal client/pay --action read --topic *", true);
    one.check("--principal client/pay --action read --topic t", false);
    one.run("acl add --principal client/pay --action write --topic t --id star").failed(1, "rule `star` exists");
    one.run("node label n9 gpu=1").failed(1, "`n9`");
    one.run("node label client/unknown gpu=1").failed(1, "client/unknown");
    one.run("node label n1 gpu=a=b").failed(1, "`a=b`");
    one.server.stop();
}

const POLICY: &str = "super_users = ['admin/*']\n[required_capabilities]\nrun = ['Worker[gpu=true]']\n\
    [[rule]]\nid = 'reads'\nprincipal = 'client/*'\nactions = ['read']\ntopic_prefix = 'pay'\n\
    [[rule]]\nid = 'work'\nprincipal = 'role:Worker'\nactions = ['write']\nresource = 'service:a.B/C'\n";

#[test]
fn a_file_is_planned_put_in_place_and_written_back() {
    let one = One::new(&[]);
    one.file("p.toml", POLICY);
    let before = one.run("acl list --json").ok().json()["generation"].as_u64().unwrap();
    let plan = one.run("acl apply p.toml --plan").ok().stdout;
    for line in
        ["- whoami  allow * write service", "+ reads  allow client/* read topic `pay`…", "+ work  allow role:Worker"]
    {
        assert!(plan.lines().any(|shown| shown.starts_with(line)), "{line}\n{plan}");
    }
    assert!(plan.contains("task run then requires Worker[gpu=true]"), "{plan}");
    assert!(plan.contains(&format!("apply with --if-generation {before}")) && plan.contains("lint: work: "), "{plan}");
    assert_eq!(one.run("acl list --json").ok().json()["generation"], before, "a plan changes nothing");
    let applied = one.run(&format!("acl apply p.toml --if-generation {before} --wait --json")).ok().json();
    assert_eq!((applied["put"].as_u64(), applied["removed"].as_u64()), (Some(2), Some(1)));
    assert_eq!(applied["enforcement"]["complete"], true);
    one.check("--principal client/x --action read --topic pay-1", true);
    // Another caller was faster.
    one.run("acl add --principal client/y --action read --topic t --id y").ok();
    let stale = applied["generation"].as_u64().unwrap();
    let refused =
        one.run(&format!("acl apply p.toml --if-generation {stale}")).failed(1, "policy was changed in generation");
    assert!(refused.stderr.contains("countersign acl list"), "{}", refused.stderr);
    one.run(&format!("acl apply p.toml --plan --if-generation {stale}")).failed(1, "policy was changed in generation");
    one.check("--principal client/y --action read --topic t", true);
    // The list is a file, and applying it changes nothing.
    let listed = one.run("acl list --toml").ok().stdout;
    one.file("again.toml", &listed);
    assert!(one.run("acl apply again.toml --plan").ok().stdout.contains("nothing would change"));
    let again = one.run("acl apply again.toml --json").ok().json();
    assert_eq!((again["put"].as_u64(), again["removed"].as_u64()), (Some(0), Some(0)));
    let list = one.run("acl list").ok().stdout;
    assert!(list.contains("ID\tEFFECT\tPRINCIPAL") && list.contains("task run requires Worker[gpu=true]"), "{list}");
    one.run("acl lint").failed(1, "findings about rules: ");
    one.server.stop();
}

#[test]
fn a_file_with_one_bad_rule_among_a_thousand_is_refused_whole_with_its_line() {
    let one = One::new(&[]);
    let rule = |at: usize, action: &str| {
        format!("[[rule]]\nprincipal = 'client/c{at}'\nactions = ['{action}']\ntopic = 't{at}'\n")
    };
    let rules = |bad: usize, action: &str| -> String {
        (0..1000).map(|at| rule(at, if at == bad { action } else { "read" })).collect()
    };
    one.file("bad.toml", &rules(616, "rread"));
    let line = 616 * 4 + 1;
    let refused =
        one.run("acl apply bad.toml").failed(2, &format!("policy `bad.toml`, line {line}: rule 617: actions: `rread`"));
    assert!(refused.stderr.contains("nothing was changed"), "{}", refused.stderr);
    for (name, text, expected) in [
        ("a.toml", "[[rule]]\nprincipal = '*'\nacions = ['read']\ntopic = 't'\n", "line 3: unknown field `acions`"),
        (
            "b.toml",
            "[[rule]]\nprincipal = 'role:W['\nactions = ['read']\ntopic = 't'\n",
            "line 1: rule 1: principal: `role:W[`",
        ),
        ("c.toml", "super_users = ['*']\n", "`*` cannot be a super-user"),
        ("d.toml", "[required_capabilities]\nrun = ['W[gpu]']\n", "line 2: required_capabilities: task `run`"),
        ("absent.toml", "", "absent.toml"),
    ] {
        if name != "absent.toml" {
            one.file(name, text);
        }
        let done = one.run(&format!("acl apply {name}"));
        assert!(done.code == Some(2) || name == "c.toml", "{name}: {:?} {}", done.code, done.stderr);
        assert!(done.stderr.contains(expected), "{name}: {}", done.stderr);
    }
    let list = one.run("acl list --json").ok().json();
    assert_eq!(list["policy"]["rule"].as_array().unwrap().len(), 1, "whoami alone");
    // Without the bad one: more than one command holds.
    one.file("good.toml", &rules(1000, ""));
    let applied = one.run("acl apply good.toml --json").ok().json();
    assert_eq!((applied["put"].as_u64(), applied["removed"].as_u64()), (Some(1000), Some(1)));
    one.check("--principal client/c616 --action read --topic t616", true);
    one.check("--principal client/c616 --action read --topic t617", false);
    one.server.stop();
}

#[test]
fn a_role_is_given_counts_and_is_taken_away() {
    let one = One::new(&[]);
    one.run("cert issue --client pay --out c").ok();
    one.run("acl add --principal role:Worker[gpu=true] --action write --resource service:a.B/C").ok();
    let question = |who: &str| format!("--principal {who} --action write --resource service:a.B/C");
    one.check(&question("client/pay"), false);
    let labelled = one.run("node label client/pay role=Worker gpu=true zone=a --wait").ok().stdout;
    assert!(labelled.starts_with("client/pay: labels gpu=true,role=Worker,zone=a, generation "), "{labelled}");
    one.check(&question("client/pay"), true);
    one.run("node label client/pay gpu-").ok();
    one.check(&question("client/pay"), false);
    one.check(&question("node/n1"), false);
    one.run("node label n1 role=Worker gpu=true").ok();
    let list = one.run("node list --json").ok().json();
    assert_eq!((list[0]["labels"]["role"].as_str(), list[0]["labels"]["gpu"].as_str()), (Some("Worker"), Some("true")));
    one.check(&question("node/1"), true);
    one.check(&question("node/n1"), true);
    one.run("node label node/1 role-").ok();
    one.check(&question("node/n1"), false);
    one.server.stop();
}

#[test]
fn what_tasks_require_is_taken_at_the_bootstrap_and_only_noted_later() {
    let home = Home::new();
    let section = "[cluster.authentication]\nenabled = true\n[cluster.authentication.required_capabilities]\n";
    std::fs::write(home.join("c.toml"), format!("{section}run = ['Worker[gpu=true]']\n")).unwrap();
    let start = ["--data", "d", "--name", "n1", "--bootstrap", "--config", "c.toml"];
    let server = home.server(&start);
    let required =
        || home.run(&["acl", "list", "--json", "--data", "d"]).ok().json()["policy"]["required_capabilities"].clone();
    let expected: Value = serde_json::json!({"run": ["Worker[gpu=true]"]});
    assert_eq!(required(), expected);
    let question =
        ["acl", "check", "--principal", "node/n1", "--action", "write", "--resource", "task:run", "--data", "d"];
    home.run(&question).failed(1, "required capability of task `run`");
    home.run(&["node", "label", "n1", "role=Worker", "gpu=true", "--data", "d"]).ok();
    home.run(&question).ok();
    server.stop();
    std::fs::write(home.join("c.toml"), format!("{section}run = ['Master']\n")).unwrap();
    let server = home.server(&start);
    home.run(&["acl", "add", "--principal", "*", "--action", "read", "--topic", "t", "--data", "d"]).ok();
    assert_eq!(required(), expected);
    server.stop();
    let log = std::fs::read_to_string(home.join("log")).unwrap();
    assert!(log.contains("required_capabilities` is otherwise in this cluster"), "{log}");
}

#[test]
fn a_client_with_one_rule_may_ask_for_the_status_and_for_nothing_else() {
    let one = One::new(&["--https-addr", "127.0.0.1:0"]);
    let https = one.server.ready["https_addr"].as_str().unwrap().to_owned();
    one.run("cert issue --client ops --out c").ok();
    let remote = |words: &str| {
        let identity =
            ["--identity", "c/ops.pem", "--identity-key", "c/ops.key", "--ca", "c/ca.pem", "--server", &https];
        one.home.run(&words.split(' ').chain(identity).collect::<Vec<_>>())
    };
    let denied = remote("status").failed(1, "client/ops may not describe cluster `test`: denied (generation ");
    assert!(denied.stderr.contains("countersign acl add"), "{}", denied.stderr);
    one.run("acl add --principal client/ops --action describe --resource cluster:test --id see").ok();
    assert!(remote("status").ok().stdout.contains("n1"));
    remote("node list").ok();
    for words in [
        "token list",
        "token create",
        "token rotate",
        "cert list",
        "cert revoke client/ops",
        "node evict n1",
        "node label n1 role=King",
        "node label client/ops role=King",
        "acl list",
        "acl lint",
        "acl add --principal client/ops --action all --any policy",
        "acl check --principal client/ops --action read --topic t",
    ] {
        remote(words).failed(1, "client/ops may not ");
    }
    one.run("acl remove --id see").ok();
    remote("status").failed(1, "denied (generation ");
    one.server.stop();
}
