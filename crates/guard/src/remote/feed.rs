//! The knowledge of a remote guard, and how it learns more about a principal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_api::cluster::policy_client::PolicyClient;
use countersign_api::cluster::{FetchReply, FetchRequest};
use countersign_core::authz::change::checked;
use countersign_core::authz::{Policy, PrincipalPattern, Requirement, Rule, RuleId, Subject};
use countersign_core::codec;
use countersign_core::id::Generation;
use countersign_core::lease::{Holder, LeaseClock};
use countersign_core::limits::{CACHE_TTL_SECS_MAX, SLICE_LEN_MAX};
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::peer::{VerifiedPeer, still_known};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::view::View;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::cache::{Cache, Question, Slice, Taken};
use crate::permit::Denial;
use crate::source::{Fetching, Source, Standing};
use crate::time::Time;

/// How long an answer may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);
/// How often a question is asked again because a change overtook its answer.
const AGAIN_MAX: usize = 8;

/// Why an answer about a principal is none.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("there is no connection to a member")]
    Disconnected,
    #[error("the member took too long")]
    Deadline,
    #[error("the member answered: {}", .0.message())]
    Member(#[source] Box<tonic::Status>),
    #[error("the answer is malformed")]
    Malformed,
    #[error("changes overtook the answer again and again")]
    Overtaken,
}

/// All of one generation.
pub(super) struct State {
    pub(super) cache: Cache,
    pub(super) view: Option<Arc<View>>,
    pub(super) holder: Holder,
}

/// The knowledge of a remote guard.
pub(super) struct Feed {
    state: Locked<State>,
    lease: Arc<LeaseClock>,
    pub(super) time: Arc<dyn Time>,
    /// The member that is watched, for questions.
    pub(super) channel: watch::Sender<Option<Channel>>,
    /// Changes whenever a question has ended.
    answered: watch::Sender<u64>,
    fetches: AtomicU64,
}

