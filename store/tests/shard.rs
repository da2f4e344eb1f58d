//! What a shard promises, one situation at a time.

use std::thread;

use eviction::Kind;
use store::{
    Config, Deadline, Delta, DeltaOutcome, Geometry, Invalidation, Key, NewItem, PINNED_BYTES_MIN,
    PinnedValue, Precondition, PutOutcome, Shard, Timestamp,
};

const MIB: u64 = 1 << 20;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn shard_of(memory_bytes: u64, policy: Kind) -> Shard {
    shard_with(Config { policy, ..config(memory_bytes) })
}

fn shard_with(config: Config) -> Shard {
    Shard::new(config)
}

fn config(memory_bytes: u64) -> Config {
    let geometry = Geometry::new(memory_bytes, memory_bytes / 8, 1);
    assert_eq!(geometry.shard_count, 1);
    let item_bytes_max = memory_bytes / 8;
    Config {
        geometry,
        item_bytes_max,
        policy: Kind::Lru,
        evicts: true,
        protected: store::Protected::NONE,
        shard: 0,
    }
}

fn put(shard: &mut Shard, key: &str, value: &[u8]) -> PutOutcome {
    put_with(shard, key, value, Deadline::NEVER)
}

fn put_with(shard: &mut Shard, key: &str, value: &[u8], deadline: Deadline) -> PutOutcome {
    let new = NewItem { client_flags: 0, deadline, value: &[value], own_cas: None };
    shard.put(&Key::new(key.as_bytes()), &new, Precondition::None, NOW)
}

fn get(shard: &mut Shard, key: &str) -> Option<Vec<u8>> {
    shard.get(&Key::new(key.as_bytes()), NOW).map(|item| item.value.to_vec())
}

/// Items of equal size, until the shard has evicted some; returns how many fit.
fn fill(shard: &mut Shard, value_bytes: usize) -> u64 {
    let value = vec![7; value_bytes];
    let mut n = 0;
    while shard.counters().evicted == 0 {
        put(shard, &format!("fill-{n:08}"), &value);
        n += 1;
    }
    shard.items()
}

#[test]
fn the_least_recently_used_item_leaves_first() {
    let mut shard = shard_of(MIB, Kind::Lru);
    // Larger than what comes after, so that one victim makes room enough.
    put(&mut shard, "first", &[1; 500]);
    put(&mut shard, "second", &[2; 500]);
    assert!(get(&mut shard, "first").is_some());
    fill(&mut shard, 100);
    assert_eq!(get(&mut shard, "second"), None);
    assert!(get(&mut shard, "first").is_some());
}

#[test]
fn a_shard_evicts_no_earlier_than_its_memory_is_full() {
    let mut shard = shard_of(8 * MIB, Kind::Lru);
    fill(&mut shard, 100);
    let budget = shard.budget();
    assert!(budget.used_bytes() > budget.bytes_max() - 1000);
    assert!(shard.resident_bytes() <= 8 * MIB);
}

#[test]
fn a_value_of_a_megabyte_survives_cleaning_around_it() {
    let mut shard = shard_of(8 * MIB, Kind::Lru);
    let large: Vec<u8> = (0..MIB - 100).map(|n| (n % 251) as u8).collect();
    assert!(matches!(put(&mut shard, "large", &large), PutOutcome::Stored { .. }));
    for n in 0..100_000usize {
        // Half of the items are overwritten again and again, so segments are cleaned, not just freed.
        put(&mut shard, &format!("key-{}", n % 997 * (n % 3)), &[7; 3000]);
        if n % 100 == 0 {
            assert_eq!(get(&mut shard, "large").as_ref(), Some(&large), "after {n} writes");
        }
    }
    assert!(shard.counters().moved_bytes > 0, "the cleaner had work");
    shard.check();
}

#[test]
fn items_may_change_their_size_for_good() {
    let mut shard = shard_of(8 * MIB, Kind::Lru);
    let many_small = fill(&mut shard, 1);
    assert!(many_small > 80_000);
    let value = vec![7; 50_000];
    for n in 0..1000 {
        put(&mut shard, &format!("large-{n}"), &value);
    }
    // No memory stays with a size that is gone: what was idle is given back once it is an eighth of what fits from the start.
    let mut fresh = shard_of(8 * MIB, Kind::Lru);
    let from_start = fill(&mut fresh, 50_000);
    assert!(shard.items() * 10 >= from_start * 8, "{} of {from_start}", shard.items());
    assert!(shard.resident_bytes() <= 8 * MIB);
    shard.check();
}

