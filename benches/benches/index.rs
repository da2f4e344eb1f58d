//! How fast the index finds entries: in a table that fits the processor's caches, and in one that
//! does not.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eviction::EntryId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use store::index::Index;

/// Enough that those in the large table do not stay in the processor's caches.
const LOOKUPS: u64 = 100_000;
/// The index takes hashes of so many bits.
const HASH_BITS: u32 = 28;

/// An index of entries whose hashes are drawn at random, and these hashes.
fn filled(entries: u32) -> (Index, Vec<u32>) {
    let mut random = StdRng::seed_from_u64(7);
    let hashes: Vec<u32> = (0..entries).map(|_| random.random_range(0..1 << HASH_BITS)).collect();
    let mut index = Index::new();
    for (id, &hash) in (0..).zip(&hashes) {
        index.insert(hash, EntryId(id), |entry| hashes[entry.index()]);
    }
    (index, hashes)
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(LOOKUPS));
    for entries in [1_000_u32, 1_000_000] {
        let (mut index, hashes) = filled(entries);
        let mut random = StdRng::seed_from_u64(8);
        let wanted: Vec<EntryId> =
            (0..LOOKUPS).map(|_| EntryId(random.random_range(0..entries))).collect();
        group.bench_function(BenchmarkId::new("hit", entries), |bencher| {
            bencher.iter(|| {
                for &id in &wanted {
                    black_box(index.find(hashes[id.index()], |entry| entry == id));
                }
            });
        });
        group.bench_function(BenchmarkId::new("miss", entries), |bencher| {
            bencher.iter(|| {
                for &id in &wanted {
                    // Another key with the same bucket and, in one of 256 cases, the same tag.
                    black_box(index.find(hashes[id.index()] ^ 0x55, |_| false));
                }
            });
        });
        group.bench_function(BenchmarkId::new("remove-and-insert", entries), |bencher| {
            bencher.iter(|| {
                for &id in &wanted {
                    let hash = hashes[id.index()];
                    index.remove(hash, id);
                    index.insert(hash, id, |entry| hashes[entry.index()]);
                }
            });
        });
    }
    group.bench_function("grow-to-100000", |bencher| {
        bencher.iter_batched(|| (), |()| filled(100_000), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(all, find);
criterion_main!(all);
