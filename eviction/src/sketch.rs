//! `Sketch`: how often a key was asked for lately, in 8 to 16 bytes a resident entry.
//!
//! A count-min sketch with minimal increment and halving, as W-TinyLFU uses it: G. Einziger, R.
//! Friedman, B. Manes, "`TinyLFU`: a highly efficient cache admission policy", ACM Transactions on
//! Storage 13(4), 2017.
//!
//! ```text
//! block, 64 B   | row 0: 2 words | row 1: 2 words | row 2: 2 words | row 3: 2 words |
//! word, 8 B     16 counters of 4 bits
//! ```
//!
//! - A key has one block, so asking costs one cache line, and in it one counter of each row.
//! - Its estimate is the least of the four. Only counters that equal it are incremented: the others
//!   already count somebody else.
//! - After `SAMPLE` increments a resident all counters are halved: what is counted is lately.
//! - The sketch doubles with the residents. The lower half of the blocks' numbers is kept, so each key
//!   finds in its new block what it had in the old one.

use crate::KeyHash;

/// Increments between halvings, for each resident.
const SAMPLE: u64 = 10;
/// What four bits count to.
const COUNT_MAX: u64 = 15;
/// A word with a one in every counter.
const ONES: u64 = 0x1111_1111_1111_1111;
/// What a resident costs at most: its share of a block, twice that just after the sketch doubled.
pub(crate) const SKETCH_BYTES_MAX: u32 = 16;
/// Words in a block.
const BLOCK: usize = 8;
/// Residents a block serves.
const RESIDENTS_PER_BLOCK: usize = 8;

/// Counts how often keys were asked for lately.
#[derive(Debug)]
pub(crate) struct Sketch {
    /// A power of two of blocks.
    words: Vec<[u64; BLOCK]>,
    increments: u64,
}

/// The counters of one key.
struct Place {
    block: usize,
    /// Word and shift, for each row.
    counters: [(usize, u64); 4],
}

impl Sketch {
    /// A sketch for few residents.
    pub(crate) fn new() -> Self {
        Self { words: vec![[0; BLOCK]; 8], increments: 0 }
    }

    /// Makes sure that the sketch is large enough for `residents`.
    pub(crate) fn fit(&mut self, residents: usize) {
        while residents > self.words.len() * RESIDENTS_PER_BLOCK {
            self.words.extend_from_within(..);
        }
    }

    /// Residents that the sketch is made for.
    fn residents(&self) -> u64 {
        (self.words.len() * RESIDENTS_PER_BLOCK) as u64
    }

    /// How often `key` was asked for lately, at least; at most 15.
    pub(crate) fn estimate(&self, key: KeyHash) -> u64 {
        let place = self.place(key);
        let block = &self.words[place.block];
        let counts = place.counters.map(|(word, shift)| (block[word] >> shift) & COUNT_MAX);
        counts.into_iter().fold(COUNT_MAX, u64::min)
    }

    /// Counts `key` once more.
    pub(crate) fn increment(&mut self, key: KeyHash) {
        let place = self.place(key);
        let block = &mut self.words[place.block];
        let counts = place.counters.map(|(word, shift)| (block[word] >> shift) & COUNT_MAX);
        let least = counts.into_iter().fold(COUNT_MAX, u64::min);
        if least < COUNT_MAX {
            for ((word, shift), count) in place.counters.into_iter().zip(counts) {
                block[word] += u64::from(count == least) << shift;
            }
        }
        self.increments += 1;
        if self.increments >= SAMPLE * self.residents() {
            self.halve();
        }
    }

    #[cold]
    fn halve(&mut self) {
        for word in self.words.as_flattened_mut() {
            *word = (*word >> 1) & (ONES * (COUNT_MAX >> 1));
        }
        self.increments /= 2;
    }

    #[inline]
    fn place(&self, KeyHash(hash): KeyHash) -> Place {
        // The owner may have chosen this cache by some bits of the hash: spread the others.
        let spread = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let block = (spread >> 32) as usize & (self.words.len() - 1);
        let within = spread ^ (hash >> 16);
        let counters = [0, 1, 2, 3].map(|row| {
            let bits = within >> (row * 5);
            let word = row * 2 + usize::from(bits & 16 != 0);
            (word, (bits & 15) * 4)
        });
        Place { block, counters }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::contract::hash_of;

    proptest! {
        #[test]
        fn an_estimate_is_never_below_the_count(keys in vec(0..200_u64, 0..600)) {
            let mut sketch = Sketch::new();
            let mut counts = HashMap::new();
            for key in keys {
                sketch.increment(hash_of(key));
                *counts.entry(key).or_insert(0_u64) += 1;
            }
            for (key, count) in counts {
                prop_assert!(sketch.estimate(hash_of(key)) >= count.min(COUNT_MAX));
            }
        }
    }

    #[test]
    fn estimates_are_mostly_exact_at_the_size_it_is_made_for() {
        let mut sketch = Sketch::new();
        sketch.fit(4_096);
        for key in 0..4_096 {
            for _ in 0..1 + key % 3 {
                sketch.increment(hash_of(key));
            }
        }
        let exact = (0..4_096).filter(|key| sketch.estimate(hash_of(*key)) == 1 + key % 3).count();
        assert!(exact > 4_000, "{exact}");
    }

    #[test]
    fn estimates_survive_growth() {
        let mut sketch = Sketch::new();
        for key in 0..20 {
            for _ in 0..=key % 5 {
                sketch.increment(hash_of(key));
            }
        }
        let before: Vec<u64> = (0..20).map(|key| sketch.estimate(hash_of(key))).collect();
        sketch.fit(65);
        assert_eq!(sketch.residents(), 128);
        let after: Vec<u64> = (0..20).map(|key| sketch.estimate(hash_of(key))).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn counts_are_halved_after_ten_increments_a_resident() {
        let mut sketch = Sketch::new();
        for _ in 0..12 {
            sketch.increment(hash_of(1));
        }
        for key in 0..SAMPLE * sketch.residents() - 12 {
            assert!(sketch.estimate(hash_of(1)) >= 12);
            sketch.increment(hash_of(1_000 + key));
        }
        assert!((6..=7).contains(&sketch.estimate(hash_of(1))));
    }
}
