//! Dense columns by `EntryId`: where an entry's record is, its hash tag and state, its deadline, when
//! it was last used.
//!
//! ```text
//! location   u32   units of 4 bytes in the arena; all ones when the entry is free
//! tag        u32   28 bits of the key's hash | 4 bits of state
//! deadline   u32   seconds since 1970, rounded up; 0 = never
//! accessed   u32   seconds since 1970
//! ```
//!
//! - The columns are as long as the shard could ever need, but untouched memory is not resident: what
//!   they cost follows the highest id handed out, and a deadline column that is all zeros costs
//!   nothing.
//! - Ids are handed out dense, and one that was freed goes first.

use eviction::EntryId;

use crate::log::Location;
use crate::prefetch::prefetch;
use crate::time::{Deadline, Timestamp};

/// State bits of an entry, kept beside its tag.
pub(crate) mod state {
    /// Read since it was written.
    pub(crate) const FETCHED: u32 = 1;
    /// Marked stale by a client: served, but wanting to be computed again.
    pub(crate) const STALE: u32 = 1 << 1;
    /// A client was told to compute the value again.
    pub(crate) const WIN_SENT: u32 = 1 << 2;
}

const STATE_BITS: u32 = 4;
const STATE_MASK: u32 = (1 << STATE_BITS) - 1;

/// The columns.
pub(crate) struct Entries {
    location: Vec<Location>,
    tag: Vec<u32>,
    deadline: Vec<u32>,
    accessed: Vec<u32>,
    free: Vec<EntryId>,
    /// Ids below this have been handed out at least once.
    high: u32,
}

impl Entries {
    /// Columns for `entries_max` entries; none is touched yet.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            location: Vec::with_capacity(entries_max),
            tag: Vec::with_capacity(entries_max),
            deadline: vec![0; entries_max],
            accessed: Vec::with_capacity(entries_max),
            free: Vec::new(),
            high: 0,
        }
    }

    /// Ids handed out so far, free ones included.
    pub(crate) fn high(&self) -> u32 {
        self.high
    }

    /// Hands out an id for a record.
    pub(crate) fn allocate(&mut self, tag: u32, location: Location) -> EntryId {
        let tag = tag << STATE_BITS;
        if let Some(id) = self.free.pop() {
            self.location[id.index()] = location;
            self.tag[id.index()] = tag;
            return id;
        }
        let id = EntryId(self.high);
        self.high += 1;
        self.location.push(location);
        self.tag.push(tag);
        self.accessed.push(0);
        if self.deadline.len() < self.high as usize {
            self.deadline.push(0);
        }
        id
    }

    /// Hands out an id for an entry that moves here from other columns, with all that they know of
    /// it.
    pub(crate) fn take_over(&mut self, from: &Self, id: EntryId) -> EntryId {
        let new = self.allocate(from.tag(id), from.location(id));
        self.set_state(new, from.state(id));
        if from.has_deadline(id) {
            self.deadline[new.index()] = from.deadline[id.index()];
        }
        self.accessed[new.index()] = from.accessed[id.index()];
        new
    }

    /// Ids that are free now.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Takes an id back.
    pub(crate) fn release(&mut self, id: EntryId) {
        self.location[id.index()] = Location::NONE;
        self.set_deadline(id, Deadline::NEVER);
        self.free.push(id);
    }

    /// Asks the processor to fetch what a read needs of the columns.
    #[inline]
    pub(crate) fn prefetch(&self, id: EntryId) {
        prefetch(&self.location[id.index()]);
        prefetch(&self.tag[id.index()]);
        prefetch(&self.accessed[id.index()]);
    }

    #[inline]
    pub(crate) fn location(&self, id: EntryId) -> Location {
        self.location[id.index()]
    }

    #[inline]
    pub(crate) fn set_location(&mut self, id: EntryId, location: Location) {
        self.location[id.index()] = location;
    }

    /// The 28 bits of hash given at allocation.
    #[inline]
    pub(crate) fn tag(&self, id: EntryId) -> u32 {
        self.tag[id.index()] >> STATE_BITS
    }

    #[inline]
    pub(crate) fn state(&self, id: EntryId) -> u32 {
        self.tag[id.index()] & STATE_MASK
    }

    #[inline]
    pub(crate) fn set_state(&mut self, id: EntryId, state: u32) {
        debug_assert!(state <= STATE_MASK);
        let tag = &mut self.tag[id.index()];
        *tag = *tag & !STATE_MASK | state;
    }

    #[inline]
    pub(crate) fn set_deadline(&mut self, id: EntryId, deadline: Deadline) {
        let secs = deadline.column_secs();
        // A column never written stays out of memory.
        if self.deadline[id.index()] != secs {
            self.deadline[id.index()] = secs;
        }
    }

    /// What the deadline column knows of an entry at `now`.
    #[inline]
    pub(crate) fn expiry(&self, id: EntryId, now: Timestamp) -> Expiry {
        let secs = u64::from(self.deadline[id.index()]);
        if secs == 0 || now.0 <= (secs - 1) * 1000 {
            Expiry::Valid
        } else if now.0 >= secs * 1000 {
            Expiry::Due
        } else {
            Expiry::WithinThisSecond
        }
    }

    /// Whether the entry has a deadline.
    pub(crate) fn has_deadline(&self, id: EntryId) -> bool {
        self.deadline[id.index()] != 0
    }

    #[inline]
    pub(crate) fn accessed_secs(&self, id: EntryId) -> u32 {
        self.accessed[id.index()]
    }

    #[inline]
    pub(crate) fn set_accessed(&mut self, id: EntryId, now: Timestamp) {
        self.accessed[id.index()] = now.as_secs();
    }
}

/// What the coarse deadline of an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Not due.
    Valid,
    /// Due.
    Due,
    /// Due in the second that is passing: the record knows the millisecond.
    WithinThisSecond,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_id_is_handed_out_again_first() {
        let mut entries = Entries::new(4);
        let a = entries.allocate(1, Location(10));
        let b = entries.allocate(2, Location(20));
        entries.release(a);
        assert_eq!(entries.allocate(3, Location(30)), a);
        assert_eq!((entries.tag(a), entries.tag(b)), (3, 2));
        assert_eq!(entries.high(), 2);
    }

    #[test]
    fn state_and_tag_do_not_disturb_each_other() {
        let mut entries = Entries::new(1);
        let id = entries.allocate((1 << 28) - 1, Location(0));
        entries.set_state(id, state::STALE | state::FETCHED);
        assert_eq!(entries.tag(id), (1 << 28) - 1);
        assert_eq!(entries.state(id), state::STALE | state::FETCHED);
    }

    #[test]
    fn the_column_is_exact_up_to_the_second_that_is_passing() {
        let mut entries = Entries::new(1);
        let id = entries.allocate(0, Location(0));
        entries.set_deadline(id, Deadline::at(Timestamp(5_500)));
        assert_eq!(entries.expiry(id, Timestamp(5_000)), Expiry::Valid);
        assert_eq!(entries.expiry(id, Timestamp(5_400)), Expiry::WithinThisSecond);
        assert_eq!(entries.expiry(id, Timestamp(6_000)), Expiry::Due);
    }
}
