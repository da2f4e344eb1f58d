//! What is watched while a log is played: `Scout`, which goes ahead and finds what is worth trying, and
//! `Course`, how a cache fares from the beginning of the log to its end.

use eviction::Kind;
use store::record::{Shape, footprint};

use crate::curve::{LruMapper, Spec};
use crate::replay::{Player, Replay, Request, ServerShape, Tally, Unit};
use crate::run::Semantics;
use crate::sampling::miniature::Miniatures;
use crate::sampling::{Part, Sampling, place};

/// Parts that the log's reads are cut into, to see whether the hit ratio still moves.
pub const TENTHS: usize = 10;

/// Objects that the scout looks at, at most; of more it takes a sample.
const SCOUTED_OBJECTS_MAX: usize = 1 << 16;

/// Requests between two looks at how much is resident.
const GLANCE_REQUESTS: u64 = 64;

/// The window that the busiest of is looked for, in seconds.
const WINDOW_S: u32 = 60;

/// Goes ahead: how much there is, how large it is, how busy it gets. Keeps the requests, if they are few.
pub(crate) struct Scout {
    shape: ServerShape,
    policy_bytes: u32,
    mapper: LruMapper,
    kept: Option<Vec<Request>>,
    kept_max: usize,
    weight_max: f64,
    found: Scouted,
    window: (u32, u64),
}

/// What a scout found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scouted {
    /// Requests of any kind.
    pub requests: u64,
    /// Reads.
    pub reads: u64,
    /// Objects, estimated where they are many.
    pub objects: u64,
    /// What they take of a server's memory when they take the most, in bytes; estimated likewise.
    pub weight_bytes: u64,
    /// Reads of objects that are larger than the server takes.
    pub reads_too_large: u64,
    /// The largest object, in bytes as the server's `-I` counts them.
    pub largest_bytes: u64,
    /// The first second of the log, and the last one.
    pub time_s: Option<(u32, u32)>,
    /// Reads in the busiest minute.
    pub busiest: u64,
}

impl Scouted {
    /// Seconds that the log covers; none if it tells no time.
    pub fn duration_s(&self) -> Option<u32> {
        let (first, last) = self.time_s?;
        Some(last - first).filter(|&seconds| seconds > 0)
    }
}

impl Scout {
    /// Of a server of `shape` under the policy whose entries cost the most. Up to `kept_max` requests are
    /// kept.
    pub(crate) fn new(
        shape: ServerShape,
        policies: &[Kind],
        semantics: Semantics,
        kept_max: usize,
    ) -> Self {
        let spec = Spec {
            weighing: Unit::Bytes.into(),
            expiry: semantics.expiry,
            sampling: Sampling::Objects(SCOUTED_OBJECTS_MAX),
            part: Part::WHOLE,
        };
        Self {
            shape,
            policy_bytes: policies.iter().map(|policy| policy.entry_bytes()).max().unwrap_or(0),
            mapper: LruMapper::new(spec),
            kept: Some(Vec::new()),
            kept_max,
            weight_max: 0.0,
            found: Scouted::default(),
            window: (0, 0),
        }
    }

    /// What was found, and the requests if there are few enough.
    pub(crate) fn finish(mut self) -> (Scouted, Option<Vec<Request>>) {
        self.close_window();
        let weight = self.weight_max.max(self.mapper.weight());
        let map = self.mapper.finish();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "weights are no less than 0, and the conversion stops at the ends"
        )]
        let weight_bytes = weight.ceil() as u64;
        (Scouted { objects: map.objects(), weight_bytes, ..self.found }, self.kept)
    }

    fn close_window(&mut self) {
        self.found.busiest = self.found.busiest.max(self.window.1);
    }

    /// Counts a read into the minute it falls in.
    fn count_read(&mut self, request: &Request) {
        self.found.reads += 1;
        let number = request.time_s / WINDOW_S;
        if number != self.window.0 {
            self.close_window();
            self.window = (number, 0);
        }
        self.window.1 += 1;
    }
}

impl Player for Scout {
    fn request(&mut self, request: &Request) {
        let found = &mut self.found;
        found.requests += 1;
        let (first, last) = found.time_s.unwrap_or((request.time_s, request.time_s));
        found.time_s = Some((first.min(request.time_s), last.max(request.time_s)));
        if let Some(kept) = &mut self.kept {
            if kept.len() < self.kept_max {
                kept.push(*request);
            } else {
                self.kept = None;
            }
        }
        let item = Shape {
            expires: request.ttl_s > 0,
            ..Shape::plain(request.key_bytes.into(), request.size_bytes)
        };
        let item_bytes = item.item_bytes();
        let is_taken = item_bytes <= self.shape.item_bytes_max;
        if request.op.is_read() {
            self.count_read(request);
            self.found.reads_too_large += u64::from(!is_taken);
        }
        self.found.largest_bytes = self.found.largest_bytes.max(item_bytes);
        if !is_taken {
            return;
        }
        // How large the parts of large items are depends on a memory that is not chosen yet: a
        // sixteenth part more is no longer chain than any server makes.
        let whole = footprint(item, self.policy_bytes, u32::MAX).weight();
        self.mapper.request(&Request { size_bytes: whole, ..*request });
        if self.found.requests.is_multiple_of(GLANCE_REQUESTS) {
            self.weight_max = self.weight_max.max(self.mapper.weight());
        }
    }
}

