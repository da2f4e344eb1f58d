//! `Exptime`: when an item is to expire, as the client wrote it.
//!
//! ```text
//!            n < 0        immediately
//!            n = 0        never
//!   1 ..= 2 592 000       n seconds from now (up to 30 days)
//!      2 592 001 ..       at unix time n
//! ```
//!
//! The number is a signed 32-bit one, as in memcached. Turning it into a deadline needs a clock, and
//! this crate has none: that is the server's part.

/// The largest number that counts from now; above it, a number is unix time: 30 days.
pub const EXPTIME_RELATIVE_MAX_S: i32 = 60 * 60 * 24 * 30;

/// When an item is to expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Exptime {
    /// Not by time.
    #[default]
    Never,
    /// At once: the client sent a negative number.
    Immediate,
    /// This many seconds from now: 1 to [`EXPTIME_RELATIVE_MAX_S`].
    After {
        /// Seconds from now.
        seconds: u32,
    },
    /// At this unix time, in seconds. It may be in the past, then the item is expired at once.
    At {
        /// Seconds since 1970-01-01 00:00 UTC.
        unix_s: u32,
    },
}

impl Exptime {
    /// What the number on the line means.
    pub const fn from_wire(number: i32) -> Self {
        match number {
            0 => Self::Never,
            1..=EXPTIME_RELATIVE_MAX_S => Self::After { seconds: number.unsigned_abs() },
            i32::MIN..0 => Self::Immediate,
            _ => Self::At { unix_s: number.unsigned_abs() },
        }
    }

    /// The number to write on a line. A unix time past 2038 is held to the largest the wire has.
    pub const fn to_wire(self) -> i32 {
        match self {
            Self::Never => 0,
            Self::Immediate => -1,
            Self::After { seconds: number } | Self::At { unix_s: number } => {
                if number > i32::MAX.unsigned_abs() { i32::MAX } else { number.cast_signed() }
            }
        }
    }
}