impl Feed {
    pub(super) fn new(lease: Arc<LeaseClock>, time: Arc<dyn Time>) -> Self {
        let state = State { cache: Cache::default(), view: None, holder: Holder::default() };
        Self {
            state: Locked::new(state),
            lease,
            time,
            channel: watch::Sender::new(None),
            answered: watch::Sender::new(0),
            fetches: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> LockGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the lease held.
    pub(super) fn lease(&self, with: impl FnOnce(&mut Holder)) {
        let mut state = self.lock();
        with(&mut state.holder);
        self.lease.follow(&state.holder);
    }

    pub(super) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Whether anything is known of the principal that still counts.
    fn knows(&self, principal: &str) -> bool {
        self.lock().cache.slice(principal, self.time.boot()).is_some()
    }

    /// Asks, unless another caller does already, and waits for the answer.
    async fn learn(self: Arc<Self>, principal: String) -> Result<(), Denial> {
        let mut answered = self.answered.subscribe();
        let mut waited = false;
        loop {
            answered.mark_unchanged();
            if self.knows(&principal) {
                return Ok(());
            }
            let question = self.lock().cache.ask(&principal);
            match question {
                // The question that this caller waited for got no answer: another question would get none either.
                Some(question) if waited => {
                    self.lock().cache.failed(&principal, question.turn);
                    return Err(Denial::Unfetched);
                }
                // A task of its own: the caller may go away, and others wait for the answer.
                Some(question) => drop(tokio::spawn(Arc::clone(&self).ask(principal.clone(), question))),
                None => {}
            }
            waited = true;
            if answered.changed().await.is_err() {
                return Err(Denial::Unfetched);
            }
            // Another question ended, this one has not: wait on.
            while !self.knows(&principal) && self.is_asked(&principal) {
                if answered.changed().await.is_err() {
                    return Err(Denial::Unfetched);
                }
            }
        }
    }

    fn is_asked(&self, principal: &str) -> bool {
        self.lock().cache.is_asked(principal)
    }

    async fn ask(self: Arc<Self>, principal: String, question: Question) {
        if let Err(why) = self.ask_until_taken(&principal, question).await {
            tracing::warn!(%principal, %why, "rules about a principal are not known: it is denied");
            self.lock().cache.failed(&principal, question.turn);
        }
        self.answered.send_modify(|count| *count += 1);
    }

    async fn ask_until_taken(&self, principal: &str, mut question: Question) -> Result<(), Unanswered> {
        for _ in 0..AGAIN_MAX {
            let since = self.time.boot();
            let asked = self.ask_once(principal, question.at_least);
            let slice = tokio::time::timeout(FETCH_DEADLINE, asked).await.map_err(|_| Unanswered::Deadline)??;
            let taken = self.lock().cache.answered(principal, question.turn, slice, since);
            match taken {
                Taken::Kept | Taken::Dropped => return Ok(()),
                Taken::Again(again) => question = again,
            }
        }
        Err(Unanswered::Overtaken)
    }

    async fn ask_once(&self, principal: &str, at_least: Generation) -> Result<Slice, Unanswered> {
        let channel = self.channel.borrow().clone().ok_or(Unanswered::Disconnected)?;
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let mut client = PolicyClient::new(channel).max_decoding_message_size(SLICE_LEN_MAX);
        let request = FetchRequest { principal: principal.to_owned(), at_least: at_least.0 };
        let reply = client.fetch(request).await.map_err(|status| Unanswered::Member(Box::new(status)))?;
        slice(principal, reply.into_inner()).ok_or(Unanswered::Malformed)
    }
}

/// What the member said of a principal. A rule that this build cannot read may deny: it is kept as one that cannot be
/// evaluated.
fn slice(principal: &str, reply: FetchReply) -> Option<Slice> {
    let role = Some(reply.role).filter(|role| !role.is_empty());
    let attributes: BTreeMap<String, String> = reply.attributes.into_iter().collect();
    let subject = Subject { name: principal.to_owned(), roles: role.into_iter().collect(), attributes };
    let super_users: Result<BTreeSet<PrincipalPattern>, _> =
        reply.super_users.iter().map(|text| text.parse()).collect();
    let mut rules = Vec::with_capacity(reply.rules.len());
    let mut unevaluable = Vec::new();
    for said in reply.rules {
        let id = RuleId::parse(&said.id).ok()?;
        match codec::decode::<Rule>(&said.rule) {
            Ok(rule) if rule.id == id && rule.check().is_ok() => rules.push(rule),
            _ => unevaluable.push(id),
        }
    }
    let requirements: Result<Vec<Requirement>, _> =
        reply.requirements.iter().map(|bytes| codec::decode(bytes)).collect();
    let requirements = checked(&requirements.ok()?).ok()?;
    let policy = Policy::of(super_users.ok()?, rules).with_requirements(requirements).with_unevaluable(unevaluable);
    Some(Slice {
        generation: Generation(reply.generation),
        subject,
        policy: Arc::new(policy),
        compiled: Default::default(),
        // The member's answer cannot extend the limit.
        keep_millis: reply.keep_secs.min(CACHE_TTL_SECS_MAX) * 1000,
    })
}

impl Source for Feed {
    fn standing(&self, peer: &VerifiedPeer, now: UnixMillis) -> Result<Standing, Denial> {
        let boot: BootMillis = self.time.boot();
        let mut state = self.lock();
        let view = state.view.clone().ok_or(Denial::Unfetched)?;
        still_known(&view, peer, now).map_err(Denial::Refused)?;
        let generation = state.cache.generation();
        let (slice, until) = state.cache.slice(&peer.principal().role.to_string(), boot).ok_or(Denial::Unfetched)?;
        Ok(Standing {
            generation,
            policy: Arc::clone(&slice.policy),
            subject: slice.subject.clone(),
            compiled: Some(Arc::clone(&slice.compiled)),
            until,
        })
    }

    fn fetch(self: Arc<Self>, peer: &VerifiedPeer) -> Fetching {
        let principal = peer.principal().role.to_string();
        if self.knows(&principal) {
            return Box::pin(core::future::ready(Ok(())));
        }
        Box::pin(self.learn(principal))
    }
}
