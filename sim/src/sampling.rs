//! `Sampler`: which objects of a log are looked at, so that few of them tell of all.
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
fn mixed(KeyHash(hash): KeyHash) -> u64 {
    // The finalizer of SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom
    // number generators", OOPSLA 2014, as D. Stafford's variant 13.
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// The share of objects below a threshold.
pub(crate) fn rate_of(threshold: u64) -> f64 {
    threshold as f64 / (u64::MAX as f64)
}

/// The threshold that a share of the objects lies below.
pub(crate) fn threshold_of(rate: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is from 0 to 1, and the conversion stops at the ends"
    )]
    let threshold = (rate * u64::MAX as f64) as u64;
    threshold
}
