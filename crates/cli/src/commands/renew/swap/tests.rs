//! Ends at every step, readers beside renewals, and modes: the files are always of one renewal.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Files of one identity, and one that is not renewed.
fn issued(world: &Path) -> PathBuf {
    let dir = world.join("pay");
    DirBuilder::new().mode(0o750).create(&dir).unwrap();
    for (name, mode) in [("pay.pem", 0o644), ("pay.key", 0o640), ("ca.pem", 0o444)] {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(name)).unwrap();
        fs::write(dir.join(name), if name == "ca.pem" { "ca" } else { "0" }).unwrap();
        fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o750)).unwrap();
    dir
}

fn renew(dir: &Path, content: &str, before: Before<'_>) -> io::Result<()> {
    let bytes = content.as_bytes();
    let changed = [("pay.pem".to_owned(), bytes), ("pay.key".to_owned(), bytes)];
    Versions::find(Beside::of(dir)?)?.replace(&changed, before)
}

/// What a reader finds that resolves the path once: certificate, key and authority.
fn found(dir: &Path) -> (String, String, String) {
    let real = fs::canonicalize(dir).unwrap();
    let read = |name| fs::read_to_string(real.join(name)).unwrap();
    (read("pay.pem"), read("pay.key"), read("ca.pem"))
}

fn names(world: &Path) -> Vec<String> {
    let entries = fs::read_dir(world).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn steps(dir: &Path, content: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    renew(dir, content, &mut |step| {
        steps.push(step);
        Ok(())
    })
    .unwrap();
    steps
}

#[test]
fn a_directory_becomes_a_link_and_one_version_is_kept() {
    let world = tempfile::tempdir().unwrap();
    let dir = issued(world.path());
    for (content, kept) in [("1", ".pay-0"), ("2", ".pay-1"), ("3", ".pay-2")] {
        renew(&dir, content, &mut |_| Ok(())).unwrap();
        assert_eq!(found(&dir), (content.to_owned(), content.to_owned(), "ca".to_owned()));
        assert_eq!(names(world.path()), [kept, &format!(".pay-{content}"), "pay"]);
        let target = fs::read_link(&dir).unwrap();
        assert_eq!(target.to_str().unwrap(), format!(".pay-{content}"), "relative, so that its parent may move");
    }
    // Named by its version, the link is meant.
    renew(&world.path().join(".pay-3"), "4", &mut |_| Ok(())).unwrap();
    assert_eq!(found(&dir).0, "4");
}

#[test]
fn modes_owner_and_group_stay_and_secrets_are_never_open() {
    let world = tempfile::tempdir().unwrap();
    let dir = issued(world.path());
    let root = rustix::process::geteuid().is_root();
    if root {
        for name in ["", "pay.key", "pay.pem"] {
            let path = if name.is_empty() { dir.clone() } else { dir.join(name) };
            fchown(File::open(path).unwrap(), Some(Uid::from_raw(4001)), Some(Gid::from_raw(4002))).unwrap();
        }
    }
    for content in ["1", "2"] {
        let before = |name: &str| fs::metadata(dir.join(name)).unwrap();
        let old: Vec<Metadata> = ["", "pay.key", "pay.pem", "ca.pem"].map(before).into();
        let staging = world.path().join(".pay-new");
        renew(&dir, content, &mut |step| {
            if step != Step::Name
                && let Ok(made) = fs::metadata(&staging)
            {
                assert_eq!(made.mode() & 0o777, 0o700, "what is not complete is its owner's alone");
            }
            Ok(())
        })
        .unwrap();
        for (old, name) in old.iter().zip(["", "pay.key", "pay.pem", "ca.pem"]) {
            let new = before(name);
            assert_eq!((new.mode(), new.uid(), new.gid()), (old.mode(), old.uid(), old.gid()), "{name}");
        }
        assert_eq!(before("pay.key").mode() & 0o777, 0o640);
        assert_eq!(before("pay.key").gid() == 4002, root);
    }
}

#[test]
fn an_end_at_any_step_leaves_the_old_or_the_new_files() {
    for linked in [false, true] {
        let world = tempfile::tempdir().unwrap();
        let dir = issued(world.path());
        if linked {
            renew(&dir, "0", &mut |_| Ok(())).unwrap();
        }
        let count = {
            let other = tempfile::tempdir().unwrap();
            let dir = issued(other.path());
            if linked {
                renew(&dir, "0", &mut |_| Ok(())).unwrap();
            }
            steps(&dir, "1").len()
        };
        assert!(count >= 9, "{count}");
        for end in 0..count {
            let world = tempfile::tempdir().unwrap();
            let dir = issued(world.path());
            if linked {
                renew(&dir, "0", &mut |_| Ok(())).unwrap();
            }
            let left = Cell::new(end);
            let last = Cell::new(None);
            let ended = renew(&dir, "1", &mut |step| {
                last.set(Some(step));
                if left.replace(left.get().wrapping_sub(1)) == 0 { Err(io::Error::other("ended")) } else { Ok(()) }
            });
            assert!(ended.is_err(), "{end} of {count}");
            let (certificate, key, ca) = found(&dir);
            let swapped = matches!(last.get(), Some(Step::Aside | Step::Remove));
            assert_eq!(certificate, key, "before {:?}", last.get());
            assert_eq!(
                (certificate.as_str(), ca.as_str()),
                (if swapped { "1" } else { "0" }, "ca"),
                "{:?}",
                last.get()
            );
            // The next renewal goes on from here, and leaves nothing behind but one version.
            renew(&dir, "2", &mut |_| Ok(())).unwrap();
            assert_eq!(found(&dir), ("2".to_owned(), "2".to_owned(), "ca".to_owned()));
            assert_eq!(names(world.path()).len(), 3, "{:?}: {:?}", last.get(), names(world.path()));
        }
    }
}

/// Where two names cannot be exchanged, an end between two renames leaves no directory, but a link to the new one.
#[test]
fn a_link_that_was_not_put_in_place_is_put_there_later() {
    let world = tempfile::tempdir().unwrap();
    let dir = issued(world.path());
    let result = renew(&dir, "1", &mut |step| if step == Step::Swap { Err(io::Error::other("ended")) } else { Ok(()) });
    assert!(result.is_err());
    fs::rename(&dir, world.path().join(".pay-0")).unwrap();
    assert_eq!(Versions::find(Beside::of(&dir).unwrap()).unwrap().number, Some(1));
    assert_eq!(found(&dir).0, "1");
}

#[test]
fn a_reader_that_resolves_the_path_once_finds_no_mixture() {
    let world = tempfile::tempdir().unwrap();
    let dir = issued(world.path());
    let done = AtomicBool::new(false);
    let (dir, done) = (&dir, &done);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut read, mut seen) = (0, std::collections::BTreeSet::new());
            while !done.load(Ordering::SeqCst) {
                // The name is always there. A version that is two renewals old may be gone by the time it is opened.
                fs::symlink_metadata(dir).unwrap();
                let Ok(real) = fs::canonicalize(dir) else { continue };
                let pair = (fs::read_to_string(real.join("pay.pem")), fs::read_to_string(real.join("pay.key")));
                if let (Ok(certificate), Ok(key)) = pair {
                    // A migrated directory keeps its name for a reader that resolved it before it was a link.
                    assert!(certificate == key || certificate == "0", "{certificate} {key}");
                    seen.insert(certificate);
                    read += 1;
                }
            }
            (read, seen.len())
        });
        for content in 1..=200 {
            renew(dir, &content.to_string(), &mut |_| Ok(())).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        let (read, seen) = reader.join().unwrap();
        assert!(read > 0 && seen > 0, "{read} {seen}");
        println!("{read} pairs read, {seen} of 201 versions seen");
    });
}

