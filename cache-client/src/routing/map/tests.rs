//! Facts of the map: what it says, what is wrong with one, and when it is old.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const NODES: &str = "node 1 up 100 cache-1.example:11211 a\n\
                     node 2 up 100 10.0.0.2:7000 b\n\
                     node 3 draining 50 [::1]:7000\n";

fn framed(body: &str) -> Vec<u8> {
    format!("CONFIG shards 0 {}\r\n{body}\r\nEND\r\n", body.len()).into_bytes()
}

/// All 64 shards with the copies that `copies` says.
fn answer_with(revision: u64, reads: &str, nodes: &str, copies: &str) -> Vec<u8> {
    let mut body = format!("{revision}\ncluster 00000000deadbeef shards 64 reads {reads}\n{nodes}");
    (0..64).for_each(|shard| writeln!(body, "shard {shard} 7 {copies}").unwrap());
    framed(&body)
}

fn map_with(reads: &str, nodes: &str, copies: &str) -> Map {
    Map::parse(&answer_with(12, reads, nodes, copies)).unwrap()
}

fn readers(map: &Map, from: ReadFrom, own_zone: &str) -> Vec<u32> {
    map.readers(b"k", from, own_zone).map(|id| id.0).collect()
}

fn error_of(body: &str) -> MapError {
    Map::parse(&framed(body)).unwrap_err()
}

#[test]
fn a_map_says_who_holds_what() {
    let map = map_with("any", NODES, "2 1 3");
    assert_eq!((map.revision, map.cluster, map.shard_count()), (12, ClusterId(0xdead_beef), 64));
    assert_eq!(map.primary_of(b"k"), Some(NodeId(2)));
    let shard = map.shard(map.shard_of(b"k")).unwrap();
    assert_eq!((shard.epoch, &*shard.backups), (Epoch(7), &[NodeId(1), NodeId(3)][..]));
    let node = &map.nodes[&NodeId(3)];
    assert_eq!((&*node.address, &*node.zone, node.weight), ("[::1]:7000", "", 50));
    assert_eq!(node.state, NodeState::Draining);
}

#[test]
fn keys_go_to_shards_as_in_the_cluster() {
    let map = map_with("any", NODES, "2 1");
    assert_eq!(map.shard_of(b"session:1"), shard_of_key(b"session:1", 64));
}

#[test]
fn a_shard_may_have_nobody_for_a_while() {
    let map = map_with("lease", NODES, "0");
    assert_eq!(map.primary_of(b"k"), None);
    assert_eq!(readers(&map, ReadFrom::Any, ""), [0u32; 0]);
}

#[test]
fn reads_of_any_copy_go_to_all_of_them() {
    let map = map_with("any", NODES, "2 1 3");
    assert_eq!(readers(&map, ReadFrom::Any, "a"), [2, 1, 3]);
}

#[test]
fn reads_of_the_nearest_copy_prefer_the_own_zone_and_spill_over() {
    let map = map_with("any", NODES, "2 1 3");
    assert_eq!(readers(&map, ReadFrom::Nearest, "a"), [1, 2, 3]);
    assert_eq!(readers(&map, ReadFrom::Nearest, "elsewhere"), [2, 1, 3]);
}

#[test]
fn reads_of_the_primary_reach_no_backup_that_would_answer_by_itself() {
    let map = map_with("any", NODES, "2 1 3");
    assert_eq!(readers(&map, ReadFrom::Primary, "a"), [2]);
}

#[test]
fn where_backups_ask_the_primary_it_is_preferred_and_they_stand_in() {
    for (reads, from) in [("lease", ReadFrom::Nearest), ("confirm", ReadFrom::Primary)] {
        let map = map_with(reads, NODES, "2 1 3");
        assert_eq!(readers(&map, from, "a"), [2, 1, 3]);
    }
}

#[test]
fn nodes_that_are_down_are_not_read_from() {
    let nodes = NODES.replace("2 up", "2 down");
    assert_eq!(readers(&map_with("lease", &nodes, "2 1"), ReadFrom::Primary, ""), [1]);
}

