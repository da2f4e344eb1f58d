//! Which entry leaves when a full cache needs room: eviction policies behind one small trait.
//!
//! The server and the simulator run the same code from here, so what one predicts the other
//! measures. A policy ranks one population of entries competing for the same room: a store shard,
//! or a simulated cache. It sees handles and weights, never keys or values.
//!
//! ```
//! use eviction::{EntryId, KeyHash, Kind, Policy};
//!
//! let mut lru = Kind::Lru.build(2, 2);
//! lru.on_insert(EntryId(0), KeyHash(17), 1);
//! lru.on_insert(EntryId(1), KeyHash(42), 1);
//! lru.on_hit(EntryId(0));
//! assert_eq!(lru.evict(), Some(EntryId(1)));
//! ```
//!
//! Beside the policies stands what tells LRU's hits in caches of all sizes from one stream of requests:
//! [`stack_distance`], which the simulator maps logs with, and on it [`live_curve`], which the server
//! keeps of its traffic.

#![forbid(unsafe_code)]

mod column;
#[cfg(test)]
mod contract;
mod directory;
mod ghost;
mod kind;
mod list;
mod sketch;
mod snapshot;

pub mod arc;
pub mod clock;
pub mod fifo;
pub mod histogram;
pub mod lfu;
pub mod live_curve;
pub mod lru;
pub mod s3_fifo;
pub mod sieve;
pub mod stack_distance;
pub mod w_tiny_lfu;

pub use kind::{Kind, UnknownPolicy};
pub use snapshot::SnapshotError;

/// A resident entry's handle: dense, chosen by the owner, reused after the entry left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);

impl EntryId {
    /// The handle as an index into a column.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A well-mixed 64-bit hash of a key: what a policy remembers of an entry that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

/// Whether a newcomer is worth the room that would have to be made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Insert,
    /// What would have to leave is worth more: hits are lost by letting it in.
    Refuse,
}

/// How far along a chain of lookups is prefetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// What is known already says where to look.
    First,
    /// What the first link fetched says so.
    Second,
}

/// Decides which entry leaves when a full cache needs room.
///
/// The owner reports what happens to its entries and asks for victims; it keeps the sum of the
/// resident weights within the capacity that the policy was built for. A policy reads no clock, does
/// no I/O, and is deterministic. Its columns are reserved when it is built; they grow only when an
/// [`EntryId`] comes that is beyond what was announced.
pub trait Policy: Send {
    /// `key`, not resident, is about to be inserted with `weight`; the victims asked for next make
    /// room for it. The answer is advice, mostly on what is very large: an owner that follows it
    /// neither evicts nor inserts, one that must keep the newcomer goes on all the same.
    fn before_insert(&mut self, _key: KeyHash, _weight: u32) -> Admission {
        Admission::Insert
    }
    /// `key` became resident as `entry`, taking `weight` units (bytes, or 1 when objects are
    /// counted) of the capacity.
    fn on_insert(&mut self, entry: EntryId, key: KeyHash, weight: u32);
    /// `entry` was read.
    fn on_hit(&mut self, entry: EntryId);
    /// Where in memory a hit on `entry` will look first, for an owner that prefetches; null for
    /// nowhere. Only a hint: the addresses are not for reading.
    fn hit_addresses(&self, _entry: EntryId) -> [*const u8; 2] {
        [std::ptr::null(); 2]
    }
    /// Where in memory the insertion of `key` will look first; otherwise as
    /// [`hit_addresses`](Self::hit_addresses).
    fn insert_address(&self, _key: KeyHash) -> *const u8 {
        std::ptr::null()
    }
    /// The entry that the next eviction most likely takes, for an owner that prefetches; `None` where that
    /// takes a search. Only a hint.
    fn next_victim(&self) -> Option<EntryId> {
        None
    }
    /// Where in memory the eviction of `victim` and what follows from it will look, in two links of a
    /// chain: what the second one names is found by reading what the first one does. Otherwise as
    /// [`hit_addresses`](Self::hit_addresses).
    fn eviction_addresses(&self, _victim: EntryId, _link: Link) -> [*const u8; 4] {
        [std::ptr::null(); 4]
    }
    /// The value of `entry` was replaced and now takes `weight`: a use like a hit.
    fn on_update(&mut self, entry: EntryId, weight: u32);
    /// `entry` left for a reason other than eviction: deleted or expired.
    fn on_remove(&mut self, entry: EntryId);
    /// Forgets the least valuable entry and returns it, or `None` when nothing is resident.
    fn evict(&mut self) -> Option<EntryId>;
    /// Appends all that the policy remembers (order, frequencies, ghosts, adaptive targets, what room
    /// is being made for) to `to`. Of its columns that is what lies up to the highest entry that ever
    /// came, not the room reserved.
    fn save(&self, to: &mut Vec<u8>);
    /// Replaces what a newly built policy remembers by what [`save`](Self::save) of one of the same
    /// kind, capacity and entries wrote: from here on this one does what that one would have. `from`
    /// is one snapshot from its first byte to its last. What was reserved stays reserved.
    ///
    /// Any bytes may be given, and none make it panic; a policy that they were loaded into without an
    /// error holds lists that close and counts that agree, and never panics later, nor loops, provided
    /// that it [holds exactly](Self::holds_exactly) the entries of its owner.
    ///
    /// # Errors
    ///
    /// The [`SnapshotError`] that says what does not fit. The policy is then good only for being thrown
    /// away.
    fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError>;
    /// Whether exactly `residents`, each named once, are resident: what an owner asks after
    /// [`load`](Self::load), before it reports events about its entries and relies on victims.
    fn holds_exactly(&self, residents: &mut dyn Iterator<Item = EntryId>) -> bool;
}
