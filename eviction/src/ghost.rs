//! `GhostLists`: keys evicted lately, remembered by hash and weight, in one or more bounded orders.
//!
//! ```text
//! table   | · | 2 | · | 0 | 1 | · |      home of a key: its hash scaled to the table's length
//!               │       │   │            a cell: | bits of the hash | how far from home | slot |
//! slots   0: hash, weight, list, newer, older
//!         1: …
//! ```
//!
//! - A key stands in at most one list, once.
//! - At most 3/4 of the cells are taken, so a search ends soon. A taken cell is first compared by how far
//!   from home its key is, which tells nearly all other keys, and by as many bits of the hash as fit
//!   beside: a search for a key that is no ghost rarely reads a slot. Nor does the removal of a ghost,
//!   which has to know where those behind it belong.
//! - A removed ghost's slot is used again before a new one: memory follows the greatest number of
//!   ghosts there ever was, and nothing has to be compacted.

use crate::column::Column;
use crate::list::{Links, List};
use crate::snapshot::{Reader, Row, SnapshotError, Writer, check};
use crate::{EntryId, KeyHash};

/// Ghosts in `LISTS` orders, from newest to oldest each.
#[derive(Debug)]
pub(crate) struct GhostLists<const LISTS: usize> {
    orders: [Order; LISTS],
    /// Open addressing with linear probing.
    table: Vec<u32>,
    /// Slots not in use, threaded through the same links.
    free: List,
    slots: u32,
    links: Links,
    keys: Column<KeyHash>,
    weights: Column<u32>,
    lists: Column<u8>,
}

/// One order, how many ghosts stand in it, and what they weighed together when they left.
#[derive(Clone, Copy, Debug)]
struct Order {
    list: List,
    len: usize,
    weight: u64,
}

/// What was remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ghost {
    /// The list it stood in.
    pub(crate) list: usize,
    /// What it weighed when it left.
    pub(crate) weight: u32,
}

/// A free cell. No slot has this number, whatever bits stand beside it: see `slot_bits`.
const EMPTY: u32 = u32::MAX;

impl Row<8> for KeyHash {
    fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }
}

/// The list of a slot that is not in use.
const FREE: u8 = u8::MAX;

/// What a ghost costs at most: 21 bytes of slot, and two cells just after the table grew.
pub(crate) const GHOST_BYTES_MAX: u32 = 21 + 8;

/// Bits of a cell that tell how far it is from its key's home, if there is room for them; with all of them
/// set it is that far or farther.
const DISTANCE_BITS: u32 = 5;

/// Cells of the first table.
const CELLS_MIN: usize = 16;
/// Cells of the longest table.
const CELLS_MAX: usize = 1 << 31;

impl<const LISTS: usize> GhostLists<LISTS> {
    /// No ghosts, no memory.
    pub(crate) fn new() -> Self {
        Self {
            orders: [Order { list: List::EMPTY, len: 0, weight: 0 }; LISTS],
            table: Vec::new(),
            free: List::EMPTY,
            slots: 0,
            links: Links::with_capacity(0),
            keys: Column::with_capacity(0),
            weights: Column::with_capacity(0),
            lists: Column::with_capacity(0),
        }
    }

    /// How many keys are remembered, in all lists.
    pub(crate) fn len(&self) -> usize {
        self.orders.iter().map(|order| order.len).sum()
    }

    /// How many keys are remembered in `list`.
    pub(crate) fn len_of(&self, list: usize) -> usize {
        self.orders[list].len
    }

    /// What the ghosts of `list` weighed together when they left.
    pub(crate) fn weight(&self, list: usize) -> u64 {
        self.orders[list].weight
    }

    /// Remembers `key` as the newest of `list`, and nowhere else.
    pub(crate) fn push(&mut self, list: usize, key: KeyHash, weight: u32) {
        self.take(key);
        if (self.len() + 1) * 4 > self.table.len() * 3 {
            self.grow();
        }
        let slot = self.free.pop_oldest(&mut self.links).unwrap_or_else(|| {
            self.slots += 1;
            EntryId(self.slots - 1)
        });
        self.keys.set(slot, key);
        self.weights.set(slot, weight);
        self.lists.set(slot, u8::try_from(list).expect("there are few lists"));
        let order = &mut self.orders[list];
        order.list.push_newest(&mut self.links, slot);
        order.len += 1;
        order.weight += u64::from(weight);
        self.place(slot, key);
    }

    /// Forgets `key` and returns what was remembered of it.
    pub(crate) fn take(&mut self, key: KeyHash) -> Option<Ghost> {
        let cell = self.find(key)?;
        let slot = self.slot_of(self.table[cell]);
        Some(self.forget(cell, slot))
    }