#[test]
fn a_counter_of_unchanged_width_and_a_deadline_are_changed_in_place() {
    let mut shard = shard_of(MIB, Kind::Lru);
    put_with(&mut shard, "counter", b"10", Deadline::at(NOW.plus_millis(60_000)));
    let written = shard.counters().written_bytes;
    let key = Key::new(b"counter");
    let changed = shard.add_delta(&key, Delta::Increment(5), None, None, None, NOW);
    assert!(matches!(changed, DeltaOutcome::Changed { value: 15, .. }));
    assert!(shard.touch(&key, Deadline::at(NOW.plus_millis(90_000)), NOW));
    assert_eq!(shard.counters().written_bytes, written);
    assert!(shard.get(&key, NOW.plus_millis(89_999)).is_some());
    assert!(shard.get(&key, NOW.plus_millis(90_000)).is_none());
    shard.check();
}

#[test]
fn a_counter_stays_stale_whether_or_not_it_grows_a_digit() {
    for start in [b"7", b"9"] {
        let mut shard = shard_of(MIB, Kind::Lru);
        put(&mut shard, "counter", start);
        let key = Key::new(b"counter");
        let change = Invalidation { mark_stale: true, ..Invalidation::default() };
        shard.invalidate(&key, None, change, NOW);
        shard.add_delta(&key, Delta::Increment(1), None, None, None, NOW);
        assert!(shard.get(&key, NOW).is_some_and(|item| item.stale));
    }
}

#[test]
fn a_shard_that_may_not_evict_refuses_and_keeps_what_it_has() {
    let mut shard = shard_with(Config { evicts: false, ..config(MIB) });
    let mut stored = 0;
    while matches!(put(&mut shard, &format!("key-{stored}"), &[1; 1000]), PutOutcome::Stored { .. })
    {
        stored += 1;
    }
    assert!(stored > 500);
    for n in 0..stored {
        assert!(get(&mut shard, &format!("key-{n}")).is_some(), "key-{n}");
    }
    assert_eq!(shard.counters().evicted, 0);
    assert!(shard.delete(&Key::new(b"key-0"), None, NOW) == store::DeleteOutcome::Deleted);
    assert!(matches!(put(&mut shard, "again", &[1; 1000]), PutOutcome::Stored { .. }));
}

#[test]
fn an_item_beyond_the_limit_is_refused_and_what_was_there_is_gone() {
    let mut shard = shard_of(8 * MIB, Kind::Lru);
    put(&mut shard, "key", b"old");
    assert_eq!(put(&mut shard, "key", &[0; 1 << 20]), PutOutcome::TooLarge);
    assert_eq!(get(&mut shard, "key"), None);
}

#[test]
fn a_flush_takes_what_was_written_before_its_time_and_nothing_later() {
    let mut shard = shard_of(MIB, Kind::Lru);
    put(&mut shard, "before", b"1");
    let at = NOW.plus_millis(2_000);
    shard.flush_all(at, NOW);
    assert!(get(&mut shard, "before").is_some(), "not yet");
    put(&mut shard, "meanwhile", b"2");
    assert!(shard.get(&Key::new(b"before"), at).is_none());
    assert!(shard.get(&Key::new(b"meanwhile"), at).is_none());
    let new = NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[b"3"], own_cas: None };
    shard.put(&Key::new(b"after"), &new, Precondition::None, at);
    assert!(shard.get(&Key::new(b"after"), at.plus_millis(1)).is_some());
}

#[test]
fn the_sweep_gives_the_memory_of_expired_items_back() {
    let mut shard = shard_of(MIB, Kind::Lru);
    for n in 0..1000 {
        put_with(&mut shard, &format!("key-{n}"), &[1; 100], Deadline::at(NOW.plus_millis(1 + n)));
    }
    let half = NOW.plus_millis(500);
    while !shard.sweep(half, 64).wrapped {}
    assert_eq!(shard.items(), 500);
    assert_eq!(shard.counters().swept_expired, 500);
    shard.check();
}

