//! `countersign server`: one member of a cluster, as a process. What the member is and does is the library's; here are
//! its configuration, its signals and its log.

mod advice;
mod announce;
mod plan;
mod progress;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use countersign::datadir::DataDirError;
use countersign::{Member, NodeError, Services, StartError, Started, WhoamiService};
use countersign_core::authz::Requirement;
use countersign_raft::GroupStopped;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::ServerArgs;
use crate::config::checked::{Said, ServerConfig, Settings};
use crate::config::effective::effective;
use crate::config::layer::{LayerError, merged, of_credentials, of_environment, of_file};
use crate::failure::{Failure, chain};
use crate::output::Output;
use plan::Plan;
use progress::Progress;

pub(super) fn run(args: ServerArgs, output: Output) -> Result<(), Failure> {
    // Whatever is made from here on, by whatever library, is this user's alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let check = args.check;
    let settings = settings(args)?;
    let config = ServerConfig::check(&settings).map_err(|error| Failure::usage(&error, error.advice()))?;
    if check {
        let mut effective = effective(&settings, &config);
        effective.note(check_directory(&config)?);
        return output.show(&effective, |text| {
            effective.lines().iter().for_each(|line| text.line(line));
            effective.notes().iter().for_each(|note| text.line(&format!("# note: {note}")));
        });
    }
    if let Some(written) = config.unavailable.first() {
        return Err(Failure::usage(format!("{written} is not available in this version"), "leave it out"));
    }
    if let Some(missing) = missing_file(&settings, &config) {
        let written = settings.written(GENERATE);
        let reason = format!("`{}` is missing, and {written} is not available in this version", missing.display());
        return Err(Failure::usage(
            reason,
            "put the file there, or leave the paths out: then the cluster makes certificates",
        ));
    }
    raise_descriptors();
    let plan = plan::plan(&config)?;
    let progress = Progress::new();
    log_to_stderr(&config.log, &progress);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unreachable(error, "look at the limits of this session"))?;
    let ended = runtime.block_on(serve(plan, output, &progress));
    progress.end();
    // A second signal leaves tasks behind; they must not hold the process.
    runtime.shutdown_background();
    ended
}

/// Judges the data directory, if there is one, as the start does.
fn check_directory(config: &ServerConfig) -> Result<Option<String>, Failure> {
    if !config.data.exists() {
        return Ok(None);
    }
    let plan = plan::plan(config)?;
    let data = config.data.display();
    match Member::check(&plan.settings, &plan.start) {
        Ok(Some(member)) => {
            Ok(Some(format!("`{data}` holds node `{}` of cluster `{}`", member.name, member.cluster_name)))
        }
        Ok(None) => Ok(Some(format!("`{data}` holds no member yet"))),
        Err(StartError::Node(NodeError::DataDir(DataDirError::InUse { .. }))) => {
            Ok(Some(format!("`{data}` is in use by a running server, and was not looked at")))
        }
        Err(error) => Err(advice::failure(&error)),
    }
}

const GENERATE: &str = "cluster.authentication.generate_certs_if_missing";

/// A file of a certificate made elsewhere that is to be generated. Where no paths are given, the cluster makes
/// certificates anyway.
fn missing_file<'a>(settings: &Settings, config: &'a ServerConfig) -> Option<&'a Path> {
    let files = config.files.as_ref().filter(|_| settings.flag(GENERATE))?;
    [&files.ca, &files.cert, &files.key].into_iter().map(PathBuf::as_path).find(|path| !path.exists())
}

/// As many descriptors as the host allows this process: each connection takes two.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit on descriptors stays as it is");
    }
}

