//! Following a member: what changed, and a lease out of its own.

use core::convert::Infallible;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use countersign_api::cluster::policy_client::PolicyClient;
use countersign_api::cluster::{WatchReply, WatchRequest};
use countersign_api::convert::decoded;
use countersign_core::authz::PrincipalPattern;
use countersign_core::id::Generation;
use countersign_core::lease::Holder;
use countersign_core::limits::{LEASE_SECS_MAX, SKEW_SECS, SLICE_LEN_MAX};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::command::FEATURE_LEVEL;
use countersign_core::trust::view::View;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::{ConnectError, RemoteGuard};

/// How long to wait before the next member is tried.
const RETRY: Duration = Duration::from_millis(200);
/// How long a member may be silent after it was asked.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How often a lease is asked for where none was given.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Requests for a lease that wait for their answers.
const ASKED_MAX: usize = 16;

/// Why a member is not followed any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the member ended the watch: {}", .0.message())]
    Member(#[source] Box<tonic::Status>),
    #[error("the member ended the watch")]
    Ended,
    #[error("the member is silent")]
    Silent,
    #[error("what the member tells is malformed")]
    Malformed,
}

impl From<tonic::Status> for Lost {
    fn from(status: tonic::Status) -> Self {
        Self::Member(Box::new(status))
    }
}

/// From one member to the next.
pub(super) async fn follow(guard: &RemoteGuard) -> Infallible {
    loop {
        let Err(why) = follow_one(guard).await;
        if let Lost::Member(status) = &why
            && status.code() == Code::PermissionDenied
        {
            guard.denied.send_modify(|denied| {
                denied.times = denied.times.saturating_add(1);
                status.message().clone_into(&mut denied.last);
            });
        }
        tracing::warn!(error = %why, "the cluster is not followed: rules known here count until the lease ends");
        guard.feed.channel.send_replace(None);
        // why: nothing tells when a member can be reached again
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_one(guard: &RemoteGuard) -> Result<Infallible, Lost> {
    let channel = guard.controllers.connect().await?;
    let mut client = PolicyClient::new(channel.clone()).max_decoding_message_size(SLICE_LEN_MAX);
    let (requests, sent) = mpsc::channel(ASKED_MAX);
    let mut watch = Watch { guard, requests, asked: VecDeque::new(), number: 0, lease: None, enforced: Generation(0) };
    watch.ask()?;
    let replies = client.watch(ReceiverStream::new(sent)).await?.into_inner();
    // From here on changes are told; earlier ones may have been missed.
    guard.feed.lock().cache.lost();
    guard.feed.channel.send_replace(Some(channel));
    watch.listen(replies).await
}

struct Watch<'a> {
    guard: &'a RemoteGuard,
    requests: mpsc::Sender<WatchRequest>,
    /// By number: when it was sent. A lease is counted from then.
    asked: VecDeque<(u64, BootMillis)>,
    number: u64,
    /// Milliseconds of the last lease.
    lease: Option<u64>,
    enforced: Generation,
}

impl Watch<'_> {
    fn ask(&mut self) -> Result<(), Lost> {
        self.number += 1;
        // Not the generation that is answered by: the one that is enforced, with every connection closed that it
        // refuses.
        let enforced = self.enforced.0;
        let at = self.guard.feed.time.boot();
        self.asked.push_back((self.number, at));
        if self.asked.len() > ASKED_MAX {
            self.asked.pop_front();
        }
        self.requests
            .try_send(WatchRequest { asked: self.number, enforced, level: FEATURE_LEVEL })
            .map_err(|_| Lost::Silent)
    }

    async fn listen(mut self, mut replies: Streaming<WatchReply>) -> Result<Infallible, Lost> {
        loop {
            let pause = self.lease.map_or(ASK_AGAIN, |millis| Duration::from_millis((millis / 3).max(50)));
            let patience = if self.asked.is_empty() { pause } else { ANSWER_DEADLINE };
            match tokio::time::timeout(patience, replies.message()).await {
                Ok(reply) => self.take(reply?.ok_or(Lost::Ended)?)?,
                Err(_) if self.asked.is_empty() => self.ask()?,
                Err(_) => return Err(Lost::Silent),
            }
        }
    }

    /// Takes in a reply in this order: no old answer is given any more, no refused connection is open, and only then is
    /// it acknowledged and a lease counted.
    fn take(&mut self, reply: WatchReply) -> Result<(), Lost> {
        let (feed, guard) = (&self.guard.feed, &self.guard.guard);
        let generation = Generation(reply.generation);
        let patterns: Result<Vec<PrincipalPattern>, _> = reply.principals.iter().map(|text| text.parse()).collect();
        // An unreadable pattern may be about every principal.
        let (everybody, patterns) = match patterns {
            Ok(patterns) => (reply.everybody, patterns),
            Err(_) => (true, Vec::new()),
        };
        let known = feed.lock().view.clone();
        let news = match known.filter(|_| reply.view.is_empty()) {
            Some(view) if view.generation >= generation => None,
            Some(view) => Some(Arc::new(View { generation, ..View::clone(&view) })),
            None if reply.view.is_empty() => return Err(Lost::Malformed),
            None => {
                let view: View = decoded("view", &reply.view).map_err(|_| Lost::Malformed)?;
                if view.generation != generation {
                    return Err(Lost::Malformed);
                }
                Some(Arc::new(view))
            }
        };
        // This member may be behind the one before it: known changes are not forgotten.
        let news = news.filter(|view| view.generation >= guard.generation());
        {
            let mut state = feed.lock();
            state.cache.told(generation, everybody, &patterns);
            if let Some(view) = &news {
                state.view = Some(Arc::clone(view));
            }
        }
        let before = guard.generation();
        if let Some(view) = &news {
            guard.in_force(view.generation);
            if !self.guard.controllers.enforce(view, UnixMillis(reply.time_millis)) {
                return Err(Lost::Malformed);
            }
            self.enforced = view.generation;
            feed.lease(|holder| holder.enforced(view.generation));
        }
        if !self.is_in_step(&reply) {
            // A guard with a wrong clock, or one told by a member with a wrong clock, serves no client.
            feed.lease(Holder::surrender);
        } else if reply.asked != 0 {
            self.granted(&reply);
        }
        // At once: a member may wait for it.
        if guard.generation() > before { self.ask() } else { Ok(()) }
    }

    /// Whether this host's clock and the member's agree, as far as clocks must.
    fn is_in_step(&self, reply: &WatchReply) -> bool {
        self.guard.feed.time.clock().0.abs_diff(reply.clock_millis) <= SKEW_SECS * 1000
    }

    fn granted(&mut self, reply: &WatchReply) {
        let Some(place) = self.asked.iter().position(|(number, _)| *number == reply.asked) else { return };
        let at = self.asked.drain(..=place).next_back().map(|(_, at)| at);
        // The member's answer cannot extend the limit of leases.
        let millis = reply.lease_millis.min(LEASE_SECS_MAX * 1000);
        self.lease = (millis > 0).then_some(millis);
        if let (Some(at), Some(millis)) = (at, self.lease) {
            self.guard.feed.lease(|holder| holder.granted_for(at, Generation(reply.generation), millis));
        }
    }
}
