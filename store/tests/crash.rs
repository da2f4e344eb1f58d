//! A kill between any two stores to the arena, simulated: what the next start brings back is right.
//!
//! ```text
//! operation ──▶ stores, in the order in which they were made
//!                 0 ── 1 ── 2 ──╳── 3 ── 4        killed here, perhaps in the middle of a group
//!                               │
//!                               ▼
//!              the bytes as they stood ──▶ Shard::reopen ──▶ compared with before and after
//!                                               ╳            killed as well, and opened again
//! ```
//!
//! - The arena is told apart from the shard by what it lends: whatever was stored while a segment or
//!   the page was lent is one group, and a kill can come before any group, and in any, with some of
//!   its words stored and others not. A processor may not be so unkind; a compiler may.
//! - What the operation in flight touches may be as before it or as after it. Everything else must be
//!   as it was: value, flags, cas, deadline and stale mark, neither lost nor back from the dead. Only
//!   a full shard may have evicted something for it.
//! - Now and then the simulation goes on with what was reopened, so that lives pile up: resumed
//!   segments with remains in their tails, numbers that must not be given twice.
//!
//! `CRASH_SEED` sets the seed, which a failure names, and `CRASH_STEPS` the operations of each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eviction::Kind;
use store::arena::{Arena, SegmentId};
use store::superblock::PAGE_BYTES;
use store::{
    Config, Deadline, Delta, End, Geometry, Invalidation, Key, NewItem, Precondition, PutOutcome,
    Restored, Shard, Timestamp,
};

const START: Timestamp = Timestamp(1_800_000_000_000);
const SEGMENT_BYTES: usize = 8 << 10;
const SEGMENTS: u64 = 40;
const ITEM_BYTES_MAX: u64 = 40_000;
const KEYS: u64 = 30;
/// Of a full shard: their values come to more than it holds.
const KEYS_OF_FULL: u64 = 100;
/// Bytes of a segment's header: the one place where a half-made change shows as damage.
const HEADER_BYTES: usize = 64;
const WORD_BYTES: usize = 4;
/// A cas that a client chooses is at least this, so that it is told from one that was counted.
const OWN_CAS_MIN: u64 = 1 << 50;

/// `SplitMix64` (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Words that were stored while one stretch of the arena was lent: where, and what.
type Group = Vec<(usize, [u8; WORD_BYTES])>;

/// What was stored, in order.
#[derive(Default)]
struct Trace {
    /// The arena's bytes, as far as they are in `groups` or were there before.
    shadow: Vec<u8>,
    groups: Vec<Group>,
    lent: Option<Range<usize>>,
}

/// A page and segments in one vector, and a trace of what is stored there.
///
/// ```text
/// | page, 4 KiB | segment 0 | segment 1 | ... |
/// ```
struct TracedArena {
    bytes: Vec<u8>,
    trace: Arc<Mutex<Trace>>,
    released: Vec<bool>,
    has_room: Arc<AtomicBool>,
}

impl TracedArena {
    fn over(bytes: Vec<u8>, has_room: &Arc<AtomicBool>) -> Self {
        let trace = Trace { shadow: bytes.clone(), ..Trace::default() };
        let segments = (bytes.len() - PAGE_BYTES) / SEGMENT_BYTES;
        Self {
            bytes,
            trace: Arc::new(Mutex::new(trace)),
            released: vec![false; segments],
            has_room: Arc::clone(has_room),
        }
    }

    fn place(segment: SegmentId) -> Range<usize> {
        let from = PAGE_BYTES + segment.0 as usize * SEGMENT_BYTES;
        from..from + SEGMENT_BYTES
    }

    /// What was lent is back: whatever was stored there meanwhile is a group.
    fn settle(&self) -> MutexGuard<'_, Trace> {
        let mut guard = locked(&self.trace);
        let trace = &mut *guard;
        if let Some(lent) = trace.lent.take() {
            let (before, _) = trace.shadow[lent.clone()].as_chunks_mut::<WORD_BYTES>();
            let (after, _) = self.bytes[lent.clone()].as_chunks::<WORD_BYTES>();
            let mut group = Group::new();
            for (at, (before, after)) in before.iter_mut().zip(after).enumerate() {
                if before != after {
                    group.push((lent.start + at * WORD_BYTES, *after));
                    *before = *after;
                }
            }
            if !group.is_empty() {
                trace.groups.push(group);
            }
        }
        guard
    }

    fn lend(&mut self, place: Range<usize>) -> &mut [u8] {
        self.settle().lent = Some(place.clone());
        &mut self.bytes[place]
    }
}

