//! The hit ratio of LRU at all sizes, in one reading: exactly, or from a sample, with its error.
//!
//! [`LruMapper`] is fed requests and ends as a [`Map`]: hits by the cache size they need. A map is read at
//! any size, saved, and merged with maps of other parts of the same log ([`crate::partial`]).
//!
//! **What is exact.** Counted in objects, a map of the whole log of gets, sets and deletes equals a replay
//! at every size; TTLs ignored or lazy. In bytes it does where objects keep their sizes, nothing is
//! deleted, and the cache is no smaller than the largest object: a cache that is smaller lets that
//! object pass by, which the stack does not know. An object that comes with several sizes has the one
//! it came with first until it is written; a replay has that of its last insertion, which differs from
//! size to size. Where expired objects leave at once, sizes have no stack in common: what a small cache
//! fetched again is there when larger ones have let it expire. A map then frees an object's room when no
//! cache of any size has it fresh. A `touch` without a get, and an `append`, are no use of an object here.
//!
//! So a map knows from which size on it is the curve itself ([`Map::trusted_from`]), and what is drawn
//! below that is replayed, where the log is a file: the curves drawn are exact, at the cost of a replay
//! for each such size. Of a stream, and of parts put together, they are the map's; `docs/sizing.md` says
//! how close it is.
//!
//! **Samples.** What hits at distance `d` in a sample of a share R of the objects hits at `d / R` in the
//! whole ([`crate::sampling`]). What the sample counts is set in relation to what the whole has of
//! requests for objects as popular (`sampling/strata.rs`).
//!
//! **Bands** are [`BAND_ERRORS`] standard errors to both sides, wide enough to hold the curve as a whole
//! and not only nine points of ten. Two errors make them. Which objects are sampled: told from the
//! differences of [`GROUPS`](crate::sampling::GROUPS) samples of disjoint objects. And how far a size is off: in a cache of `n`
//! sampled objects it is a part of 1 / √n, and the band holds what the curve is within
//! [`SIZE_ERRORS`](eviction::histogram::SIZE_ERRORS) times that.

pub mod report;
pub mod run;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use eviction::KeyHash;
pub(crate) use eviction::histogram::{Histogram, Weight};
pub use eviction::live_curve::BAND_ERRORS;
use eviction::stack_distance::{NEVER, Sizes, Stack};

use crate::replay::{Expiry, Player, Request, Unit, Weighing};
use crate::sampling::strata::{Estimate, GROUP_PRECISION, Popularity, Strata};
use crate::sampling::{Part, Place, Sampling, place, rate_of, threshold_of};
use crate::trace::Op;

/// Precision of histograms: sizes up to twice this power of 2 are told apart to the unit.
const OBJECTS_PRECISION: u32 = 16;
const BYTES_PRECISION: u32 = 14;

/// What is mapped, and how closely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// What objects weigh.
    pub weighing: Weighing,
    /// What becomes of expired objects.
    pub expiry: Expiry,
    /// How much of the part is looked at.
    pub sampling: Sampling,
    /// The part of the log's objects that is mapped.
    pub part: Part,
}

/// A log, or a part of it, on its way to a [`Map`].
pub struct LruMapper {
    spec: Spec,
    stack: Stack,
    /// All reads of the part, sampled or not.
    reads: Weight,
    counting: Counting,
    /// When objects expire that are in the stack, where expired ones leave at once.
    deadlines: BinaryHeap<Reverse<(u32, u64)>>,
    /// Weights of objects when they came, and their squares, in sum.
    weights: [f64; 2],
    /// The largest weight there was.
    largest: u32,
    /// Something happened that no stack tells: see [`Map::trusted_from`].
    has_left_stack: bool,
    /// Requests of other parts do not come.
    is_dealt: bool,
}

/// How hits are counted.
enum Counting {
    Exact(Histogram),
    Sampled(Box<Sampled>),
}

struct Sampled {
    strata: Strata,
    popularity: Popularity,
    /// Objects below this are sampled.
    threshold: u64,
    /// What a sampled object stands for within its part.
    factor: f64,
    /// The most objects to be sampled.
    objects_max: usize,
    /// The sampled keys by height, where their number is bounded.
    heights: BinaryHeap<(u64, u64)>,
}

