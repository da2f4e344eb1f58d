//! `Sketch`: how often a key was asked for lately, in 4 bytes a resident entry.
//!
//! A count-min sketch with minimal increment and halving, as W-TinyLFU uses it: G. Einziger, R.
//! Friedman, B. Manes, "`TinyLFU`: a highly efficient cache admission policy", ACM Transactions on
//! Storage 13(4), 2017. It grows by linear hashing: W. Litwin, "Linear hashing: a new tool for file
//! and table addressing", VLDB 1980.
//!
//! ```text
//! block, 64 B   | row 0: 2 words | row 1: 2 words | row 2: 2 words | row 3: 2 words |
//! word, 8 B     16 counters of 4 bits
//!
//! blocks        | 0 | 1 | 2 | 3 | 4 | 5 |    a sixth of the keys each in 0, 4, 1 and 5,
//!                 └───────────────^   ^      twice that in 2 and 3, which have not split yet
//!                     └───────────────┘
//! ```
//!
//! - A key has one block, so asking costs one cache line, and in it one counter of each row.
//! - Its estimate is the least of the four. Only counters that equal it are incremented: the others
//!   already count somebody else.
//! - After `SAMPLE` increments a resident all counters are halved: what is counted is lately. Every
//!   increment halves one block more until all are, so that no request waits for it.
//! - The sketch grows with the residents, a block at a time. The new block is a copy of the one that
//!   splits, so each key finds in its new block what it had in the old one.

use crate::KeyHash;
use crate::snapshot::{Reader, Row, SnapshotError, Writer, check};

/// Increments between halvings, for each resident. The paper has 10; with as few counters as here,
/// real traces of few requests wanted counts to last longer: 20 gained over 10, 40 nothing over 30.
const SAMPLE: u64 = 30;
/// What four bits count to.
const COUNT_MAX: u64 = 15;
/// A word with a one in every counter.
const ONES: u64 = 0x1111_1111_1111_1111;
/// Residents a block serves.
const RESIDENTS_PER_BLOCK: usize = 16;
/// Blocks of a sketch for few residents.
const BLOCKS_MIN: usize = 4;
/// What a resident costs: its share of a block.
pub(crate) const SKETCH_BYTES: u32 = 4;

/// What a sketch and its owner remember of a key: 32 bits of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) u32);

impl Fingerprint {
    /// The fingerprint of a key.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits are what is kept")]
    pub(crate) fn of(KeyHash(hash): KeyHash) -> Self {
        // The owner may have chosen this cache by some bits of the hash: others vary in their place.
        Self((hash ^ (hash >> 32)) as u32)
    }
}

/// Counts how often keys were asked for lately.
#[derive(Debug)]
pub(crate) struct Sketch {
    blocks: Vec<Block>,
    /// Since the last halving, and half of those before it.
    increments: u64,
    /// The first blocks, which the halving under way has still to reach.
    unhalved: usize,
}

/// The counters that share a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block([u64; 8]);

/// The counters of one key.
struct Place {
    block: usize,
    /// Word and shift, for each row.
    counters: [(usize, u64); 4],
}

impl Sketch {
    /// A sketch for few residents, with room reserved, untouched, to grow for `residents_max`.
    pub(crate) fn with_capacity(residents_max: usize) -> Self {
        let blocks_max = residents_max.div_ceil(RESIDENTS_PER_BLOCK).max(BLOCKS_MIN);
        let mut blocks = Vec::with_capacity(blocks_max);
        blocks.resize(BLOCKS_MIN, Block([0; 8]));
        Self { blocks, increments: 0, unhalved: 0 }
    }

    /// Makes sure that the sketch is large enough for `residents`.
    #[inline]
    pub(crate) fn fit(&mut self, residents: usize) {
        while residents > self.blocks.len() * RESIDENTS_PER_BLOCK {
            self.split();
        }
    }

