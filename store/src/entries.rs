//! Dense columns by `EntryId`: what a read needs of an entry, and apart from it the deadline.
//!
//! ```text
//! row        location  u32   units of 4 bytes in the arena; all ones when the entry is free
//!            tag       u32   28 bits of the key's hash | 4 bits of state
//!            accessed  u32   seconds since 1970
//! deadline             u32   seconds since 1970, rounded up; 0 = never
//! ```
//!
//! - A read touches one row: three columns would be three cache lines on three pages. The deadline
//!   stands alone because the sweep reads it and nothing else; a bit of state says whether an entry
//!   has one, so a read of one that has none does not look.
//! - The columns are as long as the shard could ever need, but untouched memory is not resident: what
//!   they cost follows the highest id handed out, and a deadline column that is all zeros costs
//!   nothing.
//! - Ids are handed out dense, and one that was freed goes first.

use eviction::EntryId;

use crate::log::Location;
use crate::prefetch::prefetch;
use crate::snapshot::{Reader, Writer};
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

/// The bit beside the state's that says whether the entry has a deadline.
const EXPIRES: u32 = 1 << 3;
const STATE_BITS: u32 = 4;
const STATE_MASK: u32 = state::FETCHED | state::STALE | state::WIN_SENT;

/// Ends the list of free ids.
const NO_ID: u32 = u32::MAX;

/// What a read needs of an entry.
#[derive(Clone, Copy)]
struct Row {
    location: Location,
    tag: u32,
    accessed: u32,
}

/// The columns.
pub(crate) struct Entries {
    rows: Vec<Row>,
    deadline: Vec<u32>,
    /// The id freed last; the others follow, threaded through `accessed` of their rows.
    free: Option<EntryId>,
    free_count: u32,
    /// Ids below this have been handed out at least once.
    high: u32,
}