impl LruMapper {
    /// A mapper that has seen nothing yet.
    pub fn new(spec: Spec) -> Self {
        let (rate, objects_max) = match spec.sampling {
            Sampling::Whole => (1.0, None),
            Sampling::Rate(rate) => (rate.clamp(f64::MIN_POSITIVE, 1.0), None),
            Sampling::Objects(objects_max) => (1.0, Some(objects_max)),
        };
        let counting = if rate < 1.0 || objects_max.is_some() {
            Counting::Sampled(Box::new(Sampled {
                strata: Strata::new(),
                popularity: Popularity::new(),
                threshold: threshold_of(rate),
                factor: 1.0 / rate,
                objects_max: objects_max.unwrap_or(usize::MAX),
                heights: BinaryHeap::new(),
            }))
        } else {
            Counting::Exact(Histogram::new(match spec.weighing.unit {
                Unit::Objects => OBJECTS_PRECISION,
                Unit::Bytes => BYTES_PRECISION,
            }))
        };
        Self {
            spec,
            stack: Stack::of_sample(f64::from(spec.part.count) / rate),
            reads: Weight::default(),
            counting,
            deadlines: BinaryHeap::new(),
            weights: [0.0; 2],
            largest: 0,
            has_left_stack: false,
            is_dealt: false,
        }
    }

    /// The same for requests of which somebody else has left out those of other parts, by a hash of the
    /// keys of his own.
    #[must_use]
    pub fn of_dealt(self, is_dealt: bool) -> Self {
        Self { is_dealt, ..self }
    }

    /// What is in the stack weighs now, estimated where objects are sampled.
    pub(crate) fn weight(&self) -> f64 {
        let factor = match &self.counting {
            Counting::Exact(_) => 1.0,
            Counting::Sampled(sampled) => sampled.factor,
        };
        self.stack.weight() as f64 * factor
    }

    /// The map of what was played.
    pub fn finish(self) -> Map {
        let parts = f64::from(self.spec.part.count);
        let (rate, factor, estimate) = match self.counting {
            Counting::Exact(hits) => (1.0, 1.0, Estimate { hits, variances: Vec::new() }),
            Counting::Sampled(sampled) => {
                let rate = rate_of(sampled.threshold);
                (rate, sampled.factor, sampled.strata.estimate(rate))
            }
        };
        let weight = self.stack.weight() as f64 * factor;
        let [sum, squares] = self.weights;
        // What an object of the stack weighs in the mean, if a byte is picked and not an object.
        let mean = if sum > 0.0 { squares / sum } else { 1.0 };
        Map {
            unit: self.spec.weighing.unit,
            parts: vec![self.spec.part],
            rate,
            reads: self.reads,
            objects: self.stack.len() as f64 * factor,
            weight,
            largest: self.largest.into(),
            has_left_stack: self.has_left_stack,
            grain: mean * (parts * factor - 1.0),
            hits: estimate.hits,
            variances: estimate.variances,
        }
    }

    fn deadline_s(&self, request: &Request) -> u32 {
        match (request.ttl_s, self.spec.expiry) {
            (0, _) | (_, Expiry::Ignore) => NEVER,
            (ttl_s, _) => request.time_s.saturating_add(ttl_s),
        }
    }

    /// Lets those go that no cache has fresh any more.
    fn expire(&mut self, now_s: u32) {
        while let Some(&Reverse((deadline_s, key))) = self.deadlines.peek()
            && deadline_s <= now_s
        {
            self.deadlines.pop();
            match self.stack.last_deadline(KeyHash(key)) {
                Some(last) if last <= now_s => self.stack.delete(KeyHash(key)),
                Some(NEVER) | None => {}
                Some(last) => self.deadlines.push(Reverse((last, key))),
            }
        }
    }