    /// Adds a block, for half of the keys of the one that its number names without its highest bit.
    fn split(&mut self) {
        let split = self.blocks.len() - (self.blocks.len() + 1).next_power_of_two() / 2;
        let mut block = self.blocks[split];
        // The halving goes down from the last block, so it has passed the new one.
        if split < self.unhalved {
            block.halve();
        }
        self.blocks.push(block);
    }

    /// Writes the counters and how far their halving is.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        to.u64(self.increments);
        to.count(self.unhalved);
        to.count(self.blocks.len());
        to.rows(&self.blocks);
    }

    /// Replaces the counters by what `save` wrote.
    pub(crate) fn load(&mut self, from: &mut Reader<'_>) -> Result<(), SnapshotError> {
        self.increments = from.u64()?;
        self.unhalved = from.count()?;
        let blocks = from.count()?;
        check(blocks >= BLOCKS_MIN, "length of the sketch")?;
        check(self.unhalved <= blocks, "halving of the sketch")?;
        from.rows(blocks, &mut self.blocks)?;
        // So it is all the time: a halving begins before the limit is passed, and lasts as many
        // increments as there are blocks.
        let rest = SAMPLE * self.residents() + (blocks - self.unhalved) as u64;
        check(self.increments < rest, "number of increments")
    }

    /// Residents that the sketch is made for.
    pub(crate) fn residents(&self) -> u64 {
        (self.blocks.len() * RESIDENTS_PER_BLOCK) as u64
    }

    /// How often `key` was asked for lately, at least; at most 15.
    pub(crate) fn estimate(&self, key: Fingerprint) -> u64 {
        let place = self.place(key);
        let Block(words) = &self.blocks[place.block];
        let counts = place.counters.map(|(word, shift)| (words[word] >> shift) & COUNT_MAX);
        counts.into_iter().fold(COUNT_MAX, u64::min)
    }

    /// Counts `key` once more.
    pub(crate) fn increment(&mut self, key: Fingerprint) {
        let place = self.place(key);
        let Block(words) = &mut self.blocks[place.block];
        let counts = place.counters.map(|(word, shift)| (words[word] >> shift) & COUNT_MAX);
        let least = counts.into_iter().fold(COUNT_MAX, u64::min);
        if least < COUNT_MAX {
            for ((word, shift), count) in place.counters.into_iter().zip(counts) {
                words[word] += u64::from(count == least) << shift;
            }
        }
        self.increments += 1;
        if self.unhalved > 0 {
            self.unhalved -= 1;
            self.blocks[self.unhalved].halve();
        } else if self.increments >= SAMPLE * self.residents() {
            self.increments /= 2;
            self.unhalved = self.blocks.len();
        }
    }

    /// Where the counters of `key` are, as a hint for who prefetches.
    pub(crate) fn address(&self, key: Fingerprint) -> *const u8 {
        let block: *const Block = &raw const self.blocks[self.place(key).block];
        block.cast()
    }

    #[inline]
    fn place(&self, Fingerprint(key): Fingerprint) -> Place {
        let spread = u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let number = (spread >> 32) as usize & (self.blocks.len().next_power_of_two() - 1);
        // A block that is not there yet has its keys in the one that will split for it.
        let block = if number < self.blocks.len() {
            number
        } else {
            number - self.blocks.len().next_power_of_two() / 2
        };
        let within = u64::from(key);
        let counters = [0, 1, 2, 3].map(|row| {
            let bits = within >> (row * 5);
            let word = row * 2 + usize::from(bits & 16 != 0);
            (word, (bits & 15) * 4)
        });
        Place { block, counters }
    }
}

impl Block {
    fn halve(&mut self) {
        for word in &mut self.0 {
            *word = (*word >> 1) & (ONES * (COUNT_MAX >> 1));
        }
    }
}

