//! `Strata`: from what a sample counted to what the whole would have, and how far off that may be.
//!
//! A popular object makes many requests, and by chance a sample has one too many of them or too few. How
//! popular the object of a request has been until then is known of all requests, sampled or not, and so
//! is how many there are of each class of popularity. The sample says only which share of a class misses:
//! post-stratification, see W. G. Cochran, "Sampling techniques", 3rd edition, 1977, section 5A.9.
//!
//! - A class is a factor of 2 in popularity: requests of all objects so far, per request of this one.
//!   What was never asked for before is a class of its own, and misses.
//! - Neighbouring classes with few requests in the sample are taken together.
//! - Where the sample has too few requests of the most popular stratum, its misses are counted and hits
//!   are what is left: an object that it lacks there would have hit. That is the correction SHARDS-adj.
//! - The variance follows from the residuals of [`GROUPS`] groups of objects.

use eviction::KeyHash;

use super::GROUPS;
use crate::curve::{Histogram, Weight};

/// Classes of popularity; the last is of what was never asked for before.
const CLASSES: usize = 40;
const FIRST_TIME: usize = CLASSES - 1;

/// Requests in the sample that make a stratum.
const STRATUM_REQUESTS_MIN: u64 = 256;
/// Groups of objects that they must come from.
const STRATUM_GROUPS_MIN: usize = 3;

/// Counters of a [`Popularity`]: 21 bits of the hash choose one.
const COUNTERS: usize = 1 << 21;

/// Precision of the curves of classes, and of groups within them.
const CLASS_PRECISION: u32 = 8;
pub(crate) const GROUP_PRECISION: u32 = 5;

/// How often each key was asked for, at least: a count-min sketch of two rows. A key counted too high
/// stands in the wrong class, which costs precision and no truth, as it does not depend on the sample.
pub(crate) struct Popularity {
    counters: Vec<u32>,
    requests: u64,
}

impl Popularity {
    pub(crate) fn new() -> Self {
        Self { counters: vec![0; COUNTERS], requests: 0 }
    }

    /// Counts a request, and returns the class of `key` before it.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the numbers of counters have 21 bits")]
    pub(crate) fn class(&mut self, KeyHash(hash): KeyHash) -> usize {
        self.requests += 1;
        let hash = hash.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let rows = [hash >> 43, (hash >> 22) & ((1 << 21) - 1)].map(|at| at as usize);
        let count = self.counters[rows[0]].min(self.counters[rows[1]]);
        for row in rows {
            // Only those that are the least: the others already count somebody else.
            if self.counters[row] == count {
                self.counters[row] = count.saturating_add(1);
            }
        }
        match count {
            0 => FIRST_TIME,
            _ => ((self.requests / u64::from(count)).max(1).ilog2() as usize).min(FIRST_TIME - 1),
        }
    }
}

/// What was counted, by class and group.
pub(crate) struct Strata {
    classes: Vec<Class>,
}

struct Class {
    /// All reads, sampled or not.
    reads: Weight,
    /// Reads in the sample.
    sampled: u64,
    whole: Counts,
    groups: Vec<Counts>,
}

/// Reads of a sample, each standing for as many as the sample does, and their hits.
struct Counts {
    reads: Weight,
    hits: Histogram,
}

impl Counts {
    fn new(precision: u32) -> Self {
        Self { reads: Weight::default(), hits: Histogram::new(precision) }
    }
}

/// What strata come to.
pub(crate) struct Estimate {
    /// Hits of the whole by the size they need.
    pub(crate) hits: Histogram,
    /// Variance of their number, from each size on.
    pub(crate) variances: Vec<(u64, f64)>,
}

impl Strata {
    pub(crate) fn new() -> Self {
        let class = || Class {
            reads: Weight::default(),
            sampled: 0,
            whole: Counts::new(CLASS_PRECISION),
            groups: (0..GROUPS).map(|_| Counts::new(GROUP_PRECISION)).collect(),
        };
        Self { classes: (0..CLASSES).map(|_| class()).collect() }
    }

    /// Counts a read of the whole.
    #[inline]
    pub(crate) fn read(&mut self, class: usize, one: Weight) {
        self.classes[class].reads.add(one);
    }

    /// Counts a read of the sample, which stands for `weight`.
    #[inline]
    pub(crate) fn sample(&mut self, class: usize, group: usize, weight: Weight) {
        let class = &mut self.classes[class];
        class.sampled += 1;
        class.whole.reads.add(weight);
        class.groups[group].reads.add(weight);
    }

