//! `Fleet`: which servers there are, and which of them is asked.
//!
//! ```text
//! static     key ──Router──> the server that every client of the fleet would take
//! cluster    key ──Map──> the primary of its shard, or a copy; any other node when that fails, which passes it on
//! ```
//!
//! A fleet never changes: a new map makes a new one, which keeps the nodes that both have. A call that began with
//! the old one ends with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::NodeId;
use tokio::time::Instant;

use crate::address::Address;
use crate::config::ReadFrom;
use crate::pool::Node;
use crate::routing::{Map, Router, Server};

/// The servers there are, and how keys are given to them.
#[derive(Debug)]
pub(crate) struct Fleet {
    nodes: Vec<Arc<Node>>,
    route: Route,
}

#[derive(Debug)]
enum Route {
    Static(Router),
    /// No map is known yet: any node takes any key.
    Seeds,
    Cluster {
        map: Map,
        places: BTreeMap<NodeId, usize>,
    },
}

/// What a call wants of the server that it is sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) is_read: bool,
    /// The server that has just failed it.
    pub(crate) not: Option<&'a Address>,
    /// Any number: of equals it takes one or the other.
    pub(crate) draw: usize,
    pub(crate) now: Instant,
}

impl Fleet {
    /// Servers that know nothing of each other.
    pub(crate) fn of_servers(router: Router, open: impl Fn(Address) -> Node) -> Self {
        let addresses = router.servers().iter().map(Address::from);
        let nodes = addresses.map(|address| Arc::new(open(address))).collect();
        Self { nodes, route: Route::Static(router) }
    }

    /// Some nodes of a cluster.
    pub(crate) fn of_seeds(seeds: &[Server], open: impl Fn(Address) -> Node) -> Self {
        let nodes = seeds.iter().map(|seed| Arc::new(open(seed.into()))).collect();
        Self { nodes, route: Route::Seeds }
    }

