//! `SizeCounts`: how many of a shard's items cost how much, for whoever asks what a cache is full of.
//!
//! Nothing is counted, and nothing costs anything, until somebody wants to know. Then every change counts,
//! so that the answer is there at once, and nobody has to walk through a shard while others wait for it.

use std::collections::BTreeMap;

use eviction::EntryId;

use crate::record::Footprint;
use crate::shard::Shard;

/// What sizes are rounded up to, in bytes: memcached's step.
const STEP_BYTES: u64 = 32;

/// Items by their footprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeCounts {
    /// By the number of steps; none of them 0.
    counts: BTreeMap<u64, u64>,
}

impl SizeCounts {
    /// Sizes in bytes, each a multiple of 32 that is not below the items' footprints, with the number of
    /// items; the smallest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(steps, count)| (steps * STEP_BYTES, *count))
    }

    /// Adds what was counted of other items.
    pub fn add(&mut self, other: &Self) {
        for (steps, count) in &other.counts {
            *self.counts.entry(*steps).or_default() += count;
        }
    }

    pub(crate) fn insert(&mut self, footprint: Footprint) {
        *self.counts.entry(steps(footprint)).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, footprint: Footprint) {
        let count = self.counts.get_mut(&steps(footprint));
        debug_assert!(count.is_some(), "what leaves was counted");
        let Some(count) = count else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&steps(footprint));
        }
    }

    pub(crate) fn clear(&mut self) {
        self.counts.clear();
    }
}

fn steps(footprint: Footprint) -> u64 {
    footprint.bytes().div_ceil(STEP_BYTES)
}

impl Shard {
    /// Counts from now on how many items cost how much. What is there is counted in one walk.
    pub fn count_sizes(&mut self) {
        let mut counts = SizeCounts::default();
        for id in (0..self.entries_high()).map(EntryId) {
            if let Some(footprint) = self.footprint_of_item(id) {
                counts.insert(footprint);
            }
        }
        self.budget_mut().set_size_counts(counts);
    }

    /// How many items cost how much, if that is counted.
    pub fn size_counts(&self) -> Option<&SizeCounts> {
        self.budget().size_counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(bytes: u32) -> Footprint {
        Footprint::from_bytes(bytes)
    }

    #[test]
    fn sizes_are_rounded_up_and_those_that_nobody_has_are_not_told() {
        let mut counts = SizeCounts::default();
        for bytes in [96, 97, 100, 1_000_000] {
            counts.insert(footprint(bytes));
        }
        counts.remove(footprint(1_000_000));
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(96, 1), (128, 2)]);
    }

    #[test]
    fn counts_of_several_shards_add_up() {
        let (mut one, mut other) = (SizeCounts::default(), SizeCounts::default());
        one.insert(footprint(50));
        other.insert(footprint(60));
        other.insert(footprint(200));
        one.add(&other);
        assert_eq!(one.iter().collect::<Vec<_>>(), [(64, 2), (224, 1)]);
    }
}
