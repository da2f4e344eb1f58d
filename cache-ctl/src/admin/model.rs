//! What a table shows of an admin port's answers. Members that are not shown are passed over, so that a
//! node of a later version can still be asked.

use serde::{Deserialize, Serialize};

/// The answer to `/cluster/status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The cluster's id.
    pub cluster: String,
    /// The node that answers.
    pub node: u32,
    /// How often its map was changed.
    pub revision: u64,
    /// What the cluster promises.
    pub pool: Pool,
    /// How the control plane is.
    pub raft: Raft,
    /// The nodes that have not left.
    pub nodes: Vec<NodeStatus>,
    /// The shards, counted.
    pub shards: ShardCounts,
    /// Whether nothing is amiss.
    pub healthy: bool,
}

/// What a cluster promises.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Copies of each shard.
    pub copies: u8,
    /// What reads wait for.
    pub reads: Reads,
}

/// What a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Reads {
    /// That copies still promise not to appoint another primary.
    Lease,
    /// Nothing.
    Any,
    /// That they say so once more.
    Confirm,
}

/// How the control plane is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Raft {
    /// Who leads it.
    pub leader: Option<u32>,
    /// For how long nobody has, in milliseconds.
    #[serde(default)]
    pub leaderless_ms: Option<u64>,
    /// The term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<u32>,
}

/// A node, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: u32,
    /// How it stands with the cluster.
    pub standing: String,
    /// What it is for.
    pub role: String,
    /// Whether the answering node hears of it.
    pub up: bool,
    /// For how long it has not, in milliseconds.
    #[serde(default)]
    pub silent_ms: Option<u64>,
    /// Where it is found.
    pub addresses: Addresses,
    /// Shards that it serves.
    pub shards_primary: u32,
    /// Shards that it holds in sync.
    pub shards_copies: u32,
    /// Its zone; may be empty.
    pub zone: String,
    /// Its share of the shards.
    pub weight: u16,
    /// The build that it runs.
    pub version: String,
}

/// Where a node is found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Addresses {
    /// By clients.
    pub client: String,
    /// By administration.
    pub admin: String,
    /// By other nodes.
    pub peer: String,
}

/// The shards, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ShardCounts {
    /// All of them.
    pub total: u32,
    /// Those that serve.
    pub serving: u32,
    /// Those that lack a copy.
    pub under_replicated: u32,
    /// Those without a primary.
    pub without_primary: u32,
}

/// The answer to `/cluster/map`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Map {
    /// The shards, in order.
    pub shards: Vec<MapShard>,
}

/// A shard in the map.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MapShard {
    /// Which.
    pub shard: u16,
    /// Its epoch.
    pub epoch: u32,
    /// Who serves it.
    pub primary: Option<u32>,
    /// Who holds every committed write.
    pub in_sync: Vec<InSync>,
    /// Who should hold it.
    pub targets: Vec<u32>,
}

/// A member of an in-sync set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InSync {
    /// Which node.
    pub node: u32,
}

/// The answer to `/cluster/locate`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Locate {
    /// The key.
    pub key: String,
    /// Its shard.
    pub shard: u16,
    /// The shard's epoch.
    pub epoch: u32,
    /// Who serves it.
    pub primary: Option<u32>,
    /// Who holds every committed write.
    pub in_sync: Vec<u32>,
    /// Who should hold it.
    pub targets: Vec<u32>,
    /// Where clients reach the primary.
    pub client_address: Option<String>,
}

/// The answer to `/cluster/moves`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Moves {
    /// Copies being made.
    pub running: Vec<Move>,
    /// How many shards wait for their turn.
    pub queued: u32,
}

/// A copy being made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Move {
    /// Of which shard.
    pub shard: u16,
    /// From which node.
    pub from: u32,
    /// To which node.
    pub to: u32,
    /// What it is at.
    pub state: String,
    /// Items sent so far.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The answer to `/cluster/token`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Token {
    /// What lets one node in.
    pub token: String,
    /// Where it joins.
    pub seeds: Vec<String>,
}

/// The answer to other changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Agreed {
    /// How often the map was changed, this time included.
    pub revision: u64,
}

/// What is sent to `/cluster/drain` and `/cluster/undrain`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DrainRequest {
    /// The node.
    pub node: u32,
}

/// The answer to `/node/mrc`: the hit ratio of LRU at other sizes of the node's memory.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Mrc {
    /// The memory for items (`-m`) at present, in bytes.
    pub memory_bytes: u64,
    /// The policy that items are evicted by.
    pub policy: String,
    /// Reads that the curve is of.
    pub requests: u64,
    /// Hits in them, as they were.
    pub hit_ratio: f64,
    /// Reads that were looked at.
    pub sampled_requests: u64,
    /// Objects that are remembered.
    pub sampled_objects: u64,
    /// The share of all objects that is looked at.
    pub sampled_share: f64,
    /// Uses of objects that were lost because too many came at once.
    pub lost: u64,
    /// What the curve takes of memory, in bytes.
    pub bytes: u64,
    /// How long it has been counted for.
    pub seconds: u32,
    /// After this time a count weighs half.
    pub half_life_seconds: u32,
    /// The curve, by ascending memory.
    pub points: Vec<MrcPoint>,
}

/// A curve at one size of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct MrcPoint {
    /// The memory (`-m`) in bytes.
    pub memory_bytes: u64,
    /// What of it is for items, their overhead included.
    pub items_bytes: u64,
    /// Hits in reads.
    pub hit_ratio: f64,
    /// The lower end of the band in which the curve lies.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What is sent to `/cluster/move`.
#[derive(Clone, Debug, Serialize)]
pub struct MoveRequest<'a> {
    /// The shard.
    pub shard: u16,
    /// Who should hold it, the preferred primary first.
    pub targets: &'a [u32],
}

/// What is sent to `/cluster/token`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TokenRequest {
    /// For how many seconds the token lets a node in.
    pub ttl_s: u32,
}

/// What is sent to `/cluster/remove`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RemoveRequest {
    /// The node.
    pub node: u32,
    /// Also while it holds shards.
    pub force: bool,
}

/// What is sent to `/cluster/voters`.
#[derive(Clone, Debug, Serialize)]
pub struct VotersRequest<'a> {
    /// Who is to vote.
    pub voters: &'a [u32],
}

/// What is sent to `/cluster/recover`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RecoverRequest {
    /// Whether to do it, and not only to tell what would be done.
    pub accept_data_loss: bool,
}

/// The answer to `/cluster/recover`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recovery {
    /// Whether it is done.
    pub is_done: bool,
    /// Shards that go on, or would.
    pub shards: Vec<Recovered>,
}

/// A shard that goes on with what there is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recovered {
    /// Which.
    pub shard: u16,
    /// Who leads it then.
    pub node: u32,
    /// With which copy.
    pub copy: String,
}
