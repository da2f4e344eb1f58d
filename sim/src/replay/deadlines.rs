//! `Deadlines`: when the entries of a population expire, and which of them are due.
//!
//! ```text
//! column by EntryId:  | deadline | deadline | ... |         what holds
//! heap:               (deadline, entry), earliest first     what is to be looked at
//! ```
//!
//! - A pair in the heap counts only if the column still says so: what was overwritten, touched or
//!   evicted leaves its pair behind. Stale pairs are swept out when they are the larger part.
//! - An entry whose id went to another one with the very same deadline may have two pairs; both are
//!   right.
//! - Nothing is kept until the first entry has a deadline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use eviction::EntryId;

use super::Expiry;

/// The deadline of what never expires.
pub(crate) const NEVER: u32 = u32::MAX;

/// The deadline of what never expires, but did once: a server's record keeps the field.
pub(crate) const NEVER_ANY_MORE: u32 = u32::MAX - 1;

/// So many pairs are not worth a sweep.
const PAIRS_UNSWEPT_MAX: usize = 4096;

/// The deadlines of a population, in seconds of the log's time.
#[derive(Debug)]
pub(crate) struct Deadlines {
    expiry: Expiry,
    column: Vec<u32>,
    /// Only under [`Expiry::Eager`].
    heap: BinaryHeap<Reverse<(u32, EntryId)>>,
    /// The heap is swept when it is longer.
    swept_above: usize,
}

impl Deadlines {
    /// No entry has a deadline yet.
    pub(crate) fn new(expiry: Expiry) -> Self {
        let (column, heap) = (Vec::new(), BinaryHeap::new());
        Self { expiry, column, heap, swept_above: PAIRS_UNSWEPT_MAX }
    }

    /// How deadlines are heeded.
    pub(crate) fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The deadline of an entry, [`NEVER`] without one.
    #[inline]
    pub(crate) fn of(&self, entry: EntryId) -> u32 {
        self.column.get(entry.index()).copied().unwrap_or(NEVER)
    }

    /// Whether an entry may not be served any more.
    #[inline]
    pub(crate) fn is_due(&self, entry: EntryId, now_s: u32) -> bool {
        self.of(entry) <= now_s
    }

    /// Gives an entry another deadline.
    #[inline]
    pub(crate) fn set(&mut self, entry: EntryId, deadline: u32) {
        if self.of(entry) != deadline {
            self.change(entry, deadline);
        }
    }

    fn change(&mut self, entry: EntryId, deadline: u32) {
        if self.column.len() <= entry.index() {
            self.column.resize(entry.index() + 1, NEVER);
        }
        self.column[entry.index()] = deadline;
        if self.expiry == Expiry::Eager && deadline < NEVER_ANY_MORE {
            self.heap.push(Reverse((deadline, entry)));
            if self.heap.len() > self.swept_above {
                self.sweep();
            }
        }
    }

    /// The next entry that is due; [`Self::set`] to [`NEVER`], it is not named again.
    #[inline]
    pub(crate) fn next_due(&mut self, now_s: u32) -> Option<EntryId> {
        while let Some(&Reverse((deadline, entry))) = self.heap.peek() {
            if deadline > now_s {
                return None;
            }
            self.heap.pop();
            if self.of(entry) == deadline {
                return Some(entry);
            }
        }
        None
    }

    /// Drops the pairs that do not count.
    #[cold]
    fn sweep(&mut self) {
        let column = &self.column;
        self.heap.retain(|Reverse((deadline, entry))| column[entry.index()] == *deadline);
        self.swept_above = PAIRS_UNSWEPT_MAX.max(self.heap.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_the_order_of_their_deadlines() {
        let mut deadlines = Deadlines::new(Expiry::Eager);
        for (entry, deadline) in [(0, 30), (1, 10), (2, NEVER), (3, 20)] {
            deadlines.set(EntryId(entry), deadline);
        }
        let due: Vec<u32> = std::iter::from_fn(|| deadlines.next_due(20)).map(|id| id.0).collect();
        assert_eq!(due, [1, 3]);
    }

    #[test]
    fn what_was_set_anew_is_not_due_at_its_old_deadline() {
        let mut deadlines = Deadlines::new(Expiry::Eager);
        deadlines.set(EntryId(0), 10);
        deadlines.set(EntryId(0), 30);
        deadlines.set(EntryId(1), 10);
        deadlines.set(EntryId(1), NEVER);
        assert_eq!(deadlines.next_due(29), None);
        assert_eq!(deadlines.next_due(30), Some(EntryId(0)));
    }

    #[test]
    fn stale_pairs_do_not_pile_up() {
        let mut deadlines = Deadlines::new(Expiry::Eager);
        for deadline in 1..1_000_000 {
            deadlines.set(EntryId(deadline % 100), deadline);
        }
        assert!(deadlines.heap.len() <= 2 * PAIRS_UNSWEPT_MAX, "{}", deadlines.heap.len());
        assert_eq!(std::iter::from_fn(|| deadlines.next_due(1_000_000)).count(), 100);
    }
}
