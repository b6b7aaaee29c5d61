//! The answers to a guard outside the cluster: the members, the principals that a change concerns, the rules about a
//! principal, and a lease.
//!
//! A caller gets them only as long as it may `read` the cluster's `policy`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_api::cluster::policy_server::Policy;
use countersign_api::cluster::{FetchReply, FetchRequest, RuleReply, WatchReply, WatchRequest};
use countersign_core::authz::{Action, Affected, Kind, PrincipalPattern, Subject};
use countersign_core::codec::{self, FIRST_LEVEL};
use countersign_core::id::Generation;
use countersign_core::limits::{FETCHES_MAX, SLICE_LEN_MAX, SLICE_RULES_MAX, UNREAD_PER_PRINCIPAL_MAX};
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::principal::Role;
use countersign_core::trust::view::View;
use countersign_guard::{Caller, Denial, Guard};
use countersign_net::{Clock, SystemClock};
use countersign_raft::Group;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::unread::UnreadAnswers;
use crate::identity::local::Local;
use crate::lease::{Leasehold, Place};
use crate::node::Node;
use crate::tasks::Tasks;
use crate::trust::machine::SharedState;

/// Answers that wait for their reader.
const WAITING_MAX: usize = 16;
/// How long a reader may leave all of them unread.
const UNREAD_MAX: Duration = Duration::from_secs(5);
/// How long a question waits for its turn, and for the generation that it asks for.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// The service.
#[derive(Clone)]
pub(crate) struct PolicyService {
    member: Parts,
    tasks: Tasks,
    cache_ttl_secs: u64,
    fetches: Arc<Semaphore>,
    unread: UnreadAnswers,
}

/// What a remote guard is told from.
#[derive(Clone)]
struct Parts {
    local: Arc<Local>,
    state: SharedState,
    group: Group,
    lease: Arc<Leasehold>,
    guard: Guard,
}

impl PolicyService {
    /// Answers may be kept for `cache_ttl_secs` by guards that are told of no change.
    pub(crate) fn of(node: &Node, cache_ttl_secs: u64) -> Self {
        let member = Parts {
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            group: node.group.clone(),
            lease: Arc::clone(&node.lease),
            guard: node.guard.clone(),
        };
        let (fetches, unread) = (Arc::new(Semaphore::new(FETCHES_MAX)), UnreadAnswers::default());
        Self { member, tasks: node.tasks.clone(), cache_ttl_secs, fetches, unread }
    }
}

/// A turn by `until`, or none.
async fn turn(places: &Semaphore, until: Instant) -> Result<tokio::sync::SemaphorePermit<'_>, Status> {
    let full = || Status::resource_exhausted(format!("{FETCHES_MAX} questions are under way: try again"));
    tokio::time::timeout_at(until, places.acquire()).await.map_err(|_| full())?.map_err(|_| full())
}

type Reply = Result<WatchReply, Status>;

/// What a guard has not read yet, and its place: that is given back only once nothing is held for the guard any more.
struct Unread {
    replies: Locked<Option<mpsc::Receiver<Reply>>>,
    place: Place,
}

impl Unread {
    fn lock(&self) -> LockGuard<'_, Option<mpsc::Receiver<Reply>>> {
        self.replies.lock()
    }

    /// Gives a reply to the guard. One that does not read loses what waits for it, and is told nothing more.
    async fn given(&self, to: &mpsc::Sender<Reply>, reply: Reply, patience: Duration) -> bool {
        let given = matches!(tokio::time::timeout(patience, to.send(reply)).await, Ok(Ok(())));
        if !given {
            *self.lock() = None;
        }
        given
    }
}

/// The replies of a watch.
pub(crate) struct Replies(Arc<Unread>);

impl Stream for Replies {
    type Item = Reply;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Reply>> {
        self.0.lock().as_mut().map_or(Poll::Ready(None), |replies| replies.poll_recv(cx))
    }
}

/// Whether `caller` may decide by this cluster's rules elsewhere, asked again each time.
fn permitted(member: &Parts, caller: &Caller) -> Result<(), Status> {
    let fresh = member.guard.fresh().map_err(|no_lease| Status::unavailable(no_lease.to_string()))?;
    let cluster = member.local.endpoint.trust().load().view.name.clone();
    let asked = member
        .guard
        .session(&caller.peer, Some(caller.remote.ip()))
        .and_then(|session| session.authorize_named(&fresh, Action::Read, &Kind::POLICY, cluster.as_str()).map(|_| ()));
    asked.map_err(|denial| {
        tracing::info!(principal = %caller.peer.principal(), remote = %caller.remote, %denial, "may not read policy");
        match denial {
            Denial::Denied(_) => Status::permission_denied("may not `read` the cluster's `policy`"),
            Denial::NoLease(_)
            | Denial::Refused(_)
            | Denial::Outdated { .. }
            | Denial::Behind { .. }
            | Denial::Unfetched
            | Denial::RecoveryOnly => Status::unavailable(denial.to_string()),
        }
    })
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    // Absent only if the router were wired wrongly: refuse.
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::unauthenticated("no caller"))
}

