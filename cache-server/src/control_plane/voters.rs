//! Who should vote: the next step towards it.
//!
//! - Voters are odd in number. With two of two, the loss of either stops the cluster; with one of two,
//!   only the loss of that one does. So a second node learns, and the third makes it three at once.
//! - A voter that stays keeps its vote. Seats that are free go to witnesses first, which are there for
//!   it, then to zones that have no voter yet, then to the node that came first.
//! - A node that is not alive gets no vote: it could not catch up. One that has a vote and is not alive
//!   keeps it, since taking it away is for an operator to decide (`cache-ctl remove`).
//! - A node that is draining hands its vote over where there is somebody to take it.
//!
//! One step at a time, each a [`Change`] that Raft makes safe by itself; whoever leads takes the next
//! when the last is done.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use cluster::NodeId;
use cluster::map::{ClusterMap, Role, Standing};

use super::Change;

/// Nodes that vote, at most.
pub const VOTERS_MAX: usize = 3;

/// The next change towards `voters_max` voters (or the greatest odd number that there are nodes for), or
/// `None` when all is as it should be.
///
/// `alive` are the nodes that the failure detector sees. It should hold the caller.
pub fn next_change(
    map: &ClusterMap,
    voters: &BTreeSet<NodeId>,
    learners: &BTreeSet<NodeId>,
    alive: &BTreeSet<NodeId>,
    voters_max: usize,
) -> Option<Change> {
    let known: BTreeSet<NodeId> = voters.union(learners).copied().collect();

    let newcomer = map.nodes.iter().find(|(id, node)| {
        node.standing != Standing::Removed && !known.contains(id) && alive.contains(id)
    });
    if let Some((newcomer, _)) = newcomer {
        return Some(Change::Learn(*newcomer));
    }

    let vote = next_vote(map, voters, learners, alive, voters_max);
    vote.or_else(|| removed_learner(map, learners))
}

/// The change of those who vote, if there is one to make: of [`next_change`] that which decides anything.
pub(super) fn next_vote(
    map: &ClusterMap,
    voters: &BTreeSet<NodeId>,
    learners: &BTreeSet<NodeId>,
    alive: &BTreeSet<NodeId>,
    voters_max: usize,
) -> Option<Change> {
    let wanted = wanted(map, voters, learners, alive, voters_max);
    (!wanted.is_empty() && wanted != *voters).then_some(Change::Vote(wanted))
}

fn removed_learner(map: &ClusterMap, learners: &BTreeSet<NodeId>) -> Option<Change> {
    let standing = |node: &NodeId| map.nodes.get(node).map(|node| node.standing);
    learners.iter().find(|id| standing(id) == Some(Standing::Removed)).copied().map(Change::Forget)
}

fn wanted(
    map: &ClusterMap,
    voters: &BTreeSet<NodeId>,
    learners: &BTreeSet<NodeId>,
    alive: &BTreeSet<NodeId>,
    voters_max: usize,
) -> BTreeSet<NodeId> {
    let of = |ids: &BTreeSet<NodeId>, standing: Standing| -> Vec<NodeId> {
        let is = |id: &&NodeId| map.nodes.get(id).is_some_and(|node| node.standing == standing);
        ids.iter().filter(is).copied().collect()
    };
    let mut keepers = of(voters, Standing::Member);
    let mut candidates = of(learners, Standing::Member);
    candidates.retain(|id| alive.contains(id));
    let leaving = of(voters, Standing::Draining);
    let count = odd(voters_max.min(keepers.len() + candidates.len() + leaving.len()));

    // Where there are too many, or an even number, the dead go first, then those that came last.
    keepers.sort_by_key(|id| (!alive.contains(id), *id));
    keepers.truncate(count);
    let mut wanted = BTreeSet::from_iter(keepers);
    while wanted.len() < count && !candidates.is_empty() {
        let zones: BTreeSet<&str> = wanted.iter().map(|id| map.nodes[id].zone.as_str()).collect();
        let worth = |id: &NodeId| {
            let node = &map.nodes[id];
            (node.role == Role::Witness, !zones.contains(node.zone.as_str()), Reverse(*id))
        };
        let Some(best) = candidates.iter().copied().max_by_key(worth) else { break };
        candidates.retain(|id| *id != best);
        wanted.insert(best);
    }
    // Nobody to take over: a node that is leaving votes until it has left.
    let vacant = count.saturating_sub(wanted.len());
    wanted.extend(leaving.into_iter().take(vacant));
    wanted
}

fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1) } else { count }
}

#[cfg(test)]
mod tests {
    use cluster::ClusterId;
    use cluster::map::{Addresses, Command, NewNode, Outcome};
    use cluster::pool::Pool;

    use super::*;