impl Row<64> for Block {
    fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    fn from_bytes(bytes: [u8; 64]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::Kind;
    use crate::contract::hash_of;

    fn fingerprint_of(key: u64) -> Fingerprint {
        Fingerprint::of(hash_of(key))
    }

    proptest! {
        #[test]
        fn an_estimate_is_never_below_the_count(keys in vec(0..200_u64, 0..600)) {
            let mut sketch = Sketch::with_capacity(0);
            let mut counts = HashMap::new();
            for key in keys {
                sketch.increment(fingerprint_of(key));
                *counts.entry(key).or_insert(0_u64) += 1;
            }
            for (key, count) in counts {
                prop_assert!(sketch.estimate(fingerprint_of(key)) >= count.min(COUNT_MAX));
            }
        }

        #[test]
        fn estimates_survive_growth_even_while_counts_are_halved(
            halving in 0..=BLOCKS_MIN,
            residents in 0..1_000_usize,
        ) {
            let grown = |grow_to: usize| {
                let mut sketch = Sketch::with_capacity(0);
                for key in 0..60 {
                    for _ in 0..=key % 5 {
                        sketch.increment(fingerprint_of(key));
                    }
                }
                sketch.unhalved = halving;
                sketch.fit(grow_to);
                while let Some(next) = sketch.unhalved.checked_sub(1) {
                    sketch.unhalved = next;
                    sketch.blocks[next].halve();
                }
                (0..60).map(|key| sketch.estimate(fingerprint_of(key))).collect::<Vec<_>>()
            };
            prop_assert_eq!(grown(residents), grown(0));
        }
    }

    #[test]
    fn estimates_are_mostly_exact_where_each_resident_is_asked_for_twice() {
        let mut sketch = Sketch::with_capacity(0);
        sketch.fit(4_096);
        for key in 0..4_096 {
            for _ in 0..1 + key % 3 {
                sketch.increment(fingerprint_of(key));
            }
        }
        let exact =
            (0..4_096).filter(|key| sketch.estimate(fingerprint_of(*key)) == 1 + key % 3).count();
        assert!(exact > 3_800, "{exact}");
    }

    #[test]
    fn a_sketch_has_four_bytes_for_each_resident() {
        let mut sketch = Sketch::with_capacity(0);
        for residents in 100..5_000 {
            sketch.fit(residents);
            let bytes = size_of_val(sketch.blocks.as_slice());
            assert_eq!(bytes, residents.next_multiple_of(16) * SKETCH_BYTES as usize);
        }
    }

    #[test]
    fn growth_within_what_was_reserved_moves_nothing() {
        let mut sketch = Sketch::with_capacity(5_000);
        let blocks = sketch.blocks.as_ptr();
        sketch.fit(5_000);
        assert_eq!(sketch.blocks.as_ptr(), blocks);
    }

    #[test]
    fn so_it_is_after_another_was_loaded() {
        let mut bytes = Vec::new();
        Sketch::with_capacity(0).save(&mut Writer::new(&mut bytes, Kind::WTinyLfu));
        let mut sketch = Sketch::with_capacity(5_000);
        let blocks = sketch.blocks.as_ptr();
        sketch.load(&mut Reader::new(&bytes, Kind::WTinyLfu).unwrap()).unwrap();
        sketch.fit(5_000);
        assert_eq!(sketch.blocks.as_ptr(), blocks);
    }

    #[test]
    fn counts_are_halved_after_thirty_increments_a_resident() {
        let mut sketch = Sketch::with_capacity(0);
        for _ in 0..12 {
            sketch.increment(fingerprint_of(1));
        }
        for key in 0..SAMPLE * sketch.residents() - 12 {
            assert!(sketch.estimate(fingerprint_of(1)) >= 12);
            sketch.increment(fingerprint_of(1_000 + key));
        }
        for key in 0..BLOCKS_MIN as u64 {
            sketch.increment(fingerprint_of(2_000 + key));
        }
        assert_eq!(sketch.unhalved, 0);
        assert!((6..=8).contains(&sketch.estimate(fingerprint_of(1))));
    }
}
