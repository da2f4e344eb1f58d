//! `Blueprint`: a cache before it is built, so that it can be built several times, or as one of several.

use eviction::Kind;

use crate::replay::{Expiry, Replay, ServerShape, Weighing};

/// How a cache counts what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// A bare capacity, in objects or bytes.
    Plain(Weighing),
    /// As a server with this much memory: its footprints and its shards.
    Server(ServerShape),
}

/// A cache to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blueprint {
    /// Who leaves.
    pub policy: Kind,
    /// How large it is: objects, bytes, or a server's memory in bytes.
    pub size: u64,
    /// How it counts.
    pub counting: Counting,
    /// What becomes of expired objects.
    pub expiry: Expiry,
}

impl Blueprint {
    /// The cache, empty.
    pub fn build(self) -> Replay {
        let Self { policy, size, counting, expiry } = self;
        match counting {
            Counting::Plain(weighing) => Replay::with(policy, size, weighing, expiry),
            Counting::Server(shape) => Replay::of_server(policy, size, shape, expiry),
        }
    }

    /// The same in another size.
    #[must_use]
    pub fn of_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// One of `count` that share its room, rounded down; there is room for something.
    #[must_use]
    pub fn one_of(self, count: u32) -> Self {
        self.of_size((self.size / u64::from(count.max(1))).max(1))
    }
}
