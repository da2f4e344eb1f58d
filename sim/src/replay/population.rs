//! `Population`: the entries that compete for one room, ranked by one policy, without their bytes.
//!
//! ```text
//! key hash -> directory -> EntryId -> columns: key hash, weight
//!                             |
//!                             +------ the policy's own columns
//! ```
//!
//! It asks and tells the policy what a store shard does, in the same order: on a hit `on_hit`; for a
//! newcomer `before_insert`, then `evict` until it fits, then `on_insert`.

use eviction::{Admission, EntryId, KeyHash, Kind, Policy};
use hashbrown::HashTable;
use store::Budget;
use store::record::Footprint;

/// What decides whether one more entry fits. Weights are bytes, footprints, or 1 an object.
pub(crate) trait Room {
    /// Whether a newcomer stays outside if the policy holds it for worth less than its victims.
    const TAKES_ADVICE: bool;

    /// The most that the entries may weigh together.
    fn capacity(&self) -> u64;
    /// Whether an entry of `weight` fits if all others leave.
    fn could_hold(&self, weight: u32) -> bool;
    /// Whether an entry of `weight` fits without another leaving.
    fn fits(&self, weight: u32) -> bool;
    /// Whether free ids take so much room that the entries are to be numbered anew.
    fn wants_renumbering(&self) -> bool;
    /// Counts an entry that became resident.
    fn insert(&mut self, weight: u32);
    /// Counts an entry that left.
    fn remove(&mut self, weight: u32);
    /// Forgets all entries and their ids.
    fn clear(&mut self);
}

/// A sum of weights that may not grow beyond a maximum: a cache without overhead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    max: u64,
    used: u64,
}

impl Capacity {
    /// Room for weights up to `max` in sum.
    pub(crate) fn new(max: u64) -> Self {
        Self { max, used: 0 }
    }
}

impl Room for Capacity {
    const TAKES_ADVICE: bool = true;

    fn capacity(&self) -> u64 {
        self.max
    }

    #[inline]
    fn could_hold(&self, weight: u32) -> bool {
        u64::from(weight) <= self.max
    }

    #[inline]
    fn fits(&self, weight: u32) -> bool {
        self.used + u64::from(weight) <= self.max
    }

    #[inline]
    fn wants_renumbering(&self) -> bool {
        false
    }

    #[inline]
    fn insert(&mut self, weight: u32) {
        self.used += u64::from(weight);
    }

    #[inline]
    fn remove(&mut self, weight: u32) {
        self.used -= u64::from(weight);
    }

    fn clear(&mut self) {
        self.used = 0;
    }
}

/// The server's own accounting of a shard; a weight is a footprint.
impl Room for Budget {
    // What a server has acknowledged it keeps, for a moment at least.
    const TAKES_ADVICE: bool = false;

    fn capacity(&self) -> u64 {
        self.bytes_max()
    }

    #[inline]
    fn could_hold(&self, weight: u32) -> bool {
        Self::could_hold(self, Footprint::from_bytes(weight))
    }

    #[inline]
    fn fits(&self, weight: u32) -> bool {
        Self::fits(self, Footprint::from_bytes(weight))
    }

    #[inline]
    fn wants_renumbering(&self) -> bool {
        self.wants_compaction()
    }

    #[inline]
    fn insert(&mut self, weight: u32) {
        Self::insert(self, Footprint::from_bytes(weight));
    }

    #[inline]
    fn remove(&mut self, weight: u32) {
        Self::remove(self, Footprint::from_bytes(weight));
    }

    fn clear(&mut self) {
        Self::clear(self);
    }
}

/// Entries, their room and their policy.
pub(crate) struct Population<R> {
    kind: Kind,
    /// Entries that the policy's columns are reserved for.
    entries_reserved: usize,
    policy: Box<dyn Policy>,
    room: R,
    /// Resident entries by key. The hash stands beside the id so that a probe touches one line.
    directory: HashTable<Resident>,
    keys: Vec<KeyHash>,
    weights: Vec<u32>,
    free: Vec<EntryId>,
}

