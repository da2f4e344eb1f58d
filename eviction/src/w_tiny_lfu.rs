//! W-TinyLFU: a newcomer stays only if it was asked for more often than what would have to leave.
//!
//! G. Einziger, R. Friedman, B. Manes, "`TinyLFU`: a highly efficient cache admission policy", ACM
//! Transactions on Storage 13(4), 2017; how large the window is, from G. Einziger, O. Eytan, R.
//! Friedman, B. Manes, "Adaptive software cache management", Middleware 2018; what is large, from the
//! same, "Lightweight robust size aware cache management", ACM Transactions on Storage 18(3), 2022.
//!
//! ```text
//!                   oldest: candidate          oldest: its rival
//! new ──> window ─────────── ? ──────────> main: probation <──── protected, 80 % of main
//!         1 % at first       │                     └───── read ─────^
//!                            └─> out, unless asked for more often than its rival; the loser leaves
//! ```
//!
//! - How often a key was asked for lately, the sketch (`sketch.rs`) says, for keys that are not
//!   resident too. Reads of an entry in the window are not counted: they belong to the burst in which
//!   it arrived (the *correlated references* of E. O'Neil, P. O'Neil, G. Weikum, SIGMOD 1993).
//! - A candidate that loses is counted once more. Else an entry that is read now and then would stay
//!   ahead of a key that comes back as often and is missed each time.
//! - The window **climbs**: after some requests it is made larger or smaller by a step; if the hit
//!   ratio then rose it goes on that way, else it turns. Steps become shorter until the hit ratio
//!   changes a lot: then the workload has changed.
//! - What is **larger than 1 %** of the capacity, the size of the smallest window, is a candidate at
//!   once, and rivals all that would have to leave for it: it is refused unless it was asked for more
//!   often than they together.

use crate::column::Column;
use crate::list::{Links, List};
use crate::sketch::{Fingerprint, Sketch};
use crate::snapshot::{Reader, Row, Writer, check, pair_from_bytes, pair_to_bytes};
use crate::{Admission, EntryId, KeyHash, Kind, Policy, SnapshotError};

/// W-TinyLFU.
#[derive(Debug)]
pub struct WTinyLfu {
    capacity: u64,
    window_weight_max: u64,
    window: Segment,
    probation: Segment,
    protected: Segment,
    sketch: Sketch,
    climber: Climber,
    incoming: Option<Incoming>,
    len: usize,
    links: Links,
    residents: Column<Resident>,
}

/// Entries from most to least recently used, and what they weigh together.
#[derive(Clone, Copy, Debug)]
struct Segment {
    recency: List,
    weight: u64,
}

/// The segment an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Window,
    Probation,
    Protected,
}

/// What is known of an entry, in 8 bytes: a request finds it all in one cache line.
#[derive(Clone, Copy, Debug)]
struct Resident {
    key: Fingerprint,
    /// The place in the two highest bits, the weight below.
    place_and_weight: u32,
}

/// Bits of a weight.
const WEIGHT_BITS: u32 = 30;
/// What is heavier counts as this, a byte less than 1 GiB, the most that an item may have.
const WEIGHT_MAX: u32 = (1 << WEIGHT_BITS) - 1;

impl Resident {
    fn new(key: Fingerprint, place: Place, weight: u32) -> Self {
        Self { key, place_and_weight: (place as u32) << WEIGHT_BITS | weight.min(WEIGHT_MAX) }
    }

    #[inline]
    fn place(self) -> Place {
        match self.place_and_weight >> WEIGHT_BITS {
            0 => Place::Window,
            1 => Place::Probation,
            _ => Place::Protected,
        }
    }

    #[inline]
    fn weight(self) -> u32 {
        self.place_and_weight & WEIGHT_MAX
    }
}

impl Row<8> for Resident {
    fn to_bytes(self) -> [u8; 8] {
        pair_to_bytes(self.key.0, self.place_and_weight)
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let (key, place_and_weight) = pair_from_bytes(bytes);
        Self { key: Fingerprint(key), place_and_weight }
    }
}

