//! The clock of the load generator: the only file that asks the operating system for the time.
//!
//! Everything else takes an [`Instant`] as an argument, so schedules and tallies are tested without
//! waiting.

use std::io;
use std::time::{Instant, SystemTime};

use time::UtcDateTime;
use time::macros::format_description;

/// The present moment on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Date and time of day in UTC, for reports: `2026-01-31 23:59 UTC`.
///
/// # Errors
/// When the clock shows a year that calendars do not have.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn date() -> io::Result<String> {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    UtcDateTime::from(SystemTime::now()).format(&form).map_err(io::Error::other)
}