    /// Forgets the oldest ghost of `list` and returns it.
    pub(crate) fn pop_oldest(&mut self, list: usize) -> Option<Ghost> {
        let slot = self.orders[list].list.oldest()?;
        let cell = self.find(self.keys[slot]).expect("every ghost is in the table");
        Some(self.forget(cell, slot))
    }

    fn forget(&mut self, cell: usize, slot: EntryId) -> Ghost {
        let ghost = Ghost { list: usize::from(self.lists[slot]), weight: self.weights[slot] };
        let order = &mut self.orders[ghost.list];
        order.list.remove(&mut self.links, slot);
        order.len -= 1;
        order.weight -= u64::from(ghost.weight);
        self.free.push_newest(&mut self.links, slot);
        self.lists[slot] = FREE;
        self.clear(cell);
        ghost
    }

    /// Where the search for `key` starts. The owner may have chosen this cache by some bits of the
    /// hash, which then are equal in all its keys; the product spreads the others over all cells.
    fn home(&self, KeyHash(hash): KeyHash) -> usize {
        let spread = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        ((spread * self.table.len() as u64) >> 32) as usize
    }

    fn next(&self, cell: usize) -> usize {
        if cell + 1 == self.table.len() { 0 } else { cell + 1 }
    }

    /// Bits of a cell that hold the slot. There are fewer slots than cells, so the greatest number of
    /// that many bits is no slot's, and no taken cell equals `EMPTY`.
    fn slot_bits(&self) -> u32 {
        usize::BITS - self.table.len().leading_zeros()
    }

    fn slot_of(&self, cell: u32) -> EntryId {
        EntryId(cell & !(u32::MAX << self.slot_bits()))
    }

    /// The greatest distance from home that a cell can tell, which stands for all beyond, too.
    fn distance_max(&self) -> usize {
        (1 << DISTANCE_BITS.min(u32::BITS - self.slot_bits())) - 1
    }

    /// What stands in the cell of `key` beside the slot, `distance` cells behind the key's home.
    #[expect(clippy::cast_possible_truncation, reason = "as many bits as there is room for")]
    fn beside(&self, KeyHash(hash): KeyHash, distance: usize) -> u32 {
        let slot_bits = self.slot_bits();
        let distance = distance.min(self.distance_max()) as u32;
        let tag = u64::from((hash >> 32) as u32) << DISTANCE_BITS;
        ((tag << slot_bits) as u32) | (distance << slot_bits)
    }

    /// How far behind its key's home the taken cell at `at` is.
    fn distance_of(&self, at: usize) -> usize {
        let taken = self.table[at];
        let told = (taken >> self.slot_bits()) as usize & self.distance_max();
        if told < self.distance_max() {
            return told;
        }
        self.steps(self.home(self.keys[self.slot_of(taken)]), at)
    }

    /// How many cells `to` is behind `from`.
    fn steps(&self, from: usize, to: usize) -> usize {
        if to < from { to + self.table.len() - from } else { to - from }
    }

    /// Where the search for `key` looks first.
    pub(crate) fn address(&self, key: KeyHash) -> *const u8 {
        if self.table.is_empty() {
            return std::ptr::null();
        }
        self.table.as_ptr().wrapping_add(self.home(key)).cast()
    }

    /// Where the oldest ghost of `list` has its key and its weight.
    pub(crate) fn oldest_addresses(&self, list: usize) -> [*const u8; 2] {
        match self.orders[list].list.oldest() {
            Some(slot) => [self.keys.address(slot), self.weights.address(slot)],
            None => [std::ptr::null(); 2],
        }
    }

    /// Where the search for the oldest ghost of `list` looks first.
    pub(crate) fn oldest_cell_address(&self, list: usize) -> *const u8 {
        let oldest = self.orders[list].list.oldest();
        oldest.map_or(std::ptr::null(), |slot| self.address(self.keys[slot]))
    }

    /// The cell of `key`.
    fn find(&self, key: KeyHash) -> Option<usize> {
        if self.len() == 0 {
            return None;
        }
        let (cell, _) = self.search(key);
        (self.table[cell] != EMPTY).then_some(cell)
    }

    /// The cell of `key`, or the free one where it would be placed, and how far from home that is. There
    /// must be a table.
    fn search(&self, key: KeyHash) -> (usize, usize) {
        let slot_mask = u32::MAX << self.slot_bits();
        let (mut cell, mut distance) = (self.home(key), 0);
        loop {
            let taken = self.table[cell];
            let may_be = || taken & slot_mask == self.beside(key, distance);
            if taken == EMPTY || may_be() && self.keys[self.slot_of(taken)] == key {
                return (cell, distance);
            }
            (cell, distance) = (self.next(cell), distance + 1);
        }
    }

