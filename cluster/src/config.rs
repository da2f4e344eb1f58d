//! Intervals and thresholds: how long a grant lasts, when a peer is overdue, how long a request waits.
//!
//! ```text
//! beacon    |    |    |    |    |    x (the peer died)
//! grant          |------------------->|              what the granter keeps
//! held           |------------------>|               what the holder counts on: less, for clocks' sake
//! takeover                            |--> first, |--> second a stagger later, ...
//! park                                |---------------------------------> answered, or refused
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The intervals of a cluster. All nodes of a cluster have the same `grant` and `rate_error_permille`: a
/// holder counts on what its granters keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intervals {
    /// For how long a node that grants does not seek promotion, from when it received the beacon.
    pub grant: Duration,
    /// From one beacon to the next.
    pub beacon: Duration,
    /// While one node's clock counts 1,000, another's counts at least 1,000 less this. Crystals are within
    /// 0.1 and a slewed clock within 0.5; the rest is for machines whose host lends them their clock.
    pub rate_error_permille: u16,
    /// Every worker that lives says so at least this often.
    pub worker_progress: Duration,
    /// A peer one of whose workers said nothing for this long is as good as dead.
    pub worker_silent_max: Duration,
    /// The node after the one that should take a shard over waits this much longer, and so on.
    pub takeover_stagger: Duration,
    /// A node that did not look for its peers' beacons for longer than this was paused or starved, and
    /// counts that time as its own absence rather than theirs.
    pub absence: Duration,
    /// Before the second attempt to connect to a peer; doubled for each one after.
    pub reconnect_min: Duration,
    /// Between attempts to connect to a peer, at most.
    pub reconnect_max: Duration,
    /// A request waits this long for its shard to have a primary that serves.
    pub park: Duration,
}

/// Why a set of intervals cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntervalError {
    /// A duration is zero.
    #[error("{name} is zero")]
    Zero {
        /// Which.
        name: &'static str,
    },
    /// Clocks that far apart leave no grant worth having.
    #[error(
        "clocks may differ by {found} in 1,000, and half of a grant is the most that may be lost to it"
    )]
    RateError {
        /// What was asked for.
        found: u16,
    },
    /// A grant must outlast the loss of a beacon and the delay of another.
    #[error(
        "a grant of which {held:?} can be counted on needs beacons three times as often as each {beacon:?}"
    )]
    BeaconTooRare {
        /// From one beacon to the next.
        beacon: Duration,
        /// What the holder counts on.
        held: Duration,
    },
    /// A worker between two signs of life would count as hung.
    #[error(
        "workers show progress each {progress:?}, and are taken for hung after {silent:?}: at least twice as long is needed"
    )]
    ProgressTooRare {
        /// From one sign of life to the next.
        progress: Duration,
        /// Taken for hung after this.
        silent: Duration,
    },
    /// Requests would be refused before a takeover can begin.
    #[error("requests wait {park:?}, and no takeover begins before a grant of {grant:?} ran out")]
    ParkTooShort {
        /// How long a request waits.
        park: Duration,
        /// How long a grant lasts.
        grant: Duration,
    },
    /// The least pause between attempts is longer than the greatest.
    #[error(
        "attempts to connect begin {min:?} apart, which is more than the {max:?} they end with"
    )]
    Reconnect {
        /// The least pause.
        min: Duration,
        /// The greatest.
        max: Duration,
    },
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            grant: Duration::from_millis(300),
            beacon: Duration::from_millis(75),
            rate_error_permille: 10,
            worker_progress: Duration::from_millis(50),
            worker_silent_max: Duration::from_millis(300),
            takeover_stagger: Duration::from_millis(100),
            absence: Duration::from_millis(150),
            reconnect_min: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(2),
            park: Duration::from_secs(1),
        }
    }
}

