//! The items of all shards listed line by line: `lru_crawler metadump`, `mgdump`, `stats cachedump`.
//!
//! ```text
//! metadump  key=k%3A3 exp=1795390296 la=1795390196 cas=4 fetch=yes cls=1 size=71 flags=5 ␊   END
//! mgdump    mg k:3                                                                            EN
//! cachedump ITEM k:3 [3 b; 1795390296 s]                                                      END
//! ```
//!
//! A dump is a request of many answers, like a get of many keys: it goes on while the client takes what there
//! is, and pauses while it does not. Between two slices nothing is locked and nothing kept but the place, so
//! any number of dumps may be under way, each as fast as its reader.
//!
//! As with a backup, an item that is there for the whole length of a dump is in it; one that comes, goes or
//! changes meanwhile may be, and may be twice.

use std::io::Write as _;
use std::ops::ControlFlow;

use protocol::changes::push_encoded;
use protocol::meta::request::MetaKey;
use store::{Item, Timestamp, WalkPlace};

use crate::observe::line::CLASS;
use crate::shards::Shards;

/// Entries looked at under one lock: each may be a cache miss, a hundred nanoseconds or two.
const SLICE_ENTRIES_MAX: u32 = 512;
/// Slices until a request pauses, so that other clients of the worker have their turn.
const SLICES_AT_ONCE_MAX: u32 = 8;
/// What `stats cachedump` answers at most, in bytes: as in memcached.
const CACHEDUMP_BYTES_MAX: usize = 2 << 20;

/// What a dump tells of each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpKind {
    /// All but its value.
    Facts,
    /// The request that fetches it.
    Keys,
}

impl DumpKind {
    fn end(self) -> &'static [u8] {
        match self {
            Self::Facts => b"END\r\n",
            Self::Keys => b"EN\r\n",
        }
    }

    fn push(self, out: &mut Vec<u8>, key: &[u8], item: &Item<'_>, bytes: u64, now: Timestamp) {
        match self {
            Self::Facts => push_facts(out, key, item, bytes, now),
            Self::Keys => push_request(out, key),
        }
    }
}

/// Where a dump stands, as the one number that a request carries from call to call.
///
/// ```text
/// | begun, 1 bit | shard, 15 | generation, 16 | entry, 32 |
/// ```
///
/// When as many generations pass as 16 bits have while a client takes no line, a dump goes on in the middle of
/// a shard that it had to begin again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DumpPlace {
    shard: u32,
    walk: WalkPlace,
}

/// Where a dump of classes without items begins: at its end.
pub(crate) const NO_ITEMS: usize = 0x7fff << 48;

const _: () = assert!(usize::BITS == 64, "a place has 64 bits");
const BEGUN: u16 = 1 << 15;
const GENERATION_MASK: u64 = 0xffff;

impl DumpPlace {
    fn to_done(self) -> usize {
        debug_assert!(self.shard < u32::from(BEGUN), "so many shards there never are");
        let generation = (self.walk.generation & GENERATION_MASK) as usize;
        (usize::from(BEGUN) | self.shard as usize) << 48
            | generation << 32
            | self.walk.entry as usize
    }

    fn of_done(done: usize) -> Self {
        let [s0, s1, g0, g1, entry @ ..] = done.to_be_bytes();
        Self {
            shard: u32::from(u16::from_be_bytes([s0, s1]) & !BEGUN),
            walk: WalkPlace {
                generation: u64::from(u16::from_be_bytes([g0, g1])),
                entry: u32::from_be_bytes(entry),
            },
        }
    }
}

/// Whether a dump that has come to `done` has said anything.
fn has_begun(done: usize) -> bool {
    done >> 63 == 1
}

/// Appends what follows of a dump. `done` is what the last call returned, and 0 or [`NO_ITEMS`] for the first;
/// `None` at the end. Stops beyond `output_bytes_high` bytes of `out`.
pub(crate) fn go_on(
    shards: &Shards,
    kind: DumpKind,
    done: usize,
    output_bytes_high: usize,
    now: Timestamp,
    out: &mut Vec<u8>,
) -> Option<usize> {
    if !has_begun(done) {
        out.extend_from_slice(b"OK\r\n");
    }
    let mut place = DumpPlace::of_done(done);
    for _ in 0..SLICES_AT_ONCE_MAX {
        if place.shard >= shards.geometry().shard_count {
            out.extend_from_slice(kind.end());
            return None;
        }
        if out.len() >= output_bytes_high {
            break;
        }
        let mut shard = shards.lock_nth(place.shard);
        place.walk.generation = whole_generation(place.walk.generation, shard.generation());
        let next = shard.walk_weighed(place.walk, SLICE_ENTRIES_MAX, now, |key, item, bytes| {
            kind.push(out, key, item, bytes, now);
            ControlFlow::Continue(())
        });
        place = match next {
            Some(walk) => DumpPlace { walk, ..place },
            None => DumpPlace { shard: place.shard + 1, walk: WalkPlace::default() },
        };
    }
    Some(place.to_done())
}

/// The generation that a place means of which it keeps the low bits: that of the shard if they are its, and
/// another if not.
fn whole_generation(low: u64, current: u64) -> u64 {
    if current & GENERATION_MASK == low { current } else { current.wrapping_add(1) }
}

