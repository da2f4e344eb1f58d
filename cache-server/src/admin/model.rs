//! What the admin port says and is told, as JSON.
//!
//! Numbers that need more than 53 bits are text: many readers of JSON keep no more. Readers should pass
//! over members they do not know; new ones may come with any version. An example of each answer stands in
//! `examples/`; programs that read them are tested with the same files.

use cluster::map::{Addresses, ClusterMap, Node, Role, ShardPlace, Standing};
use cluster::pool::Pool;
use cluster::{Epoch, Member, NodeId, ShardId};
use serde::{Deserialize, Serialize};

/// How the cluster is, as one node sees it: `GET /cluster/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's id, in 16 hexadecimal digits.
    pub cluster: String,
    /// The node that answers.
    pub node: NodeId,
    /// How often the map that it has was changed.
    pub revision: u64,
    /// What the cluster promises.
    pub pool: Pool,
    /// How the control plane is.
    pub raft: Raft,
    /// All nodes that have not left.
    pub nodes: Vec<NodeStatus>,
    /// The shards, counted.
    pub shards: ShardCounts,
    /// [`Status::is_healthy`] of all this.
    pub healthy: bool,
}

impl Status {
    /// Whether nothing is amiss: the control plane has a leader, every node is up, and every shard serves
    /// with as many copies as it should have.
    pub fn is_healthy(&self) -> bool {
        self.raft.leader.is_some()
            && self.nodes.iter().all(|node| node.up)
            && self.shards.is_healthy()
    }
}

/// How the control plane is, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raft {
    /// Who leads it, if anybody does who is heard of and has a majority.
    pub leader: Option<NodeId>,
    /// How long nobody has, in milliseconds, as far as the answering node knows; since its start at the
    /// longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaderless_ms: Option<u64>,
    /// The term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// The last entry that the answering node carried out.
    pub applied: u64,
}

/// The hit ratio of LRU at other sizes of a node's memory, told from its own traffic: `GET /node/mrc`.
/// Counts of half an hour ago weigh half, and so on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mrc {
    /// The node's memory for items (`-m`) at present, in bytes.
    pub memory_bytes: u64,
    /// The policy that it evicts by.
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
    /// The curve, by ascending memory. Empty where nothing was looked at.
    pub points: Vec<MrcPoint>,
}

/// A curve at one size of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// A node, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// How it stands with the cluster.
    pub standing: StandingName,
    /// What it is for.
    pub role: RoleName,
    /// Whether the answering node hears of it.
    pub up: bool,
    /// How long it has not been heard of, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// Its life, a number as text; `None` before it first announced itself.
    pub incarnation: Option<String>,
    /// Where it is found.
    pub addresses: Addresses,
    /// Shards that it leads, as the map says.
    pub shards_primary: u32,
    /// Shards that it holds in sync, those it serves among them.
    pub shards_copies: u32,
    /// Its zone; may be empty.
    pub zone: String,
    /// Its share of the shards, relative to the others'.
    pub weight: u16,
    /// The build that it runs.
    pub version: String,
}

impl NodeStatus {
    /// What `map` says of its node `id`, and for how long it has not been heard of, if so.
    pub fn of(map: &ClusterMap, id: NodeId, node: &Node, silent_ms: Option<u64>) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            id,
            standing: node.standing.into(),
            role: node.role.into(),
            up: silent_ms.is_none(),
            silent_ms,
            incarnation: node.incarnation.map(|incarnation| incarnation.0.to_string()),
            addresses: node.addresses.clone(),
            shards_primary: count(map.shards_led_by(id).count()),
            shards_copies: count(map.copies_on(id).count()),
            zone: node.zone.clone(),
            weight: node.weight,
            version: node.version.clone(),
        }
    }
}

/// [`Standing`] as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandingName {
    /// It takes its share.
    Member,
    /// Its shards are being moved away.
    Draining,
    /// It left.
    Removed,
}

impl From<Standing> for StandingName {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Member => Self::Member,
            Standing::Draining => Self::Draining,
            Standing::Removed => Self::Removed,
        }
    }
}

/// [`Role`] as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// It holds shards.
    Data,
    /// It votes and holds nothing.
    Witness,
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Data => Self::Data,
            Role::Witness => Self::Witness,
        }
    }
}

