//! What `config get cluster` and `config get shards` answer: where clients find the nodes, and who holds which shard.
//!
//! ```text
//! CONFIG cluster 0 <bytes>\r\n
//! <revision>\n
//! <host>|<ip>|<port> <host>|<ip>|<port> ...\n
//! \r\n
//! END\r\n
//! ```
//!
//! The form is that of Amazon `ElastiCache` ("Adding auto discovery to your client library", its user guide for
//! memcached), which many clients know. `<bytes>` counts the two lines after it, with their line ends. A client
//! asks from time to time, and takes the list over when the revision has grown.
//!
//! - Listed are the data nodes that take their share, but for those that said that they are about to end. Any
//!   of them takes any key, so a list that is a moment old does no harm.
//! - `<ip>` is empty where the node advertises a name: what it resolves to is for the client to find out.
//!
//! The other is of our own, for clients that send a key to its primary and spare it the hop. The frame and the first
//! line are the same, so that the short answer says whether the long one has changed:
//!
//! ```text
//! CONFIG shards 0 <bytes>\r\n
//! <revision>\n
//! cluster <id, 16 hexadecimal digits> shards <count> reads <confirm|lease|any>\n
//! node <id> <up|draining|down> <weight> <host:port> [<zone>]\n
//! shard <number> <epoch> <primary, or 0> [<backup> ...]\n
//! \r\n
//! END\r\n
//! ```
//!
//! - Nodes are those that hold shards or may, in the order of their ids. One is down that said that it is about to end
//!   and has not come back.
//! - Shards are all of them, in their order. Backups are of the in-sync set. The primary is 0 before the first is
//!   appointed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use cluster::NodeId;
use cluster::map::{ClusterMap, Node, Standing};

/// Appends the answer that `map` gives.
pub(crate) fn encode(map: &ClusterMap, out: &mut Vec<u8>) {
    let mut list = format!("{}\n", map.revision);
    let serving = map.nodes.values().filter(|node| node.takes_share() && !node.is_down);
    let endpoints = serving.filter_map(|node| endpoint(&node.addresses.client));
    list.push_str(&endpoints.collect::<Vec<_>>().join(" "));
    list.push('\n');
    frame("cluster", &list, out);
}

/// Appends the map of shards that `map` is.
pub(crate) fn encode_shards(map: &ClusterMap, out: &mut Vec<u8>) {
    let mut lines = format!(
        "{}\ncluster {} shards {} reads {}\n",
        map.revision,
        map.cluster,
        map.shard_count(),
        map.pool.reads.name(),
    );
    // Writing to a string does not fail, here and below.
    for (id, node) in map.nodes.iter().filter(|(_, node)| node.may_hold()) {
        let state = match node.standing {
            _ if node.is_down => "down",
            Standing::Draining => "draining",
            Standing::Member | Standing::Removed => "up",
        };
        let _ = write!(lines, "node {id} {state} {} {}", node.weight, node.addresses.client);
        if !node.zone.is_empty() {
            let _ = write!(lines, " {}", node.zone);
        }
        lines.push('\n');
    }
    for (shard, place) in map.places() {
        let config = &place.config;
        // One that was removed stays with its shards until others have taken them over.
        let is_listed = |id: &NodeId| map.nodes.get(id).is_some_and(Node::may_hold);
        let primary = config.primary.filter(is_listed);
        let _ =
            write!(lines, "shard {} {} {}", shard.0, config.epoch, primary.map_or(0, |id| id.0));
        let members = config.in_sync.iter().map(|member| member.node);
        for backup in members.filter(|id| Some(*id) != config.primary && is_listed(id)) {
            let _ = write!(lines, " {backup}");
        }
        lines.push('\n');
    }
    frame("shards", &lines, out);
}

fn frame(name: &str, lines: &str, out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = write!(out, "CONFIG {name} 0 {}\r\n{lines}\r\nEND\r\n", lines.len());
}