/// What room is being made for.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    key: Fingerprint,
    weight: u32,
}

impl Incoming {
    fn save(&self, to: &mut Writer<'_>) {
        to.u32(self.key.0);
        to.u32(self.weight);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(Self { key: Fingerprint(from.u32()?), weight: from.u32()? })
    }
}

impl WTinyLfu {
    /// An empty cache of `capacity` weight units, with columns reserved for `entries_max` entries.
    pub fn new(capacity: u64, entries_max: usize) -> Self {
        let empty = Segment { recency: List::EMPTY, weight: 0 };
        let mut policy = Self {
            capacity,
            window_weight_max: 0,
            window: empty,
            probation: empty,
            protected: empty,
            sketch: Sketch::with_capacity(entries_max),
            climber: Climber::new(),
            incoming: None,
            len: 0,
            links: Links::with_capacity(entries_max),
            residents: Column::with_capacity(entries_max),
        };
        policy.set_window(WINDOW_SHARE_MIN);
        policy
    }

    /// Makes the window `share` of the capacity; entries move when room is asked for.
    #[expect(clippy::cast_possible_truncation, reason = "a share of a capacity fits where it did")]
    fn set_window(&mut self, share: f64) {
        // Room for one at least, where objects are counted and few.
        self.window_weight_max = ((self.capacity as f64 * share) as u64).max(1);
    }

    fn main_weight(&self) -> u64 {
        self.probation.weight + self.protected.weight
    }

    fn main_weight_max(&self) -> u64 {
        self.capacity.saturating_sub(self.window_weight_max)
    }

    fn is_large(&self, weight: u32) -> bool {
        u64::from(weight) > (self.capacity / 100).max(1)
    }

    fn segment(&mut self, place: Place) -> &mut Segment {
        match place {
            Place::Window => &mut self.window,
            Place::Probation => &mut self.probation,
            Place::Protected => &mut self.protected,
        }
    }

    /// Puts `entry`, which stands nowhere, in `place`.
    fn push(&mut self, entry: EntryId, key: Fingerprint, weight: u32, place: Place) {
        let resident = Resident::new(key, place, weight);
        self.residents.set(entry, resident);
        let mut segment = *self.segment(place);
        segment.recency.push_newest(&mut self.links, entry);
        segment.weight += u64::from(resident.weight());
        *self.segment(place) = segment;
    }

    /// Takes `entry` out of where it stands.
    fn take(&mut self, entry: EntryId) -> Resident {
        let resident = self.residents[entry];
        let mut segment = *self.segment(resident.place());
        segment.recency.remove(&mut self.links, entry);
        segment.weight -= u64::from(resident.weight());
        *self.segment(resident.place()) = segment;
        resident
    }

    fn shift(&mut self, entry: EntryId, place: Place) {
        let resident = self.take(entry);
        self.push(entry, resident.key, resident.weight(), place);
    }

    /// Moves the oldest of `protected` to `probation`.
    fn demote(&mut self) -> Option<EntryId> {
        let entry = self.protected.recency.oldest()?;
        self.shift(entry, Place::Probation);
        Some(entry)
    }

    fn use_again(&mut self, entry: EntryId) {
        let resident = self.residents[entry];
        match resident.place() {
            Place::Window => return self.window.recency.renew(&mut self.links, entry),
            Place::Probation => self.shift(entry, Place::Protected),
            Place::Protected => self.protected.recency.renew(&mut self.links, entry),
        }
        self.sketch.increment(resident.key);
        while self.protected.weight > self.main_weight_max() / 5 * 4 {
            self.demote();
        }
    }

    /// Whether `candidate`, the oldest of the window, was asked for more often than the entry of the
    /// main segments that would leave for it.
    fn beats_its_rival(&mut self, candidate: EntryId) -> bool {
        let rival = self.probation.recency.oldest().or_else(|| self.demote());
        rival.is_none_or(|rival| {
            let asked = |entry: EntryId| self.sketch.estimate(self.residents[entry].key);
            asked(candidate) > asked(rival)
        })
    }

