//! What each verb does.

mod acl;
mod call;
mod cert;
mod cluster;
mod completions;
pub(crate) mod demo;
mod enforcement;
mod eval;
mod explain;
mod label;
mod man;
mod node;
mod renew;
mod security;
mod server;
mod status;
mod token;

use crate::args::{Cli, Verb};
use crate::failure::Failure;
use crate::output::Output;

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::stdout(cli.json);
    match cli.verb {
        Verb::Server(args) => server::run(args, output),
        Verb::Status(args) => asking(status::run(&args, output)),
        Verb::Token(args) => asking(token::run(args, output)),
        Verb::Node(args) => asking(node::run(args, output)),
        Verb::Cluster(args) => asking(cluster::run(args, output)),
        Verb::Cert(args) => asking(cert::run(args, output)),
        Verb::Call(args) => asking(call::run(&args, output)),
        Verb::Acl(args) => asking(acl::run(args, output)),
        Verb::Explain(args) => asking(explain::run(&args, output)),
        Verb::Security(args) => security::run(args, output),
        Verb::Eval(args) => eval::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::Demo(args) => demo::run(&args, cli.json),
    }
}

/// Runs a command that asks a member.
fn asking(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unreachable(error, "look at the limits of this session"))?;
    runtime.block_on(command)
}
