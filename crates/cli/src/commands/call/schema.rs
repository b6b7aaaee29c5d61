//! The schema of a service: our own, and that of health, are known here; others are learned by reflection
//! (grpc.reflection.v1). What a service says of itself is bounded, and only shapes messages.

use std::collections::BTreeMap;

use countersign::ClientChannel;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::{Code, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ErrorResponse, ServerReflectionRequest};

use super::{Method, refused};
use crate::failure::{Exit, Failure, chain};

/// Files of one schema.
const FILES_MAX: usize = 256;
/// Bytes of an answer to one question about it.
const FILE_LEN_MAX: usize = 1024 * 1024;

/// Why a schema was not learned.
enum Unknown {
    /// The service does not answer such questions, or not this caller.
    Untold(String),
    /// Anything else.
    Failed(Failure),
}

/// The method with the types of its messages.
pub(super) async fn method(
    channel: &ClientChannel,
    wanted: &Method,
    at: &countersign::Address,
) -> Result<MethodDescriptor, Failure> {
    let known = known().map_err(|error| Failure::unreachable(chain(&error), "report this as a bug"))?;
    let pool = if known.get_service_by_name(&wanted.service).is_some() {
        known
    } else {
        reflected(channel, wanted, at).await.map_err(|unknown| match unknown {
            Unknown::Failed(failure) => failure,
            Unknown::Untold(why) => Failure::new(
                Exit::Refused,
                format!("{at} does not tell the schema of {}: {why}", wanted.service),
                "serve grpc.reflection.v1 there and allow it (write on \
                 service:grpc.reflection.v1.ServerReflection/ServerReflectionInfo), or send the message with --raw",
            ),
        })?
    };
    let service = pool.get_service_by_name(&wanted.service);
    let method = service.and_then(|service| service.methods().find(|method| method.name() == wanted.name));
    method.ok_or_else(|| {
        let reason = format!("service {} has no method {}", wanted.service, wanted.name);
        Failure::usage(reason, "check the path")
    })
}

/// The schemas that every member serves.
fn known() -> Result<DescriptorPool, prost_reflect::DescriptorError> {
    let mut pool = DescriptorPool::global();
    pool.decode_file_descriptor_set(countersign_api::DESCRIPTORS)?;
    pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
    Ok(pool)
}

async fn reflected(
    channel: &ClientChannel,
    wanted: &Method,
    at: &countersign::Address,
) -> Result<DescriptorPool, Unknown> {
    let mut pool = DescriptorPool::global();
    let mut files = BTreeMap::new();
    let mut missing = Vec::new();
    let mut question = Some(MessageRequest::FileContainingSymbol(wanted.service.clone()));
    while let Some(asked) = question {
        for file in answer(channel, asked, at).await? {
            missing.extend(file.dependency.iter().cloned());
            if pool.get_file_by_name(file.name()).is_none() {
                files.insert(file.name().to_owned(), file);
            }
        }
        if files.len() > FILES_MAX {
            return Err(Unknown::Untold(format!("it has more than {FILES_MAX} files")));
        }
        missing.retain(|name| !files.contains_key(name) && pool.get_file_by_name(name).is_none());
        question = missing.pop().map(MessageRequest::FileByFilename);
    }
    pool.add_file_descriptor_protos(files.into_values()).map_err(|error| Unknown::Untold(chain(&error)))?;
    Ok(pool)
}

/// Asks one question about the schema.
async fn answer(
    channel: &ClientChannel,
    question: MessageRequest,
    at: &countersign::Address,
) -> Result<Vec<FileDescriptorProto>, Unknown> {
    let mut client = ServerReflectionClient::new(channel.clone()).max_decoding_message_size(FILE_LEN_MAX);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let asked = async {
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
        answers.message().await
    };
    let answer = asked.await.map_err(|status| untold(&status, at))?;
    match answer.and_then(|answer| answer.message_response) {
        Some(MessageResponse::FileDescriptorResponse(told)) => {
            let files = told.file_descriptor_proto.iter().map(|bytes| FileDescriptorProto::decode(bytes.as_slice()));
            files.collect::<Result<_, _>>().map_err(|error| Unknown::Untold(chain(&error)))
        }
        Some(MessageResponse::ErrorResponse(ErrorResponse { error_message, .. })) => {
            Err(Unknown::Untold(error_message))
        }
        Some(MessageResponse::AllExtensionNumbersResponse(_) | MessageResponse::ListServicesResponse(_)) | None => {
            Err(Unknown::Untold("its answer is of another kind".to_owned()))
        }
    }
}

/// A service without reflection, or a caller that may not ask, is told otherwise than a caller that is refused.
fn untold(status: &Status, at: &countersign::Address) -> Unknown {
    let refused_here = status.metadata().contains_key(countersign::REFUSAL);
    if !refused_here && matches!(status.code(), Code::Unimplemented | Code::PermissionDenied | Code::NotFound) {
        return Unknown::Untold(format!("{:?}: {}", status.code(), status.message()));
    }
    Unknown::Failed(refused(status, at))
}
