//! Handshakes: from dialing to two ends that know each other.
//!
//! Seen before: the chain was verified in this generation and is remembered; possession of the key, membership and
//! validity are checked each time. First contact: the generation has just changed, so everything is verified again.

use std::time::{Duration, Instant};

use anyhow::Result;
use countersign_core::time::UnixMillis;

use crate::cluster::Cluster;
use crate::pairs::{BareQuic, BareTcp, Connect, Quic, Tcp};
use crate::report::{Line, Report, Target};
use crate::rounds::{Contender, Sampling, interleave};

const ROUNDS: usize = 25;
const HANDSHAKES_PER_SAMPLE: u32 = 40;

struct Handshakes<P> {
    pair: P,
    /// Moves on by a generation before each handshake, if there is one.
    cluster: Option<Cluster>,
}

impl<P: Connect> Handshakes<P> {
    fn forget(&mut self) -> Result<()> {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let view = cluster.next_generation();
        for member in self.pair.members() {
            member.publish(view.clone(), UnixMillis(0))?;
        }
        Ok(())
    }
}

impl<P: Connect> Contender for Handshakes<P> {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let mut spent = Duration::ZERO;
            for _ in 0..HANDSHAKES_PER_SAMPLE {
                self.forget()?;
                let begun = Instant::now();
                let ends = self.pair.connect().await?;
                spent += begun.elapsed();
                drop(ends);
            }
            Ok(f64::from(HANDSHAKES_PER_SAMPLE) / spent.as_secs_f64())
        })
    }
}

pub(crate) fn run() -> Result<Report> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Report> {
    let seen = Cluster::of(2)?;
    let (first_tcp, first_quic) = (Cluster::of(2)?, Cluster::of(2)?);
    let mut bare_tcp = Handshakes { pair: BareTcp::new(&seen, false).await?, cluster: None };
    let mut greeting_tcp = Handshakes { pair: BareTcp::new(&seen, true).await?, cluster: None };
    let mut bare_quic = Handshakes { pair: BareQuic::new(&seen)?, cluster: None };
    let mut seen_tcp = Handshakes { pair: Tcp::new(&seen).await?, cluster: None };
    let mut seen_quic = Handshakes { pair: Quic::new(&seen)?, cluster: None };
    let mut first_tcp = Handshakes { pair: Tcp::new(&first_tcp).await?, cluster: Some(first_tcp) };
    let mut first_quic = Handshakes { pair: Quic::new(&first_quic)?, cluster: Some(first_quic) };
    let tcp = interleave(&mut [&mut bare_tcp, &mut seen_tcp, &mut first_tcp, &mut greeting_tcp], ROUNDS).await?;
    let quic = interleave(&mut [&mut bare_quic, &mut seen_quic, &mut first_quic], ROUNDS).await?;
    let mut report = Report::default();
    let greeting = tcp.get(3).copied();
    for (medians, works, peer) in [
        (tcp, ["handshake over TCP, seen before", "handshake over TCP, first contact"], "tokio-rustls, mutual TLS 1.3"),
        (quic, ["handshake over QUIC, seen before", "handshake over QUIC, first contact"], "quinn, mutual"),
    ] {
        let [bare, ours @ ..] = medians.as_slice() else { continue };
        for ((work, ours), target) in works.into_iter().zip(ours).zip([1.2, 0.97]) {
            report.lines.push(Line {
                work,
                unit: "handshakes/s",
                peer,
                theirs: Some(*bare),
                ours: *ours,
                target: Target::Ratio(target),
            });
        }
    }
    if let Some(&Line { unit, ours, .. }) = report.lines.first() {
        let (work, peer) = ("handshake over TCP, seen before", "the same, with a first frame like `Welcome`");
        report.lines.insert(1, Line { work, unit, peer, theirs: greeting, ours, target: Target::None });
    }
    report.notes.push(
        "Handshakes: a bare handshake verifies one signature at each end for the chain. That is all that can be saved \
         for a member seen before, and `Welcome` costs one more flight; what the registry, the judgements, the \
         deadlines and the tasks of both ends cost is on top, spread over many small functions."
            .to_owned(),
    );
    Ok(report)
}
