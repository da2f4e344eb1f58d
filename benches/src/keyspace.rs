//! Which keys there are, how they are written, and how often each is asked for.
//!
//! ```text
//! key of index 42, 12 bytes:   k00000000042
//! ```
//!
//! - A key is its index in decimal, so a reply can be traced back to the request it answers.
//! - Popular keys are scattered over the indexes: filling a cache in index order does not put the
//!   popular ones side by side, as it would if rank and index were the same number.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Zipf};

/// Longest key of the protocol, in bytes.
pub const KEY_BYTES_MAX: usize = 250;

/// Why a keyspace or a popularity cannot be.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum KeyspaceError {
    /// No keys, or too many to number.
    #[error("{0} keys asked for; between 1 and {max} can be numbered", max = u32::MAX)]
    Count(u64),
    /// The keys cannot be told apart in that many bytes, or the protocol forbids the length.
    #[error(
        "keys of {key_bytes} bytes asked for; {count} keys need {needed} to {KEY_BYTES_MAX} bytes"
    )]
    KeyBytes {
        /// What was asked for.
        key_bytes: usize,
        /// How many keys there shall be.
        count: u32,
        /// The fewest bytes in which they differ.
        needed: usize,
    },
    /// An exponent that Zipf's law is not defined for.
    #[error("zipf needs an exponent of at least 0 that is finite, not {0}")]
    Exponent(f64),
    /// A name that is no popularity.
    #[error("'{0}' is no popularity: use uniform, zipf or zipf:EXPONENT")]
    Popularity(String),
}

/// A number of keys, all of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyspace {
    count: u32,
    key_bytes: usize,
}

impl Keyspace {
    /// `count` keys of `key_bytes` bytes each.
    ///
    /// # Errors
    /// When there are no keys, more than 32 bits can number, or `key_bytes` is too short to tell
    /// them apart or longer than [`KEY_BYTES_MAX`].
    pub fn new(count: u64, key_bytes: usize) -> Result<Self, KeyspaceError> {
        let numbered = u32::try_from(count).map_err(|_| KeyspaceError::Count(count))?;
        let last = numbered.checked_sub(1).ok_or(KeyspaceError::Count(count))?;
        let needed = 1 + last.checked_ilog10().unwrap_or(0) as usize + 1;
        if !(needed..=KEY_BYTES_MAX).contains(&key_bytes) {
            return Err(KeyspaceError::KeyBytes { key_bytes, count: numbered, needed });
        }
        Ok(Self { count: numbered, key_bytes })
    }

    /// How many keys there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The length of each key, in bytes.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// Writes the key of `index` over `key`, which is [`Self::key_bytes`] long.
    #[inline]
    pub fn write_key(&self, index: u32, key: &mut [u8]) {
        key.fill(b'0');
        key[0] = b'k';
        let mut rest = index;
        for digit in key.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
    }
}

/// How requests spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// Each key as often as any other.
    Uniform,
    /// The key of rank r as often as r to the power of minus `exponent`.
    Zipf {
        /// The steepness; web caches are seen between 0.6 and 1.2.
        exponent: f64,
    },
}

impl Popularity {
    /// The exponent when none is named: that of the YCSB core workloads (Cooper et al.,
    /// "Benchmarking Cloud Serving Systems with YCSB", 2010).
    pub const ZIPF_EXPONENT_DEFAULT: f64 = 0.99;

    /// Reads `uniform`, `zipf` or `zipf:EXPONENT`.
    ///
    /// # Errors
    /// When the text is none of these.
    pub fn parse(text: &str) -> Result<Self, KeyspaceError> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "zipf" => Ok(Self::Zipf { exponent: Self::ZIPF_EXPONENT_DEFAULT }),
            Some(("zipf", exponent)) => match exponent.parse() {
                Ok(exponent) if f64::is_finite(exponent) && exponent >= 0.0 => {
                    Ok(Self::Zipf { exponent })
                }
                Ok(exponent) => Err(KeyspaceError::Exponent(exponent)),
                Err(_) => Err(KeyspaceError::Popularity(text.to_owned())),
            },
            _ => Err(KeyspaceError::Popularity(text.to_owned())),
        }
    }
}

/// Draws key indexes by their popularity.
#[derive(Clone, Debug)]
pub struct Sampler {
    count: u32,
    ranks: Ranks,
    stride: u32,
}

#[derive(Clone, Copy, Debug)]
enum Ranks {
    Uniform,
    // Rejection sampling, a constant cost per draw whatever the number of keys (see `rand_distr`).
    Zipf(Zipf<f64>),
}

impl Sampler {
    /// A sampler over all keys of `keyspace`.
    ///
    /// # Errors
    /// When the popularity's exponent is negative or not finite.
    pub fn new(keyspace: &Keyspace, popularity: Popularity) -> Result<Self, KeyspaceError> {
        let count = keyspace.count;
        let ranks = match popularity {
            Popularity::Uniform => Ranks::Uniform,
            Popularity::Zipf { exponent } => Ranks::Zipf(
                Zipf::new(f64::from(count), exponent)
                    .map_err(|_| KeyspaceError::Exponent(exponent))?,
            ),
        };
        Ok(Self { count, ranks, stride: stride_through(count) })
    }

