//! Key hashes: XXH3-64, the same in every build, since a cache file outlives the build that wrote it.
//!
//! One hash serves three choices, each from other bits so that they stay independent:
//!
//! ```text
//! | 63 ..................... 32 | 31 ..................... 0 |
//!   cluster shard (top bits)      store shard (fast range)
//!   index slot and tag: 28 bits of a multiplicative mix of all 64
//! ```

use eviction::KeyHash;
use xxhash_rust::xxh3::xxh3_64;

/// The hash of a key's bytes: XXH3-64, unseeded.
#[inline]
pub fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(xxh3_64(key))
}

/// The 28 bits of a key's hash that the index works with and the tag column keeps.
#[inline]
pub(crate) fn tag_of(hash: KeyHash) -> u32 {
    // Knuth's multiplicative mix: shard choices fix some bits of the hash, and the slot must not
    // inherit that pattern.
    let mixed = hash.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 36;
    u32::try_from(mixed).unwrap_or_default()
}

/// Maps a 32-bit hash evenly onto `0..count` without a division (Lemire, "Fast random integer
/// generation in an interval", 2019).
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
}