impl Entries {
    /// Columns for `entries_max` entries; none is touched yet.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            rows: Vec::with_capacity(entries_max),
            deadline: vec![0; entries_max],
            free: None,
            free_count: 0,
            high: 0,
        }
    }

    /// Ids handed out so far, free ones included.
    pub(crate) fn high(&self) -> u32 {
        self.high
    }

    /// Hands out an id for a record.
    pub(crate) fn allocate(&mut self, tag: u32, location: Location) -> EntryId {
        let row = Row { location, tag: tag << STATE_BITS, accessed: 0 };
        if let Some(id) = self.free {
            let next = self.rows[id.index()].accessed;
            self.free = (next != NO_ID).then_some(EntryId(next));
            self.free_count -= 1;
            self.rows[id.index()] = row;
            return id;
        }
        let id = EntryId(self.high);
        self.high += 1;
        self.rows.push(row);
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
            self.rows[new.index()].tag |= EXPIRES;
        }
        self.rows[new.index()].accessed = from.rows[id.index()].accessed;
        new
    }

    /// Writes the columns of a snapshot.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        to.u32(self.free.map_or(NO_ID, |id| id.0));
        to.u32(self.free_count);
        to.column(&self.rows, |row| {
            let mut bytes = [0; 12];
            bytes[0..4].copy_from_slice(&row.location.0.to_le_bytes());
            bytes[4..8].copy_from_slice(&row.tag.to_le_bytes());
            bytes[8..12].copy_from_slice(&row.accessed.to_le_bytes());
            bytes
        });
        let deadline = &self.deadline[..self.rows.len()];
        // A column of zeros was never written, and need not be.
        let expires = deadline.iter().any(|&secs| secs != 0);
        to.column(if expires { deadline } else { &[] }, |secs| secs.to_le_bytes());
    }

    /// The columns of a snapshot; `None` when they cannot be what was written.
    pub(crate) fn load(from: &mut Reader<'_>, entries_max: usize) -> Option<Self> {
        let (free, free_count) = (from.u32()?, from.u32()?);
        let rows = from.column::<12>()?;
        let deadline = from.column::<4>()?;
        let mut entries = Self::new(entries_max.max(rows.len()));
        entries.rows.extend(rows.iter().map(|row| {
            let [a, b, c, d, e, f, g, h, i, j, k, l] = *row;
            Row {
                location: Location(u32::from_le_bytes([a, b, c, d])),
                tag: u32::from_le_bytes([e, f, g, h]),
                accessed: u32::from_le_bytes([i, j, k, l]),
            }
        }));
        for (to, secs) in entries.deadline.iter_mut().zip(deadline) {
            *to = u32::from_le_bytes(*secs);
        }
        entries.high = u32::try_from(rows.len()).ok()?;
        entries.free = (free != NO_ID).then_some(EntryId(free));
        entries.free_count = free_count;
        let is_sound = (deadline.is_empty() || deadline.len() == rows.len())
            && entries.free.is_none_or(|id| id.0 < entries.high)
            && free_count <= entries.high;
        is_sound.then_some(entries)
    }

    /// Ids that are free now.
    pub(crate) fn free_count(&self) -> u32 {
        self.free_count
    }

    /// Takes an id back.
    pub(crate) fn release(&mut self, id: EntryId) {
        self.rows[id.index()].location = Location::NONE;
        self.set_deadline(id, Deadline::NEVER);
        self.rows[id.index()].accessed = self.free.map_or(NO_ID, |next| next.0);
        self.free = Some(id);
        self.free_count += 1;
    }

    /// Asks the processor to fetch what a read needs of the columns.
    #[inline]
    pub(crate) fn prefetch(&self, id: EntryId) {
        prefetch(&self.rows[id.index()]);
    }

    #[inline]
    pub(crate) fn location(&self, id: EntryId) -> Location {
        self.rows[id.index()].location
    }

    #[inline]
    pub(crate) fn set_location(&mut self, id: EntryId, location: Location) {
        self.rows[id.index()].location = location;
    }

    /// The 28 bits of hash given at allocation.
    #[inline]
    pub(crate) fn tag(&self, id: EntryId) -> u32 {
        self.rows[id.index()].tag >> STATE_BITS
    }

    #[inline]
    pub(crate) fn state(&self, id: EntryId) -> u32 {
        self.rows[id.index()].tag & STATE_MASK
    }

    #[inline]
    pub(crate) fn set_state(&mut self, id: EntryId, state: u32) {
        debug_assert!(state & !STATE_MASK == 0);
        let tag = &mut self.rows[id.index()].tag;
        *tag = *tag & !STATE_MASK | state;
    }

    #[inline]
    pub(crate) fn set_deadline(&mut self, id: EntryId, deadline: Deadline) {
        let secs = deadline.column_secs();
        let tag = &mut self.rows[id.index()].tag;
        // A column never written stays out of memory.
        if secs != 0 || *tag & EXPIRES != 0 {
            self.deadline[id.index()] = secs;
        }
        *tag = if secs == 0 { *tag & !EXPIRES } else { *tag | EXPIRES };
    }

    /// What the deadline column knows of an entry at `now`.
    #[inline]
    pub(crate) fn expiry(&self, id: EntryId, now: Timestamp) -> Expiry {
        if !self.has_deadline(id) {
            return Expiry::Valid;
        }
        let secs = u64::from(self.deadline[id.index()]);
        if now.0 <= (secs - 1) * 1000 {
            Expiry::Valid
        } else if now.0 >= secs * 1000 {
            Expiry::Due
        } else {
            Expiry::WithinThisSecond
        }
    }

    /// The first entry in `from..to` whose deadline is not after `now`, by the column alone.
    pub(crate) fn first_due(&self, from: u32, to: u32, now: Timestamp) -> Option<EntryId> {
        let limit = now.as_secs().saturating_add(1);
        let column = &self.deadline[from as usize..to as usize];
        let at = column.iter().position(|&secs| secs != 0 && secs <= limit)?;
        Some(EntryId(from + u32::try_from(at).unwrap_or(u32::MAX)))
    }

    /// Whether the entry has a deadline.
    pub(crate) fn has_deadline(&self, id: EntryId) -> bool {
        self.rows[id.index()].tag & EXPIRES != 0
    }

    #[inline]
    pub(crate) fn accessed_secs(&self, id: EntryId) -> u32 {
        self.rows[id.index()].accessed
    }

    pub(crate) fn set_accessed_secs(&mut self, id: EntryId, secs: u32) {
        self.rows[id.index()].accessed = secs;
    }

    #[inline]
    pub(crate) fn set_accessed(&mut self, id: EntryId, now: Timestamp) {
        self.rows[id.index()].accessed = now.as_secs();
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
        entries.set_deadline(id, Deadline::at(Timestamp(5_000)));
        entries.set_state(id, state::STALE | state::FETCHED);
        assert!(entries.has_deadline(id));
        entries.set_deadline(id, Deadline::NEVER);
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
