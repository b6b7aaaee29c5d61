//! Why a request was not carried out, with the one thing to try next.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_api::admin::Problem;
use countersign_control::ControlError;
use countersign_core::authz::change::PolicyError;
use countersign_core::id::RequestId;
use countersign_core::name::Name;
use countersign_core::trust::outcome::Refused;
use countersign_node::{CommandError, advice_enrollment, chain};

/// The problem of a request that only a voter carries out.
pub(crate) const NOT_A_VOTER: &str = "not-a-voter";

/// With an answer of [`NOT_A_VOTER`]: the port that it leaves by may know where the request belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotAVoter;

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct AdminError {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
}

impl AdminError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>, next: impl Into<String>) -> Self {
        let problem = Problem {
            code: code.to_owned(),
            message: message.into(),
            next: Some(next.into()),
            leader: None,
            request: None,
        };
        Self { status, problem }
    }

    /// The input is not what it should be.
    pub(crate) fn invalid(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message, next)
    }

    pub(crate) fn not_found(message: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message, next)
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let not_a_voter = self.problem.code == NOT_A_VOTER;
        let mut response = (self.status, Json(&self.problem)).into_response();
        if not_a_voter {
            response.extensions_mut().insert(NotAVoter);
        }
        // For the check around it, which knows the number of the request.
        response.extensions_mut().insert(self.problem);
        response
    }
}

/// The header of an answer that names its request, as the author of what it changed does.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A number for a request, or the answer that there is none.
pub(super) fn new_request() -> Result<RequestId, AdminError> {
    countersign_node::new_request().map_err(|error| {
        AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "random", error.to_string(), "repeat the command")
    })
}

/// The answer with the number of its request: in a header, and in the problem if it is one.
pub(super) fn numbered(response: Response, request: RequestId) -> Response {
    let (mut parts, mut body) = response.into_parts();
    if let Some(problem) = parts.extensions.remove::<Problem>() {
        body = Json(Problem { request: Some(request.to_string()), ..problem }).into_response().into_body();
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    if let Ok(value) = HeaderValue::try_from(request.to_string()) {
        parts.headers.insert(REQUEST_ID, value);
    }
    Response::from_parts(parts, body)
}

impl From<CommandError> for AdminError {
    fn from(error: CommandError) -> Self {
        let message = chain(&error).to_string();
        match &error {
            CommandError::Refused(why) => {
                let (status, code, next) = of_refused(why);
                Self::new(status, code, message, next)
            }
            CommandError::NoLeader => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no-leader",
                message,
                "start more of the voters, then see `countersign status`",
            ),
            CommandError::Clock(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "clock",
                message,
                "set the clocks of the voters right (`countersign status` on each says whose is wrong), then repeat \
                 the command",
            ),
            CommandError::NotPermitted(_) => Self::new(
                StatusCode::FORBIDDEN,
                NOT_A_VOTER,
                message,
                "run the command on a voter: `countersign node list`",
            ),
            CommandError::TooLong { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "limit", message, "ask for less at once")
            }
            CommandError::Busy(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, "repeat the command a little later")
            }
            CommandError::Overloaded => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message, "repeat the command a little later")
            }
            CommandError::Unknown => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "outcome-unknown",
                message,
                "look whether it took effect: `countersign status`, then repeat it if it did not",
            ),
            CommandError::Shutdown => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutdown", message, "repeat the command on another voter")
            }
            CommandError::Keys(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "random", message, "repeat the command")
            }
            CommandError::Sign(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "cannot-sign",
                message,
                "repeat the command; see which voters hold the CA key with `countersign status`",
            ),
            CommandError::OtherOutcome | CommandError::Message(_) | CommandError::Codec(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "update all members to one version")
            }
        }
    }
}

impl From<ControlError> for AdminError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            ControlError::Command(error) => error.into(),
            ControlError::UnknownNode { known, .. } => {
                let known: Vec<&str> = known.iter().map(Name::as_str).collect();
                let next = format!("name one of: {}", known.join(", "));
                Self::new(StatusCode::NOT_FOUND, "unknown-node", message, next)
            }
            ControlError::EvictsItself(_) => {
                Self::new(StatusCode::CONFLICT, "evicts-itself", message, "run the command on another voter")
            }
            ControlError::QuarantinesItself(_) => {
                let next = "stop it, or run the command on other voters";
                Self::new(StatusCode::CONFLICT, "quarantines-itself", message, next)
            }
            ControlError::NoQuorum { .. } => Self::new(
                unavailable,
                "no-quorum",
                message,
                "start the voters that are not reached, or mend the network between them; then repeat the command",
            ),
            ControlError::NotConverged { .. } => Self::new(
                unavailable,
                "not-converged",
                message,
                "see which members are not reached: `countersign status`; then repeat the command",
            ),
            ControlError::NotAttested { .. } => Self::new(
                unavailable,
                "not-attested",
                message,
                "start them, so that they sign, and repeat the command; until then, `countersign node quarantine` it",
            ),
            ControlError::Behind { .. } => Self::new(
                unavailable,
                "behind",
                message,
                "see `countersign status`, and repeat the command, on another member if this one does not catch up",
            ),
            ControlError::NoAuthority => {
                Self::new(StatusCode::CONFLICT, "no-authority", message, "see `countersign status`")
            }
            ControlError::Random(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "random", message, "repeat the command")
            }
            ControlError::UnknownKey(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-key", message, "see `countersign cert list`")
            }
            ControlError::CertificateOfNode { node } => {
                Self::new(StatusCode::CONFLICT, "of-a-node", message, format!("`countersign node evict {node}`"))
            }
            ControlError::TokenForgotten(_) => {
                Self::new(unavailable, "behind", message, "see `countersign token list` on another member")
            }
            ControlError::BrokeOff => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "report this as a bug")
            }
            ControlError::NotStored(error) => Self::new(
                unavailable,
                "not-stored",
                chain(&error).to_string(),
                "make room and see who owns the data directory, then repeat the command",
            ),
        }
    }
}

