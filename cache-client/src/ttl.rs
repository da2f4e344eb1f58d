//! `Ttl`: how long an item is to live.

use std::time::Duration;

use protocol::Exptime;
use protocol::exptime::EXPTIME_RELATIVE_MAX_S;

/// How long an item is to live, by the server's clock, in whole seconds.
///
/// ```
/// use std::time::Duration;
/// use cache_client::Ttl;
///
/// assert_eq!(Ttl::from(Duration::from_millis(1500)), Ttl::seconds(2));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ttl(Option<u32>);

impl Ttl {
    /// Until it is evicted.
    pub const NEVER: Self = Self(None);

    /// So many seconds. 0 is over at once.
    pub const fn seconds(seconds: u32) -> Self {
        Self(Some(seconds))
    }

    /// As a request says it. More than 30 days can only be said as a time of day, and `unix_s` is asked for it
    /// only then.
    pub(crate) fn to_exptime(self, unix_s: impl FnOnce() -> u32) -> Exptime {
        match self.0 {
            None => Exptime::Never,
            Some(0) => Exptime::Immediate,
            Some(seconds @ 1..=EXPTIME_RELATIVE_MAX_S) => Exptime::After { seconds },
            Some(seconds) => Exptime::At { unix_s: unix_s().saturating_add(seconds) },
        }
    }
}

impl From<Duration> for Ttl {
    /// Rounded up to whole seconds, and held to what 32 bits can say.
    fn from(duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
        Self(Some(u32::try_from(seconds).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exptime(ttl: impl Into<Ttl>) -> Exptime {
        ttl.into().to_exptime(|| 1_000_000_000)
    }

    #[test]
    fn a_part_of_a_second_is_a_whole_one() {
        assert_eq!(exptime(Duration::from_millis(1)), Exptime::After { seconds: 1 });
        assert_eq!(exptime(Duration::ZERO), Exptime::Immediate);
        assert_eq!(exptime(Ttl::NEVER), Exptime::Never);
    }

    #[test]
    fn more_than_thirty_days_is_a_time_of_day() {
        assert_eq!(exptime(Ttl::seconds(2_592_000)), Exptime::After { seconds: 2_592_000 });
        assert_eq!(exptime(Ttl::seconds(2_592_001)), Exptime::At { unix_s: 1_002_592_001 });
        assert_eq!(exptime(Duration::MAX), Exptime::At { unix_s: u32::MAX });
    }
}
