//! How a server's memory is cut: `Geometry`, and `Config` of one shard.
//!
//! ```text
//! -m  = shards × shard_bytes
//! shard_bytes ≥ arena (segments in use) + index + columns + policy
//! ```
//!
//! The same function cuts the server's memory and the simulator's, so both have the same shards.

use eviction::{KeyHash, Kind};

use crate::hash::{Tagging, fast_range};
use crate::ranking::Protected;
use crate::record::SHARD_OVERHEAD_BYTES;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Segments a shard aims at: enough that the open ones and the cleaner's reserve are a small share.
const SEGMENTS_WANTED: u64 = 128;
const SEGMENT_BYTES_MIN: u64 = 16 * KIB;
const SEGMENT_BYTES_MAX: u64 = MIB;
/// A shard has at least this many segments.
const SEGMENTS_MIN: u64 = 32;
/// Segments that hold no more than a part of what they could: two open ones, one to clean into, and
/// what is left over when the memory beside index and columns is cut.
const SEGMENTS_APART: u64 = 4;
/// Shards wanted for each worker thread, so that two workers seldom want the same lock.
const SHARDS_PER_THREAD: u64 = 4;
/// An item of the largest size takes at most this share of a shard.
const ITEMS_OF_MAX_SIZE: u64 = 8;
/// Locations are 32 bits of 4-byte units, 16 GiB; the half leaves room for growth.
const SHARD_BYTES_MAX: u64 = 8 * GIB;

/// How a server's memory is cut into shards and segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Store shards, each with its own arena, index and policy.
    pub shard_count: u32,
    /// Memory of one shard in bytes, everything included.
    pub shard_bytes: u64,
    /// Size of a segment in bytes, a power of two.
    pub segment_bytes: u32,
}

impl Geometry {
    /// Cuts `memory_bytes` (the server's `-m`) for `threads` workers and items of up to
    /// `item_bytes_max` (`-I`). Memory below 1 MiB counts as 1 MiB.
    pub fn new(memory_bytes: u64, item_bytes_max: u64, threads: u32) -> Self {
        let memory = memory_bytes.max(MIB);
        let wanted = (SHARDS_PER_THREAD * u64::from(threads.max(1))).next_power_of_two();
        let shard_bytes_min =
            (item_bytes_max * ITEMS_OF_MAX_SIZE).max(SEGMENTS_MIN * SEGMENT_BYTES_MIN);
        let affordable = prev_power_of_two(memory / shard_bytes_min);
        let required = memory.div_ceil(SHARD_BYTES_MAX).next_power_of_two();
        let shards = wanted.min(affordable).max(required);
        let shard_bytes = memory / shards;
        let segment_bytes = prev_power_of_two(shard_bytes / SEGMENTS_WANTED)
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        Self {
            shard_count: u32::try_from(shards).unwrap_or(u32::MAX),
            shard_bytes,
            segment_bytes: u32::try_from(segment_bytes).unwrap_or(u32::MAX),
        }
    }

    /// The same shards and segments with another amount of memory in all: what fits is changed, not
    /// where a key belongs. A shard keeps at least its smallest number of segments, and at most what
    /// locations can address.
    #[must_use]
    pub fn with_memory(self, memory_bytes: u64) -> Self {
        let least = SEGMENTS_MIN * u64::from(self.segment_bytes);
        let shard_bytes = memory_bytes / u64::from(self.shard_count);
        Self { shard_bytes: shard_bytes.clamp(least, SHARD_BYTES_MAX), ..self }
    }

    /// The shard, in `0..shard_count`, that owns a key: by the top bits of its hash, as a cluster
    /// chooses its shards. [`Self::new`] makes a power of two of them, so each cluster shard lies in
    /// one store shard wherever there are at least as many of those.
    #[inline]
    pub fn shard_of(&self, hash: KeyHash) -> u32 {
        let high = u32::try_from(hash.0 >> 32).unwrap_or_default();
        fast_range(high, self.shard_count)
    }

    /// Which bits of a key's hash are left for the index of its shard.
    pub(crate) fn tagging(&self) -> Tagging {
        Tagging::of_shards(self.shard_count)
    }

    /// Segments that a shard's memory is cut into.
    pub fn segment_count(&self) -> u32 {
        u32::try_from(self.shard_bytes / u64::from(self.segment_bytes)).unwrap_or(u32::MAX)
    }

    /// What a shard's items may take of its memory, in footprints: all of it but what does not
    /// depend on the items, namely a fixed overhead and the segments that are never full.
    pub fn items_bytes_max(&self) -> u64 {
        let apart = SHARD_OVERHEAD_BYTES + SEGMENTS_APART * u64::from(self.segment_bytes);
        self.shard_bytes.saturating_sub(apart)
    }

    /// The largest record kept in one piece; a larger item is stored as a chain of parts. What a
    /// record does not fit into at a segment's end is lost: on average half of this, at most.
    #[inline]
    pub fn part_bytes_max(&self) -> u32 {
        self.segment_bytes / 16
    }
}

/// The largest power of two not above `n`, at least 1.
fn prev_power_of_two(n: u64) -> u64 {
    if n == 0 { 1 } else { 1 << (63 - n.leading_zeros()) }
}

/// What one shard is built from.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The server's geometry.
    pub geometry: Geometry,
    /// The largest item, key and overhead included, in bytes.
    pub item_bytes_max: u64,
    /// Which entry leaves when the shard is full.
    pub policy: Kind,
    /// Whether any does; if not, a full shard refuses writes.
    pub evicts: bool,
    /// Which leave last.
    pub protected: Protected,
    /// This shard's number, kept in its segments' headers.
    pub shard: u32,
}

impl Config {
    /// What ranking an entry costs in bytes: the columns of both policies, where there are two.
    pub(crate) fn policy_bytes(&self) -> u32 {
        let policies = if self.protected.is_none() { 1 } else { 2 };
        self.policy.entry_bytes() * policies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_server_has_shards_that_hold_eight_items_of_the_largest_size() {
        let geometry = Geometry::new(64 * MIB, MIB, 4);
        assert_eq!(geometry.shard_count, 8);
        assert_eq!(geometry.shard_bytes, 8 * MIB);
        assert_eq!(geometry.segment_bytes, 64 * 1024);
    }

    #[test]
    fn every_geometry_has_enough_segments_and_addressable_shards() {
        for memory_mib in [1, 2, 3, 64, 100, 1_000, 1_024, 65_536, 1_048_576] {
            for threads in [1, 2, 4, 16, 64] {
                for item_bytes_max in [KIB, MIB, 128 * MIB] {
                    let g = Geometry::new(memory_mib * MIB, item_bytes_max, threads);
                    assert!(g.shard_bytes / u64::from(g.segment_bytes) >= SEGMENTS_MIN);
                    assert!(g.shard_bytes <= SHARD_BYTES_MAX);
                    assert!(u64::from(g.shard_count) * g.shard_bytes <= memory_mib * MIB);
                    assert!(g.shard_count.is_power_of_two());
                }
            }
        }
    }

    #[test]
    fn every_cluster_shard_lies_within_one_store_shard() {
        for shard_count in [1, 4, 16, 64] {
            let geometry = Geometry { shard_count, ..Geometry::new(GIB, MIB, 1) };
            for cluster_shard in 0..64_u64 {
                let first = cluster_shard << 58;
                let last = first + ((1 << 58) - 1);
                let of = |hash| geometry.shard_of(KeyHash(hash));
                assert_eq!(of(first), of(last));
                assert_eq!(u64::from(of(first)), cluster_shard * u64::from(shard_count) / 64);
            }
        }
    }
}
