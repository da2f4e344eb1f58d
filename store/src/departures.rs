//! What leaves a shard by itself: evicted or expired, noted for whoever keeps a copy of the shard.
//!
//! ```text
//! operation ──▶ makes room, meets what has expired ──▶ Departures ──▶ the caller, after the operation
//! ```
//!
//! - A delete, a flush and a replacing write are no departures: who asked for them knows.
//! - A large item departs once, with its key; its parts do not.
//! - Departures come before what the operation wrote: a copy that hears of them, and then of the key's
//!   new item, ends up with the item.

use eviction::{EntryId, KeyHash};

use crate::hash::key_hash;
use crate::shard::Shard;

/// Why an item departed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepartureReason {
    /// It made room, here or where another copy is.
    Evicted,
    /// Its time was over.
    Expired,
    /// The write that was to replace it found no room, and it must not pass for the newer one.
    Unwritten,
}

/// An item that departed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The hash of its key.
    pub hash: KeyHash,
    /// The cas that it had.
    pub cas: u64,
    /// Why it left.
    pub reason: DepartureReason,
}

/// Departures in the order in which they came. Empty ones cost no memory; used again they keep what
/// they took.
#[derive(Debug, Default)]
pub struct Departures {
    rows: Vec<Row>,
    /// The keys, one after the other.
    keys: Vec<u8>,
}

#[derive(Debug)]
struct Row {
    hash: KeyHash,
    cas: u64,
    key_end: usize,
    reason: DepartureReason,
}

impl Departures {
    /// The departures, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = Departure<'_>> {
        let mut key_start = 0;
        self.rows.iter().map(move |row| {
            let key = &self.keys[key_start..row.key_end];
            key_start = row.key_end;
            Departure { key, hash: row.hash, cas: row.cas, reason: row.reason }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
    }

    fn push(&mut self, key: &[u8], cas: u64, reason: DepartureReason) {
        self.keys.extend_from_slice(key);
        let (hash, key_end) = (key_hash(key), self.keys.len());
        self.rows.push(Row { hash, cas, key_end, reason });
    }
}

/// What a shard notes of departures.
#[derive(Debug, Default)]
pub(crate) struct DepartureNotes {
    pub(crate) is_on: bool,
    noted: Departures,
}

impl Shard {
    /// Whether departures are noted from now on. Who has them noted takes them after every operation:
    /// they are kept until then.
    pub fn set_noting_departures(&mut self, is_on: bool) {
        *self.departure_notes() = DepartureNotes { is_on, noted: Departures::default() };
    }

    /// Whether there are departures to take.
    #[inline]
    pub fn has_departures(&self) -> bool {
        !self.departure_notes_ref().noted.is_empty()
    }

    /// Puts what departed since the last call into `into`, in place of what was there.
    pub fn take_departures(&mut self, into: &mut Departures) {
        into.clear();
        std::mem::swap(&mut self.departure_notes().noted, into);
    }

    #[cold]
    pub(crate) fn note_departure(&mut self, id: EntryId, reason: DepartureReason) {
        // Taken out for as long as the record is borrowed.
        let mut noted = std::mem::take(&mut self.departure_notes().noted);
        let record = self.record(id);
        noted.push(record.key(), record.cas(), reason);
        self.departure_notes().noted = noted;
    }
}
