//! Requests of HTTP: JSON there, and the answer as it is.

use countersign::ClientChannel;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri, header};
use serde_json::Value;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::{ANSWER_LEN_MAX, advice, countersign_code, data, refused};
use crate::args::Call;
use crate::failure::{Exit, Failure, chain};
use crate::output::{Output, print, print_bytes, printable};

pub(super) async fn call(
    mut channel: ClientChannel,
    args: &Call,
    path: PathAndQuery,
    output: Output,
) -> Result<(), Failure> {
    let data = data(args)?;
    let default = if data.is_some() { Method::POST } else { Method::GET };
    let has_data = data.is_some();
    let mut request = Request::new(Body::new(Full::new(data.unwrap_or_default().into())));
    *request.method_mut() = args.method.clone().unwrap_or(default);
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("application/json, */*;q=0.5"));
    if has_data {
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    }
    let failed = |status: tonic::Status| refused(&status, &args.at);
    let answer = channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_LEN_MAX).collect().await.map_err(|error| {
        let why = if error.is::<LengthLimitError>() {
            format!("{} answers more than {ANSWER_LEN_MAX} bytes", args.at)
        } else {
            format!("the answer of {} broke off: {}", args.at, chain(error.as_ref()))
        };
        Failure::unreachable(why, "look at the log of the service")
    })?;
    let body = body.to_bytes();
    let value: Option<Value> = serde_json::from_slice(&body).ok();
    let text = String::from_utf8_lossy(&body);
    let generation = head.headers.get(countersign::GENERATION).and_then(|at| at.to_str().ok()?.parse::<u64>().ok());
    if output.json {
        let body = value.clone().unwrap_or_else(|| Value::String(text.clone().into_owned()));
        output.show(&Answered { status: head.status.as_u16(), generation, body: &body }, |_| {})?;
    } else {
        let by = generation.map(|at| format!(", generation {at}")).unwrap_or_default();
        // Beside the body, so that scripts read that alone.
        eprintln!("HTTP {}{by}", head.status);
        if output.terminal {
            text.lines().try_for_each(|line| print(&format!("{}\n", printable(line))))?;
        } else {
            print_bytes(&body)?;
        }
    }
    judged(head.status, generation, value.as_ref(), &text, args)
}

#[derive(serde::Serialize)]
struct Answered<'a> {
    status: u16,
    /// By which rules it was decided, if the service told.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    body: &'a Value,
}

/// What the status means for the caller.
fn judged(
    status: StatusCode,
    generation: Option<u64>,
    body: Option<&Value>,
    text: &str,
    args: &Call,
) -> Result<(), Failure> {
    let exit = match status {
        StatusCode::BAD_REQUEST => Exit::Usage,
        status if status.is_client_error() => Exit::Refused,
        status if status.is_server_error() => Exit::Unreachable,
        _ => return Ok(()),
    };
    // Problem details (RFC 9457), where a member answers itself.
    let field = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str);
    let generation = generation.map(|at| format!(", generation {at}")).unwrap_or_default();
    let failure = field("failure_id").map(|id| format!(" (failure {id})")).unwrap_or_default();
    let said = field("title").or_else(|| text.lines().next()).unwrap_or_default();
    let said: String = said.chars().take(200).collect();
    let reason =
        format!("{} answers {status}{}{generation}: {said}{failure}", args.at, countersign_code(field("code")));
    let denied = matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED);
    Err(Failure::new(exit, reason, advice(denied, exit)))
}
