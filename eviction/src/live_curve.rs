//! `LiveCurve`: the hit ratio of LRU at other sizes, told from traffic as it comes.
//!
//! ```text
//! height of a key, a part of its hash   0 ────────────────────────────────────────────── 2^64
//! sampled is what lies below            |▓▓▓▓|◀── threshold: sinks where there is too much
//! the stack of what is sampled          | oldest ..................... newest |
//! sizes, each weight standing for many  8 × ◀────────── 1 × ◀── ½ × ◀───────── 0
//! ```
//!
//! This is fixed-size SHARDS: C. A. Waldspurger, N. Park, A. Garthwaite, I. Ahmad, "Efficient MRC
//! construction with SHARDS", FAST 2015. Its K(L) is a key's [`height`], its T the threshold, its R the
//! share, its `s_max` is `objects_max`; the correction SHARDS-adj is in [`LiveCurve::points`]. What it
//! keeps is a [`Stack`] of weights in bytes.
//!
//! - **Objects are sampled, not requests.** Whether a key is, its hash says alone, so whoever serves it
//!   needs one comparison to know. The share shrinks when more objects come than may be kept, or more
//!   uses than the owner can take ([`LiveCurve::thin_out`]); it never grows again while what it was taken
//!   from is remembered.
//! - **It is of the present.** Every [`HALF_LIFE_S`] all counts are halved: what happened so long ago
//!   weighs half, and after four times that a sixteenth.
//! - **It is as deep as anybody asks.** What lies deeper in the stack than the largest size of interest is
//!   forgotten, so that the objects kept are those that tell something.
//! - **Writes are told as they were left**: a write moves its object to the top, with the weight and the
//!   deadline it now has. A touch changes the deadline alone. What is deleted, or expired, is in no cache any more, and those that held it
//!   have room. A read of what is not held is a miss at all sizes, and so is one of what was never written:
//!   whether the application writes it then, it will tell.
//! - **What cannot be known is left out.** A hit of an object that was never seen here is of one that was
//!   there before, as after a restart from a file; how deep it lay nobody knows. It is not counted, unless
//!   the stack is as deep as it gets: then it lay deeper than that.

use crate::KeyHash;
use crate::histogram::{Histogram, Weight};
use crate::stack_distance::{Stack, deadline_of};

/// After so many seconds a request weighs half.
pub const HALF_LIFE_S: u32 = 30 * 60;

/// Half the width of a band, in standard errors: wide enough to hold the curve as a whole. For
/// [`GROUPS`] groups Student's t leaves out one point of 6,000 at that; a curve is many points.
pub const BAND_ERRORS: f64 = 5.0;

/// Independent samples, of disjoint objects, that the error is estimated from.
pub const GROUPS: usize = 16;

/// Bounds of a doubling, as powers of two: of the curve, and of the groups.
const PRECISION: u32 = 6;
const GROUP_PRECISION: u32 = 3;

/// Where a key stands, from 0 up: sampled is what stands below the threshold.
///
/// The lower half of the hash comes first: caches are cut into shards by the upper bits.
#[inline]
pub fn height(KeyHash(hash): KeyHash) -> u64 {
    hash.rotate_left(32)
}

/// The group of a sampled key, by bits of its hash that the height begins with last.
fn group(KeyHash(hash): KeyHash) -> usize {
    (hash >> 32) as usize % GROUPS
}

/// What becomes of a live curve's objects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The most objects that are kept.
    pub objects_max: usize,
    /// The largest share of all objects that is sampled, from 0 to 1.
    pub share_max: f64,
    /// The largest cache that anybody asks about, in bytes.
    pub size_max: u64,
}

/// A use of a sampled object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Whose.
    pub key: KeyHash,
    /// What kind of use.
    pub what: What,
}

