//! `cert renew` by the real binary against live members: files that stock programs use, replaced together, and every
//! way in which a renewal does not happen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign::{Address, Client, KeyAlgorithm, KeyPair};
use support_cluster::{BINARY, Node, PATIENCE, Said, World, pause, run};

struct Pay {
    dir: PathBuf,
    key: String,
}

impl Pay {
    /// As an operator has it issued.
    fn issue(world: &World, node: &Node, flags: &[&str]) -> Self {
        let dir = world.path("pay");
        let issued = node.ask(&[&["cert", "issue", "--client", "pay", "--out", dir.to_str().unwrap()], flags].concat());
        Self { dir, key: issued.ok().json()["key"].as_str().unwrap().to_owned() }
    }

    fn renew(&self, member: &str, flags: &[&str]) -> Said {
        let dir = self.dir.to_str().unwrap();
        run(&[&["cert", "renew", dir, "--member", member, "--json"], flags].concat())
    }

    /// Certificate, key and authority, found by resolving the directory once.
    fn files(&self) -> [String; 3] {
        let real = fs::canonicalize(&self.dir).unwrap();
        ["pay.pem", "pay.key", "ca.pem"].map(|name| fs::read_to_string(real.join(name)).unwrap())
    }

    fn client(&self) -> Client {
        let [certificate, key, authority] = self.files();
        Client::from_pem(&certificate, &key, &authority).unwrap()
    }

    /// The status that curl is answered with.
    fn curl(&self, member: &str) -> String {
        let at = |name: &str| self.dir.join(name).to_str().unwrap().to_owned();
        let (certificate, key, authority) = (at("pay.pem"), at("pay.key"), at("ca.pem"));
        let files = ["--cert", &certificate, "--key", &key, "--cacert", &authority];
        let url = format!("https://{member}/orders");
        printed("curl", &[&files[..], &["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url]].concat())
    }

    /// What openssl says of the key of the certificate, and of the private key.
    fn public_keys(&self) -> (String, String) {
        let at = |name: &str| self.dir.join(name).to_str().unwrap().to_owned();
        let certificate = printed("openssl", &["x509", "-in", &at("pay.pem"), "-noout", "-pubkey"]);
        (certificate, printed("openssl", &["pkey", "-in", &at("pay.key"), "-pubout"]))
    }
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn failed(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "no `{word}`: {said:?}");
    }
    assert!(!said.stderr.contains("PRIVATE"), "{said:?}");
}

/// A port that refuses connections.
fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn renewed_files_are_a_new_key_that_openssl_and_curl_use() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let (old, told) = (pay.files(), world.path("told"));
    let then = ["--then", "touch", path(&told)];
    let said = pay.renew(&member, &then).ok();
    assert_eq!((said.json()["state"].as_str(), said.json()["due_at"].is_u64()), (Some("not_due"), true), "{said:?}");
    assert!(pay.files() == old && !told.exists() && !pay.dir.is_symlink(), "{said:?}");

    let said = pay.renew(&member, &[&["--force"][..], &then].concat()).ok();
    let json = said.json();
    assert_eq!((json["state"].as_str(), json["previous_key"].as_str()), (Some("renewed"), Some(pay.key.as_str())));
    assert!(json["not_after"].as_u64() >= json["previous_not_after"].as_u64(), "{json}");
    assert_eq!(json["then"]["result"], "succeeded");
    assert!(!said.stdout.contains("PRIVATE") && told.exists(), "{said:?}");
    let new = pay.files();
    assert!(new[0] != old[0] && new[1] != old[1] && new[2] == old[2]);
    let (certificate, key) = pay.public_keys();
    assert_eq!(certificate, key);
    // No rule allows it: the member knows the client.
    assert_eq!(pay.curl(&member), "403");
    assert!(pay.client().dialer().principal().unwrap().to_string().ends_with("/client/pay"));
    assert_eq!(fs::metadata(pay.dir.join("pay.key")).unwrap().mode() & 0o777, 0o600);
    let listed = node.ask(&["cert", "list"]).ok().stdout;
    assert!(listed.contains(json["key"].as_str().unwrap()), "{listed}");
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().filter(|e| is_left(e.as_ref().unwrap())).count(), 0);

