//! `Equals`: nodes of which any may be asked, how busy each is and how well it does.
//!
//! ```text
//! pick ──> who may be asked ──> takes its share (retry/outlier.rs) ──> balanced (balance.rs)
//! begin ──> UnderWay ──request──> ended, or dropped
//! ```
//!
//! Nodes are called by their place in the fleet. One lock, held for a pick or an end; a fleet in which each key has one
//! server has no equals, and pays nothing.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::balance::{Balancer, Endpoint};
use crate::config::BalanceConfig;
use crate::random::Random;
use crate::retry::Outliers;

/// What is known of nodes of which any may be asked.
#[derive(Debug)]
pub(super) struct Equals {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    balancer: Balancer,
    /// Where the configuration has them.
    outliers: Option<Outliers>,
    /// Whether each could not be asked when it was looked at last.
    away: Vec<bool>,
    random: Random,
}

/// A request on its way. Dropped, it was given up.
#[derive(Debug)]
pub(crate) struct UnderWay {
    equals: Arc<Equals>,
    index: usize,
    began: Instant,
    is_over: bool,
}

impl Equals {
    /// All of them warm.
    pub(super) fn new(
        config: &BalanceConfig,
        own_zone: &str,
        endpoints: &[Endpoint],
        seed: u64,
    ) -> Self {
        let &BalanceConfig { strategy, limits, outliers } = config;
        let outliers = outliers.map(|config| Outliers::new(config, endpoints.len()));
        let balancer = Balancer::new(strategy, limits, own_zone, endpoints, seed);
        let away = vec![false; endpoints.len()];
        Self { state: Mutex::new(State { balancer, outliers, away, random: Random::new(seed) }) }
    }

    /// The same of a later fleet. `places` says where each of these is in the one before; who was not there has come
    /// `now`, and is spared as long as it is cold.
    pub(super) fn succeeding(
        self,
        before: &Self,
        places: impl Iterator<Item = Option<usize>>,
        now: Instant,
    ) -> Self {
        let mut state = self.state.into_inner();
        let known = before.state.lock();
        for (index, place) in places.enumerate() {
            let Some(place) = place else {
                state.balancer.returned(index, now);
                continue;
            };
            state.balancer.adopt(index, &known.balancer, place);
            if let (Some(outliers), Some(known)) = (&mut state.outliers, &known.outliers) {
                outliers.adopt(index, known, place);
            }
            state.away[index] = known.away[place];
        }
        drop(known);
        Self { state: Mutex::new(state) }
    }

    /// Whom to ask of those that are `wanted` and `can` be asked. One that has been left out is asked only if all have.
    pub(super) fn pick(
        &self,
        now: Instant,
        wanted: impl Fn(usize) -> bool,
        can: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let State { balancer, outliers, away, random } = &mut *self.state.lock();
        for (index, away) in away.iter_mut().enumerate() {
            if !wanted(index) {
                continue;
            }
            let was_away = std::mem::replace(away, !can(index));
            if was_away && !*away {
                balancer.returned(index, now);
            }
        }
        if let Some(outliers) = outliers {
            outliers.sweep(now);
            let mut takes = |index| outliers.takes(now, index, random.unit());
            let picked = balancer.pick(now, |index| wanted(index) && !away[index] && takes(index));
            if picked.is_some() {
                return picked;
            }
        }
        balancer.pick(now, |index| wanted(index) && !away[index])
    }

    /// A request to `index` leaves.
    pub(super) fn begin(self: &Arc<Self>, index: usize, now: Instant) -> UnderWay {
        self.state.lock().balancer.started(index);
        UnderWay { equals: Arc::clone(self), index, began: now, is_over: false }
    }
}

impl UnderWay {
    /// Whether the node has done what can be asked of it. Tells whether it is left out from now on.
    pub(crate) fn ended(mut self, now: Instant, is_success: bool) -> bool {
        self.is_over = true;
        let State { balancer, outliers, .. } = &mut *self.equals.state.lock();
        balancer.finished(self.index, now, now.saturating_duration_since(self.began));
        outliers.as_mut().is_some_and(|outliers| outliers.record(now, self.index, is_success))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_over {
            // It would have taken at least so long.
            let now = tokio::time::Instant::now().into_std();
            let waited = now.saturating_duration_since(self.began);
            self.equals.state.lock().balancer.finished(self.index, now, waited);
        }
    }
}
