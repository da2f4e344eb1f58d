//! Damage done to every part of a cache file, one piece at a time: what comes back is right or gone.
//!
//! ```text
//! shard, full of every kind of record ──▶ bytes ──damage──▶ shard again ──▶ compared with the first
//!                                           ▲                                    │
//!                                           └──────── put right again ◀──────────┘
//! ```
//!
//! - The bytes stand in memory, behind an arena that hands them back, so a try costs about as much as
//!   walking the segments. Cutting and the superblock are tried on a file.
//! - Each damage is tried twice: after a kill, when the segments are all there is, and after an
//!   orderly stop, when there is a snapshot too.
//! - One wrong bit in a header costs nothing; in a record it costs that record's item at most.
//!
//! CI tries every bit of the headers of a small cache and `DAMAGE_FLIPS` elsewhere (20,000 unless
//! named). The ignored tests, which `cargo xtask soak` runs, do the same to a cache of 4 MiB, a
//! million times. A failure names the bit and the seed; `DAMAGE_SEED` sets the seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use eviction::Kind;
use store::arena::{Arena, CacheFile, Existing, OpenError, SegmentId};
use store::superblock::{PAGE_BYTES, PolicyName, SUPERBLOCK_BYTES, Superblock};
use store::{
    Config, Deadline, Delta, End, Geometry, Invalidation, Key, NewItem, Precondition, PutOutcome,
    Restored, Shard, Timestamp,
};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// When the cache was in use, and when it is opened again: some lifetimes end in between.
const USED: Timestamp = Timestamp(1_800_000_000_000);
const OPENED: Timestamp = Timestamp(USED.0 + 3_600_000);
const ITEM_BYTES_MAX: u64 = 64 * KIB;
/// Bytes of a segment's header. What they mean is the store's; only how they fare is tested here.
const HEADER_BYTES: usize = 64;
/// Of so many tries one is followed by a second opening, and by a look at all books.
const TRIES_PER_SECOND_LOOK: u64 = 61;

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

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A page and segments in one vector, which goes back to its lender when the shard is done with it.
///
/// ```text
/// | page, 4 KiB | segment 0 | segment 1 | ... |
/// ```
struct LentArena {
    bytes: Vec<u8>,
    segment_bytes: usize,
    lender: Arc<Mutex<Vec<u8>>>,
}

impl LentArena {
    fn place(&self, segment: SegmentId) -> std::ops::Range<usize> {
        let from = PAGE_BYTES + segment.0 as usize * self.segment_bytes;
        from..from + self.segment_bytes
    }
}

impl Arena for LentArena {
    fn segment_bytes(&self) -> u32 {
        u32::try_from(self.segment_bytes).unwrap()
    }

    fn segment_count(&self) -> u32 {
        u32::try_from((self.bytes.len() - PAGE_BYTES) / self.segment_bytes).unwrap()
    }

    fn segment(&self, segment: SegmentId) -> &[u8] {
        &self.bytes[self.place(segment)]
    }

    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        let place = self.place(segment);
        &mut self.bytes[place]
    }

    fn grow(&mut self, _segment_count: u32) {}

    fn release(&mut self, segment: SegmentId) {
        self.segment_mut(segment).fill(0);
    }

    fn page(&self) -> Option<&[u8]> {
        Some(&self.bytes[..PAGE_BYTES])
    }

    fn page_mut(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.bytes[..PAGE_BYTES])
    }
}

impl Drop for LentArena {
    fn drop(&mut self) {
        if let Ok(mut lender) = self.lender.lock() {
            *lender = std::mem::take(&mut self.bytes);
        }
    }
}

/// An item as it must come back, if it does.
#[derive(Debug, PartialEq)]
struct Kept {
    value: Vec<u8>,
    client_flags: u32,
    deadline: Deadline,
    cas: u64,
    stale: bool,
}

/// How a shard was left.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Closing {
    Killed,
    Stopped,
}