    /// Counts that it hits in caches of at least `from` and smaller than `to`.
    #[inline]
    pub(crate) fn hit(
        &mut self,
        class: usize,
        group: usize,
        (from, to): (u64, u64),
        weight: Weight,
    ) {
        let class = &mut self.classes[class];
        class.whole.hits.count(from, to, weight);
        class.groups[group].hits.count(from, to, weight);
    }

    /// The whole, as far as the sample tells. `rate` is the share of objects in the sample.
    pub(crate) fn estimate(self, rate: f64) -> Estimate {
        let strata = pooled(self.classes);
        let mut hits = Histogram::new(CLASS_PRECISION);
        let last = strata.iter().map(|stratum| stratum.whole.hits.last_bound()).max().unwrap_or(0);
        let grid = Histogram::new(GROUP_PRECISION);
        let bounds: Vec<u64> =
            (1..).map(|number| grid.bound(number)).take_while(|&bound| bound <= last * 2).collect();
        let mut residuals = vec![vec![0.0; bounds.len()]; GROUPS];
        for (index, stratum) in strata.iter().enumerate() {
            let (seen, all) = (stratum.whole.reads, stratum.reads);
            if seen.requests == 0.0 {
                // Nothing is known of them but their number. They count as misses.
                continue;
            }
            // Of the most popular the sample may lack some; those hit.
            let lacks = index == 0 && seen.requests < all.requests;
            let factors = if lacks {
                hits.count(1, u64::MAX, all.minus(seen));
                Weight { requests: 1.0, bytes: 1.0 }
            } else {
                let bytes = if seen.bytes > 0.0 { all.bytes / seen.bytes } else { 1.0 };
                Weight { requests: all.requests / seen.requests, bytes }
            };
            for (bound, change) in stratum.whole.hits.changes() {
                let requests = change.requests * factors.requests;
                hits.restore(bound, Weight { requests, bytes: change.bytes * factors.bytes });
            }
            let hit_ratios: Vec<f64> = stratum
                .whole
                .hits
                .hits_at(&bounds)
                .iter()
                .map(|hits| hits.requests / seen.requests)
                .collect();
            for (residuals, group) in residuals.iter_mut().zip(&stratum.groups) {
                let hits = group.hits.hits_at(&bounds);
                for ((residual, hits), ratio) in residuals.iter_mut().zip(hits).zip(&hit_ratios) {
                    *residual += if lacks {
                        group.reads.requests - hits.requests
                    } else {
                        factors.requests * (ratio * group.reads.requests - hits.requests)
                    };
                }
            }
        }
        let variances = variances(&residuals, rate);
        Estimate { hits, variances: bounds.into_iter().zip(variances).collect() }
    }
}

/// Classes from the most popular to the least, each with enough of the sample to tell its share of misses.
fn pooled(classes: Vec<Class>) -> Vec<Class> {
    let mut strata: Vec<Class> = Vec::new();
    for class in classes {
        match strata.last_mut() {
            Some(last) if !last.suffices() => last.merge(&class),
            _ => strata.push(class),
        }
    }
    // The last may have too little as well.
    if strata.len() > 1
        && strata.last().is_some_and(|last| !last.suffices())
        && let Some(short) = strata.pop()
        && let Some(last) = strata.last_mut()
    {
        last.merge(&short);
    }
    strata
}

impl Class {
    fn suffices(&self) -> bool {
        let groups = self.groups.iter().filter(|group| group.reads.requests > 0.0).count();
        self.sampled >= STRATUM_REQUESTS_MIN && groups >= STRATUM_GROUPS_MIN
    }

    fn merge(&mut self, other: &Self) {
        self.reads.add(other.reads);
        self.sampled += other.sampled;
        self.whole.merge(&other.whole);
        for (group, other) in self.groups.iter_mut().zip(&other.groups) {
            group.merge(other);
        }
    }
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        self.reads.add(other.reads);
        self.hits.merge(&other.hits);
    }
}

/// The variance of the sum of all groups, by bound. The larger the share that was looked at, the less is
/// left to be uncertain of.
fn variances(residuals: &[Vec<f64>], rate: f64) -> Vec<f64> {
    let count = residuals.len() as f64;
    let of_bound = |at: usize| {
        let mean = residuals.iter().map(|group| group[at]).sum::<f64>() / count;
        let squares: f64 = residuals.iter().map(|group| (group[at] - mean).powi(2)).sum();
        squares * count / (count - 1.0) * (1.0 - rate)
    };
    (0..residuals.first().map_or(0, Vec::len)).map(of_bound).collect()
}