    /// Whether a large newcomer was asked for more often than all that would leave for it together.
    fn beats_all_rivals(&mut self, key: Fingerprint, weight: u32) -> bool {
        let asked = self.sketch.estimate(key);
        let needed =
            (self.main_weight() + u64::from(weight)).saturating_sub(self.main_weight_max());
        let (mut freed, mut rivals_asked) = (0, 0);
        let mut next = self.probation.recency.oldest();
        while freed < needed {
            let Some(rival) = next.or_else(|| self.demote()) else { break };
            rivals_asked += self.sketch.estimate(self.residents[rival].key);
            // At most 15 steps: a rival in the main segments was asked for at least once.
            if rivals_asked >= asked {
                return false;
            }
            freed += u64::from(self.residents[rival].weight());
            next = List::newer(&self.links, rival);
        }
        true
    }

    fn count_request(&mut self, hit: bool) {
        if let Some(window_share) = self.climber.count(hit, self.len) {
            self.set_window(window_share);
        }
    }
}

impl Policy for WTinyLfu {
    fn before_insert(&mut self, key: KeyHash, weight: u32) -> Admission {
        let key = Fingerprint::of(key);
        self.sketch.increment(key);
        self.count_request(false);
        self.incoming = Some(Incoming { key, weight });
        if self.is_large(weight) && !self.beats_all_rivals(key, weight) {
            return Admission::Refuse;
        }
        Admission::Insert
    }

    fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32) {
        let key = Fingerprint::of(key);
        if self.incoming.take().is_none_or(|incoming| incoming.key != key) {
            self.sketch.increment(key);
        }
        let place = if self.is_large(weight) { Place::Probation } else { Place::Window };
        self.push(entry, key, weight, place);
        self.len += 1;
        self.sketch.fit(self.len);
    }

    fn on_hit(&mut self, entry: EntryId) {
        self.count_request(true);
        self.use_again(entry);
    }

    fn hit_addresses(&self, entry: EntryId) -> [*const u8; 2] {
        [self.residents.address(entry), self.links.address(entry)]
    }

    fn insert_address(&self, key: KeyHash) -> *const u8 {
        self.sketch.address(Fingerprint::of(key))
    }

    fn on_update(&mut self, entry: EntryId, weight: u32) {
        let resident = self.take(entry);
        self.push(entry, resident.key, weight, resident.place());
        self.use_again(entry);
    }

    fn on_remove(&mut self, entry: EntryId) {
        self.take(entry);
        self.len -= 1;
    }

    fn evict(&mut self) -> Option<EntryId> {
        let (to_window, to_main) = match self.incoming {
            Some(Incoming { weight, .. }) if self.is_large(weight) => (0, u64::from(weight)),
            Some(Incoming { weight, .. }) => (u64::from(weight), 0),
            None => (0, 0),
        };
        // Ends: each step but the last moves an entry out of the window.
        let victim = loop {
            let candidate = self.window.recency.oldest();
            let window_overfull = self.window.weight + to_window > self.window_weight_max;
            let main_room = self.main_weight_max().checked_sub(self.main_weight() + to_main);
            let (Some(candidate), Some(main_room), true) = (candidate, main_room, window_overfull)
            else {
                let main =
                    self.probation.recency.oldest().or_else(|| self.protected.recency.oldest());
                break main.or(candidate)?;
            };
            let fits = u64::from(self.residents[candidate].weight()) <= main_room;
            if fits || self.beats_its_rival(candidate) {
                self.shift(candidate, Place::Probation);
            } else {
                self.sketch.increment(self.residents[candidate].key);
                break candidate;
            }
        };
        self.take(victim);
        self.len -= 1;
        Some(victim)
    }

    fn save(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to, Kind::WTinyLfu);
        to.u64(self.capacity);
        self.climber.save(&mut to);
        to.option(self.incoming.as_ref(), Incoming::save);
        self.sketch.save(&mut to);
        self.window.recency.save(&mut to);
        self.probation.recency.save(&mut to);
        self.protected.recency.save(&mut to);
        self.links.save(&mut to);
        self.residents.save(&mut to);
    }

    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut from = Reader::new(from, Kind::WTinyLfu)?;
        from.capacity(self.capacity)?;
        self.climber = Climber::load(&mut from)?;
        self.set_window(self.climber.window_share);
        self.incoming = from.option(Incoming::load)?;
        self.sketch.load(&mut from)?;
        let lists = [List::load(&mut from)?, List::load(&mut from)?, List::load(&mut from)?];
        let rows = self.links.load(&mut from)?;
        self.residents.load(rows, &mut from)?;
        from.finish()?;

        // Apart from keys and weights: eight times as many in a cache line.
        let places: Vec<u8> = self.residents.rows().iter().map(|row| row.place() as u8).collect();
        self.links.check(lists, |entry| places[entry.index()].into())?;
        let mut segments = lists.map(|recency| Segment { recency, weight: 0 });
        for entry in self.links.entries() {
            let resident = self.residents[entry];
            segments[resident.place() as usize].weight += u64::from(resident.weight());
        }
        [self.window, self.probation, self.protected] = segments;
        self.len = self.links.standing();
        check(self.len as u64 <= self.sketch.residents(), "length of the sketch")
    }

    fn holds_exactly(&self, residents: &mut dyn Iterator<Item = EntryId>) -> bool {
        self.links.hold_exactly(residents)
    }
}

