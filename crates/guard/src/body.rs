//! The body of a call that goes on only as long as it is allowed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use countersign_core::id::Generation;
use countersign_core::time::BootMillis;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use crate::layer::{Going, Needed, status};
use crate::permit::Denial;
use crate::source::Fetching;

/// Which half of a call, and so how it ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// What the caller sends.
    Asked,
    /// What it is answered.
    Answered,
    /// The same in gRPC, which tells why in a trailer.
    AnsweredGrpc,
}

/// A body of which nothing passes without a lease, and nothing that rules deny by now.
pub struct GuardedBody {
    body: Body,
    needed: Needed,
    going: Going,
    changes: WatchStream<Generation>,
    half: Half,
    /// The question of a remote guard, and the frame that waits for its answer.
    fetching: Option<Fetching>,
    held: Option<Frame<Bytes>>,
    /// When it is asked again although nothing changed.
    ending: Option<Pin<Box<Sleep>>>,
}

impl GuardedBody {
    pub(crate) fn new(body: Body, needed: Needed, going: Going, half: Half) -> Self {
        // The present generation first: it may have come since the call was let begin.
        let changes = WatchStream::new(needed.guard.changes());
        Self { body, needed, going, changes, half, fetching: None, held: None, ending: None }
    }

    /// Asks again if anything has changed; also whether there is a lease. Pending while it is not known here what rules
    /// say.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Denial>> {
        let mut fetched = false;
        loop {
            if let Some(fetching) = &mut self.fetching {
                ready!(fetching.as_mut().poll(cx))?;
                self.fetching = None;
                fetched = true;
            }
            let fresh = self.needed.guard.fresh().map(|fresh| fresh.now());
            let now = match fresh {
                Ok(now) => now,
                Err(no_lease) => return Poll::Ready(Err(no_lease.into())),
            };
            if self.needed.guard.generation() <= self.going.generation && now < self.going.until {
                return Poll::Ready(Ok(()));
            }
            match self.needed.check() {
                Ok(going) => (self.going, self.ending) = (going, None),
                Err(Denial::Unfetched) if !fetched => self.fetching = Some(self.needed.fetch()),
                Err(denial) => return Poll::Ready(Err(denial)),
            }
        }
    }

    /// Ready when what lets the call go on ends by the passing of time.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(now) = self.needed.guard.fresh().map(|fresh| fresh.now()) else { return Poll::Pending };
            if self.going.until == BootMillis(u64::MAX) {
                return Poll::Pending;
            }
            if now >= self.going.until {
                return Poll::Ready(());
            }
            // The two clocks may disagree by a little: then it sleeps once more.
            let left = Duration::from_millis(self.going.until.since(now));
            // why: a rule, and a proof, ends by the passing of time alone
            let ending = self.ending.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            ready!(ending.as_mut().poll(cx));
            self.ending = None;
        }
    }

    fn end(&mut self, denial: &Denial) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let status = status(denial);
        self.body = Body::empty();
        self.held = None;
        Poll::Ready(Some(match self.half {
            Half::AnsweredGrpc => {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)).map_err(axum::Error::new)
            }
            Half::Asked | Half::Answered => Err(axum::Error::new(status)),
        }))
    }
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.held.is_none() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                // Judged after it was received.
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => self.held = Some(frame),
                // The trailers say how the call ended, which is nothing new.
                Poll::Ready(other) => return Poll::Ready(other),
                // A stream on which nothing passes is woken when anything changes.
                Poll::Pending => {
                    return loop {
                        let mut changed = self.fetching.is_some() || self.poll_ending(cx).is_ready();
                        while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {
                            changed = true;
                        }
                        // Without a lease its connection is closed, by the keeper of the connections.
                        match changed.then(|| self.poll_check(cx)) {
                            // Once more, so that the next change wakes it, too.
                            Some(Poll::Ready(Ok(()))) => {}
                            Some(Poll::Ready(Err(denial @ (Denial::Denied(_) | Denial::Refused(_))))) => {
                                break self.end(&denial);
                            }
                            None
                            | Some(
                                Poll::Pending
                                | Poll::Ready(Err(
                                    Denial::NoLease(_)
                                    | Denial::Outdated { .. }
                                    | Denial::Behind { .. }
                                    | Denial::Unfetched
                                    | Denial::RecoveryOnly,
                                )),
                            ) => break Poll::Pending,
                        }
                    };
                }
            }
        }
        match ready!(self.poll_check(cx)) {
            Ok(()) => Poll::Ready(self.held.take().map(Ok)),
            Err(denial) => self.end(&denial),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // A frame that is held has left the body.
        if self.held.is_none() { self.body.size_hint() } else { SizeHint::new() }
    }
}
