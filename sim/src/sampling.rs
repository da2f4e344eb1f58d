//! `Sampling`, `Part`: which objects of a log are looked at, so that few of them tell of all.
//!
//! ```text
//! position of a key, a hash   0 ─────────────────────────────────────────────────────── 2^64
//! parts, for several machines |        part 0         |        part 1         |   ...   |
//! groups within a part        |  0  |  1  | ... | 15  |  0  |  1  | ... | 15  |
//! threshold within a group    |▓▓|  |▓▓|  |     |▓▓|  |▓▓|  |                              sampled
//! ```
//!
//! Objects are sampled and not requests: all requests of an object are looked at, or none. So a sample of
//! a share R of the objects behaves in a cache of R times the size like the whole in the whole: C. A.
//! Waldspurger, N. Park, A. Garthwaite, I. Ahmad, "Efficient MRC construction with SHARDS", FAST 2015; for
//! other policies than LRU, C. A. Waldspurger, T. Saemundsson, I. Ahmad, N. Park, "Cache modeling and
//! optimization using miniature simulations", USENIX ATC 2017.
//!
//! Groups are samples of their own, of disjoint objects. How much they differ says how far off the sample
//! of all of them may be.

pub mod miniature;
pub(crate) mod strata;

use eviction::KeyHash;
pub use eviction::live_curve::GROUPS;
pub(crate) use eviction::live_curve::{share_of as rate_of, threshold_of};
use store::Geometry;

const GROUPS_LOG: u32 = GROUPS.ilog2();

/// How much of a log is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// All.
    Whole,
    /// A share of the objects, from 0 to 1.
    Rate(f64),
    /// So many objects at most: the share shrinks as more come.
    Objects(usize),
}

/// One of several shares of the objects, by hash, of equal number: what one machine of several maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

impl Part {
    /// All objects.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// What of a log one of several workers plays, and whether others have left out the rest before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealing {
    /// Its part.
    pub part: Part,
    /// Nothing else comes: whoever dealt kept all requests of an object together, by a hash of its own.
    pub is_dealt: bool,
}

impl Dealing {
    /// One worker that plays all.
    pub const WHOLE: Self = Self { part: Part::WHOLE, is_dealt: false };

    /// What a part of the objects has of a cache of `size`, rounded down; there is room for something.
    pub fn share_of(self, size: u64) -> u64 {
        (size / u64::from(self.part.count)).max(1)
    }

    /// The requests of the part's objects.
    pub(crate) fn of_objects(self) -> Deal {
        if self.is_dealt || self.part == Part::WHOLE { Deal::All } else { Deal::Objects(self.part) }
    }

    /// The requests of the part's shards of a server.
    pub(crate) fn of_shards(self, geometry: Geometry) -> Deal {
        if self.part == Part::WHOLE { Deal::All } else { Deal::Shards(self.part, geometry) }
    }
}

/// Which requests are played.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deal {
    /// All that come.
    All,
    /// Those of a part of the objects.
    Objects(Part),
    /// Those of a part of a server's shards.
    Shards(Part, Geometry),
}

impl Deal {
    /// Whether a key's requests are played.
    #[inline]
    pub(crate) fn takes(self, key: KeyHash) -> bool {
        match self {
            Self::All => true,
            Self::Objects(part) => place(key, part).is_some(),
            Self::Shards(part, geometry) => {
                let shard = u64::from(geometry.shard_of(key));
                let parts = u64::from(part.count);
                // In order, and as many to each as can be.
                shard * parts / u64::from(geometry.shard_count) == u64::from(part.index)
            }
        }
    }
}

/// Where a sampled key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its group.
    pub(crate) group: usize,
    /// Its place in the group: sampled is what lies below the threshold.
    pub(crate) height: u64,
}

/// The place of `key` if it belongs to `part`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it is cut into its halves")]
pub(crate) fn place(key: KeyHash, part: Part) -> Option<Place> {
    let scaled = u128::from(mixed(key)) * u128::from(part.count);
    let (index, within) = ((scaled >> 64) as u64, scaled as u64);
    (index == u64::from(part.index)).then_some(Place {
        group: (within >> (u64::BITS - GROUPS_LOG)) as usize,
        height: within << GROUPS_LOG,
    })
}

/// Shards and directories are chosen by bits of the hash as it is: the sample must not be.
#[inline]
pub(crate) fn mixed(KeyHash(hash): KeyHash) -> u64 {
    // The finalizer of SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom
    // number generators", OOPSLA 2014, as D. Stafford's variant 13.
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_dealt_to_one_part_whatever_is_dealt() {
        let geometry = Geometry::new(64 << 20, 1 << 20, 1);
        for count in [1, 3, 16, 100] {
            for n in 0..1_000_u64 {
                let key = KeyHash(mixed(KeyHash(n)));
                for is_server in [false, true] {
                    let takes = |&index: &u32| {
                        let dealing = Dealing { part: Part { index, count }, is_dealt: false };
                        let deal = match is_server {
                            true => dealing.of_shards(geometry),
                            false => dealing.of_objects(),
                        };
                        deal.takes(key)
                    };
                    assert_eq!((0..count).filter(takes).count(), 1);
                }
            }
        }
    }
}