    fn place(&mut self, slot: EntryId, key: KeyHash) {
        let (mut cell, mut distance) = (self.home(key), 0);
        while self.table[cell] != EMPTY {
            (cell, distance) = (self.next(cell), distance + 1);
        }
        self.table[cell] = self.beside(key, distance) | slot.0;
    }

    /// Empties `cell`, and moves up what was placed behind it for want of it.
    #[expect(clippy::cast_possible_truncation, reason = "distances are cut to a few bits")]
    fn clear(&mut self, mut cell: usize) {
        let mut behind = cell;
        loop {
            behind = self.next(behind);
            let taken = self.table[behind];
            if taken == EMPTY {
                break;
            }
            let (distance, up) = (self.distance_of(behind), self.steps(cell, behind));
            // Its home lies no farther behind than the empty cell.
            if distance >= up {
                let (distance_max, slot_bits) = (self.distance_max(), self.slot_bits());
                let told = (distance - up).min(distance_max) as u32;
                let others = taken & !((distance_max as u32) << slot_bits);
                self.table[cell] = others | told << slot_bits;
                cell = behind;
            }
        }
        self.table[cell] = EMPTY;
    }

    /// Makes the table half as long again. Rare: a ghost in three is placed anew for each added.
    #[cold]
    fn grow(&mut self) {
        let cells = longer(self.table.len());
        assert!(cells <= CELLS_MAX, "a cell has a bit to spare beside the slot");
        self.empty_table(cells);
        for slot in (0..self.slots).map(EntryId) {
            if self.lists[slot] != FREE {
                self.place(slot, self.keys[slot]);
            }
        }
    }

    fn empty_table(&mut self, cells: usize) {
        self.table.clear();
        self.table.reserve_exact(cells);
        self.table.resize(cells, EMPTY);
    }

    /// Writes the ghosts. Not the table, which follows from the slots: how long it is from their
    /// number, which is the greatest number of ghosts there ever was.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        for order in &self.orders {
            order.list.save(to);
        }
        self.free.save(to);
        self.links.save(to);
        self.keys.save(to);
        self.weights.save(to);
        self.lists.save(to);
    }

    /// Replaces the ghosts by those that `save` wrote.
    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<(), SnapshotError> {
        for order in &mut self.orders {
            *order = Order { list: List::load(from)?, len: 0, weight: 0 };
        }
        self.free = List::load(from)?;
        let slots = self.links.load(from)?;
        self.keys.load(slots, from)?;
        self.weights.load(slots, from)?;
        self.lists.load(slots, from)?;

        let lists = self.orders.map(|order| order.list);
        self.links.check(lists.into_iter().chain([self.free]), |slot| match self.lists[slot] {
            FREE => LISTS,
            // The number behind the last order is that of the free slots.
            list if usize::from(list) < LISTS => list.into(),
            _ => usize::MAX,
        })?;
        check(self.links.standing() == slots, "ghost in no list")?;
        for (&list, &weight) in self.lists.rows().iter().zip(self.weights.rows()) {
            if list != FREE {
                let order = &mut self.orders[usize::from(list)];
                order.len += 1;
                order.weight += u64::from(weight);
            }
        }
        check(slots <= CELLS_MAX / 2, "number of ghosts")?;
        self.slots = u32::try_from(slots)
            .map_err(|_| SnapshotError::Impossible { what: "number of ghosts" })?;
        self.rebuild_table()
    }

    /// Makes the table that the slots would have.
    fn rebuild_table(&mut self) -> Result<(), SnapshotError> {
        let slots = self.slots as usize;
        let (mut cells, mut steps) = (0, 0);
        while slots * 4 > cells * 3 {
            cells = longer(cells);
        }
        self.empty_table(cells);
        for slot in (0..self.slots).map(EntryId) {
            if self.lists[slot] != FREE {
                let key = self.keys[slot];
                let (cell, distance) = self.search(key);
                check(self.table[cell] == EMPTY, "ghost that is there twice")?;
                steps += distance;
                check(steps <= slots * STEPS_MAX, "crowd of ghosts")?;
                self.table[cell] = self.beside(key, distance) | slot.0;
            }
        }
        Ok(())
    }
}

/// Steps from a key's home to its cell, in the mean over a snapshot: hashes give two or three, only
/// keys made to collide as many as this.
const STEPS_MAX: usize = 32;