fn locked(trace: &Mutex<Trace>) -> MutexGuard<'_, Trace> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena for TracedArena {
    fn segment_bytes(&self) -> u32 {
        u32::try_from(SEGMENT_BYTES).unwrap()
    }

    /// Asked for by [`Shard::resident_bytes`], which is how the simulation has the trace settled.
    fn segment_count(&self) -> u32 {
        drop(self.settle());
        u32::try_from(self.released.len()).unwrap()
    }

    fn segment(&self, segment: SegmentId) -> &[u8] {
        drop(self.settle());
        &self.bytes[Self::place(segment)]
    }

    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        assert!(!self.released[segment.0 as usize], "{segment:?} was released");
        self.lend(Self::place(segment))
    }

    fn grow(&mut self, _segment_count: u32) {}

    fn release(&mut self, segment: SegmentId) {
        self.lend(Self::place(segment)).fill(0);
        self.released[segment.0 as usize] = true;
    }

    fn reserve(&mut self, segment: SegmentId) -> bool {
        let released = &mut self.released[segment.0 as usize];
        *released &= !self.has_room.load(Ordering::Relaxed);
        !*released
    }

    fn is_blank(&self, segment: SegmentId) -> bool {
        self.released[segment.0 as usize]
    }

    fn page(&self) -> Option<&[u8]> {
        drop(self.settle());
        Some(&self.bytes[..PAGE_BYTES])
    }

    fn page_mut(&mut self) -> Option<&mut [u8]> {
        Some(self.lend(0..PAGE_BYTES))
    }
}

impl Drop for TracedArena {
    fn drop(&mut self) {
        drop(self.settle());
    }
}

/// All that a client can see of an item.
#[derive(Clone, Debug, PartialEq)]
struct View {
    value: Vec<u8>,
    client_flags: u32,
    cas: u64,
    deadline: Deadline,
    stale: bool,
}

/// What is there at some moment.
#[derive(Clone)]
struct State {
    items: BTreeMap<u64, View>,
    flush_at: Option<Timestamp>,
}

impl State {
    /// The item of a key at `now`, if nothing happens until then.
    fn item(&self, key: u64, now: Timestamp) -> Option<&View> {
        let is_flushed = self.flush_at.is_some_and(|at| at <= now);
        self.items.get(&key).filter(|it| !is_flushed && !it.deadline.is_due(now))
    }
}

fn name(key: u64) -> Vec<u8> {
    let mut name = format!("key-{key}").into_bytes();
    name.resize(name.len() + usize::try_from(key % 20).unwrap(), b'.');
    name
}

fn view(shard: &mut Shard, key: u64, now: Timestamp) -> Option<View> {
    shard.peek(&Key::new(&name(key)), now).map(|item| View {
        value: item.value.to_vec(),
        client_flags: item.client_flags,
        cas: item.cas,
        deadline: item.deadline,
        stale: item.stale,
    })
}

/// What kind of cache is killed.
#[derive(Clone, Copy)]
struct Scenario {
    /// Of its values, how many need several records, in percent.
    large_percent: u64,
    /// Whether more is written than the shard holds.
    is_full: bool,
    evicts: bool,
    /// Whether its memory changes, and the file system runs out of room.
    resizes: bool,
    /// Of its writes, how many are given their cas, in percent: all of them in a cluster.
    own_cas_percent: u64,
}

impl Scenario {
    fn keys(self) -> Range<u64> {
        0..if self.is_full { KEYS_OF_FULL } else { KEYS }
    }
}

/// What the simulation came to, for a look at whether it came to anything.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    kills_of_reopening: u64,
    evicted: u64,
    moved_bytes: u64,
}

struct Simulation {
    scenario: Scenario,
    random: Random,
    config: Config,
    shard: Shard,
    trace: Arc<Mutex<Trace>>,
    has_room: Arc<AtomicBool>,
    now: Timestamp,
    flush_at: Option<Timestamp>,
    /// The greatest cas that the shard gave out by counting.
    counted_cas: u64,
    tally: Tally,
}

/// How a try came out of the bytes.
struct Reopened {
    shard: Shard,
    trace: Arc<Mutex<Trace>>,
    restored: Restored,
}

