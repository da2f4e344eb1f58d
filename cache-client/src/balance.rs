//! Which of several equals a request goes to: copies of a shard, connections to a node, proxies of one kind.
//!
//! ```text
//! pick(now, who may be asked) ──> index ──> started(index) ──request──> finished(index, now, latency)
//! ```
//!
//! Equals are called by their index. What all strategies hold to:
//!
//! - Only who may be asked is picked, and somebody is picked if anybody may be.
//! - In the caller's own zone first: another zone is asked where nobody of the own may be, or all of it that may has
//!   [`Limits::in_flight`] requests or more under way.
//! - The same calls with the same seed pick the same. Time comes in as an argument and never goes back.
//!
//! | name | picks | for |
//! |---|---|---|
//! | `round-robin` | each in turn | servers that are alike |
//! | `weighted` | each in proportion to its weight, spread evenly | servers that differ in size |
//! | `least-loaded` | the fewest requests under way per weight | requests that differ in cost |
//! | `slow-start` | the same, a newcomer counting as more loaded for a while | caches that start cold |
//! | `utilisation` | the least part of its limit in use, and nobody above the limit while somebody is below | servers with a known capacity |
//! | `latency` | the least expected wait (peak EWMA) | servers that become slow |
//! | `cascade` | the first whose limit is not reached | filling few servers, so that others may sleep |
//! | `two-choices` | the less loaded of two drawn at random | many callers who do not know of each other |

use std::str::FromStr;
use std::time::{Duration, Instant};

use thiserror::Error;

use self::latency::PeakEwma;
use crate::random::Random;

mod latency;

/// How one of several equals is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// Each in proportion to its weight. Smooth: as nginx's `ngx_http_upstream_round_robin.c`, every pick adds each
    /// one's weight to its credit and takes all that was added from the one with most, so that weights 5, 1 and 1
    /// give a a b a c a a and not five times a.
    Weighted,
    /// The fewest requests under way per weight; of equals each in turn.
    LeastLoaded,
    /// The same, but who has come within [`Limits::slow_start`] counts as more loaded by how much of that is left, as
    /// in `HAProxy`'s `slowstart`: a cache that starts cold sends its misses elsewhere, and must not be sent everything
    /// because it has nothing under way.
    SlowStart,
    /// The least part of [`Limits::in_flight`] in use; who is at the limit only when all are.
    Utilisation,
    /// The least expected wait by peak EWMA; see [`Limits::latency_decay`].
    Latency,
    /// The first below its limit; the least loaded when all have reached it.
    Cascade,
    /// The less loaded of two drawn at random (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
    /// IEEE TPDS 12(10), 2001): nearly as even as asking everybody, and callers who do not know of each other do not
    /// all run to the same idle server.
    #[default]
    TwoChoices,
}

impl Balance {
    /// All by name.
    pub const ALL: [(&'static str, Self); 8] = [
        ("round-robin", Self::RoundRobin),
        ("weighted", Self::Weighted),
        ("least-loaded", Self::LeastLoaded),
        ("slow-start", Self::SlowStart),
        ("utilisation", Self::Utilisation),
        ("latency", Self::Latency),
        ("cascade", Self::Cascade),
        ("two-choices", Self::TwoChoices),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, strategy)| *strategy == self).map_or("", |(name, _)| name)
    }
}

/// No way of balancing has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no balancing `{0}`; there are {names}", names = balance_names())]
pub struct UnknownBalance(pub String);

fn balance_names() -> String {
    Balance::ALL.map(|(name, _)| name).join(", ")
}

impl FromStr for Balance {
    type Err = UnknownBalance;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(known, _)| *known == name).map(|&(_, strategy)| strategy);
        found.ok_or_else(|| UnknownBalance(name.to_owned()))
    }
}

/// What the strategies go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way, per weight 1, above which an endpoint is full.
    pub in_flight: u32,
    /// How long a newcomer is spared.
    pub slow_start: Duration,
    /// In how long a latency that was seen counts for 1/e of what it did.
    pub latency_decay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 64,
            slow_start: Duration::from_secs(30),
            latency_decay: Duration::from_secs(10),
        }
    }
}