/// `host:port` as `host|ip|port`. An IPv6 address loses its brackets: `|` is what separates it here.
fn endpoint(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ip = if host.parse::<IpAddr>().is_ok() { host } else { "" };
    Some(format!("{host}|{ip}|{port}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cluster::map::{Addresses, Role, ShardConfig, ShardPlace};
    use cluster::{ClusterId, Epoch, Incarnation, Member};

    use super::*;

    fn node(client: &str) -> Node {
        Node {
            addresses: Addresses { client: client.into(), ..Addresses::default() },
            zone: String::new(),
            weight: 100,
            role: Role::Data,
            standing: Standing::Member,
            incarnation: None,
            is_down: false,
            recovered: BTreeMap::new(),
            version: String::new(),
            request: 0,
        }
    }

    fn answer(nodes: Vec<Node>) -> String {
        let nodes = (1..).map(NodeId).zip(nodes).collect();
        let mut out = Vec::new();
        encode(&ClusterMap { revision: 12, nodes, ..ClusterMap::default() }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_and_addresses_are_listed_as_clients_expect_them() {
        let nodes = vec![node("cache-1.example:11211"), node("10.0.0.2:7"), node("[::1]:8")];
        assert_eq!(
            answer(nodes),
            "CONFIG cluster 0 56\r\n\
             12\ncache-1.example||11211 10.0.0.2|10.0.0.2|7 ::1|::1|8\n\r\nEND\r\n"
        );
    }

    #[test]
    fn shards_are_listed_with_their_nodes() {
        let nodes = vec![
            Node { zone: "a".into(), ..node("cache-1.example:11211") },
            Node { role: Role::Witness, ..node("10.0.0.1:7") },
            Node { standing: Standing::Draining, ..node("10.0.0.2:7") },
            Node { standing: Standing::Removed, ..node("10.0.0.3:7") },
            Node { is_down: true, ..node("[::1]:8") },
        ];
        let member = |node| Member { node: NodeId(node), incarnation: Incarnation(1) };
        let held = ShardConfig {
            epoch: Epoch(9),
            primary: Some(NodeId(3)),
            in_sync: vec![member(1), member(3), member(4), member(5)],
        };
        let lost = ShardConfig {
            epoch: Epoch(7),
            primary: Some(NodeId(4)),
            in_sync: vec![member(4), member(5)],
        };
        let place = |config| ShardPlace { config, targets: Vec::new() };
        let map = ClusterMap {
            cluster: ClusterId(0xdead_beef),
            revision: 12,
            nodes: (1..).map(NodeId).zip(nodes).collect(),
            shards: vec![place(held), place(lost), ShardPlace::default()],
            ..ClusterMap::default()
        };
        let mut out = Vec::new();
        encode_shards(&map, &mut out);
        let lines = "12\ncluster 00000000deadbeef shards 3 reads lease\n\
                     node 1 up 100 cache-1.example:11211 a\n\
                     node 3 draining 100 10.0.0.2:7\n\
                     node 5 down 100 [::1]:8\n\
                     shard 0 9 3 1 5\n\
                     shard 1 7 0 5\n\
                     shard 2 0 0\n";
        let expected = format!("CONFIG shards 0 {}\r\n{lines}\r\nEND\r\n", lines.len());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn nodes_that_do_not_serve_or_will_not_for_long_are_left_out() {
        let nodes = vec![
            Node { role: Role::Witness, ..node("10.0.0.1:7") },
            Node { standing: Standing::Draining, ..node("10.0.0.2:7") },
            Node { standing: Standing::Removed, ..node("10.0.0.3:7") },
            Node { is_down: true, ..node("10.0.0.4:7") },
            node("10.0.0.5:7"),
        ];
        assert_eq!(answer(nodes), "CONFIG cluster 0 23\r\n12\n10.0.0.5|10.0.0.5|7\n\r\nEND\r\n");
        assert_eq!(answer(Vec::new()), "CONFIG cluster 0 4\r\n12\n\n\r\nEND\r\n");
    }
}
