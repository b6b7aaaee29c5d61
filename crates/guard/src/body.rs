//! The body of a call that goes on only as long as it is allowed.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use countersign_core::id::Generation;
use hyper::body::{Frame, SizeHint};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

use crate::layer::{Needed, status};
use crate::permit::Denial;

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
}

impl GuardedBody {
    pub(crate) fn new(body: Body, needed: Needed, generation: Generation, half: Half) -> Self {
        let changes = WatchStream::from_changes(needed.guard.changes());
        Self { body, needed, generation, changes, half }
    }

    /// Asks again if anything has changed; also whether there is a lease.
    fn check(&mut self) -> Result<(), Denial> {
        if self.needed.guard.generation() == self.generation {
            return self.needed.guard.fresh().map(|_| ()).map_err(Denial::from);
        }
        self.generation = self.needed.check()?;
        Ok(())
    }

    fn end(&mut self, denial: &Denial) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let status = status(denial);
        self.body = Body::empty();
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
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            // After the frame was received. The trailers say how the call ended, which is nothing new.
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                if let Err(denial) = self.check() {
                    return self.end(&denial);
                }
            }
            Poll::Ready(_) => {}
            // A stream on which nothing passes is woken when anything changes.
            Poll::Pending => {
                while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {
                    if let Err(denial @ (Denial::Denied(_) | Denial::Refused(_))) = self.check() {
                        return self.end(&denial);
                    }
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
