//! The sponsor's side of enrollment: what an unauthenticated caller may ask for, and the answers.

use std::sync::Arc;

use bytes::Bytes;
use countersign_api::cluster::enrollment_server::Enrollment;
use countersign_api::cluster::{EnrollReply, EnrollRequest, ReturnReply, ReturnRequest, ViewReply, ViewRequest};
use countersign_api::convert::decoded;
use countersign_core::codec;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::enroll::returning::{self, ReturnChannel, ReturnError, Returning, StoreReturn};
use countersign_core::enroll::sponsor::{SponsorSide, SponsoredRequest};
use countersign_core::id::NodeId;
use countersign_core::limits::{PREAUTH_FRAME_LEN_MAX, VIEWS_IN_FLIGHT_MAX};
use countersign_core::principal::Role;
use countersign_core::trust::author::{Actor, Claim};
use countersign_core::trust::command::{Admission, Command};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use countersign_pki::foreign::LeafSignature;
use countersign_raft::Group;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use super::credential::JoinerCredential;
use super::io::UnauthenticatedCaller;
use super::unreadable;
use crate::hosts::{Asker, HostWitness};
use crate::identity::local::Local;
use crate::node::Node;
use crate::refusals::RefusalLog;
use crate::tasks::recognize;
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer, new_request};

/// The enrollment protocol's service.
#[derive(Clone)]
pub(crate) struct EnrollmentService {
    local: Arc<Local>,
    state: SharedState,
    group: Group,
    proposer: Arc<Proposer>,
    witness: Arc<HostWitness>,
    refusals: Arc<RefusalLog>,
    views: ViewPlaces,
}

impl EnrollmentService {
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            group: node.group.clone(),
            proposer: Arc::clone(&node.proposer),
            witness: Arc::clone(&node.witness),
            refusals: Arc::clone(&node.refusals),
            views: ViewPlaces::default(),
        }
    }
}

/// Places for answers to nonces: each costs a signature, also for a caller that proved nothing.
#[derive(Clone)]
struct ViewPlaces(Arc<Semaphore>);

impl Default for ViewPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWS_IN_FLIGHT_MAX)))
    }
}

