//! Who may use an endpoint, and the proof that it was asked: a handler reaches the member through a [`Permitted`]
//! alone.
//!
//! Every request over HTTPS is decided by the cluster's policy, with the same function as all else. On the socket the
//! operator of this host may do everything: policy could not hold against a user that reads the member's keys.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use countersign_control::{Control, Controls, Health, named};
use countersign_core::authz::{Action, Decision, Effect, Kind, Question, Recorded, Subject, decide};
use countersign_core::id::{KeyId, RequestId};
use countersign_core::principal::Principal;
use countersign_core::trust::author::{Actor, Claim};
use countersign_core::trust::view::View;
use countersign_guard::Guard;
use countersign_net::https::HttpsPeer;
use countersign_node::{Leasehold, Local, Node, RefusalLog};
use tokio_util::sync::CancellationToken;

use crate::bounds::{Bounds, Place};
use crate::problem::AdminError;

/// How an endpoint is authorized.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Without authorization, because it says nothing but whether this member is well.
    Open,
    /// By the user at the other end of the socket, on no other port: it must work when policy is wrong.
    Local,
    /// By policy.
    Policy(Action, Kind, Named),
    /// By policy, about a name that the body holds: the handler asks before it does anything.
    Body(Action, Kind),
}

/// Where an endpoint's resource has its name from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named {
    /// It is the cluster.
    Cluster,
    /// It has none, as it is about all: only rules on any name allow it, or one on the empty name.
    All,
    /// The path's `id`, as it stands.
    Id,
    /// The member that the path's `node` names or numbers.
    Node,
    /// The principal that the key in the path was certified for; the key itself, if it is on no record.
    Key,
    /// The principal that the path's `kind` and `name` say.
    Principal,
}

/// The access of a path that is no endpoint: a caller that may not know of a cluster learns nothing.
pub(crate) const ELSEWHERE: Access = Access::Policy(Action::Describe, Kind::CLUSTER, Named::Cluster);

/// The action that a caller wants to take, and on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    action: Action,
    kind: Kind,
    name: String,
}

impl Access {
    /// What a request asks for, as far as its path says it.
    pub(crate) fn asked(&self, view: &View, params: Option<&RawPathParams>) -> Option<Asked> {
        let Self::Policy(action, kind, named) = self else { return None };
        let param = |wanted: &str| {
            let found = params.and_then(|params| params.iter().find(|(name, _)| *name == wanted));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let name = match named {
            Named::Cluster => view.name.to_string(),
            Named::All => String::new(),
            Named::Id => param("id"),
            Named::Node => member_name(view, param("node")),
            Named::Key => holder(view, param("key")),
            Named::Principal => format!("{}/{}", param("kind"), param("name")),
        };
        Some(Asked { action: *action, kind: kind.clone(), name })
    }
}

/// A member has a name and a number; rules know its name.
fn member_name(view: &View, text: String) -> String {
    named(view, &text).map(|member| member.name.to_string()).unwrap_or(text)
}

/// The principal that a key was certified to, or that a key was certified to which was renewed from it.
fn holder(view: &View, text: String) -> String {
    let Some(key) = KeyId::parse(&text) else { return text };
    view.principals.holder_of_line(&key).map_or(text, ToString::to_string)
}

/// The member that is administered: how it is, and what decides about callers.
pub(crate) struct Administered {
    pub(crate) controls: Controls,
    pub(crate) health: Health,
    pub(crate) local: Arc<Local>,
    pub(crate) guard: Guard,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) refusals: Arc<RefusalLog>,
    stopping: CancellationToken,
}

/// The member behind the endpoints of one port, and what that port does at once.
#[derive(Clone)]
pub(crate) struct Admin {
    member: Arc<Administered>,
    bounds: Arc<Bounds>,
}

impl Admin {
    pub(crate) fn of(node: &Node) -> Self {
        let member = Arc::new(Administered {
            controls: Controls::of(node),
            health: Health::of(node),
            local: Arc::clone(&node.local),
            guard: node.guard.clone(),
            lease: Arc::clone(&node.lease),
            refusals: Arc::clone(&node.refusals),
            stopping: node.tasks.stopping(),
        });
        Self { member, bounds: Arc::default() }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(super) fn member(&self) -> Result<&Administered, AdminError> {
        if self.member.stopping.is_cancelled() {
            let message = "this member is shutting down";
            return Err(AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "shutdown", message, "start it again"));
        }
        Ok(&self.member)
    }
}

