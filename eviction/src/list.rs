//! Doubly linked lists threaded by [`EntryId`] through one vector.
//!
//! ```text
//! Links   entry:   0        1        2        3        4
//!                | 2 · - |  free  | 4 · 0 |  free  | - · 2 |    newer · older, 8 bytes an entry
//!
//! List    newest ─> 4 ─> 2 ─> 0 <─ oldest
//! ```
//!
//! A [`List`] is only its two ends, so a policy with several lists keeps them all in one [`Links`]:
//! an entry stands in at most one of them, and moving it from one to another copies nothing.

use crate::EntryId;
use crate::column::Column;

/// Stands for "no entry" in a link. The last id, which an owner would need 2^32 entries to reach.
const NONE: u32 = u32::MAX;

/// The neighbours of one entry in its list.
#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { newer: NONE, older: NONE }
    }
}

/// The neighbours of every entry, whichever list it stands in.
#[derive(Debug)]
pub(crate) struct Links(Column<Link>);

impl Links {
    /// Reserves, untouched, for `entries_max` entries.
    pub(crate) fn with_capacity(entries_max: usize) -> Self {
        Self(Column::with_capacity(entries_max))
    }

    /// Where the links of `entry` lie.
    pub(crate) fn address(&self, entry: EntryId) -> *const u8 {
        self.0.address(entry)
    }
}

/// An order of entries from newest to oldest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    newest: u32,
    oldest: u32,
}

impl List {
    /// A list of no entries.
    pub(crate) const EMPTY: Self = Self { newest: NONE, oldest: NONE };

    /// Whether no entry stands in the list.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.newest == NONE
    }

    /// The entry that has been in the list the longest.
    #[inline]
    pub(crate) fn oldest(&self) -> Option<EntryId> {
        some(self.oldest)
    }

    /// The neighbour of `entry` that came after it.
    #[inline]
    pub(crate) fn newer(links: &Links, entry: EntryId) -> Option<EntryId> {
        some(links.0[entry].newer)
    }

    /// Puts `entry`, which stands in no list, at the newest end.
    #[inline]
    pub(crate) fn push_newest(&mut self, links: &mut Links, entry: EntryId) {
        debug_assert!(entry.0 != NONE, "the last id stands for no entry");
        links.0.set(entry, Link { newer: NONE, older: self.newest });
        match some(self.newest) {
            Some(second) => links.0[second].newer = entry.0,
            None => self.oldest = entry.0,
        }
        self.newest = entry.0;
    }

    /// Takes `entry`, which stands in this list, out of it.
    #[inline]
    pub(crate) fn remove(&mut self, links: &mut Links, entry: EntryId) {
        let Link { newer, older } = links.0[entry];
        match some(newer) {
            Some(newer) => links.0[newer].older = older,
            None => {
                debug_assert!(self.newest == entry.0, "{entry:?} stands in another list");
                self.newest = older;
            }
        }
        match some(older) {
            Some(older) => links.0[older].newer = newer,
            None => {
                debug_assert!(self.oldest == entry.0, "{entry:?} stands in another list");
                self.oldest = newer;
            }
        }
    }

    /// Takes out and returns the oldest entry.
    #[inline]
    pub(crate) fn pop_oldest(&mut self, links: &mut Links) -> Option<EntryId> {
        let entry = self.oldest()?;
        self.remove(links, entry);
        Some(entry)
    }

    /// Moves `entry`, which stands in this list, to its newest end.
    #[inline]
    pub(crate) fn renew(&mut self, links: &mut Links, entry: EntryId) {
        if self.newest != entry.0 {
            self.remove(links, entry);
            self.push_newest(links, entry);
        }
    }
}

#[inline]
fn some(link: u32) -> Option<EntryId> {
    (link != NONE).then_some(EntryId(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(list: &mut List, links: &mut Links) -> Vec<u32> {
        std::iter::from_fn(|| list.pop_oldest(links)).map(|entry| entry.0).collect()
    }

    fn list_of(links: &mut Links, entries: &[u32]) -> List {
        let mut list = List::EMPTY;
        for &entry in entries {
            list.push_newest(links, EntryId(entry));
        }
        list
    }

    #[test]
    fn entries_leave_in_the_order_they_came() {
        let mut links = Links::with_capacity(0);
        let mut list = list_of(&mut links, &[7, 0, 3]);
        assert_eq!(drained(&mut list, &mut links), [7, 0, 3]);
        assert!(list.is_empty());
    }

    #[test]
    fn any_entry_can_be_removed_or_renewed() {
        for (entry, renewed) in [(1, [2, 3, 1]), (2, [1, 3, 2]), (3, [1, 2, 3])] {
            let mut links = Links::with_capacity(4);
            let mut list = list_of(&mut links, &[1, 2, 3]);
            list.renew(&mut links, EntryId(entry));
            assert_eq!(drained(&mut list, &mut links), renewed);

            let mut list = list_of(&mut links, &[1, 2, 3]);
            list.remove(&mut links, EntryId(entry));
            let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|&other| other != entry).collect();
            assert_eq!(drained(&mut list, &mut links), rest);
        }
    }

    #[test]
    fn two_lists_share_one_column() {
        let mut links = Links::with_capacity(8);
        let mut odd = list_of(&mut links, &[1, 3, 5]);
        let mut even = list_of(&mut links, &[2, 4]);
        odd.remove(&mut links, EntryId(3));
        even.push_newest(&mut links, EntryId(3));
        assert_eq!(drained(&mut odd, &mut links), [1, 5]);
        assert_eq!(drained(&mut even, &mut links), [2, 4, 3]);
    }
}
