//! `Sequence`: the numbers that a shard gives its writes, which are the cas of its items.
//!
//! ```text
//! shard 0 of 4:  1           5           9
//! shard 1 of 4:     2           6          10
//! shard 2 of 4:        3           7          11
//! shard 3 of 4:           4           8          12
//! ```
//!
//! - They grow, so of two records of one key the greater is the newer.
//! - No two shards of a server give the same, though none hears of the others: each takes the numbers
//!   that leave its own remainder when divided by the count of shards.

/// Writes whose numbers are reserved at once in an arena that outlives the process.
const WRITES_RESERVED: u64 = 1 << 16;
/// Writes whose numbers are passed over by every walk of the segments: where power was lost, or both
/// copies of a shard's state, some may have been given that nothing tells of.
const WRITES_SKIPPED: u64 = 1 << 24;

/// The numbers of one shard's writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    /// What the next write is given.
    next: u64,
    /// From one number of the shard to its next: the count of shards.
    step: u64,
}

impl Sequence {
    /// From the first number of `shard` of `shard_count` on.
    pub(crate) fn of_shard(shard: u32, shard_count: u32) -> Self {
        let step = u64::from(shard_count.max(1));
        Self { next: u64::from(shard) % step + 1, step }
    }

    /// Gives out a number.
    #[inline]
    pub(crate) fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += self.step;
        number
    }

    /// What the next write is given.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// No write was given a greater number than this.
    pub(crate) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Goes on with the least number of the shard that is greater than `number`, and than all it gave.
    pub(crate) fn go_on_after(&mut self, number: u64) {
        if number >= self.next {
            let steps = (number - self.next) / self.step + 1;
            self.next = self.next.saturating_add(steps.saturating_mul(self.step));
        }
    }

    /// The end of a reservation that is made now.
    pub(crate) fn reservation_end(&self) -> u64 {
        self.next.saturating_add(WRITES_RESERVED * self.step)
    }

    /// Numbers that are passed over by a walk of the segments.
    pub(crate) fn skipped(&self) -> u64 {
        WRITES_SKIPPED * self.step
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn taken(sequence: &mut Sequence, count: usize) -> Vec<u64> {
        (0..count).map(|_| sequence.take()).collect()
    }

    #[test]
    fn a_shard_that_is_alone_counts_from_one() {
        assert_eq!(taken(&mut Sequence::of_shard(0, 1), 3), [1, 2, 3]);
    }

    #[test]
    fn no_two_shards_give_the_same_number_wherever_they_go_on() {
        for shard_count in [2, 3, 8] {
            let mut seen = BTreeSet::new();
            for shard in 0..shard_count {
                let mut sequence = Sequence::of_shard(shard, shard_count);
                for after in [0, 5, 6, 7, 100, 1_000 + u64::from(shard)] {
                    sequence.go_on_after(after);
                    for number in taken(&mut sequence, 20) {
                        assert!(number > after);
                        assert!(seen.insert(number), "{number} of shard {shard}");
                    }
                }
            }
        }
    }

    #[test]
    fn going_on_after_the_last_number_changes_nothing() {
        let mut sequence = Sequence::of_shard(2, 4);
        sequence.go_on_after(sequence.last());
        assert_eq!(taken(&mut sequence, 2), [3, 7]);
        sequence.go_on_after(sequence.last());
        assert_eq!(sequence.take(), 11);
    }

    #[test]
    fn going_on_after_a_number_given_long_ago_changes_nothing() {
        let mut sequence = Sequence::of_shard(0, 4);
        sequence.go_on_after(1_000);
        sequence.go_on_after(10);
        assert_eq!(sequence.take(), 1_001);
    }
}
