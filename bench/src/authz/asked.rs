//! Questions asked again and again, by one thread or two, while a writer changes the rules or none does.

use std::hint::black_box;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use countersign_guard::{Fresh, Guard};

use super::world::Writer;
use crate::rounds::{Contender, Sampling};

/// Asks all of its questions once or more; how many it asked.
pub(crate) type Pass = Box<dyn FnMut() -> Result<u32> + Send>;

/// A pass of at least `questions` questions about `things` in turn, all of which must be answered by `expected`. The
/// proof of freshness is asked for once a pass, as a server does once for all requests that a read delivered.
pub(crate) fn pass<T: Send + 'static>(
    guard: &Guard,
    things: Vec<T>,
    questions: usize,
    expected: bool,
    mut ask: impl FnMut(&Fresh<'_>, &T) -> bool + Send + 'static,
) -> Result<Pass> {
    let guard = guard.clone();
    let turns = questions.div_ceil(things.len().max(1));
    let count = u32::try_from(turns * things.len())?;
    let yes = if expected { count } else { 0 };
    Ok(Box::new(move || {
        let fresh = guard.fresh()?;
        let mut granted = 0;
        for _ in 0..turns {
            for thing in &things {
                granted += u32::from(ask(&fresh, black_box(thing)));
            }
        }
        ensure!(granted == yes, "{granted} of {count} granted, expected {yes}");
        Ok(count)
    }))
}

/// Changes the rules while others ask.
pub(crate) struct Changing {
    pub(crate) writer: Arc<Mutex<Writer>>,
    /// Between two changes; none if they follow each other at once.
    pub(crate) pause: Option<Duration>,
    changes: u32,
    spent: Duration,
}

impl Changing {
    pub(crate) const fn new(writer: Arc<Mutex<Writer>>, pause: Option<Duration>) -> Self {
        Self { writer, pause, changes: 0, spent: Duration::ZERO }
    }

    /// Changes a second, over all samples.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.changes) / self.spent.as_secs_f64()
    }
}

/// Passes, one for each thread, over some time a sample.
pub(crate) struct Asked {
    passes: Vec<Pass>,
    sample: Duration,
    pub(crate) changing: Option<Changing>,
}

impl Asked {
    pub(crate) const fn new(passes: Vec<Pass>, sample: Duration) -> Self {
        Self { passes, sample, changing: None }
    }

    pub(crate) fn while_changing(self, changing: Changing) -> Self {
        Self { changing: Some(changing), ..self }
    }

    fn rate(&mut self) -> Result<f64> {
        let sample = self.sample;
        if let ([only], None) = (self.passes.as_mut_slice(), &self.changing) {
            return timed(only, sample);
        }
        let begun = Instant::now();
        let together = Barrier::new(self.passes.len());
        let changing = self.changing.as_ref().map(|changing| (Arc::clone(&changing.writer), changing.pause));
        let (rates, changes) = std::thread::scope(|scope| {
            let (stop, stopped) = channel::<()>();
            let writing = changing.map(|(writer, pause)| {
                scope.spawn(move || -> Result<u32> {
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut changes = 0;
                    while stopped.recv_timeout(pause.unwrap_or_default()) == Err(RecvTimeoutError::Timeout) {
                        writer.change()?;
                        changes += 1;
                    }
                    Ok(changes)
                })
            });
            let asking = |pass| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    timed(pass, sample)
                })
            };
            let asking: Vec<_> = self.passes.iter_mut().map(asking).collect();
            let joined = asking.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?);
            let rates: Result<Vec<f64>> = joined.collect();
            drop::<Sender<()>>(stop);
            let changes = writing.map(|thread| thread.join().map_err(|_| anyhow!("the writer panicked"))?);
            (rates, changes.transpose())
        });
        let (rates, changes) = (rates?, changes?);
        if let (Some(changing), Some(changes)) = (&mut self.changing, changes) {
            changing.changes += changes;
            changing.spent += begun.elapsed();
        }
        let threads = f64::from(u32::try_from(rates.len())?);
        Ok(rates.iter().sum::<f64>() / threads)
    }
}

impl Contender for Asked {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move { self.rate() })
    }
}

/// Questions a second. Looks at the clock twice as seldom each time.
fn timed(pass: &mut Pass, sample: Duration) -> Result<f64> {
    let (mut asked, mut passes) = (0_u32, 1);
    let begun = Instant::now();
    loop {
        for _ in 0..passes {
            asked = asked.checked_add(pass()?).context("asked too often")?;
        }
        let spent = begun.elapsed();
        if spent >= sample {
            return Ok(f64::from(asked) / spent.as_secs_f64());
        }
        passes *= 2;
    }
}

/// Nanoseconds each, of a rate.
pub(crate) fn nanos(rate: f64) -> f64 {
    1e9 / rate
}
