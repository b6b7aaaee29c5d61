//! `countersign cert renew`: a certificate agent's one step. A new key, its certificate from a client port, and the
//! files replaced together.
//!
//! The new key is stored before a member is asked: one key has one successor, so an answer that is lost must be asked
//! for with the same key again. No secret is ever shown.

mod ask;
mod identity;
mod swap;
mod then;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use countersign::{Address, KeyAlgorithm, KeyPair};
use countersign_core::limits::SKEW_SECS;
use countersign_core::time::Validity;
use countersign_pki::key::SubjectKey;
use countersign_pki::pem::certificate_pem;
use serde::Serialize;

use self::identity::{Files, Identity};
use self::swap::Pending;
use crate::args::{CertRenew, Target};
use crate::failure::{Exit, Failure, chain};
use crate::output::{Output, at_secs, now_secs};

pub(super) async fn run(target: &Target, args: &CertRenew, output: Output) -> Result<(), Failure> {
    let (files, members) = (files(target, args)?, members(target, args)?);
    let wanted = Renewal { files: &files, members: &members, force: args.force, then: &args.then };
    let done = renew(&wanted).await?;
    output.show(&done, |text| match &done.state {
        State::NotDue { due_at } => {
            let (due, end) = (at_secs(*due_at, now_secs()), at_secs(done.not_after, now_secs()));
            text.line(&format!("{}: not due until {due}; it ends {end}", done.principal));
        }
        State::Renewed { previous_key, previous_not_after, member } => text.fields(&[
            ("principal", done.principal.clone()),
            ("renewed at", member.clone()),
            ("key", done.key.clone()),
            ("expires", at_secs(done.not_after, now_secs())),
            ("key before", previous_key.clone()),
            ("which expires", at_secs(*previous_not_after, now_secs())),
            ("certificate", done.certificate_file.display().to_string()),
            ("private key", done.key_file.display().to_string()),
        ]),
    })?;
    match done.then {
        Some(Then::Failed { why }) => Err(Failure::unreachable(
            format!("{why}; the files are renewed all the same"),
            "run it again by hand, or repeat this command: it runs the program again until that succeeds",
        )),
        Some(Then::Succeeded) | None => Ok(()),
    }
}

/// The files, which lie in one directory: they are replaced together.
fn files(target: &Target, args: &CertRenew) -> Result<Files, Failure> {
    let Target { data, identity, identity_key, ca, remember, .. } = target;
    if data.is_some() || identity_key.is_some() || *remember {
        let next =
            "leave --data, --identity-key and --remember out: a client asks a client port by its own certificate";
        return Err(Failure::usage("these flags are of admins", next));
    }
    if let Some(bundle) = &args.bundle {
        let alone = identity.is_none() && args.key.is_none() && ca.is_none();
        let more = || Failure::usage("--bundle has all of them in one file", "leave --identity, --key and --ca out");
        return if alone { Ok(Files::Bundle(bundle.clone())) } else { Err(more()) };
    }
    let (dir, name) = match (&args.dir, identity) {
        (Some(dir), _) => (dir.clone(), args.name.clone()),
        (None, Some(identity)) => {
            let dir = identity.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = identity.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
            (dir.to_owned(), name)
        }
        (None, None) => return Err(Failure::usage("no files are named", "give DIR, --identity FILE or --bundle FILE")),
    };
    let named = name.clone().unwrap_or_default();
    let of = |file: String| dir.join(file);
    let own =
        [(identity, of(format!("{named}.pem"))), (&args.key, of(format!("{named}.key"))), (ca, of("ca.pem".into()))];
    for (given, expected) in own {
        if given.as_ref().is_some_and(|given| *given != expected && dir.join(given) != expected) {
            let next = "put NAME.pem, NAME.key and ca.pem into one directory: they are replaced together";
            return Err(Failure::usage(format!("`{}` is expected", expected.display()), next));
        }
    }
    Ok(Files::Directory { dir, name })
}

fn members(target: &Target, args: &CertRenew) -> Result<Vec<Address>, Failure> {
    let mut members = args.members.clone();
    if let Some(server) = &target.server {
        let malformed = |reason| {
            Failure::usage(format!("`--server {server}`: {reason}"), "write HOST:PORT, IPv6 addresses in brackets")
        };
        members.push(Address::parse(server).map_err(malformed)?);
    }
    if members.is_empty() {
        return Err(Failure::usage("no member is named", "give its client port: --server HOST:PORT"));
    }
    Ok(members)
}

/// What one step is to do.
pub(super) struct Renewal<'a> {
    files: &'a Files,
    members: &'a [Address],
    /// Also before half of its life is over.
    force: bool,
    /// A program and its arguments; empty for none.
    then: &'a [OsString],
}

/// What one step did.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    principal: String,
    #[serde(flatten)]
    state: State,
    /// SHA-256 of the key that the files hold now.
    key: String,
    /// The last second of the certificate that the files hold now, since 1970.
    not_after: u64,
    certificate_file: PathBuf,
    key_file: PathBuf,
    /// What became of the program; absent if none was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<Then>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum State {
    NotDue { due_at: u64 },
    Renewed { previous_key: String, previous_not_after: u64, member: String },
}

#[derive(Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Then {
    Succeeded,
    Failed { why: String },
}

