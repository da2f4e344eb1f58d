//! What changes the map, what comes of it, and why it may be refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Addresses, COPIES_MAX, Node, Reconfigure, Role, Standing, WEIGHT_MAX};
use crate::hash::{SHARD_COUNT_MAX, SHARD_COUNT_MIN};
use crate::pool::{Ack, OnTotalLoss, Pool, Reads};
use crate::{ClusterId, Epoch, Incarnation, NodeId, ShardId, Version};

/// What changes the map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Begins a cluster of one node, which is node 1. No shard is appointed to it yet.
    Found {
        /// Drawn at random.
        cluster: ClusterId,
        /// What it promises.
        pool: Pool,
        /// A power of two, fixed for good.
        shard_count: u16,
        /// The founder, which holds data.
        node: NewNode,
    },
    /// Lets whoever knows a token join, once.
    AddToken {
        /// SHA-256 of the token.
        hash: [u8; 32],
        /// In milliseconds since the start of 1970.
        expires_unix_ms: u64,
    },
    /// Takes a node in. It takes its share of the shards from now on.
    AddNode {
        /// Drawn at random: the same command, sent again, gives the same id, or is refused once the node was
        /// removed.
        request: u64,
        /// SHA-256 of the token that the node showed; `None` where the proposer vouches for the node.
        token_hash: Option<[u8; 32]>,
        /// The proposer's time, in milliseconds since the start of 1970.
        now_unix_ms: u64,
        /// The node.
        node: NewNode,
    },
    /// A node announces that it started.
    NodeUp {
        /// Which.
        node: NodeId,
        /// Its new life: greater than those before.
        incarnation: Incarnation,
        /// Where it is found from now on.
        addresses: Addresses,
        /// The build that it runs.
        version: String,
        /// Where its shards' logs stood, as its memory file said.
        recovered: BTreeMap<ShardId, Version>,
    },
    /// A node's process is about to end: whatever it holds is to go on without it.
    NodeDown {
        /// Which node.
        node: NodeId,
        /// In which life. Another one's word changes nothing.
        incarnation: Incarnation,
    },
    /// Changes configurations, each on its own: some may happen and others not.
    Reconfigure(Vec<Reconfigure>),
    /// Says who should hold shards. All of it happens, or nothing.
    SetTargets {
        /// The `placement_revision` of the map that the targets were computed from.
        based_on: u64,
        /// The targets of each shard, the preferred primary first.
        targets: Vec<(ShardId, Vec<NodeId>)>,
    },
    /// Asks for a node's shards to be moved away, so that it can leave.
    Drain {
        /// Which.
        node: NodeId,
    },
    /// Has it take its share again.
    CancelDrain {
        /// Which.
        node: NodeId,
    },
    /// Removes a node for good.
    Remove {
        /// Which.
        node: NodeId,
        /// Also while it holds shards: it is dead and will not return.
        force: bool,
    },
    /// Changes where a node stands and what share it takes.
    SetZoneWeight {
        /// Which.
        node: NodeId,
        /// Its zone.
        zone: String,
        /// Its weight.
        weight: u16,
    },
    /// Changes what the pool promises, as far as that is safe while it is in use.
    SetPool(PoolChange),
}

/// A node that joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Where it is found.
    pub addresses: Addresses,
    /// Its zone.
    pub zone: String,
    /// Its weight: 1 to 1,000.
    pub weight: u16,
    /// What it is for.
    pub role: Role,
    /// The build that it runs.
    pub version: String,
}

impl NewNode {
    /// As it stands in the map when it joined by `request`.
    pub(super) fn join(&self, request: u64) -> Node {
        Node {
            addresses: self.addresses.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
            role: self.role,
            standing: Standing::Member,
            incarnation: None,
            is_down: false,
            recovered: BTreeMap::new(),
            version: self.version.clone(),
            request,
        }
    }
}

/// What is to change of a pool; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolChange {
    /// Copies of each shard.
    pub copies: Option<u8>,
    /// Which of them a write waits for. It can be made weaker and not stronger.
    pub ack: Option<Ack>,
    /// Writes are refused with fewer in sync.
    pub in_sync_min: Option<u8>,
    /// What reads wait for.
    pub reads: Option<Reads>,
    /// What happens when every in-sync copy is lost.
    pub on_total_loss: Option<OnTotalLoss>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is as the command says.
    Done,
    /// The node is in the map under this id.
    NodeAdded(NodeId),
    /// What came of each of the changes, in order.
    Reconfigured(Vec<Result<(), Refusal>>),
    /// Nothing changed.
    Refused(Refusal),
}