/// One cache from the beginning of a log to its end, tenth by tenth; of a sample of the objects only, if
/// there is a threshold.
pub(crate) struct Course {
    replay: Replay,
    threshold: Option<u64>,
    reads: u64,
    reads_total: u64,
    ends: Vec<Tally>,
}

impl Course {
    /// Of a log of `reads_total` reads.
    pub(crate) fn new(replay: Replay, threshold: Option<u64>, reads_total: u64) -> Self {
        Self { replay, threshold, reads: 0, reads_total, ends: Vec::with_capacity(TENTHS) }
    }

    /// The cache.
    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    /// The hit ratio in each tenth of the log; in one without reads that of the one before.
    pub(crate) fn tenths(&self) -> Vec<f64> {
        let mut ends = self.ends.clone();
        ends.resize(TENTHS, self.replay.tally());
        let (mut before, mut ratio) = (Tally::default(), 0.0);
        let ratios = ends.iter().map(|end| {
            let (reads, hits) = (end.requests - before.requests, end.hits - before.hits);
            before = *end;
            if reads > 0 {
                ratio = hits as f64 / reads as f64;
            }
            ratio
        });
        ratios.collect()
    }
}

impl Player for Course {
    #[inline]
    fn request(&mut self, request: &Request) {
        if request.op.is_read() {
            let begun = self.ends.len() as u64 + 1;
            if self.reads * TENTHS as u64 >= begun * self.reads_total {
                self.ends.push(self.replay.tally());
            }
            self.reads += 1;
        }
        let is_seen = match self.threshold {
            None => true,
            Some(threshold) => {
                place(request.key, Part::WHOLE).is_some_and(|place| place.height < threshold)
            }
        };
        if is_seen {
            self.replay.request(request);
        }
    }
}

/// Whatever takes part in a round.
pub(crate) enum Actor {
    /// A cache.
    Course(Box<Course>),
    /// Many caches in miniature, of a sample.
    Miniatures(Box<Miniatures>),
}

impl Player for Actor {
    #[inline]
    fn request(&mut self, request: &Request) {
        match self {
            Self::Course(course) => course.request(request),
            Self::Miniatures(miniatures) => miniatures.request(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Access;

    const SHAPE: ServerShape = ServerShape { threads: 1, item_bytes_max: 1 << 20 };

    fn scouted(accesses: impl IntoIterator<Item = Access>, kept_max: usize) -> (Scouted, usize) {
        let mut scout = Scout::new(SHAPE, &[Kind::Lru], Semantics::default(), kept_max);
        accesses.into_iter().for_each(|access| scout.request(&access.into()));
        let (found, kept) = scout.finish();
        (found, kept.map_or(0, |kept| kept.len()))
    }

    #[test]
    fn a_scout_counts_what_there_is() {
        let (found, kept) = scouted(
            [(60, 1, 100), (61, 2, 2 << 20), (119, 1, 100), (120, 1, 100), (240, 3, 100)]
                .map(|(time_s, id, size)| Access::get(time_s, id, size)),
            5,
        );
        assert_eq!((found.requests, found.reads, found.reads_too_large), (5, 5, 1));
        assert_eq!((found.objects, found.busiest, found.duration_s()), (2, 3, Some(180)));
        assert_eq!(kept, 5);
        // Two of them: 16 + 1 + 100 rounded to 120, a tenth, 8, 16, and 8 of the policy.
        assert_eq!(found.weight_bytes, 2 * (120 + 12 + 32));
        assert!(found.largest_bytes > 2 << 20);
    }

    #[test]
    fn more_requests_than_may_be_kept_are_none() {
        assert_eq!(scouted((0..6).map(|id| Access::get(0, id, 1)), 5).1, 0);
    }

    #[test]
    fn weight_is_that_of_the_fullest_moment() {
        // A hundred objects that live for a second each, one after the other.
        let brief =
            (0..6_400).map(|n| Access { ttl_s: 1, ..Access::get(n, u64::from(n / 64), 100) });
        let (found, _) = scouted(brief, 0);
        assert!(found.weight_bytes < 5_000, "{}", found.weight_bytes);
        assert!(found.weight_bytes > 100, "{}", found.weight_bytes);
    }

    #[test]
    fn a_course_tells_each_tenth() {
        let replay = Replay::new(Kind::Lru, 100, Unit::Objects);
        let mut course = Course::new(replay, None, 100);
        // Ten new objects, then the same ten again and again.
        (0..100).for_each(|n| course.request(&Access::get(0, n % 10, 1).into()));
        let tenths = course.tenths();
        assert_eq!(tenths[0], 0.0);
        assert_eq!(tenths[1..], [1.0; 9]);
    }
}
