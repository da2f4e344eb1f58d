//! What an operator can give up: shards that nobody can lead without, perhaps, losing writes.
//!
//! A shard goes on by itself with so many of its in-sync set that one of them has every committed write
//! (rule 6), lives that ended counting where their memory files came back. Where the rest is gone for good
//! nobody may decide that but an operator: `cache-ctl recover --accept-data-loss`. The shard then goes on
//! with one copy, in this order:
//!
//! 1. of a member that never went away, the preferred primary first;
//! 2. of a member that was started again, the one whose log reaches furthest;
//! 3. none: it begins empty.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use cluster::map::{ClusterMap, Reconfigure, Role, ShardConfig, ShardPlace, Standing};
use cluster::pool::OnTotalLoss;
use cluster::{Member, NodeId, ShardId};

use crate::admin::model::{CopyName, Recovered};

/// What each shard that cannot go on by itself would go on with, `alive` being the nodes that are heard of.
pub(super) fn remedies(
    map: &ClusterMap,
    alive: &BTreeSet<NodeId>,
) -> Vec<(Recovered, Reconfigure)> {
    map.places().filter_map(|(shard, place)| remedy(map, alive, shard, place)).collect()
}

fn remedy(
    map: &ClusterMap,
    alive: &BTreeSet<NodeId>,
    shard: ShardId,
    place: &ShardPlace,
) -> Option<(Recovered, Reconfigure)> {
    let config = &place.config;
    let in_sync = &config.in_sync;
    let holder = |node: NodeId| {
        let known = map.nodes.get(&node)?;
        let may_hold = known.role == Role::Data && known.standing != Standing::Removed;
        map.current(node).filter(|_| may_hold && alive.contains(&node))
    };
    let lives = |member: &Member| holder(member.node) == Some(*member);
    let log_of = |member: &Member| {
        let log = map.nodes[&member.node].recovered.get(&shard)?;
        Some((*log, Reverse(member.node)))
    };
    let living: Vec<Member> = in_sync.iter().copied().filter(lives).collect();
    let back = in_sync.iter().filter(|member| !lives(member));
    let back: Vec<Member> = back.filter_map(|member| holder(member.node)).collect();
    let enough = in_sync.len() + 1 - map.pool.ack.write_quorum(in_sync.len()).min(in_sync.len());
    let known = back.iter().filter(|member| log_of(member).is_some()).count();
    let all_are_back = living.is_empty() && back.len() == in_sync.len();
    // As long as the primary's life may go on, what others' ended lives left does not count beside the living.
    let has_ended = config.primary.is_some_and(|node| back.iter().any(|it| it.node == node));
    let goes_on = config.primary_member().is_none_or(|primary| lives(&primary))
        || living.len() >= enough
        || known >= enough
        || (has_ended && living.len() + known >= enough)
        || (all_are_back && map.pool.on_total_loss == OnTotalLoss::Recover);
    if goes_on {
        return None;
    }
    let wish = |member: &Member| {
        place.targets.iter().position(|&node| node == member.node).unwrap_or(usize::MAX)
    };
    let furthest = || back.iter().filter(|it| log_of(it).is_some()).max_by_key(|it| log_of(it));
    let empty = || {
        let all = place.targets.iter().chain(map.nodes.keys());
        let all: Vec<Member> = all.filter_map(|&node| holder(node)).collect();
        // What was left of an older copy is no empty shard.
        let is_blank = |member: &&Member| log_of(member).is_none();
        all.iter().find(is_blank).or_else(|| all.first()).copied()
    };
    let (copy, leader) = if let Some(&member) = living.iter().min_by_key(|member| wish(member)) {
        (CopyName::InSync, member)
    } else if let Some(&member) = furthest() {
        (CopyName::Restarted, member)
    } else {
        (CopyName::None, empty()?)
    };
    let epoch = config.epoch.next();
    let to = ShardConfig { epoch, primary: Some(leader.node), in_sync: vec![leader] };
    let recovered = Recovered { shard, epoch, node: leader.node, copy };
    Some((recovered, Reconfigure { shard, from: config.epoch, to }))
}

#[cfg(test)]
mod tests {
    use cluster::map::{Addresses, Command, NewNode, Outcome};
    use cluster::pool::Pool;
    use cluster::{ClusterId, Epoch, Incarnation, Sequence, Version};

    use super::*;

