//! `Directory`: keys to the numbers of what is known of them, in a few bytes a key.
//!
//! ```text
//! cells   | · | 2 | · | 0 | 1 | · |      home of a key: its hash scaled to the directory's length
//!               │       │   │            a cell: the number, and as many bits of the hash as fit beside
//! owner   0: key, …                      what the numbers count stands with the owner, its keys as well
//!         1: …
//! ```
//!
//! - Open addressing with linear probing. At most 3/4 of the cells are taken, so a search ends soon; a
//!   cell is compared by its bits of the hash first, so a search seldom asks the owner for another key.
//! - The owner gives out numbers densely from 0 and uses those again that became free: none is as large
//!   as the greatest number of keys there ever was.

use crate::KeyHash;

/// A free cell. No number stands so in a taken one: see `number_bits`.
const EMPTY: u32 = u32::MAX;

/// Cells of the first directory.
const CELLS_MIN: usize = 16;
/// Cells of the longest, so that a bit of the hash fits beside every number.
const CELLS_MAX: usize = (1 << 31) - 1;

/// The most keys: 3/4 of the most cells.
pub(crate) const KEYS_MAX: usize = CELLS_MAX / 4 * 3;

/// Numbers by key.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    cells: Vec<u32>,
    len: usize,
}

impl Directory {
    /// A directory that has room for so many keys.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let mut directory = Self::default();
        if keys > 0 {
            directory.empty_cells((keys * 4).div_ceil(3));
        }
        directory
    }

    /// Keys in the directory.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What it takes of memory besides itself, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u32>()
    }

    /// The number of `key`. `key_of` tells whose a number is.
    #[inline]
    pub(crate) fn find(&self, key: KeyHash, key_of: impl Fn(u32) -> KeyHash) -> Option<u32> {
        let cell = self.cell_of(key, key_of)?;
        Some(self.number_in(self.cells[cell]))
    }

    /// Adds `key`, which must not be there, as `number`.
    pub(crate) fn insert(&mut self, key: KeyHash, number: u32, key_of: impl Fn(u32) -> KeyHash) {
        if (self.len + 1) * 4 > self.cells.len() * 3 {
            self.grow(key_of);
        }
        debug_assert!((number as usize) < self.cells.len(), "numbers are dense");
        self.place(key, number);
        self.len += 1;
    }

    /// Removes `key`, and returns its number.
    pub(crate) fn remove(&mut self, key: KeyHash, key_of: impl Fn(u32) -> KeyHash) -> Option<u32> {
        let cell = self.cell_of(key, &key_of)?;
        let number = self.number_in(self.cells[cell]);
        self.clear(cell, key_of);
        self.len -= 1;
        Some(number)
    }

    /// Where the search for `key` starts. Keys may have been chosen by some bits of their hashes, which
    /// then are equal in all of them; the product spreads the others over all cells.
    #[inline]
    fn home(&self, KeyHash(hash): KeyHash) -> usize {
        let spread = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        ((spread * self.cells.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, cell: usize) -> usize {
        if cell + 1 == self.cells.len() { 0 } else { cell + 1 }
    }

    /// Bits of a cell that hold the number. Numbers are smaller than the cells are many, so the greatest
    /// that these bits can hold is none, and no taken cell equals `EMPTY`.
    #[inline]
    fn number_bits(&self) -> u32 {
        usize::BITS - self.cells.len().leading_zeros()
    }

    #[inline]
    fn number_in(&self, cell: u32) -> u32 {
        cell & !(u32::MAX << self.number_bits())
    }

    /// The bits of `key` that stand in its cell beside the number.
    #[inline]
    fn tag(&self, KeyHash(hash): KeyHash) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a tag is some bits of the hash")]
        let bits = (hash ^ hash >> 32) as u32;
        bits << self.number_bits()
    }

    #[inline]
    fn cell_of(&self, key: KeyHash, key_of: impl Fn(u32) -> KeyHash) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let tag = self.tag(key);
        let tag_mask = u32::MAX << self.number_bits();
        let mut cell = self.home(key);
        loop {
            let taken = self.cells[cell];
            if taken == EMPTY {
                return None;
            }
            if taken & tag_mask == tag && key_of(taken & !tag_mask) == key {
                return Some(cell);
            }
            cell = self.next(cell);
        }
    }

    fn place(&mut self, key: KeyHash, number: u32) {
        let mut cell = self.home(key);
        while self.cells[cell] != EMPTY {
            cell = self.next(cell);
        }
        self.cells[cell] = self.tag(key) | number;
    }

    /// Empties `cell`, and moves up what was placed behind it for want of it.
    fn clear(&mut self, mut cell: usize, key_of: impl Fn(u32) -> KeyHash) {
        let mut behind = cell;
        loop {
            behind = self.next(behind);
            let taken = self.cells[behind];
            if taken == EMPTY {
                break;
            }
            let home = self.home(key_of(self.number_in(taken)));
            // It may move unless its home lies in between, (cell, behind] around the end.
            let stays = if cell < behind {
                cell < home && home <= behind
            } else {
                cell < home || home <= behind
            };
            if !stays {
                self.cells[cell] = taken;
                cell = behind;
            }
        }
        self.cells[cell] = EMPTY;
    }

    /// Makes the directory half as long again. Rare: two keys are placed anew for each added.
    #[cold]
    fn grow(&mut self, key_of: impl Fn(u32) -> KeyHash) {
        let cells = (self.cells.len() * 3 / 2).clamp(CELLS_MIN, CELLS_MAX);
        assert!(cells > self.cells.len(), "a directory has a bit to spare beside each number");
        let before = std::mem::take(&mut self.cells);
        let mask = !(u32::MAX << (usize::BITS - before.len().leading_zeros()));
        self.empty_cells(cells);
        for taken in before {
            if taken != EMPTY {
                let number = taken & mask;
                self.place(key_of(number), number);
            }
        }
    }

    fn empty_cells(&mut self, cells: usize) {
        self.cells = vec![EMPTY; cells.max(CELLS_MIN)];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_directory_answers_like_a_map(
            // Few keys of a few homes, and some that differ in their highest bits alone.
            steps in vec((any::<bool>(), 0..60_u64, 0..3_u64), 0..400),
        ) {
            let mut directory = Directory::default();
            let mut model: HashMap<u64, u32> = HashMap::new();
            let (mut keys, mut free): (Vec<KeyHash>, Vec<u32>) = (Vec::new(), Vec::new());
            for (adds, low, high) in steps {
                let key = KeyHash(low | high << 61);
                let found = directory.find(key, |number| keys[number as usize]);
                prop_assert_eq!(found, model.get(&key.0).copied());
                if adds && found.is_none() {
                    let number = free.pop().unwrap_or_else(|| {
                        keys.push(key);
                        u32::try_from(keys.len()).unwrap() - 1
                    });
                    keys[number as usize] = key;
                    directory.insert(key, number, |number| keys[number as usize]);
                    model.insert(key.0, number);
                } else if !adds {
                    let removed = directory.remove(key, |number| keys[number as usize]);
                    prop_assert_eq!(removed, model.remove(&key.0));
                    free.extend(removed);
                }
                prop_assert_eq!(directory.len(), model.len());
            }
        }
    }

    #[test]
    fn room_made_beforehand_is_not_made_again() {
        let keys: Vec<KeyHash> = (0..1000).map(KeyHash).collect();
        let mut directory = Directory::with_capacity(keys.len());
        let cells = directory.cells.len();
        for (number, &key) in (0..).zip(&keys) {
            directory.insert(key, number, |number| keys[number as usize]);
        }
        assert_eq!((directory.cells.len(), directory.len()), (cells, 1000));
    }
}
