//! Leases between nodes: what was promised to whom, until when, and what a promise is worth to its holder.
//!
//! A node that backs another up promises it: "I will not seek promotion for 300 ms, nor help another to".
//! The primary serves reads from its own memory as long as a write quorum's promises hold. Each pair of
//! nodes has one grant in each direction, whatever shards the two share.
//!
//! ```text
//! holder   sent_at ───────────────── held ─────────────>|  counts on it no longer
//!             \ Beacon         ^ GrantAnswer
//!              v              /
//! granter      received ──────────────── grant ─────────────────>|  may seal
//! ```
//!
//! **Why a holder never counts on a grant that its granter has stopped keeping.** Let one clock count at
//! least 1000 - e while another counts 1000, for any two nodes (`rate_error_permille`). The granter keeps
//! its promise from when it *received* the beacon until its clock has counted `grant`. The holder counts
//! from when it *sent* that beacon until its own clock has counted `held` = `grant` (1000 - e) / 1000. While
//! the granter's clock counts `grant`, the holder's counts at least `held`; and the holder began no later,
//! since nothing is received before it is sent. So the holder has stopped by when the granter does, whatever
//! the two clocks showed at the start and however long the messages took. An answer names the beacon that it
//! answers, so a late, doubled or overtaken one promises no more than it did. The holder counts on the grant
//! while its clock shows *less* than the end, and the granter is free from the end *on*.
//!
//! **Lives.** An answer counts only for the life of the holder that sent the beacon: a clock may have begun
//! anew since. A granter that starts anew has forgotten its promises; that harms nobody, because in its new
//! life it is in no in-sync set (rule 2), so that its seal counts for nothing, and a quorum of grants counts
//! the members of the set, each in its own life.
//!
//! **Withheld.** From when a node seals a shard against its primary until the map says what became of the
//! shard, that primary is granted nothing. After that it is granted anew, but may not yet know that the
//! shard is another's: each grant names the revision of the map that its holder must have applied before it
//! counts on it. A peer whose workers hang is granted nothing either: it could not serve, and others can.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Intervals;
use crate::shard::Grants;
use crate::{Incarnation, Instant, Member, NodeId, ShardId};

/// What every node sends every other, each 75 ms: a sign of life and a request for a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beacon {
    /// Who sends it.
    pub from: Member,
    /// When, by the sender's clock. To the receiver it is a number that grows and is sent back.
    pub sent_at: Instant,
    /// How long the worker thread that was silent the longest has been silent, in milliseconds.
    pub worker_silent_ms: u32,
    /// The revision of the map that the sender has applied.
    pub map_revision: u64,
}

/// The answer to a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GrantAnswer {
    /// Who answers.
    pub from: Member,
    /// Whose beacon it answers.
    pub to: Member,
    /// The `sent_at` of that beacon.
    pub echo: Instant,
    /// Whether it is granted.
    pub granted: bool,
    /// The revision of the map that `to` must have applied before it counts on this grant.
    pub map_revision_needed: u64,
}

/// What this node has promised.
#[derive(Clone, Debug)]
pub struct Granted {
    me: Member,
    grant: Duration,
    worker_silent_max: Duration,
    peers: BTreeMap<NodeId, Promised>,
}

/// What was promised to one peer.
#[derive(Clone, Debug, Default)]
struct Promised {
    /// The last life of the peer that was heard of.
    incarnation: Option<Incarnation>,
    /// The last beacon of that life.
    beacon: Option<Instant>,
    /// The promise binds until then, to whatever life of the peer.
    until: Instant,
    /// Shards sealed against the peer, of which the map has not yet said what became.
    sealed: BTreeSet<ShardId>,
    /// What the map said of the others is in this revision.
    map_revision_needed: u64,
}

impl Granted {
    /// A node that has promised nothing yet in this life.
    pub fn new(me: Member, intervals: &Intervals) -> Self {
        Self {
            me,
            grant: intervals.grant,
            worker_silent_max: intervals.worker_silent_max,
            peers: BTreeMap::new(),
        }
    }