    fn ids(nodes: &[u32]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn new_node(place: u64, zone: &str, role: Role) -> NewNode {
        let at = |port: u64| format!("node{place}:{port}");
        let addresses = Addresses { peer: at(1), client: at(2), admin: at(3) };
        NewNode { addresses, zone: zone.into(), weight: 100, role, version: "1".into() }
    }

    /// Nodes from 1 on, each in the zone named.
    fn map_of(zones: &[&str]) -> ClusterMap {
        let mut map = ClusterMap::default();
        let (cluster, pool) = (ClusterId(1), Pool::sessions());
        let node = new_node(0, zones[0], Role::Data);
        map.apply(&Command::Found { cluster, pool, shard_count: 64, node });
        zones[1..].iter().for_each(|zone| add(&mut map, zone, Role::Data));
        map
    }

    fn add(map: &mut ClusterMap, zone: &str, role: Role) {
        let request = map.revision;
        let node = new_node(request, zone, role);
        let add = Command::AddNode { request, token_hash: None, now_unix_ms: 0, node };
        assert!(matches!(map.apply(&add), Outcome::NodeAdded(_)));
    }

    fn remove(map: &mut ClusterMap, node: u32) {
        let remove = Command::Remove { node: NodeId(node), force: true };
        assert_eq!(map.apply(&remove), Outcome::Done);
    }

    fn step(map: &ClusterMap, voters: &[u32], learners: &[u32], alive: &[u32]) -> Option<Change> {
        next_change(map, &ids(voters), &ids(learners), &ids(alive), 3)
    }

    #[test]
    fn newcomer_learns_first() {
        let map = map_of(&["a", "b"]);
        assert_eq!(step(&map, &[1], &[], &[1, 2]), Some(Change::Learn(NodeId(2))));
        assert_eq!(step(&map, &[1], &[], &[1]), None, "it is not there yet");
    }

    #[test]
    fn second_node_has_no_vote_and_the_third_makes_it_three() {
        let map = map_of(&["a", "b", "c"]);
        assert_eq!(step(&map, &[1], &[2], &[1, 2]), None);
        let all = Some(Change::Vote(ids(&[1, 2, 3])));
        assert_eq!(step(&map, &[1], &[2, 3], &[1, 2, 3]), all);
        assert_eq!(step(&map, &[1, 2, 3], &[], &[1, 2, 3]), None);
    }

    #[test]
    fn more_vote_only_when_asked_for() {
        let map = map_of(&["a"; 5]);
        assert_eq!(step(&map, &[1, 2, 3], &[4, 5], &[1, 2, 3, 4, 5]), None);
        let all = ids(&[1, 2, 3, 4, 5]);
        let five = next_change(&map, &ids(&[1, 2, 3]), &ids(&[4, 5]), &all, 5);
        assert_eq!(five, Some(Change::Vote(all)));
    }

    #[test]
    fn witness_gets_a_seat_before_data_and_a_new_zone_before_an_old_one() {
        let mut map = map_of(&["a", "a", "a", "b"]);
        let voters = Some(Change::Vote(ids(&[1, 2, 4])));
        assert_eq!(step(&map, &[1], &[2, 3, 4], &[1, 2, 3, 4]), voters);
        add(&mut map, "a", Role::Witness);
        let voters = Some(Change::Vote(ids(&[1, 4, 5])));
        assert_eq!(step(&map, &[1], &[2, 3, 4, 5], &[1, 2, 3, 4, 5]), voters);
    }

    #[test]
    fn removed_voter_is_replaced_then_forgotten() {
        let mut map = map_of(&["a", "b", "c", "d"]);
        remove(&mut map, 2);
        let replaced = Some(Change::Vote(ids(&[1, 3, 4])));
        assert_eq!(step(&map, &[1, 2, 3], &[4], &[1, 3, 4]), replaced);
        let forgotten = Some(Change::Forget(NodeId(2)));
        assert_eq!(step(&map, &[1, 3, 4], &[2], &[1, 3, 4]), forgotten);
        assert_eq!(step(&map, &[1, 3, 4], &[], &[1, 3, 4]), None);
    }

    #[test]
    fn removed_voter_without_a_successor_leaves_one_that_is_alive() {
        let mut map = map_of(&["a", "b", "c"]);
        remove(&mut map, 2);
        assert_eq!(step(&map, &[1, 2, 3], &[], &[3]), Some(Change::Vote(ids(&[3]))));
    }

    #[test]
    fn dead_voter_keeps_its_vote() {
        let map = map_of(&["a", "b", "c", "d"]);
        assert_eq!(step(&map, &[1, 2, 3], &[4], &[1, 3, 4]), None);
    }

    #[test]
    fn draining_node_votes_until_another_takes_over() {
        let mut map = map_of(&["a", "b", "c", "d"]);
        assert_eq!(map.apply(&Command::Drain { node: NodeId(1) }), Outcome::Done);
        assert_eq!(step(&map, &[1, 2, 3], &[], &[1, 2, 3]), None);
        let taken = Some(Change::Vote(ids(&[2, 3, 4])));
        assert_eq!(step(&map, &[1, 2, 3], &[4], &[1, 2, 3, 4]), taken);
    }
}