impl ViewPlaces {
    /// A place to answer a nonce; none is needed where nothing is signed.
    async fn enter(&self, asked: &ViewRequest) -> Result<Option<SemaphorePermit<'_>>, Status> {
        if asked.nonce.is_empty() {
            return Ok(None);
        }
        self.0.acquire().await.map(Some).map_err(|_| Status::unavailable("shutting down"))
    }
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn view(&self, request: Request<ViewRequest>) -> Result<Response<ViewReply>, Status> {
        UnauthenticatedCaller::of(&request)?;
        let asked = request.into_inner();
        let _place = self.views.enter(&asked).await?;
        let trust = self.local.endpoint.trust().load();
        Ok(Response::new(ViewReply {
            cluster: Bytes::copy_from_slice(&trust.view.cluster.0),
            trust_domain: trust.view.trust_domain.to_string(),
            time_millis: self.local.now().0,
            ..recognize::show(&self.local, &self.state, &asked)?
        }))
    }

    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollReply>, Status> {
        let caller = UnauthenticatedCaller::of(&request)?;
        let EnrollRequest { request, csr, chain, signature_scheme, signature } = request.into_inner();
        if request.len() > PREAUTH_FRAME_LEN_MAX {
            return Err(Status::invalid_argument("request is too large"));
        }
        let request: EnrollmentRequest = decoded("request", &request).map_err(|error| unreadable("request", error))?;
        let trust = self.local.endpoint.trust().load();
        if let Some(why) = wrong_kind(&request, &trust.view) {
            return Ok(Response::new(self.refused(&caller, &why)));
        }
        let credential = match self.local.endpoint.mapping() {
            None => JoinerCredential::of_csr(&csr),
            Some(rules) => {
                let scheme = u16::try_from(signature_scheme).unwrap_or_default();
                let signature = LeafSignature { scheme, bytes: signature.to_vec() };
                JoinerCredential::of_certificate(&trust, rules, self.local.now(), &chain, &request, &signature)
            }
        };
        let JoinerCredential { key: csr_key, spki, foreign } = credential.map_err(|error| {
            let error = crate::chain(&error).to_string();
            caller.failed("enrollment refused", &error);
            let told = format!("the credential is not accepted; its log says why (failure id {})", caller.attempt);
            Status::invalid_argument(told)
        })?;
        let (leaf, exporter) = (caller.proof.leaf, caller.proof.exporter);
        let side = SponsorSide { leaf, exporter, csr_key, foreign };
        let sponsored = SponsoredRequest::check(request, &side, &trust.view).map_err(|error| {
            caller.failed("enrollment refused", &error);
            Status::permission_denied(error.to_string())
        })?;
        let request = sponsored.into_request();
        let (actor, source) = (Actor::Token(request.token), Some(caller.remote.ip()));
        let claim = Claim { actor, source, request: request.request };
        let witness = self.witness.witness(&request, Asker::Joiner(caller.remote.ip())).await;
        let command = Command::Admit(Box::new(Admission { request, witness }));
        let mut reply = EnrollReply::default();
        match self.proposer.command_of(&claim, command, &spki).await {
            Ok(done) => {
                let Outcome::Admitted(admitted) = &done.outcome else {
                    return Err(Status::internal("unexpected outcome"));
                };
                tracing::info!(
                    node = %admitted.node, name = %admitted.name, role = %admitted.suffrage,
                    remote = %caller.remote, repeated = admitted.repeated, "node admitted"
                );
                reply.node = admitted.node.0;
                reply.chain = done.chain;
                reply.view = done.view;
                reply.time_millis = done.time.0;
            }
            Err(CommandError::Refused(why)) => {
                reply = self.refused(&caller, &why);
            }
            Err(error) => {
                caller.failed("enrollment failed", &error);
                return Err(not_now(&error));
            }
        }
        Ok(Response::new(reply))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnReply>, Status> {
        let caller = UnauthenticatedCaller::of(&request)?;
        let ReturnRequest { request, csr, store } = request.into_inner();
        if request.len().max(store.len()) > PREAUTH_FRAME_LEN_MAX {
            return Err(Status::invalid_argument("request is too large"));
        }
        if !store.is_empty() {
            return self.return_store(&caller, &store).await;
        }
        let request: returning::ReturnRequest =
            decoded("request", &request).map_err(|error| unreadable("request", error))?;
        let JoinerCredential { key, spki, .. } = JoinerCredential::of_csr(&csr)
            .map_err(|_| Status::invalid_argument("malformed certificate signing request"))?;
        let (node, number) = (request.node, request.endorsement.renewal);
        let trust = self.local.endpoint.trust().load();
        // The leader believes of a member what a voter passes on; of a learner it takes what is its own.
        if trust.view.members.get(&self.local.node).is_none_or(|here| here.suffrage != Suffrage::Voter) {
            return Err(Status::failed_precondition("not a voter: ask another member"));
        }
        let channel = ReturnChannel { leaf: caller.proof.leaf, exporter: caller.proof.exporter };
        let remote = caller.remote;
        let refused = |why: &Refused| {
            caller.return_failed(node, "return refused", why);
            Ok(Response::new(ReturnReply {
                refused: encode_refusal(why),
                reason: why.to_string(),
                ..ReturnReply::default()
            }))
        };
        let command = match Returning::check(request, &channel, key, (&trust.view, self.local.now())) {
            Ok(returning) => returning.into_command(),
            Err(ReturnError::Refused(why)) => return refused(&why),
            Err(error) => {
                caller.return_failed(node, "return refused", &error);
                return Err(Status::permission_denied(error.to_string()));
            }
        };
        // In quarantine here, or known to be evicted before the log says so.
        if let Some(refusal) = self.local.endpoint.denied(node) {
            return Err(Status::permission_denied(refusal.to_string()));
        }
        let (actor, source) = (Actor::Principal(Role::Node(node)), Some(remote.ip()));
        let claim = Claim { actor, source, request: new_request().map_err(|_| Status::internal("no randomness"))? };
        match self.proposer.command_of(&claim, command, &spki).await {
            Ok(done) => {
                tracing::info!(%node, %remote, renewal = number, "node returned by its identity key");
                Ok(Response::new(ReturnReply { chain: done.chain, ..ReturnReply::default() }))
            }
            Err(CommandError::Refused(why)) => refused(&why),
            Err(error) => {
                caller.return_failed(node, "return failed", &error);
                Err(not_now(&error))
            }
        }
    }
}

