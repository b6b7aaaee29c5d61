//! A member that embeds an axum app, as a process of its own: this test itself, told what to be. It joins a cluster of
//! the real binary as a learner.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Version;
use axum::response::Html;
use axum::routing::get;
use countersign::{Member, Services, Settings, Start};
use countersign_core::name::{Address, Name};
use countersign_core::trust::join_token::JoinToken;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::support_cluster::{Node, World};
use super::endpoint;

/// Tells a process that it is the member, with its directory, ports, join token and sponsor.
const TOLD: &str = "COUNTERSIGN_TEST_APP";

/// What `/orders` shows first.
pub const PAGE: &str = "<p>three orders";

pub struct App {
    pub node: Node,
    process: Option<Child>,
    log: File,
}

impl App {
    /// Joins the cluster of `sponsor`. The test that calls it calls `be_the_member_if_told` first.
    pub fn join(world: &World, sponsor: &Node) -> Self {
        let token = sponsor.token(&["--role", "learner"]);
        let log = File::create(world.path("app.log")).unwrap();
        let mut app = Self { node: world.node("app"), process: None, log };
        app.start("127.0.0.1:0", "127.0.0.1:0", &format!(" {token} {}", sponsor.address()));
        app
    }

    fn start(&mut self, cluster: &str, client: &str, join: &str) {
        let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
        let told = format!("{} {cluster} {client}{join}", self.node.data.display());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", &test, "--nocapture"]).env(TOLD, told);
        command.stdin(Stdio::piped()).stdout(self.log.try_clone().unwrap()).stderr(self.log.try_clone().unwrap());
        self.process = Some(command.spawn().unwrap());
        self.node.until_ready();
    }

    pub fn target(&self) -> String {
        endpoint(&self.node, "client")
    }

    /// The member ends as it should, and starts again at its ports.
    pub fn restart(&mut self) {
        let (cluster, client) = (self.node.address(), self.target());
        let mut process = self.process.take().unwrap();
        drop(process.stdin.take());
        assert!(process.wait().unwrap().success());
        self.start(&cluster, &client, "");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// In the process of a member: is that member until its input ends.
pub fn be_the_member_if_told() {
    let Ok(told) = std::env::var(TOLD) else { return };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let told: Vec<&str> = told.split(' ').collect();
    tokio::runtime::Runtime::new().unwrap().block_on(serve(&told));
    std::process::exit(0);
}

async fn serve(told: &[&str]) {
    let mut settings = Settings::new(told[0], told[1].parse().unwrap());
    settings.client_addr = Some(told[2].parse().unwrap());
    settings.name = Some(Name::parse("app").unwrap());
    let start = match told.get(3..5) {
        Some([token, sponsor]) => {
            Start::Join { token: JoinToken::parse(token).unwrap(), sponsor: Address::parse(sponsor).unwrap() }
        }
        _ => Start::Existing,
    };
    let (opened, _) = Member::open(settings, start).await.unwrap();
    let member = opened.serve(Services::builder().http(pages()).build()).await.unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    member.shutdown().await;
}

/// What it shows.
pub fn pages() -> Router {
    Router::new()
        .route("/orders", get(orders))
        .route("/trials", get(async || Html(include_str!("../stacks/trials.html"))))
        .route("/secret", get(async || "never seen"))
        .route("/ticks", get(ticks))
}

/// The page, the version of HTTP that it was asked in, and which process made it.
async fn orders(version: Version) -> Html<String> {
    Html(format!("{PAGE} by {version:?} of process {}", std::process::id()))
}

/// A body without an end: a line each tenth of a second.
async fn ticks() -> Body {
    let (send, come) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    tokio::spawn(async move {
        while send.send(Ok(Bytes::from_static(b"tick\n"))).await.is_ok() {
            // why: a stream that is slow is the subject
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    Body::from_stream(ReceiverStream::new(come))
}
