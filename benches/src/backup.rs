//! What clients notice of a backup: latency under full load, with one going on and without.
//!
//! ```text
//! pair       1             2             3
//! rounds  without with  with without  without with  ...     one server; the load on another core
//! ```
//!
//! Rounds alternate and every pair has a ratio of its own, as in [`crate::compare`]. While a round
//! with a backup lasts, one backup follows the other, from the same cores as the load: unpacked from
//! the wire, packed with zstd, and thrown away.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cache_ctl::connection::Connection;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use crate::compare::{CompareError, Contest, Rules, median, plan};
use crate::cores;
use crate::interrupt::Interrupt;
use crate::keyspace::Keyspace;
use crate::load::{self, Outcome, Plan};
use crate::server_process::{Launch, ServerProcess};

/// How long the server may take for one slice.
const SLICE_MAX: Duration = Duration::from_secs(10);

/// What became of the requests of one round.
#[derive(Clone, Debug)]
pub struct Round {
    /// Requests answered per second.
    pub requests_per_second: f64,
    /// Latency in nanoseconds, of gets and sets together.
    pub latency: Histogram<u64>,
    /// Requests that were refused, not answered, or answered wrongly.
    pub failed: u64,
}

impl Round {
    fn of(outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let mut latency = tally.get_latency.clone();
        // Both have the bounds of every tally.
        let _ = latency.add(&tally.set_latency);
        Self {
            requests_per_second: outcome.requests_per_second(),
            latency,
            failed: tally.refused + tally.unanswered + tally.wrong,
        }
    }

    /// The latency below which this share of the requests stayed, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// What clients noticed of the backups.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    /// Rounds without a backup, in the order of the pairs.
    pub without: Vec<Round>,
    /// Rounds with one.
    pub with: Vec<Round>,
    /// Items and bytes that were backed up meanwhile.
    pub backed_up: BackedUp,
}

/// How much was backed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackedUp {
    /// Backups that came to their end.
    pub whole: u64,
    /// Bytes of packed backups, whole or not.
    pub bytes: u64,
}

impl Notice {
    /// Per pair: a quantile of the latency with a backup, as a multiple of the one without.
    pub fn ratios(&self, quantile: f64) -> Vec<f64> {
        let pairs = self.with.iter().zip(&self.without);
        pairs
            .map(|(with, without)| with.latency_us(quantile) / without.latency_us(quantile))
            .collect()
    }

    /// The middle of the pairs' ratios.
    pub fn ratio(&self, quantile: f64) -> f64 {
        median(&self.ratios(quantile))
    }
}

/// Why a measurement did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// Of the load.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// Of the backup.
    #[error("the backup failed: {0}")]
    Backup(String),
}

/// Loads a server that holds items, in rounds with and without a backup.
///
/// # Errors
/// When the server does not come up, the load breaks off, or a backup fails. The server is ended in
/// any case.
pub fn notice(
    launch: &Launch,
    rules: &Rules,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str),
) -> Result<Notice, NoticeError> {
    let server = ServerProcess::start(launch, interrupt).map_err(CompareError::from)?;
    let keyspace =
        Keyspace::new(rules.keys, crate::compare::KEY_BYTES).map_err(CompareError::from)?;
    let failed = |source| CompareError::Load { server: server.title(), source };
    progress(&format!("filling {} with {} items", server.title(), rules.keys));
    let fill = plan(&server, rules, 1);
    load::fill(&fill, &Contest::SET.workload(keyspace), interrupt, |_| {}).map_err(failed)?;
    let workload = Contest::MIXED.workload(keyspace);
    let mut notice = Notice::default();
    for pair in 0..rules.pairs {
        let plan = Plan { seed: 1 + pair as u64, ..plan(&server, rules, 1) };
        for turn in 0..2 {
            let with_backup = (pair + turn) % 2 == 1;
            let what = if with_backup { "with" } else { "without" };
            progress(&format!("pair {} of {}: {what} a backup", pair + 1, rules.pairs));
            let run = || load::run(&plan, &workload, interrupt, |_| {}).map_err(failed);
            if with_backup {
                let (outcome, backed_up) = under_backup(&plan, run)?;
                notice.with.push(Round::of(&outcome));
                notice.backed_up.whole += backed_up.whole;
                notice.backed_up.bytes += backed_up.bytes;
            } else {
                notice.without.push(Round::of(&run()?));
            }
        }
    }
    Ok(notice)
}

/// Runs a round while backups are taken, one after the other.
fn under_backup(
    plan: &Plan,
    round: impl FnOnce() -> Result<Outcome, CompareError>,
) -> Result<(Outcome, BackedUp), NoticeError> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let backups = scope.spawn(|| back_up_until(plan, &over));
        let outcome = round();
        over.store(true, Ordering::Relaxed);
        let backed_up = backups.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((outcome?, backed_up.map_err(NoticeError::Backup)?))
    })
}

fn back_up_until(plan: &Plan, over: &AtomicBool) -> Result<BackedUp, String> {
    let told = |error: &dyn std::fmt::Display| format!("{error:#}");
    cores::pin(&plan.cores).map_err(|error| told(&error))?;
    let mut server = Connection::open(&plan.targets[0].address.to_string(), SLICE_MAX)
        .map_err(|error| told(&anyhow::Error::new(error)))?;
    let mut backed_up = BackedUp::default();
    let bar = ProgressBar::hidden();
    while !over.load(Ordering::Relaxed) {
        let mut sink = Sink { over, bytes: 0 };
        let outcome = cache_ctl::backup::back_up(&mut server, b"", &mut sink, &bar).map(|_| ());
        backed_up.bytes += sink.bytes;
        match outcome {
            Ok(()) => backed_up.whole += 1,
            // The round ended in the middle of it.
            Err(_) if over.load(Ordering::Relaxed) => break,
            Err(error) => return Err(told(&error)),
        }
    }
    Ok(backed_up)
}

/// Takes bytes and forgets them, until it is over.
struct Sink<'a> {
    over: &'a AtomicBool,
    bytes: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.over.load(Ordering::Relaxed) {
            return Err(io::Error::other("the round is over"));
        }
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(latency_us: u64) -> Round {
        let mut latency = Histogram::new(3).unwrap();
        latency.record(latency_us * 1000).unwrap();
        Round { requests_per_second: 1.0, latency, failed: 0 }
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let notice = Notice {
            without: vec![round(100), round(200), round(100)],
            with: vec![round(300), round(200), round(400)],
            backed_up: BackedUp::default(),
        };
        let rounded: Vec<f64> = notice.ratios(0.99).iter().map(|ratio| ratio.round()).collect();
        assert_eq!(rounded, [3.0, 1.0, 4.0]);
        assert!((notice.ratio(0.99) - 3.0).abs() < 0.01, "the median of them");
    }
}
