//! Writes, deletes and TTLs against two models: a cache as a textbook draws it, and the store itself.

use proptest::collection::vec;
use proptest::prelude::*;
use store::{Config, Deadline, Delta, End, Key, NewItem, Precondition, Shard, Timestamp};

use super::*;
use crate::fill::FirstWrites;

/// An LRU cache as a textbook draws it: a row of items, the one used last at the end.
struct Textbook {
    capacity: u64,
    expiry: Expiry,
    row: Vec<Item>,
}

/// An item of the textbook's row.
#[derive(Clone, Copy)]
struct Item {
    key: u64,
    bytes: u64,
    until_s: u64,
}

impl Textbook {
    fn take(&mut self, key: u64, now_s: u64) -> Option<Item> {
        let place = self.row.iter().position(|item| item.key == key)?;
        let item = self.row.remove(place);
        (item.until_s > now_s).then_some(item)
    }

    fn put(&mut self, item: Item) {
        if item.bytes <= self.capacity {
            self.row.push(item);
        }
        while self.row.iter().map(|item| item.bytes).sum::<u64>() > self.capacity {
            self.row.remove(0);
        }
    }

    /// The new item of a request.
    fn item(&self, request: &Request) -> Item {
        let expires = request.ttl_s > 0 && self.expiry != Expiry::Ignore;
        let until_s = u64::from(request.time_s) + u64::from(request.ttl_s);
        let bytes = u64::from(request.size_bytes) + u64::from(request.key_bytes) + 3;
        Item { key: request.key.0, bytes, until_s: if expires { until_s } else { u64::MAX } }
    }

    fn hit(&mut self, request: &Request) -> Option<bool> {
        let now_s = u64::from(request.time_s);
        if self.expiry == Expiry::Eager {
            self.row.retain(|item| item.until_s > now_s);
        }
        let new = self.item(request);
        // What cannot be written leaves what is there as it was, where something had to be there: unused, too.
        let has_to_be_there = match request.op {
            Op::Replace | Op::Cas => true,
            Op::Append | Op::Prepend => request.fills,
            _ => false,
        };
        let is_there = self.row.iter().any(|it| it.key == new.key && it.until_s > now_s);
        if has_to_be_there && is_there && new.bytes > self.capacity {
            return None;
        }
        let found = self.take(request.key.0, now_s);
        let after = match (request.op, found) {
            (Op::Get | Op::GetAndTouch, None) => Some(new).filter(|_| request.fills),
            (Op::Get, Some(found)) => Some(found),
            (Op::GetAndTouch | Op::Touch, Some(found)) => {
                Some(Item { until_s: new.until_s, ..found })
            }
            (Op::Set, _) | (Op::Add, None) => Some(new),
            (Op::Replace | Op::Cas, Some(_)) => Some(new),
            (Op::Append | Op::Prepend, Some(found)) if !request.fills => Some(found),
            (Op::Append | Op::Prepend, Some(found)) => Some(Item { bytes: new.bytes, ..found }),
            (Op::Add | Op::Incr | Op::Decr, Some(found)) => Some(found),
            (Op::Delete, _) | (_, None) => None,
        };
        if let Some(after) = after {
            self.put(after);
        }
        request.op.is_read().then_some(found.is_some())
    }
}

/// A log of few keys, in the order of time.
fn log(requests: usize) -> impl Strategy<Value = Vec<Access>> {
    let op = prop_oneof![
        4 => Just(Op::Get),
        2 => Just(Op::Set),
        4 => (0..Op::ALL.len()).prop_map(|index| Op::ALL[index]),
    ];
    let step = (op, 0u64..25, 0u32..3, 0u32..60, prop_oneof![Just(0u32), 1u32..40]);
    vec(step, 0..requests).prop_map(|steps| {
        let mut time_s = 0;
        steps
            .into_iter()
            .map(|(op, id, later_s, size_bytes, ttl_s)| {
                time_s += later_s;
                let writes = op.is_write() || matches!(op, Op::Touch | Op::GetAndTouch);
                let ttl_s = if writes { ttl_s } else { 0 };
                Access { id, time_s, size_bytes, ttl_s, key_bytes: 5, op }
            })
            .collect()
    })
}

/// The requests of a log, completed by what it writes.
fn completed(log: &[Access]) -> Vec<Request> {
    let requests: Vec<Request> = log.iter().map(|&access| access.into()).collect();
    let mut first = FirstWrites::default();
    requests.iter().for_each(|request| first.note(request));
    let mut fills = first.into_fills();
    requests
        .into_iter()
        .map(|mut request| {
            fills.complete(&mut request);
            request
        })
        .collect()
}

/// Whether each request of a replay was a hit; none of those that are no reads.
fn hits_of(mut replay: Replay, requests: &[Request]) -> Vec<Option<bool>> {
    requests
        .iter()
        .map(|request| {
            let before = replay.tally();
            replay.request(request);
            let after = replay.tally();
            (after.requests > before.requests).then_some(after.hits > before.hits)
        })
        .collect()
}

/// The store's shards, asked as memcached's clients ask, with a sweep before each request.
struct Servers {
    geometry: Geometry,
    shards: Vec<Shard>,
}

