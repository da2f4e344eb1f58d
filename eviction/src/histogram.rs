//! `Histogram`: hits by the cache size they need, fine enough to be read at any size.
//!
//! ```text
//! size     0 1 2 ...            2^(n+1)               2^(n+2)                   2^(n+3)
//! bounds   | | | | | | | | | | |   |   |   |   |   |   |       |       |       |       |
//!          one apart               two apart           four apart
//! ```
//!
//! A hit is counted at the first bound that is no smaller than the size it needs. At a bound the count is
//! exact therefore, and between two it is that of the one below: at most one part in 2^n of the size is
//! given away.

/// How far a size may be off, in standard errors: where a curve falls off a cliff, it may do so that much
/// earlier or later. Errors of this kind average out over a log, so that these are many.
pub const SIZE_ERRORS: f64 = 3.0;

/// What is counted of a request: itself, and its bytes. Whole numbers, until requests of a sample stand
/// for others; a float counts whole numbers exactly up to 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weight {
    /// How many.
    pub requests: f64,
    /// What they asked for.
    pub bytes: f64,
}

impl Weight {
    /// So many times as much.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { requests: self.requests * factor, bytes: self.bytes * factor }
    }

    /// What is left without `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { requests: self.requests - other.requests, bytes: self.bytes - other.bytes }
    }

    /// Counts `other` as well.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// Hits by the size from which on they are hits.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Bounds per doubling are 2 to the power of this.
    precision: u32,
    /// By bound: what hits from there on, less what does so no longer.
    changes: Vec<Weight>,
}

impl Histogram {
    /// No hits, and 2 to the power of `precision` bounds a doubling.
    pub fn new(precision: u32) -> Self {
        Self { precision, changes: Vec::new() }
    }

    /// What it was made with.
    pub fn precision(&self) -> u32 {
        self.precision
    }

    /// Counts a hit in caches of at least `from`, and smaller than `to`.
    #[inline]
    pub fn count(&mut self, from: u64, to: u64, weight: Weight) {
        self.change(from, weight);
        if to < u64::MAX {
            self.change(to, weight.times(-1.0));
        }
    }

    #[inline]
    fn change(&mut self, size: u64, weight: Weight) {
        let at = self.bound_from(size);
        match self.changes.get_mut(at) {
            Some(change) => change.add(weight),
            None => self.grow(at, weight),
        }
    }

    #[cold]
    fn grow(&mut self, at: usize, weight: Weight) {
        self.changes.resize(at + 1, Weight::default());
        self.changes[at] = weight;
    }

    /// The number of the first bound that is no smaller than `size`.
    #[inline]
    fn bound_from(&self, size: u64) -> usize {
        let bits = u64::BITS - size.leading_zeros();
        let shift = bits.saturating_sub(self.precision + 1);
        // At most twice the bounds of a doubling.
        let rounded = usize::try_from(size.div_ceil(1 << shift)).unwrap_or(usize::MAX);
        ((shift as usize) << self.precision) + rounded
    }

    /// The size that bound `number` stands at.
    pub fn bound(&self, number: usize) -> u64 {
        let shift = (number >> self.precision).saturating_sub(1);
        ((number - (shift << self.precision)) as u64) << shift
    }

    /// The smallest bound that is no smaller than `size`.
    pub fn next_bound(&self, size: u64) -> u64 {
        self.bound(self.bound_from(size))
    }

    /// The largest bound that is no larger than `size`.
    pub fn bound_to(&self, size: u64) -> u64 {
        let bits = u64::BITS - size.leading_zeros();
        let shift = bits.saturating_sub(self.precision + 1);
        size >> shift << shift
    }

    /// What hits in caches of each of `sizes`, which ascend.
    pub fn hits_at(&self, sizes: &[u64]) -> Vec<Weight> {
        let (mut hits, mut next) = (Weight::default(), 0);
        let mut of_size = |&size: &u64| {
            while next < self.changes.len() && self.bound(next) <= size {
                hits.add(self.changes[next]);
                next += 1;
            }
            hits
        };
        sizes.iter().map(&mut of_size).collect()
    }

    /// The smallest size in which everything hits that ever does.
    pub fn last_bound(&self) -> u64 {
        self.changes.len().checked_sub(1).map_or(0, |last| self.bound(last))
    }

