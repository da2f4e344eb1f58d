//! `Exptime`: when an item is to expire, as the client wrote it.
//!
//! ```text
//!            n < 0        immediately
//!            n = 0        never
//!   1 ..= 2 592 000       n seconds from now (up to 30 days)
//!      2 592 001 ..       at unix time n
//! ```
//!
//! memcached cuts the number to 32 bits; here a unix time past 2038 means what it says. Turning the
//! number into a deadline needs a clock, and this crate has none: that is the server's part.

/// The largest number that counts from now; above it, a number is unix time: 30 days.
pub const EXPTIME_RELATIVE_MAX_S: u32 = 60 * 60 * 24 * 30;

/// When an item is to expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Exptime {
    /// Not by time.
    #[default]
    Never,
    /// At once: the client sent a negative number.
    Immediate,
    /// This long from now.
    After {
        /// Seconds from now: 1 to [`EXPTIME_RELATIVE_MAX_S`].
        seconds: u32,
    },
    /// At this time, which may be in the past: then the item is expired at once.
    At {
        /// Seconds since 1970-01-01 00:00 UTC, above [`EXPTIME_RELATIVE_MAX_S`]. A later time than
        /// 32 bits can hold (February 2106) is held to that.
        unix_s: u32,
    },
}

impl Exptime {
    /// What the number on the line means.
    pub fn from_wire(number: i64) -> Self {
        match u32::try_from(number) {
            Ok(0) => Self::Never,
            Ok(seconds @ 1..=EXPTIME_RELATIVE_MAX_S) => Self::After { seconds },
            Ok(unix_s) => Self::At { unix_s },
            Err(_) if number < 0 => Self::Immediate,
            Err(_) => Self::At { unix_s: u32::MAX },
        }
    }

    /// The number to write on a line.
    pub fn to_wire(self) -> i64 {
        match self {
            Self::Never => 0,
            Self::Immediate => -1,
            Self::After { seconds: number } | Self::At { unix_s: number } => i64::from(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_days_is_the_last_number_that_counts_from_now() {
        assert_eq!(Exptime::from_wire(2_592_000), Exptime::After { seconds: 2_592_000 });
        assert_eq!(Exptime::from_wire(2_592_001), Exptime::At { unix_s: 2_592_001 });
    }

    #[test]
    fn negative_numbers_expire_at_once_and_zero_never() {
        assert_eq!(Exptime::from_wire(-1), Exptime::Immediate);
        assert_eq!(Exptime::from_wire(i64::MIN), Exptime::Immediate);
        assert_eq!(Exptime::from_wire(0), Exptime::Never);
    }

    #[test]
    fn a_time_past_2038_is_kept() {
        assert_eq!(Exptime::from_wire(2_147_483_648), Exptime::At { unix_s: 2_147_483_648 });
        assert_eq!(Exptime::from_wire(i64::MAX), Exptime::At { unix_s: u32::MAX });
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for number in [0, -1, 1, 2_592_000, 2_592_001, i64::from(u32::MAX)] {
            assert_eq!(Exptime::from_wire(number).to_wire(), number);
        }
    }
}
