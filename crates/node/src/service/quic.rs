//! The client port over QUIC as it is served: a request on each stream, each decided by the guard.
//!
//! A stream never outlasts its deadlines. Requests count together with those over TCP. And a connection that trust has
//! ended hands out nothing more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::peer::Refusal;
use countersign_guard::{Action, Caller, Denial, Guard};
use countersign_net::{QuicAcceptor, QuicConnection, QuicStream};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::WAITING_MAX;
use super::clients::DRAIN_MAX;
use super::quic_request::{Answer, Asked, Kind, Status};
use super::under_way::UnderWay;
use crate::tasks::Tasks;

/// How long a client may take to send a request, from its stream's first byte on.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to receive the answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a member that stops waits until its clients are told so.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Accepts from now on, and serves until the member stops.
pub(super) fn serve(tasks: &Tasks, acceptor: &Arc<QuicAcceptor>, guard: &Guard, under_way: &UnderWay) {
    let mut accepted = acceptor.connections(WAITING_MAX);
    let (stop, app) = (tasks.stopping(), App { guard: guard.clone(), under_way: under_way.clone() });
    let connections = TaskTracker::new();
    let spawning = connections.clone();
    tasks.spawn(async move {
        while let Some(connection) = accepted.recv().await {
            spawning.spawn(serve_one(connection, app.clone(), stop.clone()));
        }
    });
    let accepting = Arc::clone(acceptor);
    tasks.spawn(async move { match accepting.run().await {} });
    let (ending, stop) = (Arc::clone(acceptor), tasks.stopping());
    tasks.spawn_finishing(async move {
        stop.cancelled().await;
        // Each ends in time: see `serve_one`.
        connections.close();
        connections.wait().await;
        // Past it the clients learn by the silence.
        let _ = tokio::time::timeout(FAREWELL_MAX, ending.ended()).await;
    });
}

/// What decides about requests.
#[derive(Clone)]
struct App {
    guard: Guard,
    under_way: UnderWay,
}

async fn serve_one(connection: QuicConnection, app: App, stop: CancellationToken) {
    let caller = Caller { peer: connection.peer().clone(), remote: connection.remote() };
    let mut requests = JoinSet::new();
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break None,
            stream = connection.accept() => match stream {
                Ok(stream) => drop(requests.spawn(serve_stream(stream, caller.clone(), app.clone()))),
                Err(error) => break Some(error),
            },
            Some(_) = requests.join_next() => {}
        }
    };
    match ended {
        Some(error) => tracing::debug!(error = %crate::chain(&error), "connection of a client ended"),
        // What was asked is answered, if it does not take too long; no further stream is taken.
        None => {
            let answered = async { while requests.join_next().await.is_some() {} };
            if tokio::time::timeout(DRAIN_MAX, answered).await.is_err() {
                tracing::debug!("connection of a client was cut: it did not end");
            }
        }
    }
}

async fn serve_stream(mut stream: QuicStream, caller: Caller, app: App) {
    let role = &caller.peer.principal().role;
    // Held until the answer was received.
    let place = app.under_way.begin(role);
    let answered = match &place {
        None => Ok(Ok(Answer::saying(Status::Busy, app.under_way.too_many(role)))),
        Some(_) => tokio::time::timeout(REQUEST_MAX, answer(&mut stream, &caller, &app.guard)).await,
    };
    let answer = match answered {
        Ok(Ok(answer)) => answer.encode(),
        Ok(Err(error)) => return tracing::debug!(error = %crate::chain(&error), "stream of a client ended"),
        Err(_) => return stream.refuse(Refusal::Deadline),
    };
    let sending = async {
        stream.write_all(&answer).await?;
        stream.deliver().await
    };
    match tokio::time::timeout(ANSWER_MAX, sending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %crate::chain(&error), "answer was not received"),
        Err(_) => stream.refuse(Refusal::Deadline),
    }
}

/// Reads a request and decides it. A caller that may not ask is told so before its bytes are read.
///
/// # Errors
/// The stream or its connection has ended.
async fn answer(stream: &mut QuicStream, caller: &Caller, guard: &Guard) -> io::Result<Answer> {
    let kind = match Kind::read(stream).await? {
        Ok(kind) => kind,
        Err(answer) => return Ok(answer),
    };
    let service = kind.service();
    if let Err(denial) = guard.admit(caller, Action::Write, service).await {
        return Ok(denied(&denial));
    }
    let asked = match Asked::read(kind, stream).await? {
        Ok(asked) => asked,
        Err(answer) => return Ok(answer),
    };
    // The bytes took their time: the answer is by the rules in force now.
    if let Err(denial) = guard.admit(caller, Action::Write, service).await {
        return Ok(denied(&denial));
    }
    Ok(match asked {
        Asked::Whoami => Answer { status: Status::Ok, bytes: caller.peer.principal().to_string().into_bytes() },
        Asked::Echo(bytes) => Answer { status: Status::Ok, bytes },
    })
}

/// What a denied caller is told. It does not name the rule, which is for the log.
fn denied(denial: &Denial) -> Answer {
    match denial {
        Denial::Denied(decision) => {
            Answer::saying(Status::Denied, format!("denied (generation {})", decision.generation))
        }
        Denial::Refused(_) | Denial::RecoveryOnly => Answer::saying(Status::Denied, denial.to_string()),
        Denial::NoLease(_) | Denial::Outdated { .. } | Denial::Behind { .. } | Denial::Unfetched => {
            Answer::saying(Status::Unavailable, denial.to_string())
        }
    }
}
