//! How overdue a peer is, by its beacons and its workers' progress.
//!
//! ```text
//!            beacon                          silence ≥ grant, or a worker silent too long
//! watched ───────────> alive ──────────────────────────────────────────────> overdue
//!                        ^─────────── beacon, its workers alive ────────────────┘
//! ```
//!
//! - A beacon comes from the peer's control thread. It says for how long the worker thread that was silent
//!   the longest has been silent, since a node whose control thread runs and whose workers hang serves
//!   nobody.
//! - Silence is counted only while this node listened. A node that was itself stopped or starved, and looks
//!   for beacons again after a pause, would otherwise take every peer for dead.
//! - This decides when to act, never whether acting is safe: that is for grants and seals. A peer wrongly
//!   taken for dead costs a change of primary.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Intervals;
use crate::grant::Beacon;
use crate::{Incarnation, Instant, NodeId};

/// What became of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suspicion {
    /// It should be alive and does not look it.
    PeerOverdue {
        /// Who.
        peer: NodeId,
        /// Why.
        reason: Overdue,
    },
    /// It looks alive again.
    PeerBack {
        /// Who.
        peer: NodeId,
    },
}

/// Why a peer is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Overdue {
    /// Nothing was heard of it for that long.
    Silent(Duration),
    /// It sends beacons, and one of its workers has shown no progress for that long.
    Hung(Duration),
}

/// Watches the peers of one node.
#[derive(Clone, Debug)]
pub struct FailureDetector {
    silent_max: Duration,
    worker_silent_max: Duration,
    absence: Duration,
    /// When [`Self::tick`] was last called.
    listened_at: Option<Instant>,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// The last life heard of.
    incarnation: Option<Incarnation>,
    /// When its last beacon came, later by what this node itself was absent since.
    heard_at: Instant,
    /// What that beacon said.
    worker_silent: Duration,
    is_overdue: bool,
}

impl FailureDetector {
    /// Watches nobody yet.
    pub fn new(intervals: &Intervals) -> Self {
        Self {
            silent_max: intervals.grant,
            worker_silent_max: intervals.worker_silent_max,
            absence: intervals.absence,
            listened_at: None,
            peers: BTreeMap::new(),
        }
    }

    /// Watches exactly these from now on. Those that are new count as heard of now.
    pub fn watch(&mut self, now: Instant, peers: impl IntoIterator<Item = NodeId>) {
        let watched = std::mem::take(&mut self.peers);
        let fresh = Peer {
            incarnation: None,
            heard_at: now,
            worker_silent: Duration::ZERO,
            is_overdue: false,
        };
        let keep = |peer: NodeId| (peer, watched.get(&peer).copied().unwrap_or(fresh));
        self.peers = peers.into_iter().map(keep).collect();
    }

    /// A beacon came. Nothing happens if its sender is not watched, or has begun another life since.
    pub fn on_beacon(&mut self, now: Instant, beacon: &Beacon, suspicions: &mut Vec<Suspicion>) {
        let Some(peer) = self.peers.get_mut(&beacon.from.node) else { return };
        if peer.incarnation > Some(beacon.from.incarnation) {
            return;
        }
        peer.incarnation = Some(beacon.from.incarnation);
        peer.heard_at = peer.heard_at.max(now);
        peer.worker_silent = Duration::from_millis(u64::from(beacon.worker_silent_ms));
        self.look_at(beacon.from.node, now, suspicions);
    }

    /// Time has passed. To be called about as often as beacons are sent, and after the beacons that have
    /// arrived.
    pub fn tick(&mut self, now: Instant, suspicions: &mut Vec<Suspicion>) {
        let gap = self.listened_at.map_or(Duration::ZERO, |listened_at| now.since(listened_at));
        self.listened_at = Some(now);
        if gap > self.absence {
            for peer in self.peers.values_mut().filter(|peer| !peer.is_overdue) {
                peer.heard_at = peer.heard_at.after(gap).min(now);
            }
        }
        let watched: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in watched {
            self.look_at(peer, now, suspicions);
        }
    }

