//! The names of things: clusters, nodes and their incarnations, shards, epochs, and where a log stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which cluster: chosen at random when it is founded, and checked on every handshake.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A node, from 1. Ids are given out in ascending order and never a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a node's process: a number drawn when it starts, greater than those before. What an
/// earlier life promised or held says nothing of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A node in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// A cluster shard: the keys whose hash begins with these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which configuration of a shard: it grows by at least one with every change of its primary or of its
/// in-sync set. 24 bits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The greatest that a [`Version`] has room for.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        assert!(self < Self::MAX, "a shard changes hands less than once a second for half a year");
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many writes of a shard there were, over all epochs. 40 bits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Sequence(pub u64);

/// Where a shard's log stands: its last write, and the epoch that ordered it. Two logs that end in the same
/// version are equal. It is the cas of the item that the write left.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(u64);

impl Version {
    const SEQUENCE_BITS: u32 = 40;

    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The write `sequence`, ordered in `epoch`.
    pub fn new(epoch: Epoch, sequence: Sequence) -> Self {
        assert!(sequence.0 >> Self::SEQUENCE_BITS == 0, "a million million writes a shard");
        Self(u64::from(epoch.0) << Self::SEQUENCE_BITS | sequence.0)
    }

    /// The version that a cas is.
    pub fn from_cas(cas: u64) -> Self {
        Self(cas)
    }

    /// The cas that a version is: it never repeats, also across a change of primary.
    pub fn cas(self) -> u64 {
        self.0
    }

    /// The epoch that ordered the write.
    pub fn epoch(self) -> Epoch {
        Epoch(u32::try_from(self.0 >> Self::SEQUENCE_BITS).unwrap_or(u32::MAX))
    }

    /// The number of the write.
    pub fn sequence(self) -> Sequence {
        Sequence(self.0 & ((1 << Self::SEQUENCE_BITS) - 1))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.sequence().0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
