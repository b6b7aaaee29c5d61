//! `countersign call`: one request to a guarded service with a certificate, for trying and for scripts.
//!
//! An answer has a bound and a deadline. What is denied ends with exit code 1, and tells the reason, the generation
//! and the failure id as far as the service told them.

mod codec;
mod grpc;
mod http;
mod schema;

use std::io::Read;
use std::time::Duration;

use countersign::Client;
use countersign_pki::pem::{certificate_pem, certificates_from_pem};
use hyper::http::uri::PathAndQuery;
use tonic::{Code, Status};

use crate::args::Call;
use crate::failure::{Exit, Failure, chain};
use crate::files::{read_private, read_text};
use crate::output::Output;

/// Bytes of what is sent.
const DATA_LEN_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of all that is answered.
const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;

pub(super) async fn run(args: &Call, output: Output) -> Result<(), Failure> {
    let path = PathAndQuery::try_from(args.path.as_str()).ok().filter(|_| args.path.starts_with('/'));
    let Some(path) = path else {
        let reason = format!("`{}` is not the path of a request", args.path);
        return Err(Failure::usage(reason, "write /package.Service/Method, or an HTTP path such as /orders"));
    };
    let channel = client(args)?.channel([args.at.clone()]);
    let call = async {
        match method_of(&path).filter(|_| args.method.is_none()) {
            Some(method) => grpc::call(channel, args, &method, path.clone(), output).await,
            None if args.raw => {
                let reason = format!("`{}` is not the path of a gRPC call", args.path);
                Err(Failure::usage(reason, "write /package.Service/Method, or leave out --raw"))
            }
            None => http::call(channel, args, path.clone(), output).await,
        }
    };
    let within = Duration::from_secs(args.deadline);
    tokio::time::timeout(within, call).await.unwrap_or_else(|_| {
        let reason = format!("{} did not end its answer within {} seconds", args.at, within.as_secs());
        Err(Failure::unreachable(reason, "look at the service, or give it more time with --deadline"))
    })
}

/// A method of a gRPC service.
struct Method {
    service: String,
    name: String,
}

/// The method that a path names: `/package.Service/Method`, with a dot in its first part and no query.
fn method_of(path: &PathAndQuery) -> Option<Method> {
    let (service, name) = path.path().strip_prefix('/')?.split_once('/')?;
    let is_call = service.contains('.') && !name.is_empty() && !name.contains('/') && path.query().is_none();
    is_call.then(|| Method { service: service.to_owned(), name: name.to_owned() })
}

fn client(args: &Call) -> Result<Client, Failure> {
    let certificate = match &args.key {
        Some(_) => read_text(&args.cert, "check --cert")?,
        None => read_private(&args.cert, "check --cert, or name the key with --key")?.as_str().to_owned(),
    };
    let certificate = zeroize::Zeroizing::new(certificate);
    let key = match &args.key {
        Some(key) => read_private(key, "check --key")?,
        None => certificate.clone(),
    };
    let authorities = match &args.ca {
        Some(ca) => read_text(ca, "check --ca")?,
        None => {
            let certificates = certificates_from_pem(&certificate).unwrap_or_default();
            certificates.iter().skip(1).map(|der| certificate_pem(der)).collect()
        }
    };
    Client::from_pem(&certificate, &key, &authorities).map_err(|error| {
        let next = "give the files that one `countersign cert issue` wrote: --cert NAME.pem --key NAME.key --ca ca.pem";
        Failure::usage(format!("`{}` cannot be used: {}", args.cert.display(), chain(&error)), next)
    })
}

/// What is to be sent; none if nothing was given.
fn data(args: &Call) -> Result<Option<Vec<u8>>, Failure> {
    let Some(given) = &args.data else { return Ok(None) };
    let failed = |error: &std::io::Error| {
        Failure::usage(format!("--data {given} cannot be read: {}", chain(error)), "give JSON, @FILE or -")
    };
    let read = |source: &mut dyn Read| {
        let mut bytes = Vec::new();
        source.take(DATA_LEN_MAX + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = match given.strip_prefix('@') {
        Some(file) => std::fs::File::open(file).and_then(|mut file| read(&mut file)).map_err(|error| failed(&error))?,
        None if given == "-" => read(&mut std::io::stdin().lock()).map_err(|error| failed(&error))?,
        None => given.as_bytes().to_vec(),
    };
    if bytes.len() as u64 > DATA_LEN_MAX {
        return Err(Failure::usage(format!("--data holds more than {DATA_LEN_MAX} bytes"), "send less"));
    }
    Ok(Some(bytes))
}

/// What a status of gRPC means for the caller.
fn refused(status: &Status, at: &countersign::Address) -> Failure {
    let exit = match status.code() {
        Code::InvalidArgument => Exit::Usage,
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => Exit::Refused,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Exit::Unreachable,
    };
    let header = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
    let code = countersign_code(header(countersign::REFUSAL));
    let generation = header(countersign::GENERATION).map(|at| format!(", generation {at}")).unwrap_or_default();
    let reason = format!("{at} answers {:?}{code}{generation}: {}", status.code(), status.message());
    Failure::new(exit, reason, advice(matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated), exit))
}

/// The code of a refusal, in brackets.
fn countersign_code(code: Option<&str>) -> String {
    code.map(|code| format!(" [{code}]")).unwrap_or_default()
}

fn advice(denied: bool, exit: Exit) -> &'static str {
    match exit {
        Exit::Refused if denied => {
            "`countersign acl explain` tells which rule is missing, and `countersign explain ID`, on the member that \
             refused, what a failure id stands for"
        }
        Exit::Refused | Exit::Usage => "check the path and --data",
        Exit::Unreachable => "check HOST:PORT, a client port (two above the cluster port), and the log of the service",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_dot_and_two_parts_is_a_call() {
        for (path, call) in [
            ("/countersign.v1.Whoami/Whoami", true),
            ("/grpc.health.v1.Health/Check", true),
            ("/orders", false),
            ("/orders/7", false),
            ("/a.b/", false),
            ("/a.b/c/d", false),
            ("/a.b/c?d", false),
            ("/v1/a.b", false),
        ] {
            assert_eq!(method_of(&path.parse().unwrap()).is_some(), call, "{path}");
        }
    }
}
