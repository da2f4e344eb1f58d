//! `Miniatures`: a sample of a log played to caches as much smaller, for policies that have no stack.
//!
//! A cache of size C that sees all objects, and one of size C·R that sees a share R of them, hit in the
//! same share of requests, more or less: C. A. Waldspurger, T. Saemundsson, I. Ahmad, N. Park, "Cache
//! modeling and optimization using miniature simulations", USENIX ATC 2017. All caches share one sample.

use eviction::Kind;

use super::strata::{Estimate, Popularity, Strata};
use super::{Dealing, Part, place, threshold_of};
use crate::curve::{BAND_ERRORS, Point, Weight, weight_of};
use crate::replay::{Expiry, Player, Replay, Request, Weighing};

/// Caches in miniature, and the sample they are fed.
pub struct Miniatures {
    /// Whose requests are played.
    part: Part,
    rate: f64,
    threshold: u64,
    popularity: Popularity,
    reads: Weight,
    caches: Vec<Miniature>,
}

struct Miniature {
    cache_size: u64,
    replay: Replay,
    strata: Strata,
}

/// Where a hit is counted: there is one size only.
const SIZE: u64 = 1;

impl Miniatures {
    /// Miniatures of caches of `policies` in all of `sizes`, for a share `rate` of the objects.
    pub fn new(
        policies: &[Kind],
        sizes: &[u64],
        (weighing, expiry): (Weighing, Expiry),
        Dealing { part, is_dealt }: Dealing,
        rate: f64,
    ) -> Self {
        let share = rate / f64::from(part.count);
        let part = if is_dealt { Part::WHOLE } else { part };
        let miniature =
            |policy, size| (size, Replay::with(policy, scaled(size, share), weighing, expiry));
        let caches = policies
            .iter()
            .flat_map(|&policy| sizes.iter().map(move |&size| miniature(policy, size)))
            .collect();
        Self::of(caches, part, rate)
    }

    /// Of `caches`, each with the size that it stands for.
    pub(crate) fn of(caches: Vec<(u64, Replay)>, part: Part, rate: f64) -> Self {
        let miniature =
            |(cache_size, replay)| Miniature { cache_size, replay, strata: Strata::new() };
        let caches = caches.into_iter().map(miniature).collect();
        let (popularity, threshold) = (Popularity::new(), threshold_of(rate));
        Self { part, rate, threshold, popularity, reads: Weight::default(), caches }
    }

    /// A point for each cache, by policy and size.
    pub fn finish(self) -> Vec<(Kind, Point)> {
        let Self { rate, reads, caches, .. } = self;
        let point = |cache: Miniature| {
            let Estimate { hits, variances } = cache.strata.estimate(rate);
            let hits = hits.hits_at(&[SIZE])[0];
            let variance = variances.first().map_or(0.0, |&(_, variance)| variance);
            let unseen = if rate < 1.0 { 3.0 / rate } else { 0.0 };
            let ratio = |hits: f64, reads: f64| (1.0 - hits / reads.max(1.0)).clamp(0.0, 1.0);
            let point = Point {
                cache_size: cache.cache_size,
                miss_ratio: ratio(hits.requests, reads.requests),
                byte_miss_ratio: ratio(hits.bytes, reads.bytes),
                margin: (BAND_ERRORS * variance.sqrt() + unseen) / reads.requests.max(1.0),
            };
            (cache.replay.policy(), point)
        };
        caches.into_iter().map(point).collect()
    }
}

impl Player for Miniatures {
    fn request(&mut self, request: &Request) {
        let Some(place) = place(request.key, self.part) else {
            return;
        };
        let is_read = request.op.is_read();
        let one = weight_of(request);
        let mut class = 0;
        if is_read {
            self.reads.add(one);
            class = self.popularity.class(request.key);
            self.caches.iter_mut().for_each(|cache| cache.strata.read(class, one));
        }
        if place.height >= self.threshold {
            return;
        }
        let weight = one.times(1.0 / self.rate);
        for cache in &mut self.caches {
            let before = cache.replay.tally().hits;
            cache.replay.request(request);
            if is_read {
                cache.strata.sample(class, place.group, weight);
            }
            if cache.replay.tally().hits > before {
                cache.strata.hit(class, place.group, (SIZE, u64::MAX), weight);
            }
        }
    }
}

/// A share of a cache's size, enough for one object.
fn scaled(size: u64, share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a size"
    )]
    let scaled = (size as f64 * share).round() as u64;
    scaled.max(1)
}
