//! When the requests of an open loop are due, whatever becomes of those before them.
//!
//! A closed loop asks again when it was answered, so a server that stalls is asked less and its
//! stall is measured once: *coordinated omission* (Gil Tene). Here the moments are drawn without
//! looking at the server, and a request that could not be sent in time has waited since it was due.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How the requests of an open loop follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independently of each other, as from many users: distances are exponentially distributed.
    Poisson,
}

/// When the requests of an open loop are due.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    interval_ns: f64,
    due_ns: f64,
    arrivals: Arrivals,
    random: StdRng,
}

impl Schedule {
    /// `rate` requests a second from `start` on.
    ///
    /// `rate` must be above 0.
    pub fn new(start: Instant, rate: f64, arrivals: Arrivals, seed: u64) -> Self {
        assert!(rate > 0.0, "a schedule without requests");
        let random = StdRng::seed_from_u64(seed);
        let mut schedule = Self { start, interval_ns: 1e9 / rate, due_ns: 0.0, arrivals, random };
        schedule.advance();
        schedule
    }

    /// When the next request is due.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a nanosecond is dropped")]
    pub fn due(&self) -> Instant {
        self.start + Duration::from_nanos(self.due_ns as u64)
    }

    /// Turns to the request after the next.
    #[inline]
    pub fn advance(&mut self) {
        self.due_ns += match self.arrivals {
            Arrivals::Constant => self.interval_ns,
            // 1 - [0, 1) is never 0, whose logarithm is not finite.
            Arrivals::Poisson => -(1.0 - self.random.random::<f64>()).ln() * self.interval_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn due_within_a_second(arrivals: Arrivals, rate: f64) -> Vec<Duration> {
        let start = clock::now();
        let mut schedule = Schedule::new(start, rate, arrivals, 7);
        let mut due = Vec::new();
        while schedule.due() < start + Duration::from_secs(1) {
            due.push(schedule.due() - start);
            schedule.advance();
        }
        due
    }

    #[test]
    fn constant_arrivals_keep_their_distance() {
        let due = due_within_a_second(Arrivals::Constant, 1000.0);
        assert_eq!(due.len(), 999);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(1)));
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary_as_much_as_their_mean() {
        let due = due_within_a_second(Arrivals::Poisson, 100_000.0);
        assert!((99_000..101_000).contains(&due.len()), "{} arrivals", due.len());
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.95..1.05).contains(&(variance.sqrt() / mean)));
    }

    #[test]
    fn what_was_not_sent_in_time_stays_due() {
        let start = clock::now();
        let mut schedule = Schedule::new(start, 10.0, Arrivals::Constant, 7);
        let late = start + Duration::from_millis(350);
        let mut overdue = Vec::new();
        while schedule.due() <= late {
            overdue.push((late - schedule.due()).as_millis());
            schedule.advance();
        }
        assert_eq!(overdue, [250, 150, 50]);
    }
}
