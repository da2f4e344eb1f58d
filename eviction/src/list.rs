//! Doubly linked lists threaded by [`EntryId`] through one vector.
//!
//! ```text
//! Links   entry:   0         1         2         3         4
//!                | 2 · - | nowhere | 4 · 0 | nowhere | - · 2 |    newer · older, 8 bytes an entry
//!
//! List    newest ─> 4 ─> 2 ─> 0 <─ oldest
//! ```
//!
//! A [`List`] is only its two ends, so a policy with several lists keeps them all in one [`Links`]:
//! an entry stands in at most one of them, and moving it from one to another copies nothing. The links
//! of an entry that stands in none say so: links that come from outside can be checked to the last.

use std::iter;

use crate::EntryId;
use crate::column::Column;
use crate::snapshot::{Reader, Row, SnapshotError, Writer, pair_from_bytes, pair_to_bytes};

/// Stands for "no entry" in a link. The last id, which an owner would need 2^32 entries to reach.
const NONE: u32 = u32::MAX;
/// Both links of an entry that stands in no list. The last id but one.
const NOWHERE: u32 = u32::MAX - 1;

/// The neighbours of one entry in its list.
#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
}

impl Link {
    /// Of an entry that stands in no list.
    const NOWHERE: Self = Self { newer: NOWHERE, older: NOWHERE };

    fn stands(self) -> bool {
        self.newer != NOWHERE
    }
}

impl Row<8> for Link {
    fn to_bytes(self) -> [u8; 8] {
        pair_to_bytes(self.newer, self.older)
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let (newer, older) = pair_from_bytes(bytes);
        Self { newer, older }
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

    /// Whether `entry` stands in a list.
    pub(crate) fn stands(&self, entry: EntryId) -> bool {
        self.0.rows().get(entry.index()).is_some_and(|link| link.stands())
    }

    /// The entries that stand in a list, from the lowest id up.
    pub(crate) fn entries(&self) -> impl Iterator<Item = EntryId> {
        let standing = (0..).zip(self.0.rows()).filter(|(_, link)| link.stands());
        standing.map(|(entry, _)| EntryId(entry))
    }

    /// How many entries stand in a list.
    pub(crate) fn standing(&self) -> usize {
        self.0.rows().iter().filter(|link| link.stands()).count()
    }

    /// Whether exactly `entries`, each named once, stand in a list.
    pub(crate) fn hold_exactly(&self, entries: &mut dyn Iterator<Item = EntryId>) -> bool {
        let mut named = 0;
        for entry in entries {
            if !self.stands(entry) {
                return false;
            }
            named += 1;
        }
        named == self.standing()
    }

    /// Writes the links, with the number of rows in front: columns beside them have as many.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        to.count(self.0.rows().len());
        self.0.save(to);
    }

    /// Replaces the links by what `save` wrote and returns how many rows they have. They are not to be
    /// followed before `check` found them sound.
    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<usize, SnapshotError> {
        let rows = from.count()?;
        self.0.load(rows, from)?;
        if rows > NOWHERE as usize {
            return Err(SnapshotError::Impossible { what: "number of entries" });
        }
        Ok(rows)
    }

    /// Makes sure that `lists` and these links, which come from outside, belong together: each list
    /// goes from its newest to its oldest entry, neighbours name each other, `list_of` has for each
    /// entry the number of the list it stands in, and no entry is left over.
    ///
    /// Following one link at a time would wait for memory at each. So all lists are cut into
    /// stretches, several of which are followed side by side, and then put together again. `list_of`
    /// is asked in the order of the lists, that is, any: what it looks at should be dense.
    pub(crate) fn check(
        &self,
        lists: impl IntoIterator<Item = List>,
        list_of: impl Fn(EntryId) -> usize,
    ) -> Result<(), SnapshotError> {
        let stretches = self.stretches(&list_of);
        let mut reached = 0;
        for (number, list) in lists.into_iter().enumerate() {
            let (mut newer, mut next) = (NONE, list.newest);
            // Ends: no entry is the older neighbour of two, nor is the newest that of any.
            while next != NONE {
                let link = self.link_after(newer, next)?;
                let stretch = if starts_stretch(next) {
                    stretches[next as usize / STRETCH_IDS]
                } else {
                    Stretch::of(next, link, list_of(EntryId(next)))
                };
                if stretch.list != number {
                    return Err(SnapshotError::BrokenList { id: next });
                }
                reached += stretch.len;
                (newer, next) = (stretch.last, stretch.next);
            }
            if newer != list.oldest {
                return Err(SnapshotError::BrokenList { id: list.oldest });
            }
        }
        let standing = self.standing();
        if reached != standing {
            return Err(SnapshotError::Unreachable { reached, standing });
        }
        Ok(())
    }