/// What became of an object. Weights are bytes, deadlines seconds of the clock that
/// [`LiveCurve::end_round`] is told, [`NEVER`](crate::stack_distance::NEVER) of what does not expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was read.
    Hit {
        /// What it weighs.
        weight: u32,
        /// When it expires.
        deadline_s: u32,
    },
    /// It was to be read, and not there.
    Miss,
    /// It was written.
    Write {
        /// What it weighs now.
        weight: u32,
        /// When it expires now.
        deadline_s: u32,
    },
    /// It was given another deadline, and not read.
    Touch {
        /// When it expires now.
        deadline_s: u32,
    },
    /// It was deleted, or was to be.
    Delete,
}

/// A curve under way.
#[derive(Debug)]
pub struct LiveCurve {
    spec: Spec,
    /// Keys below this height are sampled.
    threshold: u64,
    /// What a sampled object stands for.
    factor: f64,
    stack: Stack,
    /// Whether what the stack does not hold is deeper than it, or nowhere.
    is_deep: bool,
    now_s: u32,
    counts: Counts,
}

/// What was counted, halved now and then.
#[derive(Debug)]
struct Counts {
    /// Since when.
    since_s: u32,
    halved_s: u32,
    /// Reads, and their hits, as the cache itself counted them, sampled or not.
    served: Served,
    /// Reads of the sample.
    sampled: f64,
    /// What reads of the sample stand for that nothing is known of.
    left_out: f64,
    hits: Histogram,
    groups: Vec<Group>,
}

/// Reads of one group's objects, each standing for as many as the sample does.
#[derive(Debug)]
struct Group {
    reads: f64,
    hits: Histogram,
}

/// What the cache itself counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served {
    /// Reads.
    pub reads: f64,
    /// Those that found something.
    pub hits: f64,
}

/// What a curve rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    /// Reads that it is of, and their hits, as the cache itself counted them; what is older than
    /// [`HALF_LIFE_S`] weighs half, and so on.
    pub served: Served,
    /// Reads of the sample among them.
    pub sampled: f64,
    /// Objects kept.
    pub objects: usize,
    /// The share of all objects that they are.
    pub share: f64,
    /// When counting began.
    pub since_s: u32,
}

/// The curve at one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The cache's size in bytes.
    pub size: u64,
    /// Hits in reads.
    pub hit_ratio: f64,
    /// Half the width of the band around it.
    pub margin: f64,
}

impl Point {
    /// The band around the hit ratio.
    pub fn band(&self) -> (f64, f64) {
        ((self.hit_ratio - self.margin).max(0.0), (self.hit_ratio + self.margin).min(1.0))
    }
}

impl Counts {
    fn new(since_s: u32) -> Self {
        let group = || Group { reads: 0.0, hits: Histogram::new(GROUP_PRECISION) };
        Self {
            since_s,
            halved_s: since_s,
            served: Served::default(),
            sampled: 0.0,
            left_out: 0.0,
            hits: Histogram::new(PRECISION),
            groups: (0..GROUPS).map(|_| group()).collect(),
        }
    }

    fn halve(&mut self) {
        self.served = Served { reads: self.served.reads / 2.0, hits: self.served.hits / 2.0 };
        self.sampled /= 2.0;
        self.left_out /= 2.0;
        self.hits.halve();
        for group in &mut self.groups {
            group.reads /= 2.0;
            group.hits.halve();
        }
    }
}

impl LiveCurve {
    /// A curve of nothing yet, at `now_s`.
    pub fn new(spec: Spec, now_s: u32) -> Self {
        let threshold = threshold_of(spec.share_max);
        let factor = 1.0 / share_of(threshold);
        Self {
            spec,
            threshold,
            factor,
            stack: Stack::with_capacity(spec.objects_max, factor),
            is_deep: false,
            now_s,
            counts: Counts::new(now_s),
        }
    }

    /// Keys whose [`height`] is below this are sampled; others are of no use here.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Takes a use of an object into account, the oldest first. One that is not sampled any more is passed
    /// over.
    pub fn note(&mut self, used: Use) {
        let Use { key, what } = used;
        if height(key) >= self.threshold {
            return;
        }
        match what {
            What::Hit { weight, deadline_s } => self.read(key, Some((weight, deadline_s))),
            What::Miss => self.read(key, None),
            What::Write { weight, deadline_s } => {
                self.stack.write(key, weight, deadline_of(deadline_s));
                self.bound_objects();
            }
            What::Touch { deadline_s } => {
                self.stack.touch(key, self.now_s, deadline_of(deadline_s));
            }
            What::Delete => self.take_out(key),
        }
    }