impl Simulation {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let mut random = Random(seed);
        let policy = Kind::ALL[random.index(Kind::ALL.len())];
        let config = Config {
            geometry: geometry(SEGMENTS),
            item_bytes_max: ITEM_BYTES_MAX,
            policy,
            evicts: scenario.evicts,
            protected: store::Protected::NONE,
            shard: 3,
        };
        let has_room = Arc::new(AtomicBool::new(true));
        let bytes = vec![0; PAGE_BYTES + usize::try_from(SEGMENTS).unwrap() * SEGMENT_BYTES];
        let arena = TracedArena::over(bytes, &has_room);
        let trace = Arc::clone(&arena.trace);
        let shard = Shard::with_arena(config, Box::new(arena));
        let (now, flush_at, counted_cas, tally) = (START, None, 0, Tally::default());
        Self { scenario, random, config, shard, trace, has_room, now, flush_at, counted_cas, tally }
    }

    fn state(&mut self) -> State {
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush_at = None;
        }
        let (shard, now, keys) = (&mut self.shard, self.now, self.scenario.keys());
        let items = keys.filter_map(|key| Some((key, view(shard, key, now)?))).collect();
        self.shard.resident_bytes();
        State { items, flush_at: self.flush_at }
    }

    /// One operation, and kills while it is under way.
    fn step(&mut self) {
        let before = self.state();
        let bytes = {
            let mut trace = locked(&self.trace);
            trace.groups.clear();
            trace.shadow.clone()
        };
        let counted_cas = self.counted_cas;
        let moved_bytes = self.shard.counters().moved_bytes;
        let evicted = self.shard.counters().evicted;
        let key = self.random.below(self.scenario.keys().end);
        let operation = self.operate(key);
        self.shard.resident_bytes();
        let groups = std::mem::take(&mut locked(&self.trace).groups);
        let after = self.state();
        let counters = self.shard.counters();
        self.tally.moved_bytes += counters.moved_bytes.saturating_sub(moved_bytes);
        self.tally.evicted += counters.evicted.saturating_sub(evicted);
        let kills = 1 + groups.len().min(24) / 4;
        for _ in 0..kills {
            let kill = Kill { operation, key, before: &before, after: &after, counted_cas };
            let (image, is_torn) = self.killed(&bytes, &groups);
            let reopened = self.survive(&kill, image, is_torn);
            // Whether a flush stands that was in flight is not for a client to know.
            if self.random.one_in(20) && !operation.ends_with("flush") {
                self.counted_cas = counted_cas;
                return self.go_on_with(reopened);
            }
        }
    }

    /// Writes until the shard is full, if it is to be.
    fn fill(&mut self) {
        for _ in 0..if self.scenario.is_full { 2 * KEYS_OF_FULL } else { 0 } {
            let (key, value) = (self.random.below(KEYS_OF_FULL), self.value());
            self.put(key, &value);
        }
    }

    fn go_on_with(&mut self, reopened: Reopened) {
        self.shard = reopened.shard;
        self.trace = reopened.trace;
        // What the client does not know of an operation in flight it may not rely on either.
        let keys = self.scenario.keys();
        let items = keys.filter_map(|key| view(&mut self.shard, key, self.now));
        let counted = items.map(|it| it.cas).filter(|&cas| cas < OWN_CAS_MIN).max();
        self.counted_cas = self.counted_cas.max(counted.unwrap_or(0));
    }

    /// The bytes at some moment while `groups` were stored over `bytes`, and whether a header was half
    /// written then.
    fn killed(&mut self, bytes: &[u8], groups: &[Group]) -> (Vec<u8>, bool) {
        let mut image = bytes.to_vec();
        let whole = self.random.index(groups.len() + 1);
        let mut store = |words: &[(usize, [u8; WORD_BYTES])]| {
            for (at, word) in words {
                image[*at..*at + WORD_BYTES].copy_from_slice(word);
            }
        };
        groups[..whole].iter().for_each(|group| store(group));
        let Some(torn) = groups.get(whole).filter(|_| self.random.one_in(2)) else {
            return (image, false);
        };
        let in_page = torn.iter().all(|(at, _)| *at < PAGE_BYTES);
        if in_page || self.random.one_in(3) {
            // What is stored to the page keeps its order.
            store(&torn[..self.random.index(torn.len() + 1)]);
        } else {
            let likely = 1 + self.random.below(7);
            let stored: Group =
                torn.iter().filter(|_| self.random.below(8) < likely).copied().collect();
            store(&stored);
        }
        let in_header =
            |at: usize| at >= PAGE_BYTES && (at - PAGE_BYTES) % SEGMENT_BYTES < HEADER_BYTES;
        (image, torn.iter().any(|(at, _)| in_header(*at)))
    }

    fn reopen(&self, config: Config, image: Vec<u8>, now: Timestamp) -> Reopened {
        let arena = TracedArena::over(image, &self.has_room);
        let trace = Arc::clone(&arena.trace);
        let (mut shard, restored) = Shard::reopen(config, Box::new(arena), now);
        shard.check();
        // Carries out a flush that came due.
        view(&mut shard, 0, now);
        Reopened { shard, trace, restored }
    }

    /// Opens what a kill has left, once as it is and once more after another kill, and compares.
    fn survive(&mut self, kill: &Kill<'_>, image: Vec<u8>, is_torn: bool) -> Reopened {
        self.tally.kills += 1;
        let mut now = self.now;
        if self.random.one_in(4) {
            now = now.plus_millis(self.random.below(4_000));
        }
        let mut config = self.config;
        // Less fits, perhaps, and the order of writing says what goes.
        let mut may_forget = self.scenario.is_full && kill.operation.starts_with("a change");
        if self.random.one_in(3) {
            // Its columns may take more of the memory.
            config.policy = Kind::ALL[self.random.index(Kind::ALL.len())];
            may_forget |= self.scenario.is_full;
        }
        if self.scenario.resizes && self.random.one_in(3) {
            // The next server was given another amount of memory.
            config.geometry = self.some_geometry();
            may_forget = true;
        }
        let mut reopened = self.reopen(config, image.clone(), now);
        reopened.shard.resident_bytes();
        let groups = std::mem::take(&mut locked(&reopened.trace).groups);
        kill.check(&mut reopened.shard, now, self.scenario, may_forget);
        let dropped = reopened.restored.dropped_records;
        assert!(dropped == 0 || is_torn, "{dropped} records dropped, killed in {}", kill.operation);
        reopened.shard.check();

        self.tally.kills_of_reopening += 1;
        let (image_again, is_torn_again) = self.killed(&image, &groups);
        let mut again = self.reopen(config, image_again.clone(), now);
        kill.check(&mut again.shard, now, self.scenario, may_forget);
        let dropped = again.restored.dropped_records;
        let is_torn = is_torn || is_torn_again;
        assert!(dropped == 0 || is_torn, "{dropped} records dropped, killed twice");

        // The simulation goes on with its own memory, and never goes back in time.
        let image = if now == self.now { image_again } else { image };
        self.reopen(self.config, image, self.now)
    }

    fn some_geometry(&mut self) -> Geometry {
        geometry(SEGMENTS - self.random.below(SEGMENTS / 2))
    }

    fn value(&mut self) -> Vec<u8> {
        let bytes = match self.random.below(100) {
            it if it < self.scenario.large_percent => 450 + self.random.below(12_000),
            it if it % 3 == 0 => 200 + self.random.below(1_200),
            _ => self.random.below(200),
        };
        // A roomy shard is never so full that it must evict.
        let bytes = if self.scenario.is_full { bytes } else { bytes.min(3_000) };
        let first = self.random.next().to_le_bytes();
        (0..bytes).zip(first.into_iter().cycle()).map(|(at, it)| it ^ at.to_le_bytes()[0]).collect()
    }

    fn deadline(&mut self) -> Deadline {
        match self.random.below(3) {
            0 => Deadline::at(self.now.plus_millis(1 + self.random.below(20_000))),
            _ => Deadline::NEVER,
        }
    }

    fn own_cas(&mut self) -> Option<u64> {
        let is_given = self.random.below(100) < self.scenario.own_cas_percent;
        is_given.then(|| OWN_CAS_MIN + self.random.below(1 << 40))
    }

    fn put(&mut self, key: u64, value: &[u8]) {
        let precondition = match self.random.below(8) {
            0 => Precondition::Absent,
            1 => Precondition::Present,
            2 => Precondition::CasOrStale(OWN_CAS_MIN / 2),
            _ => Precondition::None,
        };
        let new = NewItem {
            client_flags: u32::try_from(self.random.below(3)).unwrap() * 0x0101_0101,
            deadline: self.deadline(),
            value: &[value],
            own_cas: self.own_cas(),
        };
        let outcome = self.shard.put(&Key::new(&name(key)), &new, precondition, self.now);
        if let PutOutcome::Stored { cas } = outcome {
            self.count(cas);
        }
    }

    fn count(&mut self, cas: u64) {
        if cas < OWN_CAS_MIN {
            assert!(cas > self.counted_cas, "cas {cas} was given before");
            self.counted_cas = cas;
        }
    }

    /// One operation, most likely on `key`; its name.
    fn operate(&mut self, key: u64) -> &'static str {
        let bytes = name(key);
        let of = Key::new(&bytes);
        match self.random.below(1000) {
            0..420 => {
                let value = self.value();
                self.put(key, &value);
                "a write"
            }
            420..470 => {
                let number = self.random.below(1000).to_string();
                self.put(key, number.as_bytes());
                "a write of a number"
            }
            470..620 => {
                let deadline = if self.random.one_in(3) { Some(self.deadline()) } else { None };
                let own_cas = self.own_cas();
                let delta = Delta::Increment(1 + self.random.below(3));
                let outcome = self.shard.add_delta(&of, delta, deadline, None, own_cas, self.now);
                if let store::DeltaOutcome::Changed { cas, .. } = outcome {
                    self.count(cas);
                }
                "an increment"
            }
            620..690 => {
                let more = self.value();
                let own_cas = self.own_cas();
                let outcome = self.shard.concat(&of, End::Back, &more, None, own_cas, self.now);
                if let PutOutcome::Stored { cas } = outcome {
                    self.count(cas);
                }
                "an append"
            }
            690..780 => {
                let deadline = self.deadline();
                self.shard.touch(&of, deadline, self.now);
                "a touch"
            }
            780..850 => {
                self.shard.delete(&of, None, self.now);
                "a delete"
            }
            850..880 => {
                let change = Invalidation {
                    mark_stale: true,
                    drop_value: self.random.one_in(4),
                    own_cas: self.own_cas(),
                    ..Invalidation::default()
                };
                self.shard.invalidate(&of, None, change, self.now);
                let cas = view(&mut self.shard, key, self.now).map_or(0, |it| it.cas);
                self.counted_cas = self.counted_cas.max(if cas < OWN_CAS_MIN { cas } else { 0 });
                "an invalidation"
            }
            880..920 => {
                self.shard.get(&of, self.now);
                "a read"
            }
            920..950 => {
                self.now = self.now.plus_millis(self.random.below(3_000));
                self.shard.sweep(self.now, 100);
                "a sweep"
            }
            950..953 => {
                let at = self.now.plus_millis(self.random.below(4_000));
                self.shard.flush_all(at, self.now);
                self.flush_at = Some(at);
                "a delayed flush"
            }
            953..956 => {
                self.shard.flush_all(self.now, self.now);
                self.flush_at = None;
                "a flush"
            }
            956..970 => {
                self.config.policy = Kind::ALL[self.random.index(Kind::ALL.len())];
                self.shard.set_policy(self.config.policy, self.now);
                "a change of policy"
            }
            970..985 if self.scenario.resizes => {
                self.config.geometry = self.some_geometry();
                self.shard.set_geometry(self.config.geometry, self.now);
                "a change of memory"
            }
            985..995 if self.scenario.resizes => {
                let has_room = self.random.one_in(2);
                self.has_room.store(has_room, Ordering::Relaxed);
                "another's use of the disk"
            }
            _ => {
                let section = self.shard.save();
                self.shard.resident_bytes();
                let image = locked(&self.trace).shadow.clone();
                let arena = TracedArena::over(image, &self.has_room);
                let trace = Arc::clone(&arena.trace);
                let Ok(shard) = Shard::reopen_from(self.config, Box::new(arena), &section) else {
                    panic!("it cannot go on from its own snapshot")
                };
                (self.shard, self.trace) = (shard, trace);
                "a stop and a start"
            }
        }
    }
}

