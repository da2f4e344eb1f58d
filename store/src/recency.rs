//! Which keys were read lately, as hashes: what a copy of the shard needs to evict the right items
//! once it is asked itself.
//!
//! ```text
//! get ──hash──▶ | ring, the last so many reads |──▶ take_uses ──▶ note_use in the shard of a copy
//! ```
//!
//! A read costs one store to a ring that lies in a few cache lines, and none where nobody asked for
//! the ring. When more is read than the ring holds the earliest reads are lost.

use eviction::KeyHash;

use crate::entries::Expiry;
use crate::shard::Shard;
use crate::time::Timestamp;

/// The last reads.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// Empty, or a power of two of places.
    ring: Box<[u64]>,
    noted: usize,
    taken: usize,
}

impl Uses {
    #[inline]
    pub(crate) fn note(&mut self, hash: KeyHash) {
        let mask = self.ring.len().wrapping_sub(1);
        if let Some(place) = self.ring.get_mut(self.noted & mask) {
            *place = hash.0;
            self.noted = self.noted.wrapping_add(1);
        }
    }
}

impl Shard {
    /// From now on the shard remembers the last `uses_max` reads, rounded up to a power of two; none
    /// for 0.
    pub fn set_noting_uses(&mut self, uses_max: u32) {
        let places = if uses_max == 0 { 0 } else { uses_max.next_power_of_two() as usize };
        *self.uses() = Uses { ring: vec![0; places].into(), ..Uses::default() };
    }

    /// Appends the hashes of the keys that were read since the last call, or of the last of them, to
    /// `into`: in the order in which they were read, and as often.
    pub fn take_uses(&mut self, into: &mut Vec<KeyHash>) {
        let uses = self.uses();
        let count = uses.noted.wrapping_sub(uses.taken).min(uses.ring.len());
        let mask = uses.ring.len().wrapping_sub(1);
        let from = uses.noted.wrapping_sub(count);
        into.extend((0..count).map(|at| KeyHash(uses.ring[from.wrapping_add(at) & mask])));
        uses.taken = uses.noted;
    }

    /// Tells the policy that the item of the key with this hash was read, here or where another copy
    /// is; `false` when there is none. Nothing is counted, and the item does not pass for fetched.
    pub fn note_use(&mut self, hash: KeyHash, now: Timestamp) -> bool {
        let Some(id) = self.find_hash(hash) else { return false };
        if self.entries().expiry(id, now) != Expiry::Valid {
            return false;
        }
        self.mark_used(id, now);
        true
    }
}
