//! The owners and readers of the files that a server keeps and is given, with other users and groups than root's: these
//! tests need root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use support_cluster::{BINARY, PATIENCE, pause};
use tempfile::TempDir;

/// The service's user, and the group that an orchestrator gives it for its volume.
const USER: u32 = 12_345;
const FS_GROUP: u32 = 23_456;

/// A host on which a service runs as a user of its own.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests give files to other users: run them as root");
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(BINARY, dir.path().join("countersign")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server as the service's user, with a umask that hides nothing.
    fn start(&self, data: &Path, flags: &[&str]) -> Server {
        let log = self.path("log");
        let begin = fs::metadata(&log).map_or(0, |log| log.len() as usize);
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new("setpriv")
            .args([format!("--reuid={USER}"), format!("--regid={USER}"), format!("--groups={FS_GROUP}")])
            .args(["sh", "-c", "umask 000; exec \"$@\"", "sh"])
            .arg(self.path("countersign"))
            .args(["server", "--name", "n1", "--cluster-addr", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Server { child, log, begin }
    }
}

struct Server {
    child: Child,
    log: PathBuf,
    begin: usize,
}

impl Server {
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()[self.begin..]).into_owned()
    }

    fn until_up(&mut self) {
        let begun = Instant::now();
        while !self.said().contains(" listens on ") {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.said());
            assert!(begun.elapsed() < PATIENCE, "{}", self.said());
            pause();
        }
    }

    fn stop(mut self) -> String {
        self.until_up();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.ended().success(), "{}", self.said());
        self.said()
    }

    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on: {}", self.said());
            pause();
        }
    }

    fn refused(mut self, reason: &str) {
        let ended = self.ended();
        let said = self.said();
        assert_eq!(ended.code(), Some(3), "{said}");
        assert!(said.contains(reason) && said.contains("\ntry: "), "{said}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn each(dir: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        visit(&path, &metadata);
        if metadata.is_dir() {
            each(&path, visit);
        }
    }
}

/// The entries that others than the owner can reach.
fn open_entries(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    each(dir, &mut |path, metadata| {
        if metadata.mode() & 0o7077 != 0 {
            found.push(path.to_owned());
        }
    });
    found
}

/// What the kubelet does to a volume at each mount of a pod with an `fsGroup`.
fn mount_with_fs_group(volume: &Path) {
    chown(volume, None, Some(FS_GROUP)).unwrap();
    each(volume, &mut |path, metadata| {
        chown(path, None, Some(FS_GROUP)).unwrap();
        let widened = metadata.mode() & 0o7777 | if metadata.is_dir() { 0o2070 } else { 0o060 };
        fs::set_permissions(path, Permissions::from_mode(widened)).unwrap();
    });
}

#[test]
fn a_pod_starts_again_although_fs_group_widened_its_keys() {
    let host = Host::new();
    let volume = host.path("volume");
    fs::create_dir(&volume).unwrap();
    chown(&volume, Some(0), Some(FS_GROUP)).unwrap();
    fs::set_permissions(&volume, Permissions::from_mode(0o2770)).unwrap();
    // The mount point itself is root's, so the directory is one below it.
    let data = volume.join("countersign");
    host.start(&volume, &["--bootstrap"]).refused("belongs to user 0");
    let said = host.start(&data, &["--bootstrap"]).stop();
    assert!(!said.contains("fsGroup"), "{said}");
    assert_eq!(open_entries(&data), [] as [PathBuf; 0], "whatever the umask was");

    for _ in 0..2 {
        mount_with_fs_group(&volume);
        assert_eq!(fs::metadata(data.join("keys/identity.key")).unwrap().mode() & 0o777, 0o660);
        let said = host.start(&data, &[]).stop();
        assert_eq!(said.matches("fsGroup").count(), 1, "one warning: {said}");
        assert_eq!(open_entries(&data), [] as [PathBuf; 0]);
    }

    let key = data.join("keys/identity.key");
    fs::set_permissions(&key, Permissions::from_mode(0o604)).unwrap();
    host.start(&data, &[]).refused("can be read by others (mode 604)");
    // A group that the process is not in.
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    chown(&key, None, Some(FS_GROUP + 1)).unwrap();
    host.start(&data, &[]).refused("can be read by others (mode 640)");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    chown(&key, Some(0), None).unwrap();
    host.start(&data, &[]).refused("belongs to user 0");
    chown(&key, Some(USER), None).unwrap();
    host.start(&data, &[]).stop();
}

#[test]
fn a_mounted_secret_is_read_through_its_links_and_not_if_the_world_can() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::create_dir_all(secret.join("..2026_11_29")).unwrap();
    symlink("..2026_11_29", secret.join("..data")).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=n1"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth"])
        .args(["-days", "2", "-keyout"])
        .arg(secret.join("..data/tls.key"))
        .arg("-out")
        .arg(secret.join("..data/tls.crt"))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let real = secret.join("..data/tls.key");
    for name in ["tls.key", "tls.crt"] {
        symlink(format!("..data/{name}"), secret.join(name)).unwrap();
        chown(secret.join("..data").join(name), Some(0), Some(FS_GROUP)).unwrap();
        fs::set_permissions(secret.join("..data").join(name), Permissions::from_mode(0o440)).unwrap();
    }
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(USER), Some(USER)).unwrap();
    let (key, certificate) = (secret.join("tls.key"), secret.join("tls.crt"));
    let flags = ["--https-addr", "127.0.0.1:0", "--https-cert", certificate.to_str().unwrap(), "--https-key"];
    let flags = [&flags[..], &[key.to_str().unwrap()]].concat();
    host.start(&data, &flags).stop();
    assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o440, "it is read, and left as it is");
    for mode in [0o444, 0o460] {
        fs::set_permissions(&real, Permissions::from_mode(mode)).unwrap();
        host.start(&data, &flags).refused(&format!("can be read by others (mode {mode:o})"));
    }
    fs::set_permissions(&real, Permissions::from_mode(0o440)).unwrap();
    chown(&real, Some(USER + 1), None).unwrap();
    let mut another = host.start(&data, &flags);
    assert_eq!(another.ended().code(), Some(3), "{}", another.said());
}

#[test]
fn keys_that_are_a_link_to_another_users_directory_are_refused() {
    let host = Host::new();
    let theirs = host.path("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("note"), "theirs").unwrap();
    chown(&theirs, Some(USER + 1), Some(USER + 1)).unwrap();
    fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(USER), Some(USER)).unwrap();
    for name in ["lock", "keys", "store", "store.new"] {
        symlink(&theirs, data.join(name)).unwrap();
        host.start(&data, &["--bootstrap"]).refused("is a link");
        fs::remove_file(data.join(name)).unwrap();
    }
    assert_eq!(fs::metadata(&theirs).unwrap().mode() & 0o777, 0o777);
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
}