    /// Counts a read. `found` is what was found, and until when it is there.
    fn read(&mut self, key: KeyHash, found: Option<(u32, u32)>) {
        let Self { stack, counts, factor, now_s, .. } = self;
        let (factor, now_s) = (*factor, *now_s);
        let last = stack.last_deadline(key).filter(|&last| last > now_s);
        let group = &mut counts.groups[group(key)];
        counts.sampled += 1.0;
        if let Some(deadline_s) = last {
            group.reads += factor;
            let weight = Weight { requests: factor, bytes: 0.0 };
            stack.read(key, 0, now_s, deadline_s, |sizes| {
                counts.hits.count(sizes.from, sizes.to, weight);
                group.hits.count(sizes.from, sizes.to, weight);
            });
            // A read may have given it more time.
            if let Some((_, until_s)) = found.map(|(weight, it)| (weight, deadline_of(it)))
                && until_s != deadline_s
            {
                stack.touch(key, now_s, until_s);
            }
            return;
        }
        if found.is_none() || self.is_deep {
            group.reads += factor;
        } else {
            counts.left_out += factor;
        }
        self.take_out(key);
        if let Some((weight, deadline_s)) = found {
            self.stack.write(key, weight, deadline_of(deadline_s));
            self.bound_objects();
        }
    }

    /// Takes an object out of caches of all sizes.
    fn take_out(&mut self, key: KeyHash) {
        self.stack.delete(key);
        self.stack.forget(key);
    }

    /// Counts what the cache itself counted since the last time, of all objects.
    pub fn serve(&mut self, served: Served) {
        self.counts.served.reads += served.reads;
        self.counts.served.hits += served.hits;
    }

    /// Takes `now_s` for the time, and lets go what is of no use any more. To be called now and then, at
    /// best every second or more often: an object expires at one of these calls.
    pub fn end_round(&mut self, now_s: u32) {
        if now_s != self.now_s {
            self.now_s = now_s;
            self.stack.expire(now_s);
        }
        self.is_deep |= self.stack.truncate(self.spec.size_max);
        self.stack.limit_holes(self.spec.objects_max);
        while now_s.saturating_sub(self.counts.halved_s) >= HALF_LIFE_S {
            self.counts.halved_s += HALF_LIFE_S;
            self.counts.halve();
            if self.counts.sampled < f64::EPSILON {
                // There is nothing left to be halved.
                self.counts.halved_s = now_s;
            }
        }
    }

    /// Samples half as many objects from now on: for an owner that more uses are told of than it can take.
    pub fn thin_out(&mut self) {
        self.lower(self.threshold / 2);
    }

    /// What `is_gone` says yes to is in no cache any more, of whatever size.
    pub fn flush(&mut self, is_gone: impl Fn(KeyHash) -> bool) {
        self.stack.retain(|key| !is_gone(key));
    }

    /// What it takes of memory, in bytes.
    pub fn bytes(&self) -> usize {
        let groups: usize = self.counts.groups.iter().map(|group| group.hits.bytes()).sum();
        size_of::<Self>() + self.stack.bytes() + self.counts.hits.bytes() + groups
    }

    /// Counts anew from now on; what the caches hold is remembered.
    pub fn reset(&mut self) {
        self.counts = Counts::new(self.now_s);
    }

    /// Has the curve end at this size in bytes, and no deeper.
    pub fn set_size_max(&mut self, size_max: u64) {
        // What is deeper than the stack was, may be within it now.
        self.is_deep &= size_max <= self.spec.size_max;
        self.spec.size_max = size_max;
    }

    /// What the curve rests on.
    pub fn basis(&self) -> Basis {
        Basis {
            served: self.counts.served,
            sampled: self.counts.sampled,
            objects: self.stack.len(),
            share: share_of(self.threshold),
            since_s: self.counts.since_s,
        }
    }

