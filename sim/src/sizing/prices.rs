//! `Prices`: what a cache costs in a month and what it saves; `PerRequest`: the rule that says whether it
//! pays at all.
//!
//! ```text
//! a cache pays when  H·R + M·(1 − R) < L
//!
//! R  the hit ratio
//! H  what a hit takes
//! M  what a miss takes: asking the cache in vain, then the backend
//! L  what a request takes where there is no cache
//! ```
//!
//! The letters are seconds or money, whichever is asked about; the rule is the same. Solved for R it says
//! from which hit ratio on the cache pays: R > (M − L) / (M − H).
//!
//! What a month costs with a cache is the sum of four parts, each 0 unless its price is given:
//!
//! ```text
//! memory     GiB of the machines × price of a GiB for a month
//! requests   requests a month × (H·R + M·(1 − R)) in money
//! waiting    requests a month × (H·R + M·(1 − R)) in seconds × price of a second
//! backend    replicas × price of one for a month, and replicas = what is missed in the busiest
//!            minute, by what one replica serves, rounded up
//! ```

/// Seconds of a month as clouds bill it: 730 hours.
pub const MONTH_S: f64 = 730.0 * 3600.0;

const GIB: f64 = (1_u64 << 30) as f64;

/// What one request takes, in seconds or in money, by what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerRequest {
    /// H: a hit.
    pub hit: f64,
    /// M: a miss, the cache asked in vain included.
    pub miss: f64,
    /// L: a request without a cache.
    pub direct: f64,
}

/// Why numbers are no [`PerRequest`].
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PerRequestError {
    /// Nothing is said of what lies behind the cache.
    #[error(
        "a hit is only worth something beside a miss: say what a miss takes, or a request without a cache"
    )]
    HitAlone,
    /// A miss is no worse than a hit.
    #[error("a miss ({miss}) takes less than a hit ({hit}): no hit could ever gain anything")]
    MissBelowHit {
        /// M.
        miss: f64,
        /// H.
        hit: f64,
    },
}

impl PerRequest {
    /// Of what is known of the three. Without a hit's, a hit takes nothing. A miss takes as long as a
    /// request without a cache and the look into the cache, so either of these tells the other.
    ///
    /// # Errors
    ///
    /// Only a hit's is known, or a miss takes less than a hit.
    pub fn new(
        hit: Option<f64>,
        miss: Option<f64>,
        direct: Option<f64>,
    ) -> Result<Option<Self>, PerRequestError> {
        let known = hit.unwrap_or(0.0);
        let (miss, direct) = match (miss, direct) {
            (Some(miss), Some(direct)) => (miss, direct),
            (Some(miss), None) => (miss, (miss - known).max(0.0)),
            (None, Some(direct)) => (direct + known, direct),
            (None, None) if hit.is_some() => return Err(PerRequestError::HitAlone),
            (None, None) => return Ok(None),
        };
        if miss < known {
            return Err(PerRequestError::MissBelowHit { miss, hit: known });
        }
        Ok(Some(Self { hit: known, miss, direct }))
    }

    /// `H·R + M·(1 − R)`: what a request takes in the mean.
    pub fn mean(&self, hit_ratio: f64) -> f64 {
        self.hit * hit_ratio + self.miss * (1.0 - hit_ratio)
    }

    /// Whether `H·R + M·(1 − R) < L`.
    pub fn pays(&self, hit_ratio: f64) -> bool {
        self.mean(hit_ratio) < self.direct
    }

    /// The hit ratio above which a cache pays; none if it never does, however much it hits.
    pub fn break_even(&self) -> Option<f64> {
        let Self { hit, miss, direct } = *self;
        if hit >= direct {
            return None;
        }
        // From here on the miss is dearer than the hit, or they are the same and less than direct.
        Some(if miss <= direct { 0.0 } else { (miss - direct) / (miss - hit) })
    }
}

/// What stands behind the cache, in copies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backend {
    /// What one replica serves, in requests a second.
    pub requests_per_s: f64,
    /// What it costs a month.
    pub month: f64,
}

impl Backend {
    /// How many replicas serve so many requests a second.
    pub fn replicas(&self, requests_per_s: f64) -> f64 {
        // A rate that was computed may be a hair above a whole number of replicas.
        (requests_per_s / self.requests_per_s - 1e-9).ceil().max(0.0)
    }
}

/// What is to be paid for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// A GiB of memory for a month.
    pub memory_gib_month: f64,
    /// A request, in money.
    pub money: Option<PerRequest>,
    /// A request, in seconds.
    pub time: Option<PerRequest>,
    /// A second that a request takes.
    pub second: f64,
    /// The backend's replicas.
    pub backend: Option<Backend>,
}

/// How much is asked of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Reads a second, in the mean.
    pub mean_per_s: f64,
    /// Reads a second in the busiest minute.
    pub busiest_per_s: f64,
}

impl Load {
    /// Reads in a month.
    pub fn month(&self) -> f64 {
        self.mean_per_s * MONTH_S
    }
}

