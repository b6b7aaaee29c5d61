//! The program that is run once files have changed, such as one that makes a service read them.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

/// How long it may run.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Runs the program, without a shell, for `limit` at most; then it is killed, with what it started. Its output goes to
/// standard error, where it is not taken for this command's.
///
/// # Errors
/// Why it did not succeed, in words.
pub(super) async fn run(program: &OsStr, arguments: &[OsString], limit: Duration) -> Result<(), String> {
    let shown = program.display();
    let failed = |error: std::io::Error| format!("`{shown}` cannot be run: {error}");
    let output = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(output).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("`{shown}` failed: {status}")),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => {
            // The group is there as long as its first process is not waited for.
            let killed = group.map(|group| kill_process_group(group, Signal::KILL));
            let _ = child.wait().await;
            let killed = if matches!(killed, Some(Ok(()))) { "was killed" } else { "cannot be killed" };
            Err(format!("`{shown}` had not ended after {} ms and {killed}", limit.as_millis()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn sh(script: &str, limit: Duration) -> Result<(), String> {
        run(OsStr::new("sh"), &["-c".into(), script.into()], limit).await
    }

    #[tokio::test]
    async fn a_program_that_fails_or_is_missing_is_told() {
        assert_eq!(sh("exit 0", LIMIT).await, Ok(()));
        assert!(sh("exit 3", LIMIT).await.unwrap_err().contains("exit status: 3"));
        let missing = run(OsStr::new("/absent/program"), &[], LIMIT).await.unwrap_err();
        assert!(missing.contains("`/absent/program` cannot be run"), "{missing}");
    }

    #[tokio::test]
    async fn a_program_past_its_limit_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // The child holds the writing end of the pipe: its reader sees the end once no process does.
        let script = format!("sleep 60 > {} & wait", pipe.display());
        let reader = std::thread::spawn(move || std::fs::read(pipe).unwrap());
        let begun = Instant::now();
        let error = sh(&script, Duration::from_millis(200)).await.unwrap_err();
        assert!(error.contains("had not ended after 200 ms and was killed"), "{error}");
        assert_eq!(reader.join().unwrap(), b"");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