/// The smallest window, and the first, as a share of the capacity.
const WINDOW_SHARE_MIN: f64 = 0.01;
/// The largest window, as a share of the capacity.
const WINDOW_SHARE_MAX: f64 = 0.8;
/// The first step, as a share of the capacity.
const STEP: f64 = 0.1;
/// A step is this much shorter than the one before.
const STEP_DECAY: f64 = 0.98;
/// A change of the hit ratio that tells of another workload.
const RESTART: f64 = 0.05;
/// Requests between steps, for each resident.
const PERIOD: usize = 5;
/// Requests between steps, at least.
const PERIOD_MIN: usize = 1_000;

/// Finds the share of the window by hill climbing.
#[derive(Debug)]
struct Climber {
    window_share: f64,
    /// The next change of the share.
    step: f64,
    hits: usize,
    requests: usize,
    /// Of the last period.
    hit_ratio: f64,
}

impl Climber {
    fn new() -> Self {
        Self { window_share: WINDOW_SHARE_MIN, step: STEP, hits: 0, requests: 0, hit_ratio: 0.0 }
    }

    fn save(&self, to: &mut Writer<'_>) {
        to.f64(self.window_share);
        to.f64(self.step);
        to.f64(self.hit_ratio);
        to.count(self.hits);
        to.count(self.requests);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (window_share, step, hit_ratio) = (from.f64()?, from.f64()?, from.f64()?);
        let (hits, requests) = (from.count()?, from.count()?);
        check(
            (WINDOW_SHARE_MIN..=WINDOW_SHARE_MAX).contains(&window_share),
            "share of the window",
        )?;
        check((-STEP..=STEP).contains(&step), "step of the window")?;
        check((0.0..=1.0).contains(&hit_ratio), "hit ratio")?;
        // They are set back at the end of a period, so this is far beyond any.
        check(hits <= requests && requests <= usize::MAX / 2, "number of requests")?;
        Ok(Self { window_share, step, hits, requests, hit_ratio })
    }

    /// Counts a request; at the end of a period says what share the window should have.
    #[inline]
    fn count(&mut self, hit: bool, residents: usize) -> Option<f64> {
        self.requests += 1;
        self.hits += usize::from(hit);
        if self.requests < (residents * PERIOD).max(PERIOD_MIN) {
            return None;
        }
        Some(self.climb())
    }