/// What a month costs, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// The cache's machines.
    pub memory: f64,
    /// Requests that have a price.
    pub requests: f64,
    /// Seconds that requests take.
    pub waiting: f64,
    /// The backend's replicas.
    pub backend: f64,
    /// How many these are.
    pub replicas: f64,
}

impl Costs {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.memory + self.requests + self.waiting + self.backend
    }
}

impl Prices {
    /// Whether anything but memory has a price: otherwise no cache at all is the cheapest.
    pub fn weigh_anything(&self) -> bool {
        let waiting = self.time.is_some() && self.second > 0.0;
        self.money.is_some() || self.backend.is_some() || waiting
    }

    /// A month with a cache on machines of `machine_bytes` in all.
    pub fn with_cache(&self, load: Load, machine_bytes: u64, hit_ratio: f64) -> Costs {
        let each = |of: Option<PerRequest>| of.map_or(0.0, |of| of.mean(hit_ratio));
        let missed_per_s = load.busiest_per_s * (1.0 - hit_ratio);
        let replicas = self.backend.map_or(0.0, |backend| backend.replicas(missed_per_s));
        Costs {
            memory: machine_bytes as f64 / GIB * self.memory_gib_month,
            requests: load.month() * each(self.money),
            waiting: load.month() * each(self.time) * self.second,
            backend: replicas * self.backend.map_or(0.0, |backend| backend.month),
            replicas,
        }
    }

    /// A month without one.
    pub fn without_cache(&self, load: Load) -> Costs {
        let each = |of: Option<PerRequest>| of.map_or(0.0, |of| of.direct);
        let replicas = self.backend.map_or(0.0, |backend| backend.replicas(load.busiest_per_s));
        Costs {
            memory: 0.0,
            requests: load.month() * each(self.money),
            waiting: load.month() * each(self.time) * self.second,
            backend: replicas * self.backend.map_or(0.0, |backend| backend.month),
            replicas,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn per_request(hit: f64, miss: f64, direct: f64) -> PerRequest {
        PerRequest::new(Some(hit), Some(miss), Some(direct)).unwrap().unwrap()
    }

    #[test]
    fn a_miss_is_a_look_into_the_cache_and_a_request_without_one() {
        let of = |hit, miss, direct| PerRequest::new(hit, miss, direct).unwrap().unwrap();
        assert_eq!(of(Some(1.0), None, Some(9.0)), per_request(1.0, 10.0, 9.0));
        assert_eq!(of(Some(1.0), Some(10.0), None), per_request(1.0, 10.0, 9.0));
        assert_eq!(of(None, Some(10.0), None), per_request(0.0, 10.0, 10.0));
        assert_eq!(PerRequest::new(None, None, None), Ok(None));
        assert_eq!(PerRequest::new(Some(1.0), None, None), Err(PerRequestError::HitAlone));
        let error = PerRequest::new(Some(2.0), Some(1.0), None).unwrap_err();
        assert_eq!(error, PerRequestError::MissBelowHit { miss: 1.0, hit: 2.0 });
    }

    #[test]
    fn a_cache_slower_than_its_backend_never_pays() {
        assert_eq!(per_request(5.0, 9.0, 5.0).break_even(), None);
        assert!(!per_request(5.0, 9.0, 5.0).pays(1.0));
        // Even a miss is no worse than what was there before: any hit is a gain.
        assert_eq!(per_request(1.0, 9.0, 9.0).break_even(), Some(0.0));
    }

    #[test]
    fn a_worked_month() {
        let prices = Prices {
            memory_gib_month: 3.0,
            money: Some(per_request(0.0, 1e-6, 1e-6)),
            time: Some(per_request(0.001, 0.021, 0.020)),
            second: 0.0001,
            backend: Some(Backend { requests_per_s: 100.0, month: 50.0 }),
        };
        let load = Load { mean_per_s: 1_000_000.0 / MONTH_S, busiest_per_s: 1_000.0 };
        let costs = prices.with_cache(load, 2 << 30, 0.9);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(costs.memory, 6.0);
        near(costs.requests, 0.1);
        near(costs.waiting, 1_000_000.0 * 0.003 * 0.0001);
        // 100 a second are missed: exactly one replica's.
        near(costs.replicas, 1.0);
        near(costs.total(), 6.0 + 0.1 + 0.3 + 50.0);
        let without = prices.without_cache(load);
        near(without.total(), 1.0 + 2.0 + 500.0);
    }

    proptest! {
        #[test]
        fn break_even_is_where_the_rule_turns(hit in 0.0..10.0, more in 0.001..10.0, direct in 0.0..20.0) {
            let it = per_request(hit, hit + more, direct);
            // Step by step over all hit ratios, which is too simple to be wrong.
            let pays = |step: u32| it.pays(f64::from(step) / 1000.0);
            match it.break_even() {
                None => prop_assert!((0..=1000).all(|step| !pays(step))),
                Some(from) => {
                    for step in 0..=1000 {
                        let distance = f64::from(step) / 1000.0 - from;
                        if distance.abs() > 1e-9 {
                            prop_assert_eq!(pays(step), distance > 0.0);
                        }
                    }
                }
            }
        }
    }
}