/// An operation that a kill interrupted.
struct Kill<'a> {
    operation: &'static str,
    key: u64,
    before: &'a State,
    after: &'a State,
    /// The greatest cas given out before it.
    counted_cas: u64,
}

impl Kill<'_> {
    /// Whether `shard`, opened at `now`, has what it must have and nothing else.
    fn check(&self, shard: &mut Shard, now: Timestamp, scenario: Scenario, may_forget: bool) {
        let Self { operation, before, after, .. } = *self;
        let mut counted_cas = self.counted_cas;
        for key in scenario.keys() {
            let is = view(shard, key, now);
            let (was, becomes) = (before.item(key, now), after.item(key, now));
            let is_one = is.as_ref() == was || is.as_ref() == becomes;
            // Evicted, be it to make room for the value that was to replace it.
            let is_evicted = is.is_none()
                && (may_forget || scenario.is_full && (becomes.is_none() || key == self.key));
            assert!(
                is_one || is_evicted,
                "killed in {operation} of {}: key {key} was {}, becomes {}, is {}",
                self.key,
                text(was),
                text(becomes),
                text(is.as_ref()),
            );
            let cas = is.map_or(0, |it| it.cas);
            counted_cas = counted_cas.max(if cas < OWN_CAS_MIN { cas } else { 0 });
        }
        let sequence = shard.sequence();
        assert!(sequence >= counted_cas, "{sequence}, though cas {counted_cas} was given");
        if operation == "a flush" && !scenario.is_full && !may_forget {
            let here = scenario.keys().filter(|&key| view(shard, key, now).is_some()).count();
            let all = scenario.keys().filter(|&key| before.item(key, now).is_some()).count();
            assert!(here == 0 || here == all, "a flush left {here} of {all} items");
        }
    }
}

