//! What the members of a shard say to each other.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::shard::Entry;
use crate::{Epoch, Incarnation, NodeId, Sequence, Version};

/// From one member of a shard to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// The primary, or a candidate, to one that follows it: these writes come after `prev`.
    Append(Append),
    /// Its answer: the follower's log equals the sender's up to `last`.
    Appended {
        /// The epoch that was followed.
        epoch: Epoch,
        /// Where the follower's log ends.
        last: Version,
    },
    /// Its other answer: the writes do not come after the follower's last, or the follower follows another.
    Mismatch {
        /// The epoch of the message that this answers.
        epoch: Epoch,
        /// Where the follower's log ends.
        last: Version,
        /// The epoch of whom it follows.
        promised: Epoch,
    },
    /// A candidate to the in-sync set: follow nobody of a lower epoch any more.
    Seal(Seal),
    /// Its answer.
    Sealed {
        /// The candidate's ballot.
        ballot: Epoch,
        /// Where the sealed log ends.
        last: Version,
        /// What it has beyond the candidate's, where the candidate's is a part of it.
        beyond: Vec<Entry>,
    },
    /// Its other answer.
    SealRefused {
        /// The candidate's ballot.
        ballot: Epoch,
        /// The epoch of whom it follows; a ballot has to be greater.
        promised: Epoch,
    },
    /// The primary to one that joins: what follows brings your copy to mine, from `at` on.
    Join {
        /// The primary's epoch.
        epoch: Epoch,
        /// The joiner's life that is meant.
        incarnation: Incarnation,
        /// Which of the primary's joins this is: what belongs to another counts for nothing.
        attempt: u32,
        /// Where the primary's log ends.
        at: Version,
    },
    /// The primary to one that joins: your copy is whole, up to `at`.
    Complete {
        /// The primary's epoch.
        epoch: Epoch,
        /// Which of the primary's joins this ends.
        attempt: u32,
        /// Where the primary's log ends.
        at: Version,
    },
    /// Its answer.
    Joined {
        /// The epoch that was followed.
        epoch: Epoch,
        /// Which of the primary's joins this was.
        attempt: u32,
        /// Where the joiner's log ends.
        last: Version,
    },
}

/// Writes, in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Append {
    /// The sender's epoch, or ballot.
    pub epoch: Epoch,
    /// The write before the first.
    pub prev: Version,
    /// Writes up to this one are committed.
    pub committed: Sequence,
    /// Writes up to this one need not be kept: every member has them.
    pub stable: Sequence,
    /// The writes.
    pub entries: Entries,
}

/// Writes of one message. Nearly always it is one, which takes no memory of its own.
pub type Entries = SmallVec<[Entry; 1]>;

/// A candidate's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seal {
    /// The epoch of the configuration that is to end.
    pub from: Epoch,
    /// Its primary.
    pub primary: NodeId,
    /// The member's life that is meant.
    pub incarnation: Incarnation,
    /// The epoch that is to begin.
    pub ballot: Epoch,
    /// Where the candidate's log ends.
    pub last: Version,
}