    /// Three nodes of a strict pool, in sync for every shard in life 1, node 1 leading.
    fn strict() -> ClusterMap {
        let mut map = ClusterMap::default();
        let new = |id: u32| NewNode {
            addresses: Addresses { peer: format!("h{id}:1"), ..Addresses::default() },
            zone: String::new(),
            weight: 100,
            role: Role::Data,
            version: "1".into(),
        };
        let (cluster, pool) = (ClusterId(1), Pool::strict());
        map.apply(&Command::Found { cluster, pool, shard_count: 64, node: new(1) });
        for id in [2, 3] {
            let (request, node) = (id.into(), new(id));
            map.apply(&Command::AddNode { request, token_hash: None, now_unix_ms: 0, node });
        }
        for id in 1..=3 {
            start(&mut map, id, 1, None);
        }
        let member = |id| Member { node: NodeId(id), incarnation: Incarnation(1) };
        let in_sync = [1, 2, 3].map(member).to_vec();
        let to = ShardConfig { epoch: Epoch(1), primary: Some(NodeId(1)), in_sync };
        let appoint = |(shard, _)| Reconfigure { shard, from: Epoch(0), to: to.clone() };
        let changes = map.places().map(appoint).collect();
        map.apply(&Command::Reconfigure(changes));
        map
    }

    /// Begins life `incarnation` of a node, whose memory file has every shard's log up to `sequence`.
    fn start(map: &mut ClusterMap, id: u32, incarnation: u64, sequence: Option<u64>) {
        let log = |sequence| Version::new(Epoch(1), Sequence(sequence));
        let shards = (0..64).map(ShardId);
        let up = Command::NodeUp {
            node: NodeId(id),
            incarnation: Incarnation(incarnation),
            addresses: map.nodes[&NodeId(id)].addresses.clone(),
            version: "1".into(),
            recovered: sequence
                .map(|sequence| shards.map(|shard| (shard, log(sequence))).collect())
                .unwrap_or_default(),
        };
        assert_eq!(map.apply(&up), Outcome::Done);
    }

    /// What the first shard goes on with; all others go on alike.
    fn first(map: &ClusterMap, alive: &[u32]) -> Option<(NodeId, CopyName)> {
        let alive = alive.iter().copied().map(NodeId).collect();
        let remedies = remedies(map, &alive);
        assert!(remedies.is_empty() || remedies.len() == 64, "{}", remedies.len());
        let mut after = map.clone();
        let changes = remedies.iter().map(|(_, change)| change.clone()).collect();
        if let Outcome::Reconfigured(outcomes) = after.apply(&Command::Reconfigure(changes)) {
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        }
        remedies.first().map(|(recovered, _)| (recovered.node, recovered.copy))
    }

    #[test]
    fn what_goes_on_by_itself_is_left_alone() {
        let mut map = strict();
        assert_eq!(first(&map, &[1, 2, 3]), None);
        assert_eq!(first(&map, &[2, 3]), None, "two of three take over");
        assert_eq!(first(&map, &[1]), None, "a primary that lives leads on");
        start(&mut map, 1, 2, Some(5));
        start(&mut map, 2, 2, Some(4));
        assert_eq!(first(&map, &[1, 2]), None, "two logs of three have every write");
    }

    #[test]
    fn a_member_that_never_went_away_goes_on() {
        let mut map = strict();
        assert_eq!(first(&map, &[3]), Some((NodeId(3), CopyName::InSync)));
        start(&mut map, 1, 2, None);
        assert_eq!(first(&map, &[1, 3]), Some((NodeId(3), CopyName::InSync)));
        start(&mut map, 1, 3, Some(5));
        assert_eq!(
            first(&map, &[1, 3]),
            None,
            "with what the primary's next life found it is enough"
        );
    }

    #[test]
    fn of_those_that_were_started_again_the_longest_log_goes_on() {
        let mut map = strict();
        start(&mut map, 2, 2, Some(5));
        start(&mut map, 1, 2, None);
        assert_eq!(first(&map, &[1, 2]), Some((NodeId(2), CopyName::Restarted)));
    }

    #[test]
    fn without_any_copy_a_shard_begins_empty() {
        let mut map = strict();
        start(&mut map, 1, 2, None);
        assert_eq!(first(&map, &[1]), Some((NodeId(1), CopyName::None)));
        assert_eq!(first(&map, &[]), None, "with nobody there is nothing to go on with");
    }
}
