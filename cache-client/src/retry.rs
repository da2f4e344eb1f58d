//! When it goes wrong: whether to try again, when, where, and when to stop trying.
//!
//! ```text
//! a failure ──> verdict(class, failure) ──> attempts and deadline ──> budget ──> backoff ──> again
//! a slow read ──> hedge: a second request elsewhere, the first answer counts
//! a node that fails ──> breaker: not asked, then probed     outlier: left out, then little by little back
//! a name, a map ──> refresh: asked for again by its age, and whenever a connection was lost
//! ```
//!
//! - Nothing is sent twice that may not happen twice: [`verdict`] is the only place that says so.
//! - What is sent on top of what callers asked for is a share of it ([`Budget`]), so that retries and hedges cannot
//!   multiply the load of a server that is failing because of load.
//! - Everything here decides and nothing waits: time and draws are arguments, the driver sleeps and sends.

use std::time::{Duration, Instant};

pub use self::backoff::Backoff;
pub use self::breaker::{Admission, Breaker, BreakerConfig, BreakerState, Permit};
pub use self::budget::{Budget, BudgetConfig};
pub use self::hedge::{Hedge, HedgeConfig};
pub use self::outlier::{OutlierConfig, Outliers};
pub use self::refresh::{Refresh, RefreshConfig};
use crate::random::Random;

mod backoff;
mod breaker;
mod budget;
mod hedge;
mod outlier;
mod refresh;

/// What happens if an operation is done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing: get, gets.
    Read,
    /// The same as if it was done once: set, delete, touch, get-and-touch, flush. What others wrote in between is
    /// overwritten once more, and the second answer may differ (a delete then finds nothing).
    Idempotent,
    /// It is done at most once, but the second answer may deny the first: add, replace, cas.
    Conditional,
    /// It is done twice: incr, decr, append, prepend.
    Accumulating,
}

/// What is known of an operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No byte of it left, so it was not done: no connection, no room in the queue.
    NotSent,
    /// The server answered that it did not do it, and may do it later: it is busy, or a shard has no primary.
    Refused,
    /// The server answered that it will not do it: the value is too large, the key is none.
    Rejected,
    /// It was sent, and no answer came: it was done, was not, or will be.
    Unknown,
}

/// Whether an operation may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// At once, at another server if there is one.
    Elsewhere,
    /// After a while.
    Later,
    /// Never: it would fail again, or could be done twice.
    Never,
}

/// The table: what may be tried again.
pub fn verdict(class: Class, failure: Failure) -> Verdict {
    match (failure, class) {
        (Failure::NotSent, _) => Verdict::Elsewhere,
        (Failure::Refused, _) => Verdict::Later,
        (Failure::Rejected, _) => Verdict::Never,
        (Failure::Unknown, Class::Read | Class::Idempotent) => Verdict::Later,
        (Failure::Unknown, Class::Conditional | Class::Accumulating) => Verdict::Never,
    }
}

/// How often, and how soon after each other, one call is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// The waits between them.
    pub backoff: Backoff,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts_max: 3, backoff: Backoff::default() }
    }
}

/// What comes after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, after the wait; at another server if `elsewhere` and there is one.
    Again {
        /// How long to wait; may be nothing.
        wait: Duration,
        /// Whether the server that failed should not be the one that is asked.
        elsewhere: bool,
    },
    /// The failure is the call's.
    Stop(Stop),
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// It would fail again, or could be done twice.
    Unsafe,
    /// It was tried often enough.
    Attempts,
    /// It would end after the deadline.
    Deadline,
    /// Retries are too large a part of all requests.
    Budget,
}

/// One call and its attempts.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    config: RetryConfig,
    class: Class,
    deadline: Instant,
    made: u32,
}

impl Attempts {
    /// The first attempt is being made. The caller has told the [`Budget`] of the request.
    pub fn new(config: RetryConfig, class: Class, deadline: Instant) -> Self {
        Self { config, class, deadline, made: 1 }
    }

    /// Attempts made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The attempt failed. The budget pays only for what is tried again.
    pub fn failed(
        &mut self,
        now: Instant,
        failure: Failure,
        budget: &mut Budget,
        random: &mut Random,
    ) -> Next {
        let verdict = verdict(self.class, failure);
        if verdict == Verdict::Never {
            return Next::Stop(Stop::Unsafe);
        }
        if self.made >= self.config.attempts_max {
            return Next::Stop(Stop::Attempts);
        }
        // Going elsewhere needs no wait the first time. If nobody can be reached, haste does not help.
        let wait = match verdict {
            Verdict::Elsewhere if self.made == 1 => Duration::ZERO,
            _ => self.config.backoff.wait(self.made - 1, random),
        };
        if now + wait >= self.deadline {
            return Next::Stop(Stop::Deadline);
        }
        if !budget.withdraw(now) {
            return Next::Stop(Stop::Budget);
        }
        self.made += 1;
        Next::Again { wait, elsewhere: verdict == Verdict::Elsewhere }
    }
}

#[cfg(test)]
mod tests;