/// The shards, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCounts {
    /// All of them.
    pub total: u32,
    /// Those whose primary serves: that is known of those that the answering node leads; of others that
    /// the primary is heard of, in the life in which it was appointed.
    pub serving: u32,
    /// Those that lack a copy on one of the nodes that should have one.
    pub under_replicated: u32,
    /// Those without a primary.
    pub without_primary: u32,
}

impl ShardCounts {
    /// What `map` says of its shards; `serves` whether the primary of one is known to serve.
    pub fn of(map: &ClusterMap, serves: impl Fn(ShardId, &ShardPlace) -> bool) -> Self {
        let mut counts = Self::default();
        let copies = usize::from(map.pool.copies);
        for (id, shard) in map.places() {
            let holds = |node: &NodeId| shard.config.member(*node).is_some();
            let is_whole = !shard.targets.is_empty() && shard.targets.iter().all(holds);
            counts.total += 1;
            counts.serving += u32::from(shard.config.primary.is_some() && serves(id, shard));
            counts.under_replicated += u32::from(!is_whole || shard.config.in_sync.len() < copies);
            counts.without_primary += u32::from(shard.config.primary.is_none());
        }
        counts
    }

    /// Whether all of them serve, with as many copies as they should have.
    pub fn is_healthy(&self) -> bool {
        self.serving == self.total && self.under_replicated == 0 && self.without_primary == 0
    }
}

/// Where everything is: `GET /cluster/map`. Without what is nobody's business: join tokens, and where the
/// logs of nodes stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// The cluster's id, in 16 hexadecimal digits.
    pub cluster: String,
    /// How often it was changed.
    pub revision: u64,
    /// What the cluster promises.
    pub pool: Pool,
    /// All nodes there ever were.
    pub nodes: Vec<MapNode>,
    /// All shards, in order.
    pub shards: Vec<MapShard>,
}

/// A node in [`Map`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapNode {
    /// Its id.
    pub id: NodeId,
    /// How it stands with the cluster.
    pub standing: StandingName,
    /// What it is for.
    pub role: RoleName,
    /// Its life, a number as text.
    pub incarnation: Option<String>,
    /// Where it is found.
    pub addresses: Addresses,
    /// Its zone; may be empty.
    pub zone: String,
    /// Its share of the shards, relative to the others'.
    pub weight: u16,
    /// The build that it runs.
    pub version: String,
}

/// A shard in [`Map`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapShard {
    /// Which.
    pub shard: ShardId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Who serves it.
    pub primary: Option<NodeId>,
    /// Who holds every committed write.
    pub in_sync: Vec<InSync>,
    /// Who should hold it, the preferred primary first.
    pub targets: Vec<NodeId>,
}

/// A member of an in-sync set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSync {
    /// Which node.
    pub node: NodeId,
    /// In which of its lives, a number as text.
    pub incarnation: String,
}

impl From<&Member> for InSync {
    fn from(member: &Member) -> Self {
        Self { node: member.node, incarnation: member.incarnation.0.to_string() }
    }
}

impl From<&ClusterMap> for Map {
    fn from(map: &ClusterMap) -> Self {
        let node = |(id, node): (&NodeId, &Node)| MapNode {
            id: *id,
            standing: node.standing.into(),
            role: node.role.into(),
            incarnation: node.incarnation.map(|incarnation| incarnation.0.to_string()),
            addresses: node.addresses.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            version: node.version.clone(),
        };
        let shard = |(shard, place): (ShardId, &ShardPlace)| MapShard {
            shard,
            epoch: place.config.epoch,
            primary: place.config.primary,
            in_sync: place.config.in_sync.iter().map(InSync::from).collect(),
            targets: place.targets.clone(),
        };
        Self {
            cluster: map.cluster.to_string(),
            revision: map.revision,
            pool: map.pool.clone(),
            nodes: map.nodes.iter().map(node).collect(),
            shards: map.places().map(shard).collect(),
        }
    }
}

