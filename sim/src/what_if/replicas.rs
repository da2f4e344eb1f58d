//! Several copies of each item, in the same room together: what they cost in hits, and how they spread load.

use super::nodes::{Load, cluster_shard, node_of};
use super::{Cell, Model, Table};
use crate::blueprint::Blueprint;
use crate::replay::{Player, Replay, Request, Tally};
use crate::sampling::mixed;

pub(super) const ASSUMPTIONS: &[&str] = &[
    "The room of all copies together is the size: a cache with c copies holds what one of size / c does. \
     That it is cut into nodes costs what `what-if shards` says, and is not in these figures.",
    "hit_ratio: copies are kept alike, as in our cluster: the primary's writes and evictions are the \
     backups', and a read is as good on any of them.",
    "hit_ratio_filled_apart: independent servers. A client writes to all, reads one at random, and after a \
     miss fills in that one alone.",
    "Copies lie on consecutive nodes, the first on the key's own (see `what-if shards`). A write goes to all \
     copies, a read to the first or to any, at random.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "nodes",
    "copies",
    "hit_ratio",
    "hit_ratio_filled_apart",
    "hottest_share_reading_first",
    "hottest_share_reading_any",
];

/// Several copies of each item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicas {
    /// How many; each number is tried.
    pub copies: Vec<u32>,
    /// Nodes that they lie on; not fewer than copies.
    pub nodes: u32,
}

impl Replicas {
    pub(super) fn model(&self, blueprint: Blueprint) -> ReplicasModel {
        let nodes = self.nodes;
        let replicated = |&copies: &u32| {
            let copies = copies.clamp(1, nodes);
            Replicated {
                alike: blueprint.one_of(copies).build(),
                apart: (0..copies).map(|_| blueprint.one_of(copies).build()).collect(),
                reading_first: Load::new(nodes),
                reading_any: Load::new(nodes),
            }
        };
        let replicated = self.copies.iter().map(replicated).collect();
        ReplicasModel { blueprint, nodes, replicated, requests: 0 }
    }
}

/// The same room with each number of copies.
pub(super) struct ReplicasModel {
    blueprint: Blueprint,
    nodes: u32,
    replicated: Vec<Replicated>,
    requests: u64,
}

struct Replicated {
    /// All copies, as they are one and the same.
    alike: Replay,
    /// Each copy.
    apart: Vec<Replay>,
    reading_first: Load,
    reading_any: Load,
}

/// Which of `count` copies the `turn`th request reads.
fn copy_of(turn: u64, count: usize) -> usize {
    usize::try_from(mixed(eviction::KeyHash(turn)) % count as u64).unwrap_or_default()
}

impl Player for ReplicasModel {
    fn request(&mut self, request: &Request) {
        let first = node_of(cluster_shard(request.key), self.nodes);
        let turn = self.requests;
        self.requests += 1;
        for Replicated { alike, apart, reading_first, reading_any } in &mut self.replicated {
            let copies = apart.len();
            let node = |copy: usize| (first + copy) % self.nodes as usize;
            alike.request(request);
            if request.op.is_read() {
                let copy = copy_of(turn, copies);
                apart[copy].request(request);
                reading_first.count(first, request);
                reading_any.count(node(copy), request);
            } else {
                for (copy, replay) in apart.iter_mut().enumerate() {
                    replay.request(request);
                    reading_first.count(node(copy), request);
                    reading_any.count(node(copy), request);
                }
            }
        }
    }
}

impl Model for ReplicasModel {
    fn tell(&self, summary: &mut Table, _course: &mut Table) {
        for replicated in &self.replicated {
            let alike = replicated.alike.tally();
            let mut apart = Tally::default();
            replicated.apart.iter().for_each(|copy| apart.add(copy.tally()));
            summary.push(vec![
                Cell::name(self.blueprint.policy),
                Cell::Count(self.blueprint.size),
                Cell::Count(self.nodes.into()),
                Cell::Count(replicated.apart.len() as u64),
                Cell::share(alike.hits, alike.requests),
                Cell::share(apart.hits, apart.requests),
                replicated.reading_first.hottest_requests(),
                replicated.reading_any.hottest_requests(),
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
        fn copies_are_textbook_caches_of_a_share_of_the_room(
            log in textbook::log(400),
            size in 1u64..60,
            copies in 1u32..5,
        ) {
            let question = Replicas { copies: vec![copies], nodes: 5 };
            let mut model = question.model(textbook::lru(size));
            log.iter().for_each(|request| model.request(request));

            let share = (size / u64::from(copies)).max(1);
            let mut alike = Textbook::new(share);
            let mut apart: Vec<Textbook> = (0..copies).map(|_| Textbook::new(share)).collect();
            let (mut reads, mut hits, mut hits_apart) = (0, 0, 0);
            let (mut first, mut spread) = (BTreeMap::new(), BTreeMap::new());
            for (turn, request) in (0..).zip(&log) {
                let home = (request.key.0 >> 54) % 5;
                hits += u64::from(alike.ask(request) == Some(true));
                let copy = copy_of(turn, copies as usize);
                let touched: Vec<usize> =
                    if request.op.is_read() { vec![copy] } else { (0..apart.len()).collect() };
                for copy in touched {
                    *spread.entry((home + copy as u64) % 5).or_insert(0) += 1;
                    let to = if request.op.is_read() { home } else { (home + copy as u64) % 5 };
                    *first.entry(to).or_insert(0) += 1;
                    if let Some(hit) = apart[copy].ask(request) {
                        reads += 1;
                        hits_apart += u64::from(hit);
                    }
                }
            }
            let hottest = |asked: &BTreeMap<u64, u64>| {
                Cell::share(asked.values().copied().max().unwrap_or(0), asked.values().sum())
            };
            let row = textbook::summary(&model, COLUMNS).remove(0);
            prop_assert_eq!(&row[4..6], [Cell::share(hits, reads), Cell::share(hits_apart, reads)]);
            prop_assert_eq!(&row[6..], [hottest(&first), hottest(&spread)]);
        }
    }
}
