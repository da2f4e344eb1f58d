//! How fast a shard of the store reads and writes: below its memory, and when every write evicts.

use std::hint::black_box;

use benches::keyspace::{Keyspace, Popularity, Sampler};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eviction::Kind;
use rand::SeedableRng;
use rand::rngs::StdRng;
use store::{Config, Deadline, Geometry, Key, NewItem, Precondition, PutOutcome, Shard, Timestamp};

const MIB: u64 = 1 << 20;
const KEY_BYTES: usize = 24;
const VALUE: [u8; 100] = [b'v'; 100];
/// Enough that the items read do not stay in the processor's caches.
const READS: u64 = 100_000;
const WRITES: u64 = 1000;

/// Some moment; nothing expires here.
fn now() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn shard(memory_bytes: u64, policy: Kind) -> Shard {
    let geometry = Geometry::new(memory_bytes, MIB, 1);
    Shard::new(Config {
        geometry,
        item_bytes_max: MIB,
        policy,
        evicts: true,
        protected: store::Protected::NONE,
        shard: 0,
    })
}

fn keyspace(count: u64) -> Keyspace {
    Keyspace::new(count, KEY_BYTES).expect("so many keys fit 24 bytes")
}

fn put(shard: &mut Shard, keyspace: &Keyspace, index: u32) -> PutOutcome {
    let mut key = [0; KEY_BYTES];
    keyspace.write_key(index, &mut key);
    let new =
        NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[&VALUE], own_cas: None };
    shard.put(&Key::new(&key), &new, Precondition::None, now())
}

fn read(criterion: &mut Criterion) {
    let keyspace = keyspace(500_000);
    let mut shard = shard(256 * MIB, Kind::Lru);
    for index in 0..keyspace.count() {
        let outcome = put(&mut shard, &keyspace, index);
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "there is room: {outcome:?}");
    }
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(READS));
    for popularity in [Popularity::Uniform, Popularity::Zipf { exponent: 0.99 }] {
        let sampler = Sampler::new(&keyspace, popularity).expect("the exponent is one of Zipf's");
        let mut random = StdRng::seed_from_u64(7);
        let indexes: Vec<u32> = (0..READS).map(|_| sampler.sample(&mut random)).collect();
        let name = if popularity == Popularity::Uniform { "get-uniform" } else { "get-zipf" };
        group.bench_function(name, |bencher| {
            let mut key = [0; KEY_BYTES];
            bencher.iter(|| {
                for &index in &indexes {
                    keyspace.write_key(index, &mut key);
                    black_box(shard.get(&Key::new(&key), now()));
                }
            });
        });
    }
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    group.throughput(Throughput::Elements(WRITES));
    // Four times what 64 MiB hold: every insertion evicts once the shard is full.
    let keyspace = keyspace(2_000_000);
    for kind in Kind::ALL {
        let mut shard = shard(64 * MIB, kind);
        let mut next = 0;
        group.bench_function(format!("put-evicting-{}", kind.name()), |bencher| {
            bencher.iter(|| {
                for _ in 0..WRITES {
                    black_box(put(&mut shard, &keyspace, next));
                    next = (next + 1) % keyspace.count();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(all, read, write);
criterion_main!(all);
