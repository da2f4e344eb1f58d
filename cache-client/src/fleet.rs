//! `Fleet`: which servers there are, and which of them is asked.
//!
//! ```text
//! static     key ──Router──> the server that every client of the fleet would take
//! equals     any of them, balanced
//! cluster    key ──Map──> the primary of its shard, or a copy; any other node when that fails, which passes it on
//! ```
//!
//! A fleet never changes: a new map makes a new one, which keeps the nodes that both have. A call that began with
//! the old one ends with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::NodeId;
use cluster::pool::Reads;
use tokio::time::Instant;

use self::equals::{Equals, UnderWay};
use crate::address::Address;
use crate::balance::Endpoint;
use crate::config::{BalanceConfig, ReadFrom};
use crate::connection::random_number;
use crate::pool::Node;
use crate::routing::{self, Map, Router, Server};

mod equals;

/// The servers there are, and how keys are given to them.
#[derive(Debug)]
pub(crate) struct Fleet {
    nodes: Vec<Arc<Node>>,
    route: Route,
    /// Where a key may go to more than one.
    equals: Option<Arc<Equals>>,
}

#[derive(Debug)]
enum Route {
    Static(Router),
    /// Any node takes any key.
    Any,
    Cluster {
        map: Map,
        places: BTreeMap<NodeId, usize>,
        reads: ReadFrom,
    },
}

/// What a call wants of the server that it is sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) is_read: bool,
    /// The server that has just failed it, or that it waits for already.
    pub(crate) not: Option<&'a Address>,
    /// Any number: where nothing is known of nodes it decides whose turn it is.
    pub(crate) draw: usize,
    pub(crate) now: Instant,
}

impl Fleet {
    /// Servers that know nothing of each other.
    pub(crate) fn of_servers(router: Router, open: impl Fn(Address) -> Node) -> Self {
        let addresses = router.servers().iter().map(Address::from);
        let nodes = addresses.map(|address| Arc::new(open(address))).collect();
        Self { nodes, route: Route::Static(router), equals: None }
    }

    /// Servers of which any takes any key: equals, or some nodes of a cluster.
    pub(crate) fn of_equals(
        servers: &[Server],
        balance: &BalanceConfig,
        open: impl Fn(Address) -> Node,
    ) -> Self {
        let nodes = servers.iter().map(|server| Arc::new(open(server.into()))).collect();
        let endpoint = |server: &Server| Endpoint { weight: server.weight, zone: String::new() };
        let endpoints: Vec<_> = servers.iter().map(endpoint).collect();
        let equals = Equals::new(balance, "", &endpoints, random_number());
        Self { nodes, route: Route::Any, equals: Some(Arc::new(equals)) }
    }

