//! Key to cluster shard: the top bits of XXH3-64, the same in every build for ever.

use xxhash_rust::xxh3::xxh3_64;

use crate::ShardId;

/// Cluster shards unless the founder says otherwise.
pub const SHARD_COUNT_DEFAULT: u16 = 1024;
/// The fewest that a cluster can be founded with.
pub const SHARD_COUNT_MIN: u16 = 64;
/// The most that a cluster can be founded with.
pub const SHARD_COUNT_MAX: u16 = 16_384;

/// The shard of a key, of `shard_count`, a power of two.
pub fn shard_of_key(key: &[u8], shard_count: u16) -> ShardId {
    shard_of_hash(xxh3_64(key), shard_count)
}

/// The shard of a key whose XXH3-64 is `hash`.
#[inline]
pub fn shard_of_hash(hash: u64, shard_count: u16) -> ShardId {
    debug_assert!(shard_count.is_power_of_two() && shard_count > 1, "founded with a power of two");
    let top = hash >> (64 - shard_count.trailing_zeros());
    ShardId(u16::try_from(top).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_is_the_top_bits_of_the_hash() {
        assert_eq!(shard_of_hash(u64::MAX, 1024), ShardId(1023));
        assert_eq!(shard_of_hash(1 << 54, 1024), ShardId(1));
        // XXH3 of the empty input, of its specification: 0x2d06800538d394c2, the top bits 0010110100.
        assert_eq!(shard_of_key(b"", 1024), ShardId(0b00_1011_0100));
    }
}
