//! How much may be sent on top of what callers asked for.
//!
//! As Finagle's `RetryBudget` (its user guide, "Clients", "Retries"; also tower's `retry::budget`): each request
//! deposits, each retry withdraws, and both count for a while and are then forgotten. So within `window`
//!
//! ```text
//! retries  <=  ratio x requests  +  per_second_min x window
//! ```
//!
//! The window is counted in ten slices, so that what is forgotten is between nine and ten of them old.

use std::time::{Duration, Instant};

const SLICES: u32 = 10;
/// A retry costs this much; what a request deposits is a part of it.
const RETRY_COST: i64 = 1_000_000;

/// How much may be sent on top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetConfig {
    /// Retries per request.
    pub ratio: f64,
    /// Retries that are allowed in each second whatever the requests are, so that a client with few may retry at all.
    pub per_second_min: u32,
    /// How long requests and retries count.
    pub window: Duration,
}

impl Default for BudgetConfig {
    /// Finagle's: a fifth, and ten each second, over ten seconds.
    fn default() -> Self {
        Self { ratio: 0.2, per_second_min: 10, window: Duration::from_secs(10) }
    }
}

/// Counts requests and retries.
#[derive(Clone, Debug)]
pub struct Budget {
    deposit: i64,
    reserve: i64,
    slice: Duration,
    start: Option<Instant>,
    /// The number of the present slice since `start`.
    present: u64,
    /// Deposits less withdrawals by slice, the present one at its number modulo [`SLICES`].
    slices: [i64; SLICES as usize],
}

impl Budget {
    /// A budget that nothing was deposited in.
    #[expect(clippy::cast_possible_truncation, reason = "a ratio of millions stays below 2^63")]
    pub fn new(config: BudgetConfig) -> Self {
        let reserve = f64::from(config.per_second_min) * config.window.as_secs_f64();
        let cost = |retries: f64| (retries.max(0.0) * 1e6).round() as i64;
        Self {
            deposit: cost(config.ratio.min(1e6)),
            reserve: cost(reserve.min(1e9)),
            slice: (config.window / SLICES).max(Duration::from_nanos(1)),
            start: None,
            present: 0,
            slices: [0; SLICES as usize],
        }
    }

    /// A caller asked for something.
    pub fn deposit(&mut self, now: Instant) {
        self.turn(now);
        let deposit = self.deposit;
        let present = self.present_slice();
        *present = present.saturating_add(deposit);
    }

    /// Whether something more may be sent; it counts if so.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.turn(now);
        let may = self.balance() >= RETRY_COST;
        if may {
            *self.present_slice() -= RETRY_COST;
        }
        may
    }

    /// How many more may be sent at once.
    pub fn left(&mut self, now: Instant) -> u64 {
        self.turn(now);
        u64::try_from(self.balance() / RETRY_COST).unwrap_or(0)
    }

    fn balance(&self) -> i64 {
        let sum = self.slices.iter().fold(0i64, |sum, slice| sum.saturating_add(*slice));
        self.reserve.saturating_add(sum)
    }

    fn present_slice(&mut self) -> &mut i64 {
        let index = self.present % u64::from(SLICES);
        &mut self.slices[usize::try_from(index).unwrap_or(0)]
    }

    /// Forgets the slices that are over.
    fn turn(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let since = now.saturating_duration_since(start);
        let present = since.as_nanos() / self.slice.as_nanos();
        let present = u64::try_from(present).unwrap_or(u64::MAX).max(self.present);
        let passed = (present - self.present).min(u64::from(SLICES));
        self.present = present - passed;
        for _ in 0..passed {
            self.present += 1;
            *self.present_slice() = 0;
        }
    }
}
