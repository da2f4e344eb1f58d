//! What a pool promises: copies, acknowledgement, reads.

use serde::{Deserialize, Serialize};

/// Which copies must have a write before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ack {
    /// The primary's: nothing is promised.
    Primary,
    /// A majority of the in-sync set.
    Quorum,
    /// Every member of the in-sync set.
    All,
}

/// What a read must know before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reads {
    /// That a write quorum still holds its grant: linearizable as long as clocks run at about one rate.
    Lease,
    /// Nothing: any copy that is in sync answers with what it has.
    Any,
    /// The same, and that a write quorum has followed the primary since it was asked: each read waits for a round
    /// trip, and is right whatever clocks do.
    Confirm,
}

impl Reads {
    /// Every way, in the order in which they promise less.
    pub const ALL: [Self; 3] = [Self::Confirm, Self::Lease, Self::Any];

    /// Its name, as flags and reports say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Lease => "lease",
            Self::Any => "any",
        }
    }
}

/// What a pool promises.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Copies of each shard.
    pub copies: u8,
    /// Which of them a write waits for.
    pub ack: Ack,
    /// Writes are refused while fewer copies than this are in sync.
    pub in_sync_min: u8,
    /// What reads wait for.
    pub reads: Reads,
    /// What happens when every in-sync copy of a shard is lost.
    pub on_total_loss: OnTotalLoss,
}

/// What happens when every in-sync copy of a shard is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OnTotalLoss {
    /// The shard goes on with the best that the memory files of its last members hold, and empty once all
    /// of those are back and none has any.
    Recover,
    /// The shard stays away until a member comes back with its memory file, or an operator decides.
    Wait,
}

impl Pool {
    /// Two copies, both acknowledge; goes on with one.
    pub fn sessions() -> Self {
        Self {
            name: "sessions".into(),
            copies: 2,
            ack: Ack::All,
            in_sync_min: 1,
            reads: Reads::Lease,
            on_total_loss: OnTotalLoss::Recover,
        }
    }

    /// Three copies, two acknowledge; refuses writes with less than two.
    pub fn strict() -> Self {
        Self {
            name: "strict".into(),
            copies: 3,
            ack: Ack::Quorum,
            in_sync_min: 2,
            reads: Reads::Lease,
            on_total_loss: OnTotalLoss::Wait,
        }
    }
}

impl Ack {
    /// How many of an in-sync set of `in_sync` must have a write, the primary counted, before it is
    /// committed.
    pub fn write_quorum(self, in_sync: usize) -> usize {
        match self {
            Self::Primary => 1,
            Self::Quorum => in_sync / 2 + 1,
            Self::All => in_sync,
        }
    }
}
