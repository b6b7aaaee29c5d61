//! A joiner answers the voter that looks for it, on its cluster port, until it is a member.

use std::convert::Infallible;
use std::time::Duration;

use countersign_core::enroll::dial_back::{CHALLENGE_LEN, Challenge, DialBack};
use countersign_core::key::SecretKey;
use countersign_core::limits::{DIAL_BACK_ANSWERS_MAX, DIAL_BACK_MILLIS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long a voter may take to ask.
const PATIENCE: Duration = Duration::from_millis(DIAL_BACK_MILLIS);

/// Answers until it is dropped, a few at a time.
pub(crate) async fn answer(listener: &TcpListener, back: &DialBack, identity: &SecretKey) -> Infallible {
    let mut asked = JoinSet::new();
    let mut answered = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if asked.len() < DIAL_BACK_ANSWERS_MAX => match accepted {
                Ok((socket, _)) => drop(asked.spawn(tokio::time::timeout(PATIENCE, question(socket)))),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept the voter that looks for this node");
                    // why: out of descriptors, accepting again at once would only spin
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(question) = asked.join_next() => {
                if let Ok(Ok(Some((mut socket, challenge)))) = question
                    && let Some(answer) = back.answer(&challenge, identity)
                {
                    answered.spawn(tokio::time::timeout(PATIENCE, async move { socket.write_all(&answer).await }));
                }
            }
            Some(_) = answered.join_next() => {}
        }
    }
}

/// What is asked, if it is a question.
async fn question(mut socket: TcpStream) -> Option<(TcpStream, Challenge)> {
    let mut bytes = [0; CHALLENGE_LEN];
    socket.read_exact(&mut bytes).await.ok()?;
    Some((socket, Challenge::decode(&bytes)?))
}
