//! `Kind`: the policies by name, the only list of them.

use crate::Policy;

/// An eviction policy by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// First in, first out.
    Fifo,
    /// Least recently used.
    Lru,
    /// Least frequently used, counting only while resident; ties fall on the least recently used.
    Lfu,
    /// LFU with dynamic aging: an entry's count starts at the last victim's.
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

    /// Upper bound of what the policy keeps per resident entry, ghosts included, in bytes. The
    /// store counts it in an item's footprint.
    pub fn entry_bytes(self) -> u32 {
        todo!()
    }

    /// A policy for a cache of `capacity` weight units (bytes, or objects), empty. Columns are
    /// reserved (not touched) for `entries_max` entries.
    pub fn build(self, _capacity: u64, _entries_max: usize) -> Box<dyn Policy> {
        todo!()
    }
}