#[tonic::async_trait]
impl Policy for PolicyService {
    type WatchStream = Replies;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let member = &self.member;
        permitted(member, &caller)?;
        let place = member.lease.delegated.enter(&caller.peer.principal().to_string());
        let place = place.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        member.lease.delegated.announce();
        let (replies, sent) = mpsc::channel(WAITING_MAX);
        tracing::info!(
            principal = %caller.peer.principal(), remote = %caller.remote,
            "decides by the rules of this member"
        );
        let unread = Arc::new(Unread { replies: Locked::new(Some(sent)), place });
        let told = Replies(Arc::clone(&unread));
        let watching = Watching { member: member.clone(), caller, unread, replies, told: None, level: FIRST_LEVEL };
        self.tasks.spawn(watching.run(request.into_inner()));
        Ok(Response::new(told))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchReply>, Status> {
        let caller = caller(&request)?;
        let member = &self.member;
        permitted(member, &caller)?;
        let FetchRequest { principal, at_least } = request.into_inner();
        let role = Role::parse(&principal).map_err(|_| Status::invalid_argument("no principal"))?;
        let until = Instant::now() + BEHIND_MAX;
        let place = self.unread.place(&caller.peer.principal().to_string(), until).await.ok_or_else(|| {
            Status::resource_exhausted(format!(
                "{UNREAD_PER_PRINCIPAL_MAX} answers to this principal are unread: read them"
            ))
        })?;
        let _turn = turn(&self.fetches, until).await?;
        let mut applied = member.state.applied();
        let reached = applied.wait_for(|generation| generation.0 >= at_least);
        // Not kept: it would hold up the task that applies entries.
        let reached = tokio::time::timeout_at(until, reached).await.is_ok_and(|reached| reached.is_ok());
        if !reached {
            return Err(Status::unavailable("this member is behind"));
        }
        let view = member.state.read().view().cloned().ok_or_else(|| Status::unavailable("no state yet"))?;
        // A request that waited may do so no more.
        permitted(member, &caller)?;
        let mut answer = Response::new(fetched(&view, &role, self.cache_ttl_secs)?);
        answer.extensions_mut().insert(place);
        Ok(answer)
    }
}

/// What rules say of one principal, and everything else that decides about it.
fn fetched(view: &View, role: &Role, keep_secs: u64) -> Result<FetchReply, Status> {
    let subject = Subject::of(view, role);
    let encoded = |_| Status::internal("encoding");
    let mut rules = Vec::new();
    let mut len = 0_usize;
    for (_, group) in view.policy.groups_of(&subject) {
        for rule in group.iter().flat_map(|(_, rules)| rules.iter()) {
            let bytes = codec::encode(&**rule).map_err(encoded)?;
            len = len.saturating_add(bytes.len()).saturating_add(rule.id.as_str().len()).saturating_add(16);
            if rules.len() >= SLICE_RULES_MAX || len > SLICE_LEN_MAX / 2 {
                let many =
                    format!("more than {SLICE_RULES_MAX} rules, or {} bytes of them, are about it", SLICE_LEN_MAX / 2);
                return Err(Status::resource_exhausted(many));
            }
            rules.push(RuleReply { id: rule.id.to_string(), rule: bytes.into() });
        }
    }
    let requirements = view.policy.requirements().values().map(|r| codec::encode(r).map(Into::into).map_err(encoded));
    Ok(FetchReply {
        generation: view.generation.0,
        role: subject.roles.into_iter().next().unwrap_or_default(),
        attributes: subject.attributes.into_iter().collect(),
        rules,
        super_users: view.policy.super_users().iter().map(PrincipalPattern::to_string).collect(),
        requirements: requirements.collect::<Result<_, _>>()?,
        keep_secs,
    })
}

/// One guard that watches this member.
struct Watching {
    member: Parts,
    caller: Caller,
    unread: Arc<Unread>,
    replies: mpsc::Sender<Reply>,
    told: Option<Generation>,
    /// The newest level that the guard knows, as it last said.
    level: u32,
}