    /// A beacon was received. Returns the answer, which must be sent or lost, but not kept back until this
    /// node has sealed anything. There is none to a beacon that is not newer than the last, nor to one of an
    /// earlier life.
    pub fn on_beacon(&mut self, now: Instant, beacon: &Beacon) -> Option<GrantAnswer> {
        let promised = self.peers.entry(beacon.from.node).or_default();
        let incarnation = Some(beacon.from.incarnation);
        if promised.incarnation > incarnation {
            return None;
        }
        if promised.incarnation == incarnation && promised.beacon >= Some(beacon.sent_at) {
            return None;
        }
        promised.incarnation = incarnation;
        promised.beacon = Some(beacon.sent_at);
        let worker_silent = Duration::from_millis(u64::from(beacon.worker_silent_ms));
        let granted = promised.sealed.is_empty() && worker_silent < self.worker_silent_max;
        if granted {
            promised.until = promised.until.max(now.after(self.grant));
        }
        Some(GrantAnswer {
            from: self.me,
            to: beacon.from,
            echo: beacon.sent_at,
            granted,
            map_revision_needed: promised.map_revision_needed,
        })
    }

    /// Whether nothing that was promised to `peer`, in whatever life, binds this node any more: only then
    /// may it seal a shard that `peer` leads.
    pub fn ran_out(&self, peer: NodeId, now: Instant) -> bool {
        self.binds_until(peer) <= now
    }

    /// Until when a promise to `peer` binds this node; [`Instant::ZERO`] if there was none.
    pub fn binds_until(&self, peer: NodeId) -> Instant {
        self.peers.get(&peer).map_or(Instant::ZERO, |promised| promised.until)
    }

    /// This node has sealed `shard`, which `peer` leads: it is granted nothing until [`Self::resume`]. To be
    /// called before any other input after the seal.
    pub fn withhold(&mut self, peer: NodeId, shard: ShardId) {
        self.peers.entry(peer).or_default().sealed.insert(shard);
    }

    /// The map, as of `map_revision`, says what became of `shard` after this node sealed it against `peer`.
    /// Nothing happens if it had not.
    pub fn resume(&mut self, peer: NodeId, shard: ShardId, map_revision: u64) {
        if let Some(promised) = self.peers.get_mut(&peer)
            && promised.sealed.remove(&shard)
        {
            promised.map_revision_needed = promised.map_revision_needed.max(map_revision);
        }
    }

    /// The map, as of `map_revision`, has somebody else lead what `peer` led: it may count grants again once it
    /// has applied that. A shard may be sealed and have its new primary between two looks at it.
    pub fn require(&mut self, peer: NodeId, map_revision: u64) {
        let promised = self.peers.entry(peer).or_default();
        promised.map_revision_needed = promised.map_revision_needed.max(map_revision);
    }

    /// The shards sealed against `peer` that the map has said nothing of yet.
    pub fn withheld(&self, peer: NodeId) -> impl Iterator<Item = ShardId> {
        self.peers.get(&peer).into_iter().flat_map(|promised| promised.sealed.iter().copied())
    }
}

/// What others have promised this node.
#[derive(Clone, Debug)]
pub struct Held {
    me: Member,
    held: Duration,
    peers: BTreeMap<NodeId, Holding>,
}

/// What one peer has promised.
#[derive(Clone, Copy, Debug)]
struct Holding {
    /// In which of its lives.
    incarnation: Incarnation,
    /// To be counted on before then.
    until: Instant,
    /// Provided that this revision of the map was applied.
    map_revision_needed: u64,
}

impl Held {
    /// A node to which nothing was promised yet in this life.
    pub fn new(me: Member, intervals: &Intervals) -> Self {
        Self { me, held: intervals.held(), peers: BTreeMap::new() }
    }

    /// An answer was received to a beacon of this node. Whatever was granted before stays: an answer that
    /// refuses takes nothing back.
    pub fn on_answer(&mut self, now: Instant, answer: &GrantAnswer) {
        if answer.to != self.me || answer.echo > now {
            return;
        }
        let nothing = Holding {
            incarnation: answer.from.incarnation,
            until: Instant::ZERO,
            map_revision_needed: 0,
        };
        let holding = self.peers.entry(answer.from.node).or_insert(nothing);
        if holding.incarnation < answer.from.incarnation {
            *holding = nothing;
        }
        if holding.incarnation != answer.from.incarnation {
            return;
        }
        // Of two answers the later end and the greater need: no more than the one that ends later says.
        let needed = holding.map_revision_needed.max(answer.map_revision_needed);
        holding.map_revision_needed = needed;
        if answer.granted {
            holding.until = holding.until.max(answer.echo.after(self.held));
        }
    }

    /// Whether `peer`, in that life, keeps its promise for certain, to a node that has applied the map's
    /// `map_revision`.
    pub fn holds(&self, peer: Member, now: Instant, map_revision: u64) -> bool {
        now < self.until(peer, map_revision)
    }

