//! Which entries are due: a sweep over the deadline column, bounded per call.
//!
//! Expiry is exact when an item is read. The sweep is for those that nobody reads: it gives their
//! memory back without being asked.

use crate::shard::Shard;
use crate::time::Timestamp;

/// What a slice of the sweep came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Expired items removed.
    pub removed: u32,
    /// The slice reached the end of the column; the next one starts from the front.
    pub wrapped: bool,
}

impl Shard {
    /// Looks at the next `entries_max` entries, removes those that are due, and remembers where it
    /// stopped. Also carries out a flush that has come due.
    pub fn sweep(&mut self, now: Timestamp, entries_max: u32) -> Swept {
        self.flush_if_due(now);
        let high = self.entries().high();
        let from = self.sweep_at.min(high);
        let to = from.saturating_add(entries_max).min(high);
        let mut removed = 0usize;
        let mut at = from;
        while let Some(id) = self.entries().first_due(at, to, now) {
            removed += usize::from(self.expire_if_due(id, now));
            at = id.0 + 1;
        }
        let wrapped = to == high;
        self.sweep_at = if wrapped { 0 } else { to };
        let counters = self.counters_mut();
        counters.swept += u64::from(to - from);
        counters.swept_expired += removed as u64;
        Swept { removed: u32::try_from(removed).unwrap_or(u32::MAX), wrapped }
    }
}