    // Its successor must wait until the key before it has ended; nothing changes.
    failed(&pay.renew(&member, &["--force"]), 1, &["counts until", "cert revoke"]);
    assert_eq!(pay.files(), new);
}

fn is_left(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name().into_string().unwrap();
    ["next", "new", "link", "then"].iter().any(|left| name.starts_with(&format!(".pay-{left}")))
}

#[test]
fn a_short_certificate_is_renewed_once_half_its_life_is_over() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &["--ttl", "12s"]), node.client_address());
    let mut renewed = 0;
    let (begun, mut waited) = (Instant::now(), 0);
    while renewed < 2 {
        let said = pay.renew(&member, &[]).ok().json();
        renewed += u32::from(said["state"] == "renewed");
        waited += u32::from(said["state"] == "not_due");
        assert!(begun.elapsed() < PATIENCE, "{said}");
        pause();
    }
    assert!(waited > 0);
    assert_eq!(pay.curl(&member), "403");
}

#[test]
fn a_learner_leads_to_a_voter_that_renews() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::issue(&world, &node, &[]);
    let mut learner = world.node("n2");
    world.join(&mut learner, &node.token(&["--role", "learner"]), &node.address());
    learner.until_settled(2);
    let begun = Instant::now();
    loop {
        let said = pay.renew(&learner.client_address(), &["--force"]);
        if said.code == 0 {
            break assert_eq!(said.json()["state"], "renewed");
        }
        // Until the learner knows where the voter's client port is.
        failed(&said, 3, &["learner", &learner.client_address()]);
        assert!(begun.elapsed() < PATIENCE, "{said:?}");
        pause();
    }
    assert_eq!(pay.curl(&node.client_address()), "403");
}

#[test]
fn a_revoked_certificate_is_told_why_and_a_failure_id() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let old = pay.files();
    node.ask(&["cert", "revoke", &pay.key]).ok();
    let said = pay.renew(&member, &["--force"]);
    failed(&said, 1, &["revoked", "(failure ", "cert issue --client pay --out"]);
    assert_eq!(pay.files(), old);
    let after = said.stderr.split("(failure ").nth(1).unwrap();
    let explained = node.ask(&["explain", &after[..16]]).ok();
    assert!(explained.stdout.contains("revoked"), "{explained:?}");
}

#[test]
fn an_expired_certificate_names_the_way_back() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::issue(&world, &node, &["--ttl", "1s"]);
    let begun = Instant::now();
    let said = loop {
        // Asked of a port that does not answer: it is clear without.
        let said = pay.renew(&closed_port(), &[]);
        if said.code != 0 && said.code != 3 {
            break said;
        }
        assert!(begun.elapsed() < PATIENCE, "{said:?}");
        pause();
    };
    failed(&said, 1, &["client/pay ended", "countersign cert issue --client pay --out", "--force"]);
    // That is the way back.
    let again = Pay::issue(&world, &node, &["--force"]);
    again.renew(&node.client_address(), &["--force"]).ok();
}

#[test]
fn members_that_are_not_reached_are_all_named() {
    let world = World::new();
    let node = world.founder();
    let pay = Pay::issue(&world, &node, &[]);
    let (old, first, second) = (pay.files(), closed_port(), closed_port());
    let said = pay.renew(&first, &["--member", &second, "--force"]);
    failed(&said, 3, &[&first, &second, "as they were"]);
    assert_eq!(said.stderr.matches("Connection refused").count(), 2, "{said:?}");
    assert_eq!(pay.files(), old);
    // The next member is asked, with the key that is stored by now.
    let pending = fs::read_dir(world.dir.path()).unwrap().filter(|e| is_left(e.as_ref().unwrap())).count();
    assert_eq!(pending, 1);
    let said = pay.renew(&first, &["--member", &node.client_address(), "--force"]).ok();
    assert_eq!(said.json()["member"], node.client_address());
}

