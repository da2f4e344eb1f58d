//! What each policy costs per request, with the hits and misses that a cache of 10,000 entries has
//! under a zipf load over ten times as many keys.

use benches::keyspace::{Keyspace, Popularity, Sampler};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eviction::{EntryId, KeyHash, Kind, Policy};
use rand::SeedableRng;
use rand::rngs::StdRng;

const ENTRIES: u32 = 10_000;
const KEYS: u32 = 10 * ENTRIES;
const REQUESTS: u64 = 100_000;

/// A cache of keys alone, as a store is one of values: which entry each key has, and which are free.
struct Cache {
    policy: Box<dyn Policy>,
    entry_of: Vec<Option<EntryId>>,
    key_of: Vec<u32>,
    resident: u32,
}

impl Cache {
    fn new(kind: Kind) -> Self {
        Self {
            policy: kind.build(u64::from(ENTRIES), ENTRIES as usize),
            entry_of: vec![None; KEYS as usize],
            key_of: vec![0; ENTRIES as usize],
            resident: 0,
        }
    }

    /// A get, and after a miss the insertion. Whether it was a hit.
    fn request(&mut self, key: u32) -> bool {
        if let Some(entry) = self.entry_of[key as usize] {
            self.policy.on_hit(entry);
            return true;
        }
        // Spread as a hash would be: a multiplication by an odd number loses nothing.
        let hash = KeyHash(u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.policy.before_insert(hash, 1);
        let entry = if self.resident < ENTRIES {
            self.resident += 1;
            EntryId(self.resident - 1)
        } else {
            let victim = self.policy.evict().expect("a full cache has a victim");
            self.entry_of[self.key_of[victim.index()] as usize] = None;
            victim
        };
        self.policy.on_insert(entry, hash, 1);
        self.entry_of[key as usize] = Some(entry);
        self.key_of[entry.index()] = key;
        false
    }
}

fn request(criterion: &mut Criterion) {
    let keyspace = Keyspace::new(u64::from(KEYS), 24).expect("so many keys fit 24 bytes");
    let sampler = Sampler::new(&keyspace, Popularity::Zipf { exponent: 0.9 })
        .expect("the exponent is one of Zipf's law");
    let mut random = StdRng::seed_from_u64(7);
    let requests: Vec<u32> = (0..REQUESTS).map(|_| sampler.sample(&mut random)).collect();
    let mut group = criterion.benchmark_group("eviction");
    group.throughput(Throughput::Elements(REQUESTS));
    for kind in Kind::ALL {
        let mut cache = Cache::new(kind);
        group.bench_function(kind.name(), |bencher| {
            bencher.iter(|| requests.iter().filter(|&&key| cache.request(key)).count());
        });
    }
    group.finish();
}

criterion_group!(all, request);
criterion_main!(all);