fn text(view: Option<&View>) -> String {
    let Some(it) = view else { return "absent".into() };
    let View { cas, client_flags, deadline, stale, .. } = it;
    let value = String::from_utf8_lossy(&it.value[..it.value.len().min(12)]).into_owned();
    let len = it.value.len();
    format!("{value:?}, {len} B, cas {cas}, flags {client_flags}, {deadline:?}, stale {stale}")
}

fn geometry(segments: u64) -> Geometry {
    Geometry {
        shard_count: 1,
        shard_bytes: segments * SEGMENT_BYTES as u64,
        segment_bytes: u32::try_from(SEGMENT_BYTES).unwrap(),
    }
}

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs a scenario, and fails with the seed and the step.
fn simulate(scenario: Scenario, steps: u64) -> Tally {
    let seed = variable("CRASH_SEED", 1);
    let steps = variable("CRASH_STEPS", steps);
    let mut simulation = Simulation::new(scenario, seed);
    simulation.fill();
    for step in 0..steps {
        let outcome = catch_unwind(AssertUnwindSafe(|| simulation.step()));
        if let Err(cause) = outcome {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            panic!("CRASH_SEED={seed}, step {step}: {text}");
        }
    }
    simulation.tally
}

const ROOMY: Scenario =
    Scenario { large_percent: 3, is_full: false, evicts: true, resizes: false, own_cas_percent: 8 };