/// Where a key is: `GET /cluster/locate?key=KEY`, the key's bytes percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locate {
    /// The key; what is no UTF-8 in it is replaced.
    pub key: String,
    /// Its shard.
    pub shard: ShardId,
    /// The shard's epoch.
    pub epoch: Epoch,
    /// Who serves it.
    pub primary: Option<NodeId>,
    /// Who holds every committed write.
    pub in_sync: Vec<NodeId>,
    /// Who should hold it, the preferred primary first.
    pub targets: Vec<NodeId>,
    /// Where clients reach the primary.
    pub client_address: Option<String>,
}

impl Locate {
    /// Where `map` has `key`; nowhere before the cluster is founded.
    pub fn of(map: &ClusterMap, key: &[u8]) -> Option<Self> {
        let shard = map.shard_of_key(key)?;
        let place = map.place(shard)?;
        let primary = place.config.primary;
        let node = primary.and_then(|id| map.nodes.get(&id));
        Some(Self {
            key: String::from_utf8_lossy(key).into_owned(),
            shard,
            epoch: place.config.epoch,
            primary,
            in_sync: place.config.in_sync.iter().map(|member| member.node).collect(),
            targets: place.targets.clone(),
            client_address: node.map(|node| node.addresses.client.clone()),
        })
    }
}

/// What is under way between nodes: `GET /cluster/moves`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// Copies being made.
    pub running: Vec<Move>,
    /// How many shards wait for their turn.
    pub queued: u32,
}

/// A copy being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Of which shard.
    pub shard: ShardId,
    /// From which node: the primary.
    pub from: NodeId,
    /// To which node.
    pub to: NodeId,
    /// What it is at.
    pub state: MoveState,
    /// Items sent so far.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a copy being made is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// It waits for its turn, or for word of what the joiner has.
    Waiting,
    /// What the copy lacks is being found and sent.
    CatchingUp,
    /// It has everything; the map is being told.
    Joining,
}

/// `POST /cluster/drain`, and `POST /cluster/undrain` to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The node whose shards are to be moved away.
    pub node: NodeId,
}

/// `POST /cluster/move`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The shard.
    pub shard: ShardId,
    /// Who should hold it, the preferred primary first.
    pub targets: Vec<NodeId>,
}

/// `POST /cluster/token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For how many seconds the token lets a node in.
    #[serde(default = "ttl_s_default")]
    pub ttl_s: u32,
}

/// A quarter of an hour: to start a server takes minutes.
fn ttl_s_default() -> u32 {
    900
}

/// What lets one node join: the answer to `POST /cluster/token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// For `--token`.
    pub token: String,
    /// When it expires, in seconds since the start of 1970.
    pub expires_unix_s: u64,
    /// For `--join`: peer addresses of nodes in the cluster.
    pub seeds: Vec<String>,
}

/// `POST /cluster/remove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The node.
    pub node: NodeId,
    /// Also while it holds shards; for one that will not come back.
    #[serde(default)]
    pub force: bool,
}

/// `POST /cluster/voters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VotersRequest {
    /// Who is to vote.
    pub voters: Vec<NodeId>,
}

/// `POST /cluster/recover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// Whether to do it; else it is only told what would be done.
    #[serde(default)]
    pub accept_data_loss: bool,
}

/// What shards that cannot go on by themselves go on with, or would: the answer to `POST /cluster/recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Whether it is done.
    pub is_done: bool,
    /// Each of them.
    pub shards: Vec<Recovered>,
}

/// A shard that goes on with what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Which.
    pub shard: ShardId,
    /// The epoch in which it goes on.
    pub epoch: Epoch,
    /// Who leads it then.
    pub node: NodeId,
    /// Which copy that node has.
    pub copy: CopyName,
}

/// What a shard goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyName {
    /// That of a member which never went away: it may lack the last writes.
    InSync,
    /// What a memory file brought back.
    Restarted,
    /// None: all its items are lost.
    None,
}

/// What was asked for is agreed on, and done or begun: the answer to requests without another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// How often the map was changed, this time included.
    pub revision: u64,
}

