//! `Instant`: a point in time of this node's own clock, handed in by whoever drives the state machines.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds of a clock that never goes back and runs through suspend (on Linux `CLOCK_BOOTTIME`). Of one
/// machine since its boot: another machine's, or one from before a reboot, is not to be compared with it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Instant(pub u64);

impl Instant {
    /// Before every other.
    pub const ZERO: Self = Self(0);
    /// Never reached.
    pub const MAX: Self = Self(u64::MAX);

    /// So many milliseconds after the clock began.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// This much later; [`Self::MAX`] beyond the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long ago `earlier` was; nothing if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ends_rather_than_wraps() {
        assert_eq!(Instant::MAX.after(Duration::from_secs(1)), Instant::MAX);
        assert_eq!(Instant::ZERO.since(Instant::MAX), Duration::ZERO);
        let later = Instant::from_millis(2).after(Duration::from_millis(3));
        assert_eq!(later.since(Instant::from_millis(2)), Duration::from_millis(3));
    }
}
