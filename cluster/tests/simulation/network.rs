//! The network: delays, lost and doubled letters, and who hears whom.
//!
//! - A *letter* (beacon, answer, raft) travels alone: it may be late, lost, doubled and overtaken.
//! - *Freight* travels on a lane, one connection between each pair of nodes: in its order or not at all. When
//!   a lane breaks, all that is on it is lost in both directions, and a new connection is made as soon as both
//!   ends hear each other.

use std::collections::{BTreeMap, BTreeSet};

use cluster::NodeId;

use crate::random::Random;

pub(crate) const MS: u64 = 1_000_000;

/// How bad the network is, for a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay_min_us: u64,
    pub(crate) delay_max_us: u64,
    pub(crate) lost_permille: u64,
    pub(crate) doubled_permille: u64,
}

impl Weather {
    pub(crate) const FAIR: Self =
        Self { delay_min_us: 100, delay_max_us: 600, lost_permille: 0, doubled_permille: 0 };
    pub(crate) const FOUL: Self =
        Self { delay_min_us: 200, delay_max_us: 60_000, lost_permille: 150, doubled_permille: 100 };
}

/// One connection, by the lesser and the greater of its ends.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    is_up: bool,
    /// Which connection it is: what was sent on an earlier one is lost.
    connection: u64,
    /// When what was sent last will arrive, by direction.
    last_ns: [u64; 2],
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// From and to of what is not heard.
    deaf: BTreeSet<(NodeId, NodeId)>,
    lanes: BTreeMap<(NodeId, NodeId), Lane>,
    connections: u64,
    /// What was lost or cut, for a run in which nothing was is no test.
    pub(crate) harm: u64,
}

fn ends(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            weather: Weather::FAIR,
            deaf: BTreeSet::new(),
            lanes: BTreeMap::new(),
            connections: 0,
            harm: 0,
        }
    }

    /// Nothing that `from` sends arrives at `to`, until healed.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.deaf.insert((from, to));
    }

    /// Everyone hears everyone.
    pub(crate) fn heal(&mut self) {
        self.deaf.clear();
        self.weather = Weather::FAIR;
    }

    pub(crate) fn is_cut(&self) -> bool {
        !self.deaf.is_empty()
    }

    pub(crate) fn hears(&self, to: NodeId, from: NodeId) -> bool {
        !self.deaf.contains(&(from, to))
    }

    pub(crate) fn hear_each_other(&self, a: NodeId, b: NodeId) -> bool {
        self.hears(a, b) && self.hears(b, a)
    }

    pub(crate) fn delay_ns(&self, random: &mut Random) -> u64 {
        random.between(self.weather.delay_min_us, self.weather.delay_max_us) * 1000
    }

    /// When a letter arrives: not at all, once, or twice.
    pub(crate) fn post(
        &mut self,
        now_ns: u64,
        from: NodeId,
        to: NodeId,
        random: &mut Random,
    ) -> Vec<u64> {
        if !self.hears(to, from) || random.permille(self.weather.lost_permille) {
            self.harm += 1;
            return Vec::new();
        }
        let copies = 1 + usize::from(random.permille(self.weather.doubled_permille));
        (0..copies).map(|_| now_ns + self.delay_ns(random)).collect()
    }

    /// When freight arrives, and on which connection it is; `None` when there is none to send it on.
    pub(crate) fn ship(
        &mut self,
        now_ns: u64,
        from: NodeId,
        to: NodeId,
        random: &mut Random,
    ) -> Option<(u64, u64)> {
        let delay_ns = self.delay_ns(random);
        let lane = self.lanes.get_mut(&ends(from, to)).filter(|lane| lane.is_up)?;
        let last_ns = &mut lane.last_ns[usize::from(from > to)];
        *last_ns = (*last_ns + 1).max(now_ns + delay_ns);
        Some((*last_ns, lane.connection))
    }

    /// Whether what was sent on this connection arrives now. What is cut off breaks it.
    pub(crate) fn arrives(&mut self, from: NodeId, to: NodeId, connection: u64) -> bool {
        let is_open = self.hear_each_other(from, to);
        let Some(lane) = self.lanes.get_mut(&ends(from, to)) else { return false };
        if lane.connection != connection || !lane.is_up {
            return false;
        }
        if !is_open {
            lane.is_up = false;
            self.harm += 1;
        }
        is_open
    }

    /// Breaks the lane between two nodes.
    pub(crate) fn break_lane(&mut self, a: NodeId, b: NodeId) {
        if let Some(lane) = self.lanes.get_mut(&ends(a, b)) {
            lane.is_up = false;
        }
    }

    /// Connects two nodes that are not, if they hear each other. Whether it did.
    pub(crate) fn connect(&mut self, a: NodeId, b: NodeId) -> bool {
        if !self.hear_each_other(a, b) {
            return false;
        }
        let lane = self.lanes.entry(ends(a, b)).or_default();
        if lane.is_up {
            return false;
        }
        self.connections += 1;
        *lane = Lane { is_up: true, connection: self.connections, last_ns: [0, 0] };
        true
    }
}
