//! A shard and a copy of it that is told what its writes left: the two hold the same.

use std::collections::BTreeMap;

use eviction::{KeyHash, Kind};
use proptest::collection::vec;
use proptest::prelude::*;
use store::hash::key_hash;
use store::{
    Applied, Config, Deadline, Delta, DepartureReason, Departures, End, Geometry, HashRange,
    Invalidation, Key, NewItem, Precondition, PutOutcome, RangePlace, Replicated, Shard,
    SliceLimit, Timestamp,
};

const MIB: u64 = 1 << 20;
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ANY: Replicated<'_> = Replicated {
    client_flags: 0,
    deadline: Deadline::NEVER,
    cas: 1,
    stale: false,
    win_sent: false,
    value: &[b"value"],
};

fn shard_of(memory_bytes: u64, policy: Kind, evicts: bool) -> Shard {
    let geometry = Geometry { shard_count: 1, ..Geometry::new(memory_bytes, memory_bytes / 8, 1) };
    let geometry = Geometry { shard_bytes: memory_bytes, ..geometry };
    Shard::new(Config {
        geometry,
        item_bytes_max: memory_bytes / 8,
        policy,
        evicts,
        protected: store::Protected::NONE,
        shard: 0,
    })
}

fn roomy() -> Shard {
    shard_of(8 * MIB, Kind::Lru, true)
}

fn set(shard: &mut Shard, key: &[u8], value: &[u8], cas: u64) -> PutOutcome {
    let deadline = Deadline::NEVER;
    let new = NewItem { client_flags: 0, deadline, value: &[value], own_cas: Some(cas) };
    shard.put(&Key::new(key), &new, Precondition::None, NOW)
}

/// All that a client can see of an item.
#[derive(Debug, PartialEq)]
struct View {
    value: Vec<u8>,
    client_flags: u32,
    cas: u64,
    deadline: Deadline,
    stale: bool,
    win_sent: bool,
}

fn view(shard: &mut Shard, key: &[u8], now: Timestamp) -> Option<View> {
    shard.peek(&Key::new(key), now).map(|item| View {
        value: item.value.to_vec(),
        client_flags: item.client_flags,
        cas: item.cas,
        deadline: item.deadline,
        stale: item.stale,
        win_sent: item.win_sent,
    })
}

/// The items in a range, by key: fingerprint and value's length.
fn digest(shard: &mut Shard, range: &HashRange, entries: u32) -> BTreeMap<Vec<u8>, (u64, usize)> {
    let mut met = BTreeMap::new();
    let mut place = Some(RangePlace::default());
    let limit = SliceLimit { entries, ..SliceLimit::NONE };
    while let Some(from) = place {
        place = shard.walk_range(range, from, limit, NOW, |it| {
            assert_eq!(it.hash, key_hash(it.key));
            let before = met.insert(it.key.to_vec(), (it.fingerprint(), it.item.value.len()));
            assert_eq!(before, None, "it is met once");
        });
    }
    met
}

fn departures(shard: &mut Shard) -> Vec<(Vec<u8>, u64, DepartureReason)> {
    let mut departures = Departures::default();
    shard.take_departures(&mut departures);
    departures.iter().map(|it| (it.key.to_vec(), it.cas, it.reason)).collect()
}

#[derive(Clone, Debug)]
enum Op {
    Set { key: u8, bytes: usize, client_flags: u32, ttl_ms: Option<u64> },
    Number { key: u8, number: u32 },
    Increment { key: u8, by: u64 },
    Append { key: u8, bytes: usize },
    Touch { key: u8, ttl_ms: Option<u64> },
    Invalidate { key: u8, drop_value: bool },
    Win { key: u8 },
    Delete { key: u8 },
    Get { key: u8 },
    Sweep,
    Advance { ms: u64 },
    Flush,
    SetPolicy(Kind),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..40u8;
    let ttl = prop_oneof![2 => Just(None), 1 => (0..20_000u64).prop_map(Some)];
    let bytes = prop_oneof![6 => 0..300usize, 2 => 300..6_000usize, 1 => 6_000..60_000usize];
    prop_oneof![
        10 => (key.clone(), bytes.clone(), prop_oneof![Just(0), any::<u32>()], ttl.clone()).prop_map(
            |(key, bytes, client_flags, ttl_ms)| Op::Set { key, bytes, client_flags, ttl_ms }),
        3 => (key.clone(), 0..2_000u32).prop_map(|(key, number)| Op::Number { key, number }),
        5 => (key.clone(), 0..900u64).prop_map(|(key, by)| Op::Increment { key, by }),
        2 => (key.clone(), bytes).prop_map(|(key, bytes)| Op::Append { key, bytes }),
        4 => (key.clone(), ttl).prop_map(|(key, ttl_ms)| Op::Touch { key, ttl_ms }),
        3 => (key.clone(), any::<bool>()).prop_map(|(key, drop_value)| Op::Invalidate { key, drop_value }),
        3 => key.clone().prop_map(|key| Op::Win { key }),
        3 => key.clone().prop_map(|key| Op::Delete { key }),
        3 => key.prop_map(|key| Op::Get { key }),
        1 => Just(Op::Sweep),
        1 => (0..5_000u64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Flush),
        1 => prop::sample::select(&Kind::ALL[..]).prop_map(Op::SetPolicy),
    ]
}