/// What a table of so many cells grows to.
fn longer(cells: usize) -> usize {
    (cells * 3 / 2).max(CELLS_MIN)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::Kind;

    #[derive(Clone, Debug)]
    enum Op {
        Push(usize, u64, u32),
        Take(u64),
        PopOldest(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        // Few homes and fewer tags, so that searches run on, and around the end of the table.
        let key = (0..6_u64, 0..5_u64).prop_map(|(home, tag)| (tag << 32) | (tag << 62) | home);
        prop_oneof![
            4 => (0..2_usize, key.clone(), 1..9_u32).prop_map(|(l, k, w)| Op::Push(l, k, w)),
            2 => key.prop_map(Op::Take),
            1 => (0..2_usize).prop_map(Op::PopOldest),
        ]
    }

    proptest! {
        #[test]
        fn ghosts_are_remembered_like_in_a_vector(ops in vec(op(), 0..300)) {
            let mut ghosts = GhostLists::<2>::new();
            let mut model: Vec<(u64, Ghost)> = Vec::new();
            for op in ops {
                match op {
                    Op::Push(list, key, weight) => {
                        ghosts.push(list, KeyHash(key), weight);
                        model.retain(|(other, _)| *other != key);
                        model.push((key, Ghost { list, weight }));
                    }
                    Op::Take(key) => {
                        let at = model.iter().position(|(other, _)| *other == key);
                        let expected = at.map(|at| model.remove(at).1);
                        prop_assert_eq!(ghosts.take(KeyHash(key)), expected);
                    }
                    Op::PopOldest(list) => {
                        let at = model.iter().position(|(_, ghost)| ghost.list == list);
                        let expected = at.map(|at| model.remove(at).1);
                        prop_assert_eq!(ghosts.pop_oldest(list), expected);
                    }
                }
                prop_assert_eq!(ghosts.len(), model.len());
                for list in 0..2 {
                    let of_list = model.iter().filter(|(_, ghost)| ghost.list == list);
                    let weight: u64 = of_list.map(|(_, ghost)| u64::from(ghost.weight)).sum();
                    prop_assert_eq!(ghosts.weight(list), weight);
                    let len = model.iter().filter(|(_, ghost)| ghost.list == list).count();
                    prop_assert_eq!(ghosts.len_of(list), len);
                }
            }
        }
    }

    #[test]
    fn memory_follows_the_greatest_number_of_ghosts_not_their_turnover() {
        let mut ghosts = GhostLists::<1>::new();
        for key in 0..100_000_u64 {
            ghosts.push(0, KeyHash(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)), 1);
            if ghosts.len() > 1_000 {
                ghosts.pop_oldest(0);
            }
        }
        assert_eq!(ghosts.slots, 1_001);
        assert!(ghosts.table.len() <= 2_002, "{} cells", ghosts.table.len());
    }

    fn saved<const LISTS: usize>(ghosts: &GhostLists<LISTS>) -> Vec<u8> {
        let mut bytes = Vec::new();
        ghosts.save(&mut Writer::new(&mut bytes, Kind::Arc));
        bytes
    }

    fn loaded<const LISTS: usize>(bytes: &[u8]) -> Result<GhostLists<LISTS>, SnapshotError> {
        let mut ghosts = GhostLists::new();
        ghosts.load(&mut Reader::new(bytes, Kind::Arc)?)?;
        Ok(ghosts)
    }

    #[test]
    fn the_table_comes_back_as_long_as_it_was() {
        let mut ghosts = GhostLists::<1>::new();
        assert_eq!(loaded::<1>(&saved(&ghosts)).unwrap().table.len(), 0);
        for key in 0..5_000_u64 {
            ghosts.push(0, KeyHash(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)), 1);
            if key % 37 == 0 {
                ghosts.pop_oldest(0);
                let other = loaded::<1>(&saved(&ghosts)).unwrap();
                assert_eq!(other.table.len(), ghosts.table.len());
                assert_eq!(other.len(), ghosts.len());
            }
        }
    }

    #[test]
    fn keys_made_to_collide_are_refused_before_they_cost_much() {
        let ghosts_of = |key: fn(u64) -> u64| {
            let mut ghosts = GhostLists::<1>::new();
            (0..1_000).for_each(|number| ghosts.push(0, KeyHash(key(number)), 1));
            loaded::<1>(&saved(&ghosts)).map(|ghosts| ghosts.len())
        };
        // By the inverse of the factor that spreads them, all have the first cell as their home.
        let error = SnapshotError::Impossible { what: "crowd of ghosts" };
        assert_eq!(ghosts_of(|number| number.wrapping_mul(0xF1DE_83E1_9937_733D)), Err(error));
        assert_eq!(ghosts_of(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)), Ok(1_000));
    }

    #[test]
    fn a_key_that_stands_in_two_slots_is_refused() {
        let mut ghosts = GhostLists::<1>::new();
        ghosts.push(0, KeyHash(1), 1);
        ghosts.push(0, KeyHash(2), 1);
        ghosts.keys[EntryId(1)] = KeyHash(1);
        let error = loaded::<1>(&saved(&ghosts)).unwrap_err();
        assert_eq!(error, SnapshotError::Impossible { what: "ghost that is there twice" });
    }
}
