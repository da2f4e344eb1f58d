//! Real time, for tests that watch a real server: the one file of the harness that reads the clock.

#![expect(clippy::disallowed_methods, reason = "the harness's clock; everything else asks here")]

use std::time::{Duration, Instant};

/// How often [`until`] looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Lets `duration` pass.
pub fn pass(duration: Duration) {
    std::thread::sleep(duration);
}

/// Calls `attempt` until it gives a value or `limit` has passed.
pub fn until<T>(limit: Duration, attempt: impl FnMut() -> Option<T>) -> Option<T> {
    poll(limit, POLL_INTERVAL, attempt)
}

/// As [`until`], looking ten times as often.
pub fn until_promptly<T>(limit: Duration, attempt: impl FnMut() -> Option<T>) -> Option<T> {
    poll(limit, POLL_INTERVAL / 10, attempt)
}

fn poll<T>(
    limit: Duration,
    interval: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if start.elapsed() >= limit {
            return None;
        }
        pass(interval);
    }
}

/// Measures time from its creation.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What has passed since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_gives_the_first_value() {
        let mut calls = 0;
        let found = until(Duration::from_secs(5), || {
            calls += 1;
            (calls == 3).then_some(calls)
        });
        assert_eq!(found, Some(3));
    }

    #[test]
    fn until_gives_up_after_its_limit() {
        assert_eq!(until(Duration::from_millis(20), || None::<()>), None);
    }
}
