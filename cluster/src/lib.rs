//! Keys sharded by hash over nodes, each shard replicated: everything that decides, and nothing that does.
//!
//! Every part is a state machine: one input in, effects out. None reads a clock, draws a random number or
//! opens a socket, and all collections are ordered, so that the same inputs give the same effects: in a
//! model check, in a seeded simulation and in production.
//!
//! ```text
//! node.rs     what a node does about its peers and shards; composes
//!   grant.rs              who has promised whom not to take over, and until when
//!   failure_detector.rs   who is overdue
//!   shard.rs              one replicated shard: primary, backup, takeover
//! map.rs      what all nodes agree on: nodes, pool, and who holds each shard
//!   placement.rs          who should
//! ```
//!
//! # Three nodes in one loop
//!
//! A shard of three copies takes a write, loses its primary, and still has it. Messages are a queue, and the
//! map is one configuration, which changes if a proposal starts from its epoch; in a cluster, connections and
//! Raft stand in their places.
//!
//! ```
//! use std::collections::{BTreeMap, VecDeque};
//!
//! use bytes::Bytes;
//! use cluster::map::ShardConfig;
//! use cluster::pool::Ack;
//! use cluster::shard::{Effect, Grants, Input, Replica};
//! use cluster::{Epoch, Incarnation, Member, NodeId, ShardId, Version};
//!
//! /// Whoever lives is granted its term, and nobody is bound towards one that is gone.
//! struct Alive(Vec<NodeId>);
//!
//! impl Grants for Alive {
//!     fn binds_towards(&self, node: NodeId) -> bool {
//!         self.0.contains(&node)
//!     }
//!     fn holds_from(&self, member: Member) -> bool {
//!         self.0.contains(&member.node)
//!     }
//! }
//!
//! struct Cluster {
//!     replicas: BTreeMap<NodeId, Replica>,
//!     map: ShardConfig,
//!     alive: Alive,
//! }
//!
//! impl Cluster {
//!     /// Does what `effects` of `node` ask for, and what follows, until nothing does.
//!     fn carry_out(&mut self, node: NodeId, effects: Vec<Effect>) {
//!         let mut open: VecDeque<(NodeId, Effect)> =
//!             effects.into_iter().map(|effect| (node, effect)).collect();
//!         while let Some((from, effect)) = open.pop_front() {
//!             let inputs = match effect {
//!                 Effect::Send { to, message } => {
//!                     vec![(to, Input::Received { from: member(from), message })]
//!                 }
//!                 Effect::Propose(change) if change.from == self.map.epoch => {
//!                     self.map = change.to;
//!                     let told = Input::Configured(self.map.clone());
//!                     self.alive.0.iter().map(|&node| (node, told.clone())).collect()
//!                 }
//!                 // `Apply` would change a store, `Committed` release answers.
//!                 _ => continue,
//!             };
//!             for (to, input) in inputs.into_iter().filter(|(to, _)| self.alive.0.contains(to)) {
//!                 let mut effects = Vec::new();
//!                 let replica = self.replicas.get_mut(&to).unwrap();
//!                 replica.step(input, &self.alive, &mut effects);
//!                 open.extend(effects.into_iter().map(|effect| (to, effect)));
//!             }
//!         }
//!     }
//!
//!     fn tell(&mut self, node: NodeId, input: Input) {
//!         let mut effects = Vec::new();
//!         self.replicas.get_mut(&node).unwrap().step(input, &self.alive, &mut effects);
//!         self.carry_out(node, effects);
//!     }
//! }
//!
//! fn member(node: NodeId) -> Member {
//!     Member { node, incarnation: Incarnation(1) }
//! }
//!
//! let nodes = [1, 2, 3].map(NodeId);
//! let new = |node| (node, Replica::new(ShardId(0), member(node), Ack::Quorum, Version::ZERO));
//! let mut cluster = Cluster {
//!     replicas: nodes.map(new).into(),
//!     map: ShardConfig {
//!         epoch: Epoch(1),
//!         primary: Some(NodeId(1)),
//!         in_sync: nodes.map(member).to_vec(),
//!     },
//!     alive: Alive(nodes.to_vec()),
//! };
//! // The primary last: what it asks those who know of no map yet is lost, until `Input::Retry` asks again.
//! for node in nodes.into_iter().rev() {
//!     cluster.tell(node, Input::Configured(cluster.map.clone()));
//! }
//! assert!(cluster.replicas[&NodeId(1)].is_serving());
//!
//! // Ordered by the primary, and on all three when the queue is empty.
//! let mut effects = Vec::new();
//! let primary = cluster.replicas.get_mut(&NodeId(1)).unwrap();
//! let written = primary.write(Bytes::from_static(b"k = v"), &mut effects);
//! cluster.carry_out(NodeId(1), effects);
//! assert!(cluster.replicas[&NodeId(1)].committed() >= written.sequence());
//!
//! // Node 1 dies, and its grants run out. Node 2 asks node 3 for its seal, then the map for the shard.
//! cluster.alive.0.remove(0);
//! cluster.tell(NodeId(2), Input::Campaign);
//! assert_eq!(cluster.map.primary, Some(NodeId(2)));
//! assert!(cluster.map.epoch > Epoch(1));
//! let successor = &cluster.replicas[&NodeId(2)];
//! assert!(successor.is_serving() && successor.may_read(&cluster.alive));
//! assert_eq!(successor.last(), written);
//! ```
#![forbid(unsafe_code)]

mod id;
mod time;

pub mod config;
pub mod failure_detector;
pub mod grant;
pub mod hash;
pub mod map;
pub mod message;
pub mod node;
pub mod placement;
pub mod pool;
pub mod shard;

pub use id::{ClusterId, Epoch, Incarnation, Member, NodeId, Sequence, ShardId, Version};
pub use time::Instant;