#[test]
fn a_policy_is_changed_while_the_items_stay() {
    for kind in Kind::ALL {
        let mut shard = shard_of(MIB, Kind::Lru);
        let items = fill(&mut shard, 100);
        shard.set_policy(kind, NOW);
        assert!(shard.items() * 10 >= items * 7, "{kind}: a greater overhead costs a few items");
        fill(&mut shard, 100);
        shard.check();
    }
}

#[test]
fn cleaning_moves_a_bounded_share_under_look_aside_load() {
    for kind in Kind::ALL {
        let mut shard = shard_of(8 * MIB, kind);
        let mut seed = 1u64;
        let value = vec![1; 3100];
        for _ in 0..200_000 {
            // A cheap skewed choice: the product of two uniform numbers.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let [a, b] =
                [(seed >> 33) % 200, (seed >> 48) % 200].map(|n| usize::try_from(n).unwrap());
            let key = format!("key-{}", a * b);
            if get(&mut shard, &key).is_none() {
                put(&mut shard, &key, &value[..100 + a * b % 3000]);
            }
        }
        let counters = shard.counters();
        let moved = counters.moved_bytes as f64 / counters.written_bytes as f64;
        assert!(moved < 4.0, "{kind}: {moved:.2} bytes moved for each byte written");
        assert_eq!(counters.evicted_by_log, 0, "{kind}: the budget left the log room");
    }
}

#[test]
fn the_log_has_room_for_what_the_budget_admits_however_small_the_items() {
    for kind in Kind::ALL {
        for value_bytes in [1, 20, 60, 300, 1900] {
            let mut shard = shard_of(MIB, kind);
            let value = vec![1; value_bytes];
            for n in 0..25_000u64 {
                // Two of three writes are new, the third overwrites one of the last.
                let key = if n % 3 == 0 { n.saturating_sub(1 + n % 500) } else { n };
                put(&mut shard, &key.to_string(), &value);
            }
            assert_eq!(shard.counters().evicted_by_log, 0, "{kind}, {value_bytes} bytes");
            assert!(shard.resident_bytes() <= MIB, "{kind}, {value_bytes} bytes");
            shard.check();
        }
    }
}

#[test]
fn writes_of_any_size_end() {
    // Sizes around the largest record in one piece waste the most at the ends of segments.
    for value_bytes in [3_900, 4_050, 7_800, 8_200, 12_000, 60_000] {
        let mut shard = shard_of(8 * MIB, Kind::Lru);
        let value = vec![1; value_bytes];
        for n in 0..20_000u64 {
            // Every other item is read again before it would leave, so live and dead mix.
            get(&mut shard, &(n / 2 * 2).saturating_sub(100).to_string());
            put(&mut shard, &n.to_string(), &value);
        }
        let counters = shard.counters();
        assert_eq!(counters.evicted_by_log, 0, "{value_bytes} bytes");
        assert!(counters.moved_bytes < 4 * counters.written_bytes, "{value_bytes} bytes");
        shard.check();
    }
}

#[test]
fn memory_may_shrink_and_grow_while_the_shard_serves() {
    let mut shard = shard_of(8 * MIB, Kind::WTinyLfu);
    let geometry = config(8 * MIB).geometry;
    let large = fill(&mut shard, 1000);
    shard.set_geometry(geometry.with_memory(4 * MIB), NOW);
    let small = shard.items();
    assert!(small * 100 < large * 51 && small * 100 > large * 47, "{small} of {large}");
    assert!(shard.resident_bytes() <= 4 * MIB, "{} bytes", shard.resident_bytes());
    shard.check();
    shard.set_geometry(geometry.with_memory(16 * MIB), NOW);
    assert_eq!(shard.items(), small);
    for n in 0..20_000 {
        put(&mut shard, &format!("again-{n}"), &[1; 1000]);
    }
    assert!(shard.items() * 10 > large * 18, "{} where {large} were", shard.items());
    assert!(shard.resident_bytes() <= 16 * MIB);
    shard.check();
}

