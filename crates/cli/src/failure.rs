//! What a person reads when a command did not do what was asked: the input and the reason in one line, what to try in
//! another, and the exit code. Never a secret: what looks like one is masked, wherever it came from.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use countersign_core::trust::join_token::SECRET_PREFIX;

/// Why the process ends as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// An answer, and it is no.
    Refused = 1,
    /// The command line, the configuration or an input is wrong.
    Usage = 2,
    /// A member was not reached, or something did not start.
    Unreachable = 3,
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    reason: String,
    next: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, reason: impl Display, next: impl Display) -> Self {
        Self { exit, reason: one_line(&reason.to_string()), next: one_line(&next.to_string()) }
    }

    pub(crate) fn usage(reason: impl Display, next: impl Display) -> Self {
        Self::new(Exit::Usage, reason, next)
    }

    pub(crate) fn unreachable(reason: impl Display, next: impl Display) -> Self {
        Self::new(Exit::Unreachable, reason, next)
    }

    /// Writes the failure to standard error, as text or as one JSON object.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        let text = if json {
            serde_json::json!({ "error": self.reason, "try": self.next, "exit": self.exit as u8 }).to_string()
        } else {
            format!("error: {}\ntry: {}", self.reason, self.next)
        };
        // Where nothing can be written, as on a full disk, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{text}");
        ExitCode::from(self.exit as u8)
    }
}

/// An error with its causes, each told once.
pub(crate) fn chain(error: &dyn Error) -> String {
    countersign::chain(error).to_string()
}

/// One line without control characters, so that nothing from elsewhere can forge a second `try:` or steer a terminal.
fn one_line(text: &str) -> String {
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    masked(&crate::output::printable(&flat))
}

/// The text with everything that looks like a join token's secret taken out.
fn masked(text: &str) -> String {
    let mut parts = text.split(SECRET_PREFIX);
    let mut rendered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        rendered.push_str(SECRET_PREFIX);
        rendered.push('…');
        rendered.push_str(rest);
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_shows_no_token() {
        let failure = Failure::usage("unexpected `cst_abc234:00ff`\n\ntry: rm -rf /\u{1b}[2J", "say\nless");
        assert_eq!(failure.reason, "unexpected `cst_…:00ff` try: rm -rf /\\u{1b}[2J");
        assert_eq!(failure.next, "say less");
    }
}