/// A shard that is written to, and its copy.
struct Copies {
    origin: Shard,
    copy: Shard,
    now: Timestamp,
    cas: u64,
}

impl Copies {
    fn new(origin: Shard) -> Self {
        // Of the items of the largest size many more fit, so that it evicts nothing by itself.
        let mut copies =
            Self { origin, copy: shard_of(64 * MIB, Kind::Lru, true), now: NOW, cas: 1 << 40 };
        copies.origin.set_noting_departures(true);
        copies.copy.set_noting_departures(true);
        copies
    }

    fn deadline(&self, ttl_ms: Option<u64>) -> Deadline {
        ttl_ms.map_or(Deadline::NEVER, |ttl| Deadline::at(self.now.plus_millis(ttl)))
    }

    /// Does it, and has the copy told what came of it.
    fn apply(&mut self, op: &Op) {
        self.cas += 1;
        let (now, own_cas) = (self.now, Some(self.cas));
        let changed = match *op {
            Op::Set { key, bytes, client_flags, ttl_ms } => {
                let value = vec![self.cas.to_le_bytes()[0]; bytes];
                let new = NewItem {
                    client_flags,
                    deadline: self.deadline(ttl_ms),
                    value: &[&value],
                    own_cas,
                };
                self.origin.put(&Key::new(&[key + 1]), &new, Precondition::None, now);
                Some(key)
            }
            Op::Number { key, number } => {
                let digits = number.to_string();
                let new = NewItem {
                    client_flags: 0,
                    deadline: Deadline::NEVER,
                    value: &[digits.as_bytes()],
                    own_cas,
                };
                self.origin.put(&Key::new(&[key + 1]), &new, Precondition::None, now);
                Some(key)
            }
            Op::Increment { key, by } => {
                let delta = Delta::Increment(by);
                self.origin.add_delta(&Key::new(&[key + 1]), delta, None, None, own_cas, now);
                Some(key)
            }
            Op::Append { key, bytes } => {
                let more = vec![9; bytes];
                self.origin.concat(&Key::new(&[key + 1]), End::Back, &more, None, own_cas, now);
                Some(key)
            }
            Op::Touch { key, ttl_ms } => {
                let deadline = self.deadline(ttl_ms);
                self.origin.touch(&Key::new(&[key + 1]), deadline, now);
                return self.tell_touched(key);
            }
            Op::Invalidate { key, drop_value } => {
                let change = Invalidation { mark_stale: true, drop_value, deadline: None, own_cas };
                self.origin.invalidate(&Key::new(&[key + 1]), None, change, now);
                Some(key)
            }
            Op::Win { key } => {
                self.origin.win(&Key::new(&[key + 1]), now);
                return self.tell_touched(key);
            }
            Op::Delete { key } => {
                self.origin.delete(&Key::new(&[key + 1]), None, now);
                Some(key)
            }
            Op::Get { key } => {
                self.origin.get(&Key::new(&[key + 1]), now);
                None
            }
            Op::Sweep => {
                self.origin.sweep(now, 10);
                None
            }
            Op::Advance { ms } => {
                self.now = now.plus_millis(ms);
                None
            }
            Op::Flush => {
                self.origin.flush_all(now, now);
                self.copy.remove_range(&HashRange::ALL, RangePlace::default(), u32::MAX, now);
                None
            }
            Op::SetPolicy(kind) => {
                self.origin.set_policy(kind, now);
                None
            }
        };
        self.tell_departed();
        if let Some(key) = changed {
            self.tell_changed(key);
        }
    }

