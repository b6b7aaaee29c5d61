//! What one command of the trust state costs as the state grows, while readers hold the state before it: `apply` alone,
//! without Raft, disk or network.

mod grown;
mod kinds;

use anyhow::{Context, Result, ensure};
use countersign_core::group::GroupMembers;
use countersign_core::limits::MEMBERS_MAX;
use countersign_core::trust::outcome::Outcome;

use crate::report::Report;
use grown::{Base, Grown, NOW, Size, secret, stamped};
use kinds::Kind;

/// The sizes of a table. Growth is told by the last against the middle one.
const PRINCIPALS: [u64; 5] = [10, 1_000, 10_000, 100_000, 1_000_000];
const MEMBERS: [u64; 4] = [10, 100, 1_000, MEMBERS_MAX as u64];
const TOKENS: [u64; 3] = [10, 1_000, 4_000];
const EVICTIONS: [u64; 3] = [10, 1_000, 10_000];
/// The size that the largest is compared with.
const COMPARED: u64 = 1_000;
/// What does not grow in a table.
const SMALL: Size = Size { principals: 10, members: 10, tokens: 10, evictions: 0 };
/// The sizes take turns so many times, after one turn that is not counted.
const TURNS: u64 = 20;
/// Commands of a kind at one size in one turn.
const TIMED: u64 = 30;

/// One dimension in which a state grows.
struct Dimension {
    title: &'static str,
    sizes: &'static [u64],
    size: fn(u64) -> Size,
}

const DIMENSIONS: [Dimension; 4] = [
    Dimension { title: "principals on record", sizes: &PRINCIPALS, size: |principals| Size { principals, ..SMALL } },
    Dimension { title: "members", sizes: &MEMBERS, size: |members| Size { members, ..SMALL } },
    Dimension { title: "join tokens on record", sizes: &TOKENS, size: |tokens| Size { tokens, ..SMALL } },
    Dimension { title: "evictions on record", sizes: &EVICTIONS, size: |evictions| Size { evictions, ..SMALL } },
];

/// Microseconds that this thread has computed: other work on the machine does not count.
fn cpu_micros() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

/// Microseconds of one command.
fn time(kind: Kind, base: &Base, sample: u64) -> Result<f64> {
    let (mut state, command) = kind.prepare(base, sample)?;
    // What a handshake and an admin's question hold meanwhile.
    let reader = state.clone();
    let stamped = stamped(command.level(), command);
    let begun = cpu_micros();
    let outcome = state.apply(&stamped, &GroupMembers::default())?;
    let took = cpu_micros() - begun;
    drop(reader);
    ensure!(!matches!(outcome, Outcome::Refused(_)), "{}: {outcome:?}", kind.name());
    Ok(took)
}

/// The figure below which this share of the samples lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Median and 99th percentile at each size.
fn measure(kind: Kind, bases: &[Base]) -> Result<Vec<(f64, f64)>> {
    let mut samples = vec![Vec::new(); bases.len()];
    let mut sample = 0;
    for turn in 0..=TURNS {
        for (base, samples) in bases.iter().zip(&mut samples) {
            for _ in 0..TIMED {
                sample += 1;
                let took = time(kind, base, sample)?;
                if turn > 0 {
                    samples.push(took);
                }
            }
        }
    }
    Ok(samples
        .into_iter()
        .map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            (quantile(&samples, 0.5), quantile(&samples, 0.99))
        })
        .collect())
}

/// Microseconds of one check of a signature: the floor under commands that make some.
fn signature_check() -> Result<f64> {
    use countersign_core::transcript::Transcript;
    let (key, transcript) = (secret(1), Transcript::new(b"bench").fixed(&NOW.0.to_be_bytes()));
    let (signature, public) = (key.sign(&transcript), key.public());
    let mut samples = Vec::new();
    for _ in 0..TURNS * TIMED {
        let begun = cpu_micros();
        public.verify(&transcript, &signature).map_err(|_| anyhow::anyhow!("a bad signature"))?;
        samples.push(cpu_micros() - begun);
    }
    samples.sort_by(f64::total_cmp);
    Ok(quantile(&samples, 0.5))
}

/// All commands at all sizes of one dimension.
fn table(dimension: &Dimension, check: f64) -> Result<String> {
    let mut grown = Grown::founded()?;
    let mut bases = Vec::new();
    for size in dimension.sizes {
        eprintln!("  growing to {size} {} …", dimension.title);
        bases.push(grown.grow((dimension.size)(*size))?);
    }
    let compared = dimension.sizes.iter().position(|size| *size == COMPARED).context("no size to compare with")?;
    let largest = dimension.sizes.last().context("no size")?;
    let mut rows = String::new();
    for kind in Kind::ALL {
        eprintln!("  {} …", kind.name());
        let measured = measure(kind, &bases)?;
        let cells: String = measured.iter().map(|(median, p99)| format!(" {median:.1} ({p99:.1}) |")).collect();
        let checks = f64::from(kind.signatures()) * check;
        let median_at = |place: usize| measured.get(place).map_or(f64::NAN, |(median, _)| median - checks);
        let ratio = median_at(measured.len() - 1) / median_at(compared);
        rows.push_str(&format!("| {} | {} |{cells} {ratio:.2} |\n", kind.name(), kind.signatures()));
    }
    let header: Vec<String> = dimension.sizes.iter().map(ToString::to_string).collect();
    let logarithm = (*largest as f64).ln() / (COMPARED as f64).ln();
    let table = format!(
        "### One command, by {title}\n\n\
         The last column compares the medians at {largest} and at {COMPARED}, without signature checks. Logarithmic\n\
         growth is {logarithm:.2} and linear growth {linear:.2}.\n\n\
         | µs of processor time, median (p99) | signatures checked | {header} | ratio |\n\
         |---|---:|{line}---:|\n{rows}",
        title = dimension.title,
        linear = *largest as f64 / COMPARED as f64,
        header = header.join(" | "),
        line = "---:|".repeat(header.len()),
    );
    // A run takes minutes: what is measured is not lost with what comes after it.
    eprintln!("{table}");
    Ok(table)
}

/// Every command at every size.
pub(crate) fn run() -> Result<Report> {
    let check = signature_check()?;
    let mut sections = DIMENSIONS.iter().map(|dimension| table(dimension, check)).collect::<Result<Vec<_>>>()?;
    sections.insert(0, format!("One check of an Ed25519 signature took {check:.1} µs in this run.\n"));
    Ok(Report { sections, ..Report::default() })
}
