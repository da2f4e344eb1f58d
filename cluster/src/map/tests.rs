//! What the map refuses and why, and that its invariants hold after any commands.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::pool::Reads;

impl ClusterMap {
    /// What holds after every command; see the head of `map.rs`.
    fn check(&self) {
        assert!(self.placement_revision <= self.revision);
        assert!(self.tokens.len() <= TOKENS_MAX);
        assert_eq!(check_pool(&self.pool), Ok(()));
        if !self.is_founded() {
            assert_eq!(self.nodes.len(), 0);
            return;
        }
        assert!(self.nodes.values().any(Node::takes_share), "the shards have somewhere to go");
        let ids: Vec<u32> = self.nodes.keys().map(|id| id.0).collect();
        assert!((1..).zip(&ids).all(|(expected, &id)| id == expected), "{ids:?} leave none out");
        for (shard, place) in self.places() {
            let ShardPlace { config, targets } = place;
            assert!(config.in_sync.is_sorted_by(|a, b| a.node < b.node), "{shard}: {config:?}");
            assert_eq!(config.primary.is_none(), config.in_sync.is_empty(), "{shard}: {config:?}");
            assert_eq!(config.primary, config.primary_member().map(|member| member.node));
            for member in &config.in_sync {
                let node = &self.nodes[&member.node];
                assert_eq!(node.role, Role::Data);
                assert!(Some(member.incarnation) <= node.incarnation, "nobody is in sync ahead");
            }
            assert!(!targets.is_empty() && targets.len() <= usize::from(COPIES_MAX));
            assert!(targets.iter().all(|target| self.nodes[target].may_hold()), "{targets:?}");
            let distinct: BTreeSet<&NodeId> = targets.iter().collect();
            assert_eq!(distinct.len(), targets.len());
        }
    }
}

fn addresses(port: u32) -> Addresses {
    let at = |base: u32| format!("127.0.0.1:{}", base + port);
    Addresses { peer: at(7000), client: at(8000), admin: at(9000) }
}

fn new_node(port: u32) -> NewNode {
    NewNode {
        addresses: addresses(port),
        zone: String::new(),
        weight: 100,
        role: Role::Data,
        version: "1".into(),
    }
}

fn found(cluster: u64) -> Command {
    let cluster = ClusterId(cluster);
    Command::Found { cluster, pool: Pool::strict(), shard_count: 64, node: new_node(1) }
}

fn add(port: u32) -> Command {
    Command::AddNode {
        request: u64::from(port),
        token_hash: None,
        now_unix_ms: 0,
        node: new_node(port),
    }
}

fn up(node: u32, incarnation: u64) -> Command {
    Command::NodeUp {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        addresses: addresses(node),
        version: "1".into(),
        recovered: BTreeMap::new(),
    }
}

fn member(node: u32, incarnation: u64) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

fn config(epoch: u32, primary: u32, in_sync: &[Member]) -> ShardConfig {
    ShardConfig { epoch: Epoch(epoch), primary: Some(NodeId(primary)), in_sync: in_sync.to_vec() }
}

fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A founded cluster of nodes 1 to `count`, each in its life 10, a strict pool.
fn cluster_of(count: u32) -> ClusterMap {
    let mut map = ClusterMap::default();
    map.apply(&found(1));
    for node in 2..=count {
        assert_eq!(map.apply(&add(node)), Outcome::NodeAdded(NodeId(node)));
    }
    for node in 1..=count {
        assert_eq!(map.apply(&up(node, 10)), Outcome::Done);
    }
    map.check();
    map
}

