//! A synthetic trace: zipf popularity, sizes of one range, the same for the same seed.
//!
//! Object `k` is asked for with a probability proportional to `k^-alpha`, independently of what was
//! asked before, so id 1 is the most popular. An object's size is drawn once, evenly from a range,
//! by its id. Requests come at an even rate.

use std::ops::RangeInclusive;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::Access;

/// What a synthetic trace is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// How many requests.
    pub requests: u64,
    /// How many objects there are to ask for; fewer may turn up.
    pub objects: u64,
    /// How skewed: 0 is even, 1 is what key-value workloads look like.
    pub alpha: f64,
    /// The sizes an object may have, in bytes.
    pub value_bytes: RangeInclusive<u32>,
    /// Requests that fall in one second.
    pub requests_per_s: u64,
    /// Another seed, another trace.
    pub seed: u64,
}

/// Why no trace can be made from a [`Spec`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing to ask for.
    #[error("a trace needs at least one object")]
    NoObjects,
    /// A skew that is no skew.
    #[error("alpha must be a number from 0")]
    Alpha,
    /// A range from large to small.
    #[error("no value has a size from {0} to {1} bytes")]
    NoSizes(u32, u32),
    /// No request ever comes.
    #[error("a second needs at least one request")]
    NoRate,
}

/// The requests of a [`Spec`], one by one.
#[derive(Clone, Debug)]
pub struct Generator {
    spec: Spec,
    popularity: Zipf<f64>,
    random: Xoshiro256PlusPlus,
    made: u64,
}

impl Generator {
    /// A generator at its first request.
    ///
    /// # Errors
    ///
    /// `spec` describes no trace.
    pub fn new(spec: Spec) -> Result<Self, SpecError> {
        if spec.objects == 0 {
            return Err(SpecError::NoObjects);
        }
        if spec.value_bytes.is_empty() {
            return Err(SpecError::NoSizes(*spec.value_bytes.start(), *spec.value_bytes.end()));
        }
        if spec.requests_per_s == 0 {
            return Err(SpecError::NoRate);
        }
        let popularity = Zipf::new(spec.objects as f64, spec.alpha)
            .ok()
            .filter(|_| spec.alpha.is_finite())
            .ok_or(SpecError::Alpha)?;
        let random = Xoshiro256PlusPlus::seed_from_u64(spec.seed);
        Ok(Self { spec, popularity, random, made: 0 })
    }

    /// An object's size: the same at every request, without a table.
    fn size_bytes(&self, id: u64) -> u32 {
        let (smallest, largest) = (*self.spec.value_bytes.start(), *self.spec.value_bytes.end());
        let choices = u64::from(largest - smallest) + 1;
        let mut of_object = Xoshiro256PlusPlus::seed_from_u64(self.spec.seed ^ !id);
        // Multiply and shift rather than remainder (Lemire 2019); the bias is below 2^-32.
        let choice = (u128::from(of_object.next_u64()) * u128::from(choices)) >> 64;
        smallest + u32::try_from(choice).unwrap_or(0)
    }
}

impl Iterator for Generator {
    type Item = Access;

    fn next(&mut self) -> Option<Access> {
        if self.made == self.spec.requests {
            return None;
        }
        let time_s = u32::try_from(self.made / self.spec.requests_per_s).unwrap_or(u32::MAX);
        self.made += 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank is a whole number from 1 to objects"
        )]
        let id = self.popularity.sample(&mut self.random) as u64;
        Some(Access::get(time_s, id, self.size_bytes(id)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.spec.requests - self.made).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn spec() -> Spec {
        Spec {
            requests: 200_000,
            objects: 1000,
            alpha: 1.0,
            value_bytes: 100..=4096,
            requests_per_s: 1000,
            seed: 7,
        }
    }

    fn made(spec: Spec) -> Vec<Access> {
        Generator::new(spec).unwrap().collect()
    }

    #[test]
    fn one_seed_makes_one_trace() {
        assert_eq!(made(spec()), made(spec()));
        assert_ne!(made(spec()), made(Spec { seed: 8, ..spec() }));
        assert_eq!(made(spec()).len(), 200_000);
        assert_eq!(made(spec()).last().unwrap().time_s, 199);
    }

    #[test]
    fn popularity_falls_with_the_rank_as_the_law_says() {
        let mut counts = HashMap::new();
        for access in made(spec()) {
            assert!((1..=1000).contains(&access.id));
            *counts.entry(access.id).or_insert(0u32) += 1;
        }
        // The harmonic number of 1000 is 7.485, so rank 1 gets 26,718 of the requests.
        for (rank, want) in [(1, 26_718.0), (2, 13_359.0), (10, 2671.8)] {
            let off = f64::from(counts[&rank]) / want - 1.0;
            assert!(off.abs() < 0.06, "rank {rank} is off by {off}");
        }
    }

    #[test]
    fn size_belongs_to_the_object_and_fills_the_range() {
        let mut sizes = HashMap::new();
        for access in made(Spec { value_bytes: 5..=8, ..spec() }) {
            assert!((5..=8).contains(&access.size_bytes));
            assert_eq!(*sizes.entry(access.id).or_insert(access.size_bytes), access.size_bytes);
        }
        for size in 5..=8 {
            let count = sizes.values().filter(|&&found| found == size).count();
            assert!(count > sizes.len() / 6, "{count} of {} objects have {size}", sizes.len());
        }
    }

    #[test]
    fn specs_of_no_trace_are_refused() {
        let error = |spec: Spec| Generator::new(spec).unwrap_err();
        assert_eq!(error(Spec { objects: 0, ..spec() }), SpecError::NoObjects);
        assert_eq!(error(Spec { alpha: -1.0, ..spec() }), SpecError::Alpha);
        assert_eq!(error(Spec { alpha: f64::NAN, ..spec() }), SpecError::Alpha);
        assert_eq!(error(Spec { requests_per_s: 0, ..spec() }), SpecError::NoRate);
        #[expect(clippy::reversed_empty_ranges, reason = "it is what is refused")]
        let backwards = 9..=8;
        let backwards = Spec { value_bytes: backwards, ..spec() };
        assert_eq!(error(backwards), SpecError::NoSizes(9, 8));
    }
}