#[derive(Clone, Copy)]
struct Resident {
    key: KeyHash,
    entry: EntryId,
}

impl<R: Room> Population<R> {
    /// Nobody yet in an empty `room`.
    pub(crate) fn new(kind: Kind, entries_reserved: usize, room: R) -> Self {
        Self {
            kind,
            entries_reserved,
            policy: kind.build(room.capacity(), entries_reserved),
            room,
            directory: HashTable::new(),
            keys: Vec::new(),
            weights: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Looks `key` up, which is a use of it. True is a hit.
    #[inline]
    pub(crate) fn read(&mut self, key: KeyHash) -> bool {
        match self.directory.find(key.0, |resident| resident.key == key) {
            Some(resident) => {
                self.policy.on_hit(resident.entry);
                true
            }
            None => false,
        }
    }

    /// Makes `key`, which is not resident, so, and lets others go for it. An entry that would not even
    /// fit alone is left outside, and where the policy's advice is taken, one it refuses.
    #[inline]
    pub(crate) fn insert(&mut self, key: KeyHash, weight: u32) {
        if !self.room.could_hold(weight) {
            return;
        }
        let advice = self.policy.before_insert(key, weight);
        if R::TAKES_ADVICE && advice == Admission::Refuse {
            return;
        }
        while !self.room.fits(weight) {
            if self.room.wants_renumbering() {
                self.renumber();
                continue;
            }
            if let Some(victim) = self.policy.evict() {
                self.forget(victim);
                continue;
            }
            // Nobody is left, and only free ids are in the way.
            self.renumber();
            assert!(self.room.fits(weight), "what could be held fits when nobody is resident");
        }
        let entry = self.admit(key, weight);
        self.policy.on_insert(entry, key, weight);
    }

    /// Numbers the resident entries without gaps. As in the shard, a new policy learns of them in
    /// the order in which the one before would have let them go.
    #[cold]
    fn renumber(&mut self) {
        let order: Vec<EntryId> = std::iter::from_fn(|| self.policy.evict()).collect();
        self.policy = self.kind.build(self.room.capacity(), self.entries_reserved);
        self.room.clear();
        self.directory.clear();
        self.free.clear();
        let (keys, weights) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.weights));
        for before in order {
            let (key, weight) = (keys[before.index()], weights[before.index()]);
            let _advice = self.policy.before_insert(key, weight);
            let entry = self.admit(key, weight);
            self.policy.on_insert(entry, key, weight);
        }
    }

    /// Takes an entry that the policy let go out of directory and room.
    #[inline]
    fn forget(&mut self, entry: EntryId) {
        let key = self.keys[entry.index()];
        let resident = self.directory.find_entry(key.0, |resident| resident.entry == entry);
        assert!(resident.is_ok(), "the policy let an entry go that is not resident");
        if let Ok(resident) = resident {
            resident.remove();
        }
        self.room.remove(self.weights[entry.index()]);
        self.free.push(entry);
    }

    /// Gives a newcomer its id and its place in directory and room.
    #[inline]
    fn admit(&mut self, key: KeyHash, weight: u32) -> EntryId {
        let entry = match self.free.pop() {
            Some(entry) => {
                self.keys[entry.index()] = key;
                self.weights[entry.index()] = weight;
                entry
            }
            None => {
                let next = u32::try_from(self.keys.len());
                assert!(next.is_ok(), "a cache holds fewer than 2^32 entries");
                self.keys.push(key);
                self.weights.push(weight);
                EntryId(next.unwrap_or(u32::MAX))
            }
        };
        self.room.insert(weight);
        self.directory.insert_unique(key.0, Resident { key, entry }, |resident| resident.key.0);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_as_large_as_the_room_takes_the_place_of_all_others() {
        // Twelve free ids of 10 bytes stay just below what makes the entries be numbered anew.
        let mut population = Population::new(Kind::Lru, 16, Budget::new(1000, 10));
        for key in 0..12 {
            population.insert(KeyHash(key), 80);
        }
        population.insert(KeyHash(99), 1000);
        assert!(population.read(KeyHash(99)));
        assert!(!population.read(KeyHash(11)));
    }
}