impl EnrollmentService {
    /// The return of a member with a new store, passed on to the leader: `apply` verifies the member's signature.
    async fn return_store(
        &self,
        caller: &UnauthenticatedCaller,
        store: &Bytes,
    ) -> Result<Response<ReturnReply>, Status> {
        let request: StoreReturn =
            decoded("store", store).map_err(|_| Status::invalid_argument("malformed request"))?;
        let (node, new) = (request.node, request.store);
        let remote = caller.remote;
        let refused = |why: &Refused| {
            caller.return_failed(node, "return with a new store refused", why);
            Ok(Response::new(ReturnReply {
                refused: encode_refusal(why),
                reason: why.to_string(),
                ..ReturnReply::default()
            }))
        };
        let channel = ReturnChannel { leaf: caller.proof.leaf, exporter: caller.proof.exporter };
        let view = self.local.view();
        let command = match request.into_command(&channel, &view) {
            Ok(command) => command,
            Err(ReturnError::Refused(why)) => return refused(&why),
            Err(error) => {
                caller.return_failed(node, "return with a new store refused", &error);
                return Err(Status::permission_denied(error.to_string()));
            }
        };
        if let Some(refusal) = self.local.endpoint.denied(node) {
            return Err(Status::permission_denied(refusal.to_string()));
        }
        if let Err(why) = self.others_decide(node) {
            return refused(&why);
        }
        let (actor, source) = (Actor::Principal(Role::Node(node)), Some(remote.ip()));
        let claim = Claim { actor, source, request: new_request().map_err(|_| Status::internal("no randomness"))? };
        match self.proposer.command_of(&claim, command, &[]).await {
            Ok(_) => {
                tracing::info!(%node, %remote, store = %new, "node returns as a learner with a new store");
                Ok(Response::new(ReturnReply::default()))
            }
            Err(CommandError::Refused(why)) => refused(&why),
            Err(error) => {
                caller.return_failed(node, "return with a new store failed", &error);
                Err(not_now(&error))
            }
        }
    }

    /// Whether the other voters are a majority without `node`: else its return could not be committed.
    fn others_decide(&self, node: NodeId) -> Result<(), Refused> {
        let voters = self.group.status().voters;
        let others = voters.iter().filter(|voter| **voter != node).count();
        if voters.contains(&node) && others <= voters.len() / 2 {
            return Err(Refused::NoQuorumOfOthers { node, voters: voters.len() as u64 });
        }
        Ok(())
    }

    fn refused(&self, caller: &UnauthenticatedCaller, why: &Refused) -> EnrollReply {
        caller.failed("enrollment refused", why);
        self.refusals.enrollment(caller, why);
        EnrollReply {
            refused: encode_refusal(why),
            reason: why.to_string(),
            time_millis: self.local.now().0,
            ..EnrollReply::default()
        }
    }
}

/// Told to an unauthenticated caller whose request was not carried out, and may be sent again.
fn not_now(error: &CommandError) -> Status {
    match error {
        CommandError::NoLeader => Status::unavailable("the cluster has no leader right now"),
        CommandError::Clock(why) => Status::unavailable(format!("the leader cannot tell the time: {why}")),
        CommandError::Overloaded => {
            Status::resource_exhausted("too many requests of unauthenticated callers are waiting")
        }
        CommandError::Refused(_)
        | CommandError::Unknown
        | CommandError::OtherOutcome
        | CommandError::NotPermitted(_)
        | CommandError::Busy(_)
        | CommandError::TooLong { .. }
        | CommandError::Shutdown
        | CommandError::Sign(_)
        | CommandError::Keys(_)
        | CommandError::Message(_)
        | CommandError::Codec(_) => Status::aborted("try again"),
    }
}

/// A node with a certificate of its own where the cluster issues them, or without where it does not: said before
/// anything else is looked at, since all else would be wrong as well.
fn wrong_kind(request: &EnrollmentRequest, view: &View) -> Option<Refused> {
    match (&request.foreign, view.key_is_elsewhere()) {
        (None, true) => Some(Refused::CertificateMissing),
        (Some(_), false) => Some(Refused::CertificateUnwanted),
        (None, false) | (Some(_), true) => None,
    }
}

fn encode_refusal(why: &Refused) -> Bytes {
    codec::encode(why).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nonces_answered_at_once_are_bounded() {
        let views = ViewPlaces::default();
        let nonce = ViewRequest { nonce: Bytes::from_static(&[1; 32]), known: 0 };
        let mut places = Vec::new();
        for _ in 0..VIEWS_IN_FLIGHT_MAX {
            places.push(views.enter(&nonce).await.unwrap());
        }
        assert!(views.enter(&ViewRequest::default()).await.unwrap().is_none(), "nothing is signed");
        let next = views.enter(&nonce);
        tokio::pin!(next);
        tokio::select! {
            biased;
            _ = &mut next => panic!("one more than there are places"),
            () = std::future::ready(()) => {}
        }
        places.pop();
        assert!(next.await.unwrap().is_some());
    }
}
