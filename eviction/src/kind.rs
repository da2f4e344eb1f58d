//! `Kind`: the policies by name, the only list of them.

use std::fmt;
use std::str::FromStr;

use crate::Policy;
use crate::arc::Arc;
use crate::clock::Clock;
use crate::fifo::Fifo;
use crate::ghost::GHOST_BYTES_MAX;
use crate::lfu::Lfu;
use crate::lru::Lru;
use crate::s3_fifo::S3Fifo;
use crate::sieve::Sieve;
use crate::sketch::SKETCH_BYTES;
use crate::w_tiny_lfu::WTinyLfu;

/// An eviction policy by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// First in, first out.
    Fifo,
    /// Least recently used.
    Lru,
    /// Least frequently used, counting only while resident; ties fall on the least recently used.
    Lfu,
    /// LFU with dynamic aging: the last victim's priority is added to the count.
    LfuDa,
    /// Adaptive replacement cache.
    Arc,
    /// CLOCK: FIFO with one second chance.
    Clock,
    /// SIEVE.
    Sieve,
    /// S3-FIFO.
    S3Fifo,
    /// W-TinyLFU.
    WTinyLfu,
}

impl Kind {
    /// Every policy; what must hold for all of them is tested over this list.
    pub const ALL: [Self; 9] = [
        Self::Fifo,
        Self::Lru,
        Self::Lfu,
        Self::LfuDa,
        Self::Arc,
        Self::Clock,
        Self::Sieve,
        Self::S3Fifo,
        Self::WTinyLfu,
    ];

    /// The name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::LfuDa => "lfuda",
            Self::Arc => "arc",
            Self::Clock => "clock",
            Self::Sieve => "sieve",
            Self::S3Fifo => "s3fifo",
            Self::WTinyLfu => "wtinylfu",
        }
    }

    /// Upper bound of what the policy keeps per resident entry, ghosts included, in bytes: of as
    /// many entries as were resident at most. The store counts it in an item's footprint.
    pub fn entry_bytes(self) -> u32 {
        // Columns: links to two neighbours, the key's hash, the weight.
        let (links, key, weight) = (8, 8, 4);
        match self {
            Self::Fifo | Self::Lru => links,
            Self::Clock | Self::Sieve => links + 1,
            // And 24 bytes for each count that some entry has. A thousand different counts take half
            // a million uses, a million take half a trillion: one for six entries is plenty.
            Self::Lfu => links + 4 + 4,
            Self::LfuDa => links + 4 + 4 + 4,
            Self::Arc => links + key + weight + 1 + GHOST_BYTES_MAX,
            Self::S3Fifo => links + key + weight + 2 + GHOST_BYTES_MAX,
            // Of the key half the hash; where the entry stands is in the weight.
            Self::WTinyLfu => links + key / 2 + weight + SKETCH_BYTES,
        }
    }

    /// A policy for a cache of `capacity` weight units (bytes, or objects), empty. Columns are
    /// reserved (not touched) for `entries_max` entries.
    pub fn build(self, capacity: u64, entries_max: usize) -> Box<dyn Policy> {
        match self {
            Self::Fifo => Box::new(Fifo::new(entries_max)),
            Self::Lru => Box::new(Lru::new(entries_max)),
            Self::Lfu => Box::new(Lfu::new(entries_max)),
            Self::LfuDa => Box::new(Lfu::with_dynamic_aging(entries_max)),
            Self::Arc => Box::new(Arc::new(capacity, entries_max)),
            Self::Clock => Box::new(Clock::new(entries_max)),
            Self::Sieve => Box::new(Sieve::new(entries_max)),
            Self::S3Fifo => Box::new(S3Fifo::new(capacity, entries_max)),
            Self::WTinyLfu => Box::new(WTinyLfu::new(capacity, entries_max)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no policy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    /// The name as it was given.
    pub name: String,
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Kind::ALL.map(Kind::name).join(", ");
        write!(f, "no eviction policy is called {:?}; there are {names}", self.name)
    }
}

impl std::error::Error for UnknownPolicy {}

impl FromStr for Kind {
    type Err = UnknownPolicy;

    /// Reads a policy's name; upper case and the hyphens of `s3-fifo`, `w-tiny-lfu` and `lfu-da`
    /// make no difference.
    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let plain = name.replace('-', "").to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|kind| kind.name() == plain);
        found.ok_or_else(|| UnknownPolicy { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_answers_to_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
    }

    #[test]
    fn names_with_hyphens_are_read_too() {
        let aliases = [
            ("s3-fifo", Kind::S3Fifo),
            ("w-tinylfu", Kind::WTinyLfu),
            ("w-tiny-lfu", Kind::WTinyLfu),
            ("W-TinyLFU", Kind::WTinyLfu),
            ("lfu-da", Kind::LfuDa),
        ];
        for (name, kind) in aliases {
            assert_eq!(name.parse(), Ok(kind));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "mru".parse::<Kind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "no eviction policy is called \"mru\"; there are fifo, lru, lfu, lfuda, arc, clock, \
             sieve, s3fifo, wtinylfu"
        );
    }
}
