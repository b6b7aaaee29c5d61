//! `countersign call`: what to call, and as which principal.

use std::path::PathBuf;

use clap::Args;
use countersign_core::name::Address;
use hyper::Method;

use crate::duration::parse_secs;

/// `countersign call`
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The client port of a member, or of a service behind a remote guard
    #[arg(value_name = "HOST:PORT", value_parser = Address::parse)]
    pub(crate) at: Address,
    /// /package.Service/Method for gRPC; any other path, or one with --method, for HTTP
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// The certificate to show, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Its private key, PEM [default: the one in --cert]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The authority that the service's certificate must be under, PEM [default: the one in --cert]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// What to send: JSON, @FILE or - for standard input [default: nothing, or the empty message]
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) data: Option<String>,
    /// HTTP with this method [default: GET, or POST with --data]
    #[arg(long, value_name = "METHOD", conflicts_with = "raw")]
    pub(crate) method: Option<Method>,
    /// gRPC without a schema: --data is the message, in hexadecimal or base64, and answers are shown in hexadecimal
    #[arg(long)]
    pub(crate) raw: bool,
    /// How long all of it may take
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = parse_secs)]
    pub(crate) deadline: u64,
}