    /// The curve at `sizes`, which ascend. Empty where nothing was read.
    pub fn points(&self, sizes: &[u64]) -> Vec<Point> {
        let counts = &self.counts;
        let reads = counts.served.reads - counts.left_out;
        if reads <= 0.0 || counts.sampled == 0.0 {
            return Vec::new();
        }
        // A sample has, by chance, more reads than its share or fewer, mostly because it has a popular
        // object too many or lacks one. Those hit at all sizes of interest: so its misses are taken for
        // those of all, and what is left of all reads for hits.
        let seen: f64 = counts.groups.iter().map(|group| group.reads).sum();
        let variances = self.variances(sizes);
        let errors = counts.hits.size_errors(sizes, self.grain());
        // What never happens in a sample may be true of three parts of as many that it has: J. A. Hanley,
        // A. Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249(13), 1983.
        let unseen = if self.threshold < u64::MAX { 3.0 * self.factor } else { 0.0 };
        let hits = counts.hits.hits_at(sizes);
        let point = |(((&size, hits), variance), error): (((&u64, Weight), f64), f64)| Point {
            size,
            hit_ratio: (1.0 - (seen - hits.requests) / reads).clamp(0.0, 1.0),
            margin: ((BAND_ERRORS * variance.sqrt()).hypot(error) + unseen) / reads,
        };
        sizes.iter().zip(hits).zip(variances).zip(errors).map(point).collect()
    }

    /// The variance of the number of misses at each size, from how much the groups' differ.
    fn variances(&self, sizes: &[u64]) -> Vec<f64> {
        let count = GROUPS as f64;
        let misses: Vec<Vec<f64>> = self
            .counts
            .groups
            .iter()
            .map(|group| {
                group.hits.hits_at(sizes).iter().map(|hits| group.reads - hits.requests).collect()
            })
            .collect();
        let of_size = |at: usize| {
            let mean = misses.iter().map(|group| group[at]).sum::<f64>() / count;
            let squares: f64 = misses.iter().map(|group| (group[at] - mean).powi(2)).sum();
            // The larger the share that is looked at, the less is left to be uncertain of.
            squares * count / (count - 1.0) * (1.0 - share_of(self.threshold))
        };
        (0..sizes.len()).map(of_size).collect()
    }

    /// The variance of a size, by size: how much one object of the stack stands for.
    fn grain(&self) -> f64 {
        let (mut sum, mut squares) = (0.0, 0.0);
        for weight in self.stack.weights().map(f64::from) {
            sum += weight;
            squares += weight * weight;
        }
        if sum > 0.0 { squares / sum * (self.factor - 1.0) } else { 0.0 }
    }

    /// Lowers the threshold if there are too many objects, so that an eighth of them leaves.
    fn bound_objects(&mut self) {
        if self.stack.len() < self.spec.objects_max {
            return;
        }
        let mut heights: Vec<u64> = self.stack.keys().map(height).collect();
        let kept = heights.len() - (heights.len() / 8).max(1);
        let (_, &mut threshold, _) = heights.select_nth_unstable(kept);
        self.lower(threshold);
    }

    fn lower(&mut self, threshold: u64) {
        // Of a share without any objects nothing would ever be told.
        self.threshold = threshold.max(1 << 20);
        self.factor = 1.0 / share_of(self.threshold);
        self.stack.rescale(self.factor);
        let threshold = self.threshold;
        self.stack.retain(|key| height(key) < threshold);
    }
}

/// The share of objects below a threshold.
pub fn share_of(threshold: u64) -> f64 {
    threshold as f64 / (u64::MAX as f64)
}