#[test]
fn files_that_do_not_belong_together_are_not_renewed() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let key = pay.files()[1].clone();
    let other = KeyPair::generate(KeyAlgorithm::P256).unwrap().to_pem().unwrap();
    fs::write(pay.dir.join("pay.key"), other.expose()).unwrap();
    failed(&pay.renew(&member, &["--force"]), 2, &["do not belong together", "cert issue"]);
    fs::write(pay.dir.join("pay.key"), key).unwrap();
    fs::set_permissions(pay.dir.join("pay.key"), Permissions::from_mode(0o644)).unwrap();
    failed(&pay.renew(&member, &["--force"]), 2, &["mode 0644", "chmod 600"]);
    fs::set_permissions(pay.dir.join("pay.key"), Permissions::from_mode(0o600)).unwrap();
    fs::write(pay.dir.join("notes.txt"), "").unwrap();
    failed(&pay.renew(&member, &["--force"]), 2, &["notes.txt", "a directory of their own"]);
    fs::remove_file(pay.dir.join("notes.txt")).unwrap();
    // Several of them: one is named.
    let out = ["--out", path(&pay.dir)];
    node.ask(&[&["cert", "issue", "--client", "shop"], &out[..]].concat()).ok();
    failed(&pay.renew(&member, &["--force"]), 2, &["pay, shop", "--name"]);
    let shop = fs::read_to_string(pay.dir.join("shop.pem")).unwrap();
    pay.renew(&member, &["--force", "--name", "pay"]).ok();
    assert_eq!(fs::read_to_string(pay.dir.join("shop.pem")).unwrap(), shop);
    failed(&pay.renew(&member, &["--data", path(&node.data)]), 2, &["asks a client port"]);
    // Named one by one, too: they must lie together.
    let [certificate, key, elsewhere] = [pay.dir.join("pay.pem"), pay.dir.join("pay.key"), world.path("ca.pem")];
    let named = ["cert", "renew", "--identity", path(&certificate), "--key", path(&key), "--server", &member];
    assert!(run(&named).ok().stdout.contains("not due until"));
    let apart = [&named[..], &["--ca", path(&elsewhere)]].concat();
    failed(&run(&apart), 2, &["pay/ca.pem", "into one directory"]);
    failed(&run(&["cert", "renew", path(&pay.dir)]), 2, &["no member is named", "--server"]);
    failed(&run(&["cert", "renew", "--server", &member]), 2, &["no files are named"]);
    failed(&run(&["cert", "renew", ".", "--member", &member]), 2, &["by its path"]);
}

#[test]
fn a_program_that_fails_is_run_again_though_nothing_is_due() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let (old, ready) = (pay.files(), world.path("ready"));
    // Arguments go to the program as they are: no shell reads them.
    let then = ["--then", "test", "-e", path(&ready)];
    failed(&pay.renew(&member, &[&["--force"][..], &then].concat()), 3, &["`test` failed", "renewed all the same"]);
    let new = pay.files();
    assert_ne!(new[1], old[1]);
    failed(&pay.renew(&member, &then), 3, &["`test` failed"]);
    fs::write(&ready, "").unwrap();
    let said = pay.renew(&member, &then).ok().json();
    assert_eq!((said["state"].as_str(), said["then"]["result"].as_str()), (Some("not_due"), Some("succeeded")));
    fs::remove_file(&ready).unwrap();
    assert!(pay.renew(&member, &then).ok().json()["then"].is_null());
    assert_eq!(pay.files(), new);
}

#[test]
fn mode_and_group_of_a_shared_key_stay() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let key = pay.dir.join("pay.key");
    let group = rustix::process::geteuid().is_root().then_some(4002);
    std::os::unix::fs::chown(&key, None, group).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let old = fs::metadata(&key).unwrap();
    pay.renew(&member, &["--force"]).ok();
    let new = fs::metadata(&key).unwrap();
    assert_eq!((new.mode() & 0o777, new.gid(), new.uid()), (0o640, old.gid(), old.uid()));
    assert_ne!(new.ino(), old.ino());
}

#[test]
fn a_bundle_is_one_file_that_is_replaced_whole() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let ([certificate, key, _], bundle) = (pay.files(), world.path("bundle.pem"));
    fs::write(&bundle, format!("{certificate}{key}")).unwrap();
    let renew = || run(&["cert", "renew", "--bundle", path(&bundle), "--member", &member, "--force"]);
    failed(&renew(), 2, &["mode 0644"]);
    fs::set_permissions(&bundle, Permissions::from_mode(0o600)).unwrap();
    let said = renew().ok();
    assert!(said.stdout.contains("/client/pay") && !said.stdout.contains("PRIVATE"), "{said:?}");
    let new = fs::read_to_string(&bundle).unwrap();
    assert!(!new.contains(certificate.as_str()) && new.matches("BEGIN CERTIFICATE").count() == 2, "{new}");
    assert_eq!(fs::metadata(&bundle).unwrap().mode() & 0o777, 0o600);
    let url = format!("https://{member}/orders");
    let answer = printed(
        "curl",
        &["--cert", path(&bundle), "--cacert", path(&bundle), "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url],
    );
    assert_eq!(answer, "403");
}

