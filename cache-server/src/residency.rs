//! Tells the operator that protected items had to go: the memory is too small for what must stay.
//!
//! The first of them is told of at once, and further ones once a minute, with their number. The counter
//! `evicted_protected` has them all.

use crate::clock::Now;

/// Between two lines about it.
const PAUSE_MS: u64 = 60_000;

/// What has been told so far.
#[derive(Debug)]
pub struct ResidencyAlarm {
    /// How many had been evicted when it was told last; `None` until that is known.
    told: Option<u64>,
    told_unix_ms: u64,
}

impl ResidencyAlarm {
    /// For a server that starts with so many evicted, told of by the one before it; `None` as in [`Self::round`].
    pub fn new(evicted: Option<u64>) -> Self {
        Self { told: evicted, told_unix_ms: 0 }
    }

    /// How many were evicted since they were last told of, if it is time to tell. `evicted` is how many there
    /// were in all; `None` while some shards are not back yet, with what they had counted.
    pub fn round(&mut self, now: Now, evicted: Option<u64>) -> Option<u64> {
        let evicted = evicted?;
        // Before all shards were back, or before the counters were reset.
        let told = self.told.filter(|&told| told <= evicted).unwrap_or_else(|| {
            self.told = Some(evicted);
            evicted
        });
        let is_due = now.unix_ms.saturating_sub(self.told_unix_ms) >= PAUSE_MS;
        if evicted == told || !is_due {
            return None;
        }
        *self = Self { told: Some(evicted), told_unix_ms: now.unix_ms };
        Some(evicted - told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_800_000_000_000;

    fn at(secs: u64) -> Now {
        Now { unix_ms: START_MS + secs * 1000 }
    }

    #[test]
    fn the_first_is_told_of_at_once_and_further_ones_once_a_minute() {
        let mut alarm = ResidencyAlarm::new(Some(0));
        assert_eq!(alarm.round(at(1), Some(3)), Some(3));
        assert_eq!(alarm.round(at(2), Some(5)), None);
        assert_eq!(alarm.round(at(60), Some(9)), None);
        assert_eq!(alarm.round(at(61), Some(9)), Some(6));
        assert_eq!(alarm.round(at(200), Some(9)), None);
    }

    #[test]
    fn what_a_server_before_this_one_had_counted_is_not_told_of() {
        let mut alarm = ResidencyAlarm::new(None);
        assert_eq!(alarm.round(at(0), None), None);
        assert_eq!(alarm.round(at(1), Some(100)), None);
        assert_eq!(alarm.round(at(2), Some(101)), Some(1));
    }

    #[test]
    fn counters_that_are_reset_begin_anew() {
        let mut alarm = ResidencyAlarm::new(Some(10));
        assert_eq!(alarm.round(at(1), Some(0)), None);
        assert_eq!(alarm.round(at(2), Some(2)), Some(2));
    }
}
