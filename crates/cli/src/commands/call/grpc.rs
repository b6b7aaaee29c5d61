//! Calls of gRPC: one message there, and all that come back.

use std::time::Duration;

use bytes::Bytes;
use countersign::ClientChannel;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use hyper::http::uri::PathAndQuery;
use prost_reflect::prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::Request;
use tonic::client::Grpc;

use super::codec::AsBytes;
use super::{ANSWER_LEN_MAX, Method, data, refused, schema};
use crate::args::Call;
use crate::failure::{Failure, chain};
use crate::output::{Output, print, printable};

pub(super) async fn call(
    channel: ClientChannel,
    args: &Call,
    method: &Method,
    path: PathAndQuery,
    output: Output,
) -> Result<(), Failure> {
    let data = data(args)?;
    let types = if args.raw { None } else { Some(schema::method(&channel, method, &args.at).await?) };
    let message = match &types {
        None => raw(data.as_deref().unwrap_or_default(), args)?,
        Some(types) => encoded(data.as_deref(), types.input())?,
    };
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(args.deadline));
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_LEN_MAX);
    let failed = |status: tonic::Status| refused(&status, &args.at);
    // As a stream, whatever the method is: the bytes are the same.
    grpc.ready().await.map_err(failed)?;
    let answer = grpc.server_streaming(request, path, AsBytes).await.map_err(failed)?;
    let generation = answer.metadata().get(countersign::GENERATION).and_then(|at| at.to_str().ok()?.parse().ok());
    let mut answers = answer.into_inner();
    let (mut shown, mut length) = (Vec::new(), 0_usize);
    while let Some(message) = answers.message().await.map_err(failed)? {
        length = length.saturating_add(message.len());
        if length > ANSWER_LEN_MAX {
            return Err(too_long(args));
        }
        let value = match &types {
            None => Value::String(HEXLOWER.encode(&message)),
            Some(types) => decoded(message, types.output(), args)?,
        };
        if output.json { shown.push(value) } else { show(&value, output)? }
    }
    let answered = Answered { status: "OK", generation, messages: &shown };
    if output.json { output.show(&answered, |_| {}) } else { Ok(()) }
}

#[derive(serde::Serialize)]
struct Answered<'a> {
    status: &'static str,
    /// By which rules it was decided, if the service told.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    messages: &'a [Value],
}

/// Each message as it comes. JSON has no control characters; hexadecimal digits neither.
fn show(value: &Value, output: Output) -> Result<(), Failure> {
    match value {
        Value::String(hex) => print(&format!("{hex}\n")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            let text = serde_json::to_string_pretty(value).unwrap_or_default();
            if !output.terminal {
                return print(&format!("{text}\n"));
            }
            // Those that reverse the direction of a line are left.
            text.lines().try_for_each(|line| print(&format!("{}\n", printable(line))))
        }
    }
}

fn too_long(args: &Call) -> Failure {
    Failure::unreachable(format!("{} answers more than {ANSWER_LEN_MAX} bytes", args.at), "ask for less")
}

/// A message in hexadecimal or base64; from a file, as it is.
fn raw(data: &[u8], args: &Call) -> Result<Bytes, Failure> {
    if args.data.as_ref().is_some_and(|given| given.starts_with('@')) {
        return Ok(Bytes::copy_from_slice(data));
    }
    let text = data.trim_ascii();
    let message = HEXLOWER_PERMISSIVE.decode(text).or_else(|_| BASE64.decode(text));
    message.map(Bytes::from).map_err(|_| {
        Failure::usage("with --raw, --data is a message in hexadecimal or base64", "give it so, or give @FILE")
    })
}

/// The message that a text in JSON is.
fn encoded(data: Option<&[u8]>, of: MessageDescriptor) -> Result<Bytes, Failure> {
    let name = of.full_name().to_owned();
    let Some(data) = data.filter(|data| !data.trim_ascii().is_empty()) else { return Ok(Bytes::new()) };
    let mut json = serde_json::Deserializer::from_slice(data);
    let message = DynamicMessage::deserialize(of, &mut json).and_then(|message| json.end().map(|()| message));
    let message = message.map_err(|error| {
        Failure::usage(
            format!("--data is not a {name} in JSON: {error}"),
            "see the fields of that message in its schema",
        )
    })?;
    Ok(message.encode_to_vec().into())
}

fn decoded(message: Bytes, of: MessageDescriptor, args: &Call) -> Result<Value, Failure> {
    let name = of.full_name().to_owned();
    let failed = |error: &dyn std::error::Error| {
        let reason = format!("the answer of {} is not a {name}: {}", args.at, chain(error));
        Failure::unreachable(reason, "see its bytes with --raw")
    };
    let message = DynamicMessage::decode(of, message).map_err(|error| failed(&error))?;
    // Fields of no value too: what is shown has one shape.
    let options = SerializeOptions::new().skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| failed(&error))
}