/// A shard that was in use, as its process left it.
struct Left {
    config: Config,
    /// Page and segments.
    bytes: Vec<u8>,
    /// What an orderly stop saved.
    section: Vec<u8>,
    /// Every key that was ever in use, and what is there.
    kept: BTreeMap<Vec<u8>, Option<Kept>>,
    items: usize,
    /// No cas that the shard gave out is greater.
    last_cas: u64,
    /// The keys with a record in each segment: those that are lost with it.
    homes: Vec<BTreeSet<Vec<u8>>>,
    /// Segments in which an item was lost that was not counted: the two open ones at most.
    uncounted: Mutex<BTreeSet<usize>>,
}

fn config(shard_bytes: u64) -> Config {
    let segment_bytes = (shard_bytes / 128).clamp(16 * KIB, MIB).try_into().unwrap();
    Config {
        geometry: Geometry { shard_count: 1, shard_bytes, segment_bytes },
        item_bytes_max: ITEM_BYTES_MAX,
        policy: Kind::Lru,
        evicts: true,
        protected: store::Protected::NONE,
        shard: 0,
    }
}

fn key_of(number: u64) -> Vec<u8> {
    let mut key = format!("key-{number}-").into_bytes();
    key.resize(key.len() + usize::try_from(number % 40).unwrap(), b'.');
    key
}

/// Uses a shard in every way, until records of every kind stand in it and it was full for a while:
/// moved ones, dead ones, overwritten ones, large ones in parts, counters, free segments.
fn use_shard(shard: &mut Shard, key_count: u64, random: &mut Random) -> u64 {
    let hours = |count: u64| Deadline::at(USED.plus_millis(count * 3_600_000));
    // In `OPENED`, an hour later, half of the first kind is over.
    let lifetime = |random: &mut Random| match random.below(8) {
        0 => Deadline::at(USED.plus_millis(60_000 * (1 + random.below(120)))),
        1..3 => hours(24),
        _ => Deadline::NEVER,
    };
    for step in 0..key_count * 4 {
        let number = random.below(key_count);
        let name = key_of(number);
        let key = Key::new(&name);
        match random.below(100) {
            0..55 => {
                let bytes = match random.below(200) {
                    0..2 => random.below(ITEM_BYTES_MAX / 2),
                    2..30 => random.below(8 * KIB),
                    30..110 => random.below(1_500),
                    _ => random.below(150),
                };
                let value = random.bytes(bytes);
                let flags = random.next().to_le_bytes();
                let new = NewItem {
                    client_flags: if step % 2 == 0 { 0 } else { u32::from(flags[0]) << 8 },
                    deadline: lifetime(random),
                    value: &[&value],
                    own_cas: (random.below(10) == 0).then(|| random.next()),
                };
                shard.put(&key, &new, Precondition::None, USED);
            }
            55..63 => {
                let number = random.below(1_000_000).to_string();
                let new = NewItem {
                    client_flags: 0,
                    deadline: lifetime(random),
                    value: &[number.as_bytes()],
                    own_cas: None,
                };
                shard.put(&key, &new, Precondition::None, USED);
            }
            63..73 => {
                shard.add_delta(&key, Delta::Increment(random.below(9)), None, None, None, USED);
            }
            73..79 => {
                let len = random.below(100);
                let more = random.bytes(len);
                let end = if step % 2 == 0 { End::Back } else { End::Front };
                shard.concat(&key, end, &more, None, None, USED);
            }
            79..86 => {
                shard.touch(&key, lifetime(random), USED);
            }
            86..89 => {
                let change = Invalidation {
                    mark_stale: true,
                    drop_value: step % 2 == 0,
                    ..Invalidation::default()
                };
                shard.invalidate(&key, None, change, USED);
            }
            89..99 => {
                shard.delete(&key, None, USED);
            }
            _ => {
                shard.get(&key, USED);
            }
        }
    }
    let new =
        NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[b"last"], own_cas: None };
    match shard.put(&Key::new(b"last"), &new, Precondition::None, USED) {
        PutOutcome::Stored { cas } => cas,
        outcome => panic!("{outcome:?}"),
    }
}

