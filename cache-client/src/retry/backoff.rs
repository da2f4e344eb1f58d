//! How long to wait before another attempt: exponential, with full jitter.
//!
//! "Full jitter" of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn
//! evenly from 0 to the exponential bound, which spreads callers that failed together best of the ways compared there.

use std::time::Duration;

use crate::random::Random;

/// The bounds of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait; each is twice the one before.
    pub first: Duration,
    /// The bound of every wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(10), max: Duration::from_secs(1) }
    }
}

impl Backoff {
    /// The wait after `before` earlier ones.
    pub fn wait(&self, before: u32, random: &mut Random) -> Duration {
        self.bound(before).mul_f64(random.unit())
    }

    /// What the wait after `before` earlier ones does not exceed.
    pub fn bound(&self, before: u32) -> Duration {
        let factor = 1u32.checked_shl(before).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }
}
