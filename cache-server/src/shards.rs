//! The store shards behind their locks, and which one owns a key.
//!
//! A shard is single-threaded; this is where threads meet it. A lock is held for one command on one
//! key, or for one bounded slice of maintenance, so with several shards for each worker two of them
//! seldom want the same one.

use std::ops::{Deref, DerefMut};

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use store::{Geometry, Key, PrefetchDepth, Shard, Timestamp};

use crate::config::Config;

/// Entries that a sweep looks at under one lock: some ten microseconds.
const SWEEP_SLICE_ENTRIES: u32 = 16 * 1024;

/// All of a server's memory.
pub struct Shards {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    geometry: Geometry,
    /// Held while it is changed, so that all shards get the same.
    memory_bytes: Mutex<u64>,
}

impl Shards {
    /// Empty shards as `config` says.
    pub fn new(config: &Config) -> Self {
        let item_bytes_max = config.item_bytes_max as u64;
        let threads = u32::try_from(config.threads.get()).unwrap_or(u32::MAX);
        let geometry = Geometry::new(config.memory_bytes as u64, item_bytes_max, threads);
        let shard = |shard| {
            let policy = config.eviction;
            let evicts = config.evicts;
            let config = store::Config { geometry, item_bytes_max, policy, evicts, shard };
            CachePadded::new(Mutex::new(Shard::new(config)))
        };
        Self {
            shards: (0..geometry.shard_count).map(shard).collect(),
            geometry,
            memory_bytes: Mutex::new(config.memory_bytes as u64),
        }
    }

    /// The memory for items, overhead included, in bytes: `-m`, or what it was changed to.
    pub fn memory_bytes(&self) -> u64 {
        *self.memory_bytes.lock()
    }

    /// Changes the memory for items. Keys stay in their shards; a shard that becomes smaller evicts.
    pub fn set_memory(&self, memory_bytes: u64, now: Timestamp) {
        let mut current = self.memory_bytes.lock();
        *current = memory_bytes;
        let geometry = self.geometry.with_memory(memory_bytes);
        for mut shard in self.each() {
            shard.set_geometry(geometry, now);
        }
    }

    /// How the memory is cut, as it was at the start.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Locks the shard that owns `key`.
    #[inline]
    pub fn lock(&self, key: &Key<'_>) -> Locked<'_> {
        let owner = self.geometry.shard_of(key.hash()) as usize;
        Locked(self.shards[owner].lock())
    }

    /// Has the items of `keys` fetched from memory, all at once.
    ///
    /// What a read touches hangs in a chain: index, columns, record. Each link is asked for all keys
    /// before the next, so a batch waits for memory three times and not three times for each key.
    /// The locks are let go in between; what changes meanwhile costs a prefetch, nothing else.
    pub fn prefetch(&self, keys: &[Key<'_>]) {
        for depth in PrefetchDepth::ALL {
            for key in keys {
                self.lock(key).prefetch(key, depth);
            }
        }
    }

    /// Locks the shard of this number, below the geometry's `shard_count`.
    pub fn lock_nth(&self, index: u32) -> Locked<'_> {
        Locked(self.shards[index as usize].lock())
    }

    /// Locks one shard after the other.
    pub fn each(&self) -> impl Iterator<Item = Locked<'_>> {
        self.shards.iter().map(|shard| Locked(shard.lock()))
    }

    /// Removes what has expired: a tenth of every shard, or a slice where that is more, so that the
    /// whole memory is swept about once a second at ten calls a second.
    pub fn sweep(&self, now: Timestamp) {
        for shard in &self.shards {
            let mut left = shard.lock().entries_high() / 10 + SWEEP_SLICE_ENTRIES;
            while left > 0 {
                let slice = left.min(SWEEP_SLICE_ENTRIES);
                // Unlocked between slices: a worker that waits goes first.
                if Locked(shard.lock()).sweep(now, slice).wrapped {
                    break;
                }
                left -= slice;
            }
        }
    }
}

/// A shard, locked.
///
/// Unlocking while a panic unwinds empties the shard: a change was interrupted, its books may not
/// agree, and a cache may forget but never answer wrongly.
pub struct Locked<'a>(MutexGuard<'a, Shard>);

impl Deref for Locked<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.0
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a bug interrupted a change of a shard; its items are dropped");
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use store::{Deadline, NewItem, Precondition};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn put(shards: &Shards, key: &[u8], deadline: Deadline) {
        let key = Key::new(key);
        let new = NewItem { client_flags: 0, deadline, value: &[b"value"], own_cas: None };
        shards.lock(&key).put(&key, &new, Precondition::None, NOW);
    }

    #[test]
    fn a_shard_that_a_panic_interrupted_is_empty_and_usable() {
        let shards = Shards::new(&Config::default());
        put(&shards, b"a", Deadline::NEVER);
        let key = Key::new(b"a");
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            let _locked = shards.lock(&key);
            panic!("a bug, made for this test");
        }));
        assert!(interrupted.is_err());
        assert!(shards.lock(&key).get(&key, NOW).is_none());
        put(&shards, b"a", Deadline::NEVER);
        assert!(shards.lock(&key).get(&key, NOW).is_some());
    }

    #[test]
    fn expired_items_give_their_memory_up_without_being_read() {
        let shards = Shards::new(&Config::default());
        let deadline = Deadline::at(NOW.plus_millis(1));
        for n in 0..10_000 {
            put(&shards, format!("key-{n}").as_bytes(), deadline);
        }
        assert_eq!(shards.each().map(|shard| shard.items()).sum::<u64>(), 10_000);
        shards.sweep(NOW.plus_millis(1));
        assert_eq!(shards.each().map(|shard| shard.items()).sum::<u64>(), 0);
    }
}