fn settings(args: ServerArgs) -> Result<Settings, Failure> {
    let failed = |error: LayerError| Failure::usage(chain(&error), error.advice());
    let flags =
        args.flags.map_err(|(flag, why)| Failure::usage(format!("{flag}: {why}"), "countersign server --help"))?;
    let file = args.config.as_deref().map(of_file).transpose().map_err(failed)?.unwrap_or_default();
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let credentials = of_credentials(credentials.as_deref());
    let environment = of_environment(std::env::vars_os()).map_err(failed)?;
    Ok(Settings(merged([file, credentials, environment, flags])))
}

/// For people on a terminal, as JSON lines elsewhere.
fn log_to_stderr(filter: &str, progress: &Progress) {
    let filter = EnvFilter::try_new(filter).unwrap_or_default();
    let progress = progress.clone();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || progress.log());
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().flatten_event(true).init();
    }
}

async fn serve(plan: Plan, output: Output, progress: &Progress) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let Plan { settings, start, notes, said, requirements } = plan;
    let data = settings.data.clone();
    for note in notes {
        tracing::info!("{note}");
    }
    if let Some(first) = progress::first_step(&start) {
        progress.step(first);
    }
    let serves_clients = settings.client_addr.is_some();
    let starting = async {
        let (opened, started) = Member::open(settings, start).await?;
        let whoami = || Services::builder().grpc(WhoamiService::of(opened.member())).build();
        let services = if serves_clients { whoami() } else { Services::default() };
        Ok((opened.serve(services).await?, started))
    };
    let (member, started) = tokio::select! {
        started = starting => started.map_err(|error| advice::failure(&error))?,
        () = signals.stop(|| false) => {
            let next = "start it again: it goes on where it stopped";
            return Err(Failure::unreachable("stopped by a signal before the member was up", next));
        }
    };
    progress.end();
    announce::announce(&member, started, &data, output)?;
    // Systemd may not be listening; that is no reason not to run.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let ended = until_stopped(&member, &mut signals, &data, (said, &requirements), progress).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    ended?;
    tracing::info!("stopping: leadership is handed over, connections are drained");
    tokio::select! {
        () = member.shutdown() => Ok(()),
        () = signals.stop(|| false) => Err(Failure::unreachable(
            "stopped by a second signal before everything was handed over",
            "nothing: this member's promises are stored, and the next start goes on from them",
        )),
    }
}

async fn until_stopped(
    member: &Member,
    signals: &mut Signals,
    data: &Path,
    (said, requirements): (Said, &[Requirement]),
    progress: &Progress,
) -> Result<(), Failure> {
    let converged = async {
        member.converge(|standing| progress.tell(standing)).await;
        // Only now is it known for sure what the cluster does.
        let view = member.view();
        let of_rules = plan::differing_requirements(requirements, view.policy.requirements());
        for note in plan::differing(said, member.lifetimes()).into_iter().chain(of_rules) {
            tracing::info!("{note}");
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        never = converged => match never {},
        () = signals.stop(|| member.reload_files()) => Ok(()),
        stopped = member.failed() => {
            let next = match &stopped {
                GroupStopped::Apply(_) => "update this binary, then start it again".to_owned(),
                GroupStopped::Shutdown | GroupStopped::Storage(_) | GroupStopped::Panicked => {
                    format!("look at the disk of `{}`, make room if it is full, then start it again", data.display())
                }
            };
            Err(Failure::unreachable(format!("the member stopped by itself: {}", chain(&stopped)), next))
        }
    }
}

/// The signals that a server answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let failed =
            |error| Failure::unreachable(format!("signals cannot be received: {error}"), "report this as a bug");
        let listen = |kind| signal(kind).map_err(failed);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Ends at SIGTERM or SIGINT; answers SIGHUP.
    async fn stop(&mut self, reload: impl Fn() -> bool) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if !reload() {
                        tracing::info!("nothing to reload: no files are given for the HTTPS port");
                    }
                }
            }
        }
    }
}

/// How a start is called.
const fn word(started: Started) -> &'static str {
    match started {
        Started::Again => "again",
        Started::Founded => "founded",
        Started::Joined => "joined",
        Started::Returned => "returned",
    }
}