impl Servers {
    fn new(policy: Kind, memory_bytes: u64, shape: ServerShape) -> Self {
        let item_bytes_max = shape.item_bytes_max;
        let geometry = Geometry::new(memory_bytes, item_bytes_max, shape.threads);
        let shard = |shard| {
            Shard::new(Config {
                geometry,
                item_bytes_max,
                policy,
                evicts: true,
                protected: store::Protected::NONE,
                shard,
            })
        };
        Self { geometry, shards: (0..geometry.shard_count).map(shard).collect() }
    }

    /// Asks for `request` as the log has it; `access` is what made it.
    fn hit(&mut self, access: &Access, request: &Request) -> Option<bool> {
        const EPOCH_S: u64 = 1_800_000_000;
        let now = Timestamp::from_secs(EPOCH_S + u64::from(request.time_s));
        let deadline = match request.ttl_s {
            0 => Deadline::NEVER,
            ttl_s => Deadline::at(now.plus_millis(u64::from(ttl_s) * 1000)),
        };
        let mut buffer = [0; KEY_BYTES_MAX];
        let key = Key::new(access.key(&mut buffer));
        let shard = &mut self.shards[self.geometry.shard_of(key.hash()) as usize];
        shard.sweep(now, u32::MAX);
        // What is counted must be a number of unchanged width.
        let value = vec![b'1'; request.size_bytes as usize];
        let put = |shard: &mut Shard, precondition| {
            let value: [&[u8]; 1] = [&value];
            let new = NewItem { client_flags: 0, deadline, value: &value, own_cas: None };
            shard.put(&key, &new, precondition, now);
        };
        match request.op {
            Op::Get | Op::GetAndTouch => {
                let found = match request.op {
                    Op::Get => shard.get(&key, now).is_some(),
                    _ => shard.touch(&key, deadline, now),
                };
                if !found && request.fills {
                    put(shard, Precondition::None);
                }
                return Some(found);
            }
            Op::Set => put(shard, Precondition::None),
            Op::Add => put(shard, Precondition::Absent),
            Op::Replace | Op::Cas => put(shard, Precondition::Present),
            Op::Append | Op::Prepend => {
                if request.fills {
                    let piece = vec![b'1'; access.size_bytes as usize];
                    shard.concat(&key, End::Back, &piece, None, None, now);
                }
            }
            Op::Delete => {
                shard.delete(&key, None, now);
            }
            Op::Touch => {
                shard.touch(&key, deadline, now);
            }
            Op::Incr | Op::Decr => {
                shard.add_delta(&key, Delta::Increment(0), None, None, None, now);
            }
        }
        None
    }
}

proptest! {
    #[test]
    fn lru_with_writes_and_ttls_is_the_textbook(capacity in 1u64..500, log in log(300)) {
        let requests = completed(&log);
        let weighing = Weighing { unit: Unit::Bytes, overhead_bytes: 3, keys_count: true };
        for expiry in [Expiry::Ignore, Expiry::Lazy, Expiry::Eager] {
            let mut textbook = Textbook { capacity, expiry, row: Vec::new() };
            let want: Vec<_> = requests.iter().map(|request| textbook.hit(request)).collect();
            let replay = Replay::with(Kind::Lru, capacity, weighing, expiry);
            prop_assert_eq!(hits_of(replay, &requests), want, "{:?}", expiry);
        }
    }
}

#[test]
fn server_replay_predicts_writes_deletes_and_ttls_within_a_tenth_of_a_point() {
    let shape = ServerShape { threads: 1, item_bytes_max: 64 << 10 };
    let memory_bytes = 8 << 20;
    // A linear congruential generator will do: keys skewed, ops and TTLs mixed.
    let mut state = 12345u64;
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let small = |number: u64| u32::try_from(number).unwrap();
    let log: Vec<Access> = (0..60_000u64)
        .map(|n| {
            let id = draw(200).pow(2) + draw(40);
            let op = match draw(20) {
                0..=11 => Op::Get,
                12..=15 => Op::Set,
                16 => Op::Delete,
                17 => Op::Add,
                18 => Op::Touch,
                _ => Op::GetAndTouch,
            };
            let ttl_s = if draw(2) == 0 { 0 } else { small(1 + draw(120)) };
            let ttl_s = if op == Op::Get { 0 } else { ttl_s };
            // An object keeps its size: what is filled in is what was there.
            let size_bytes = small(100 + id * 7 % 6000);
            Access { id, time_s: small(n / 100), size_bytes, ttl_s, key_bytes: 20, op }
        })
        .collect();
    let requests = completed(&log);
    for kind in Kind::ALL {
        let replay = Replay::of_server(kind, memory_bytes, shape, Expiry::Eager);
        let predicted = hits_of(replay, &requests);
        let mut servers = Servers::new(kind, memory_bytes, shape);
        let measured: Vec<_> =
            log.iter().zip(&requests).map(|(access, it)| servers.hit(access, it)).collect();
        let by_log: u64 = servers.shards.iter().map(|it| it.counters().evicted_by_log).sum();
        assert_eq!(by_log, 0, "{kind}: what the log evicts is not predicted");
        let count = |of: &[Option<bool>]| of.iter().filter(|hit| **hit == Some(true)).count();
        let reads = measured.iter().flatten().count();
        let apart = count(&predicted).abs_diff(count(&measured));
        assert!(apart * 1000 <= reads, "{kind}: {apart} of {reads} reads apart");
        let evicted: u64 = servers.shards.iter().map(|shard| shard.counters().evicted).sum();
        assert!(evicted > 100, "{kind}: something was evicted");
    }
}
