//! A second request for a read whose answer is late, at another copy: the first answer counts.
//!
//! Dean and Barroso, "The Tail at Scale", Communications of the ACM 56(2), 2013: a second request sent once the first
//! has taken longer than most do cuts the tail at the cost of a few per cent more requests. The delay is a quantile of
//! the latencies of late; the few per cent are a [`Budget`], so that when everything is slow nothing is doubled.

use std::time::{Duration, Instant};

use super::{Budget, BudgetConfig};

/// When to send a second request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeConfig {
    /// The part of answers that come sooner than the second request is sent; above 0, below 1.
    pub quantile: f64,
    /// The most second requests per request.
    pub share_max: f64,
    /// The least delay, below which a second request is a waste.
    pub delay_min: Duration,
    /// How long latencies count: at least this, at most twice.
    pub window: Duration,
    /// Answers that must have been seen before there is a delay.
    pub samples_min: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            quantile: 0.95,
            share_max: 0.05,
            delay_min: Duration::from_millis(1),
            window: Duration::from_secs(15),
            samples_min: 100,
        }
    }
}

/// Latencies of late, and how many second requests they allow.
#[derive(Clone, Debug)]
pub struct Hedge {
    config: HedgeConfig,
    budget: Budget,
    start: Option<Instant>,
    present: Histogram,
    before: Histogram,
}

impl Hedge {
    /// Before any answer was seen.
    pub fn new(config: HedgeConfig) -> Self {
        let ratio = config.share_max;
        let budget = BudgetConfig { ratio, per_second_min: 0, window: config.window };
        Self {
            config,
            budget: Budget::new(budget),
            start: None,
            present: Histogram::default(),
            before: Histogram::default(),
        }
    }

    /// A read begins: after which time a second request is due, if its answer is not there and [`Hedge::may_send`];
    /// `None` while too little is known.
    pub fn begin(&mut self, now: Instant) -> Option<Duration> {
        self.turn(now);
        self.budget.deposit(now);
        let samples = self.present.count + self.before.count;
        if samples < self.config.samples_min.max(1) {
            return None;
        }
        Some(self.quantile().max(self.config.delay_min))
    }

    /// Whether a second request may be sent now; it counts if so.
    pub fn may_send(&mut self, now: Instant) -> bool {
        self.budget.withdraw(now)
    }

    /// The first request of a read was answered after `latency`, or was given up after it because the second was
    /// answered. Without the latter hedging would hide the tail from itself, and hedge ever sooner.
    pub fn observe(&mut self, now: Instant, latency: Duration) {
        self.turn(now);
        self.present.add(latency);
    }

    /// The latency that `quantile` of the answers of late stay below, to an eighth of it.
    fn quantile(&self) -> Duration {
        let samples = self.present.count + self.before.count;
        let rank = (f64::from(samples) * self.config.quantile.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0u32;
        let buckets = self.present.buckets.iter().zip(&self.before.buckets);
        for (index, (present, before)) in buckets.enumerate() {
            seen += present + before;
            if f64::from(seen) >= rank {
                return Histogram::upper(index);
            }
        }
        Histogram::upper(BUCKETS - 1)
    }

    fn turn(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let age = now.saturating_duration_since(start);
        if age < self.config.window {
            return;
        }
        let present = std::mem::take(&mut self.present);
        // What is more than two windows old is not of late.
        let is_next = age < self.config.window * 2;
        self.before = if is_next { present } else { Histogram::default() };
        self.start = Some(now);
    }
}

/// One bucket a microsecond below 8, then eight for every power of two, up to 2^26 us (67 s).
const BUCKETS: usize = 8 + 8 * 23;

#[derive(Clone, Debug)]
struct Histogram {
    buckets: [u32; BUCKETS],
    count: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Histogram {
    fn add(&mut self, latency: Duration) {
        // A window with more answers than a count holds has seen enough.
        if self.count < u32::MAX / 4 {
            self.buckets[Self::index(latency)] += 1;
            self.count += 1;
        }
    }

    fn index(latency: Duration) -> usize {
        let us = latency.as_micros().min((1 << 26) - 1);
        let us = usize::try_from(us).unwrap_or(0);
        let power = us.max(8).ilog2() as usize - 3;
        power * 8 + (us >> power)
    }

    /// The latency that all in the bucket stay below.
    fn upper(index: usize) -> Duration {
        let power = (index / 8).saturating_sub(1);
        let us = (index - power * 8 + 1) << power;
        Duration::from_micros(us as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_at_most_an_eighth_below_its_end(us in 0u64..(1 << 26)) {
            let upper = Histogram::upper(Histogram::index(Duration::from_micros(us)));
            let us = us as f64;
            let upper = upper.as_micros() as f64;
            prop_assert!(us < upper && upper <= us * 1.125 + 1.0, "{us} {upper}");
        }
    }

    #[test]
    fn the_longest_latency_has_a_bucket() {
        assert_eq!(Histogram::index(Duration::MAX), BUCKETS - 1);
    }
}