#[test]
fn a_kill_costs_a_shard_with_room_nothing_but_what_was_in_flight() {
    let tally = simulate(ROOMY, 300);
    assert_eq!(tally.evicted, 0, "{tally:?}");
}

#[test]
fn a_kill_costs_a_shard_whose_writes_are_counted_elsewhere_nothing_but_what_was_in_flight() {
    let tally = simulate(Scenario { own_cas_percent: 100, ..ROOMY }, 300);
    assert_eq!(tally.evicted, 0, "{tally:?}");
}

#[test]
fn a_kill_costs_a_full_shard_nothing_but_what_was_in_flight() {
    let scenario = Scenario { large_percent: 60, is_full: true, ..ROOMY };
    let tally = simulate(scenario, 120);
    assert!(tally.evicted > 0 && tally.moved_bytes > 0, "{tally:?}");
}

#[test]
fn a_kill_costs_a_shard_that_may_not_evict_nothing_but_what_was_in_flight() {
    let scenario = Scenario { large_percent: 60, is_full: true, evicts: false, ..ROOMY };
    let tally = simulate(scenario, 120);
    assert!(tally.moved_bytes > 0, "{tally:?}");
}

#[test]
fn a_kill_costs_a_shard_whose_memory_changes_nothing_but_what_was_in_flight() {
    let scenario = Scenario { large_percent: 60, is_full: true, resizes: true, ..ROOMY };
    let tally = simulate(scenario, 120);
    assert!(tally.evicted > 0 && tally.moved_bytes > 0, "{tally:?}");
}