#[test]
fn a_cas_of_a_later_epoch_tells_that_the_map_is_old() {
    let map = map_with("any", NODES, "2 1");
    let cas = |epoch| Version::new(Epoch(epoch), cluster::Sequence(3)).cas();
    assert!(!map.is_outdated_by(b"k", cas(6)));
    assert!(!map.is_outdated_by(b"k", cas(7)));
    assert!(map.is_outdated_by(b"k", cas(8)));
}

#[test]
fn only_a_later_map_of_the_same_cluster_is_taken_over() {
    let mut map = map_with("any", NODES, "2 1");
    let later = Map::parse(&answer_with(13, "any", NODES, "1 2")).unwrap();
    assert_eq!(map.update(later.clone()), Ok(true));
    assert_eq!(map, later);
    assert_eq!(map.update(map_with("any", NODES, "2 1")), Ok(false));
    assert_eq!(map, later);
    let stranger = Map { cluster: ClusterId(1), revision: 99, ..later.clone() };
    let refusal = map.update(stranger).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "this is a map of cluster 0000000000000001, not of 00000000deadbeef"
    );
    assert_eq!(map, later);
}

#[test]
fn the_revision_stands_in_the_short_answer_too() {
    let short = b"CONFIG cluster 0 23\r\n12\n10.0.0.5|10.0.0.5|7\n\r\nEND\r\n";
    assert_eq!(Map::revision_in(short), Ok(12));
}

#[test]
fn what_is_wrong_with_a_map_is_said() {
    assert_eq!(Map::parse(b"ERROR\r\n"), Err(MapError::NoCluster));
    for (body, message) in [
        ("x\n", "line 1 of the map is no revision: `x`"),
        ("1\ncluster 1 shards 64\n", "line 2 of the map is no cluster: `cluster 1 shards 64`"),
        (
            "1\ncluster 1 shards 65 reads any\n",
            "65 shards are none of the powers of two from 64 to 16384",
        ),
        (
            "1\ncluster 1 shards 64 reads any\nnode 0 up 1 a:1\n",
            "line 3 of the map is no node: `node 0 up 1 a:1`",
        ),
        (
            "1\ncluster 1 shards 64 reads any\nnode 1 up 1 a:1\nshard 0 1 2\n",
            "shard 0 is with node 2, which the map does not list",
        ),
        (
            "1\ncluster 1 shards 64 reads any\nnode 1 up 1 a:1\nshard 1 1 1\n",
            "line 4 of the map is no next shard: `shard 1 1 1`",
        ),
        (
            "1\ncluster 1 shards 64 reads any\nnode 1 up 1 a:1\nshard 0 1 x\n",
            "line 4 of the map is no next shard: `shard 0 1 x`",
        ),
        (
            "1\ncluster 1 shards 64 reads any\nnode 1 up 1 a:1\nshard 0 1 1\n",
            "the map names 1 shards of 64",
        ),
    ] {
        assert_eq!(error_of(body).to_string(), message);
    }
}

#[test]
fn a_map_that_stops_short_or_goes_on_is_refused() {
    let whole = answer_with(12, "any", NODES, "2 1");
    for end in [0, 10, 25, whole.len() / 2, whole.len() - 1] {
        assert_eq!(Map::parse(&whole[..end]), Err(MapError::Cut { found: end }));
    }
    let body = String::from_utf8(whole).unwrap();
    let (_, body) = body.split_once("\r\n").unwrap();
    let body = body.strip_suffix("\r\nEND\r\n").unwrap();
    assert!(matches!(error_of(&format!("{body}shard 64 1 1\n")), MapError::Line { .. }));
}

proptest! {
    #[test]
    fn no_answer_is_too_strange(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Map::parse(&answer);
        let _ = Map::revision_in(&answer);
    }

    #[test]
    fn no_damage_is_too_strange(at in 0usize..1500, byte in any::<u8>()) {
        let mut answer = answer_with(12, "any", NODES, "2 1 3");
        let at = at % answer.len();
        answer[at] = byte;
        if let Ok(map) = Map::parse(&answer) {
            prop_assert_eq!(map.shard_count(), 64);
        }
    }
}
