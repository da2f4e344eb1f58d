//! An item larger than a share of a segment, as a chain of records.
//!
//! ```text
//! index ─▶ head entry ─▶ | header | key | first bytes of the value |
//!            │ chain
//!            ├─▶ part 1 ─▶ | header | head's cas | the next bytes |
//!            └─▶ part 2 ─▶ | header | head's cas | the last bytes |
//! ```
//!
//! Every part is a record with an entry of its own, so the cleaner moves it like any other; only the
//! head is in the index and known to the policy. The parts are written first and the head last: a
//! head that stands has all its parts.

use std::collections::BTreeMap;

use eviction::EntryId;

use crate::entries::Entries;
use crate::log::{Location, Log};
use crate::pins::{PINNED_BYTES_MIN, PinnedValue};
use crate::snapshot::{Reader, Writer};

/// The parts of the large items, by their heads.
#[derive(Default)]
pub(crate) struct Chains {
    parts: BTreeMap<EntryId, Box<[EntryId]>>,
}

impl Chains {
    /// The parts of `head` after the first, in order.
    pub(crate) fn of(&self, head: EntryId) -> &[EntryId] {
        self.parts.get(&head).map_or(&[], |parts| parts)
    }

    pub(crate) fn insert(&mut self, head: EntryId, parts: Box<[EntryId]>) {
        self.parts.insert(head, parts);
    }

    pub(crate) fn remove(&mut self, head: EntryId) -> Box<[EntryId]> {
        self.parts.remove(&head).unwrap_or_default()
    }

    /// Writes the chains to a snapshot.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        to.u64(self.parts.len() as u64);
        for (head, parts) in &self.parts {
            to.u32(head.0);
            to.column(parts, |part| part.0.to_le_bytes());
        }
    }

    /// The chains of a snapshot; `None` when they cannot be ones of entries below `entries_high`.
    pub(crate) fn load(from: &mut Reader<'_>, entries_high: u32) -> Option<Self> {
        let mut chains = Self::default();
        for _ in 0..from.u64()? {
            let head = EntryId(from.u32()?);
            let parts = from.column::<4>()?.iter().map(|id| EntryId(u32::from_le_bytes(*id)));
            let parts: Box<[EntryId]> = parts.collect();
            if head.0 >= entries_high || parts.iter().any(|part| part.0 >= entries_high) {
                return None;
            }
            chains.insert(head, parts);
        }
        Some(chains)
    }

    /// How many entries are parts.
    pub(crate) fn part_count(&self) -> usize {
        self.parts.values().map(|parts| parts.len()).sum()
    }
}

/// An item's value, in one piece or several, read in place.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) first_at: Location,
    pub(crate) rest: &'a [EntryId],
    pub(crate) log: &'a Log,
    pub(crate) entries: &'a Entries,
    pub(crate) len: usize,
}

impl<'a> Value<'a> {
    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value's pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (log, entries) = (self.log, self.entries);
        let rest = self.rest.iter().map(move |&part| log.record(entries.location(part)).value());
        std::iter::once(self.first).chain(rest)
    }

    /// Appends the value to `out`.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.first);
        if !self.rest.is_empty() {
            self.pieces().skip(1).for_each(|piece| out.extend_from_slice(piece));
        }
    }

    /// The value, to be read where it stands after the shard was unlocked; `None` where it is too short for that.
    pub fn pin(&self) -> Option<PinnedValue> {
        if self.len < PINNED_BYTES_MIN {
            return None;
        }
        let first = self.log.pin(self.first_at, self.first);
        let rest = self.rest.iter().map(|&part| {
            let location = self.entries.location(part);
            self.log.pin(location, self.log.record(location).value())
        });
        Some(PinnedValue::new(std::iter::once(first).chain(rest).collect()))
    }

    /// The value as one vector.
    pub fn to_vec(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len);
        self.append_to(&mut out);
        out
    }
}

/// The sub-range `from..from + len` of bytes that come in pieces.
pub(crate) fn range<'a>(
    pieces: &'a [&'a [u8]],
    from: usize,
    len: usize,
) -> impl Iterator<Item = &'a [u8]> {
    let to = from + len;
    let mut start = 0;
    pieces.iter().filter_map(move |piece| {
        let (begin, end) = (start, start + piece.len());
        start = end;
        let (low, high) = (from.max(begin), to.min(end));
        (low < high).then(|| &piece[low - begin..high - begin])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_pieces_is_the_range_of_their_concatenation() {
        let pieces: [&[u8]; 4] = [b"abc", b"", b"defgh", b"i"];
        let whole = pieces.concat();
        for from in 0..=whole.len() {
            for len in 0..=whole.len() - from {
                let got: Vec<u8> = range(&pieces, from, len).flatten().copied().collect();
                assert_eq!(got, &whole[from..from + len]);
            }
        }
    }
}