/// Appends the first items met, at most `items_max` unless that is 0, and the end of them.
pub(crate) fn cachedump(shards: &Shards, items_max: u32, now: Timestamp, out: &mut Vec<u8>) {
    let (start, mut items) = (out.len(), 0);
    let mut place = DumpPlace::default();
    let is_full = |items, bytes| (items_max > 0 && items >= items_max) || bytes;
    while place.shard < shards.geometry().shard_count {
        let mut shard = shards.lock_nth(place.shard);
        let next = shard.walk_weighed(place.walk, SLICE_ENTRIES_MAX, now, |key, item, _| {
            if is_full(items, out.len() - start + key.len() + 64 > CACHEDUMP_BYTES_MAX) {
                return ControlFlow::Break(());
            }
            out.extend_from_slice(b"ITEM ");
            out.extend_from_slice(key);
            let expiry_s = item.deadline.timestamp().map_or(0, |at| at.0 / 1000);
            // Writing to a vector does not fail; here and below.
            let _ = write!(out, " [{} b; {expiry_s} s]\r\n", item.value.len());
            items += 1;
            ControlFlow::Continue(())
        });
        if is_full(items, out.len() - start + 320 > CACHEDUMP_BYTES_MAX) {
            break;
        }
        place = match next {
            Some(walk) => DumpPlace { walk, ..place },
            None => DumpPlace { shard: place.shard + 1, walk: WalkPlace::default() },
        };
    }
    out.extend_from_slice(b"END\r\n");
}

fn push_facts(out: &mut Vec<u8>, key: &[u8], item: &Item<'_>, bytes: u64, now: Timestamp) {
    out.extend_from_slice(b"key=");
    push_encoded(out, key);
    let _ = match item.deadline.timestamp() {
        Some(at) => write!(out, " exp={}", at.0 / 1000),
        None => write!(out, " exp=-1"),
    };
    let used_unix_s = now.as_secs().saturating_sub(item.idle_secs);
    let fetched = if item.fetched { "yes" } else { "no" };
    let Item { cas, client_flags, .. } = item;
    // The space before the line end is memcached's.
    let _ = writeln!(
        out,
        " la={used_unix_s} cas={cas} fetch={fetched} cls={CLASS} size={bytes} flags={client_flags} "
    );
}

/// A key that would not be one word of a line is written in base64.
fn push_request(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(b"mg ");
    match protocol::Key::new(key) {
        Some(key) if !key.is_token() => {
            MetaKey::encode_base64(key, out);
            out.extend_from_slice(b" b\r\n");
        }
        _ => {
            out.extend_from_slice(key);
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use store::{Deadline, Key, NewItem, Precondition};

    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn shards_with(keys: u32) -> Shards {
        let shards = Shards::new(&Config::default());
        for number in 0..keys {
            put(&shards, format!("key-{number}").as_bytes(), Deadline::NEVER);
        }
        shards
    }

    fn put(shards: &Shards, key: &[u8], deadline: Deadline) {
        let key = Key::new(key);
        let new = NewItem { client_flags: 5, deadline, value: &[b"abc"], own_cas: Some(7) };
        shards.lock(&key).put(&key, &new, Precondition::None, NOW);
    }

    /// A dump as a client receives it that takes everything after each call, and the most that was in one.
    fn dumped(shards: &Shards, kind: DumpKind) -> (String, usize) {
        let (mut all, mut done, mut most) = (Vec::new(), 0, 0);
        loop {
            let mut out = Vec::new();
            let next = go_on(shards, kind, done, 16 << 10, NOW, &mut out);
            most = most.max(out.len());
            all.append(&mut out);
            match next {
                Some(next) => done = next,
                None => return (String::from_utf8(all).expect("text"), most),
            }
        }
    }

    #[test]
    fn every_item_is_listed_once_in_bounded_pieces() {
        let (text, most) = dumped(&shards_with(20_000), DumpKind::Keys);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], lines[20_001], lines.len()), ("OK", "EN", 20_002));
        let keys: BTreeSet<_> = lines[1..20_001].iter().collect();
        assert_eq!(keys.len(), 20_000);
        assert!(keys.contains(&"mg key-4711"));
        assert!(most < 64 << 10, "{most} bytes at once");
    }

    #[test]
    fn facts_are_told_as_memcached_tells_them() {
        let shards = shards_with(0);
        put(&shards, b"k:3", Deadline::at(NOW.plus_millis(100_000)));
        let (text, _) = dumped(&shards, DumpKind::Facts);
        let line = text.strip_prefix("OK\r\n").and_then(|it| it.strip_suffix("END\r\n"));
        let (before, after) = line.expect("one line").split_once("size=").expect("its size");
        assert_eq!(before, "key=k%3A3 exp=1800000100 la=1800000000 cas=7 fetch=no cls=1 ");
        assert!(after.ends_with(" flags=5 \n"), "{after}");
    }

    #[test]
    fn a_key_that_is_no_word_is_written_in_base64() {
        let shards = shards_with(0);
        put(&shards, b"a b", Deadline::NEVER);
        assert_eq!(dumped(&shards, DumpKind::Keys).0, "OK\r\nmg YSBi b\r\nEN\r\n");
    }

    #[test]
    fn cachedump_ends_where_it_was_told_to() {
        let shards = shards_with(100);
        let lines_of = |items_max| {
            let mut out = Vec::new();
            cachedump(&shards, items_max, NOW, &mut out);
            let text = String::from_utf8(out).expect("text");
            assert!(text.ends_with("END\r\n"));
            text.lines().count() - 1
        };
        assert_eq!((lines_of(0), lines_of(7)), (100, 7));
    }

    #[test]
    fn a_place_survives_being_a_number() {
        let walk = WalkPlace { generation: 0x1234, entry: 0xfedc_ba98 };
        let place = DumpPlace { shard: 0x7ffe, walk };
        assert_eq!(DumpPlace::of_done(place.to_done()), place);
        assert_ne!(
            DumpPlace::default().to_done(),
            0,
            "a dump that has begun is not one that has not"
        );
    }
}