    /// Plays a request to the stack, and tells `hits` in which sizes it hits. Returns whether its object
    /// was never seen before.
    #[inline]
    fn play(&mut self, request: &Request, hits: impl FnMut(&mut Counting, Sizes)) -> bool {
        let mut hits = hits;
        let deadline_s = self.deadline_s(request);
        let (key, now_s) = (request.key, request.time_s);
        if self.spec.expiry == Expiry::Eager {
            self.expire(now_s);
            if deadline_s != NEVER {
                // When it leaves depends on when it came, which each size has at another time.
                self.has_left_stack = true;
                if self.stack.last_deadline(key).is_none_or(|last| last == NEVER) {
                    self.deadlines.push(Reverse((deadline_s, key.0)));
                }
            }
        }
        let weight = self.spec.weighing.weight(request);
        self.largest = self.largest.max(weight);
        let Self { stack, counting, .. } = self;
        let is_weighed = self.spec.weighing.unit == Unit::Bytes && request.op.is_write();
        let before = is_weighed.then(|| stack.weight());
        let new = match request.op {
            Op::Get | Op::GetAndTouch if !request.fills && !stack.holds(key) => false,
            Op::Get | Op::GetAndTouch => {
                let new = stack.read(key, weight, now_s, deadline_s, |sizes| hits(counting, sizes));
                if request.op == Op::GetAndTouch {
                    stack.touch(key, now_s, deadline_s);
                }
                new
            }
            Op::Set => stack.write(key, weight, deadline_s),
            Op::Replace | Op::Cas if !stack.holds(key) => false,
            Op::Replace | Op::Cas => stack.write(key, weight, deadline_s),
            Op::Add => stack.read(key, weight, now_s, deadline_s, |_| ()),
            Op::Touch => {
                stack.touch(key, now_s, deadline_s);
                false
            }
            Op::Delete => {
                stack.delete(key);
                false
            }
            Op::Append | Op::Prepend | Op::Incr | Op::Decr => false,
        };
        self.has_left_stack |= match (self.spec.weighing.unit, request.op) {
            (_, Op::Touch | Op::Append | Op::Prepend | Op::Incr | Op::Decr) => stack.holds(key),
            (Unit::Bytes, Op::Delete) => true,
            _ if is_weighed => !new && before != Some(stack.weight()),
            _ => false,
        };
        if new {
            let weight = f64::from(weight);
            self.weights[0] += weight;
            self.weights[1] += weight * weight;
        }
        new
    }

    /// Plays a request if its object is of the sample.
    fn sample(&mut self, request: &Request, Place { group, height }: Place) {
        let Counting::Sampled(sampled) = &mut self.counting else {
            return;
        };
        let one = weight_of(request);
        let mut class = 0;
        if request.op.is_read() {
            class = sampled.popularity.class(request.key);
            sampled.strata.read(class, one);
        }
        if height >= sampled.threshold {
            return;
        }
        let weight = one.times(sampled.factor);
        if request.op.is_read() {
            sampled.strata.sample(class, group, weight);
        }
        let new = self.play(request, |counting, Sizes { from, to }| {
            if let Counting::Sampled(sampled) = counting {
                sampled.strata.hit(class, group, (from, to), weight);
            }
        });
        if new {
            self.bound_sample(height, request.key);
        }
    }

    /// Remembers a new object of the sample, and lowers the threshold if there are too many now.
    fn bound_sample(&mut self, height: u64, key: KeyHash) {
        let Counting::Sampled(sampled) = &mut self.counting else {
            return;
        };
        if sampled.objects_max == usize::MAX {
            return;
        }
        sampled.heights.push((height, key.0));
        if sampled.heights.len() > sampled.objects_max
            && let Some((height, key)) = sampled.heights.pop()
        {
            sampled.threshold = height;
            sampled.factor = 1.0 / rate_of(height);
            self.stack.rescale(f64::from(self.spec.part.count) * sampled.factor);
            self.stack.forget(KeyHash(key));
        }
    }
}