    /// Counts everything half.
    pub fn halve(&mut self) {
        self.changes.iter_mut().for_each(|change| *change = change.times(0.5));
    }

    /// By how many requests hits at each of `sizes`, which ascend, may be off because a size is: what
    /// comes within [`SIZE_ERRORS`] standard errors of it. `grain` is the variance of a size, by size.
    pub fn size_errors(&self, sizes: &[u64], grain: f64) -> Vec<f64> {
        let [below, at, above] = [-1.0, 0.0, 1.0].map(|side| {
            let reach = |&size: &u64| {
                let error = SIZE_ERRORS * (size as f64 * grain).sqrt();
                // Between two bounds a hit counts from the upper one on.
                let between = if side > 0.0 { self.next_bound(size) - size } else { 0 };
                rounded(size as f64 + side * error.max(between as f64))
            };
            let mut reaches: Vec<u64> = sizes.iter().map(reach).collect();
            // They ascend as sizes do, but for rounding and the beginning.
            (1..reaches.len()).for_each(|at| reaches[at] = reaches[at].max(reaches[at - 1]));
            self.hits_at(&reaches)
        });
        let neighbours = below.iter().zip(at).zip(above);
        neighbours
            .map(|((below, at), above)| {
                (at.requests - below.requests).max(above.requests - at.requests)
            })
            .collect()
    }

    /// What it takes of memory besides itself, in bytes.
    pub fn bytes(&self) -> usize {
        self.changes.capacity() * size_of::<Weight>()
    }

    /// The changes there are, by bound.
    pub fn changes(&self) -> impl Iterator<Item = (u64, Weight)> {
        let changes = self.changes.iter().enumerate();
        changes
            .filter(|(_, change)| **change != Weight::default())
            .map(|(number, change)| (self.bound(number), *change))
    }

    /// Counts all that `other` did.
    pub fn merge(&mut self, other: &Self) {
        for (bound, change) in other.changes() {
            self.change(bound, change);
        }
    }

    /// Counts a change that [`changes`](Self::changes) told.
    pub fn restore(&mut self, bound: u64, change: Weight) {
        self.change(bound, change);
    }
}

/// A size as a whole number; none is below 0.
fn rounded(size: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the conversion stops at both ends"
    )]
    let rounded = size.round() as u64;
    rounded
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const ONE: Weight = Weight { requests: 1.0, bytes: 10.0 };

    #[test]
    fn bounds_ascend_and_are_their_own() {
        let histogram = Histogram::new(3);
        let bounds: Vec<u64> = (0..200).map(|number| histogram.bound(number)).collect();
        assert_eq!(
            bounds[..20],
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22]
        );
        assert!(bounds.is_sorted());
        for (number, &bound) in bounds.iter().enumerate() {
            assert_eq!(histogram.bound_from(bound), number, "bound {bound}");
            assert_eq!(histogram.bound_to(bound), bound);
        }
    }

    proptest! {
        #[test]
        fn counts_are_exact_at_bounds(
            hits in vec((0..5_000_u64, 0..5_000_u64), 0..50),
            sizes in vec(0..6_000_u64, 1..20),
        ) {
            let mut histogram = Histogram::new(4);
            for &(from, more) in &hits {
                histogram.count(from, if more == 0 { u64::MAX } else { from + more }, ONE);
            }
            let mut sizes: Vec<u64> = sizes.iter().map(|&size| histogram.bound_to(size)).collect();
            sizes.sort_unstable();
            let told = histogram.hits_at(&sizes);
            for (size, told) in sizes.into_iter().zip(told) {
                let hits = hits.iter().filter(|&&(from, more)| {
                    from <= size && (more == 0 || size < from + more)
                });
                prop_assert_eq!(told.requests, hits.count() as f64, "{}", size);
            }
        }
    }

    #[test]
    fn what_was_merged_is_what_both_counted() {
        let (mut one, mut other) = (Histogram::new(4), Histogram::new(4));
        one.count(5, u64::MAX, ONE);
        other.count(5, 900, ONE);
        other.count(77, u64::MAX, ONE);
        one.merge(&other);
        let hits: Vec<f64> = one.hits_at(&[4, 5, 80, 1000]).iter().map(|w| w.requests).collect();
        assert_eq!(hits, [0.0, 2.0, 3.0, 2.0]);
        assert_eq!(one.last_bound(), 928);
    }
}
