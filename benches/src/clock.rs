//! The clock of the load generator: the only file that asks the operating system for the time.
//!
//! Everything else takes an [`Instant`] as an argument, so schedules and tallies are tested without
//! waiting.

use std::time::Instant;

/// The present moment on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}