/// A shard over `bytes`, cold or warm, and what is stored there once it is dropped.
struct Bytes(Vec<u8>);

impl Bytes {
    fn blank(segments: usize) -> Self {
        Self(vec![0; PAGE_BYTES + segments * SEGMENT_BYTES])
    }

    fn arena(&self) -> (Box<dyn Arena>, Arc<Mutex<Trace>>) {
        let arena = TracedArena::over(self.0.clone(), &Arc::new(AtomicBool::new(true)));
        let trace = Arc::clone(&arena.trace);
        (Box::new(arena), trace)
    }

    /// Uses a shard, which is killed then.
    fn used_by(
        &mut self,
        open: impl FnOnce(Box<dyn Arena>) -> Shard,
        work: impl FnOnce(&mut Shard),
    ) {
        let (arena, trace) = self.arena();
        let mut shard = open(arena);
        work(&mut shard);
        drop(shard);
        self.0 = locked(&trace).shadow.clone();
    }
}

fn config() -> Config {
    let geometry = geometry(SEGMENTS);
    let policy = Kind::Lru;
    Config {
        geometry,
        item_bytes_max: ITEM_BYTES_MAX,
        policy,
        evicts: true,
        protected: store::Protected::NONE,
        shard: 3,
    }
}

fn reopen(arena: Box<dyn Arena>) -> Shard {
    Shard::reopen(config(), arena, START).0
}

const PLAIN: NewItem<'_> =
    NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[], own_cas: None };

fn set(shard: &mut Shard, key: &[u8]) {
    let new = NewItem { value: &[b"a value"], ..PLAIN };
    let outcome = shard.put(&Key::new(key), &new, Precondition::None, START);
    assert!(matches!(outcome, PutOutcome::Stored { .. }));
}

#[test]
fn an_empty_shard_over_used_segments_is_empty_after_a_kill_as_well() {
    let mut bytes = Bytes::blank(40);
    bytes.used_by(
        |arena| Shard::with_arena(config(), arena),
        |shard| {
            set(shard, b"k1");
            set(shard, b"k2");
        },
    );
    bytes.used_by(|arena| Shard::with_arena(config(), arena), |shard| set(shard, b"k3"));
    bytes.used_by(reopen, |shard| {
        assert!(shard.peek(&Key::new(b"k3"), START).is_some());
        assert!(shard.peek(&Key::new(b"k2"), START).is_none(), "it is of a life before");
    });
}

#[test]
fn numbers_that_were_counted_elsewhere_are_not_given_again_after_a_kill() {
    let mut bytes = Bytes::blank(40);
    bytes.used_by(
        |arena| Shard::with_arena(config(), arena),
        |shard| {
            shard.count_on_after(1_000_000);
        },
    );
    bytes.used_by(reopen, |shard| assert!(shard.sequence() >= 1_000_000));
}

#[test]
fn a_shard_goes_on_from_its_snapshot_with_more_segments_than_it_had() {
    let mut bytes = Bytes::blank(40);
    let mut section = Vec::new();
    bytes.used_by(
        |arena| Shard::with_arena(config(), arena),
        |shard| {
            set(shard, b"k");
            section = shard.save();
        },
    );
    bytes.0.resize(bytes.0.len() + 8 * SEGMENT_BYTES, 0);
    let Ok(mut shard) = Shard::reopen_from(config(), bytes.arena().0, &section) else {
        panic!("the new segments are empty")
    };
    assert!(shard.peek(&Key::new(b"k"), START).is_some());
    shard.set_geometry(geometry(48), START);
    let before = shard.segments().resident;
    for n in 0..20 {
        let new = NewItem { value: &[&[7; 20_000]], ..PLAIN };
        shard.put(&Key::new(&name(n)), &new, Precondition::None, START);
    }
    assert!(shard.segments().resident > before, "the new ones are used");
    shard.check();
    // A segment that the snapshot does not know of cannot be in use.
    let first = PAGE_BYTES..PAGE_BYTES + 8 * SEGMENT_BYTES;
    bytes.0.copy_within(first, PAGE_BYTES + 40 * SEGMENT_BYTES);
    assert!(Shard::reopen_from(config(), bytes.arena().0, &section).is_err());
}
