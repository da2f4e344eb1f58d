//! What `config get cluster` answers: where clients find the nodes.
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

use std::io::Write as _;
use std::net::IpAddr;

use cluster::map::ClusterMap;

/// Appends the answer that `map` gives.
pub(crate) fn encode(map: &ClusterMap, out: &mut Vec<u8>) {
    let mut list = format!("{}\n", map.revision);
    let serving = map.nodes.values().filter(|node| node.takes_share() && !node.is_down);
    let endpoints = serving.filter_map(|node| endpoint(&node.addresses.client));
    list.push_str(&endpoints.collect::<Vec<_>>().join(" "));
    list.push('\n');
    // Writing to a vector does not fail.
    let _ = write!(out, "CONFIG cluster 0 {}\r\n{list}\r\nEND\r\n", list.len());
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

    use cluster::NodeId;
    use cluster::map::{Addresses, Node, Role, Standing};

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
