//! Points in time: `Timestamp`, and `Deadline`, which may be never.

/// Milliseconds since the Unix epoch, on the wall clock. The caller reads the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// A timestamp of whole seconds since the Unix epoch.
    pub fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Seconds since the Unix epoch, rounded down; holds until the year 2106.
    #[inline]
    pub fn as_secs(self) -> u32 {
        u32::try_from(self.0 / 1000).unwrap_or(u32::MAX)
    }

    /// This point in time moved later by `millis`.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// When an item stops being valid: at a point in time, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Deadline {
    /// The item does not expire.
    pub const NEVER: Self = Self(u64::MAX);
    /// Milliseconds that fit the 42 bits a record has for a deadline: up to the year 2109.
    pub(crate) const MILLIS_MAX: u64 = (1 << 42) - 1;

    /// Valid before `at`, not any more from `at` on. What lies beyond the year 2109 is never.
    pub fn at(at: Timestamp) -> Self {
        if at.0 > Self::MILLIS_MAX { Self::NEVER } else { Self(at.0) }
    }

    /// Whether an item with this deadline is invalid at `now`.
    #[inline]
    pub fn is_due(self, now: Timestamp) -> bool {
        now.0 >= self.0
    }

    /// The point in time, or `None` for never.
    pub fn timestamp(self) -> Option<Timestamp> {
        (self != Self::NEVER).then_some(Timestamp(self.0))
    }

    /// The coarse form in the deadline column: seconds rounded up, 0 for never.
    #[inline]
    pub(crate) fn column_secs(self) -> u32 {
        self.timestamp()
            .map_or(0, |at| u32::try_from(at.0.div_ceil(1000).max(1)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_at_its_very_millisecond() {
        let deadline = Deadline::at(Timestamp(5_000));
        assert!(!deadline.is_due(Timestamp(4_999)));
        assert!(deadline.is_due(Timestamp(5_000)));
    }

    #[test]
    fn never_is_never_due() {
        assert!(!Deadline::NEVER.is_due(Timestamp(u64::MAX - 1)));
        assert_eq!(Deadline::at(Timestamp(u64::MAX)), Deadline::NEVER);
        assert_eq!(Deadline::NEVER.column_secs(), 0);
    }
}
