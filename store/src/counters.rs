//! `Counters`: what happened in a shard; plain integers, summed by the server.

use std::ops::AddAssign;

use crate::snapshot::{Reader, Writer};

/// What happened in a shard since it was built, or since the counters were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Values stored.
    pub items_stored: u64,
    /// Items evicted to make room.
    pub evicted: u64,
    /// Of these, items never read.
    pub evicted_unfetched: u64,
    /// Of these, items read within the minute before.
    pub evicted_active: u64,
    /// Of these, items that had a deadline.
    pub evicted_with_deadline: u64,
    /// Of these, items evicted because the log ran out of room before the budget did.
    pub evicted_by_log: u64,
    /// Of these, items under a protected prefix that had not expired.
    pub evicted_protected: u64,
    /// Seconds between the last use of the item evicted last and its eviction.
    pub evicted_idle_secs: u64,
    /// Items removed because they had expired, at read or by the sweep.
    pub expired: u64,
    /// Of these, items never read.
    pub expired_unfetched: u64,
    /// Items removed by a flush.
    pub flushed: u64,
    /// Reads that found an item expired.
    pub read_expired: u64,
    /// Entries the sweep looked at.
    pub swept: u64,
    /// Items removed by the sweep.
    pub swept_expired: u64,
    /// Writes refused because no room could be made.
    pub out_of_memory: u64,
    /// Bytes of records written for clients.
    pub written_bytes: u64,
    /// Bytes of records that the cleaner moved.
    pub moved_bytes: u64,
}

impl Counters {
    /// Every counter, in the order in which a snapshot has them.
    fn each_mut(&mut self) -> [&mut u64; 17] {
        [
            &mut self.items_stored,
            &mut self.evicted,
            &mut self.evicted_unfetched,
            &mut self.evicted_active,
            &mut self.evicted_with_deadline,
            &mut self.evicted_by_log,
            &mut self.evicted_protected,
            &mut self.evicted_idle_secs,
            &mut self.expired,
            &mut self.expired_unfetched,
            &mut self.flushed,
            &mut self.read_expired,
            &mut self.swept,
            &mut self.swept_expired,
            &mut self.out_of_memory,
            &mut self.written_bytes,
            &mut self.moved_bytes,
        ]
    }

    /// Writes the counters to a snapshot.
    pub(crate) fn save(mut self, to: &mut Writer<'_>) {
        for counter in self.each_mut() {
            to.u64(*counter);
        }
    }

    /// The counters of a snapshot.
    pub(crate) fn load(from: &mut Reader<'_>) -> Option<Self> {
        let mut counters = Self::default();
        for counter in counters.each_mut() {
            *counter = from.u64()?;
        }
        Some(counters)
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.items_stored += other.items_stored;
        self.evicted += other.evicted;
        self.evicted_unfetched += other.evicted_unfetched;
        self.evicted_active += other.evicted_active;
        self.evicted_with_deadline += other.evicted_with_deadline;
        self.evicted_by_log += other.evicted_by_log;
        self.evicted_protected += other.evicted_protected;
        // Of several shards' last victims the one idle for longest says most.
        self.evicted_idle_secs = self.evicted_idle_secs.max(other.evicted_idle_secs);
        self.expired += other.expired;
        self.expired_unfetched += other.expired_unfetched;
        self.flushed += other.flushed;
        self.read_expired += other.read_expired;
        self.swept += other.swept;
        self.swept_expired += other.swept_expired;
        self.out_of_memory += other.out_of_memory;
        self.written_bytes += other.written_bytes;
        self.moved_bytes += other.moved_bytes;
    }
}
