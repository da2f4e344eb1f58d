//! A node of several that is lost at a moment of the log: without copies, and with copies that take over.

use super::course::Course;
use super::moment::{Moment, Watch};
use super::nodes::{Load, cluster_shard, heir_of, node_of};
use super::{Cell, Census, Model, Table};
use crate::blueprint::Blueprint;
use crate::replay::{Player, Replay, Request, Tally};

pub(super) const ASSUMPTIONS: &[&str] = &[
    "All nodes together have the size. Keys are dealt to nodes as in `what-if shards`; the lost node's go to \
     all others in turn, and stay there: the node does not come back.",
    "copies 1: what the lost node held is gone, and the rest holds all keys in less room.",
    "More copies: each holds what it would in size / copies; those on other nodes take over with all they \
     hold, and no hit is lost. The room that was lost is not missed until new copies are made.",
    "hit_ratio_after is of all nodes from the loss to the end of the log, hit_ratio_unharmed the same had no \
     node been lost. Recovered is within 1% of the reads, in all windows from there on.",
];

pub(super) const COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "nodes",
    "copies",
    "lost_node",
    "lost_at_s",
    "hit_ratio_before",
    "hit_ratio_unharmed",
    "hit_ratio_after",
    "extra_misses",
    "recovered_after_s",
    "extra_misses_until_recovered",
    "lost_share",
    "hottest_share_before",
    "hottest_share_after",
];

pub(super) const COURSE_COLUMNS: &[&str] = &[
    "policy",
    "cache_size",
    "nodes",
    "copies",
    "after_s",
    "reads",
    "hit_ratio_unharmed",
    "hit_ratio",
    "extra_misses",
];

/// A node that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLoss {
    /// Nodes there are, at least two.
    pub nodes: u32,
    /// Copies of each item, where there are several.
    pub copies: u32,
    /// Which node is lost; the one asked most if none.
    pub node: Option<u32>,
    /// When.
    pub at: Moment,
    /// Whether the course is shown instead of the summary.
    pub over_time: bool,
}

impl NodeLoss {
    pub(super) fn model(&self, blueprint: Blueprint, census: &Census) -> NodeLossModel {
        let nodes = self.nodes.max(2);
        let copies = self.copies.clamp(1, nodes);
        let lost = self.node.map_or_else(|| busiest(census, nodes), |node| node as usize);
        let node = |room: Blueprint| (0..nodes).map(move |_| room.one_of(nodes).build());
        NodeLossModel {
            blueprint,
            nodes,
            copies,
            lost: lost.min(nodes as usize - 1),
            watch: self.at.watch(census),
            begins_s: None,
            lost_at_s: None,
            unharmed: node(blueprint).collect(),
            harmed: node(blueprint).map(Some).collect(),
            copied: node(blueprint.one_of(copies)).collect(),
            before: Halves::default(),
            course: Course::new(),
            copied_course: Course::new(),
            load_before: Load::new(nodes),
            load_unharmed: Load::new(nodes),
            load_after: Load::new(nodes),
        }
    }
}

/// The node that has most requests.
fn busiest(census: &Census, nodes: u32) -> usize {
    let mut requests = vec![0; nodes as usize];
    for (shard, count) in census.shard_requests.iter().enumerate() {
        requests[node_of(shard, nodes)] += count;
    }
    (0..requests.len()).rev().max_by_key(|&node| requests[node]).unwrap_or(0)
}

/// Nodes of which none is lost, nodes of which one is, and nodes with copies.
pub(super) struct NodeLossModel {
    blueprint: Blueprint,
    nodes: u32,
    copies: u32,
    lost: usize,
    watch: Watch,
    begins_s: Option<u32>,
    lost_at_s: Option<u32>,
    unharmed: Vec<Replay>,
    /// None where one was lost.
    harmed: Vec<Option<Replay>>,
    /// Of each node what it is the first for; its copies hold the same.
    copied: Vec<Replay>,
    before: Halves,
    course: Course,
    copied_course: Course,
    load_before: Load,
    load_unharmed: Load,
    load_after: Load,
}

/// What was counted up to the loss.
#[derive(Default)]
struct Halves {
    single: Tally,
    copied: Tally,
}

fn together(nodes: &[Replay]) -> Tally {
    let mut together = Tally::default();
    nodes.iter().for_each(|node| together.add(node.tally()));
    together
}

impl Player for NodeLossModel {
    fn request(&mut self, request: &Request) {
        self.begins_s.get_or_insert(request.time_s);
        if self.lost_at_s.is_none() && self.watch.is_past(request) {
            self.lost_at_s = Some(request.time_s);
            self.before =
                Halves { single: together(&self.unharmed), copied: together(&self.copied) };
            self.harmed[self.lost] = None;
        }
        let shard = cluster_shard(request.key);
        let home = node_of(shard, self.nodes);
        let node = match &self.harmed[home] {
            Some(_) => home,
            None => heir_of(shard, self.nodes),
        };
        let unharmed = self.unharmed[home].ask(request);
        let harmed = self.harmed[node].as_mut().and_then(|node| node.ask(request));
        let copied = self.copied[home].ask(request);
        if self.lost_at_s.is_none() {
            self.load_before.count(home, request);
            return;
        }
        self.load_unharmed.count(home, request);
        self.load_after.count(node, request);
        if let (Some(unharmed), Some(harmed), Some(copied)) = (unharmed, harmed, copied) {
            self.course.count(request.time_s, unharmed, harmed);
            self.copied_course.count(request.time_s, copied, copied);
        }
    }
}