fn kept(shard: &mut Shard, key: &[u8]) -> Option<Kept> {
    shard.peek(&Key::new(key), OPENED).map(|item| Kept {
        value: item.value.to_vec(),
        client_flags: item.client_flags,
        deadline: item.deadline,
        cas: item.cas,
        stale: item.stale,
    })
}

impl Left {
    /// A shard of `shard_bytes` in memory.
    fn new(shard_bytes: u64, seed: u64) -> Self {
        let config = config(shard_bytes);
        let lender = Arc::new(Mutex::new(Vec::new()));
        let segments = config.geometry.segment_count() as usize;
        let segment_bytes = config.geometry.segment_bytes as usize;
        let arena = LentArena {
            bytes: vec![0; PAGE_BYTES + segments * segment_bytes],
            segment_bytes,
            lender: Arc::clone(&lender),
        };
        Self::of(Shard::with_arena(config, Box::new(arena)), config, seed, || {
            std::mem::take(&mut *lender.lock().unwrap())
        })
    }

    /// What `shard` leaves behind once it was in use; `bytes` gives its page and segments when it is
    /// gone.
    fn of(mut shard: Shard, config: Config, seed: u64, bytes: impl FnOnce() -> Vec<u8>) -> Self {
        // More than there is room for.
        let key_count = config.geometry.shard_bytes / 600;
        let last_cas = use_shard(&mut shard, key_count, &mut Random(seed));
        shard.check();
        assert!(shard.counters().evicted > 0, "it was full");
        assert!(shard.counters().moved_bytes > 0, "and cleaned");
        let section = shard.save();
        drop(shard);
        let mut left = Self {
            config,
            bytes: bytes(),
            section,
            kept: BTreeMap::new(),
            items: 0,
            last_cas,
            homes: Vec::new(),
            uncounted: Mutex::default(),
        };
        left.look(key_count);
        left
    }

    /// Notes what is there without any damage, and where.
    fn look(&mut self, key_count: u64) {
        let mut copy = Copy::of(self);
        let (mut shard, _) = copy.open(self, Closing::Stopped);
        let mut keys: Vec<Vec<u8>> = (0..key_count).map(key_of).collect();
        keys.push(b"last".to_vec());
        let kept = keys.into_iter().map(|key| (key.clone(), kept(&mut shard, &key))).collect();
        drop(shard);
        self.kept = kept;
        self.items = self.kept.values().flatten().count();
        let segment_bytes = self.config.geometry.segment_bytes as usize;
        for segment in 0..self.config.geometry.segment_count() as usize {
            let from = PAGE_BYTES + segment * segment_bytes;
            copy.restore(self);
            copy.bytes[from..from + segment_bytes].fill(0);
            let (mut shard, _) = copy.open(self, Closing::Killed);
            self.homes.push(self.lost(&mut shard).into_iter().cloned().collect());
        }
    }

    /// The keys whose items `shard` does not have. Panics where it has another item than was left.
    fn lost<'a>(&'a self, shard: &mut Shard) -> Vec<&'a Vec<u8>> {
        let mut lost = Vec::new();
        for (name, kept) in &self.kept {
            let found = shard.peek(&Key::new(name), OPENED);
            match (kept, found) {
                (None, None) => {}
                (Some(_), None) => lost.push(name),
                (None, Some(found)) => panic!(
                    "{} is back: {:?}",
                    name.escape_ascii(),
                    String::from_utf8_lossy(&found.value.to_vec())
                ),
                (Some(kept), Some(found)) => {
                    let mut rest = kept.value.as_slice();
                    let is_same = found.value.len() == kept.value.len()
                        && found.value.pieces().all(|piece| {
                            match rest.split_at_checked(piece.len()) {
                                Some((head, tail)) => {
                                    rest = tail;
                                    head == piece
                                }
                                None => false,
                            }
                        })
                        && rest.is_empty()
                        && found.client_flags == kept.client_flags
                        && found.deadline == kept.deadline
                        && found.cas == kept.cas
                        && found.stale == kept.stale;
                    assert!(is_same, "{} has a wrong value", name.escape_ascii());
                }
            }
        }
        lost
    }

    fn segment_bytes(&self) -> usize {
        self.config.geometry.segment_bytes as usize
    }

    /// The segment that a byte lies in, and where in it; `None` in the page.
    fn segment_of(&self, byte: usize) -> Option<(usize, usize)> {
        let at = byte.checked_sub(PAGE_BYTES)?;
        Some((at / self.segment_bytes(), at % self.segment_bytes()))
    }
}