    /// The index of one key.
    #[inline]
    pub fn sample<R: Rng>(&self, random: &mut R) -> u32 {
        match &self.ranks {
            Ranks::Uniform => random.random_range(0..self.count),
            Ranks::Zipf(zipf) => self.index_of_rank(rank_from_0(zipf.sample(random), self.count)),
        }
    }

    /// The index of the key that is the `rank`-th most popular, 0 being the first.
    fn index_of_rank(&self, rank: u32) -> u32 {
        let index = u64::from(rank) * u64::from(self.stride) % u64::from(self.count);
        u32::try_from(index).expect("a remainder is below its divisor")
    }
}

/// A rank as the distribution draws it, a whole number from 1 to `count`, as one from 0.
#[expect(clippy::cast_possible_truncation, reason = "drawn between 1 and a 32-bit count")]
fn rank_from_0(rank: f64, count: u32) -> u32 {
    (rank as u32).clamp(1, count) - 1
}

/// A step that visits every one of `count` indexes once before it repeats: near the golden section
/// of `count` (a quotient of Fibonacci numbers), and sharing no factor with it.
fn stride_through(count: u32) -> u32 {
    let near_golden = u32::try_from(u64::from(count) * 75_025 / 121_393)
        .expect("a part is smaller than the whole");
    (near_golden.max(1)..=count).find(|&stride| shares_no_factor(stride, count)).unwrap_or(1)
}

fn shares_no_factor(a: u32, b: u32) -> bool {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn key(keyspace: &Keyspace, index: u32) -> String {
        let mut key = vec![0; keyspace.key_bytes()];
        keyspace.write_key(index, &mut key);
        String::from_utf8(key).unwrap()
    }

    #[test]
    fn a_key_is_its_index_in_decimal() {
        let keyspace = Keyspace::new(1000, 12).unwrap();
        assert_eq!(key(&keyspace, 0), "k00000000000");
        assert_eq!(key(&keyspace, 42), "k00000000042");
        assert_eq!(key(&Keyspace::new(1000, 4).unwrap(), 999), "k999");
    }

    #[test]
    fn keys_too_short_to_differ_are_refused() {
        assert!(Keyspace::new(1000, 4).is_ok());
        assert!(matches!(Keyspace::new(1001, 4), Err(KeyspaceError::KeyBytes { needed: 5, .. })));
        assert!(matches!(Keyspace::new(1, 251), Err(KeyspaceError::KeyBytes { .. })));
        assert_eq!(Keyspace::new(0, 24), Err(KeyspaceError::Count(0)));
        assert_eq!(Keyspace::new(1 << 32, 24), Err(KeyspaceError::Count(1 << 32)));
    }

    #[test]
    fn popularity_is_read_by_name() {
        assert_eq!(Popularity::parse("uniform"), Ok(Popularity::Uniform));
        assert_eq!(Popularity::parse("zipf:1.2"), Ok(Popularity::Zipf { exponent: 1.2 }));
        assert!(Popularity::parse("zipf:-1").is_err());
        assert!(Popularity::parse("zipf:NaN").is_err());
        assert!(Popularity::parse("pareto").is_err());
    }

    #[test]
    fn every_rank_has_an_index_of_its_own() {
        for count in [1, 2, 3, 10, 97, 1000, 4096] {
            let keyspace = Keyspace::new(count, 24).unwrap();
            let sampler = Sampler::new(&keyspace, Popularity::Uniform).unwrap();
            let mut seen = vec![false; keyspace.count() as usize];
            for rank in 0..keyspace.count() {
                let index = sampler.index_of_rank(rank) as usize;
                assert!(!std::mem::replace(&mut seen[index], true), "{index} of {count} twice");
            }
        }
    }

    #[test]
    fn zipf_frequencies_follow_the_law() {
        let keyspace = Keyspace::new(1000, 24).unwrap();
        let draws = 1_000_000;
        for exponent in [0.7, 0.99, 1.0, 1.3] {
            let sampler = Sampler::new(&keyspace, Popularity::Zipf { exponent }).unwrap();
            let mut random = StdRng::seed_from_u64(7);
            let mut count_of = vec![0_u32; 1000];
            for _ in 0..draws {
                count_of[sampler.sample(&mut random) as usize] += 1;
            }
            let total: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1_u32, 2, 10, 100] {
                let expected = f64::from(draws) * f64::from(rank).powf(-exponent) / total;
                let seen = f64::from(count_of[sampler.index_of_rank(rank - 1) as usize]);
                // Five standard deviations of a count that large.
                let bound = 5.0 * expected.sqrt();
                assert!(
                    (seen - expected).abs() < bound,
                    "exponent {exponent}, rank {rank}: {seen} draws, the law says {expected:.0}"
                );
            }
        }
    }

    #[test]
    fn uniform_reaches_every_key_alike() {
        let keyspace = Keyspace::new(10, 24).unwrap();
        let sampler = Sampler::new(&keyspace, Popularity::Uniform).unwrap();
        let mut random = StdRng::seed_from_u64(7);
        let mut count_of = [0_u32; 10];
        for _ in 0..100_000 {
            count_of[sampler.sample(&mut random) as usize] += 1;
        }
        assert!(count_of.iter().all(|count| (9_500..10_500).contains(count)), "{count_of:?}");
    }
}