    /// What follows each entry that starts a stretch, up to the next one that does or to whatever is
    /// wrong, which is then found when the stretches are put together. By the number of the entry
    /// among those that may start one.
    fn stretches(&self, list_of: &impl Fn(EntryId) -> usize) -> Vec<Stretch> {
        let rows = self.0.rows();
        let mut stretches = vec![Stretch::NONE; rows.len().div_ceil(STRETCH_IDS)];
        let mut starts = (0..).zip(rows).step_by(STRETCH_IDS).filter(|(_, link)| link.stands());
        let mut started = || {
            let (first, link) = starts.next()?;
            Some((first, Stretch::of(first, *link, list_of(EntryId(first)))))
        };
        let mut lanes: Vec<(u32, Stretch)> = iter::from_fn(&mut started).take(LANES).collect();
        let mut links = [Link::NOWHERE; LANES];
        let mut ended = Vec::with_capacity(LANES);
        while !lanes.is_empty() {
            // Nothing but loads here, so that all of them are waited for at once.
            for (link, (_, stretch)) in links.iter_mut().zip(&lanes) {
                *link = rows.get(stretch.next as usize).copied().unwrap_or(Link::NOWHERE);
            }
            for (lane, ((_, stretch), link)) in lanes.iter_mut().zip(links).enumerate() {
                let next = stretch.next;
                if link.newer == stretch.last
                    && !starts_stretch(next)
                    && list_of(EntryId(next)) == stretch.list
                {
                    stretch.len += 1;
                    stretch.last = next;
                    stretch.next = link.older;
                } else {
                    ended.push(lane);
                }
            }
            // From the last, so that the one moved into its place goes on.
            while let Some(lane) = ended.pop() {
                let (first, stretch) = lanes[lane];
                stretches[first as usize / STRETCH_IDS] = stretch;
                match started() {
                    Some(another) => lanes[lane] = another,
                    None => drop(lanes.swap_remove(lane)),
                }
            }
        }
        stretches
    }

    /// The links of `entry`, if there is one and its newer neighbour is `newer`.
    #[inline]
    fn link_after(&self, newer: u32, entry: u32) -> Result<Link, SnapshotError> {
        let rows = self.0.rows();
        match rows.get(entry as usize) {
            Some(link) if link.newer == newer => Ok(*link),
            Some(_) => Err(SnapshotError::BrokenList { id: entry }),
            None => Err(SnapshotError::OutOfRange { id: entry, rows: rows.len() }),
        }
    }
}

/// One entry in so many starts a stretch, if it stands in a list.
const STRETCH_IDS: usize = 128;
/// Stretches followed side by side: somewhat more than the lines that a core waits for at once.
const LANES: usize = 64;

fn starts_stretch(entry: u32) -> bool {
    (entry as usize).is_multiple_of(STRETCH_IDS)
}

/// A run of neighbours in a list.
#[derive(Clone, Copy)]
struct Stretch {
    /// The number of the list that all of them stand in.
    list: usize,
    len: usize,
    /// The oldest of them.
    last: u32,
    /// What `last` names as its older neighbour.
    next: u32,
}

impl Stretch {
    /// In place of one whose first entry stands in no list.
    const NONE: Self = Self { list: usize::MAX, len: 0, last: NONE, next: NONE };

    /// Of one entry.
    fn of(entry: u32, link: Link, list: usize) -> Self {
        Self { list, len: 1, last: entry, next: link.older }
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

    /// Writes the ends.
    pub(crate) fn save(self, to: &mut Writer<'_>) {
        to.row(self);
    }

    /// The list whose ends `save` wrote, to be checked with [`Links::check`].
    pub(crate) fn load(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        from.row()
    }

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
        debug_assert!(entry.0 < NOWHERE, "the last ids stand for no entry");
        debug_assert!(!links.stands(entry), "{entry:?} stands in a list already");
        links.0.reach(entry, Link::NOWHERE);
        self.link_newest(links, entry);
    }

    #[inline]
    fn link_newest(&mut self, links: &mut Links, entry: EntryId) {
        links.0[entry] = Link { newer: NONE, older: self.newest };
        match some(self.newest) {
            Some(second) => links.0[second].newer = entry.0,
            None => self.oldest = entry.0,
        }
        self.newest = entry.0;
    }