impl Watching {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let mut applied = self.member.state.applied();
        loop {
            let asked = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => Some(request),
                    _ => return,
                },
                changed = applied.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
            };
            let reply = self.answer(asked);
            let ended = reply.is_err();
            if !self.unread.given(&self.replies, reply, UNREAD_MAX).await || ended {
                return;
            }
        }
    }

    fn answer(&mut self, asked: Option<WatchRequest>) -> Reply {
        let member = self.member.clone();
        permitted(&member, &self.caller)?;
        let enforced_here = *member.state.applied().borrow();
        if let Some(request) = &asked {
            self.level = request.level;
            member.lease.delegated.knows(&self.unread.place, request.level);
        }
        let needed = member.state.read().policy_level();
        if self.level < needed {
            let (principal, level) = (self.caller.peer.principal(), self.level);
            tracing::warn!(
                %principal, level, needed,
                "this guard does not know what the rules need, and denies: update it"
            );
            return Err(Status::failed_precondition(format!("unsupported level: the rules need level {needed}")));
        }
        if let Some(request) = &asked {
            // A guard cannot enforce a view that it was not told.
            let told = self.told.unwrap_or_default();
            member.lease.delegated.acknowledge(&self.unread.place, Generation(request.enforced).min(told));
        }
        let status = member.group.status();
        let leader = status.leader.map(|leader| (leader, status.term));
        let (generation, lease_millis) = match &asked {
            Some(_) => member
                .lease
                .delegated
                .grant(&self.unread.place, &member.state, &member.local.data, leader)
                .map_err(|error| {
                    tracing::error!(error = %crate::chain(&error), "no lease is given: that it was cannot be stored");
                    Status::unavailable("no lease can be given")
                })?,
            None => (enforced_here, 0),
        };
        let view = member.state.read().view().cloned().ok_or_else(|| Status::unavailable("no state yet"))?;
        // The view may be ahead of what is enforced here; what is told of it then is told once more when it is
        // enforced.
        let generation = generation.max(view.generation);
        let affected = match self.told {
            Some(told) => member.state.affected(told, generation),
            None => Affected::everything(),
        };
        let shown = if affected.who {
            let bytes = codec::encode(&view.without_policy()).map_err(|_| Status::internal("encoding"))?;
            if bytes.len() > SLICE_LEN_MAX / 2 {
                return Err(Status::resource_exhausted("the cluster is too large to be told to a guard outside"));
            }
            bytes
        } else {
            Vec::new()
        };
        self.told = Some(generation);
        Ok(WatchReply {
            generation: generation.0,
            asked: asked.map_or(0, |request| request.asked),
            lease_millis,
            time_millis: member.state.read().time().0,
            clock_millis: SystemClock.now().0,
            view: shown.into(),
            everybody: affected.everybody,
            principals: affected.principals.iter().map(PrincipalPattern::to_string).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::lease::LeaseLength;
    use countersign_core::limits::DELEGATED_LEASES_PER_PRINCIPAL_MAX;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::identity::datadir::DataDir;
    use crate::lease::DelegatedLeases;

    /// Longer than anything takes on a loaded machine; only a failure waits so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn guard_that_does_not_read_loses_its_watch() {
        let directory = tempfile::tempdir().unwrap();
        let delegated = DelegatedLeases::new(&DataDir::open(directory.path()).unwrap(), LeaseLength::DEFAULT).unwrap();
        let enter = || delegated.enter("broker/b1");
        let _others: Vec<Place> = (1..DELEGATED_LEASES_PER_PRINCIPAL_MAX).map(|_| enter().unwrap()).collect();
        let (to, sent) = mpsc::channel(2);
        let unread = Arc::new(Unread { replies: Locked::new(Some(sent)), place: enter().unwrap() });
        let mut replies = Replies(Arc::clone(&unread));
        let given = async |patience| {
            tokio::time::timeout(PATIENCE, unread.given(&to, Ok(WatchReply::default()), patience)).await.unwrap()
        };
        let short = Duration::from_millis(20);
        assert!(given(PATIENCE).await && given(PATIENCE).await);
        assert!(replies.next().await.unwrap().is_ok(), "one that reads goes on");
        assert!(given(PATIENCE).await);
        assert!(!given(short).await, "two wait, and the caller reads none");
        assert!(replies.next().await.is_none() && to.is_closed());
        // Its connection may hold one more: the place counts until that is closed.
        drop(unread);
        assert!(enter().is_err());
        drop(replies);
        assert!(enter().is_ok());
    }

    #[tokio::test]
    async fn questions_under_way_are_bounded() {
        let places = Semaphore::new(FETCHES_MAX);
        let soon = || Instant::now() + Duration::from_millis(20);
        let mut turns = Vec::new();
        for _ in 0..FETCHES_MAX {
            turns.push(turn(&places, soon()).await.unwrap());
        }
        let late = tokio::time::timeout(PATIENCE, turn(&places, soon())).await.unwrap().unwrap_err();
        assert!(late.code() == tonic::Code::ResourceExhausted && late.message().contains("try again"), "{late}");
        turns.pop();
        assert!(turn(&places, Instant::now() + PATIENCE).await.is_ok());
    }
}