    /// Why `peer` is overdue, or `None` if it is not, or is not watched.
    pub fn overdue(&self, peer: NodeId, now: Instant) -> Option<Overdue> {
        let peer = self.peers.get(&peer)?;
        let silent = now.since(peer.heard_at);
        if silent >= self.silent_max {
            Some(Overdue::Silent(silent))
        } else if peer.worker_silent >= self.worker_silent_max {
            Some(Overdue::Hung(peer.worker_silent))
        } else {
            None
        }
    }

    /// The peers that were reported overdue and not yet back.
    pub fn suspects(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.is_overdue).map(|(&id, _)| id)
    }

    /// When the next peer becomes overdue if nothing is heard until then; `None` if none can.
    pub fn next_overdue_at(&self) -> Option<Instant> {
        let alive = self.peers.values().filter(|peer| !peer.is_overdue);
        alive.map(|peer| peer.heard_at.after(self.silent_max)).min()
    }

    /// Reports what changed of one peer.
    fn look_at(&mut self, id: NodeId, now: Instant, suspicions: &mut Vec<Suspicion>) {
        let overdue = self.overdue(id, now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match (peer.is_overdue, overdue) {
            (false, Some(reason)) => suspicions.push(Suspicion::PeerOverdue { peer: id, reason }),
            (true, None) => suspicions.push(Suspicion::PeerBack { peer: id }),
            _ => {}
        }
        peer.is_overdue = overdue.is_some();
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::Member;

    const PEER: NodeId = NodeId(2);
    const OTHER: NodeId = NodeId(3);

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn beacon(node: NodeId, incarnation: u64, worker_silent_ms: u32) -> Beacon {
        let from = Member { node, incarnation: Incarnation(incarnation) };
        Beacon { from, sent_at: Instant::ZERO, worker_silent_ms, map_revision: 0 }
    }

    /// Watches two peers from time 0.
    fn detector() -> FailureDetector {
        let mut detector = FailureDetector::new(&Intervals::default());
        detector.watch(ms(0), [PEER, OTHER]);
        detector
    }

    /// Ticks each 50 ms from `from` on and before `until`, both in milliseconds.
    fn listen(detector: &mut FailureDetector, from: u64, until: u64) -> Vec<Suspicion> {
        let mut suspicions = Vec::new();
        for now in (from..until).step_by(50) {
            detector.tick(ms(now), &mut suspicions);
        }
        suspicions
    }

    fn hear(detector: &mut FailureDetector, now: u64, beacon: &Beacon) -> Vec<Suspicion> {
        let mut suspicions = Vec::new();
        detector.on_beacon(ms(now), beacon, &mut suspicions);
        suspicions
    }

    fn silent(peer: NodeId, millis: u64) -> Suspicion {
        let reason = Overdue::Silent(Duration::from_millis(millis));
        Suspicion::PeerOverdue { peer, reason }
    }

    #[test]
    fn peer_is_overdue_once_a_grant_has_passed_in_silence_and_back_with_a_beacon() {
        let mut detector = detector();
        assert_eq!(listen(&mut detector, 0, 100), []);
        assert_eq!(hear(&mut detector, 100, &beacon(PEER, 1, 0)), []);
        assert_eq!(detector.next_overdue_at(), Some(ms(300)));
        assert_eq!(listen(&mut detector, 100, 400), [silent(OTHER, 300)]);
        assert_eq!(listen(&mut detector, 400, 600), [silent(PEER, 300)]);
        assert_eq!(detector.suspects().collect::<Vec<_>>(), [PEER, OTHER]);
        assert_eq!(detector.next_overdue_at(), None);
        let back = Suspicion::PeerBack { peer: PEER };
        assert_eq!(hear(&mut detector, 600, &beacon(PEER, 1, 0)), [back]);
        assert_eq!(detector.suspects().collect::<Vec<_>>(), [OTHER]);
    }

    #[test]
    fn peer_whose_workers_hang_is_overdue_however_many_beacons_it_sends() {
        let mut detector = detector();
        assert_eq!(hear(&mut detector, 10, &beacon(PEER, 1, 299)), []);
        let reason = Overdue::Hung(Duration::from_millis(300));
        let hung = Suspicion::PeerOverdue { peer: PEER, reason };
        assert_eq!(hear(&mut detector, 20, &beacon(PEER, 1, 300)), [hung]);
        assert_eq!(hear(&mut detector, 30, &beacon(PEER, 1, 310)), []);
        let back = Suspicion::PeerBack { peer: PEER };
        assert_eq!(hear(&mut detector, 40, &beacon(PEER, 1, 20)), [back]);
    }

    #[test]
    fn beacon_of_an_earlier_life_says_nothing() {
        let mut detector = detector();
        assert_eq!(hear(&mut detector, 10, &beacon(PEER, 5, 0)), []);
        assert_eq!(hear(&mut detector, 100, &beacon(PEER, 4, 1_000)), []);
        assert_eq!(hear(&mut detector, 100, &beacon(OTHER, 1, 0)), []);
        assert_eq!(listen(&mut detector, 100, 310), []);
        assert_eq!(listen(&mut detector, 310, 311), [silent(PEER, 300)], "since 10, not 100");
    }

    #[test]
    fn node_that_was_paused_does_not_take_its_peers_for_dead() {
        let mut detector = detector();
        assert_eq!(listen(&mut detector, 0, 201), []);
        // Stopped for half a minute; 200 ms of silence were listened to before.
        assert_eq!(listen(&mut detector, 30_200, 30_300), []);
        assert_eq!(hear(&mut detector, 30_290, &beacon(PEER, 1, 0)), []);
        assert_eq!(listen(&mut detector, 30_300, 30_350), [silent(OTHER, 300)]);
    }

    #[test]
    fn peer_overdue_before_a_pause_is_overdue_after_it() {
        let mut detector = detector();
        assert_eq!(listen(&mut detector, 0, 301).len(), 2);
        assert_eq!(listen(&mut detector, 30_000, 30_001), []);
        assert_eq!(detector.suspects().count(), 2);
    }

    #[test]
    fn watching_anew_keeps_what_is_known() {
        let mut detector = detector();
        assert_eq!(listen(&mut detector, 0, 301).len(), 2);
        detector.watch(ms(310), [PEER, NodeId(4)]);
        assert_eq!(detector.suspects().collect::<Vec<_>>(), [PEER]);
        assert_eq!(detector.overdue(NodeId(4), ms(609)), None, "heard of at 310, as it were");
        assert_eq!(detector.overdue(OTHER, ms(609)), None, "no longer of interest");
        assert_eq!(hear(&mut detector, 320, &beacon(OTHER, 1, 0)), []);
    }

    proptest! {
        /// Reports come in turn, and a peer that sends as it should is never suspected, whatever pauses
        /// this node makes.
        #[test]
        fn reports_alternate_and_spare_the_living(
            steps in vec((1_u64..400, any::<bool>()), 1..100),
        ) {
            let mut detector = detector();
            let (mut now, mut suspicions) = (0, Vec::new());
            for (pause, is_heard) in steps {
                now += pause;
                // What the living sent meanwhile is there before the clock is looked at.
                detector.on_beacon(ms(now), &beacon(PEER, 1, 0), &mut suspicions);
                if is_heard {
                    detector.on_beacon(ms(now), &beacon(OTHER, 1, 0), &mut suspicions);
                }
                detector.tick(ms(now), &mut suspicions);
                prop_assert_eq!(detector.overdue(PEER, ms(now)), None);
            }
            for (index, suspicion) in suspicions.iter().enumerate() {
                match suspicion {
                    Suspicion::PeerOverdue { peer, .. } => {
                        prop_assert_eq!((*peer, index % 2), (OTHER, 0));
                    }
                    Suspicion::PeerBack { peer } => prop_assert_eq!((*peer, index % 2), (OTHER, 1)),
                }
            }
        }
    }
}