    #[cold]
    fn climb(&mut self) -> f64 {
        let hit_ratio = self.hits as f64 / self.requests as f64;
        let change = hit_ratio - self.hit_ratio;
        let step = if change < 0.0 { -self.step } else { self.step };
        self.window_share = (self.window_share + step).clamp(WINDOW_SHARE_MIN, WINDOW_SHARE_MAX);
        self.step = if change.abs() >= RESTART { STEP.copysign(step) } else { step * STEP_DECAY };
        self.hit_ratio = hit_ratio;
        self.hits = 0;
        self.requests = 0;
        self.window_share
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::{assert_same_victims, never_restarted, ops};

    /// The three segments, least recently used first. Sketch and climber have tests of their own.
    struct Model {
        capacity: u64,
        window: Vec<Item>,
        probation: Vec<Item>,
        protected: Vec<Item>,
        sketch: Sketch,
        incoming: Option<(Fingerprint, u32)>,
    }

    #[derive(Clone, Copy)]
    struct Item {
        entry: EntryId,
        key: Fingerprint,
        weight: u32,
    }

    fn weight_of(segment: &[Item]) -> u64 {
        segment.iter().map(|resident| u64::from(resident.weight)).sum()
    }

    fn position(segment: &[Item], entry: EntryId) -> Option<usize> {
        segment.iter().position(|resident| resident.entry == entry)
    }

    impl Model {
        fn new(capacity: u64) -> Self {
            Self {
                capacity,
                window: Vec::new(),
                probation: Vec::new(),
                protected: Vec::new(),
                sketch: Sketch::with_capacity(0),
                incoming: None,
            }
        }

        fn window_max(&self) -> u64 {
            (self.capacity / 100).max(1)
        }

        fn main_max(&self) -> u64 {
            self.capacity - self.window_max()
        }

        fn main_weight(&self) -> u64 {
            weight_of(&self.probation) + weight_of(&self.protected)
        }

        fn use_again(&mut self, entry: EntryId, weight: Option<u32>) {
            let in_window = position(&self.window, entry).is_some();
            let segments = [&mut self.window, &mut self.probation, &mut self.protected];
            let mut found = segments.into_iter().filter_map(|segment| {
                position(segment, entry).map(|position| segment.remove(position))
            });
            let mut resident = found.next().unwrap();
            drop(found);
            resident.weight = weight.unwrap_or(resident.weight);
            if in_window {
                self.window.push(resident);
                return;
            }
            self.sketch.increment(resident.key);
            self.protected.push(resident);
            while weight_of(&self.protected) > self.main_max() / 5 * 4 {
                let oldest = self.protected.remove(0);
                self.probation.push(oldest);
            }
        }
    }

    impl Policy for Model {
        fn before_insert(&mut self, key: KeyHash, weight: u32) -> Admission {
            let key = Fingerprint::of(key);
            self.sketch.increment(key);
            self.incoming = Some((key, weight));
            if u64::from(weight) <= self.window_max() {
                return Admission::Insert;
            }
            let asked = self.sketch.estimate(key);
            let (mut rivals, mut at) = (0, 0);
            let mut needed = self.main_weight() + u64::from(weight);
            while needed > self.main_max() {
                if at == self.probation.len() {
                    if self.protected.is_empty() {
                        break;
                    }
                    let oldest = self.protected.remove(0);
                    self.probation.push(oldest);
                }
                rivals += self.sketch.estimate(self.probation[at].key);
                if rivals >= asked {
                    return Admission::Refuse;
                }
                needed -= u64::from(self.probation[at].weight);
                at += 1;
            }
            Admission::Insert
        }

        fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32) {
            let key = Fingerprint::of(key);
            if self.incoming.take().is_none_or(|incoming| incoming.0 != key) {
                self.sketch.increment(key);
            }
            let large = u64::from(weight) > self.window_max();
            let segment = if large { &mut self.probation } else { &mut self.window };
            segment.push(Item { entry, key, weight });
            self.sketch.fit(self.window.len() + self.probation.len() + self.protected.len());
        }

        fn on_hit(&mut self, entry: EntryId) {
            self.use_again(entry, None);
        }

        fn on_update(&mut self, entry: EntryId, weight: u32) {
            self.use_again(entry, Some(weight));
        }

        fn on_remove(&mut self, entry: EntryId) {
            for segment in [&mut self.window, &mut self.probation, &mut self.protected] {
                segment.retain(|resident| resident.entry != entry);
            }
        }

        fn evict(&mut self) -> Option<EntryId> {
            let incoming = self.incoming.map_or(0, |incoming| u64::from(incoming.1));
            let large = incoming > self.window_max();
            let (to_window, to_main) = if large { (0, incoming) } else { (incoming, 0) };
            loop {
                let window_full = weight_of(&self.window) + to_window > self.window_max();
                let main_full = self.main_weight() + to_main > self.main_max();
                if !window_full || main_full || self.window.is_empty() {
                    let mut segments =
                        [&mut self.probation, &mut self.protected, &mut self.window].into_iter();
                    let segment = segments.find(|segment| !segment.is_empty())?;
                    return Some(segment.remove(0).entry);
                }
                let candidate = self.window[0];
                let weight = u64::from(candidate.weight);
                if self.main_weight() + to_main + weight > self.main_max() {
                    if self.probation.is_empty() && !self.protected.is_empty() {
                        let oldest = self.protected.remove(0);
                        self.probation.push(oldest);
                    }
                    if let Some(rival) = self.probation.first()
                        && self.sketch.estimate(candidate.key) <= self.sketch.estimate(rival.key)
                    {
                        self.sketch.increment(candidate.key);
                        return Some(self.window.remove(0).entry);
                    }
                }
                self.window.remove(0);
                self.probation.push(candidate);
            }
        }

        never_restarted!();
    }

