//! Brokers, clients and admins renew their certificates over the connections that these opened. Behind the lease, as
//! all that is served to them; a node has its own way.

use std::sync::Arc;

use countersign_api::cluster::certificates_server::Certificates;
use countersign_api::cluster::{RenewReply, RenewRequest};
use countersign_core::limits::PRINCIPAL_KEYS_MAX;
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::{Actor, Claim};
use countersign_core::trust::command::{Command, RenewPrincipal};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::{Limited, Refused};
use countersign_core::trust::view::View;
use countersign_guard::Caller;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::clients::VOTERS;
use super::credential::JoinerCredential;
use crate::identity::local::Local;
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer, new_request};

/// Renewals under way at once: they are an operator's turns, and must leave operators some.
const RENEWALS_MAX: usize = 16;

/// The service.
#[derive(Clone)]
pub(crate) struct CertificatesService {
    local: Arc<Local>,
    state: SharedState,
    proposer: Arc<Proposer>,
    places: Arc<Semaphore>,
}

impl CertificatesService {
    pub(crate) fn new(local: Arc<Local>, state: SharedState, proposer: Arc<Proposer>) -> Self {
        Self { local, state, proposer, places: Arc::new(Semaphore::new(RENEWALS_MAX)) }
    }
}

/// What is clear before anything is proposed: what would be refused writes nothing into the log.
fn check(view: &View, role: &Role, now: UnixMillis) -> Result<(), Status> {
    if role.node_id().is_some() {
        return Err(Status::permission_denied("a node renews its certificate as a member, not here"));
    }
    let keys = view.principals.get(role).into_iter().flatten();
    if keys.filter(|(_, issued)| issued.not_after >= now).count() >= PRINCIPAL_KEYS_MAX {
        let limit = Refused::Limit { what: Limited::PrincipalKeys, max: PRINCIPAL_KEYS_MAX as u64 };
        return Err(Status::resource_exhausted(format!("{limit}: wait until one ends")));
    }
    Ok(())
}

/// The answer of one that cannot issue certificates: it names the client ports of those to ask.
pub fn ask_elsewhere(why: &str, members: &[String]) -> Status {
    let named = members.join(", ");
    let at = if members.is_empty() { String::new() } else { format!(", such as {named}") };
    let mut status = Status::failed_precondition(format!(
        "{why} and cannot issue certificates: ask a voter, at its client port{at}"
    ));
    if let Ok(value) = MetadataValue::try_from(named) {
        status.metadata_mut().insert(VOTERS, value);
    }
    status
}

#[tonic::async_trait]
impl Certificates for CertificatesService {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        // Absent only if the router were wired wrongly: refuse.
        let caller = request.extensions().get::<Caller>().cloned();
        let Caller { peer, remote, .. } = caller.ok_or_else(|| Status::unauthenticated("no caller"))?;
        let (view, now) = (self.local.view(), self.local.now());
        let (role, in_use) = (peer.principal().role.clone(), peer.key());
        check(&view, &role, now)?;
        if view.members.get(&self.local.node).is_none_or(|here| here.suffrage != Suffrage::Voter) {
            let voters: Vec<String> = self.state.read().client_ports_of_voters().map(ToString::to_string).collect();
            return Err(ask_elsewhere("this member is a learner", &voters));
        }
        let csr = JoinerCredential::of_csr(&request.into_inner().csr);
        let JoinerCredential { spki, .. } =
            csr.map_err(|error| Status::invalid_argument(crate::chain(&error).to_string()))?;
        let busy = |_| Status::resource_exhausted("too many renewals are under way: try again");
        let _place = self.places.try_acquire().map_err(busy)?;
        let (actor, source) = (Actor::Principal(role.clone()), Some(remote.ip()));
        let claim = Claim { actor, source, request: new_request().map_err(|_| Status::internal("no randomness"))? };
        let command = Command::RenewPrincipal(RenewPrincipal { role, in_use, spki: spki.clone() });
        match self.proposer.command_of(&claim, command, &spki).await {
            Ok(done) => {
                tracing::info!(principal = %peer.principal(), %remote, "certificate renewed over its own connection");
                Ok(Response::new(RenewReply { chain: done.chain }))
            }
            Err(error) => {
                tracing::warn!(principal = %peer.principal(), %remote, error = %crate::chain(&error), "not renewed");
                Err(match error {
                    CommandError::Refused(why @ (Refused::Limit { .. } | Refused::RenewedBefore { .. })) => {
                        Status::resource_exhausted(why.to_string())
                    }
                    CommandError::Refused(why) => Status::permission_denied(why.to_string()),
                    CommandError::NoLeader => Status::unavailable("the cluster has no leader right now"),
                    CommandError::Overloaded | CommandError::Busy(_) => Status::resource_exhausted(error.to_string()),
                    CommandError::Clock(_)
                    | CommandError::Unknown
                    | CommandError::OtherOutcome
                    | CommandError::NotPermitted(_)
                    | CommandError::TooLong { .. }
                    | CommandError::Shutdown
                    | CommandError::Sign(_)
                    | CommandError::Keys(_)
                    | CommandError::Message(_)
                    | CommandError::Codec(_) => Status::aborted("try again"),
                })
            }
        }
    }
}
