//! What reclaiming memory costs a full store: bytes moved for each byte written, and how long a write takes.
//!
//! ```text
//! cargo bench -p benches --bench cleaning [POLICY ...]
//! ```
//!
//! All shards of a server with `-m 1024 -t 2` under items of mixed sizes, four times what fits, whose popularity
//! is Zipf's (exponent 0.99), one operation after the other in one thread:
//!
//! - `look-aside` gets, and writes what it misses: what a cache in front of a database does;
//! - `half sets` writes every other time, whether the item is there or not: most writes replace.
//!
//! Figures begin once as much was written as the memory holds, so that every write finds it full, and cover twice
//! the memory again. A write's time is that of `put` by the wall clock, evictions and its share of cleaning
//! included; whatever else the machine does in these microseconds is in it too.
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::process::ExitCode;
use std::time::Duration;

use benches::clock;
use benches::keyspace::{Keyspace, Popularity, Sampler};
use eviction::Kind;
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use store::{Config, Deadline, Geometry, Key, NewItem, Precondition, Shard, Timestamp};

const MEMORY_BYTES: u64 = 1 << 30;
const ITEM_BYTES_MAX: u64 = 1 << 20;
const THREADS: u32 = 2;
const KEY_BYTES: usize = 24;
/// Sizes are drawn evenly by their logarithm, so that each power of two has as many items.
const VALUE_BYTES_MIN: u32 = 32;
const VALUE_BYTES_MAX: u32 = 16_384;
const DATA_BYTES: u64 = 4 * MEMORY_BYTES;

/// What is done to the store.
#[derive(Clone, Copy)]
enum Load {
    LookAside,
    HalfSets,
}

impl Load {
    const ALL: [Self; 2] = [Self::LookAside, Self::HalfSets];

    fn name(self) -> &'static str {
        match self {
            Self::LookAside => "look-aside",
            Self::HalfSets => "half sets",
        }
    }
}

/// The shards of a server, and what is written to them.
struct Store {
    geometry: Geometry,
    shards: Vec<Shard>,
    keyspace: Keyspace,
    value: Vec<u8>,
}

impl Store {
    fn new(policy: Kind) -> Self {
        let geometry = Geometry::new(MEMORY_BYTES, ITEM_BYTES_MAX, THREADS);
        let shard = |shard| {
            let item_bytes_max = ITEM_BYTES_MAX;
            Shard::new(Config {
                geometry,
                item_bytes_max,
                policy,
                evicts: true,
                protected: store::Protected::NONE,
                shard,
            })
        };
        let mean = f64::from(VALUE_BYTES_MAX - VALUE_BYTES_MIN) / ratio().ln();
        let keys = DATA_BYTES / rounded(mean) as u64;
        Self {
            geometry,
            shards: (0..geometry.shard_count).map(shard).collect(),
            keyspace: Keyspace::new(keys, KEY_BYTES).expect("so many keys fit 24 bytes"),
            value: vec![b'v'; VALUE_BYTES_MAX as usize],
        }
    }

    fn with_key<T>(&mut self, index: u32, act: impl FnOnce(&mut Shard, &Key<'_>, &[u8]) -> T) -> T {
        let mut bytes = [0; KEY_BYTES];
        self.keyspace.write_key(index, &mut bytes);
        let key = Key::new(&bytes);
        let shard = &mut self.shards[self.geometry.shard_of(key.hash()) as usize];
        act(shard, &key, &self.value[..value_bytes(index)])
    }

    fn has(&mut self, index: u32) -> bool {
        self.with_key(index, |shard, key, _| shard.get(key, now()).is_some())
    }

    /// Writes the item of a key; how long that took.
    fn put(&mut self, index: u32) -> Duration {
        self.with_key(index, |shard, key, value| {
            let (client_flags, deadline) = (0, Deadline::NEVER);
            let new = NewItem { client_flags, deadline, value: &[value], own_cas: None };
            let since = clock::now();
            shard.put(key, &new, Precondition::None, now());
            since.elapsed()
        })
    }

    /// Bytes written and moved so far.
    fn bytes(&self) -> (u64, u64) {
        let counters = self.shards.iter().map(Shard::counters);
        counters.fold((0, 0), |(written, moved), it| {
            (written + it.written_bytes, moved + it.moved_bytes)
        })
    }
}

/// Some moment; nothing expires here.
fn now() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

/// The size of an item, the same whenever it is written.
fn value_bytes(index: u32) -> usize {
    // Multiplied by 2^32 over the golden section, neighbours spread evenly over all sizes.
    let share = f64::from(index.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX);
    rounded(f64::from(VALUE_BYTES_MIN) * ratio().powf(share)).min(VALUE_BYTES_MAX as usize)
}

/// How much larger the largest value is than the smallest.
fn ratio() -> f64 {
    f64::from(VALUE_BYTES_MAX) / f64::from(VALUE_BYTES_MIN)
}

#[expect(clippy::cast_possible_truncation, reason = "sizes of values are small and positive")]
fn rounded(bytes: f64) -> usize {
    bytes.round() as usize
}

fn measure(policy: Kind, load: Load) {
    let mut store = Store::new(policy);
    let sampler = Sampler::new(&store.keyspace, Popularity::Zipf { exponent: 0.99 })
        .expect("the exponent is one of Zipf's");
    let mut random = StdRng::seed_from_u64(7);
    let mut writes = Histogram::<u64>::new(3).expect("three digits are counted");
    let mut before = None;
    loop {
        let (written, moved) = store.bytes();
        match before {
            None if written > MEMORY_BYTES => before = Some((written, moved)),
            Some((from, moved_before)) if written - from > 2 * MEMORY_BYTES => {
                let factor = (moved - moved_before) as f64 / (written - from) as f64;
                return tell(policy, load, factor, &writes);
            }
            _ => {}
        }
        for _ in 0..10_000 {
            let index = sampler.sample(&mut random);
            let writes_it = match load {
                Load::LookAside => !store.has(index),
                Load::HalfSets => random.random() || !store.has(index),
            };
            if writes_it {
                let took = store.put(index);
                if before.is_some() {
                    writes.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                }
            }
        }
    }
}

fn tell(policy: Kind, load: Load, factor: f64, writes: &Histogram<u64>) {
    let us = |quantile| writes.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{:<12}{:<12}{factor:>8.2}{:>12.1}{:>12.1}{:>12.1}{:>12.1}",
        policy.name(),
        load.name(),
        us(0.5),
        us(0.99),
        us(0.999),
        writes.max() as f64 / 1000.0,
    );
}

fn main() -> ExitCode {
    // Cargo says `--bench`; `cargo test` runs benchmarks too, and wants no more than that this one starts.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let named: Vec<&str> =
        words.iter().map(String::as_str).filter(|it| !it.starts_with('-')).collect();
    let is_meant = |kind: &Kind| named.is_empty() || named.contains(&kind.name());
    let policies: Vec<Kind> = Kind::ALL.into_iter().filter(is_meant).collect();
    if policies.is_empty() {
        println!("no such policy: {}", named.join(" "));
        return ExitCode::FAILURE;
    }
    println!(
        "{:<12}{:<12}{:>8}{:>12}{:>12}{:>12}{:>12}",
        "policy", "load", "moved", "p50 us", "p99 us", "p99.9 us", "max us"
    );
    for policy in policies {
        for load in Load::ALL {
            measure(policy, load);
        }
    }
    ExitCode::SUCCESS
}