/// One of the equals as it is added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its share, in proportion to the others'; 0 counts as 1.
    pub weight: u32,
    /// Its failure domain; may be empty.
    pub zone: String,
}

/// Equals, and what is known of each.
#[derive(Clone, Debug)]
pub struct Balancer {
    strategy: Balance,
    limits: Limits,
    own_zone: String,
    states: Vec<State>,
    /// Where the search of the next pick begins.
    turn: usize,
    random: Random,
    /// Who may be asked at this pick; kept to be filled again.
    candidates: Vec<usize>,
}

#[derive(Clone, Debug)]
struct State {
    weight: u32,
    is_near: bool,
    in_flight: u32,
    /// When it came, or came back.
    since: Option<Instant>,
    /// What smooth round robin owes it.
    credit: i64,
    latency: PeakEwma,
}

impl State {
    fn load(&self) -> f64 {
        f64::from(self.in_flight) / f64::from(self.weight)
    }

    fn is_full(&self, limits: &Limits) -> bool {
        u64::from(self.in_flight) >= u64::from(limits.in_flight) * u64::from(self.weight)
    }

    /// From 0, for a newcomer, to 1.
    fn warmth(&self, now: Instant, limits: &Limits) -> f64 {
        match self.since {
            Some(since) if !limits.slow_start.is_zero() => {
                let age = now.saturating_duration_since(since);
                (age.as_secs_f64() / limits.slow_start.as_secs_f64()).min(1.0)
            }
            _ => 1.0,
        }
    }
}

impl Balancer {
    /// Balances over `endpoints`, called by their index, all of them warm. `seed` decides the draws of
    /// [`Balance::TwoChoices`] and who begins; give every client another.
    pub fn new(
        strategy: Balance,
        limits: Limits,
        own_zone: &str,
        endpoints: &[Endpoint],
        seed: u64,
    ) -> Self {
        let mut balancer = Self {
            strategy,
            limits,
            own_zone: own_zone.to_owned(),
            states: Vec::with_capacity(endpoints.len()),
            turn: 0,
            random: Random::new(seed),
            candidates: Vec::with_capacity(endpoints.len()),
        };
        endpoints.iter().for_each(|endpoint| balancer.push(endpoint, None));
        if !endpoints.is_empty() && strategy != Balance::Cascade {
            balancer.turn = balancer.random.below(endpoints.len());
        }
        balancer
    }

    /// Adds another at the end, which came at `now`, so that it is spared for a while.
    pub fn add(&mut self, endpoint: &Endpoint, now: Instant) {
        self.push(endpoint, Some(now));
    }