impl Player for LruMapper {
    #[inline]
    fn request(&mut self, request: &Request) {
        let takes_all = self.spec.part == Part::WHOLE || self.is_dealt;
        if takes_all && matches!(self.counting, Counting::Exact(_)) {
            self.count(request);
            return;
        }
        let part = if takes_all { Part::WHOLE } else { self.spec.part };
        let Some(place) = place(request.key, part) else {
            return;
        };
        match self.counting {
            Counting::Exact(_) => self.count(request),
            Counting::Sampled(_) => {
                if request.op.is_read() {
                    self.reads.add(weight_of(request));
                }
                self.sample(request, place);
            }
        }
    }
}

impl LruMapper {
    /// Plays a request where all of them are looked at.
    #[inline]
    fn count(&mut self, request: &Request) {
        let one = weight_of(request);
        if request.op.is_read() {
            self.reads.add(one);
        }
        self.play(request, |counting, Sizes { from, to }| {
            if let Counting::Exact(hits) = counting {
                hits.count(from, to, one);
            }
        });
    }
}

pub(crate) fn weight_of(request: &Request) -> Weight {
    Weight { requests: 1.0, bytes: f64::from(request.size_bytes) }
}

/// Hits of LRU by the cache size they need: of a log, or of parts of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub(crate) unit: Unit,
    /// The parts of the log's objects that are in it.
    pub(crate) parts: Vec<Part>,
    /// The share of objects sampled within the parts.
    pub(crate) rate: f64,
    /// All reads, sampled or not.
    pub(crate) reads: Weight,
    /// Objects there are, estimated where sampled.
    pub(crate) objects: f64,
    /// What they weigh together, likewise.
    pub(crate) weight: f64,
    /// What the largest object weighs, of those looked at.
    pub(crate) largest: u64,
    /// Something happened that no stack tells.
    pub(crate) has_left_stack: bool,
    /// Variance of a size, by size: how much of the whole one object of the stack stands for.
    pub(crate) grain: f64,
    pub(crate) hits: Histogram,
    /// Variance of the number of hits, from each size on.
    pub(crate) variances: Vec<(u64, f64)>,
}

/// A curve at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The cache's size.
    pub cache_size: u64,
    /// Misses in requests.
    pub miss_ratio: f64,
    /// Bytes missed in bytes asked for.
    pub byte_miss_ratio: f64,
    /// Half the width of the band around `miss_ratio`; 0 where it is exact.
    pub margin: f64,
}

impl Point {
    /// The band around the miss ratio.
    pub fn band(&self) -> (f64, f64) {
        ((self.miss_ratio - self.margin).max(0.0), (self.miss_ratio + self.margin).min(1.0))
    }
}

impl Map {
    /// Reads in the log, or in the parts of it that are in the map.
    pub fn requests(&self) -> u64 {
        rounded(self.reads.requests)
    }

    /// Objects there are; an estimate if they were sampled.
    pub fn objects(&self) -> u64 {
        rounded(self.objects)
    }

    /// What all objects weigh together; an estimate if they were sampled. A cache of this size holds
    /// all of them.
    pub fn weight(&self) -> u64 {
        rounded(self.weight).max(1)
    }

    /// The size from which on the map is the curve of LRU, but for what sampling makes of it; beyond all
    /// sizes where something happened that one stack for all of them does not tell: an object expired and
    /// left at once; one was touched, counted or lengthened, which is a use of it only where it is; in
    /// bytes one was deleted, or written with another weight. In bytes besides, some times the largest
    /// object: smaller caches let objects pass by, or have them in other sizes.
    pub fn trusted_from(&self) -> u64 {
        match self.unit {
            _ if self.has_left_stack && self.rate >= 1.0 => u64::MAX,
            Unit::Objects => 0,
            Unit::Bytes => self.largest * LARGEST_OBJECTS,
        }
    }

