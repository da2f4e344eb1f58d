//! Many threads that want one item: through its shard's lock alone, and with copies of what they found there.
//!
//! ```text
//! cargo bench -p benches --bench contention
//! ```
//!
//! - `hold`: how long one get keeps its shard's lock, the answer written under it. By Amdahl's law the key that
//!   takes the share s of all requests lets through 1 / (s * hold) requests a second, whatever the cores.
//! - `one key in ten` and `one key alone`: threads that all read, more of them than there are cores, so that the
//!   lock's holder is now and then one that does not run; the time is that of one request of any thread, over all
//!   cores together. One request in twenty writes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use cache_server::Config;
use cache_server::service::encode_value;
use cache_server::shards::Shards;
use cache_server::shards::hot::HotItems;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use store::{Deadline, Key, NewItem, Precondition, Shard, Timestamp};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const KEYS: u32 = 100_000;
const VALUE: &[u8] = &[b'v'; 100];
const THREADS: [usize; 3] = [2, 8, 32];
/// Of so many requests one writes.
const READS_TO_A_WRITE: u32 = 19;

fn key_of(n: u32) -> [u8; 24] {
    let mut key = [b'k'; 24];
    key[14..].copy_from_slice(format!("{n:010}").as_bytes());
    key
}

fn put(shards: &Shards, key: &Key<'_>) {
    let new =
        NewItem { client_flags: 0, deadline: Deadline::NEVER, value: &[VALUE], own_cas: None };
    shards.lock(key).put(key, &new, Precondition::None, NOW);
}

fn filled() -> Shards {
    let threads = NonZeroUsize::new(4).expect("more than none");
    let shards = Shards::new(&Config { threads, ..Config::default() });
    (0..KEYS).for_each(|n| put(&shards, &Key::new(&key_of(n))));
    shards
}

/// Answers from the shard.
fn answer(shard: &mut Shard, key: &Key<'_>, out: &mut Vec<u8>) {
    let Some(item) = shard.get(key, NOW) else { return };
    let asked = protocol::Key::new(key.bytes()).expect("a key");
    encode_value(asked, &item, false, out);
}

/// As a worker reads.
fn read(shards: &Shards, hot: Option<&mut HotItems>, key: &Key<'_>, out: &mut Vec<u8>) {
    out.clear();
    let Some(hot) = hot else { return answer(&mut shards.lock(key), key, out) };
    let mut batch = shards.batch();
    if let Some(mut shard) = batch.try_lock(key) {
        return answer(&mut shard, key, out);
    }
    if let Some(copied) = hot.answer(shards, key, false, NOW) {
        return out.extend_from_slice(copied);
    }
    let mut shard = batch.lock(key);
    answer(&mut shard, key, out);
    hot.keep(shards, &mut shard, key, false, NOW, out);
}

/// One thread's requests: `hot_permille` of them for one key.
fn requests(shards: &Shards, copies: bool, hot_permille: u32, seed: u64, count: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut hot = copies.then(HotItems::default);
    let mut out = Vec::with_capacity(1024);
    for _ in 0..count {
        let is_hot = random.random_range(0..1000) < hot_permille;
        let key = key_of(if is_hot { 7 } else { random.random_range(0..KEYS) });
        let key = Key::new(&key);
        if random.random_range(0..=READS_TO_A_WRITE) == 0 {
            put(shards, &key);
        } else {
            read(shards, hot.as_mut(), &key, &mut out);
            black_box(&out);
        }
    }
}

fn hold(criterion: &mut Criterion) {
    let shards = filled();
    let key = key_of(7);
    let key = Key::new(&key);
    let mut out = Vec::with_capacity(1024);
    let mut shard = shards.lock(&key);
    criterion.bench_function("hold", |bencher| {
        bencher.iter(|| {
            out.clear();
            answer(&mut shard, black_box(&key), &mut out);
        });
    });
}

fn contention(criterion: &mut Criterion) {
    let shards = filled();
    for (name, hot_permille) in [("one key in ten", 100), ("one key alone", 1000)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for (way, copies) in [("lock", false), ("copies", true)] {
            for threads in THREADS {
                group.bench_function(BenchmarkId::new(way, threads), |bencher| {
                    bencher.iter_custom(|count| {
                        let each = count.div_ceil(threads as u64);
                        let begun = benches::clock::now();
                        thread::scope(|scope| {
                            for seed in 0..threads as u64 {
                                let shards = &shards;
                                scope.spawn(move || {
                                    requests(shards, copies, hot_permille, seed, each);
                                });
                            }
                        });
                        begun.elapsed()
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = hold, contention
}
criterion_main!(benches);
