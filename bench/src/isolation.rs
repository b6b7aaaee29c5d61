//! Small proposals to the trust group, alone and beside a data group under load: four fifths of what the machine
//! sustains.
//!
//! Proposals come at fixed times, whether or not those before are answered, and their time counts from when they were
//! due. Two floors are measured with them: an fsync of a small file on the same disk, and a task that is to wake up.

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign_core::id::GroupId;
use countersign_raft::{Group, ProposeError};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::replicas;
use crate::report::{Line, Report, Target};
use crate::rounds::median;

/// Bytes of a small proposal, about those of a trust command.
const SMALL_LEN: usize = 256;
/// How often one is due.
const SMALL_EVERY: Duration = Duration::from_millis(10);
/// Bytes of a proposal to the data group: a batch of records.
const BATCH_LEN: usize = 64 * 1024;
/// Producers in the search for the sustained rate.
const PRODUCERS: usize = 32;
/// Rounds of that search; the median counts.
const SUSTAINED_ROUNDS: usize = 3;
const SAMPLE: Duration = Duration::from_secs(4);
/// What a phase's first moment is not counted for.
const SETTLE: Duration = Duration::from_millis(500);
const ROUNDS: usize = 8;
/// The share of the sustained rate that is offered.
const OFFERED: f64 = 0.8;

/// The group that is loaded, and one that shares its store.
const LOADED: GroupId = GroupId(1);
const BESIDE: GroupId = GroupId(2);

/// Milliseconds, of proposals and of the floors.
#[derive(Default)]
struct Samples {
    proposals: Vec<f64>,
    fsyncs: Vec<f64>,
    wakeups: Vec<f64>,
}