/// Why a command, or one of its changes, was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is a cluster already.
    #[error(
        "this is cluster {cluster} already: a cluster is founded once, and other nodes join it"
    )]
    Founded {
        /// Which.
        cluster: ClusterId,
    },
    /// There is no cluster.
    #[error("no cluster was founded here yet")]
    NotFounded,
    /// No such number of shards.
    #[error(
        "a cluster cannot have {found} shards: it takes a power of two from {SHARD_COUNT_MIN} to {SHARD_COUNT_MAX}"
    )]
    ShardCount {
        /// What was asked for.
        found: u16,
    },
    /// The founder would have nowhere to put the shards.
    #[error("a witness cannot found a cluster: the first node has to hold its data")]
    FounderHoldsNothing,
    /// No such number of copies.
    #[error("a pool cannot have {found} copies: it takes 1 to {COPIES_MAX}")]
    Copies {
        /// What was asked for.
        found: u8,
    },
    /// Writes would be refused always, or never.
    #[error("a pool of {copies} copies cannot require {found} in sync")]
    InSyncMin {
        /// What was asked for.
        found: u8,
        /// Copies of the pool.
        copies: u8,
    },
    /// Acknowledged writes would be on fewer copies than a takeover relies on.
    #[error(
        "acknowledgement by {present:?} cannot become {wanted:?} while the pool is in use: writes \
         acknowledged before are on fewer copies than a takeover would rely on"
    )]
    AckStronger {
        /// As it is.
        present: Ack,
        /// As was asked for.
        wanted: Ack,
    },
    /// No such weight.
    #[error("a node cannot have weight {found}: it takes 1 to {WEIGHT_MAX}")]
    Weight {
        /// What was asked for.
        found: u16,
    },
    /// Nobody gave this token out, or it was used.
    #[error("the join token is not known: it was used already, or is another cluster's")]
    TokenUnknown,
    /// The token came too late.
    #[error("the join token expired {} s ago: ask for another", expired_ms_ago / 1000)]
    TokenExpired {
        /// By how much, in milliseconds.
        expired_ms_ago: u64,
    },
    /// Another node is to be found there.
    #[error(
        "node {node} is at {peer} already: restart it with its own cluster directory, or remove it \
         before another takes its place"
    )]
    AddressTaken {
        /// Who.
        node: NodeId,
        /// Where.
        peer: String,
    },
    /// All ids were given out.
    #[error("every node id was given out")]
    NoMoreIds,
    /// No such node.
    #[error("there is no node {node}")]
    NodeUnknown {
        /// Which.
        node: NodeId,
    },
    /// A node that was removed does not return.
    #[error("node {node} was removed, and its id does not return: it may join anew with a token")]
    NodeRemoved {
        /// Which.
        node: NodeId,
    },
    /// The life meant is not the present one.
    #[error(
        "node {node} speaks of its life {}, and its life {} is known: an older process, or a copy of \
         its cluster directory",
        found.0,
        present.0
    )]
    OldLife {
        /// Which node.
        node: NodeId,
        /// The life that the map has.
        present: Incarnation,
        /// The life that was named.
        found: Incarnation,
    },
    /// The node has no life to be a member in.
    #[error("node {node} has not announced itself yet")]
    NeverUp {
        /// Which.
        node: NodeId,
    },
    /// A witness is to hold a shard.
    #[error("node {node} is a witness and holds no shards")]
    HoldsNothing {
        /// Which.
        node: NodeId,
    },
    /// The shards would have nowhere to go.
    #[error("node {node} is the last that takes shards: add another first")]
    LastDataNode {
        /// Which.
        node: NodeId,
    },
    /// The node cannot leave yet.
    #[error(
        "node {node} is in sync for {in_sync} shards and wanted for {wanted}: drain it first, or force \
         its removal if it is gone for good"
    )]
    StillHolds {
        /// Which.
        node: NodeId,
        /// Shards in whose in-sync set it is.
        in_sync: usize,
        /// Shards that it should hold.
        wanted: usize,
    },
    /// No such shard.
    #[error("there is no shard {shard}: there are {count}, from 0")]
    ShardUnknown {
        /// Which.
        shard: ShardId,
        /// How many there are.
        count: u16,
    },
    /// Another change of the shard came first.
    #[error("shard {shard} is in epoch {present}, and not in {from} any more")]
    EpochPassed {
        /// Which.
        shard: ShardId,
        /// The epoch that the proposer believed it to be in.
        from: Epoch,
        /// The one that it is in.
        present: Epoch,
    },
    /// The new epoch is not a later one.
    #[error("shard {shard} cannot go from epoch {from} to {to}")]
    EpochOutOfOrder {
        /// Which.
        shard: ShardId,
        /// The epoch that it is in.
        from: Epoch,
        /// The one that was to follow.
        to: Epoch,
    },
    /// A node twice, or not in order.
    #[error("the in-sync set proposed for shard {shard} is not in order of nodes, each once")]
    MembersOutOfOrder {
        /// Which.
        shard: ShardId,
    },
    /// An in-sync set that nobody leads.
    #[error("the in-sync set proposed for shard {shard} has members and no primary")]
    PrimaryMissing {
        /// Which.
        shard: ShardId,
    },
    /// The primary would not hold what it leads.
    #[error("node {primary} is to lead shard {shard} and is not of its in-sync set")]
    PrimaryOutside {
        /// Which.
        shard: ShardId,
        /// Who.
        primary: NodeId,
    },
    /// The targets were computed from a map that is not the present one.
    #[error(
        "nodes or targets changed: they are of revision {present}, and not of {based_on} any more"
    )]
    PlacementChanged {
        /// The revision that the proposer knew.
        based_on: u64,
        /// The present one.
        present: u64,
    },
    /// One shard is given targets twice.
    #[error("shard {shard} is listed twice")]
    ShardTwice {
        /// Which.
        shard: ShardId,
    },
    /// One node is a target twice.
    #[error("node {node} is listed twice for shard {shard}")]
    TargetTwice {
        /// Which.
        shard: ShardId,
        /// Who.
        node: NodeId,
    },
    /// No targets, or too many.
    #[error("shard {shard} cannot be held by {found} nodes: it takes 1 to {COPIES_MAX}")]
    TargetCount {
        /// Which.
        shard: ShardId,
        /// How many were listed.
        found: usize,
    },
}
