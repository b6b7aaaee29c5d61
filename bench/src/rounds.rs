//! Contenders that take turns. Noise of a shared machine comes and goes over seconds: who measures in turns shares it.

use std::future::Future;
use std::pin::Pin;

use anyhow::Result;

/// One sample under way: a rate, in units per second.
pub(crate) type Sampling<'a> = Pin<Box<dyn Future<Output = Result<f64>> + 'a>>;

/// Does a fixed piece of work, or works for a fixed time, and says at what rate.
pub(crate) trait Contender {
    fn sample(&mut self) -> Sampling<'_>;
}

/// Every contender samples once a round, in an order that turns; the first round only warms up. Their medians.
pub(crate) async fn interleave(contenders: &mut [&mut dyn Contender], rounds: usize) -> Result<Vec<f64>> {
    let count = contenders.len();
    let mut samples = vec![Vec::new(); count];
    for round in 0..=rounds {
        for turn in 0..count {
            let at = (turn + round) % count;
            let (Some(contender), Some(samples)) = (contenders.get_mut(at), samples.get_mut(at)) else { continue };
            let rate = contender.sample().await?;
            if round > 0 {
                samples.push(rate);
            }
        }
    }
    Ok(samples.into_iter().map(median).collect())
}

/// The middle one; of none, not a number.
pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_sample_counts_whatever_the_order() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]).to_bits(), 5.0_f64.to_bits());
        assert_eq!(median(vec![7.0]).to_bits(), 7.0_f64.to_bits());
        assert!(median(vec![]).is_nan());
    }
}