    /// The nodes of `map`. Those that were known keep their connections.
    pub(crate) fn of_map(
        map: Map,
        known: &Self,
        reads: &ReadFrom,
        balance: &BalanceConfig,
        now: Instant,
        open: impl Fn(Address) -> Node,
    ) -> Self {
        let (mut nodes, mut places) = (Vec::new(), BTreeMap::new());
        let (mut endpoints, mut places_before) = (Vec::new(), Vec::new());
        for (&id, node) in &map.nodes {
            // What was read as host and port is one.
            let Ok(address) = node.address.parse::<Server>().map(|server| Address::from(&server))
            else {
                continue;
            };
            let before = known.nodes.iter().position(|known| *known.address() == address);
            let same = before.map(|place| Arc::clone(&known.nodes[place]));
            places.insert(id, nodes.len());
            nodes.push(same.unwrap_or_else(|| Arc::new(open(address))));
            places_before.push(before);
            let is_near_better = reads.copy == routing::ReadFrom::Nearest;
            let zone = if is_near_better { node.zone.clone() } else { String::new() };
            endpoints.push(Endpoint { weight: node.weight.into(), zone });
        }
        let any_copy = map.reads == Reads::Any && reads.copy != routing::ReadFrom::Primary;
        let equals = any_copy.then(|| {
            let own_zone = if reads.copy == routing::ReadFrom::Nearest { &*reads.zone } else { "" };
            let equals = Equals::new(balance, own_zone, &endpoints, random_number());
            // Of seeds there may be fewer than there are nodes, and nobody is new.
            let before = known.equals.as_deref().filter(|_| known.map().is_some());
            Arc::new(match before {
                Some(before) => {
                    equals.succeeding(before, places_before.into_iter(), now.into_std())
                }
                None => equals,
            })
        });
        Self { nodes, route: Route::Cluster { map, places, reads: reads.clone() }, equals }
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The map, once there is one.
    pub(crate) fn map(&self) -> Option<&Map> {
        match &self.route {
            Route::Cluster { map, .. } => Some(map),
            Route::Static(_) | Route::Any => None,
        }
    }

    /// Whether one server has all keys, or any of them takes any.
    pub(crate) fn is_undivided(&self) -> bool {
        self.nodes.len() == 1 || matches!(self.route, Route::Any)
    }

    /// Whether there may be another that could answer a read as well.
    pub(crate) fn has_equals(&self) -> bool {
        self.equals.is_some() && self.nodes.len() > 1
    }

    /// The server to ask; the index of it.
    pub(crate) fn choose(&self, wish: Wish<'_>) -> Option<usize> {
        match &self.route {
            // Hashing the key would change nothing.
            _ if self.nodes.len() == 1 => Some(0),
            Route::Static(router) => router.server_of(wish.key),
            Route::Any => self.any(wish),
            Route::Cluster { map, places, reads } => {
                let place = |id: NodeId| places.get(&id).copied();
                let chosen = if wish.is_read {
                    let readers = map.readers(wish.key, reads.copy, &reads.zone);
                    self.reader(readers.filter_map(place), wish)
                } else {
                    let primary = map.primary_of(wish.key).and_then(place);
                    primary.filter(|&index| self.may_take(index, wish))
                };
                chosen.or_else(|| self.any(wish))
            }
        }
    }

    /// A request leaves for a server.
    pub(crate) fn begin(&self, index: usize, now: Instant) -> Option<UnderWay> {
        self.equals.as_ref().map(|equals| equals.begin(index, now.into_std()))
    }

    /// One of `readers`, who are named in the order of preference.
    fn reader(&self, mut readers: impl Iterator<Item = usize>, wish: Wish<'_>) -> Option<usize> {
        if self.equals.is_none() {
            return readers.find(|&index| self.may_take(index, wish));
        }
        let readers: Vec<_> = readers.collect();
        self.balanced(wish, |index| readers.contains(&index))
    }

    /// The servers that may answer a get of this key from what they have: whom [`choose`](Self::choose) may take, or
    /// whom that one passes it on to. None where that is not known: equals may have others behind them.
    pub(crate) fn holders(&self, key: &[u8]) -> Vec<usize> {
        match &self.route {
            Route::Static(router) => router.server_of(key).into_iter().collect(),
            Route::Any => Vec::new(),
            Route::Cluster { map, places, .. } => {
                let led = map.shard(map.shard_of(key)).filter(|shard| shard.primary.is_some());
                let copies = led.into_iter().flat_map(|shard| shard.copies());
                copies.map(|id| places.get(&id).copied()).collect::<Option<_>>().unwrap_or_default()
            }
        }
    }

    /// Any of the nodes, one that is connected if possible.
    fn any(&self, wish: Wish<'_>) -> Option<usize> {
        let count = self.nodes.len();
        let mut turns = (0..count).map(|turn| (wish.draw.wrapping_add(turn)) % count);
        let balanced = self.balanced(wish, |_| true);
        balanced
            .or_else(|| turns.clone().find(|&index| self.may_take(index, wish)))
            .or_else(|| turns.next())
    }

    fn balanced(&self, wish: Wish<'_>, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let equals = self.equals.as_ref()?;
        let is_other = |index: usize| Some(self.nodes[index].address()) != wish.not;
        let is_promising = |index: usize| self.nodes[index].is_promising(wish.now);
        equals.pick(wish.now.into_std(), |index| wanted(index) && is_other(index), is_promising)
    }

    fn may_take(&self, index: usize, wish: Wish<'_>) -> bool {
        let node = &self.nodes[index];
        Some(node.address()) != wish.not && node.is_promising(wish.now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::balance::Balance;
    use crate::config::Config;

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
    fn fleet(reads: &ReadFrom) -> Fleet {
        fleet_balanced(reads, &BalanceConfig::default())
    }

    fn fleet_balanced(reads: &ReadFrom, balance: &BalanceConfig) -> Fleet {
        let config = Arc::new(Config::new([]));
        let open = |address| Node::open(address, &config);
        let seeds = Fleet::of_equals(&["127.0.0.1:3".parse().unwrap()], balance, open);
        Fleet::of_map(map(), &seeds, reads, balance, Instant::now(), open)
    }

    fn reading(copy: routing::ReadFrom) -> ReadFrom {
        ReadFrom { copy, zone: "zone-1".into() }
    }

    fn wish<'a>(is_read: bool, not: Option<&'a Address>, draw: usize) -> Wish<'a> {
        Wish { key: b"k", is_read, not, draw, now: Instant::now() }
    }

    fn ports(copy: routing::ReadFrom, is_read: bool, not: Option<&str>) -> String {
        let fleet = fleet(&reading(copy));
        let not = not.map(|server| Address::from(&server.parse::<Server>().unwrap()));
        let mut chosen: Vec<_> = (0..40)
            .map(|draw| fleet.choose(wish(is_read, not.as_ref(), draw)).unwrap())
            .map(|index| fleet.nodes()[index].address().to_string())
            .collect();
        chosen.sort();
        chosen.dedup();
        chosen.join(" ").replace("127.0.0.1:", "")
    }

    #[tokio::test]
    async fn a_write_goes_to_the_primary() {
        assert_eq!(ports(routing::ReadFrom::Any, false, None), "2");
    }

    #[tokio::test]
    async fn a_read_goes_to_the_copies_that_are_wanted() {
        assert_eq!(ports(routing::ReadFrom::Primary, true, None), "2");
        assert_eq!(ports(routing::ReadFrom::Any, true, None), "1 2");
        assert_eq!(ports(routing::ReadFrom::Nearest, true, None), "1");
    }

    #[tokio::test]
    async fn when_the_primary_fails_any_other_node_is_asked() {
        for copy in [routing::ReadFrom::Primary, routing::ReadFrom::Any] {
            assert_eq!(ports(copy, false, Some("127.0.0.1:2")), "1 3");
        }
    }

    #[tokio::test]
    async fn a_read_that_waits_for_one_copy_goes_to_the_other() {
        assert_eq!(ports(routing::ReadFrom::Any, true, Some("127.0.0.1:2")), "1");
    }

    #[tokio::test]
    async fn a_node_that_was_known_keeps_its_connections_and_what_is_known_of_it() {
        let balance = BalanceConfig { strategy: Balance::Latency, ..BalanceConfig::default() };
        let before = fleet_balanced(&reading(routing::ReadFrom::Any), &balance);
        let slow = 1;
        let began = Instant::now();
        let later = began + Duration::from_secs(1);
        before.begin(slow, began).unwrap().ended(later.into_std(), true);
        let config = Arc::new(Config::new([]));
        let open = |address| Node::open(address, &config);
        let reads = reading(routing::ReadFrom::Any);
        let after = Fleet::of_map(map(), &before, &reads, &balance, later, open);
        assert!(Arc::ptr_eq(&after.nodes()[2], &before.nodes()[2]));
        let chosen =
            (0..40).map(|draw| after.choose(Wish { now: later, ..wish(true, None, draw) }));
        assert!(chosen.into_iter().all(|index| index == Some(0)));
    }

    #[tokio::test]
    async fn of_equals_the_one_that_fails_is_left_out() {
        let config = Arc::new(Config::new([]));
        let open = |address| Node::open(address, &config);
        let servers =
            ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(|name| name.parse().unwrap());
        let fleet = Fleet::of_equals(&servers, &BalanceConfig::default(), open);
        let now = Instant::now();
        let failures_max = crate::retry::OutlierConfig::default().failures_max;
        let mut is_out = false;
        for _ in 0..failures_max {
            is_out = fleet.begin(1, now).unwrap().ended(now.into_std(), false);
        }
        assert!(is_out);
        let chosen = (0..40).map(|draw| fleet.choose(wish(true, None, draw)).unwrap());
        let chosen: BTreeSet<_> = chosen.collect();
        assert_eq!(chosen, BTreeSet::from([0, 2]));
    }
}