impl Samples {
    fn add(&mut self, other: Self) {
        self.proposals.extend(other.proposals);
        self.fsyncs.extend(other.fsyncs);
        self.wakeups.extend(other.wakeups);
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

async fn batch(group: &Group) -> Result<(), ProposeError> {
    group.propose(vec![0x5a; BATCH_LEN]).await.map(drop)
}

/// Batches a second that the data group takes from producers that each wait for their answer.
async fn sustained(group: &Group) -> Result<f64> {
    let (begun, mut producers) = (Instant::now(), JoinSet::new());
    for _ in 0..PRODUCERS {
        let group = group.clone();
        producers.spawn(async move {
            let mut done = 0_u32;
            while begun.elapsed() < SAMPLE {
                batch(&group).await?;
                done += 1;
            }
            Ok::<_, ProposeError>(done)
        });
    }
    let mut done = 0;
    while let Some(ended) = producers.join_next().await {
        done += ended??;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// Does a thing at fixed times until the end, and returns when the last is done.
async fn at_fixed_times<F, T>(every: Duration, end: Instant, mut act: impl FnMut(Instant) -> F) -> Result<Vec<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut under_way, mut answers) = (JoinSet::new(), Vec::new());
    loop {
        let due = ticks.tick().await;
        if due >= end {
            break;
        }
        under_way.spawn(act(due));
        while let Some(ended) = under_way.try_join_next() {
            answers.push(ended?);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        answers.push(ended?);
    }
    Ok(answers)
}

/// Offers batches at a rate until the end: those answered, and those turned away.
fn load(group: Group, a_second: f64, end: Instant) -> JoinHandle<Result<(u64, u64)>> {
    tokio::spawn(async move {
        let (done, turned_away) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        at_fixed_times(Duration::from_secs_f64(1.0 / a_second), end, |_| {
            let (group, done, turned_away) = (group.clone(), Arc::clone(&done), Arc::clone(&turned_away));
            async move {
                let counter = if batch(&group).await.is_ok() { done } else { turned_away };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await?;
        Ok((done.load(Ordering::Relaxed), turned_away.load(Ordering::Relaxed)))
    })
}

/// Times an fsync of a few bytes every 40 ms, as a store's record in place is written.
fn fsyncs(end: Instant) -> JoinHandle<Result<Vec<f64>>> {
    tokio::task::spawn_blocking(move || {
        let file: File = tempfile::tempfile()?;
        let mut took = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            file.write_all_at(&[0x5a; SMALL_LEN], took.len() as u64 * SMALL_LEN as u64)?;
            file.sync_data()?;
            took.push(millis(begun.elapsed()));
            // why: the floor must not be a load of its own
            std::thread::sleep(Duration::from_millis(40));
        }
        Ok(took)
    })
}

/// How late a task of this runtime is that sleeps for 5 ms.
fn wakeups(end: Instant) -> JoinHandle<Vec<f64>> {
    tokio::spawn(async move {
        let mut late = Vec::new();
        while Instant::now() < end {
            let due = Instant::now() + Duration::from_millis(5);
            // why: how late it ends is what is measured
            tokio::time::sleep_until(due).await;
            late.push(millis(due.elapsed()));
        }
        late
    })
}

/// Small proposals to `group` for one sample, with the floors.
async fn small(group: &Group) -> Result<Samples> {
    // why: the load is to be at its rate before samples count
    tokio::time::sleep(SETTLE).await;
    let end = Instant::now() + SAMPLE;
    let (fsyncs, wakeups) = (fsyncs(end), wakeups(end));
    let group = group.clone();
    let proposals = at_fixed_times(SMALL_EVERY, end, move |due| {
        let group = group.clone();
        async move {
            let mut command = b"key-1-".to_vec();
            command.resize(SMALL_LEN, 0x5a);
            group.propose(command).await.map(|_| millis(due.elapsed()))
        }
    })
    .await?;
    let proposals = proposals.into_iter().collect::<Result<_, _>>().context("a small proposal failed")?;
    Ok(Samples { proposals, fsyncs: fsyncs.await??, wakeups: wakeups.await? })
}

/// Figures of one phase: median, 99th percentile, largest.
struct Figures([f64; 3]);

impl Figures {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (samples.len() as f64 * share) as usize;
            samples.get(place.min(samples.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        Self([at(0.5), at(0.99), at(1.0)])
    }

    fn row(&self, name: &str) -> String {
        let [p50, p99, max] = self.0;
        format!("| {name} | {p50:.2} | {p99:.2} | {max:.2} |\n")
    }
}

pub(crate) fn run() -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Report> {
    let replicas = replicas::three().await?;
    let (loaded, beside) = (replicas.data_group(LOADED).await?, replicas.data_group(BESIDE).await?);
    let trust = replicas.leader();
    let mut rates = Vec::new();
    for _ in 0..SUSTAINED_ROUNDS {
        rates.push(sustained(&loaded).await?);
    }
    let sustained = median(rates);
    eprintln!("  sustained: {sustained:.0} batches/s");
    let offered = sustained * OFFERED;
    let (mut alone, mut apart, mut shared) = (Samples::default(), Samples::default(), Samples::default());
    let (mut done, mut turned_away, mut seconds) = (0, 0, 0.0);
    for round in 0..ROUNDS {
        eprintln!("  round {round} …");
        alone.add(small(&trust).await?);
        for (group, samples) in [(&trust, &mut apart), (&beside, &mut shared)] {
            let begun = Instant::now();
            let load = load(loaded.clone(), offered, begun + SETTLE + SAMPLE);
            samples.add(small(group).await?);
            let (answered, refused) = load.await??;
            (done, turned_away) = (done + answered, turned_away + refused);
            seconds += begun.elapsed().as_secs_f64();
        }
    }
    ensure!(done > 0, "no batch was answered");
    let leaders = [&trust, &loaded, &beside].map(|group| group.watch().borrow().leader);
    let megabytes = |a_second: f64| a_second * BATCH_LEN as f64 / 1e6;
    let mut report = Report::default();
    report.notes.push(format!(
        "Isolation: the data group sustained {sustained:.0} batches/s of {} KiB ({:.0} MB/s) with {PRODUCERS} \
         producers, was offered {offered:.0} and answered {:.0}; {turned_away} of {} were turned away. A proposal \
         of {SMALL_LEN} bytes every {} ms, {ROUNDS} rounds of {} s for each phase. Leaders of the trust group, the \
         loaded and the other data group: {leaders:?}.",
        BATCH_LEN / 1024,
        megabytes(sustained),
        done as f64 / seconds,
        done + turned_away,
        SMALL_EVERY.as_millis(),
        SAMPLE.as_secs(),
    ));
    let phases =
        [("alone", alone), ("data group loaded, stores apart", apart), ("data group loaded, one store", shared)];
    let mut rows = String::new();
    let mut p99s = Vec::new();
    for (name, Samples { proposals, fsyncs, wakeups }) in phases {
        let proposals = Figures::of(proposals);
        p99s.push(proposals.0[1]);
        rows.push_str(&proposals.row(&format!("small proposal, {name}")));
        rows.push_str(&Figures::of(fsyncs).row(&format!("floor: fsync of a small file, {name}")));
        rows.push_str(&Figures::of(wakeups).row(&format!("floor: a task wakes up late by, {name}")));
    }
    report.sections.push(format!(
        "### The trust group beside a loaded data group\n\n| ms | p50 | p99 | max |\n|---|---:|---:|---:|\n{rows}"
    ));
    if let [alone, apart, shared] = p99s.as_slice() {
        let (unit, work) = ("ms", "small proposal to the trust group beside a loaded data group, p99");
        for (peer, theirs, target) in
            [("the same, alone", *alone, Target::Times(2.0)), ("both groups in one store", *shared, Target::None)]
        {
            report.lines.push(Line { work, unit, peer, theirs: Some(theirs), ours: *apart, target });
        }
    }
    Ok(report)
}
