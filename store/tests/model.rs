//! Random steps of a client against a shard and its model; see `pair.rs`.

mod pair;

use eviction::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::pair::{Op, Pair, Rule};

fn ttl() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 2 => (0..20_000u64).prop_map(Some)]
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..40u8;
    let bytes = prop_oneof![6 => 0..300usize, 2 => 300..6_000usize, 1 => 6_000..90_000usize];
    let rule = prop_oneof![
        4 => Just(Rule::Set),
        1 => Just(Rule::Add),
        1 => Just(Rule::Replace),
        1 => any::<bool>().prop_map(Rule::Cas),
    ];
    let flags = prop_oneof![2 => Just(0), 1 => any::<u32>()];
    let own_cas = prop_oneof![6 => Just(None), 1 => any::<u64>().prop_map(Some)];
    prop_oneof![
        10 => (key.clone(), rule, bytes.clone(), flags, ttl(), own_cas).prop_map(
            |(key, rule, bytes, client_flags, ttl_ms, own_cas)| Op::Put { key, rule, bytes, client_flags, ttl_ms, own_cas }),
        3 => (key.clone(), any::<bool>(), bytes).prop_map(|(key, back, bytes)| Op::Concat { key, back, bytes }),
        2 => (key.clone(), any::<u64>()).prop_map(|(key, value)| Op::Number { key, value }),
        3 => (key.clone(), any::<bool>(), prop_oneof![0..20u64, any::<u64>()]).prop_map(|(key, up, by)| Op::Delta { key, up, by }),
        3 => (key.clone(), ttl()).prop_map(|(key, ttl_ms)| Op::Touch { key, ttl_ms }),
        3 => (key.clone(), any::<Option<bool>>()).prop_map(|(key, right_cas)| Op::Delete { key, right_cas }),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, drop_value)| Op::Invalidate { key, drop_value }),
        10 => key.prop_map(|key| Op::Get { key }),
        2 => (0..5_000u64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Sweep),
        1 => (0..3_000u64).prop_map(|in_ms| Op::Flush { in_ms }),
        1 => prop::sample::select(&Kind::ALL[..]).prop_map(Op::SetPolicy),
    ]
}

/// Steps, with the end of the process now and then.
fn op_or_end() -> impl Strategy<Value = Op> {
    prop_oneof![20 => op(), 1 => Just(Op::Kill), 1 => Just(Op::Restart)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_with_room_answers_like_a_map(ops in vec(op(), 0..300)) {
        let mut pair = Pair::new(64 << 20, Kind::Lru, false);
        for op in &ops {
            pair.apply(op);
        }
        pair.check();
    }

    #[test]
    fn a_shard_whose_writes_are_counted_elsewhere_answers_alike(ops in vec(op(), 0..300)) {
        let mut pair = Pair::new(64 << 20, Kind::Lru, false).with_own_cas();
        for op in &ops {
            pair.apply(op);
        }
        pair.check();
    }

    #[test]
    fn a_shard_in_a_file_outlives_its_process(
        ops in vec(op_or_end(), 0..300), kind in prop::sample::select(&Kind::ALL[..]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut pair = Pair::in_file(&folder.path().join("cache"), 16 << 20, kind, false);
        for op in &ops {
            pair.apply(op);
        }
        pair.apply(&Op::Kill);
    }

    #[test]
    fn a_full_shard_in_a_file_outlives_its_process(
        ops in vec(op_or_end(), 0..600), kind in prop::sample::select(&Kind::ALL[..]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut pair = Pair::in_file(&folder.path().join("cache"), 640 << 10, kind, true);
        for op in &ops {
            pair.apply(op);
        }
        pair.apply(&Op::Kill);
        pair.check();
    }

    #[test]
    fn a_full_shard_answers_like_a_map_that_may_forget(
        ops in vec(op(), 0..600), kind in prop::sample::select(&Kind::ALL[..]),
    ) {
        let mut pair = Pair::new(640 << 10, kind, true);
        for op in &ops {
            pair.apply(op);
        }
        pair.check();
    }
}

/// Bytes of a value begin anywhere, so one of these begins with a blank.
#[test]
fn a_number_with_much_behind_it_is_none() {
    let mut pair = Pair::new(640 << 10, Kind::Lru, true);
    for _ in 0..251 {
        pair.apply(&Op::Number { key: 0, value: 7 });
        pair.apply(&Op::Concat { key: 0, back: true, bytes: 1639 });
        pair.apply(&Op::Delta { key: 0, up: true, by: 1 });
    }
    pair.check();
}