/// The caller.
#[derive(Clone)]
enum Caller {
    /// Any caller, of an endpoint that says nothing.
    Anonymous,
    /// The operator of this host, a user of this number.
    Operator(u32),
    /// The holder of a certificate.
    Peer(Arc<HttpsPeer>),
}

impl Caller {
    /// The author of what the caller asks for; none of an endpoint that changes nothing.
    fn claim(&self, request: RequestId) -> Option<Claim> {
        match self {
            Self::Anonymous => None,
            Self::Operator(uid) => Some(Claim { actor: Actor::Operator { uid: *uid }, source: None, request }),
            Self::Peer(peer) => {
                let verified = peer.verified().and_then(Result::ok)?;
                let actor = Actor::Principal(verified.principal().role.clone());
                Some(Claim { actor, source: Some(peer.remote.ip()), request })
            }
        }
    }
}

/// A request that is judged as often as it takes a step.
#[derive(Clone)]
pub(super) struct Asker {
    admin: Admin,
    caller: Caller,
    request: RequestId,
    /// What for, once that is known.
    asked: Arc<OnceLock<Asked>>,
}

impl Asker {
    /// For an endpoint that is open.
    pub(super) fn anonymous(admin: &Admin, request: RequestId) -> Self {
        Self::new(admin, Caller::Anonymous, request, None)
    }

    /// For a user of this host that the socket has let in.
    pub(super) fn operator(admin: &Admin, uid: u32, request: RequestId) -> Self {
        Self::new(admin, Caller::Operator(uid), request, None)
    }

    /// For the peer at the other end of an HTTPS connection.
    pub(super) fn peer(admin: &Admin, peer: &HttpsPeer, request: RequestId, asked: Option<Asked>) -> Self {
        Self::new(admin, Caller::Peer(Arc::new(peer.clone())), request, asked)
    }

    fn new(admin: &Admin, caller: Caller, request: RequestId, asked: Option<Asked>) -> Self {
        let known = OnceLock::new();
        let _ = asked.map(|asked| known.set(asked));
        Self { admin: admin.clone(), caller, request, asked: Arc::new(known) }
    }

    /// Whether the caller is who it says, and may do what it asks for, under the trust in force now.
    pub(super) fn judge(&self) -> Result<(), AdminError> {
        let Caller::Peer(peer) = &self.caller else { return Ok(()) };
        let verified = match peer.verified() {
            None => {
                let message = "a certificate of this cluster is needed".to_owned();
                return Err(refused(peer, StatusCode::UNAUTHORIZED, "no-certificate", message));
            }
            Some(Err(refusal)) => {
                let message = format!("{refusal} (failure {})", peer.failure_id(refusal));
                return Err(refused(peer, StatusCode::FORBIDDEN, refusal.label(), message));
            }
            Some(Ok(verified)) => verified,
        };
        match self.asked.get() {
            Some(asked) => self.allowed(verified.principal(), asked, peer.remote.ip()),
            None => Ok(()),
        }
    }

    /// Decides by the policy that is applied here and in force.
    fn allowed(&self, principal: &Principal, asked: &Asked, from: IpAddr) -> Result<(), AdminError> {
        let (member, request) = (self.admin.member()?, self.request);
        let Asked { action, kind, name } = asked;
        let view = member.local.view();
        let subject = Subject::of(&view, &principal.role);
        let question =
            Question { subject: &subject, action: *action, kind, name, from: Some(from), now: member.local.now() };
        let decision = decide(&view.policy, view.generation, &question);
        member.guard.record(Recorded {
            principal: principal.role.clone(),
            action: *action,
            kind: kind.clone(),
            name: name.clone(),
            from: Some(from),
        });
        if decision.effect == Effect::Allow {
            return Ok(());
        }
        let Decision { reason, generation, .. } = decision;
        tracing::warn!(%principal, %from, %request, %action, %kind, name, %reason, %generation, "admin request denied");
        let what = if name.is_empty() { format!("{kind}s as a whole") } else { format!("{kind} `{name}`") };
        // A caller that may not see the rules is not told them; the log has the reason.
        let sees = Question { action: Action::Describe, kind: &Kind::POLICY, name: view.name.as_str(), ..question };
        let sees = decide(&view.policy, view.generation, &sees).effect == Effect::Allow;
        let why = if sees { reason.to_string() } else { "denied".to_owned() };
        let message = format!("{} may not {action} {what}: {why} (generation {generation})", principal.role);
        let next = "ask an admin for a rule (`countersign acl add`), or use an admin's certificate: `countersign cert \
                issue --admin NAME` on a voter";
        Err(AdminError::new(StatusCode::FORBIDDEN, "denied", message, next))
    }
}

