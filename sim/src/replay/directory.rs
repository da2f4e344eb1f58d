//! `Directory`: which keys are resident, and as which entries; made to be asked ahead of time.
//!
//! ```text
//! slots   | · | key 1 · entry | key 2 · entry | · | ... |     16 bytes each, four in a cache line
//!             ^ home of both: some bits of a product of the key's hash
//! ```
//!
//! - Open addressing with linear probing, at most half full: a search, successful or not, mostly ends in
//!   the line that it began in, and where that is, is known from the key alone. So a batch of requests
//!   has its lines fetched all at once ([`Directory::prefetch`]) instead of waiting for one after the
//!   other.
//! - The whole hash stands in its slot, so that no column has to be looked at to compare.
//! - A slot that becomes free is filled again from behind: nothing is left to clean up.

use eviction::{EntryId, KeyHash};
use store::prefetch_address;

/// Slots of the first table.
const SLOTS_MIN: usize = 64;

/// The entry of a slot that is free. No owner has so many entries.
const FREE: u32 = u32::MAX;

/// An odd number without a pattern: 2^64 by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// A resident key.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Slot {
    key: KeyHash,
    entry: u32,
}

impl Slot {
    const FREE: Self = Self { key: KeyHash(0), entry: FREE };
}

/// Resident entries by key.
#[derive(Debug)]
pub(super) struct Directory {
    /// A power of two of them.
    slots: Box<[Slot]>,
    len: usize,
    /// By which a product is shifted to become a slot's number.
    shift: u32,
}

impl Directory {
    /// Nobody is resident.
    pub(super) fn new() -> Self {
        Self::of_slots(SLOTS_MIN)
    }

    fn of_slots(slots: usize) -> Self {
        let shift = u64::BITS - slots.ilog2();
        Self { slots: vec![Slot::FREE; slots].into(), len: 0, shift }
    }

    /// Where the search for `key` starts. Of a server's shard the hashes have their first bits in common.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the shift leaves a slot's number")]
    fn home(&self, KeyHash(hash): KeyHash) -> usize {
        (hash.wrapping_mul(SPREAD) >> self.shift) as usize
    }

    #[inline]
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    /// Has the line fetched that a search for `key` begins in.
    #[inline]
    pub(super) fn prefetch(&self, key: KeyHash) {
        prefetch_address(self.slots.as_ptr().wrapping_add(self.home(key)).cast());
    }

    /// The slot of `key`, or the free one where it would be.
    #[inline]
    fn search(&self, key: KeyHash) -> usize {
        let mask = self.mask();
        let mut at = self.home(key);
        loop {
            let slot = self.slots[at & mask];
            if slot.entry == FREE || slot.key == key {
                return at & mask;
            }
            at += 1;
        }
    }

    /// The entry of `key`.
    #[inline]
    pub(super) fn find(&self, key: KeyHash) -> Option<EntryId> {
        let entry = self.slots[self.search(key)].entry;
        (entry != FREE).then_some(EntryId(entry))
    }

    /// `key`, which is not resident, becomes so as `entry`.
    #[inline]
    pub(super) fn insert(&mut self, key: KeyHash, entry: EntryId) {
        debug_assert!(self.find(key).is_none(), "a key is resident once");
        self.len += 1;
        if self.len * 2 > self.slots.len() {
            self.grow();
        }
        let at = self.search(key);
        self.slots[at] = Slot { key, entry: entry.0 };
    }

    /// `key` is resident no more; the entry that it was.
    #[inline]
    pub(super) fn remove(&mut self, key: KeyHash) -> Option<EntryId> {
        let mask = self.mask();
        let mut at = self.search(key);
        let entry = self.slots[at].entry;
        if entry == FREE {
            return None;
        }
        self.len -= 1;
        // What was placed behind it for want of it moves up.
        let mut behind = at;
        loop {
            behind = (behind + 1) & mask;
            let slot = self.slots[behind];
            if slot.entry == FREE {
                break;
            }
            let from_home = behind.wrapping_sub(self.home(slot.key)) & mask;
            if from_home >= behind.wrapping_sub(at) & mask {
                self.slots[at] = slot;
                at = behind;
            }
        }
        self.slots[at] = Slot::FREE;
        Some(EntryId(entry))
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.slots.fill(Slot::FREE);
        self.len = 0;
    }

    #[cold]
    fn grow(&mut self) {
        let mut grown = Self::of_slots(self.slots.len() * 2);
        for slot in self.slots.iter().filter(|slot| slot.entry != FREE) {
            let at = grown.search(slot.key);
            grown.slots[at] = *slot;
        }
        self.slots = grown.slots;
        self.shift = grown.shift;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The inverse of [`SPREAD`] modulo 2^64, so that a key with a home of choice can be made.
    fn key_at(home: u64, number: u64) -> KeyHash {
        let mut inverse = SPREAD;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(SPREAD.wrapping_mul(inverse)));
        }
        KeyHash(((home << 58) | number).wrapping_mul(inverse))
    }

    proptest! {
        #[test]
        fn it_answers_like_a_map(steps in vec((0u8..3, 60u64..68, 0u64..12), 0..400)) {
            let mut directory = Directory::new();
            let mut model: HashMap<u64, u32> = HashMap::new();
            for (number, (what, home, key)) in (0..).zip(steps) {
                // Few homes, around the end of the table, so that searches run on.
                let key = key_at(home % 64, key);
                match what {
                    0 => prop_assert_eq!(
                        directory.remove(key),
                        model.remove(&key.0).map(EntryId)
                    ),
                    _ if model.contains_key(&key.0) => {}
                    _ => {
                        directory.insert(key, EntryId(number));
                        model.insert(key.0, number);
                    }
                }
                prop_assert_eq!(directory.find(key), model.get(&key.0).copied().map(EntryId));
                prop_assert_eq!(directory.len, model.len());
            }
            for (&key, &entry) in &model {
                prop_assert_eq!(directory.find(KeyHash(key)), Some(EntryId(entry)));
            }
        }
    }

    #[test]
    fn it_grows_and_is_cleared() {
        let mut directory = Directory::new();
        let key = |n: u32| KeyHash(u64::from(n).wrapping_mul(0xD134_2543_DE82_EF95));
        (0..10_000).for_each(|n| directory.insert(key(n), EntryId(n)));
        assert!((0..10_000).all(|n| directory.find(key(n)) == Some(EntryId(n))));
        assert_eq!(directory.slots.len(), 32_768);
        directory.clear();
        assert!((0..10_000).all(|n| directory.find(key(n)).is_none()));
    }
}
