//! Bytes one way, in writes of 64 KiB, through a connection that stands. Each sample has a connection of its own: the
//! kernel sizes a connection's buffers as it goes, and one may be luckier than the next.

use std::time::Instant;

use anyhow::Result;
use countersign_net::{PeerStream, QuicConnection, QuicStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::cluster::Cluster;
use crate::pairs::{BareQuic, BareTcp, Connect, Quic, Tcp};
use crate::report::{Line, Report, Target};
use crate::rounds::{Contender, Sampling, interleave};

const ROUNDS: usize = 41;
const WRITE: usize = 64 * 1024;
const WARMING_WRITES: usize = 128;
const WRITES_PER_SAMPLE: usize = 1024;

/// A connection's two ends as bytes go: in at the dialer, out at the acceptor.
trait Pipe: Connect {
    type Writer: AsyncWrite + Unpin;
    type Reader: AsyncRead + Unpin;
    /// Writer, reader, and what else must live as long.
    async fn pipe(&mut self) -> Result<(Self::Writer, Self::Reader, Option<Self::Ends>)>;
}

impl Pipe for Tcp {
    type Writer = PeerStream;
    type Reader = PeerStream;
    async fn pipe(&mut self) -> Result<(PeerStream, PeerStream, Option<Self::Ends>)> {
        let (writer, reader) = self.connect().await?;
        Ok((writer, reader, None))
    }
}

impl Pipe for BareTcp {
    type Writer = client::TlsStream<TcpStream>;
    type Reader = server::TlsStream<TcpStream>;
    async fn pipe(&mut self) -> Result<(Self::Writer, Self::Reader, Option<Self::Ends>)> {
        let (writer, reader) = self.connect().await?;
        Ok((writer, reader, None))
    }
}

impl Pipe for Quic {
    type Writer = QuicStream;
    type Reader = QuicStream;
    async fn pipe(&mut self) -> Result<(QuicStream, QuicStream, Option<(QuicConnection, QuicConnection)>)> {
        let (dialed, accepted) = self.connect().await?;
        let mut writer = dialed.open().await?;
        // A stream is seen with its first byte.
        writer.write_all(&[0]).await?;
        let mut reader = accepted.accept().await?;
        reader.read_u8().await?;
        Ok((writer, reader, Some((dialed, accepted))))
    }
}

impl Pipe for BareQuic {
    type Writer = quinn::SendStream;
    type Reader = quinn::RecvStream;
    async fn pipe(&mut self) -> Result<(Self::Writer, Self::Reader, Option<Self::Ends>)> {
        let (dialed, accepted) = self.connect().await?;
        let (mut writer, _) = dialed.open_bi().await?;
        writer.write_all(&[0]).await?;
        let (_, mut reader) = accepted.accept_bi().await?;
        reader.read_u8().await?;
        Ok((writer, reader, Some((dialed, accepted))))
    }
}

struct Bytes<P>(P);

impl<P: Pipe> Contender for Bytes<P> {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let (mut writer, mut reader, _ends) = self.0.pipe().await?;
            push(&mut writer, &mut reader, WARMING_WRITES).await?;
            let begun = Instant::now();
            push(&mut writer, &mut reader, WRITES_PER_SAMPLE).await?;
            let megabytes = u32::try_from(WRITE * WRITES_PER_SAMPLE / 1_000_000)?;
            Ok(f64::from(megabytes) / begun.elapsed().as_secs_f64())
        })
    }
}

/// Writes at one end what the other reads.
async fn push(
    writer: &mut (impl AsyncWrite + Unpin),
    reader: &mut (impl AsyncRead + Unpin),
    writes: usize,
) -> std::io::Result<()> {
    let write = async {
        let chunk = vec![0x5a; WRITE];
        for _ in 0..writes {
            writer.write_all(&chunk).await?;
        }
        writer.flush().await
    };
    let read = async {
        let mut chunk = vec![0; WRITE];
        let mut left = WRITE * writes;
        while left > 0 {
            match reader.read(&mut chunk).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                got => left -= got,
            }
        }
        Ok(())
    };
    tokio::try_join!(write, read).map(drop)
}

pub(crate) fn run() -> Result<Report> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Report> {
    let cluster = Cluster::of(2)?;
    let (mut ours, mut bare) = (Bytes(Tcp::new(&cluster).await?), Bytes(BareTcp::new(&cluster, false).await?));
    let tcp = interleave(&mut [&mut bare, &mut ours], ROUNDS).await?;
    let (mut ours, mut bare) = (Bytes(Quic::new(&cluster)?), Bytes(BareQuic::new(&cluster)?));
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
