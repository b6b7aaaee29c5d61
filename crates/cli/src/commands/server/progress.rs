//! What a start is waiting for: one moving line on a terminal, lines of the log elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use countersign::{Standing, Start};
use indicatif::{ProgressBar, ProgressStyle};

/// How often the line moves.
const TICK: Duration = Duration::from_millis(100);

/// The line. Clones are the same.
#[derive(Clone)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Nothing is shown before the first step, and nothing ever where standard error is no terminal.
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// The thing that is waited for from here on.
    pub(super) fn step(&self, waits_for: String) {
        if self.0.is_hidden() {
            tracing::info!("{waits_for}");
            self.0.reset();
        } else {
            self.0.set_message(waits_for);
            self.0.reset();
            self.0.enable_steady_tick(TICK);
        }
    }

    /// Nothing is waited for any more; the line is taken away.
    pub(super) fn end(&self) {
        self.0.disable_steady_tick();
        self.0.finish_and_clear();
    }

    /// What a member that is up still waits for.
    pub(super) fn tell(&self, standing: Standing) {
        match standing {
            Standing::CatchingUp => self.step("waiting for the leader, and for what happened before".to_owned()),
            Standing::BecomingVoter => self.step("opening the CA key, and waiting to be counted as a voter".to_owned()),
            Standing::Converged(role) => {
                self.end();
                tracing::info!("this member has converged as a {role}");
            }
        }
    }

    /// Where the log goes: the moving line makes way for it.
    pub(super) fn log(&self) -> LogWriter {
        LogWriter(self.clone())
    }
}

/// The first step of a start.
pub(super) fn first_step(start: &Start) -> Option<String> {
    match start {
        Start::Join { sponsor, .. } => Some(format!("joining through {sponsor}: waiting to be admitted")),
        Start::Bootstrap(_) => Some("making the cluster".to_owned()),
        Start::ReturnAsLearner { .. } => Some("returning: waiting until the cluster takes this node back".to_owned()),
        Start::Existing => None,
    }
}

/// Standard error beside the moving line.
pub(super) struct LogWriter(Progress);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
