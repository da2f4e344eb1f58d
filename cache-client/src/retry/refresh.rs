//! When to ask again for something that changes: the addresses of a name, the map of a cluster.
//!
//! ```text
//!            due, or lost            answered
//!  Known ─────────────────> Asking ────────────> Known, due after its lifetime
//!    ^                         │ failed
//!    └── due after a backoff ──┘
//! ```
//!
//! - What is known stays in use until something newer is: a resolver that fails makes no server unreachable.
//! - One question at a time, whoever wants to know. Whoever lost a connection has the question asked at once, but not
//!   within `interval_min` of the last, so that a thousand connections that break together ask once.
//! - A lifetime is cut to a part drawn from nine tenths to all of it, so that clients do not ask together.

use std::time::{Duration, Instant};

use super::Backoff;
use crate::random::Random;

/// How often to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshConfig {
    /// The lifetime of an answer that has none of its own: what the operating system's resolver gives says no TTL.
    pub lifetime: Duration,
    /// The longest lifetime that is believed.
    pub lifetime_max: Duration,
    /// The least time between two questions.
    pub interval_min: Duration,
    /// The bounds of the waits after questions that failed, on top of `interval_min`.
    pub backoff: Backoff,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(30),
            lifetime_max: Duration::from_secs(300),
            interval_min: Duration::from_secs(1),
            backoff: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(30) },
        }
    }
}

/// When to ask for one thing.
#[derive(Clone, Debug)]
pub struct Refresh {
    config: RefreshConfig,
    state: State,
    /// When the last question was asked.
    asked_at: Option<Instant>,
    /// Questions in a row that failed.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been asked for yet.
    Unknown,
    /// Ask then.
    Due(Instant),
    /// `is_stale` if a connection was lost since it was asked: the answer may be from before.
    Asking { is_stale: bool },
}

impl Refresh {
    /// Due at once.
    pub fn new(config: RefreshConfig) -> Self {
        Self { config, state: State::Unknown, asked_at: None, failures: 0 }
    }

    /// When [`Refresh::ask`] will say yes; `None` while a question is under way, and before the first.
    pub fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::Unknown | State::Asking { .. } => None,
        }
    }

    /// Whether to ask now. If so, the question is under way until [`Refresh::answered`] or [`Refresh::failed`].
    pub fn ask(&mut self, now: Instant) -> bool {
        let is_due = match self.state {
            State::Unknown => true,
            State::Due(at) => now >= at,
            State::Asking { .. } => false,
        };
        if is_due {
            self.state = State::Asking { is_stale: false };
            self.asked_at = Some(now);
        }
        is_due
    }

    /// A connection was lost, or there is another hint that what is known is old: the question is due as soon as the
    /// least interval allows.
    pub fn lost(&mut self, now: Instant) {
        match &mut self.state {
            State::Unknown => {}
            State::Asking { is_stale } => *is_stale = true,
            State::Due(at) => *at = (*at).min(soonest(&self.config, self.asked_at, now)),
        }
    }

    /// The answer came, good for `lifetime` if it says so.
    pub fn answered(&mut self, now: Instant, lifetime: Option<Duration>, random: &mut Random) {
        self.failures = 0;
        let config = &self.config;
        let lifetime = lifetime.unwrap_or(config.lifetime).min(config.lifetime_max);
        let lifetime = lifetime.mul_f64(0.9 + random.unit() / 10.0);
        self.end(now, lifetime);
    }

    /// No answer came. What is known stays in use.
    pub fn failed(&mut self, now: Instant, random: &mut Random) {
        let wait = self.config.backoff.wait(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        self.end(now, self.config.interval_min + wait);
    }

    fn end(&mut self, now: Instant, wait: Duration) {
        let soonest = soonest(&self.config, self.asked_at, now);
        let is_stale = self.state == State::Asking { is_stale: true };
        self.state = State::Due(if is_stale { soonest } else { soonest.max(now + wait) });
    }
}

fn soonest(config: &RefreshConfig, asked_at: Option<Instant>, now: Instant) -> Instant {
    asked_at.map_or(now, |asked| now.max(asked + config.interval_min))
}