    fn tell_departed(&mut self) {
        for (key, cas, _) in departures(&mut self.origin) {
            let copied = view(&mut self.copy, &key, self.now).map(|it| it.cas);
            assert!(copied.is_none_or(|it| it == cas), "what departs is what the copy has");
            self.copy.apply_remove(&Key::new(&key), self.now);
        }
    }

    fn tell_changed(&mut self, key: u8) {
        let key = [key + 1];
        let (key, now) = (Key::new(&key), self.now);
        let Some(item) = self.origin.peek(&key, now) else {
            self.copy.apply_remove(&key, now);
            return;
        };
        let value = item.value.to_vec();
        let new = Replicated {
            client_flags: item.client_flags,
            deadline: item.deadline,
            cas: item.cas,
            stale: item.stale,
            win_sent: item.win_sent,
            value: &[&value],
        };
        assert_eq!(self.copy.apply_put(&key, &new, now), Applied::Stored);
    }

    fn tell_touched(&mut self, key: u8) {
        self.tell_departed();
        let key = [key + 1];
        let (key, now) = (Key::new(&key), self.now);
        match self.origin.peek(&key, now) {
            None => {
                self.copy.apply_remove(&key, now);
            }
            Some(item) => {
                let marks = (item.stale, item.win_sent);
                assert!(self.copy.apply_touch(&key, item.cas, item.deadline, marks, now));
            }
        }
    }

