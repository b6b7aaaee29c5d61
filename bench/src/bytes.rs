//! Bytes one way, in writes of 64 KiB, through a connection that stands.

use std::time::Instant;

use anyhow::Result;
use countersign_net::{PeerStream, QuicConnection, QuicStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cluster::Cluster;
use crate::pairs::{BareQuic, BareStreams, BareTcp, Connect, Quic, Tcp};
use crate::report::{Line, Report, Target};
use crate::rounds::{Contender, Sampling, interleave};

const ROUNDS: usize = 25;
const WRITE: usize = 64 * 1024;
const WRITES_PER_SAMPLE: usize = 1024;

/// A writing and a reading end; what else keeps the connection open is held beside them.
struct Pipe<W, R, K = ()> {
    writer: W,
    reader: R,
    _kept: K,
}

impl<W: AsyncWrite + Unpin, R: AsyncRead + Unpin, K> Contender for Pipe<W, R, K> {
    fn sample(&mut self) -> Sampling<'_> {
        let Self { writer, reader, .. } = self;
        Box::pin(async move {
            let begun = Instant::now();
            let write = async {
                let chunk = vec![0x5a; WRITE];
                for _ in 0..WRITES_PER_SAMPLE {
                    writer.write_all(&chunk).await?;
                }
                writer.flush().await
            };
            let read = async {
                let mut chunk = vec![0; WRITE];
                let mut left = WRITE * WRITES_PER_SAMPLE;
                while left > 0 {
                    match reader.read(&mut chunk).await? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        got => left -= got,
                    }
                }
                Ok(())
            };
            tokio::try_join!(write, read)?;
            let megabytes = u32::try_from(WRITE * WRITES_PER_SAMPLE / 1_000_000)?;
            Ok(f64::from(megabytes) / begun.elapsed().as_secs_f64())
        })
    }
}

async fn ours_quic(cluster: &Cluster) -> Result<Pipe<QuicStream, QuicStream, (QuicConnection, QuicConnection)>> {
    let (dialed, accepted) = Quic::new(cluster)?.connect().await?;
    let mut writer = dialed.open().await?;
    // A stream is seen with its first byte.
    writer.write_all(&[0]).await?;
    let mut reader = accepted.accept().await?;
    reader.read_u8().await?;
    Ok(Pipe { writer, reader, _kept: (dialed, accepted) })
}

/// Endpoints are kept too: a dropped one takes its driver along only later, but nobody should depend on when.
type Kept = (quinn::Connection, quinn::Connection, BareQuic);

async fn bare_quic(cluster: &Cluster) -> Result<Pipe<quinn::SendStream, quinn::RecvStream, Kept>> {
    let mut pair = BareQuic::new(cluster)?;
    let (dialed, accepted) = pair.connect().await?;
    let (mut writer, _) = dialed.open_bi().await?;
    writer.write_all(&[0]).await?;
    let (_, mut reader) = accepted.accept_bi().await?;
    reader.read_u8().await?;
    Ok(Pipe { writer, reader, _kept: (dialed, accepted, pair) })
}

pub(crate) fn run() -> Result<Report> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Report> {
    let cluster = Cluster::of(2)?;
    let (writer, reader): (PeerStream, PeerStream) = Tcp::new(&cluster).await?.connect().await?;
    let mut ours = Pipe { writer, reader, _kept: () };
    let (writer, reader): BareStreams = BareTcp::new(&cluster).await?.connect().await?;
    let mut bare = Pipe { writer, reader, _kept: () };
    let tcp = interleave(&mut [&mut bare, &mut ours], ROUNDS).await?;
    let (mut ours, mut bare) = (ours_quic(&cluster).await?, bare_quic(&cluster).await?);
    let quic = interleave(&mut [&mut bare, &mut ours], ROUNDS).await?;
    let mut report = Report::default();
    for (medians, work, peer) in [
        (tcp, "bytes over TCP, 64 KiB writes", "tokio-rustls, mutual TLS 1.3"),
        (quic, "bytes over a QUIC stream, 64 KiB writes", "quinn, mutual"),
    ] {
        let [bare, ours] = medians.as_slice() else { continue };
        let (theirs, target) = (Some(*bare), Target::Ratio(0.98));
        report.lines.push(Line { work, unit: "MB/s", peer, theirs, ours: *ours, target });
    }
    Ok(report)
}