#[test]
fn one_file_is_replaced_whole_with_its_mode_and_group() {
    let world = tempfile::tempdir().unwrap();
    let path = world.path().join("pay.pem");
    let write = |content: &str, before: Before<'_>| {
        replace_file(&Beside::of(&path).unwrap(), &path, content.as_bytes(), before)
    };
    fs::write(&path, "0").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        fchown(File::open(&path).unwrap(), None, Some(Gid::from_raw(4002))).unwrap();
    }
    for end in [Step::Clear, Step::Write, Step::Swap] {
        let ended = write("1", &mut |step| if step == end { Err(io::Error::other("ended")) } else { Ok(()) });
        assert!(ended.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "0", "{end:?}");
    }
    write("1", &mut |_| Ok(())).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.gid() == 4002), (0o640, root));
    assert_eq!(names(world.path()), ["pay.pem"]);
}

#[test]
fn a_path_that_ends_in_no_name_is_refused() {
    for path in ["/", "..", "/tmp/.."] {
        assert!(Beside::of(Path::new(path)).is_err(), "{path}");
    }
}

#[test]
fn root_renews_only_where_others_put_nothing_in_its_way() {
    for (owner, mode, safe) in [
        (0, 0o755, true),
        (0, 0o1777, true),
        (0, 0o775, false),
        (0, 0o757, false),
        (1000, 0o755, false),
        (1000, 0o700, false),
    ] {
        assert_eq!(safe_for_root(owner, mode), safe, "{owner} {mode:o}");
    }
    let world = tempfile::tempdir().unwrap();
    let beside = Beside::of(&issued(world.path())).unwrap();
    beside.check_owner().unwrap();
    if rustix::process::geteuid().is_root() {
        fchown(File::open(world.path()).unwrap(), Some(Uid::from_raw(4001)), None).unwrap();
        assert!(beside.check_owner().unwrap_err().to_string().contains("other than root"));
    }
}

/// An entry that became a link meanwhile is not read.
#[test]
fn a_link_is_neither_read_nor_given_away() {
    let world = tempfile::tempdir().unwrap();
    let (secret, link) = (world.path().join("secret"), world.path().join("link"));
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, &link).unwrap();
    assert!(opened(&secret).is_ok());
    assert!(opened(&link).is_err());
}

#[test]
fn what_is_mounted_is_refused_before_a_member_is_asked() {
    let mounts = "22 1 0:20 / /proc rw - proc proc rw\n30 1 254:1 /x /etc/pay rw - ext4 /dev/vda rw\n";
    for (path, mounted) in
        [("/etc/pay", true), ("/etc", true), ("/etc/pay/id", false), ("/etc/pa", false), ("/s", false)]
    {
        assert_eq!(is_mounted(mounts, Path::new(path)), mounted, "{path}");
    }
}