    /// Until when, exclusively, the promise of `peer` can be counted on by a node that has applied the map's
    /// `map_revision`; [`Instant::ZERO`] if there is none.
    pub fn until(&self, peer: Member, map_revision: u64) -> Instant {
        self.peers
            .get(&peer.node)
            .filter(|holding| holding.incarnation == peer.incarnation)
            .filter(|holding| holding.map_revision_needed <= map_revision)
            .map_or(Instant::ZERO, |holding| holding.until)
    }

    /// Until when, exclusively, a quorum of `in_sync` does not seek promotion, this node counted as one of
    /// them: until then it may read what it leads (rules 3 and 8). [`Instant::MAX`] if it is a quorum by
    /// itself, [`Instant::ZERO`] if it is not of the set or the set has no such quorum.
    pub fn quorum_until(&self, in_sync: &[Member], quorum: usize, map_revision: u64) -> Instant {
        if !in_sync.contains(&self.me) {
            return Instant::ZERO;
        }
        let mut ends: Vec<Instant> = in_sync
            .iter()
            .map(|&member| match member == self.me {
                true => Instant::MAX,
                false => self.until(member, map_revision),
            })
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        match quorum.checked_sub(1) {
            Some(last) => ends.get(last).copied().unwrap_or(Instant::ZERO),
            None => Instant::MAX,
        }
    }
}

/// Both directions at one moment, as a shard asks for them.
#[derive(Clone, Copy, Debug)]
pub struct GrantsAt<'a> {
    /// What this node has promised.
    pub granted: &'a Granted,
    /// What others have promised it.
    pub held: &'a Held,
    /// The moment.
    pub now: Instant,
    /// The revision of the map that this node has applied.
    pub map_revision: u64,
}