impl Model for NodeLossModel {
    fn tell(&self, summary: &mut Table, course: &mut Table) {
        let single = (1, &self.course, self.before.single);
        let copied = (self.copies, &self.copied_course, self.before.copied);
        let both = if self.copies > 1 { vec![single, copied] } else { vec![single] };
        for (copies, windows, before) in both {
            let named = || {
                let Blueprint { policy, size, .. } = self.blueprint;
                let counts = [size, self.nodes.into(), copies.into()].map(Cell::Count);
                [Cell::name(policy)].into_iter().chain(counts)
            };
            let Some(lost_at_s) = self.lost_at_s else {
                let none = std::iter::repeat_n(Cell::None, COLUMNS.len() - 4);
                summary.push(named().chain(none).collect());
                continue;
            };
            let (whole, recovery) = (windows.whole(), windows.recovery());
            let begins_s = self.begins_s.unwrap_or(lost_at_s);
            let figures = [
                Cell::Count(self.lost as u64),
                Cell::Count(lost_at_s.saturating_sub(begins_s).into()),
                Cell::share(before.hits, before.requests),
                Cell::share(whole.hits_before, whole.reads),
                Cell::share(whole.hits_after, whole.reads),
                Cell::Difference(whole.extra_misses()),
                Cell::count(recovery.map(|it| it.at_s.saturating_sub(lost_at_s).into())),
                recovery.map_or(Cell::None, |it| Cell::Difference(it.extra_misses)),
                self.load_unharmed.requests_of(self.lost),
                self.load_before.hottest_requests(),
                self.load_after.hottest_requests(),
            ];
            summary.push(named().chain(figures).collect());
            for window in windows.windows() {
                course.push(named().chain(window.figures(lost_at_s)).collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::what_if::textbook::{self, Textbook};

    /// Hits of textbook nodes in requests before and after a moment.
    fn hits(log: &[Request], split: usize, room: u64, to: impl Fn(usize, u64) -> u64) -> [u64; 2] {
        let mut nodes: BTreeMap<u64, Textbook> = BTreeMap::new();
        let mut hits = [0; 2];
        for (turn, request) in log.iter().enumerate() {
            let node = to(turn, request.key.0 >> 54);
            let node = nodes.entry(node).or_insert_with(|| Textbook::new(room));
            hits[usize::from(turn >= split)] += u64::from(node.ask(request) == Some(true));
        }
        hits
    }

    proptest! {
        #[test]
        fn a_lost_node_is_a_textbook_cache_less(
            log in textbook::log(400),
            size in 1u64..60,
            nodes in 2u32..6,
            at_s in 1u32..300,
        ) {
            let at = Moment::Seconds(at_s);
            let question = NodeLoss { nodes, copies: 2, node: Some(1), at, over_time: false };
            let mut model = question.model(textbook::lru(size), &Census::default());
            log.iter().for_each(|request| model.request(request));

            let split = log.iter().take_while(|it| it.time_s < log[0].time_s + at_s).count();
            let n = u64::from(nodes);
            let home = |_, shard| shard % n;
            let after_loss = |turn, shard| {
                if turn < split || shard % n != 1 {
                    return shard % n;
                }
                // The next of the others in turn: number r of the lost node's shards goes to the node
                // r + 1 places behind it, and round again without it.
                (1 + 1 + (shard / n) % (n - 1)) % n
            };
            let room = |copies: u64| ((size / copies).max(1) / n).max(1);
            let unharmed = hits(&log, split, room(1), home);
            let harmed = hits(&log, split, room(1), after_loss);
            let copied = hits(&log, split, room(2), home);
            let reads = |of: &[Request]| of.iter().filter(|it| it.op.is_read()).count() as u64;
            let [before, after] = [reads(&log[..split]), reads(&log[split..])];
            let [rows, _course] = textbook::told(&model, COLUMNS, COURSE_COLUMNS);
            if split < log.len() {
                prop_assert_eq!(&rows[0][6], &Cell::share(unharmed[0], before));
                prop_assert_eq!(&rows[0][7], &Cell::share(unharmed[1], after));
                prop_assert_eq!(&rows[0][8], &Cell::share(harmed[1], after));
                prop_assert_eq!(&rows[1][8], &Cell::share(copied[1], after));
                prop_assert_eq!(&rows[1][9], &Cell::Difference(0));
            }
        }
    }

    #[test]
    fn the_node_asked_most_is_lost_unless_one_is_named() {
        let mut census = Census::default();
        census.shard_requests[5] = 10;
        census.shard_requests[8] = 4;
        assert_eq!(busiest(&census, 3), 2);
        assert_eq!(busiest(&Census::default(), 3), 0);
    }
}