#[test]
fn a_shard_full_of_tiny_items_takes_a_large_one() {
    let mut shard = shard_of(MIB, Kind::Lru);
    fill(&mut shard, 1);
    let large = vec![7; 100_000];
    assert!(matches!(put(&mut shard, "large", &large), PutOutcome::Stored { .. }));
    assert_eq!(get(&mut shard, "large"), Some(large));
    assert!(shard.items() > 1000, "it took room, not everything");
    shard.check();
}

#[test]
fn an_item_of_the_largest_size_may_be_given_a_deadline() {
    let config = config(MIB);
    let mut shard = shard_with(config);
    let mut value = vec![7; usize::try_from(config.item_bytes_max).unwrap()];
    while !matches!(put(&mut shard, "k", &value), PutOutcome::Stored { .. }) {
        value.pop();
    }
    assert!(shard.touch(&Key::new(b"k"), Deadline::at(NOW.plus_millis(1000)), NOW));
    assert!(shard.get(&Key::new(b"k"), NOW.plus_millis(1000)).is_none());
}

/// The value of an item as it stands in its segment.
fn pin(shard: &mut Shard, key: &str) -> Option<PinnedValue> {
    shard.get(&Key::new(key.as_bytes()), NOW)?.value.pin()
}

fn bytes_of(pinned: &PinnedValue) -> Vec<u8> {
    pinned.pieces().flatten().copied().collect()
}

#[test]
fn a_pinned_value_stays_as_it_is_whatever_becomes_of_its_item() {
    for kind in Kind::ALL {
        let mut shard = shard_of(MIB, kind);
        let large: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        assert!(matches!(put(&mut shard, "large", &large), PutOutcome::Stored { .. }));
        let pinned = pin(&mut shard, "large").expect("it is long enough");
        put(&mut shard, "large", b"short");
        // Whoever has something pinned waits for nothing: the shard may be waiting for it.
        let reader = thread::spawn(move || {
            for _ in 0..100 {
                assert_eq!(bytes_of(&pinned), large, "{kind:?}");
                thread::yield_now();
            }
        });
        // Everything is written over several times.
        for n in 0..5_000 {
            put(&mut shard, &format!("key-{n}"), &[7; 2000]);
        }
        shard.check();
        reader.join().unwrap();
        let before = shard.items();
        for n in 5_000..10_000 {
            assert!(matches!(
                put(&mut shard, &format!("key-{n}"), &[7; 2000]),
                PutOutcome::Stored { .. }
            ));
        }
        assert!(shard.items() * 10 >= before * 9, "its room is used again");
        shard.check();
    }
}

#[test]
fn a_short_value_is_not_pinned() {
    let mut shard = shard_of(MIB, Kind::Lru);
    put(&mut shard, "short", &[1; PINNED_BYTES_MIN - 1]);
    put(&mut shard, "long", &[1; PINNED_BYTES_MIN]);
    assert!(pin(&mut shard, "short").is_none());
    assert!(pin(&mut shard, "long").is_some());
}

#[test]
fn a_shard_whose_segments_are_all_pinned_writes_on_as_soon_as_they_are_not() {
    let mut shard = shard_of(MIB, Kind::Lru);
    fill(&mut shard, 5000);
    let pinned: Vec<_> =
        (0..1000).filter_map(|n| pin(&mut shard, &format!("fill-{n:08}"))).collect();
    assert!(pinned.len() > 50, "most of the shard is pinned");
    let reader = thread::spawn(move || {
        for pinned in pinned {
            assert!(bytes_of(&pinned).iter().all(|&byte| byte == 7));
            thread::yield_now();
        }
    });
    for n in 0..2_000 {
        let outcome = put(&mut shard, &format!("new-{n}"), &[8; 5000]);
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "{n}: {outcome:?}");
    }
    reader.join().unwrap();
    shard.check();
}

#[test]
fn what_is_pinned_outlives_its_shard() {
    let mut shard = shard_of(MIB, Kind::Lru);
    put(&mut shard, "large", &[9; 50_000]);
    let pinned = pin(&mut shard, "large").unwrap();
    drop(shard);
    assert_eq!(bytes_of(&pinned), [9; 50_000]);
}