/// One step, for a command or a loop: renews if it is due, and runs the program if the files changed, or if they did
/// and it has not succeeded since.
///
/// # Errors
/// Whatever fails, the files are the old or the new ones, together.
pub(super) async fn renew(wanted: &Renewal<'_>) -> Result<Done, Failure> {
    // Held until the end: another renewal of these files would take the same number, and ask with another key.
    let place = wanted.files.find()?;
    let identity = place.read()?;
    let now = now_secs();
    let validity = identity.validity;
    let due_at = due(validity);
    let mut done = Done {
        principal: identity.principal.to_string(),
        state: State::NotDue { due_at },
        key: identity.key.id().to_string(),
        not_after: validity.not_after.secs(),
        certificate_file: place.certificate_file(),
        key_file: place.key_file(),
        then: None,
    };
    if now > validity.not_after.secs() {
        return Err(ended(&identity, wanted.files));
    }
    if now >= due_at || wanted.force {
        let pending = Pending::of(&place, &identity.key.id());
        let key = next_key(&pending, &identity)?;
        let answer = ask::renewed(&identity, wanted, &key).await?;
        let chain: String = answer.chain.iter().map(|der| certificate_pem(der)).collect();
        let pem = key.to_pem().map_err(|error| Failure::unreachable(crate::failure::chain(&error), "try again"))?;
        let failed = |error: &std::io::Error| unwritable(error, place.shown());
        if !wanted.then.is_empty() {
            place.to_tell(&chain).map_err(|error| failed(&error))?;
        }
        place.replace(&chain, pem.expose()).map_err(|error| failed(&error))?;
        pending.remove();
        let previous_key = core::mem::replace(&mut done.key, key.id().to_string());
        let previous_not_after = core::mem::replace(&mut done.not_after, answer.not_after);
        done.state = State::Renewed { previous_key, previous_not_after, member: answer.member.to_string() };
        tell(&place, wanted.then, &mut done).await;
    } else if !wanted.then.is_empty() && place.is_untold(&identity.certificate) {
        tell(&place, wanted.then, &mut done).await;
    }
    Ok(done)
}

async fn tell(place: &identity::Place, then: &[OsString], done: &mut Done) {
    let Some((program, arguments)) = then.split_first() else { return };
    done.then = Some(match then::run(program, arguments, then::LIMIT).await {
        Ok(()) => {
            place.told();
            Then::Succeeded
        }
        Err(why) => Then::Failed { why },
    });
}

/// From when on a timer renews: half of its life before its end. Its successor is then due once it has ended itself,
/// which the cluster asks for.
fn due(Validity { not_before, not_after }: Validity) -> u64 {
    let life = not_after.secs().saturating_sub(not_before.secs()).saturating_sub(SKEW_SECS);
    not_after.secs().saturating_sub(life / 2).saturating_add(1)
}

/// The key to ask with: one that was stored by a renewal that did not come to its end, or a new one, stored first.
fn next_key(pending: &Pending, identity: &Identity) -> Result<KeyPair, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::unreachable(chain(error), "try again");
    if let Some(pem) = pending.read().map_err(|error| unwritable(&error, pending.path()))?
        && let Ok(key) = KeyPair::from_pem(&pem)
    {
        return Ok(key);
    }
    let algorithm = match SubjectKey::parse(&identity.key.spki()) {
        Ok(SubjectKey::Ed25519(_)) => KeyAlgorithm::Ed25519,
        Ok(SubjectKey::P256(_)) | Err(_) => KeyAlgorithm::P256,
    };
    let key = KeyPair::generate(algorithm).map_err(|error| failed(&error))?;
    let pem = key.to_pem().map_err(|error| failed(&error))?;
    pending.write(pem.expose()).map_err(|error| unwritable(&error, pending.path()))?;
    Ok(key)
}

/// The certificate proves nothing any more: an admin must issue one.
fn ended(identity: &Identity, files: &Files) -> Failure {
    let reason = format!(
        "the certificate of {} ended {}: it renews nothing any more",
        identity.principal.role,
        at_secs(identity.validity.not_after.secs(), now_secs())
    );
    Failure::new(Exit::Refused, reason, issue_again(identity, files))
}

/// The command of an admin that makes the files again.
fn issue_again(identity: &Identity, files: &Files) -> String {
    let role = identity.principal.role.to_string();
    let (kind, name) = role.split_once('/').unwrap_or(("client", "NAME"));
    let out = match files {
        Files::Directory { dir, .. } => format!(" --out {} --force", dir.display()),
        Files::Bundle(_) => " --out DIR".to_owned(),
    };
    format!("have an admin issue another: countersign cert issue --{kind} {name}{out}")
}

fn unwritable(error: &std::io::Error, path: &Path) -> Failure {
    if error.kind() == std::io::ErrorKind::ResourceBusy {
        let reason =
            format!("`{}` cannot be replaced: it is mounted, or a file system is mounted in it", path.display());
        return Failure::usage(reason, "move the files to a directory within what is mounted, and renew them there");
    }
    let next = "look at the space and at the permissions of the directory beside it; the old files are as they were, \
                and the same command goes on from here";
    Failure::unreachable(format!("`{}` cannot be replaced: {}", path.display(), chain(error)), next)
}

#[cfg(test)]
mod tests {
    use countersign_core::time::UnixMillis;

    use super::*;

    #[test]
    fn a_successor_is_due_once_its_predecessor_has_ended() {
        // Leaves are backdated by the allowance for clocks.
        let issued = |at: u64, ttl: u64| Validity {
            not_before: UnixMillis((at - SKEW_SECS) * 1000),
            not_after: UnixMillis((at + ttl) * 1000),
        };
        for ttl in [1, 8, 9, 3600, 90 * 86_400] {
            let first = issued(1_000_000, ttl);
            let at = due(first);
            assert!(at > 1_000_000 && at <= first.not_after.secs() + 1, "{ttl}: {at}");
            assert!(due(issued(at, ttl)) > first.not_after.secs(), "{ttl}");
        }
    }
}