    /// The nodes of `map`. Those that were known keep their connections.
    pub(crate) fn of_map(map: Map, known: &Self, open: impl Fn(Address) -> Node) -> Self {
        let (mut nodes, mut places) = (Vec::new(), BTreeMap::new());
        for (&id, node) in &map.nodes {
            // What was read as host and port is one.
            let Ok(address) = node.address.parse::<Server>().map(|server| Address::from(&server))
            else {
                continue;
            };
            let same = known.nodes.iter().find(|known| *known.address() == address);
            places.insert(id, nodes.len());
            nodes.push(same.map_or_else(|| Arc::new(open(address)), Arc::clone));
        }
        Self { nodes, route: Route::Cluster { map, places } }
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The map, once there is one.
    pub(crate) fn map(&self) -> Option<&Map> {
        match &self.route {
            Route::Cluster { map, .. } => Some(map),
            Route::Static(_) | Route::Seeds => None,
        }
    }

    /// The server to ask; the index of it.
    pub(crate) fn choose(&self, wish: Wish<'_>, reads: &ReadFrom) -> Option<usize> {
        match &self.route {
            // Hashing the key would change nothing.
            _ if self.nodes.len() == 1 => Some(0),
            Route::Static(router) => router.server_of(wish.key),
            Route::Seeds => self.any(wish),
            Route::Cluster { map, places } => {
                let place = |id: NodeId| places.get(&id).copied();
                let best = if wish.is_read {
                    let readers = map.readers(wish.key, reads.copy, &reads.zone);
                    let equal = map.equal_readers(wish.key, reads.copy, &reads.zone).max(1);
                    let mut equals: Vec<_> = readers.take(equal).filter_map(place).collect();
                    equals.retain(|&index| self.may_take(index, wish));
                    self.least_loaded(&equals, wish.draw)
                } else {
                    map.primary_of(wish.key).and_then(place)
                };
                best.filter(|&index| self.may_take(index, wish)).or_else(|| self.any(wish))
            }
        }
    }

    /// Any of the nodes, one that is connected if possible.
    fn any(&self, wish: Wish<'_>) -> Option<usize> {
        let count = self.nodes.len();
        let mut turns = (0..count).map(|turn| (wish.draw.wrapping_add(turn)) % count);
        turns.clone().find(|&index| self.may_take(index, wish)).or_else(|| turns.next())
    }

    fn may_take(&self, index: usize, wish: Wish<'_>) -> bool {
        let node = &self.nodes[index];
        Some(node.address()) != wish.not && node.is_promising(wish.now)
    }

    /// The less loaded of two that are drawn.
    fn least_loaded(&self, equals: &[usize], draw: usize) -> Option<usize> {
        let count = equals.len();
        let first = *equals.get(draw.checked_rem(count)?)?;
        let other = *equals.get((draw / count).wrapping_add(draw).wrapping_add(1) % count)?;
        let load = |index: usize| self.nodes[index].load();
        Some(if load(other) < load(first) { other } else { first })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::Config;
    use crate::routing;

    /// Three nodes; every shard is led by the second and has a copy on the first.
    fn map() -> Map {
        let mut body = "12\ncluster 1 shards 64 reads any\n".to_owned();
        for id in 1..=3 {
            writeln!(body, "node {id} up 100 127.0.0.1:{id} zone-{id}").unwrap();
        }
        (0..64).for_each(|shard| writeln!(body, "shard {shard} 7 2 1").unwrap());
        let answer = format!("CONFIG shards 0 {}\r\n{body}\r\nEND\r\n", body.len());
        Map::parse(answer.as_bytes()).unwrap()
    }

    /// Nodes that nobody has tried to reach yet: that needs a turn of the runtime.
    fn fleet() -> Fleet {
        let config = Arc::new(Config::new([]));
        let open = |address| Node::open(address, &config);
        let seeds = Fleet::of_seeds(&["127.0.0.1:3".parse().unwrap()], open);
        Fleet::of_map(map(), &seeds, open)
    }

    fn ports(fleet: &Fleet, is_read: bool, not: Option<&str>, copy: routing::ReadFrom) -> String {
        let not = not.map(|server| Address::from(&server.parse::<Server>().unwrap()));
        let reads = ReadFrom { copy, zone: "zone-1".into() };
        let mut chosen: Vec<_> = (0..8)
            .map(|draw| {
                let now = Instant::now();
                let wish = Wish { key: b"k", is_read, not: not.as_ref(), draw, now };
                fleet.nodes()[fleet.choose(wish, &reads).unwrap()].address().to_string()
            })
            .collect();
        chosen.sort();
        chosen.dedup();
        chosen.join(" ").replace("127.0.0.1:", "")
    }

    #[tokio::test]
    async fn a_write_goes_to_the_primary() {
        assert_eq!(ports(&fleet(), false, None, routing::ReadFrom::Any), "2");
    }

    #[tokio::test]
    async fn a_read_goes_to_the_copies_that_are_wanted() {
        let fleet = fleet();
        assert_eq!(ports(&fleet, true, None, routing::ReadFrom::Primary), "2");
        assert_eq!(ports(&fleet, true, None, routing::ReadFrom::Any), "1 2");
        assert_eq!(ports(&fleet, true, None, routing::ReadFrom::Nearest), "1");
    }

    #[tokio::test]
    async fn when_the_primary_fails_any_other_node_is_asked() {
        let chosen = ports(&fleet(), false, Some("127.0.0.1:2"), routing::ReadFrom::Primary);
        assert_eq!(chosen, "1 3");
    }

    #[tokio::test]
    async fn a_node_that_was_known_keeps_its_connections() {
        let config = Arc::new(Config::new([]));
        let open = |address| Node::open(address, &config);
        let seeds = Fleet::of_seeds(&["127.0.0.1:3".parse().unwrap()], open);
        let fleet = Fleet::of_map(map(), &seeds, open);
        assert!(Arc::ptr_eq(&fleet.nodes()[2], &seeds.nodes()[0]));
    }
}