    /// Takes `entry`, which stands in this list, out of it.
    #[inline]
    pub(crate) fn remove(&mut self, links: &mut Links, entry: EntryId) {
        self.unlink(links, entry);
        links.0[entry] = Link::NOWHERE;
    }

    #[inline]
    fn unlink(&mut self, links: &mut Links, entry: EntryId) {
        debug_assert!(links.stands(entry), "{entry:?} stands in no list");
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
            self.unlink(links, entry);
            self.link_newest(links, entry);
        }
    }
}

impl Row<8> for List {
    fn to_bytes(self) -> [u8; 8] {
        pair_to_bytes(self.newest, self.oldest)
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        let (newest, oldest) = pair_from_bytes(bytes);
        Self { newest, oldest }
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
        iter::from_fn(|| list.pop_oldest(links)).map(|entry| entry.0).collect()
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

    /// Links of `rows` entries in two lists, by whether the number is odd, in an order of no pattern.
    fn two_lists(rows: u32) -> (Links, [List; 2]) {
        let mut links = Links::with_capacity(0);
        let mut lists = [List::EMPTY; 2];
        // A prime factor meets every number below a power of two once.
        for at in 0..rows.next_power_of_two() {
            let entry = at.wrapping_mul(7_919) % rows.next_power_of_two();
            if entry < rows {
                lists[entry as usize % 2].push_newest(&mut links, EntryId(entry));
            }
        }
        (links, lists)
    }

    fn parity(entry: EntryId) -> usize {
        entry.index() % 2
    }

    #[test]
    fn sound_lists_are_found_to_be_so() {
        for rows in [0, 1, 2, 3, 127, 128, 129, 1_000, 10_000] {
            let (mut links, mut lists) = two_lists(rows);
            assert_eq!(links.check(lists, parity), Ok(()), "{rows} rows");
            for entry in (0..rows).step_by(3).map(EntryId) {
                lists[parity(entry)].remove(&mut links, entry);
            }
            assert_eq!(links.check(lists, parity), Ok(()), "{rows} rows");
        }
    }

    #[test]
    fn an_entry_of_another_list_is_found() {
        let (links, lists) = two_lists(1_000);
        for odd_one in (0..1_000).map(EntryId) {
            let list_of = |entry| if entry == odd_one { 1 - parity(entry) } else { parity(entry) };
            assert!(links.check(lists, list_of).is_err(), "{odd_one:?}");
        }
    }

    #[test]
    fn a_link_to_anywhere_else_is_found() {
        let (mut links, lists) = two_lists(1_000);
        for entry in (0..1_000).map(EntryId) {
            let sound = links.0[entry];
            for id in [NONE, NOWHERE, 1_000, entry.0, 0, 1, 500, 501] {
                for broken in [Link { newer: id, ..sound }, Link { older: id, ..sound }] {
                    if (broken.newer, broken.older) != (sound.newer, sound.older) {
                        links.0[entry] = broken;
                        assert!(links.check(lists, parity).is_err(), "{entry:?}: {broken:?}");
                    }
                }
            }
            links.0[entry] = sound;
        }
    }

    #[test]
    fn a_ring_beside_the_lists_is_found() {
        for ring in [[3, 7, 9], [0, 4, 8], [126, 128, 256]] {
            let (mut links, mut lists) = two_lists(1_000);
            for entry in ring.map(EntryId) {
                lists[parity(entry)].remove(&mut links, entry);
            }
            assert_eq!(links.check(lists, parity), Ok(()));
            for at in 0..3 {
                let (newer, older) = (ring[(at + 2) % 3], ring[(at + 1) % 3]);
                links.0[EntryId(ring[at])] = Link { newer, older };
            }
            let error = SnapshotError::Unreachable { reached: 997, standing: 1_000 };
            assert_eq!(links.check(lists, parity), Err(error), "{ring:?}");
        }
    }

    #[test]
    fn ends_that_are_not_the_lists_own_are_found() {
        let (links, [even, odd]) = two_lists(1_000);
        let List { newest, oldest } = even;
        for broken in [
            [odd, even],
            [even, even],
            [even, List::EMPTY],
            [List { newest: 2_000, oldest }, odd],
            [List { newest: links.0[EntryId(newest)].older, oldest }, odd],
            [List { newest, oldest: links.0[EntryId(oldest)].newer }, odd],
            [List { newest, oldest: NONE }, odd],
        ] {
            assert!(links.check(broken, parity).is_err(), "{broken:?}");
        }
        assert!(links.check([even, odd, List { newest: NONE, oldest: 0 }], parity).is_err());
    }
}