    /// What sizes count.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The share of objects that was looked at.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Up to `count` sizes from the smallest that is told apart to that in which everything fits, each by
    /// the same factor larger than the one before, and standing where the map is exact.
    pub fn sizes(&self, count: usize) -> Vec<u64> {
        let weight = self.weight.max(1.0);
        let smallest = match self.unit {
            Unit::Objects => 1.0,
            // A cache smaller than its largest object is of no use to anybody.
            Unit::Bytes => (weight / 10_000.0).max(self.largest as f64),
        };
        // Below what a few objects of a sample stand for there is nothing to be told.
        let smallest = smallest.max(self.grain * GRAINS_MIN).clamp(1.0, weight);
        let growth = (weight / smallest).powf(1.0 / count.saturating_sub(1).max(1) as f64);
        let mut sizes: Vec<u64> = (0..count)
            .map(|n| rounded(smallest * growth.powf(n as f64)))
            .map(|size| self.hits.bound_to(size).max(1))
            .collect();
        sizes.push(self.weight());
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The curve at `sizes`, which ascend. Empty without reads.
    pub fn points(&self, sizes: &[u64]) -> Vec<Point> {
        let reads = self.reads;
        if reads.requests == 0.0 {
            return Vec::new();
        }
        let hits = self.hits.hits_at(sizes);
        let errors = self.hits.size_errors(sizes, self.grain);
        // What never happens in a sample may be true of three parts of as many that it has: J. A. Hanley,
        // A. Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249(13), 1983.
        let unseen = if self.rate < 1.0 { 3.0 / self.rate } else { 0.0 };
        let point = |((&cache_size, hits), error): ((&u64, Weight), f64)| {
            let of_sample = BAND_ERRORS * self.variance_at(cache_size).sqrt();
            Point {
                cache_size,
                miss_ratio: (1.0 - hits.requests / reads.requests).clamp(0.0, 1.0),
                byte_miss_ratio: (1.0 - hits.bytes / reads.bytes.max(1.0)).clamp(0.0, 1.0),
                margin: (of_sample.hypot(error) + unseen) / reads.requests,
            }
        };
        sizes.iter().zip(hits).zip(errors).map(point).collect()
    }

    fn variance_at(&self, size: u64) -> f64 {
        let behind = self.variances.partition_point(|&(from, _)| from <= size);
        self.variances.get(behind.saturating_sub(1)).map_or(0.0, |&(_, variance)| variance)
    }

    /// Adds the map of other parts of the same log.
    ///
    /// # Errors
    ///
    /// They are not of the same kind, or hold the same part.
    pub fn merge(&mut self, other: &Self) -> Result<(), MergeError> {
        if self.unit != other.unit {
            return Err(MergeError::Unit);
        }
        if let Some(&part) = other.parts.iter().find(|part| self.parts.contains(part)) {
            return Err(MergeError::Twice(part));
        }
        if self.parts.iter().chain(&other.parts).any(|part| part.count != self.parts[0].count) {
            return Err(MergeError::Cut);
        }
        self.parts.extend(&other.parts);
        self.rate = self.rate.min(other.rate);
        self.reads.add(other.reads);
        self.objects += other.objects;
        self.weight += other.weight;
        self.largest = self.largest.max(other.largest);
        self.has_left_stack |= other.has_left_stack;
        self.hits.merge(&other.hits);
        // Each request's size is told by the stack of its own part: the errors of parts are as good as
        // independent, those within a part are not.
        let (parts, others) =
            ((self.parts.len() - other.parts.len()) as f64, other.parts.len() as f64);
        self.grain = (self.grain * parts + other.grain * others) / (parts + others);
        let grid = Histogram::new(GROUP_PRECISION);
        let last = |map: &Self| map.variances.last().map_or(0, |&(size, _)| size);
        let last = last(self).max(last(other));
        let sizes = (1..).map(|number| grid.bound(number)).take_while(|&size| size <= last);
        self.variances =
            sizes.map(|size| (size, self.variance_at(size) + other.variance_at(size))).collect();
        Ok(())
    }

    /// The parts that are missing.
    pub fn parts_missing(&self) -> u32 {
        let count = self.parts.first().map_or(1, |part| part.count);
        count.saturating_sub(u32::try_from(self.parts.len()).unwrap_or(u32::MAX))
    }
}

/// Largest objects that a cache holds at least where the map of LRU is taken for its curve.
const LARGEST_OBJECTS: u64 = 8;

/// Objects of a sample that the smallest cache on a curve holds.
const GRAINS_MIN: f64 = 8.0;

/// Why two maps are not of the same log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// One counts objects, the other bytes.
    #[error("one counts objects and the other bytes")]
    Unit,
    /// The same part is in both.
    #[error("both hold part {}/{}", .0.index + 1, .0.count)]
    Twice(Part),
    /// They are parts of different numbers.
    #[error("the log was not cut into the same number of parts")]
    Cut,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are no less than 0"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use eviction::Kind;