/// Logs that a request of a caller is refused of which the cluster knows nothing: so many of a source in a minute.
pub(super) fn log_refused(peer: &HttpsPeer, message: &str) {
    if peer.is_told() {
        tracing::warn!(remote = %peer.remote, reason = message, "admin request refused");
    } else {
        tracing::debug!(remote = %peer.remote, reason = message, "admin request refused");
    }
}

fn refused(peer: &HttpsPeer, status: StatusCode, code: &str, message: String) -> AdminError {
    log_refused(peer, &message);
    AdminError::new(status, code, message, "issue one on a voter: `countersign cert issue --admin NAME`")
}

/// Proof that a request may be carried out: made by the check before an endpoint, or by asking.
pub(crate) struct Permitted(Asker);

impl Permitted {
    /// The member that answers.
    pub(crate) fn member(&self) -> Result<&Administered, AdminError> {
        self.0.admin.member()
    }

    /// The use cases, in the caller's name.
    pub(crate) fn control(&self) -> Result<Control, AdminError> {
        let claim = self.0.caller.claim(self.0.request).ok_or_else(unchecked)?;
        Ok(self.0.admin.member()?.controls.author(claim))
    }

    /// Whether it was judged by this name, if it was judged by one: the name may move to another thing after that.
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.0.asked.get().is_none_or(|asked| asked.name == name)
    }

    #[cfg(test)]
    pub(super) fn for_testing(member: &Node, name: &str) -> Self {
        let asked = Asked { action: Action::Describe, kind: Kind::POLICY, name: name.to_owned() };
        Self(Asker::new(&Admin::of(member), Caller::Operator(0), RequestId([0; 16]), Some(asked)))
    }

    #[cfg(test)]
    pub(super) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    /// A place among the few questions about all rules that this port answers at once.
    pub(super) fn question(&self) -> Result<Place, AdminError> {
        self.0.admin.bounds.question()
    }
}

/// A request of which only its body says what it is about.
pub(crate) struct Asking {
    asker: Asker,
    action: Action,
    kind: Kind,
}

impl Asking {
    /// Whether it may be done to what has this name. From here on the request ends once it may not any more.
    pub(crate) fn about(self, name: &str) -> Result<Permitted, AdminError> {
        let Self { asker, action, kind } = self;
        asker.asked.get_or_init(|| Asked { action, kind, name: name.to_owned() });
        asker.judge()?;
        Ok(Permitted(asker))
    }
}

/// What the check before an endpoint hands to its handler.
#[derive(Clone)]
pub(super) struct Checked {
    asker: Asker,
    access: Access,
}

impl Checked {
    /// Of a request that was judged as far as `access` can be judged before the body is read.
    pub(super) fn new(asker: Asker, access: Access) -> Self {
        Self { asker, access }
    }
}

/// A handler that nothing stands before is a defect; it denies.
fn unchecked() -> AdminError {
    tracing::error!("an endpoint was reached unchecked");
    AdminError::new(StatusCode::FORBIDDEN, "unchecked", "the request was not authorized", "report this as a bug")
}

impl<S: Sync> FromRequestParts<S> for Permitted {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        match parts.extensions.get() {
            Some(Checked { asker, access: Access::Open | Access::Local | Access::Policy(..) }) => {
                Ok(Self(asker.clone()))
            }
            // Its body was not judged.
            Some(Checked { access: Access::Body(..), .. }) | None => Err(unchecked()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Asking {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        match parts.extensions.get() {
            Some(Checked { asker, access: Access::Body(action, kind) }) => {
                Ok(Self { asker: asker.clone(), action: *action, kind: kind.clone() })
            }
            _ => Err(unchecked()),
        }
    }
}

impl core::fmt::Display for Access {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Local => f.write_str("socket only"),
            Self::Policy(action, kind, named) => {
                let name = match named {
                    Named::Cluster => "CLUSTER",
                    Named::All => "-",
                    Named::Id => "ID",
                    Named::Node => "NODE",
                    Named::Key => "PRINCIPAL of KEY",
                    Named::Principal => "PRINCIPAL",
                };
                write!(f, "{action} {kind} {name}")
            }
            Self::Body(action, kind) => write!(f, "{action} {kind} NAME in the body"),
        }
    }
}