impl Intervals {
    /// Whether these can work together.
    ///
    /// # Errors
    ///
    /// Says which of them cannot, and why.
    pub fn check(&self) -> Result<(), IntervalError> {
        let durations = [
            ("grant", self.grant),
            ("beacon", self.beacon),
            ("worker_progress", self.worker_progress),
            ("worker_silent_max", self.worker_silent_max),
            ("takeover_stagger", self.takeover_stagger),
            ("absence", self.absence),
            ("reconnect_min", self.reconnect_min),
            ("park", self.park),
        ];
        for (name, duration) in durations {
            if duration.is_zero() {
                return Err(IntervalError::Zero { name });
            }
        }
        if self.rate_error_permille > 500 {
            return Err(IntervalError::RateError { found: self.rate_error_permille });
        }
        if self.beacon.saturating_mul(3) > self.held() {
            return Err(IntervalError::BeaconTooRare { beacon: self.beacon, held: self.held() });
        }
        if self.worker_progress.saturating_mul(2) > self.worker_silent_max {
            return Err(IntervalError::ProgressTooRare {
                progress: self.worker_progress,
                silent: self.worker_silent_max,
            });
        }
        if self.park < self.grant {
            return Err(IntervalError::ParkTooShort { park: self.park, grant: self.grant });
        }
        if self.reconnect_min > self.reconnect_max {
            return Err(IntervalError::Reconnect {
                min: self.reconnect_min,
                max: self.reconnect_max,
            });
        }
        Ok(())
    }

    /// How much of a grant its holder counts on, by its own clock from when it sent the beacon: the grant
    /// less what clocks may differ by. `grant.rs` argues why that is enough.
    pub fn held(&self) -> Duration {
        let kept = 1000_u128.saturating_sub(u128::from(self.rate_error_permille));
        let nanos = self.grant.as_nanos() * kept / 1000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long the `rank`-th node in line, from 0, lets those before it go first.
    pub fn takeover_delay(&self, rank: u32) -> Duration {
        self.takeover_stagger.saturating_mul(rank)
    }

    /// How long to wait after `attempts` attempts to connect that failed in a row.
    pub fn reconnect_after(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        self.reconnect_min.saturating_mul(1 << doublings).min(self.reconnect_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_work_together() {
        assert_eq!(Intervals::default().check(), Ok(()));
    }

    #[test]
    fn holder_counts_on_a_hundredth_less_than_the_grant() {
        assert_eq!(Intervals::default().held(), Duration::from_millis(297));
    }

    #[test]
    fn beacons_that_let_a_grant_lapse_when_one_is_lost_are_refused() {
        let beacon = Duration::from_millis(100);
        let intervals = Intervals { beacon, ..Intervals::default() };
        let held = Duration::from_millis(297);
        assert_eq!(intervals.check(), Err(IntervalError::BeaconTooRare { beacon, held }));
    }

    #[test]
    fn every_other_contradiction_is_refused() {
        let good = Intervals::default();
        let bad = [
            Intervals { grant: Duration::ZERO, ..good },
            Intervals { rate_error_permille: 501, ..good },
            Intervals { worker_progress: Duration::from_millis(200), ..good },
            Intervals { park: Duration::from_millis(299), ..good },
            Intervals { reconnect_min: Duration::from_secs(3), ..good },
        ];
        for intervals in bad {
            assert!(intervals.check().is_err(), "{intervals:?}");
        }
    }

    #[test]
    fn attempts_to_connect_grow_rarer_up_to_a_limit() {
        let waits: Vec<u128> = [0, 1, 2, 3, 6, 7, 1000]
            .map(|attempts| Intervals::default().reconnect_after(attempts).as_millis())
            .to_vec();
        assert_eq!(waits, [50, 50, 100, 200, 1600, 2000, 2000]);
    }

    #[test]
    fn those_next_in_line_wait_their_turn() {
        let intervals = Intervals::default();
        assert_eq!(intervals.takeover_delay(0), Duration::ZERO);
        assert_eq!(intervals.takeover_delay(2), Duration::from_millis(200));
    }
}