    proptest! {
        #[test]
        fn victims_are_those_of_three_vectors(ops in ops(60, 1), capacity in 1..40_u64) {
            let policy = WTinyLfu::new(capacity, 0);
            assert_same_victims(policy, Model::new(capacity), capacity, &ops)?;
        }

        #[test]
        fn so_they_are_with_weights(ops in ops(60, 9), capacity in 1..900_u64) {
            let policy = WTinyLfu::new(capacity, 0);
            assert_same_victims(policy, Model::new(capacity), capacity, &ops)?;
        }
    }

    /// Shares of the window after each of `periods` periods, whose hit ratio `hit_ratio` tells.
    fn climb(periods: usize, hit_ratio: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut climber = Climber::new();
        let mut shares = Vec::new();
        for _ in 0..periods {
            let hit_ratio = hit_ratio(climber.window_share);
            for request in 0..1_000_u16 {
                shares.extend(climber.count(f64::from(request) < hit_ratio * 1000.0, 0));
            }
        }
        shares
    }

    #[test]
    fn the_window_grows_where_that_helps() {
        let shares = climb(12, |share| share / 2.0);
        assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]), "{shares:?}");
        assert!(shares.last().is_some_and(|share| *share > 0.7), "{shares:?}");
    }

    #[test]
    fn the_window_stays_small_where_that_helps() {
        let shares = climb(40, |share| 0.8 - share / 2.0);
        let mean = shares[20..].iter().sum::<f64>() / 20.0;
        assert!(mean < 0.15, "{shares:?}");
    }

    #[test]
    fn a_large_newcomer_must_beat_all_it_would_push_out() {
        let mut cache = WTinyLfu::new(1_000, 0);
        for key in 0..100 {
            cache.before_insert(crate::contract::hash_of(key), 10);
            cache.on_insert(
                EntryId(u32::try_from(key).unwrap()),
                crate::contract::hash_of(key),
                10,
            );
        }
        cache.evict();
        let large = crate::contract::hash_of(1_000);
        assert_eq!(cache.before_insert(large, 50), Admission::Refuse);
        for _ in 0..10 {
            cache.before_insert(large, 50);
        }
        assert_eq!(cache.before_insert(large, 50), Admission::Insert);
    }
}
