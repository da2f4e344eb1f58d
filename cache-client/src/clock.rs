//! The time of day, which a life beyond thirty days has to be said in.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 by a clock that is set before.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the clock")]
pub(crate) fn unix_s() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