    use super::*;
    use crate::replay::Replay;
    use crate::trace::{Access, zipf};

    fn zipf_requests(requests: u64, objects: u64) -> Vec<Request> {
        let (alpha, value_bytes, requests_per_s, seed) = (0.9, 100..=2_000, 1_000, 5);
        let spec = zipf::Spec { requests, objects, alpha, value_bytes, requests_per_s, seed };
        zipf::Generator::new(spec).unwrap().map(Request::from).collect()
    }

    /// Gets, some of them with a TTL; now and then a set or a delete.
    fn session_requests() -> Vec<Request> {
        let op = |n: usize| match n % 29 {
            3 | 17 => Op::Set,
            11 => Op::Delete,
            _ => Op::Get,
        };
        let session = |(n, request): (usize, Request)| Request {
            op: op(n),
            ttl_s: [0, 5, 30, 0][(request.key.0 >> 62) as usize],
            ..request
        };
        zipf_requests(60_000, 6_000).into_iter().enumerate().map(session).collect()
    }

    fn spec(unit: Unit, sampling: Sampling) -> Spec {
        Spec { weighing: unit.into(), expiry: Expiry::Lazy, sampling, part: Part::WHOLE }
    }

    fn map(spec: Spec, requests: &[Request]) -> Map {
        let mut mapper = LruMapper::new(spec);
        requests.iter().for_each(|request| mapper.request(request));
        mapper.finish()
    }

    fn replayed(spec: Spec, size: u64, requests: &[Request]) -> f64 {
        let mut replay = Replay::with(Kind::Lru, size, spec.weighing, spec.expiry);
        requests.iter().for_each(|request| replay.request(request));
        replay.tally().miss_ratio().unwrap()
    }

    #[test]
    fn curve_is_that_of_replays_at_every_size() {
        let requests = session_requests();
        for expiry in [Expiry::Ignore, Expiry::Lazy] {
            let spec = Spec { expiry, ..spec(Unit::Objects, Sampling::Whole) };
            let map = map(spec, &requests);
            for point in map.points(&map.sizes(40)) {
                let want = replayed(spec, point.cache_size, &requests);
                assert!((point.miss_ratio - want).abs() < 1e-9, "{point:?}, replayed {want}");
                assert!(point.margin == 0.0);
            }
        }
    }

    #[test]
    fn curve_in_bytes_is_that_of_replays_where_objects_keep_their_sizes() {
        let requests = zipf_requests(60_000, 6_000);
        let spec = spec(Unit::Bytes, Sampling::Whole);
        let map = map(spec, &requests);
        let sizes = map.sizes(40);
        for point in map.points(&sizes).into_iter().filter(|point| point.cache_size >= 2_000) {
            let want = replayed(spec, point.cache_size, &requests);
            assert!((point.miss_ratio - want).abs() < 1e-9, "{point:?}, replayed {want}");
        }
    }

    #[test]
    fn expired_objects_that_leave_at_once_make_room() {
        let requests = session_requests();
        let spec = Spec { expiry: Expiry::Eager, ..spec(Unit::Objects, Sampling::Whole) };
        let map = map(spec, &requests);
        for point in map.points(&map.sizes(20)) {
            let want = replayed(spec, point.cache_size, &requests);
            assert!((point.miss_ratio - want).abs() < 0.01, "{point:?}, replayed {want}");
        }
    }

