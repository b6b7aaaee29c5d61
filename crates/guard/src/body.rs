//! The body of a call that goes on only as long as it is allowed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use countersign_core::id::Generation;
use hyper::body::{Frame, SizeHint};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use crate::layer::{Needed, status};
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
    generation: Generation,
    changes: WatchStream<Generation>,
    half: Half,
    /// What an outpost is asking for, and the frame that waits for it.
    fetching: Option<Fetching>,
    held: Option<Frame<Bytes>>,
}

impl GuardedBody {
    pub(crate) fn new(body: Body, needed: Needed, generation: Generation, half: Half) -> Self {
        let changes = WatchStream::from_changes(needed.guard.changes());
        Self { body, needed, generation, changes, half, fetching: None, held: None }
    }

    /// Asks again if anything has changed; also whether there is a lease. Pending while it is not known here what rules say.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Denial>> {
        let mut fetched = false;
        loop {
            if let Some(fetching) = &mut self.fetching {
                ready!(fetching.as_mut().poll(cx))?;
                self.fetching = None;
                fetched = true;
            }
            if self.needed.guard.generation() == self.generation {
                return Poll::Ready(self.needed.guard.fresh().map(|_| ()).map_err(Denial::from));
            }
            match self.needed.check() {
                Ok(generation) => self.generation = generation,
                Err(Denial::Unfetched) if !fetched => self.fetching = Some(self.needed.fetch()),
                Err(denial) => return Poll::Ready(Err(denial)),
            }
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
                    let mut changed = self.fetching.is_some();
                    while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {
                        changed = true;
                    }
                    // Without a lease its connection is closed, by whoever keeps the connections.
                    return match changed.then(|| self.poll_check(cx)) {
                        Some(Poll::Ready(Err(denial @ (Denial::Denied(_) | Denial::Refused(_))))) => self.end(&denial),
                        _ => Poll::Pending,
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
