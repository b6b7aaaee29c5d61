//! The `countersign` binary: a command line around the libraries. What could be a decision is made there, not here.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod admin_client;
mod args;
mod commands;
mod config;
mod duration;
mod failure;
mod files;
mod output;
mod secret_arg;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Early;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = arguments.iter().any(|argument| argument == "--json" || argument == "--json=true");
    let result = match args::parse(arguments) {
        Ok(cli) => commands::run(cli),
        Err(Early::Text(text)) => output::print(&text),
        Err(Early::Failure(failure)) => Err(failure),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