/// The member has issued a successor, and this host never stored it: only the same key gets it.
#[test]
fn a_renewal_whose_answer_was_lost_goes_on_with_its_key() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    failed(&pay.renew(&closed_port(), &["--force"]), 3, &[]);
    let pending = world.path(&format!(".pay-next-{}.key", &pay.key[..16]));
    let metadata = fs::metadata(&pending).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o600);
    let next = KeyPair::from_pem(&fs::read_to_string(&pending).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = Address::parse(&member).unwrap();
    runtime.block_on(pay.client().renew(&[address], &next)).unwrap();
    let said = pay.renew(&member, &["--force"]).ok().json();
    assert_eq!(said["key"].as_str().unwrap(), next.id().to_string());
    assert!(!pending.exists());
    assert_eq!(pay.curl(&member), "403");
}

/// Whatever step it is killed at, the certificate is of the key beside it, and the same command goes on from there.
#[test]
fn a_renewal_killed_at_any_point_leaves_files_of_one_renewal() {
    let world = World::new();
    let node = world.founder();
    let member = node.client_address();
    let (mut swapped, mut begun) = (0, 0);
    for round in 0..24_u64 {
        let (name, dir) = (format!("pay{round}"), world.path(&format!("killed{round}")));
        node.ask(&["cert", "issue", "--client", &name, "--out", path(&dir)]).ok();
        let read = || {
            let real = fs::canonicalize(&dir).unwrap();
            let [certificate, key, authority] = [format!("{name}.pem"), format!("{name}.key"), "ca.pem".to_owned()]
                .map(|file| fs::read_to_string(real.join(file)).unwrap());
            Client::from_pem(&certificate, &key, &authority).unwrap();
            key
        };
        let old = read();
        let command = ["cert", "renew", path(&dir), "--member", &member, "--force"];
        let mut child = Command::new(BINARY).args(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pending = format!(".killed{round}-next");
        let is_pending = |e: &fs::DirEntry| e.file_name().into_string().unwrap().starts_with(&pending);
        let pending = || fs::read_dir(world.dir.path()).unwrap().filter(|e| is_pending(e.as_ref().unwrap())).count();
        while pending() == 0 && !dir.is_symlink() {
            // why: the key appears when the renewal begins, and nothing tells of it
            std::thread::sleep(Duration::from_micros(100));
        }
        // why: one of many points of the renewal, which takes some tens of milliseconds from there
        std::thread::sleep(Duration::from_millis(6 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let is_new = read() != old;
        (swapped, begun) = (swapped + u32::from(is_new), begun + pending());
        let said = run(&command);
        // One that was over is not renewed twice.
        assert!(said.code == i32::from(is_new), "{said:?}");
        assert!(read() != old && (is_new || pending() == 0), "{said:?}");
    }
    assert!(begun > 0, "none was killed on its way");
    println!("{begun} were killed between the key and the end, {swapped} after the files were replaced");
}

#[test]
fn renewals_at_the_same_time_do_not_cross() {
    let world = World::new();
    let node = world.founder();
    let (pay, member) = (Pay::issue(&world, &node, &[]), node.client_address());
    let said: Vec<Said> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..6).map(|_| scope.spawn(|| pay.renew(&member, &["--force"]))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(said.iter().filter(|said| said.code == 0).count(), 1, "{said:?}");
    for said in said.iter().filter(|said| said.code == 3) {
        failed(said, 3, &["is under way"]);
    }
    pay.client();
    assert_eq!(pay.curl(&member), "403");
    // As one that is under way keeps it.
    let lock = fs::File::open(&pay.dir).unwrap();
    lock.lock().unwrap();
    failed(&pay.renew(&member, &[]), 3, &["is under way"]);
    lock.unlock().unwrap();
    pay.renew(&member, &[]).ok();
}
