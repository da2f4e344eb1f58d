//! `ClusterMap`: nodes, pool, and per shard epoch, primary and in-sync set.
//!
//! The map is the state that the control plane agrees on. It changes by [`Command`]s alone, each applied by
//! every node in the same order with the same [`Outcome`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pool::Pool;
use crate::{ClusterId, Epoch, Incarnation, Member, NodeId, ShardId, Version};

/// Who holds a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardConfig {
    /// Grows with every change of what follows.
    pub epoch: Epoch,
    /// Who orders writes and serves; `None` before the first is appointed. Always of the in-sync set.
    pub primary: Option<NodeId>,
    /// Who holds every committed write, by node, each in the life in which it does.
    pub in_sync: Vec<Member>,
}

/// A shard in the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardPlace {
    /// Who holds it now.
    pub config: ShardConfig,
    /// Who should, the preferred primary first. The primary brings them in sync and lets go of the others.
    pub targets: Vec<NodeId>,
}

/// Where a node is found. Each is `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addresses {
    /// Other nodes connect here.
    pub peer: String,
    /// Clients connect here.
    pub client: String,
    /// Administration connects here.
    pub admin: String,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It holds shards, and votes if it is a voter.
    Data,
    /// It votes and holds nothing.
    Witness,
}

/// How a node stands with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It takes its share.
    Member,
    /// Its shards are being moved away; then it may leave.
    Draining,
    /// It left. Its id is not given out again, and whoever comes with it is refused.
    Removed,
}

/// A node in the map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Where it is found.
    pub addresses: Addresses,
    /// Copies of one shard go to different zones where that is possible.
    pub zone: String,
    /// Its share of the shards, in proportion to the other nodes' weights: 1 to 1,000.
    pub weight: u16,
    /// What it is for.
    pub role: Role,
    /// How it stands.
    pub standing: Standing,
    /// Its life at present: the last that announced itself.
    pub incarnation: Option<Incarnation>,
    /// Where its shards' logs stood when this life began, as its memory file said; of those shards alone
    /// of which it had any.
    pub recovered: BTreeMap<ShardId, Version>,
    /// The build that it runs.
    pub version: String,
}

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Commands that changed anything, counted.
    pub revision: u64,
    /// What is promised.
    pub pool: Pool,
    /// All nodes there ever were.
    pub nodes: BTreeMap<NodeId, Node>,
    /// By [`ShardId`].
    pub shards: Vec<ShardPlace>,
    /// Hashes (SHA-256) of join tokens not used yet, each with the time it expires, in milliseconds since
    /// the start of 1970.
    pub tokens: BTreeMap<[u8; 32], u64>,
}

/// A change of one shard's configuration. It happens if the shard is still in the epoch that it starts from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reconfigure {
    /// Which shard.
    pub shard: ShardId,
    /// The epoch that the proposer believes the shard to be in.
    pub from: Epoch,
    /// What it is to become. Its epoch is greater than `from`.
    pub to: ShardConfig,
}