    fn push(&mut self, endpoint: &Endpoint, since: Option<Instant>) {
        self.states.push(State {
            weight: endpoint.weight.max(1),
            is_near: endpoint.zone == self.own_zone,
            in_flight: 0,
            since,
            credit: 0,
            latency: PeakEwma::default(),
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Requests under way at `index`.
    pub fn in_flight(&self, index: usize) -> u32 {
        self.states.get(index).map_or(0, |state| state.in_flight)
    }

    /// `index` came back after it had been away, and is spared for a while; what was known of its latency is not
    /// true any more.
    pub fn returned(&mut self, index: usize, now: Instant) {
        if let Some(state) = self.states.get_mut(index) {
            state.since = Some(now);
            state.latency = PeakEwma::default();
        }
    }

    /// `index` is who `known` calls `known_index`: what was learnt of it there holds here. Its requests under way there
    /// end there.
    pub fn adopt(&mut self, index: usize, known: &Self, known_index: usize) {
        if let (Some(state), Some(known)) =
            (self.states.get_mut(index), known.states.get(known_index))
        {
            state.since = known.since;
            state.latency = known.latency;
        }
    }

    /// A request to `index` was sent.
    pub fn started(&mut self, index: usize) {
        if let Some(state) = self.states.get_mut(index) {
            state.in_flight += 1;
        }
    }

    /// The request to `index` ended, `latency` after it was sent. Give one that ended in an error too, a timeout with
    /// all of its time: who fails quickly must not seem fast, which is why errors have to eject it (`retry`).
    pub fn finished(&mut self, index: usize, now: Instant, latency: Duration) {
        if let Some(state) = self.states.get_mut(index) {
            debug_assert!(state.in_flight > 0, "what finishes was started");
            state.in_flight = state.in_flight.saturating_sub(1);
            state.latency.observe(now, latency, self.limits.latency_decay);
        }
    }

    /// Whom to ask of those that `may_ask`; `None` if none may be.
    pub fn pick(&mut self, now: Instant, mut may_ask: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let count = self.states.len();
        candidates.extend((0..count).filter(|&index| may_ask(index)));
        self.prefer_own_zone(&mut candidates);
        let picked = self.pick_of(&candidates, now);
        self.candidates = candidates;
        self.turn = picked.map_or(self.turn, |picked| picked + 1);
        picked
    }

    /// Leaves those of the own zone, if any of them has room.
    fn prefer_own_zone(&self, candidates: &mut Vec<usize>) {
        let is_near = |&index: &usize| self.states[index].is_near;
        let has_room = |&index: &usize| !self.states[index].is_full(&self.limits);
        if candidates.iter().any(|index| is_near(index) && has_room(index)) {
            candidates.retain(is_near);
        }
    }

    fn pick_of(&mut self, candidates: &[usize], now: Instant) -> Option<usize> {
        let limits = self.limits;
        match self.strategy {
            Balance::RoundRobin => self.least(candidates, |_| 0.0),
            Balance::Weighted => self.smooth(candidates),
            Balance::LeastLoaded => self.least(candidates, State::load),
            Balance::SlowStart => self.least(candidates, |state| {
                // At least a hundredth, so that newcomers are compared among themselves.
                let warmth = state.warmth(now, &limits).max(0.01);
                (f64::from(state.in_flight) + 1.0) / (f64::from(state.weight) * warmth)
            }),
            Balance::Utilisation => {
                // Whole limits used come first, so that nobody above is picked while somebody is below.
                let used = |state: &State| state.load() / f64::from(limits.in_flight.max(1));
                self.least(candidates, |state| {
                    used(state) + if state.is_full(&limits) { 1e9 } else { 0.0 }
                })
            }
            Balance::Latency => self.least(candidates, |state| {
                state.latency.expected_wait(now, state.in_flight, limits.latency_decay)
                    / f64::from(state.weight)
            }),
            Balance::Cascade => {
                let mut room = candidates.iter().copied();
                let first = room.find(|&index| !self.states[index].is_full(&limits));
                first.or_else(|| self.least(candidates, State::load))
            }
            Balance::TwoChoices => {
                let (first, second) = match candidates.len() {
                    0 => return None,
                    1 => return Some(candidates[0]),
                    count => self.random.two_below(count),
                };
                self.least(&[candidates[first], candidates[second]], State::load)
            }
        }
    }

    /// The one with the least `cost`; of equals the first from `turn` on, so that each has its turn.
    fn least(&self, candidates: &[usize], cost: impl Fn(&State) -> f64) -> Option<usize> {
        let count = self.states.len();
        let distance = |index: usize| (index + count - self.turn % count) % count;
        let costs = candidates.iter().map(|&index| (index, cost(&self.states[index])));
        let least = costs.min_by(|&(a, a_cost), &(b, b_cost)| {
            a_cost.total_cmp(&b_cost).then_with(|| distance(a).cmp(&distance(b)))
        });
        least.map(|(index, _)| index)
    }

    fn smooth(&mut self, candidates: &[usize]) -> Option<usize> {
        let mut total = 0;
        for &index in candidates {
            let state = &mut self.states[index];
            state.credit += i64::from(state.weight);
            total += i64::from(state.weight);
        }
        // `max_by_key` takes the last of equals; the first is who nginx takes.
        let richest =
            candidates.iter().rev().copied().max_by_key(|&index| self.states[index].credit)?;
        self.states[richest].credit -= total;
        Some(richest)
    }
}

#[cfg(test)]
mod tests;