fn reconfigure(map: &mut ClusterMap, from: u32, to: ShardConfig) -> Result<(), Refusal> {
    let change = Reconfigure { shard: ShardId(0), from: Epoch(from), to };
    match map.apply(&Command::Reconfigure(vec![change])) {
        Outcome::Reconfigured(mut outcomes) => outcomes.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn cluster_is_founded_once() {
    let mut map = ClusterMap::default();
    assert_eq!(refused(map.apply(&add(2))), Refusal::NotFounded);
    assert_eq!(map.apply(&found(1)), Outcome::NodeAdded(NodeId(1)));
    let before = map.clone();
    assert_eq!(refused(map.apply(&found(2))), Refusal::Founded { cluster: ClusterId(1) });
    assert_eq!(map.apply(&found(1)), Outcome::NodeAdded(NodeId(1)), "the same, sent again");
    assert_eq!(map, before);
    assert_eq!(map.wanted(ShardId(63)), [NodeId(1)]);
    assert_eq!(map.primary_of(ShardId(63)), None);
}

#[test]
fn cluster_that_cannot_work_is_not_founded() {
    let Command::Found { cluster, pool, shard_count, node } = found(1) else { unreachable!() };
    let witness = NewNode { role: Role::Witness, ..node.clone() };
    let light = NewNode { weight: 0, ..node.clone() };
    let copies = Pool { copies: 0, ..pool.clone() };
    let demanding = Pool { in_sync_min: 4, ..pool.clone() };
    let bad = [
        Command::Found { cluster, pool: pool.clone(), shard_count: 100, node: node.clone() },
        Command::Found { cluster, pool: pool.clone(), shard_count: 32, node: node.clone() },
        Command::Found { cluster, pool: pool.clone(), shard_count, node: witness },
        Command::Found { cluster, pool, shard_count, node: light },
        Command::Found { cluster, pool: copies, shard_count, node: node.clone() },
        Command::Found { cluster, pool: demanding, shard_count, node },
    ];
    for command in bad {
        let mut map = ClusterMap::default();
        refused(map.apply(&command));
        assert_eq!(map, ClusterMap::default());
    }
}

#[test]
fn token_lets_one_node_in_once() {
    let mut map = cluster_of(1);
    let (token, now_unix_ms) = ([7; 32], 1_000);
    let join = |request, port, now_unix_ms| Command::AddNode {
        request,
        token_hash: Some(token),
        now_unix_ms,
        node: new_node(port),
    };
    assert_eq!(refused(map.apply(&join(5, 2, now_unix_ms))), Refusal::TokenUnknown);
    map.apply(&Command::AddToken { hash: token, expires_unix_ms: 2_000 });
    assert_eq!(
        refused(map.apply(&join(5, 2, 2_500))),
        Refusal::TokenExpired { expired_ms_ago: 500 }
    );
    assert_eq!(map.apply(&join(5, 2, now_unix_ms)), Outcome::NodeAdded(NodeId(2)));
    let before = map.clone();
    assert_eq!(map.apply(&join(5, 2, now_unix_ms)), Outcome::NodeAdded(NodeId(2)), "sent again");
    assert_eq!(refused(map.apply(&join(6, 3, now_unix_ms))), Refusal::TokenUnknown);
    assert_eq!(map, before);
}

#[test]
fn tokens_never_used_do_not_pile_up() {
    let mut map = cluster_of(1);
    for number in 0..=u8::MAX {
        let expires_unix_ms = u64::from(number) + 1_000;
        map.apply(&Command::AddToken { hash: [number; 32], expires_unix_ms });
    }
    let mut hash = [0; 32];
    hash[0] = 1;
    map.apply(&Command::AddToken { hash, expires_unix_ms: 5_000 });
    assert_eq!(map.tokens.len(), TOKENS_MAX);
    assert!(!map.tokens.contains_key(&[0; 32]), "the first to expire went");
}

#[test]
fn removed_id_never_returns() {
    let mut map = cluster_of(3);
    assert_eq!(map.apply(&Command::Remove { node: NodeId(3), force: false }), Outcome::Done);
    let gone = Refusal::NodeRemoved { node: NodeId(3) };
    assert_eq!(refused(map.apply(&up(3, 11))), gone);
    assert_eq!(refused(map.apply(&Command::CancelDrain { node: NodeId(3) })), gone);
    assert_eq!(
        gone.to_string(),
        "node 3 was removed, and its id does not return: it may join anew with a token"
    );
    let Command::AddNode { node, .. } = add(3) else { unreachable!() };
    let anew = Command::AddNode { request: 99, token_hash: None, now_unix_ms: 0, node };
    assert_eq!(map.apply(&anew), Outcome::NodeAdded(NodeId(4)), "a new id at the old address");
}

#[test]
fn join_that_is_sent_again_late_adds_no_other_node() {
    let mut map = cluster_of(3);
    let moved = Command::NodeUp {
        node: NodeId(3),
        incarnation: Incarnation(11),
        addresses: addresses(33),
        version: "1".into(),
        recovered: BTreeMap::new(),
    };
    assert_eq!(map.apply(&moved), Outcome::Done);
    let before = map.clone();
    assert_eq!(map.apply(&add(3)), Outcome::NodeAdded(NodeId(3)), "it has moved");
    assert_eq!(map, before);
    assert_eq!(map.apply(&Command::Remove { node: NodeId(3), force: false }), Outcome::Done);
    let before = map.clone();
    assert_eq!(refused(map.apply(&add(3))), Refusal::NodeRemoved { node: NodeId(3) });
    assert_eq!(map, before);
}

#[test]
fn address_belongs_to_one_node() {
    let mut map = cluster_of(2);
    let Command::AddNode { node, .. } = add(2) else { unreachable!() };
    let command = Command::AddNode { request: 99, token_hash: None, now_unix_ms: 0, node };
    let peer = addresses(2).peer;
    assert_eq!(refused(map.apply(&command)), Refusal::AddressTaken { node: NodeId(2), peer });
}

#[test]
fn life_only_follows_an_earlier_one() {
    let mut map = cluster_of(1);
    let before = map.clone();
    let (present, found) = (Incarnation(10), Incarnation(9));
    assert_eq!(refused(map.apply(&up(1, 9))), Refusal::OldLife { node: NodeId(1), present, found });
    assert_eq!(map.apply(&up(1, 10)), Outcome::Done, "sent again");
    assert_eq!(map, before);
    assert_eq!(refused(map.apply(&up(9, 1))), Refusal::NodeUnknown { node: NodeId(9) });
    assert_eq!(map.apply(&up(1, 11)), Outcome::Done);
    assert_eq!(map.current(NodeId(1)), Some(member(1, 11)));
}

#[test]
fn change_of_a_shard_happens_in_the_epoch_it_starts_from() {
    let mut map = cluster_of(2);
    let alone = config(1, 1, &[member(1, 10)]);
    assert_eq!(reconfigure(&mut map, 0, alone.clone()), Ok(()));
    let revision = map.revision;
    assert_eq!(reconfigure(&mut map, 0, alone), Ok(()), "sent again");
    let both = config(2, 1, &[member(1, 10), member(2, 10)]);
    assert_eq!(
        reconfigure(&mut map, 0, both.clone()),
        Err(Refusal::EpochPassed { shard: ShardId(0), from: Epoch(0), present: Epoch(1) })
    );
    assert_eq!(map.revision, revision);
    assert_eq!(reconfigure(&mut map, 1, both), Ok(()));
    assert_eq!(map.primary_of(ShardId(0)), Some(member(1, 10)));
    assert_eq!(map.shards_led_by(NodeId(1)).collect::<Vec<_>>(), [ShardId(0)]);
    assert_eq!(map.copies_on(NodeId(2)).collect::<Vec<_>>(), [ShardId(0)]);
}

#[test]
fn configuration_that_cannot_be_is_refused() {
    let mut map = cluster_of(3);
    let shard = ShardId(0);
    assert_eq!(reconfigure(&mut map, 0, config(5, 1, &[member(1, 10), member(2, 10)])), Ok(()));
    let before = map.clone();
    let mut refusal = |to| reconfigure(&mut map, 5, to).unwrap_err();
    let (from, to) = (Epoch(5), Epoch(5));
    assert_eq!(
        refusal(config(5, 2, &[member(2, 10)])),
        Refusal::EpochOutOfOrder { shard, from, to }
    );
    assert_eq!(
        refusal(config(6, 3, &[member(1, 10)])),
        Refusal::PrimaryOutside { shard, primary: NodeId(3) }
    );
    assert_eq!(
        refusal(config(6, 1, &[member(2, 10), member(1, 10)])),
        Refusal::MembersOutOfOrder { shard }
    );
    assert_eq!(
        refusal(config(6, 1, &[member(1, 10), member(3, 9)])),
        Refusal::OldLife { node: NodeId(3), present: Incarnation(10), found: Incarnation(9) }
    );
    assert_eq!(
        refusal(config(6, 1, &[member(1, 10), member(4, 10)])),
        Refusal::NodeUnknown { node: NodeId(4) }
    );
    let leaderless = ShardConfig { primary: None, ..config(6, 1, &[member(1, 10)]) };
    assert_eq!(refusal(leaderless), Refusal::PrimaryMissing { shard });
    assert_eq!(map, before);
    let nobody = ShardConfig { epoch: Epoch(6), primary: None, in_sync: vec![] };
    assert_eq!(reconfigure(&mut map, 5, nobody), Ok(()), "said in so many words");
}

#[test]
fn member_of_an_earlier_life_may_stay_and_not_lead() {
    let mut map = cluster_of(2);
    let both = [member(1, 10), member(2, 10)];
    assert_eq!(reconfigure(&mut map, 0, config(1, 1, &both)), Ok(()));
    map.apply(&up(2, 11));
    assert_eq!(reconfigure(&mut map, 1, config(2, 1, &both)), Ok(()));
    assert_eq!(
        reconfigure(&mut map, 2, config(3, 2, &both)),
        Err(Refusal::OldLife { node: NodeId(2), present: Incarnation(11), found: Incarnation(10) })
    );
    assert_eq!(reconfigure(&mut map, 2, config(3, 1, &[both[0], member(2, 11)])), Ok(()));
}

#[test]
fn targets_computed_from_another_map_are_refused() {
    let mut map = cluster_of(2);
    let based_on = map.placement_revision;
    let targets = vec![(ShardId(3), vec![NodeId(2), NodeId(1)])];
    let command = Command::SetTargets { based_on, targets };
    assert_eq!(reconfigure(&mut map, 0, config(1, 1, &[member(1, 10)])), Ok(()));
    assert_eq!(map.apply(&command), Outcome::Done, "who holds a shard now does not matter");
    assert_eq!(map.wanted(ShardId(3)), [NodeId(2), NodeId(1)]);
    assert_eq!(
        refused(map.apply(&command)),
        Refusal::PlacementChanged { based_on, present: map.placement_revision }
    );
}

#[test]
fn targets_are_data_nodes_of_the_cluster() {
    let mut map = cluster_of(3);
    let witness = NewNode { role: Role::Witness, ..new_node(4) };
    map.apply(&Command::AddNode { request: 4, token_hash: None, now_unix_ms: 0, node: witness });
    map.apply(&Command::Remove { node: NodeId(3), force: false });
    let before = map.clone();
    let mut refusal = |shard: u16, nodes: &[u32]| {
        let nodes = nodes.iter().copied().map(NodeId).collect();
        let targets = vec![(ShardId(0), vec![NodeId(2)]), (ShardId(shard), nodes)];
        let based_on = map.placement_revision;
        refused(map.apply(&Command::SetTargets { based_on, targets }))
    };
    let shard = ShardId(1);
    assert_eq!(refusal(1, &[3]), Refusal::NodeRemoved { node: NodeId(3) });
    assert_eq!(refusal(1, &[4]), Refusal::HoldsNothing { node: NodeId(4) });
    assert_eq!(refusal(1, &[5]), Refusal::NodeUnknown { node: NodeId(5) });
    assert_eq!(refusal(1, &[]), Refusal::TargetCount { shard, found: 0 });
    assert_eq!(refusal(1, &[1, 1]), Refusal::TargetTwice { shard, node: NodeId(1) });
    assert_eq!(refusal(0, &[1]), Refusal::ShardTwice { shard: ShardId(0) });
    assert_eq!(refusal(64, &[1]), Refusal::ShardUnknown { shard: ShardId(64), count: 64 });
    assert_eq!(map, before);
}

#[test]
fn node_that_holds_shards_is_not_removed() {
    let mut map = cluster_of(2);
    assert_eq!(reconfigure(&mut map, 0, config(1, 1, &[member(1, 10)])), Ok(()));
    assert_eq!(
        refused(map.apply(&Command::Remove { node: NodeId(1), force: false })),
        Refusal::StillHolds { node: NodeId(1), in_sync: 1, wanted: 64 }
    );
}

#[test]
fn last_node_that_takes_shards_stays() {
    let mut map = cluster_of(2);
    assert_eq!(map.apply(&Command::Drain { node: NodeId(1) }), Outcome::Done);
    let last = Refusal::LastDataNode { node: NodeId(2) };
    assert_eq!(refused(map.apply(&Command::Drain { node: NodeId(2) })), last);
    assert_eq!(refused(map.apply(&Command::Remove { node: NodeId(2), force: true })), last);
    assert_eq!(map.apply(&Command::CancelDrain { node: NodeId(1) }), Outcome::Done);
    assert_eq!(map.apply(&Command::Drain { node: NodeId(2) }), Outcome::Done);
}

#[test]
fn force_leaves_a_membership_to_those_who_can_end_it() {
    let mut map = cluster_of(3);
    let all = config(1, 3, &[member(1, 10), member(2, 10), member(3, 10)]);
    assert_eq!(reconfigure(&mut map, 0, all.clone()), Ok(()));
    assert_eq!(map.apply(&Command::Remove { node: NodeId(3), force: true }), Outcome::Done);
    assert_eq!(map.shards[0].config, all, "two of three can take over");
    let rest = config(2, 1, &[member(1, 10), member(2, 10)]);
    assert_eq!(reconfigure(&mut map, 1, rest), Ok(()), "and do");
}

#[test]
fn force_lets_a_minority_go_on() {
    let mut map = cluster_of(3);
    let all = [member(1, 10), member(2, 10), member(3, 10)];
    assert_eq!(reconfigure(&mut map, 0, config(1, 3, &all)), Ok(()));
    map.apply(&Command::Remove { node: NodeId(3), force: true });
    map.apply(&Command::Remove { node: NodeId(1), force: true });
    map.check();
    assert_eq!(map.shards[0].config, config(2, 2, &[member(2, 10)]));
    assert_eq!(map.wanted(ShardId(0)), [NodeId(2)], "whose only target is gone");
}

#[test]
fn force_gives_up_what_nobody_else_holds() {
    let mut map = cluster_of(2);
    assert_eq!(reconfigure(&mut map, 0, config(1, 1, &[member(1, 10)])), Ok(()));
    map.apply(&Command::Remove { node: NodeId(1), force: true });
    map.check();
    let nobody = ShardConfig { epoch: Epoch(2), primary: None, in_sync: vec![] };
    assert_eq!(map.shards[0].config, nobody);
}

#[test]
fn force_keeps_the_primary_that_is_left_and_has_all_that_was_acknowledged() {
    let mut map = cluster_of(5);
    let all = [1, 2, 3, 4, 5].map(|node| member(node, 10));
    assert_eq!(reconfigure(&mut map, 0, config(1, 4, &all)), Ok(()));
    for node in [1, 2, 3] {
        map.apply(&Command::Remove { node: NodeId(node), force: true });
    }
    map.check();
    assert_eq!(map.shards[0].config, config(2, 4, &[member(4, 10)]));
}

#[test]
fn acknowledgement_is_weakened_and_not_strengthened() {
    let mut map = cluster_of(1);
    let ack = |ack| Command::SetPool(PoolChange { ack: Some(ack), ..PoolChange::default() });
    let (present, wanted) = (Ack::Quorum, Ack::All);
    assert_eq!(refused(map.apply(&ack(Ack::All))), Refusal::AckStronger { present, wanted });
    assert_eq!(map.apply(&ack(Ack::Primary)), Outcome::Done);
    let reads = PoolChange { reads: Some(Reads::Any), ..PoolChange::default() };
    assert_eq!(map.apply(&Command::SetPool(reads)), Outcome::Done);
    assert_eq!((map.pool.ack, map.pool.reads), (Ack::Primary, Reads::Any));
    let impossible = PoolChange { in_sync_min: Some(4), ..PoolChange::default() };
    let refusal = refused(map.apply(&Command::SetPool(impossible)));
    assert_eq!(refusal, Refusal::InSyncMin { found: 4, copies: 3 });
}

/// Numbers from which [`command`] makes one that fits the map more often than not.
type Draw = (u8, u32, u32, u32);

fn command(map: &ClusterMap, (kind, a, b, c): Draw) -> Command {
    let node = NodeId(a % 7 + 1);
    match kind % 16 {
        0 => found(u64::from(a % 2)),
        1 => Command::AddToken { hash: [(b % 3) as u8; 32], expires_unix_ms: u64::from(c % 10) },
        2 | 3 => Command::AddNode {
            request: u64::from(a % 5),
            token_hash: (c % 2 == 0).then_some([(b % 3) as u8; 32]),
            now_unix_ms: u64::from(c % 12),
            node: NewNode {
                role: if b % 5 == 0 { Role::Witness } else { Role::Data },
                weight: (c % 1100) as u16,
                ..new_node(b % 9)
            },
        },
        4..=6 => up(node.0, u64::from(b % 20)),
        7..=11 => {
            let changes = (0..4).map(|offset| {
                let shard = ShardId(((b + offset) % 66) as u16);
                let present = map.place(shard).map(|place| place.config.clone());
                let present = present.unwrap_or_default();
                let in_sync: Vec<Member> = (1..=7)
                    .filter(|node| c >> node & 1 == 1)
                    .filter_map(|node| match (c >> 8).is_multiple_of(3) {
                        true => present.member(NodeId(node)),
                        false => map.current(NodeId(node)),
                    })
                    .collect();
                let leader = in_sync.get(a as usize % in_sync.len().max(1));
                let to = ShardConfig {
                    epoch: Epoch(present.epoch.0 + c % 3),
                    primary: leader.map(|member| member.node),
                    in_sync,
                };
                Reconfigure { shard, from: Epoch(present.epoch.0 + u32::from(b % 7 == 0)), to }
            });
            Command::Reconfigure(changes.collect())
        }
        12 => Command::SetTargets {
            based_on: map.placement_revision + u64::from(c % 5 == 0),
            targets: vec![(ShardId((b % 65) as u16), vec![node, NodeId(c % 8)])],
        },
        13 if b % 2 == 0 => Command::Drain { node },
        13 => Command::CancelDrain { node },
        14 => Command::Remove { node, force: b % 2 == 0 },
        _ if b % 2 == 0 => {
            Command::SetZoneWeight { node, zone: format!("{}", c % 3), weight: (b % 1100) as u16 }
        }
        _ => Command::SetPool(PoolChange {
            copies: Some((b % 9) as u8),
            ack: [None, Some(Ack::Quorum), Some(Ack::All)][c as usize % 3],
            in_sync_min: Some((c % 4) as u8),
            ..PoolChange::default()
        }),
    }
}

proptest! {
    #[test]
    fn invariants_hold_after_any_commands(draws in vec(any::<Draw>(), 0..120)) {
        let mut map = ClusterMap::default();
        let founding = Command::Found {
            cluster: ClusterId(1),
            pool: Pool::strict(),
            shard_count: 64,
            node: new_node(1),
        };
        for index in 0..=draws.len() {
            let command = match index {
                0 => founding.clone(),
                _ => command(&map, draws[index - 1]),
            };
            let before = map.clone();
            let outcome = map.apply(&command);
            map.check();

            let is_changed = before != map;
            prop_assert_eq!(map.revision - before.revision, u64::from(is_changed));
            if let Outcome::Refused(refusal) = &outcome {
                prop_assert!(!is_changed, "{refusal} and yet changed");
                prop_assert!(!refusal.to_string().is_empty());
            }
            for ((shard, was), is) in before.places().zip(&map.shards) {
                prop_assert!(
                    was.config == is.config || was.config.epoch < is.config.epoch,
                    "shard {} changed in its epoch", shard
                );
            }
            for (id, was) in &before.nodes {
                let is = &map.nodes[id];
                prop_assert!(was.incarnation <= is.incarnation);
                prop_assert!(was.standing != Standing::Removed || was == is, "removed for good");
            }
            if before.placement_revision == map.placement_revision && before.is_founded() {
                prop_assert_eq!(before.pool.copies, map.pool.copies);
                for (was, is) in before.shards.iter().zip(&map.shards) {
                    prop_assert_eq!(&was.targets, &is.targets);
                }
                for (was, is) in before.nodes.values().zip(map.nodes.values()) {
                    prop_assert_eq!(was.standing, is.standing);
                    prop_assert_eq!((&was.zone, was.weight), (&is.zone, is.weight));
                }
                prop_assert_eq!(before.nodes.len(), map.nodes.len());
            }
            let mut again = before.clone();
            prop_assert_eq!(again.apply(&command), outcome);
            prop_assert_eq!(&again, &map);
        }
    }
}