/// A copy of the bytes, to be damaged and put right again.
struct Copy {
    bytes: Vec<u8>,
    lender: Arc<Mutex<Vec<u8>>>,
}

/// What came of an opening.
struct Opened {
    lost: usize,
    restored: Option<Restored>,
}

impl Copy {
    fn of(left: &Left) -> Self {
        Self { bytes: left.bytes.clone(), lender: Arc::default() }
    }

    /// Opens a shard over the bytes as they are. What it brought back, unless it went on from the
    /// snapshot.
    fn open(&mut self, left: &Left, closing: Closing) -> (Shard, Option<Restored>) {
        let arena: Box<dyn Arena> = Box::new(LentArena {
            bytes: std::mem::take(&mut self.bytes),
            segment_bytes: left.segment_bytes(),
            lender: Arc::clone(&self.lender),
        });
        let walk = |arena| {
            let (shard, restored) = Shard::reopen(left.config, arena, OPENED);
            (shard, Some(restored))
        };
        match closing {
            Closing::Killed => walk(arena),
            Closing::Stopped => match Shard::reopen_from(left.config, arena, &left.section) {
                Ok(shard) => (shard, None),
                Err((_, arena)) => walk(arena),
            },
        }
    }

    /// Takes the bytes back from the shard that had them.
    fn take_back(&mut self) {
        self.bytes = std::mem::take(&mut *self.lender.lock().unwrap());
    }

    fn restore(&mut self, left: &Left) {
        self.take_back();
        self.bytes.copy_from_slice(&left.bytes);
    }

    /// Opens what `damage` makes of the bytes, looks at every key, and puts the bytes right again.
    fn attempt(
        &mut self,
        left: &Left,
        closing: Closing,
        second_look: bool,
        damage: impl FnOnce(&mut [u8]),
    ) -> Opened {
        damage(&mut self.bytes);
        let (mut shard, restored) = self.open(left, closing);
        let lost = left.lost(&mut shard);
        if second_look {
            shard.check();
        }
        let lost_count = lost.len();
        // What a cas was compared with once must not come again.
        let value: &[&[u8]] = &[b"later"];
        let new = NewItem { client_flags: 0, deadline: Deadline::NEVER, value, own_cas: None };
        match shard.put(&Key::new(b"later"), &new, Precondition::None, OPENED) {
            PutOutcome::Stored { cas } => assert!(cas > left.last_cas, "cas {cas} comes again"),
            outcome => panic!("a shard that was damaged refuses a write: {outcome:?}"),
        }
        if second_look {
            drop(shard);
            self.take_back();
            let (mut shard, again) = self.open(left, Closing::Killed);
            let found = again.map(|it| (it.dropped_records, it.damaged_bytes));
            // Who goes on from a snapshot does not look at segments that are free.
            assert!(restored.is_none() || found == Some((0, 0)), "damage is found once: {found:?}");
            // The write above may have evicted.
            assert!(left.lost(&mut shard).len() >= lost_count);
            shard.check();
        } else {
            drop(shard);
        }
        self.restore(left);
        Opened { lost: lost_count, restored }
    }