impl Grants for GrantsAt<'_> {
    fn binds_towards(&self, node: NodeId) -> bool {
        !self.granted.ran_out(node, self.now)
    }

    fn holds_from(&self, member: Member) -> bool {
        self.held.holds(member, self.now, self.map_revision)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GRANTER: Member = Member { node: NodeId(1), incarnation: Incarnation(10) };
    const HOLDER: Member = Member { node: NodeId(2), incarnation: Incarnation(20) };
    const SHARD: ShardId = ShardId(0);

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn pair() -> (Granted, Held) {
        let intervals = Intervals::default();
        (Granted::new(GRANTER, &intervals), Held::new(HOLDER, &intervals))
    }

    fn beacon(from: Member, sent_at: Instant) -> Beacon {
        Beacon { from, sent_at, worker_silent_ms: 0, map_revision: 1 }
    }

    #[test]
    fn holder_counts_from_sending_and_granter_from_receiving() {
        let (mut granted, mut held) = pair();
        let answer = granted.on_beacon(ms(5_100), &beacon(HOLDER, ms(100))).unwrap();
        held.on_answer(ms(300), &answer);
        assert!(held.holds(GRANTER, ms(396), 0));
        assert!(!held.holds(GRANTER, ms(397), 0), "300 ms less one in a hundred");
        assert!(!granted.ran_out(HOLDER.node, ms(5_399)));
        assert!(granted.ran_out(HOLDER.node, ms(5_400)));
        assert!(granted.ran_out(NodeId(3), ms(0)), "nothing was promised");
    }

    #[test]
    fn beacon_of_an_earlier_life_or_sent_before_another_promises_nothing() {
        let (mut granted, _) = pair();
        assert!(granted.on_beacon(ms(0), &beacon(HOLDER, ms(100))).is_some());
        assert!(granted.on_beacon(ms(50), &beacon(HOLDER, ms(100))).is_none(), "the same again");
        assert!(granted.on_beacon(ms(50), &beacon(HOLDER, ms(99))).is_none(), "overtaken");
        let reborn = Member { incarnation: Incarnation(21), ..HOLDER };
        assert!(granted.on_beacon(ms(60), &beacon(reborn, ms(1))).is_some(), "after a reboot");
        assert!(granted.on_beacon(ms(90), &beacon(HOLDER, ms(101))).is_none());
        assert_eq!(granted.binds_until(HOLDER.node), ms(360));
    }

    #[test]
    fn answer_counts_for_the_life_it_was_given_to_and_from_the_life_that_gave_it() {
        let (_, mut held) = pair();
        let answer = GrantAnswer {
            from: GRANTER,
            to: HOLDER,
            echo: ms(100),
            granted: true,
            map_revision_needed: 0,
        };
        let other = Member { incarnation: Incarnation(19), ..HOLDER };
        held.on_answer(ms(100), &GrantAnswer { to: other, ..answer });
        held.on_answer(ms(100), &GrantAnswer { echo: ms(101), ..answer });
        assert_eq!(held.until(GRANTER, 0), Instant::ZERO);
        held.on_answer(ms(100), &answer);
        let reborn = Member { incarnation: Incarnation(11), ..GRANTER };
        assert!(held.holds(GRANTER, ms(110), 0) && !held.holds(reborn, ms(110), 0));
        held.on_answer(ms(120), &GrantAnswer { from: reborn, echo: ms(110), ..answer });
        assert!(!held.holds(GRANTER, ms(120), 0) && held.holds(reborn, ms(120), 0));
        held.on_answer(ms(130), &GrantAnswer { echo: ms(120), ..answer });
        assert_eq!(held.until(reborn, 0), ms(407), "the earlier life says nothing any more");
    }

    #[test]
    fn nothing_is_granted_while_a_shard_is_sealed() {
        let (mut granted, mut held) = pair();
        granted.withhold(HOLDER.node, SHARD);
        granted.withhold(HOLDER.node, ShardId(1));
        granted.resume(HOLDER.node, SHARD, 7);
        let answer = granted.on_beacon(ms(0), &beacon(HOLDER, ms(0))).unwrap();
        assert!(!answer.granted, "shard 1 is still sealed");
        assert!(granted.ran_out(HOLDER.node, ms(0)), "and refusing binds nobody");
        held.on_answer(ms(0), &answer);
        granted.resume(HOLDER.node, ShardId(1), 6);
        assert_eq!(granted.withheld(HOLDER.node).count(), 0);
        let answer = granted.on_beacon(ms(1), &beacon(HOLDER, ms(1))).unwrap();
        held.on_answer(ms(1), &answer);
        assert!(!held.holds(GRANTER, ms(2), 6), "the map that moved shard 0 is not known yet");
        assert!(held.holds(GRANTER, ms(2), 7));
    }

    #[test]
    fn peer_whose_workers_hang_is_granted_nothing() {
        let (mut granted, _) = pair();
        let hung = Beacon { worker_silent_ms: 300, ..beacon(HOLDER, ms(1)) };
        assert!(!granted.on_beacon(ms(0), &hung).unwrap().granted);
        let slow = Beacon { worker_silent_ms: 299, ..beacon(HOLDER, ms(2)) };
        assert!(granted.on_beacon(ms(0), &slow).unwrap().granted);
    }

    #[test]
    fn quorum_lasts_as_long_as_its_shortest_grant() {
        let (_, mut held) = pair();
        let third = Member { node: NodeId(3), incarnation: Incarnation(30) };
        for (from, echo) in [(GRANTER, ms(100)), (third, ms(50))] {
            let to = HOLDER;
            let answer = GrantAnswer { from, to, echo, granted: true, map_revision_needed: 0 };
            held.on_answer(ms(100), &answer);
        }
        let all = [GRANTER, HOLDER, third];
        assert_eq!(held.quorum_until(&all, 1, 0), Instant::MAX);
        assert_eq!(held.quorum_until(&all, 2, 0), ms(397));
        assert_eq!(held.quorum_until(&all, 3, 0), ms(347));
        assert_eq!(held.quorum_until(&all, 4, 0), Instant::ZERO);
        assert_eq!(held.quorum_until(&[GRANTER, third], 1, 0), Instant::ZERO, "not of the set");
    }

    /// A granter and a holder that run on clocks of different rates, and a network that keeps every message
    /// ever sent and delivers any of them whenever it likes, as often as it likes.
    struct World {
        /// Real time, in nanoseconds.
        real: u64,
        granter: Clock,
        holder: Clock,
        granted: Granted,
        held: Held,
        holder_life: u64,
        beacons: Vec<Beacon>,
        answers: Vec<GrantAnswer>,
        map_revision: u64,
        /// What the holder has applied.
        map_applied: u64,
    }

    /// A clock that shows `origin` at real time 0 and counts `rate` of a million per million nanoseconds.
    struct Clock {
        origin: u64,
        rate: u64,
    }

    impl Clock {
        fn at(&self, real: u64) -> Instant {
            let counted = u128::from(real) * u128::from(self.rate) / 1_000_000;
            Instant(self.origin + u64::try_from(counted).unwrap())
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Pass { micros: u32 },
        SendBeacon { worker_silent_ms: u32 },
        DeliverBeacon { age: usize },
        DeliverAnswer { age: usize },
        Seal,
        Settle,
        ApplyMap,
        RestartHolder,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0_u32..120_000).prop_map(|micros| Event::Pass { micros }),
            6 => Just(Event::SendBeacon { worker_silent_ms: 0 }),
            1 => (0_u32..600).prop_map(|worker_silent_ms| Event::SendBeacon { worker_silent_ms }),
            8 => (0_usize..4).prop_map(|age| Event::DeliverBeacon { age }),
            8 => (0_usize..4).prop_map(|age| Event::DeliverAnswer { age }),
            2 => Just(Event::Seal),
            3 => Just(Event::Settle),
            2 => Just(Event::ApplyMap),
            1 => Just(Event::RestartHolder),
        ]
    }

    impl World {
        /// Clocks may differ by a fifth: much, so that what relies on less shows.
        fn intervals() -> Intervals {
            Intervals { rate_error_permille: 200, ..Intervals::default() }
        }

        fn new(granter: Clock, holder: Clock) -> Self {
            let granted = Granted::new(GRANTER, &Self::intervals());
            let held = Held::new(HOLDER, &Self::intervals());
            Self {
                real: 0,
                granter,
                holder,
                granted,
                held,
                holder_life: HOLDER.incarnation.0,
                beacons: Vec::new(),
                answers: Vec::new(),
                map_revision: 1,
                map_applied: 1,
            }
        }

        fn me(&self) -> Member {
            Member { node: HOLDER.node, incarnation: Incarnation(self.holder_life) }
        }

        fn step(&mut self, event: Event) {
            let granter_now = self.granter.at(self.real);
            let holder_now = self.holder.at(self.real);
            match event {
                Event::Pass { micros } => self.real += u64::from(micros) * 1_000,
                Event::SendBeacon { worker_silent_ms } => {
                    let beacon = beacon(self.me(), holder_now);
                    self.beacons.push(Beacon { worker_silent_ms, ..beacon });
                }
                Event::DeliverBeacon { age } => {
                    if let Some(beacon) = self.beacons.iter().rev().nth(age) {
                        self.answers.extend(self.granted.on_beacon(granter_now, beacon));
                    }
                }
                Event::DeliverAnswer { age } => {
                    if let Some(answer) = self.answers.iter().rev().nth(age) {
                        self.held.on_answer(holder_now, answer);
                    }
                }
                Event::Seal => {
                    if self.granted.ran_out(HOLDER.node, granter_now) {
                        self.granted.withhold(HOLDER.node, SHARD);
                    }
                }
                Event::Settle => {
                    if self.granted.withheld(HOLDER.node).next().is_some() {
                        self.map_revision += 1;
                        self.granted.resume(HOLDER.node, SHARD, self.map_revision);
                    }
                }
                Event::ApplyMap => self.map_applied = self.map_revision,
                Event::RestartHolder => {
                    // With a clock that begins somewhere else, as after a reboot.
                    self.holder_life += 1;
                    self.holder.origin = self.holder.origin * 7 % 10_000_000_000;
                    self.held = Held::new(self.me(), &Self::intervals());
                }
            }
        }

        /// What must never be: the holder counts on a promise that does not bind the granter.
        fn check(&self) {
            let counts = self.held.holds(GRANTER, self.holder.at(self.real), self.map_applied);
            if counts {
                let granter_now = self.granter.at(self.real);
                assert!(!self.granted.ran_out(HOLDER.node, granter_now), "ran out first");
                assert_eq!(self.granted.withheld(HOLDER.node).count(), 0, "sealed");
                assert_eq!(self.map_applied, self.map_revision, "the shard is another's by now");
            }
        }
    }

    proptest! {
        #[test]
        fn holder_never_counts_on_what_its_granter_does_not_keep(
            (granter_origin, holder_origin) in (0_u64..10_000_000_000, 0_u64..10_000_000_000),
            (faster_rate, slower) in (900_000_u64..1_100_000, 0_u64..199_990),
            is_holder_slower in any::<bool>(),
            events in vec(event(), 0..200),
        ) {
            let slower_rate = faster_rate - faster_rate * slower / 1_000_000;
            let (granter_rate, holder_rate) = match is_holder_slower {
                true => (faster_rate, slower_rate),
                false => (slower_rate, faster_rate),
            };
            let mut world = World::new(
                Clock { origin: granter_origin, rate: granter_rate },
                Clock { origin: holder_origin, rate: holder_rate },
            );
            for event in events {
                world.step(event);
                world.check();
            }
        }
    }
}
