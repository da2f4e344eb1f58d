//! A circuit breaker: a node that keeps failing is left alone, then probed, then trusted again.
//!
//! Michael Nygard, "Release It!", 2007, chapter "Circuit Breaker".
//!
//! ```text
//!            failures_max in a row, or
//!            failure_share of requests_min             the pause is over
//!  Closed ───────────────────────────────────> Open ─────────────────────> HalfOpen
//!    ^                                          ^                             │
//!    │              probes_passed successes     └─────── any failure ─────────┤
//!    └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - While half open at most `probes_max` requests are under way.
//! - A pause is drawn from half its bound to all of it, so that clients do not probe together; the bound doubles from one
//!   failed probe to the next and starts over when the breaker closes.
//! - An answer to a request of an earlier state changes nothing: it tells what the node was like then.

use std::time::{Duration, Instant};

use super::Backoff;
use crate::random::Random;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// The share of failures that opens it too...
    pub failure_share: f64,
    /// ...among at least so many requests...
    pub requests_min: u32,
    /// ...of one window, which is this long.
    pub window: Duration,
    /// The bounds of pauses.
    pub pause: Backoff,
    /// Requests under way at once while half open.
    pub probes_max: u32,
    /// Successes that close it again.
    pub probes_passed: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures_max: 5,
            failure_share: 0.5,
            requests_min: 20,
            window: Duration::from_secs(10),
            pause: Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) },
            probes_max: 1,
            probes_passed: 3,
        }
    }
}

/// What a breaker does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Lets everything pass.
    Closed,
    /// Lets nothing pass.
    Open,
    /// Lets a few pass.
    HalfOpen,
}

/// Whether a request may be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may; how it ended is to be told with the permit.
    Granted(Permit),
    /// It may not.
    Refused {
        /// When to ask again; nothing if that is when a probe under way has ended.
        until: Option<Instant>,
    },
}

/// A request that may be sent. Every permit goes back by one of [`Breaker::succeeded`], [`Breaker::failed`] and
/// [`Breaker::cancelled`]; a probe's that does not keeps its place taken.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "how the request ended is to be told with it"]
pub struct Permit {
    /// The state that it was granted in, by number.
    period: u64,
}

/// The breaker of one node.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    /// How often the state has changed.
    period: u64,
    /// Pauses since it was closed last.
    pauses: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { in_a_row: u32, requests: u32, failures: u32, window_start: Option<Instant> },
    Open { until: Instant },
    HalfOpen { under_way: u32, passed: u32 },
}

const CLOSED: State = State::Closed { in_a_row: 0, requests: 0, failures: 0, window_start: None };

impl Breaker {
    /// A closed one.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: CLOSED, period: 0, pauses: 0 }
    }

    /// What it does at present; one whose pause is over is open until somebody asks to send.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether [`Breaker::admit`] would grant, for balancers that ask before they pick.
    pub fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::HalfOpen { under_way, passed: _ } => under_way < self.probes_max(),
        }
    }

    /// Whether a request may be sent.
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let State::Open { until } = self.state {
            if now < until {
                return Admission::Refused { until: Some(until) };
            }
            self.change(State::HalfOpen { under_way: 0, passed: 0 });
        }
        let probes_max = self.probes_max();
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            if *under_way >= probes_max {
                return Admission::Refused { until: None };
            }
            *under_way += 1;
        }
        Admission::Granted(Permit { period: self.period })
    }

    /// The request was answered, be it with an error that is the caller's.
    pub fn succeeded(&mut self, now: Instant, permit: Permit) {
        if permit.period != self.period {
            return;
        }
        let config = self.config;
        match &mut self.state {
            State::Closed { in_a_row, requests, failures, window_start } => {
                turn(now, config.window, window_start, requests, failures);
                *in_a_row = 0;
                *requests += 1;
            }
            State::HalfOpen { under_way, passed } => {
                *under_way -= 1;
                *passed += 1;
                if *passed >= config.probes_passed {
                    self.pauses = 0;
                    self.change(CLOSED);
                }
            }
            State::Open { .. } => debug_assert!(false, "an open breaker grants nothing"),
        }
    }

    /// The request failed for a reason that is the node's: no connection, no answer, nonsense.
    pub fn failed(&mut self, now: Instant, permit: Permit, random: &mut Random) {
        if permit.period != self.period {
            return;
        }
        let config = self.config;
        match &mut self.state {
            State::Closed { in_a_row, requests, failures, window_start } => {
                turn(now, config.window, window_start, requests, failures);
                *in_a_row += 1;
                *requests += 1;
                *failures += 1;
                let is_often = *requests >= config.requests_min
                    && f64::from(*failures) >= config.failure_share * f64::from(*requests);
                if *in_a_row >= config.failures_max || is_often {
                    self.open(now, random);
                }
            }
            State::HalfOpen { .. } => self.open(now, random),
            State::Open { .. } => debug_assert!(false, "an open breaker grants nothing"),
        }
    }

    /// The request was given up before it told anything of the node.
    pub fn cancelled(&mut self, permit: Permit) {
        if let State::HalfOpen { under_way, .. } = &mut self.state
            && permit.period == self.period
        {
            *under_way -= 1;
        }
    }

    fn open(&mut self, now: Instant, random: &mut Random) {
        let bound = self.config.pause.bound(self.pauses);
        self.pauses = self.pauses.saturating_add(1);
        self.change(State::Open { until: now + bound.mul_f64(0.5 + random.unit() / 2.0) });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.period += 1;
    }

    /// With none nobody would ever find out that the node is back.
    fn probes_max(&self) -> u32 {
        self.config.probes_max.max(1)
    }
}

/// Begins another window if this one is over.
fn turn(
    now: Instant,
    window: Duration,
    start: &mut Option<Instant>,
    requests: &mut u32,
    failures: &mut u32,
) {
    let started = *start.get_or_insert(now);
    if now.saturating_duration_since(started) >= window {
        *start = Some(now);
        (*requests, *failures) = (0, 0);
    }
}