    /// Turns one bit over.
    fn flip(&mut self, left: &Left, closing: Closing, bit: u64) -> Opened {
        let byte = usize::try_from(bit / 8).unwrap();
        let second_look = bit.is_multiple_of(TRIES_PER_SECOND_LOOK);
        let opened =
            self.attempt(left, closing, second_look, |bytes| bytes[byte] ^= 1 << (bit % 8));
        let lost_max = match left.segment_of(byte) {
            Some((_, offset)) if offset >= HEADER_BYTES => 1,
            _ => 0,
        };
        assert!(opened.lost <= lost_max, "{} items are lost", opened.lost);
        let is_counted = opened.restored.is_some_and(|restored| restored.dropped_records > 0);
        if opened.lost > 0 && !is_counted {
            // What stands last in an open segment cannot be told from what a kill cut short.
            let (segment, _) = left.segment_of(byte).unwrap();
            let mut ends = left.uncounted.lock().unwrap();
            ends.insert(segment);
            assert!(ends.len() <= 2, "an item is lost and not counted, in segments {ends:?}");
        }
        opened
    }
}

/// Tries what `each` does with numbers below `count`, on all cores; the sum of what it gives.
fn try_all(left: &Left, count: u64, each: impl Fn(&mut Copy, u64) -> u64 + Sync) -> u64 {
    const TURN: u64 = 64;
    let next = AtomicU64::new(0);
    let sum = AtomicU64::new(0);
    let work = || {
        let mut copy = Copy::of(left);
        loop {
            let from = next.fetch_add(TURN, Ordering::Relaxed);
            for number in from..(from + TURN).min(count) {
                match catch_unwind(AssertUnwindSafe(|| each(&mut copy, number))) {
                    Ok(lost) => sum.fetch_add(lost, Ordering::Relaxed),
                    Err(panic) => {
                        tell(&format!("try {number} of {count}"));
                        resume_unwind(panic);
                    }
                };
            }
            if from >= count {
                break;
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    sum.into_inner()
}

#[expect(clippy::print_stderr, reason = "a test tells where it failed, a campaign what it found")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::disallowed_methods, reason = "how fast a campaign goes is told, not tested")]
fn timed(what: &str, tries: u64, run: impl FnOnce() -> u64) {
    let start = std::time::Instant::now();
    let lost = run();
    let seconds = start.elapsed().as_secs_f64();
    let per_second = (tries as f64 / seconds).round();
    tell(&format!("{what}: {tries} tries, {per_second} a second, {lost} items lost in all"));
}

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn seed() -> u64 {
    number_from("DAMAGE_SEED", 1)
}

/// The bits of the first `page_bytes` of the shard's page and of every segment's header.
fn header_bits(left: &Left, page_bytes: usize) -> Vec<u64> {
    let page = 0..page_bytes as u64 * 8;
    let segment_bytes = left.segment_bytes() as u64;
    let segments = (0..u64::from(left.config.geometry.segment_count())).flat_map(|segment| {
        let from = (PAGE_BYTES as u64 + segment * segment_bytes) * 8;
        from..from + HEADER_BYTES as u64 * 8
    });
    page.chain(segments).collect()
}

fn flip_headers(left: &Left, page_bytes: usize) {
    let bits = header_bits(left, page_bytes);
    for closing in [Closing::Killed, Closing::Stopped] {
        timed(&format!("bits of headers, {closing:?}"), bits.len() as u64, || {
            try_all(left, bits.len() as u64, |copy, at| {
                let bit = bits[usize::try_from(at).unwrap()];
                told(bit, closing, || copy.flip(left, closing, bit).lost as u64)
            })
        });
    }
}

fn flip_anywhere(left: &Left, flips: u64) {
    for closing in [Closing::Killed, Closing::Stopped] {
        let half = flips / 2;
        timed(&format!("bits anywhere, {closing:?}"), half, || {
            try_all(left, half, |copy, at| {
                let mut random = Random(seed().wrapping_mul(0x1_0000_0001).wrapping_add(at));
                let bit = random.below(left.bytes.len() as u64 * 8);
                told(bit, closing, || copy.flip(left, closing, bit).lost as u64)
            })
        });
    }
}

/// What a try gives; one that fails says of which bit and seed it was.
fn told<T>(bit: u64, closing: Closing, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        tell(&format!("at bit {bit}, {closing:?}, DAMAGE_SEED={}", seed()));
        resume_unwind(panic)
    })
}

/// Longer damage: a run of zeros, of ones or of noise, as a lost page or a bad device leaves it.
fn overwrite_runs(left: &Left, tries: u64) {
    timed("runs overwritten", tries, || {
        try_all(left, tries, |copy, at| {
            let mut random = Random(seed().wrapping_add(at << 20));
            let closing = if at % 2 == 0 { Closing::Killed } else { Closing::Stopped };
            let len = 1 << random.below(13);
            let from = random.below((left.bytes.len() - len) as u64);
            // Half of them whole blocks, as a device has them.
            let from = if at % 4 < 2 { from & !(len as u64 - 1) } else { from };
            let from = usize::try_from(from).unwrap();
            let noise = random.bytes(len as u64);
            let kind = random.below(3);
            told(from as u64 * 8, closing, || {
                let second_look = at.is_multiple_of(TRIES_PER_SECOND_LOOK);
                let opened = copy.attempt(left, closing, second_look, |bytes| {
                    match kind {
                        0 => bytes[from..from + len].fill(0),
                        1 => bytes[from..from + len].fill(0xff),
                        _ => bytes[from..from + len].copy_from_slice(&noise),
                    };
                });
                let (first, last) = (left.segment_of(from), left.segment_of(from + len - 1));
                let hit: BTreeSet<_> = [first, last].into_iter().flatten().collect();
                let touches_header = hit.iter().any(|&(_, offset)| offset < HEADER_BYTES)
                    || first.map(|(segment, _)| segment) != last.map(|(segment, _)| segment);
                let lost_max = if touches_header {
                    hit.iter().map(|&(segment, _)| left.homes[segment].len()).sum()
                } else {
                    // A record has at least 20 bytes.
                    len / 20 + 2
                };
                assert!(opened.lost <= lost_max, "{} of {lost_max} are lost", opened.lost);
                opened.lost as u64
            })
        })
    });
}

/// A cache file on a file system that costs no disk, its content, and what was left in it.
struct LeftFile {
    left: Left,
    bytes: Vec<u8>,
    path: PathBuf,
    superblock: Superblock,
    _folder: TempDir,
}

impl LeftFile {
    fn new(shard_bytes: u64) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("cache");
        let config = config(shard_bytes);
        let superblock = Superblock {
            generation: 0,
            cache_id: 1,
            cluster_id: 0,
            boot_id: 1,
            shard_count: 1,
            segment_bytes: config.geometry.segment_bytes,
            shard_bytes,
            item_bytes_max: ITEM_BYTES_MAX,
            policy: PolicyName::new(config.policy.name()).unwrap(),
            extents: vec![config.geometry.segment_count()],
            clean: Some(1),
            seen_unix_ms: USED.0,
        };
        let file = CacheFile::create(&path, superblock, Existing::Keep).unwrap();
        let superblock = file.superblock();
        let shard = Shard::with_arena(config, Box::new(file.arena(0).unwrap()));
        let from = usize::try_from(superblock.extent_offset(0)).unwrap();
        let left = Left::of(shard, config, seed(), || {
            let bytes = fs::read(&path).unwrap();
            let page = bytes[SUPERBLOCK_BYTES..SUPERBLOCK_BYTES + PAGE_BYTES].iter();
            page.chain(&bytes[from..]).copied().collect()
        });
        drop(file);
        let bytes = fs::read(&path).unwrap();
        Self { left, bytes, path, superblock, _folder: folder }
    }

    /// The items lost when the file is cut to `len` bytes.
    fn cut(&self, len: usize, closing: Closing) -> u64 {
        fs::write(&self.path, &self.bytes[..len]).unwrap();
        let file = match CacheFile::open(&self.path) {
            Ok(Some(file)) => file,
            // An empty file, or one without the whole of either copy of its superblock.
            Ok(None) | Err(OpenError::Superblock { .. }) if len < SUPERBLOCK_BYTES / 2 => {
                return self.left.items as u64;
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(file.truncated_bytes(), (self.bytes.len() - len) as u64);
        assert_eq!(file.superblock(), self.superblock);
        let arena: Box<dyn Arena> = Box::new(file.arena(0).unwrap());
        let left = &self.left;
        let walk = |arena| Shard::reopen(left.config, arena, OPENED).0;
        let mut shard = match closing {
            Closing::Killed => walk(arena),
            Closing::Stopped => Shard::reopen_from(left.config, arena, &left.section)
                .unwrap_or_else(|(_, arena)| walk(arena)),
        };
        let lost: BTreeSet<Vec<u8>> = left.lost(&mut shard).into_iter().cloned().collect();
        shard.check();
        // A segment of which nothing was cut off has lost nothing.
        let from = usize::try_from(self.superblock.extent_offset(0)).unwrap();
        let whole = len.saturating_sub(from) / left.segment_bytes();
        let may_be_lost: BTreeSet<&Vec<u8>> =
            left.homes[whole.min(left.homes.len())..].iter().flatten().collect();
        for key in &lost {
            assert!(may_be_lost.contains(key), "{} is lost", key.escape_ascii());
        }
        lost.len() as u64
    }
}

fn cut_everywhere(shard_bytes: u64) {
    let left = LeftFile::new(shard_bytes);
    for closing in [Closing::Killed, Closing::Stopped] {
        let cuts = left.bytes.len() / 4096 + 1;
        timed(&format!("cuts, {closing:?}"), cuts as u64, || {
            let lost = |cut| told(cut as u64 * 4096 * 8, closing, || left.cut(cut * 4096, closing));
            (0..cuts).map(lost).sum()
        });
    }
    assert_eq!(left.cut(left.bytes.len(), Closing::Stopped), 0, "without a cut nothing is lost");
}

#[test]
fn any_bit_of_the_superblock_may_be_wrong() {
    let left = LeftFile::new(256 * KIB);
    let file = File::options().write(true).open(&left.path).unwrap();
    for bit in 0..SUPERBLOCK_BYTES * 8 {
        let damaged = [left.bytes[bit / 8] ^ 1 << (bit % 8)];
        file.write_all_at(&damaged, (bit / 8) as u64).unwrap();
        let opened = CacheFile::open(&left.path).unwrap().unwrap();
        assert_eq!(opened.superblock(), left.superblock, "bit {bit}");
        drop(opened);
        file.write_all_at(&left.bytes[..SUPERBLOCK_BYTES], 0).unwrap();
    }
}

#[test]
fn the_file_may_be_cut_anywhere() {
    cut_everywhere(256 * KIB);
}

#[test]
#[ignore = "takes minutes; cargo xtask soak"]
fn a_file_of_4_mib_may_be_cut_anywhere() {
    cut_everywhere(4 * MIB);
}

#[test]
fn every_bit_of_the_headers_may_be_wrong() {
    // The rest of the page is not in use.
    flip_headers(&Left::new(256 * KIB, seed()), 1024);
}

#[test]
fn any_bit_may_be_wrong() {
    flip_anywhere(&Left::new(256 * KIB, seed()), number_from("DAMAGE_FLIPS", 20_000));
}

#[test]
fn runs_of_bytes_may_be_wrong() {
    overwrite_runs(&Left::new(256 * KIB, seed()), number_from("DAMAGE_FLIPS", 20_000) / 10);
}

#[test]
#[ignore = "takes minutes; cargo xtask soak"]
fn every_bit_of_the_headers_of_4_mib_may_be_wrong() {
    flip_headers(&Left::new(4 * MIB, seed()), PAGE_BYTES);
}

#[test]
#[ignore = "takes minutes; cargo xtask soak"]
fn any_bit_of_4_mib_may_be_wrong() {
    let left = Left::new(4 * MIB, seed());
    flip_anywhere(&left, number_from("DAMAGE_FLIPS", 1_000_000));
    overwrite_runs(&left, number_from("DAMAGE_FLIPS", 1_000_000) / 10);
}
