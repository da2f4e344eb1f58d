//! Key hashes: XXH3-64, the same in every build, since a cache file outlives the build that wrote it.
//!
//! One hash serves three choices, from its top bits downwards:
//!
//! ```text
//! | 63 ............................................................ 0 |
//!  |- cluster shard, 6 to 14 bits -|
//!  |- store shard -|- tag: index bucket, then slot; 28 bits -|
//! ```
//!
//! - A cluster shard has at least as many bits as a store shard, so all its keys are in one store
//!   shard, under one lock.
//! - The bits that chose the store shard are the same in all its keys. The tag begins below them, so
//!   the index sees none of them; XXH3 mixes well enough that any 28 bits fill its buckets evenly.
//! - Buckets are in the order of their tags, so the keys of a cluster shard stand together in the
//!   index: a walk over one of them passes none of the others.

use eviction::KeyHash;
use xxhash_rust::xxh3::xxh3_64;

/// Bits of a tag.
pub(crate) const TAG_BITS: u32 = 28;

/// The hash of a key's bytes: XXH3-64, unseeded.
#[inline]
pub fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(xxh3_64(key))
}

/// Which bits of a key's hash the index of a shard works with, and the tag column keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tagging {
    /// The top bits that all keys of the shard have in common.
    shift: u32,
}

impl Tagging {
    /// For a shard of so many.
    pub(crate) fn of_shards(shard_count: u32) -> Self {
        Self { shift: shard_count.max(1).ilog2() }
    }

    /// The tag of a key.
    #[inline]
    pub(crate) fn tag_of(self, hash: KeyHash) -> u32 {
        u32::try_from(hash.0 << self.shift >> (u64::BITS - TAG_BITS)).unwrap_or_default()
    }

    /// The tags, first and last, that the hashes from `first` to `last` can have.
    pub(crate) fn tags_of(self, first: u64, last: u64) -> (u32, u32) {
        // Tags are in the order of hashes where the bits above them are the same.
        let is_in_one_shard = (first ^ last).leading_zeros() >= self.shift;
        if is_in_one_shard {
            (self.tag_of(KeyHash(first)), self.tag_of(KeyHash(last)))
        } else {
            (0, (1 << TAG_BITS) - 1)
        }
    }
}

/// Maps a 32-bit hash evenly onto `0..count` without a division (Lemire, "Fast random integer
/// generation in an interval", 2019), in the order of the hashes.
#[inline]
pub(crate) fn fast_range(hash: u32, count: u32) -> u32 {
    u32::try_from((u64::from(hash) * u64::from(count)) >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hashes_the_same_in_every_build() {
        // Reference value of the XXH3 specification for the empty input.
        assert_eq!(key_hash(b"").0, 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn fast_range_stays_below_its_bound() {
        assert_eq!(fast_range(0, 7), 0);
        assert_eq!(fast_range(u32::MAX, 7), 6);
    }

    #[test]
    fn a_tag_begins_below_the_bits_that_chose_the_shard() {
        let hash = KeyHash(0xfedc_ba98_7654_3210);
        assert_eq!(Tagging::of_shards(1).tag_of(hash), 0x0fed_cba9);
        assert_eq!(Tagging::of_shards(16).tag_of(hash), 0x0edc_ba98);
        assert_eq!(Tagging::of_shards(31).tag_of(hash), 0x0edc_ba98, "fewer than 32 have 4 bits");
    }

    #[test]
    fn hashes_of_one_shard_have_tags_in_their_order_and_those_of_several_any() {
        let tagging = Tagging::of_shards(16);
        assert_eq!(tagging.tags_of(0xa1 << 56, (0xa2 << 56) - 1), (0x0100_0000, 0x01ff_ffff));
        assert_eq!(tagging.tags_of(0, u64::MAX), (0, 0x0fff_ffff));
    }
}
