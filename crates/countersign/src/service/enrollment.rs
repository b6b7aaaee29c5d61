//! The sponsor's side of enrollment: what a stranger may ask for, and what it is told.

use std::sync::Weak;

use bytes::Bytes;
use countersign_api::cluster::enrollment_server::Enrollment;
use countersign_api::cluster::{EnrollReply, EnrollRequest, ViewReply, ViewRequest};
use countersign_api::convert::decoded;
use countersign_core::codec;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::enroll::sponsor::{SponsorSide, SponsoredRequest};
use countersign_core::limits::{CSR_LEN_MAX, PREAUTH_FRAME_LEN_MAX};
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_pki::csr::parse_csr;
use tonic::{Request, Response, Status};

use super::io::Stranger;
use crate::member::Inner;
use crate::propose::CommandError;

/// The enrollment protocol's service.
#[derive(Clone)]
pub(crate) struct EnrollmentService(pub(crate) Weak<Inner>);

impl EnrollmentService {
    fn member(&self) -> Result<std::sync::Arc<Inner>, Status> {
        self.0.upgrade().ok_or_else(|| Status::unavailable("shutting down"))
    }
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn view(&self, _request: Request<ViewRequest>) -> Result<Response<ViewReply>, Status> {
        let member = self.member()?;
        let trust = member.endpoint.trust().load();
        Ok(Response::new(ViewReply {
            cluster: Bytes::copy_from_slice(&trust.view.cluster.0),
            trust_domain: trust.view.trust_domain.to_string(),
            time_millis: member.now().0,
        }))
    }

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollReply>, Status> {
        let stranger = request.extensions().get::<Stranger>().cloned();
        let stranger = stranger.ok_or_else(|| Status::unauthenticated("no connection"))?;
        let EnrollRequest { request, csr } = request.into_inner();
        if request.len() > PREAUTH_FRAME_LEN_MAX || csr.len() > CSR_LEN_MAX {
            return Err(Status::invalid_argument("request is too large"));
        }
        let request: EnrollmentRequest =
            decoded("request", &request).map_err(|_| Status::invalid_argument("malformed request"))?;
        let csr = parse_csr(&csr).map_err(|error| {
            tracing::warn!(remote = %stranger.remote, failure_id = %stranger.attempt, %error, "enrollment refused");
            Status::invalid_argument("malformed certificate signing request")
        })?;
        let member = self.member()?;
        let side = SponsorSide { leaf: stranger.proof.presented, exporter: stranger.proof.exporter, csr_key: csr.id };
        let view = member.endpoint.trust().load().view.clone();
        let sponsored = SponsoredRequest::check(request, &side, &view).map_err(|error| {
            tracing::warn!(remote = %stranger.remote, failure_id = %stranger.attempt, %error, "enrollment refused");
            Status::permission_denied(error.to_string())
        })?;
        let command = Command::Admit(Box::new(sponsored.into_request()));
        let mut reply = EnrollReply::default();
        match member.command(command, &csr.spki).await {
            Ok(done) => {
                let Outcome::Admitted(admitted) = &done.outcome else {
                    return Err(Status::internal("unexpected outcome"));
                };
                tracing::info!(
                    node = %admitted.node, name = %admitted.name, suffrage = %admitted.suffrage,
                    remote = %stranger.remote, repeated = admitted.repeated, "node admitted"
                );
                reply.node = admitted.node.0;
                reply.chain = done.chain;
                reply.view = done.view;
                reply.time_millis = done.time.0;
            }
            Err(CommandError::Refused(why)) => {
                tracing::warn!(
                    remote = %stranger.remote, failure_id = %stranger.attempt, reason = %why, "enrollment refused"
                );
                member.refusals.enrollment(&stranger, &why);
                reply.refused = encode_refusal(&why);
                reply.time_millis = member.now().0;
            }
            Err(error) => {
                tracing::warn!(remote = %stranger.remote, failure_id = %stranger.attempt, %error, "enrollment failed");
                return Err(match error {
                    CommandError::NoLeader => Status::unavailable("the cluster has no leader right now"),
                    CommandError::Overloaded => Status::resource_exhausted("too many enrollments are waiting"),
                    _ => Status::aborted("try again"),
                });
            }
        }
        Ok(Response::new(reply))
    }
}

fn encode_refusal(why: &Refused) -> Bytes {
    codec::encode(why).map(Bytes::from).unwrap_or_default()
}
