//! `Counters`: what happened in a shard; plain integers, summed by the server.

use std::ops::AddAssign;

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
    /// Seconds between the last use of the item evicted last and its eviction.
    pub evicted_idle_secs: u64,
    /// Items removed because they had expired, at read or by the sweep.
    pub expired: u64,
    /// Of these, items never read.
    pub expired_unfetched: u64,
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

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.items_stored += other.items_stored;
        self.evicted += other.evicted;
        self.evicted_unfetched += other.evicted_unfetched;
        self.evicted_active += other.evicted_active;
        self.evicted_with_deadline += other.evicted_with_deadline;
        self.evicted_by_log += other.evicted_by_log;
        // Of several shards' last victims the one idle for longest says most.
        self.evicted_idle_secs = self.evicted_idle_secs.max(other.evicted_idle_secs);
        self.expired += other.expired;
        self.expired_unfetched += other.expired_unfetched;
        self.read_expired += other.read_expired;
        self.swept += other.swept;
        self.swept_expired += other.swept_expired;
        self.out_of_memory += other.out_of_memory;
        self.written_bytes += other.written_bytes;
        self.moved_bytes += other.moved_bytes;
    }
}