/// The threshold that a share of the objects lies below.
pub fn threshold_of(share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is from 0 to 1, and the conversion stops at the ends"
    )]
    let threshold = (share * u64::MAX as f64) as u64;
    threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack_distance::NEVER;

    const ALL: Spec = Spec { objects_max: 4096, share_max: 1.0, size_max: 1 << 40 };

    fn key(number: u64) -> KeyHash {
        // The finalizer of SplitMix64, so that keys have hashes as good as real ones.
        let hash = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let hash = (hash ^ hash >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        KeyHash(hash ^ hash >> 31)
    }

    /// A curve, and a look-aside client over a cache without limits.
    struct Client {
        curve: LiveCurve,
        deadline_s: u32,
        weight: u32,
    }

    impl Client {
        fn of(spec: Spec) -> Self {
            Self { curve: LiveCurve::new(spec, 1_000), deadline_s: NEVER, weight: 100 }
        }

        fn read(&mut self, number: u64, is_hit: bool) {
            let (key, weight, deadline_s) = (key(number), self.weight, self.deadline_s);
            let note = |curve: &mut LiveCurve, what| curve.note(Use { key, what });
            if is_hit {
                note(&mut self.curve, What::Hit { weight, deadline_s });
            } else {
                note(&mut self.curve, What::Miss);
                note(&mut self.curve, What::Write { weight, deadline_s });
            }
            self.curve.serve(Served { reads: 1.0, hits: f64::from(is_hit) });
        }

        fn delete(&mut self, number: u64) {
            self.curve.note(Use { key: key(number), what: What::Delete });
        }

        fn ratio(&self, size: u64) -> f64 {
            self.curve.points(&[size])[0].hit_ratio
        }
    }

    /// Round and round over so many objects of 100 bytes.
    fn rounds(client: &mut Client, objects: u64, rounds: u32) {
        for round in 0..rounds {
            (0..objects).for_each(|number| client.read(number, round > 0));
        }
    }

    #[test]
    fn a_loop_hits_where_all_of_it_fits() {
        let mut client = Client::of(ALL);
        rounds(&mut client, 100, 10);
        assert_eq!(client.ratio(9_000), 0.0);
        // At the next bound: sizes are told apart to a part in 64.
        assert_eq!(client.ratio(10_240), 0.9);
        assert_eq!(client.curve.basis().objects, 100);
    }

    #[test]
    fn a_sample_is_bounded_and_tells_of_the_whole() {
        let spec = Spec { objects_max: 1_000, ..ALL };
        let mut client = Client::of(spec);
        rounds(&mut client, 50_000, 5);
        let Basis { objects, share, sampled, .. } = client.curve.basis();
        assert!(objects <= 1_000 && objects > 800, "{objects}");
        assert!((0.015..0.021).contains(&share), "{share}");
        // While all was sampled, all was read; later, four rounds over the sample.
        assert!(sampled < 250_000.0 / 10.0, "{sampled}");
        for (size, want) in [(4_000_000, 0.0), (6_000_000, 0.8)] {
            let point = client.curve.points(&[size])[0];
            assert!((point.hit_ratio - want).abs() < 0.02, "{point:?}");
            assert!((point.hit_ratio - want).abs() <= point.margin, "{point:?}");
        }
    }

    #[test]
    fn what_is_deeper_than_anybody_asks_is_not_kept() {
        let spec = Spec { size_max: 10_000, ..ALL };
        let mut client = Client::of(spec);
        for number in 0..2_000 {
            client.read(number, false);
            client.curve.end_round(1_000);
        }
        assert_eq!(client.curve.basis().objects, 100);
        assert_eq!(client.curve.basis().share, 1.0);
    }

    #[test]
    fn what_was_deleted_or_has_expired_is_a_miss_at_all_sizes() {
        let mut client = Client::of(ALL);
        client.deadline_s = 1_060;
        client.read(1, false);
        client.read(2, false);
        client.read(3, false);
        client.delete(1);
        client.read(1, false);
        client.curve.end_round(1_059);
        client.read(2, true);
        client.curve.end_round(1_060);
        client.read(3, false);
        assert_eq!(client.curve.basis().served.reads, 6.0);
        assert!((client.ratio(1 << 30) - 1.0 / 6.0).abs() < 1e-9);
    }

    #[test]
    fn a_hit_may_give_an_object_more_time() {
        let mut client = Client::of(ALL);
        client.deadline_s = 1_010;
        client.read(1, false);
        client.deadline_s = 1_100;
        client.read(1, true);
        client.curve.end_round(1_050);
        client.read(1, true);
        assert!((client.ratio(1 << 30) - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn after_a_flush_nothing_is_held() {
        let mut client = Client::of(ALL);
        rounds(&mut client, 10, 2);
        client.curve.flush(|_| true);
        assert_eq!(client.curve.basis().objects, 0);
        (0..10).for_each(|number| client.read(number, false));
        assert!((client.ratio(1 << 30) - 10.0 / 30.0).abs() < 1e-9);
    }

    #[test]
    fn hits_of_what_was_there_before_are_left_out_until_the_stack_is_deep() {
        let spec = Spec { size_max: 1_000, ..ALL };
        let mut client = Client::of(spec);
        (0..10).for_each(|number| client.read(number, true));
        assert!(client.curve.points(&[1_000]).is_empty(), "nothing is known");
        (0..10).for_each(|number| client.read(number, true));
        assert_eq!(client.ratio(1_000), 1.0);
        client.read(10, false);
        client.curve.end_round(1_000);
        client.read(0, true);
        // Twelve are told of: ten hits, a miss, and what the stack had to let go.
        assert!((client.ratio(1_000) - 10.0 / 12.0).abs() < 1e-9);
    }

    #[test]
    fn counts_are_halved_so_that_the_present_weighs_more() {
        let mut client = Client::of(ALL);
        rounds(&mut client, 100, 1);
        client.curve.end_round(1_000 + 2 * HALF_LIFE_S);
        assert_eq!(client.curve.basis().served.reads, 25.0);
        (0..75).for_each(|number| client.read(number, true));
        assert!((client.ratio(1 << 30) - 0.75).abs() < 1e-9);
        client.curve.end_round(u32::MAX - 1);
        assert!(client.curve.basis().served.reads < 1e-9);
        client.curve.reset();
        assert_eq!(client.curve.basis().since_s, u32::MAX - 1);
    }

    #[test]
    fn a_thinner_sample_tells_the_same() {
        let mut client = Client::of(ALL);
        rounds(&mut client, 4_000, 5);
        let before = client.ratio(500_000);
        (0..3).for_each(|_| client.curve.thin_out());
        assert_eq!(client.curve.basis().share, 0.125);
        rounds(&mut client, 4_000, 5);
        let after = client.ratio(500_000);
        assert!((before - 0.8).abs() < 1e-9 && (after - 0.9).abs() < 1e-9, "{before}, {after}");
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let spec = Spec { objects_max: 8192, share_max: 1.0, size_max: 8 << 40 };
        let mut client = Client::of(spec);
        for number in 0..300_000_u32 {
            // Ever smaller newcomers in the holes that larger ones left, some that expire, some that stay.
            client.weight = 400_000 - number;
            client.deadline_s = if number % 3 == 0 { 1_000 + number } else { NEVER };
            client.read(number.into(), false);
            if number % 4 != 0 {
                client.delete(number.into());
            }
            if number % 7 == 0 {
                client.read(u64::from(number / 2), true);
            }
            if number % 1024 == 0 {
                client.curve.end_round(1_000 + number / 100);
            }
        }
        assert!(client.curve.basis().objects <= 8192);
        assert!(client.curve.bytes() <= 1 << 20, "{} bytes", client.curve.bytes());
    }

    #[test]
    fn correction_makes_up_for_a_popular_object_that_is_not_sampled() {
        let spec = Spec { share_max: 0.1, ..ALL };
        let mut client = Client::of(spec);
        let unsampled = (0..).find(|&number| height(key(number)) >= client.curve.threshold());
        let popular = unsampled.expect("nine of ten are not sampled");
        client.read(popular, false);
        (0..9_000).for_each(|_| client.read(popular, true));
        (1_000..2_000).for_each(|number| client.read(number, false));
        assert!((client.ratio(1 << 30) - 0.9).abs() < 0.02, "{}", client.ratio(1 << 30));
    }
}
