//! How long shards stood still while their lead changed hands, and how long requests waited for somebody to
//! lead them.
//!
//! ```text
//! the node that led   stops serving ──── all is committed, the map is asked ────> learns who leads
//!                     └──────────────────── handed over ──────────────────────┘
//! the node that leads                                     is appointed ──── the copies follow ────> serves
//!                                                         └───────────── taken over ─────────────┘
//! any node's clients         parked ───────────────────────────────────────────────────────> answered
//! ```
//!
//! Each node measures by its own clock. The first two meet in the map, which the two nodes apply within a
//! moment of each other, so their sum is a shard's pause; the third is what it costs the requests that meet it.
//! A takeover after a loss counts as taken over as well: from the appointment, not from the loss.
//!
//! Threads count without a lock, and seldom: once a handover, once a request that was parked.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps to each doubling: what is told is at most an eighth too long.
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// The greatest that is told apart is 2^32 µs, over an hour.
const OCTAVES: usize = 30;

/// The pauses of a node, since it was started.
#[derive(Default)]
pub(crate) struct Pauses {
    /// From when this node stopped serving a shard, for another to lead it, until it learned that one does; or
    /// until it served it again itself.
    pub(crate) handed_over: Spread,
    /// From when this node was appointed to lead a shard until it served it.
    pub(crate) taken_over: Spread,
    /// From when a request was parked until it was answered.
    pub(crate) parked: Spread,
}

/// How often something took how long, in microseconds.
pub(crate) struct Spread {
    counts: Box<[AtomicU64]>,
    longest_us: AtomicU64,
}

impl Default for Spread {
    fn default() -> Self {
        let counts = (0..STEPS * OCTAVES).map(|_| AtomicU64::new(0)).collect();
        Self { counts, longest_us: AtomicU64::new(0) }
    }
}

impl Spread {
    /// It took this long.
    pub(crate) fn add_ns(&self, ns: u64) {
        let us = ns / 1000;
        self.counts[step_of(us)].fetch_add(1, Ordering::Relaxed);
        self.longest_us.fetch_max(us, Ordering::Relaxed);
    }

    /// How often.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The longest.
    pub(crate) fn longest_us(&self) -> u64 {
        self.longest_us.load(Ordering::Relaxed)
    }

    /// What `percent` of them took at most, rounded up to a step; 0 if there were none.
    pub(crate) fn percentile_us(&self, percent: u64) -> u64 {
        let rank = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= rank && seen > 0 {
                return last_of(step).min(self.longest_us());
            }
        }
        0
    }
}

/// Below [`STEPS`] each microsecond has a step, above that each eighth of a doubling.
fn step_of(us: u64) -> usize {
    let Some(octave) = us.checked_ilog2().and_then(|it| it.checked_sub(STEP_BITS)) else {
        return usize::try_from(us).unwrap_or(0);
    };
    let within = usize::try_from(us >> octave).map_or(0, |it| it % STEPS);
    ((octave as usize + 1) * STEPS + within).min(STEPS * OCTAVES - 1)
}

/// The greatest that falls on a step.
fn last_of(step: usize) -> u64 {
    let (octave, within) = (step / STEPS, (step % STEPS) as u64);
    match octave.checked_sub(1) {
        None => within,
        Some(octave) => ((STEPS as u64 + within + 1) << octave) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_falls_on_the_step_that_ends_behind_it() {
        for us in (0..5_000).chain([1 << 20, (1 << 31) + 7]) {
            let step = step_of(us);
            assert!(us <= last_of(step), "{us} at {step}");
            assert!(step == 0 || us > last_of(step - 1), "{us} at {step}");
            assert!(last_of(step) <= us + us / 8 + 1, "no more than an eighth too long: {us}");
        }
        assert_eq!(step_of(u64::MAX), STEPS * OCTAVES - 1, "what is longer is the longest");
    }

    #[test]
    fn percentiles_are_of_what_was_added() {
        let spread = Spread::default();
        assert_eq!((spread.count(), spread.percentile_us(99), spread.longest_us()), (0, 0, 0));
        (1..=98).for_each(|_| spread.add_ns(3_000));
        spread.add_ns(5_000_000);
        spread.add_ns(90_000_999);
        assert_eq!((spread.count(), spread.longest_us()), (100, 90_000));
        assert_eq!((spread.percentile_us(50), spread.percentile_us(98)), (3, 3));
        assert!((5_000..=5_625).contains(&spread.percentile_us(99)));
        assert_eq!(spread.percentile_us(100), 90_000, "never beyond the longest");
    }
}