/// What came instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why, as a lower-case clause.
    pub error: String,
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use cluster::map::ShardConfig;
    use cluster::{ClusterId, Incarnation};
    use serde_json::json;

    use super::*;

    /// Two nodes, of which 1 holds four shards and 2 the first of them.
    pub(in crate::admin) fn map() -> ClusterMap {
        let node = |id: u32| Node {
            addresses: Addresses {
                peer: format!("h{id}:3"),
                client: format!("h{id}:1"),
                admin: format!("h{id}:2"),
            },
            zone: "a".to_owned(),
            weight: 100,
            role: Role::Data,
            standing: Standing::Member,
            incarnation: Some(Incarnation(u64::MAX)),
            recovered: BTreeMap::new(),
            version: "1".to_owned(),
            request: 0,
            is_down: false,
        };
        let member = |id| Member { node: NodeId(id), incarnation: Incarnation(u64::MAX) };
        let shard = |in_sync| ShardPlace {
            config: ShardConfig { epoch: Epoch(5), primary: Some(NodeId(1)), in_sync },
            targets: vec![NodeId(1), NodeId(2)],
        };
        ClusterMap {
            cluster: ClusterId(0xfeed),
            revision: 9,
            pool: Pool::sessions(),
            nodes: [(NodeId(1), node(1)), (NodeId(2), node(2))].into(),
            shards: vec![
                shard(vec![member(1), member(2)]),
                shard(vec![member(1)]),
                shard(vec![member(1)]),
                ShardPlace::default(),
            ],
            tokens: [([7; 32], 1)].into(),
            ..ClusterMap::default()
        }
    }

    /// Reads an example and gives it back as it was.
    fn survives<T: Serialize + serde::de::DeserializeOwned>(example: &str) {
        let value: serde_json::Value = serde_json::from_str(example).unwrap();
        let read: T = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value);
    }

    #[test]
    fn examples_are_what_is_said() {
        survives::<Status>(include_str!("examples/status.json"));
        survives::<Map>(include_str!("examples/map.json"));
        survives::<Locate>(include_str!("examples/locate.json"));
        survives::<Moves>(include_str!("examples/moves.json"));
        survives::<Token>(include_str!("examples/token.json"));
        survives::<Recovery>(include_str!("examples/recovery.json"));
        survives::<Agreed>(include_str!("examples/agreed.json"));
        survives::<Mrc>(include_str!("examples/mrc.json"));
    }

    #[test]
    fn map_shows_where_things_are_and_no_tokens() {
        let shown = serde_json::to_value(Map::from(&map())).unwrap();
        assert_eq!(shown["cluster"], "000000000000feed");
        assert_eq!(
            shown["shards"][1],
            json!({
                "shard": 1,
                "epoch": 5,
                "primary": 1,
                "in_sync": [{"node": 1, "incarnation": "18446744073709551615"}],
                "targets": [1, 2],
            })
        );
        assert_eq!(shown["nodes"][0]["standing"], "member");
        assert_eq!(shown["nodes"][0]["addresses"]["client"], "h1:1");
        assert!(shown.get("tokens").is_none());
    }

    #[test]
    fn shards_are_counted_by_what_they_lack() {
        let counts = ShardCounts::of(&map(), |shard, _| shard != ShardId(2));
        let expected =
            ShardCounts { total: 4, serving: 2, under_replicated: 3, without_primary: 1 };
        assert_eq!(counts, expected);
        assert!(!counts.is_healthy());
        assert!(ShardCounts { total: 4, serving: 4, ..ShardCounts::default() }.is_healthy());
    }

    #[test]
    fn node_counts_what_it_holds() {
        let map = map();
        let [first, second] = [1, 2].map(|id| {
            let id = NodeId(id);
            NodeStatus::of(&map, id, &map.nodes[&id], None)
        });
        assert_eq!((first.shards_primary, first.shards_copies), (3, 3));
        assert_eq!((second.shards_primary, second.shards_copies), (0, 1));
    }

    #[test]
    fn key_is_located_by_its_hash() {
        let map = map();
        let located = Locate::of(&map, b"").unwrap();
        // The reference hash of the empty input begins with the bits 00.
        assert_eq!(located.shard, ShardId(0));
        assert_eq!(located.primary, Some(NodeId(1)));
        assert_eq!(located.in_sync, [NodeId(1), NodeId(2)]);
        assert_eq!(located.client_address.as_deref(), Some("h1:1"));
        assert_eq!(Locate::of(&ClusterMap::default(), b"k"), None);
    }
}