    #[test]
    fn a_map_knows_where_it_is_no_curve() {
        let (objects, bytes) =
            (spec(Unit::Objects, Sampling::Whole), spec(Unit::Bytes, Sampling::Whole));
        let eager = Spec { expiry: Expiry::Eager, ..objects };
        let get = |id| Request::from(Access::get(0, id, 100));
        let of = |op, id| Request { op, ..get(id) };
        let short = Request { ttl_s: 5, ..get(2) };
        let larger = Request { size_bytes: 200, ..of(Op::Set, 1) };
        for (spec, request, is_curve) in [
            (objects, get(2), true),
            (objects, short, true),
            (eager, get(2), true),
            (eager, short, false),
            (objects, of(Op::Delete, 1), true),
            (bytes, of(Op::Delete, 1), false),
            (bytes, of(Op::Set, 1), true),
            (bytes, larger, false),
            (objects, larger, true),
            (objects, of(Op::Touch, 1), false),
            (objects, of(Op::Touch, 2), true),
            (objects, of(Op::Incr, 1), false),
        ] {
            let map = map(spec, &[get(1), request]);
            assert_eq!(map.trusted_from() < u64::MAX, is_curve, "{spec:?} {request:?}");
        }
    }

    #[test]
    fn band_of_a_sample_holds_the_curve() {
        let requests = zipf_requests(400_000, 100_000);
        for unit in [Unit::Objects, Unit::Bytes] {
            let exact = map(spec(unit, Sampling::Whole), &requests);
            for sampling in [Sampling::Rate(0.05), Sampling::Objects(4_000)] {
                let sampled = map(spec(unit, sampling), &requests);
                assert!(sampled.rate() < 0.1, "{}", sampled.rate());
                let sizes = sampled.sizes(50);
                let (truth, told) = (exact.points(&sizes), sampled.points(&sizes));
                let mut errors = 0.0;
                for (truth, told) in truth.iter().zip(&told) {
                    let error = (truth.miss_ratio - told.miss_ratio).abs();
                    assert!(error <= told.margin, "{truth:?}, told {told:?}");
                    errors += error;
                }
                let error = errors / sizes.len() as f64;
                assert!(error < 0.02, "{unit:?}, {sampling:?}: off by {error} in the mean");
            }
        }
    }

    #[test]
    fn a_sample_of_all_objects_is_no_sample() {
        let requests = zipf_requests(20_000, 1_000);
        let all = map(spec(Unit::Objects, Sampling::Objects(5_000)), &requests);
        let exact = map(spec(Unit::Objects, Sampling::Whole), &requests);
        // Up to here sizes are told apart to the unit.
        let sizes: Vec<u64> = (1..500).collect();
        assert_eq!(all.points(&sizes), exact.points(&sizes));
    }

    #[test]
    fn parts_put_together_are_the_whole() {
        let requests = zipf_requests(200_000, 50_000);
        let exact = map(spec(Unit::Objects, Sampling::Whole), &requests);
        let part = |index| {
            let part = Part { index, count: 4 };
            map(Spec { part, ..spec(Unit::Objects, Sampling::Whole) }, &requests)
        };
        let mut merged = part(0);
        assert_eq!(merged.parts_missing(), 3);
        assert_eq!(merged.merge(&part(0)), Err(MergeError::Twice(Part { index: 0, count: 4 })));
        (1..4).for_each(|index| merged.merge(&part(index)).unwrap());
        assert_eq!(merged.parts_missing(), 0);
        assert_eq!((merged.requests(), merged.objects()), (exact.requests(), exact.objects()));
        let sizes = exact.sizes(30);
        for (truth, told) in exact.points(&sizes).iter().zip(merged.points(&sizes)) {
            let error = (truth.miss_ratio - told.miss_ratio).abs();
            assert!(error <= told.margin.max(1e-9) && error < 0.02, "{truth:?}, told {told:?}");
        }
    }

    #[test]
    fn a_log_of_writes_alone_has_no_curve() {
        let set = Request::from(Access { op: Op::Set, ..Access::get(0, 7, 100) });
        let map = map(spec(Unit::Objects, Sampling::Whole), &[set]);
        assert_eq!((map.requests(), map.points(&[1, 2])), (0, Vec::new()));
    }
}
