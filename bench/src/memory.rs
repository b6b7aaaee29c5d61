//! What callers make one member hold: idle connections, and each attack on its memory. Every row has a member of its
//! own, a process; its resident memory is read before, and at its highest.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::caller::Caller;
use crate::report::Report;
use crate::servers::Server;

/// Connections of one principal.
const OF_ONE: usize = 64;
const PRINCIPALS: usize = 64;
const STREAMS: usize = 128;
/// One byte less than a message may have.
const UNFINISHED: usize = 64 * 1024 - 1;
const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn run(binary: &Path) -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(binary))
}

async fn measure(binary: &Path) -> Result<Report> {
    let mut table = String::from(
        "## Memory that callers make a member hold\n\n| what | by | resident before, MiB | at its highest, MiB | \
         more by |\n|---|---|---:|---:|---:|\n",
    );
    let idle = row(binary, idle).await?;
    let each = (idle.1 - idle.0) * 1024.0 / (PRINCIPALS * OF_ONE) as f64;
    let rows = [
        ("4,096 idle HTTP/2 connections", "64 clients", idle),
        (
            "64 connections × 128 requests, each a message of 64 KiB without its last byte",
            "one client",
            row(binary, unfinished_messages).await?,
        ),
        ("64 connections × 128 requests whose answers are not read", "one client", row(binary, unread_answers).await?),
        ("64 connections, each a head of 15 KiB without its end", "one client", row(binary, unfinished_heads).await?),
        (
            "256 connections, each 20 KiB of a ClientHello without its end",
            "strangers",
            row(binary, unfinished_hellos).await?,
        ),
    ];
    for (what, who, (before, highest)) in rows {
        writeln!(table, "| {what} | {who} | {before:.1} | {highest:.1} | {:.1} MiB |", highest - before)?;
    }
    writeln!(table, "\nAn idle connection costs {each:.1} KiB.")?;
    println!("{table}");
    Ok(Report { sections: vec![table], ..Report::default() })
}

/// Resident memory of a fresh member before and at its highest while `load` holds what it made, in MiB.
async fn row<T, F: Future<Output = Result<T>>>(binary: &Path, load: impl FnOnce(Loaded) -> F) -> Result<(f64, f64)> {
    let server = Server::found(binary).await?;
    let address = server.client_address()?;
    let socket = SocketAddr::new(std::net::IpAddr::from([127, 0, 0, 1]), address.port);
    let callers = async {
        let mut callers = Vec::new();
        for number in 0..PRINCIPALS {
            callers.push(Caller::issue(&server.socket(), &format!("m-{number}")).await?);
        }
        anyhow::Ok(callers)
    };
    let callers = callers.await?;
    let before = resident(server.pid(), "VmRSS:")?;
    let held = load(Loaded { callers, address, socket }).await?;
    // why: what was sent is on its way, and nothing tells when it has arrived
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let highest = resident(server.pid(), "VmHWM:")?;
    drop(held);
    Ok((before, highest))
}

/// Who loads a member, and where it is.
struct Loaded {
    callers: Vec<Caller>,
    address: countersign_core::name::Address,
    socket: SocketAddr,
}

fn resident(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / MIB)
}

/// A body whose first bytes come, and nothing more.
struct Unended(Option<Bytes>);

impl Body for Unended {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

async fn connected(load: &Loaded, caller: &Caller) -> Result<SendRequest<Unended>> {
    let stream = caller.dial(&load.address).await?;
    // What a caller that reads nothing grants.
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (requests, connection) = builder.initial_stream_window_size(0_u32).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(requests)
}

async fn idle(load: Loaded) -> Result<Vec<SendRequest<Unended>>> {
    let mut open = Vec::new();
    for caller in &load.callers {
        for _ in 0..OF_ONE {
            open.push(connected(&load, caller).await?);
        }
    }
    Ok(open)
}

/// Requests that one client has under way, each answered by a task that waits.
async fn requests(load: Loaded, path: &str, body: &[u8]) -> Result<Vec<SendRequest<Unended>>> {
    let caller = load.callers.first().context("no caller")?;
    let mut open = Vec::new();
    for _ in 0..OF_ONE {
        let mut connection = connected(&load, caller).await?;
        for _ in 0..STREAMS {
            let request = hyper::Request::post(format!("https://{}{path}", load.address));
            let request = request.header("content-type", "application/grpc").header("te", "trailers");
            let body = Unended(Some(Bytes::copy_from_slice(body)));
            let answer = connection.send_request(request.body(body)?);
            tokio::spawn(async move {
                let answer = answer.await;
                std::future::pending::<()>().await;
                drop(answer);
            });
            tokio::task::yield_now().await;
        }
        open.push(connection);
    }
    Ok(open)
}

async fn unfinished_messages(load: Loaded) -> Result<Vec<SendRequest<Unended>>> {
    let mut message = vec![0, 0, 1, 0, 0];
    message.resize(5 + UNFINISHED, 0x2a);
    requests(load, "/countersign.v1.Whoami/Whoami", &message).await
}

async fn unread_answers(load: Loaded) -> Result<Vec<SendRequest<Unended>>> {
    requests(load, "/grpc.health.v1.Health/Watch", &[0; 5]).await
}

async fn unfinished_heads(load: Loaded) -> Result<Vec<countersign_net::ServerStream>> {
    let caller = load.callers.first().context("no caller")?;
    let mut open = Vec::new();
    for _ in 0..OF_ONE {
        // The library offers HTTP/2; a head of it that does not end is a preface and a block of headers.
        let mut stream = caller.dial(&load.address).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        // HEADERS of 15 KiB on stream 1, without END_HEADERS.
        stream.write_all(&[0, 0x3c, 0, 1, 0, 0, 0, 0, 1]).await?;
        stream.write_all(&vec![0; 0x3c00]).await?;
        stream.flush().await?;
        open.push(stream);
    }
    Ok(open)
}

async fn unfinished_hellos(load: Loaded) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(load.socket).await?;
        // A record of 16 KiB with a ClientHello of 64 KiB, and a part of the next record.
        stream.write_all(&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff]).await?;
        let _ = stream.write_all(&vec![3; 20 * 1024]).await;
        open.push(stream);
    }
    Ok(open)
}