    fn check(&mut self) {
        for key in 1..=40 {
            let origin = view(&mut self.origin, &[key], self.now);
            assert_eq!(view(&mut self.copy, &[key], self.now), origin, "key {key}");
        }
        self.origin.check();
        self.copy.check();
        let digest_of = |shard| digest(shard, &HashRange::ALL, u32::MAX);
        assert_eq!(digest_of(&mut self.copy), digest_of(&mut self.origin));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_that_is_told_what_writes_left_equals_its_origin(ops in vec(op(), 0..300)) {
        let mut copies = Copies::new(shard_of(16 * MIB, Kind::Lru, true));
        for op in &ops {
            copies.apply(op);
        }
        prop_assert_eq!(copies.origin.counters().evicted, 0);
        copies.check();
    }

    #[test]
    fn a_copy_of_a_full_shard_equals_it(
        ops in vec(op(), 0..600), kind in prop::sample::select(&Kind::ALL[..]), evicts in any::<bool>(),
    ) {
        let mut copies = Copies::new(shard_of(640 << 10, kind, evicts));
        for op in &ops {
            copies.apply(op);
        }
        copies.check();
    }
}

#[test]
fn what_is_evicted_or_expires_departs_once_and_what_was_asked_for_does_not() {
    let mut shard = shard_of(MIB, Kind::Lru, true);
    set(&mut shard, b"unnoted", &[0; 100_000], 1);
    shard.set_noting_departures(true);
    set(&mut shard, b"deleted", b"v", 2);
    shard.delete(&Key::new(b"deleted"), None, NOW);
    set(&mut shard, b"replaced", b"v", 3);
    set(&mut shard, b"replaced", b"w", 4);
    assert!(!shard.has_departures());
    let deadline = Deadline::at(NOW.plus_millis(1));
    for (key, cas) in [(b"read", 5), (b"swpt", 6)] {
        let new = NewItem { client_flags: 0, deadline, value: &[b"v"], own_cas: Some(cas) };
        shard.put(&Key::new(key), &new, Precondition::None, NOW);
    }
    let later = NOW.plus_millis(1);
    assert!(shard.get(&Key::new(b"read"), later).is_none());
    shard.sweep(later, u32::MAX);
    let expired = DepartureReason::Expired;
    let expected = [(b"read".to_vec(), 5, expired), (b"swpt".to_vec(), 6, expired)];
    assert_eq!(departures(&mut shard), expected);
    // Of several parts each, and each leaves with one key.
    for n in 0..20u8 {
        set(&mut shard, &[b'k', n], &[n; 100_000], u64::from(n) + 7);
    }
    let evicted = departures(&mut shard);
    assert_eq!(evicted.len() as u64, shard.counters().evicted);
    assert_eq!(evicted[0], (b"unnoted".to_vec(), 1, DepartureReason::Evicted));
    assert!(evicted.iter().all(|it| it.2 == DepartureReason::Evicted));
    shard.flush_all(NOW, NOW);
    assert!(!shard.has_departures());
    shard.set_noting_departures(false);
    for n in 0..20u8 {
        set(&mut shard, &[b'k', n], &[n; 100_000], 50);
    }
    assert!(!shard.has_departures());
}

#[test]
fn what_a_failed_write_takes_with_it_departs() {
    let mut shard = shard_of(MIB, Kind::Lru, true);
    shard.set_noting_departures(true);
    set(&mut shard, b"k", b"v", 1);
    assert_eq!(set(&mut shard, b"k", &vec![0; 2 << 20], 2), PutOutcome::TooLarge);
    assert_eq!(departures(&mut shard), [(b"k".to_vec(), 1, DepartureReason::Unwritten)]);
}

#[test]
fn a_replicated_item_has_all_that_its_origin_had() {
    let mut shard = roomy();
    let key = Key::new(b"k");
    set(&mut shard, b"k", b"newer, by its cas", 99);
    let deadline = Deadline::at(NOW.plus_millis(60_000));
    for (stale, win_sent) in [(true, false), (false, true), (true, true), (false, false)] {
        let new =
            Replicated { client_flags: 7, deadline, cas: 5, stale, win_sent, value: &[b"v", b"w"] };
        assert_eq!(shard.apply_put(&key, &new, NOW), Applied::Stored);
        let expected =
            View { value: b"vw".to_vec(), client_flags: 7, cas: 5, deadline, stale, win_sent };
        assert_eq!(view(&mut shard, b"k", NOW), Some(expected));
    }
    assert_eq!(shard.counters().items_stored, 1, "what a client stored");
}

#[test]
fn a_replicated_item_whose_time_is_over_leaves_none() {
    let mut shard = roomy();
    set(&mut shard, b"k", b"v", 1);
    let new = Replicated { deadline: Deadline::at(NOW), ..ANY };
    assert_eq!(shard.apply_put(&Key::new(b"k"), &new, NOW), Applied::Expired);
    assert_eq!(view(&mut shard, b"k", NOW), None);
}

#[test]
fn a_replicated_item_without_room_leaves_none_rather_than_the_one_before() {
    let mut shard = shard_of(MIB, Kind::Lru, false);
    let full = (0..200u8)
        .position(|n| set(&mut shard, &[b'k', n], &[0; 10_000], 1) == PutOutcome::OutOfMemory);
    assert!(full.unwrap() > 1);
    let (key, value) = (Key::new(b"k\0"), vec![0; 90_000]);
    let new = Replicated { value: &[&value], ..ANY };
    assert_eq!(shard.apply_put(&key, &new, NOW), Applied::NoRoom);
    assert_eq!(view(&mut shard, b"k\0", NOW), None);
    let value = vec![0; 2 << 20];
    let new = Replicated { value: &[&value], ..ANY };
    assert_eq!(shard.apply_put(&Key::new(b"k\x01"), &new, NOW), Applied::TooLarge);
    assert_eq!(view(&mut shard, b"k\x01", NOW), None);
}

#[test]
fn a_touch_is_applied_to_the_item_that_is_meant_and_to_no_other() {
    let mut shard = roomy();
    let key = Key::new(b"k");
    set(&mut shard, b"k", b"v", 5);
    let deadline = Deadline::at(NOW.plus_millis(1_000));
    assert!(!shard.apply_touch(&key, 4, deadline, (false, true), NOW));
    assert!(!shard.apply_touch(&Key::new(b"other"), 5, deadline, (false, true), NOW));
    // Without a deadline before, with one, and with another mark that stands in the record.
    for marks in [(false, true), (false, false), (true, true), (true, false), (false, false)] {
        assert!(shard.apply_touch(&key, 5, deadline, marks, NOW));
        let it = view(&mut shard, b"k", NOW).unwrap();
        assert_eq!((it.cas, it.deadline, it.stale, it.win_sent), (5, deadline, marks.0, marks.1));
    }
    assert!(shard.apply_touch(&key, 5, Deadline::at(NOW), (false, false), NOW));
    assert_eq!(view(&mut shard, b"k", NOW), None);
}

#[test]
fn what_was_evicted_elsewhere_goes_if_it_is_the_same() {
    let mut shard = roomy();
    shard.set_noting_departures(true);
    set(&mut shard, b"k", b"v", 5);
    let hash = key_hash(b"k");
    assert!(!shard.remove_if_cas(hash, 4, NOW));
    assert!(!shard.remove_if_cas(KeyHash(hash.0 ^ 1), 5, NOW), "another key with the same tag");
    assert!(shard.remove_if_cas(hash, 5, NOW));
    assert_eq!(view(&mut shard, b"k", NOW), None);
    assert_eq!(departures(&mut shard), [(b"k".to_vec(), 5, DepartureReason::Evicted)]);
    assert_eq!(shard.counters().evicted, 0);
    shard.check();
}

#[test]
fn a_copy_that_hears_of_uses_evicts_as_its_origin_does() {
    let mut origin = shard_of(MIB, Kind::Lru, true);
    let mut copy = shard_of(MIB, Kind::Lru, true);
    origin.set_noting_uses(100);
    for n in 0..100u8 {
        set(&mut origin, &[b'k', n], &[n; 5_000], 1);
        set(&mut copy, &[b'k', n], &[n; 5_000], 1);
    }
    for n in 0..10u8 {
        origin.get(&Key::new(&[b'k', n]), NOW);
    }
    let mut uses = Vec::new();
    origin.take_uses(&mut uses);
    assert_eq!(uses.len(), 10);
    for &hash in &uses {
        assert!(copy.note_use(hash, NOW));
    }
    assert!(!copy.note_use(KeyHash(uses[0].0 ^ 1), NOW));
    for n in 100..250u8 {
        set(&mut copy, &[b'k', n], &[n; 5_000], 1);
    }
    assert!(copy.counters().evicted > 20);
    for n in 0..10u8 {
        let item = copy.peek(&Key::new(&[b'k', n]), NOW).unwrap();
        assert!(!item.fetched, "no client read it here");
    }
}

#[test]
fn of_more_reads_than_are_remembered_the_last_ones_are() {
    let mut shard = roomy();
    let mut uses = Vec::new();
    let hash = |n: u8| key_hash(&[b'k', n]);
    for n in 0..50 {
        set(&mut shard, &[b'k', n], b"v", 1);
    }
    let read = |shard: &mut Shard, n: u8| {
        shard.get(&Key::new(&[b'k', n]), NOW);
    };
    read(&mut shard, 0);
    shard.set_noting_uses(5);
    shard.take_uses(&mut uses);
    assert_eq!(uses, [], "nobody asked before");
    (0..20).for_each(|n| read(&mut shard, n));
    shard.take_uses(&mut uses);
    assert_eq!(uses, (12..20).map(hash).collect::<Vec<_>>(), "eight are remembered");
    (0..3).for_each(|n| read(&mut shard, n));
    shard.take_uses(&mut uses);
    assert_eq!(uses[8..], [hash(0), hash(1), hash(2)]);
    shard.set_noting_uses(0);
    read(&mut shard, 1);
    shard.take_uses(&mut uses);
    assert_eq!(uses.len(), 11);
}

/// Puts so many items into a shard; their keys.
fn some(shard: &mut Shard, count: u32) -> Vec<Vec<u8>> {
    let keys: Vec<Vec<u8>> = (0..count).map(|n| format!("key-{n}").into_bytes()).collect();
    for key in &keys {
        set(shard, key, key, 1);
    }
    keys
}

#[test]
fn a_walk_over_a_range_meets_its_items_once_whatever_the_slices_and_the_shards() {
    for shard_count in [1, 3, 4] {
        let geometry = Geometry { shard_count, ..Geometry::new(8 * MIB, MIB, 1) };
        let policy = Kind::Lru;
        let config = Config {
            geometry,
            item_bytes_max: MIB,
            policy,
            evicts: true,
            protected: store::Protected::NONE,
            shard: 0,
        };
        let mut shard = Shard::new(config);
        let keys: Vec<Vec<u8>> = some(&mut shard, 5_000)
            .into_iter()
            .filter(|key| {
                geometry.shard_of(key_hash(key)) == 0 || {
                    shard.delete(&Key::new(key), None, NOW);
                    false
                }
            })
            .collect();
        for (top, bits) in [(0, 0), (0, 6), (5, 6), (15, 6), (1, 10), (3, 14)] {
            let range = HashRange::with_top_bits(top, bits);
            let expected: Vec<_> =
                keys.iter().filter(|key| range.contains(key_hash(key))).collect();
            let mut sorted: Vec<_> = expected.into_iter().cloned().collect();
            sorted.sort();
            for entries in [1, 7, u32::MAX] {
                let met: Vec<_> = digest(&mut shard, &range, entries).into_keys().collect();
                assert_eq!(met, sorted, "{top} of {bits} bits, {entries} at once");
            }
        }
        shard.check();
    }
}

#[test]
fn what_stays_is_met_once_though_index_and_columns_are_built_anew() {
    let mut shard = roomy();
    let keys = some(&mut shard, 2_000);
    let mut met = BTreeMap::new();
    let (mut place, mut round) = (Some(RangePlace::default()), 0);
    let limit = SliceLimit { entries: 50, ..SliceLimit::NONE };
    while let Some(from) = place {
        place = shard.walk_range(&HashRange::ALL, from, limit, NOW, |it| {
            *met.entry(it.key.to_vec()).or_insert(0) += 1;
        });
        for n in 0..if round < 30 { 100 } else { 0 } {
            set(&mut shard, format!("new-{round}-{n}").as_bytes(), b"v", 1);
        }
        if round % 5 == 0 {
            shard.set_policy(Kind::ALL[round % Kind::ALL.len()], NOW);
        }
        round += 1;
    }
    assert!(round > 30 && shard.counters().evicted == 0);
    assert!(keys.iter().all(|key| met[key] == 1) && met.values().all(|&times| times == 1));
}

#[test]
fn a_slice_ends_when_its_values_are_enough() {
    let mut shard = shard_of(64 * MIB, Kind::Lru, true);
    for n in 0..100u8 {
        set(&mut shard, &[b'k', n], &[n; 100_000], 1);
    }
    let (mut place, mut slices) = (Some(RangePlace::default()), 0);
    let limit = SliceLimit { value_bytes: 500_000, entries: u32::MAX };
    while let Some(from) = place {
        let mut bytes = 0;
        place =
            shard.walk_range(&HashRange::ALL, from, limit, NOW, |it| bytes += it.item.value.len());
        assert!(bytes < 500_000 + 60 * 100_000, "{bytes}");
        slices += 1;
    }
    assert!(slices > 1);
}

#[test]
fn the_items_of_a_range_are_removed_and_no_other() {
    for entries_max in [1, 100, u32::MAX] {
        let mut shard = roomy();
        shard.set_noting_departures(true);
        let keys = some(&mut shard, 2_000);
        let range = HashRange::with_top_bits(3, 3);
        let mut place = Some(RangePlace::default());
        while let Some(from) = place {
            place = shard.remove_range(&range, from, entries_max, NOW);
        }
        for key in &keys {
            let is_there = view(&mut shard, key, NOW).is_some();
            assert_eq!(is_there, !range.contains(key_hash(key)));
        }
        assert!(!shard.has_departures(), "somebody asked");
        shard.check();
    }
}

#[test]
fn a_fingerprint_tells_whatever_a_client_can_tell() {
    let deadline = Deadline::at(NOW.plus_millis(9_000));
    let large = vec![3; 100_000];
    let others = [
        Replicated { client_flags: 1, ..ANY },
        Replicated { deadline, ..ANY },
        Replicated { cas: 2, ..ANY },
        Replicated { stale: true, ..ANY },
        Replicated { win_sent: true, ..ANY },
        Replicated { value: &[b"valuE"], ..ANY },
        Replicated { value: &[], ..ANY },
        Replicated { value: &[&large], ..ANY },
        ANY,
    ];
    let fingerprint = |shard: &mut Shard, new: &Replicated<'_>| {
        assert_eq!(shard.apply_put(&Key::new(b"k"), new, NOW), Applied::Stored);
        digest(shard, &HashRange::ALL, 1)[&b"k"[..]].0
    };
    // Segments of other sizes, and so parts of other lengths.
    let (mut here, mut there) = (roomy(), shard_of(64 * MIB, Kind::S3Fifo, true));
    let all: Vec<u64> = others.iter().map(|new| fingerprint(&mut here, new)).collect();
    let again: Vec<u64> = others.iter().map(|new| fingerprint(&mut there, new)).collect();
    assert_eq!(all, again);
    let distinct: std::collections::BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), others.len());
    assert_eq!(all[others.len() - 1], 7_874_252_204_884_995_410, "the same in every build");
}
