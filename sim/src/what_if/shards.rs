//! Several nodes instead of one cache, of the same room together: what that costs, and how uneven it is.

use super::nodes::{Load, cluster_shard, node_of};
use super::{Cell, Model, Table};
use crate::blueprint::Blueprint;
use crate::replay::{Player, Replay, Request};

pub(super) const ASSUMPTIONS: &[&str] = &[
    "Each node has the same share of the room, and evicts for itself.",
    "A key's node is its cluster shard (the top 10 bits of XXH3-64 of the key) modulo the nodes: as many \
     shards for each as a cluster's balancer gives it. Keys are told as far as the log tells them.",
    "A request is a request, whatever its op; bytes are those of the values read.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "nodes",
    "node_size",
    "hit_ratio",
    "one_cache_hit_ratio",
    "even_share",
    "hottest_requests_share",
    "hottest_bytes_share",
];

/// Several nodes instead of one cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// How many; each number is tried.
    pub nodes: Vec<u32>,
}

impl Shards {
    pub(super) fn model(&self, blueprint: Blueprint) -> ShardsModel {
        let split = |&nodes: &u32| Split {
            nodes: (0..nodes).map(|_| blueprint.one_of(nodes).build()).collect(),
            load: Load::new(nodes),
        };
        let splits = self.nodes.iter().map(split).collect();
        ShardsModel { blueprint, whole: blueprint.build(), splits }
    }
}

/// One cache, and the same room cut into nodes, for each number of them.
pub(super) struct ShardsModel {
    blueprint: Blueprint,
    whole: Replay,
    splits: Vec<Split>,
}

struct Split {
    nodes: Vec<Replay>,
    load: Load,
}

impl Split {
    fn count(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }
}

impl Player for ShardsModel {
    fn request(&mut self, request: &Request) {
        self.whole.request(request);
        let shard = cluster_shard(request.key);
        for split in &mut self.splits {
            let node = node_of(shard, split.count());
            split.nodes[node].request(request);
            split.load.count(node, request);
        }
    }
}

impl Model for ShardsModel {
    fn tell(&self, summary: &mut Table, _course: &mut Table) {
        let whole = self.whole.tally();
        for split in &self.splits {
            let hits = split.nodes.iter().map(|node| node.tally().hits).sum();
            let nodes = split.count();
            summary.push(vec![
                Cell::name(self.blueprint.policy),
                Cell::Count(self.blueprint.size),
                Cell::Count(nodes.into()),
                Cell::Count(self.blueprint.one_of(nodes).size),
                Cell::share(hits, whole.requests),
                Cell::share(whole.hits, whole.requests),
                Cell::share(1, nodes.into()),
                split.load.hottest_requests(),
                split.load.hottest_bytes(),
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::what_if::textbook::{self, Textbook};

    proptest! {
        #[test]
        fn nodes_are_textbook_caches_side_by_side(
            log in textbook::log(400),
            size in 1u64..60,
            nodes in 1u32..9,
        ) {
            let mut model = Shards { nodes: vec![nodes] }.model(textbook::lru(size));
            log.iter().for_each(|request| model.request(request));

            let mut caches: BTreeMap<u64, Textbook> = BTreeMap::new();
            let mut asked: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
            let mut one = Textbook::new(size);
            let (mut reads, mut hits, mut hits_of_one) = (0, 0, 0);
            for request in &log {
                let node = (request.key.0 >> 54) % u64::from(nodes);
                let share = (size / u64::from(nodes)).max(1);
                let cache = caches.entry(node).or_insert_with(|| Textbook::new(share));
                let asked = asked.entry(node).or_default();
                asked[0] += 1;
                if let Some(hit) = cache.ask(request) {
                    reads += 1;
                    hits += u64::from(hit);
                    asked[1] += u64::from(request.size_bytes);
                }
                hits_of_one += u64::from(one.ask(request) == Some(true));
            }
            let hottest = |of: usize| {
                let all = || asked.values().map(|asked| asked[of]);
                Cell::share(all().max().unwrap_or(0), all().sum())
            };
            let row = textbook::summary(&model, COLUMNS).remove(0);
            prop_assert_eq!(&row[4..6], [Cell::share(hits, reads), Cell::share(hits_of_one, reads)]);
            prop_assert_eq!(&row[7..], [hottest(0), hottest(1)]);
        }
    }
}