fn of_refused(why: &Refused) -> (StatusCode, &'static str, &'static str) {
    match why {
        Refused::NoSuchNode(_) => (StatusCode::NOT_FOUND, "unknown-node", "see `countersign node list`"),
        Refused::AlreadyEvicted(_) => (StatusCode::CONFLICT, "already-evicted", "nothing is left to do"),
        Refused::NoSuchToken(_) => (StatusCode::NOT_FOUND, "unknown-token", "see `countersign token list`"),
        Refused::LastVoter(_) => (
            StatusCode::CONFLICT,
            "last-voter",
            "make another voter first: `countersign node promote NAME`, and wait until it holds the CA key",
        ),
        Refused::StateDiffers { .. } => (
            StatusCode::CONFLICT,
            "state-differs",
            "stop the node and run `countersign server --return-as-learner` there; once it is back, repeat the command",
        ),
        Refused::KeepAuthority(_) => {
            (StatusCode::CONFLICT, "keep-authority", "repeat with --keep-authority once its machine is wiped")
        }
        Refused::SignatureMissing { .. } => (
            StatusCode::CONFLICT,
            "not-attested",
            "start the node, so that it signs, and repeat the command; until then, `countersign node quarantine` it",
        ),
        Refused::Unchanged(..) => (StatusCode::CONFLICT, "unchanged", "nothing is left to do"),
        Refused::KeyElsewhere(_) => (
            StatusCode::CONFLICT,
            "ca-key-elsewhere",
            "have the certificate made where the CA key is: your own CA, or `countersign security certs`",
        ),
        Refused::NoSuchPrincipal(_) => (StatusCode::NOT_FOUND, "unknown-principal", "see `countersign cert list`"),
        Refused::NotIssued(_) | Refused::KeyOfNode(_) => {
            (StatusCode::CONFLICT, "of-a-node", "evict the node: `countersign node evict N`")
        }
        Refused::HostTaken { .. } | Refused::AddressTaken { .. } => {
            (StatusCode::CONFLICT, "host-taken", "see whose it is: `countersign node list`, `countersign cert list`")
        }
        Refused::HostShared(_) => {
            (StatusCode::CONFLICT, "host-shared", "all members hold it already: `countersign cluster show`")
        }
        Refused::HostNotAdded { .. } => {
            (StatusCode::CONFLICT, "host-not-added", "start that node with another --advertise-addr")
        }
        Refused::Policy(why) => of_policy(why),
        Refused::Label(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "label",
            "write NAME=VALUE with letters, digits, `-`, `_` and `.` alone, and at most 32 labels besides `role`",
        ),
        Refused::Limit { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "limit", "choose a smaller value"),
        Refused::Signature(_) => (StatusCode::FORBIDDEN, "signature", "repeat the command"),
        other @ (Refused::NoCluster
        | Refused::ClusterExists
        | Refused::Token(_)
        | Refused::BelowLevel { .. }
        | Refused::AboveLevel { .. }
        | Refused::LevelNeedsVoter(_)
        | Refused::TokenExists
        | Refused::KeyRevoked
        | Refused::KeyTaken(_)
        | Refused::KeyReused
        | Refused::RequestReused
        | Refused::EvictedSince(_)
        | Refused::NameNotAdmitted(_)
        | Refused::NameTaken { .. }
        | Refused::MappedTaken { .. }
        | Refused::CertificateMissing
        | Refused::CertificateUnwanted
        | Refused::NoAddress
        | Refused::NoSuchAuthority(_)
        | Refused::NotSealed(_)
        | Refused::StillVotes(_)
        | Refused::StillInGroup(_)
        | Refused::Returning(_)
        | Refused::NotReturning { .. }
        | Refused::OtherStore { .. }
        | Refused::StoreTaken(_)
        | Refused::Alive { .. }
        | Refused::Later(_)
        | Refused::NoQuorumOfOthers { .. }
        | Refused::RenewalOutOfOrder { .. }
        | Refused::NotASigner { .. }
        | Refused::RenewedBefore { .. }
        | Refused::KeyUnsuitable(_)
        | Refused::HostNotAdvertised { .. }
        | Refused::NotAVoter(_)
        | Refused::NoSuchGroup(_)
        | Refused::GroupWithoutMembers) => (StatusCode::UNPROCESSABLE_ENTITY, "refused", advice_enrollment(other)),
    }
}

fn of_policy(why: &PolicyError) -> (StatusCode, &'static str, &'static str) {
    match why {
        PolicyError::Changed { .. } => {
            (StatusCode::CONFLICT, "changed", "see what changed with `countersign acl list`, then plan again")
        }
        PolicyError::RuleExists(_) => {
            (StatusCode::CONFLICT, "rule-exists", "see it with `countersign acl list`; give the new one another --id")
        }
        PolicyError::NoSuchRule(_) => (StatusCode::NOT_FOUND, "unknown-rule", "see `countersign acl list`"),
        PolicyError::PartsMissing => {
            (StatusCode::CONFLICT, "parts-missing", "repeat the command, with no other beside it")
        }
        PolicyError::Limit { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "limit", "join rules by prefixes or roles, or remove some")
        }
        PolicyError::EverybodySuper => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "everybody-super",
            "name the principals that you mean, such as `admin/*`, or allow `*` what it needs by a rule",
        ),
        PolicyError::Rule { .. } | PolicyError::SuperUser(_) | PolicyError::Requirement(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "rule", "correct it, and repeat the command")
        }
    }
}

#[cfg(test)]
mod tests;
