//! A small generator of random numbers, so that draws are an argument: the same seed gives the same.
//!
//! `SplitMix64` (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014). Good enough to
//! spread load and delays; no secret may depend on it.

/// A sequence of numbers that its seed decides.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any of the 2^64 numbers.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    pub fn unit(&mut self) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 / STEPS
    }

    /// An index below `count`, by Lemire's multiplication; its bias is at most `count` in 2^64.
    pub fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "there is something to draw from");
        let high = (u128::from(self.next_u64()) * count as u128) >> 64;
        usize::try_from(high).unwrap_or(0)
    }

    /// Two different indices below `count`, which is at least 2.
    pub fn two_below(&mut self, count: usize) -> (usize, usize) {
        let first = self.below(count);
        let second = self.below(count - 1);
        (first, if second < first { second } else { second + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_reference() {
        // The first numbers that the authors' splitmix64.c gives for the seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn draws_are_within_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let mut seen = [false; 3];
        for _ in 0..100 {
            let (first, second) = random.two_below(3);
            assert!(first != second && first < 3 && second < 3);
            seen[first] = true;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert_eq!(seen, [true; 3]);
    }
}
