//! What `Node` says of several shards at once, and when.

use super::*;
use crate::map::{Addresses, NewNode};
use crate::pool::{Ack, Pool};
use crate::shard::Grants;
use crate::{ClusterId, Epoch};

const ME: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(0);

/// Whoever was asked has promised its term.
struct Granted;

impl Grants for Granted {
    fn binds_towards(&self, _: NodeId) -> bool {
        false
    }
    fn holds_from(&self, _: Member) -> bool {
        true
    }
}

fn life(node: u32, incarnation: u64) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

/// Three nodes in their first lives, of which `in_sync` hold the shard and all should.
fn map(in_sync: &[u32]) -> ClusterMap {
    let mut map = ClusterMap::default();
    let new = |node: u32| NewNode {
        addresses: Addresses { peer: format!("node-{node}:1"), ..Addresses::default() },
        zone: String::new(),
        weight: 100,
        role: Role::Data,
        version: String::new(),
    };
    map.apply(&Command::Found {
        cluster: ClusterId(1),
        pool: Pool::strict(),
        shard_count: 64,
        node: new(1),
    });
    for node in 2..=3 {
        let (token_hash, now_unix_ms) = (None, 0);
        let request = u64::from(node);
        map.apply(&Command::AddNode { request, token_hash, now_unix_ms, node: new(node) });
    }
    map.shards.truncate(1);
    map.shards[0].targets = [1, 2, 3].map(NodeId).to_vec();
    map.shards[0].config = ShardConfig {
        epoch: Epoch(1),
        primary: Some(ME),
        in_sync: in_sync.iter().map(|&node| life(node, 1)).collect(),
    };
    for node in 1..=3 {
        begin(&mut map, life(node, 1));
    }
    map
}

/// A node's process announces itself.
fn begin(map: &mut ClusterMap, member: Member) {
    let addresses = map.nodes[&member.node].addresses.clone();
    map.apply(&Command::NodeUp {
        node: member.node,
        incarnation: member.incarnation,
        addresses,
        version: String::new(),
        recovered: BTreeMap::new(),
    });
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000 + millis)
}

/// Node 1 and its replica, once both know `map`.
fn primary_of(map: &ClusterMap) -> (Node, Replica) {
    let mut node = Node::new(life(1, 1), Intervals::default());
    node.step(at(0), Input::Map(Arc::new(map.clone())), &mut Vec::new());
    let mut replica = Replica::new(SHARD, node.me(), Ack::Quorum, Version::ZERO);
    let config = map.shards[0].config.clone();
    replica.step(shard::Input::Configured(config), &Granted, &mut Vec::new());
    (node, replica)
}

fn tasks_of(node: &mut Node, now: Instant, replica: &Replica) -> Vec<Task> {
    let mut tasks = Vec::new();
    _ = node.attend(now, replica, &mut tasks);
    tasks
}

#[test]
fn members_that_are_lost_together_are_reported_together() {
    let mut map = map(&[1, 2, 3]);
    begin(&mut map, life(2, 2));
    begin(&mut map, life(3, 2));
    let (mut node, replica) = primary_of(&map);
    let lost = vec![life(2, 1), life(3, 1)];
    let tasks = tasks_of(&mut node, at(1), &replica);
    assert!(tasks.contains(&Task::Step(shard::Input::MembersLost(lost))), "{tasks:?}");
}

#[test]
fn next_life_of_a_joiner_does_not_wait_for_the_one_before() {
    let mut map = map(&[1]);
    let (mut node, mut replica) = primary_of(&map);
    assert!(tasks_of(&mut node, at(1), &replica).contains(&Task::Join(life(2, 1))));
    replica.step(shard::Input::StartJoin(life(2, 1)), &Granted, &mut Vec::new());
    begin(&mut map, life(2, 2));
    node.step(at(2), Input::Map(Arc::new(map)), &mut Vec::new());
    let tasks = tasks_of(&mut node, at(2), &replica);
    assert!(tasks.contains(&Task::Join(life(2, 2))), "{tasks:?}");
    let lost = shard::Input::MembersLost(vec![life(2, 1)]);
    assert!(tasks.contains(&Task::Step(lost.clone())), "{tasks:?}");
    replica.step(lost, &Granted, &mut Vec::new());
    assert_eq!(replica.joiners(), []);
}
