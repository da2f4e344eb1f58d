//! `Node`: what one node of a cluster does about its peers and its shards; composes grants, failure detection
//! and decisions.
//!
//! ```text
//! beacons, answers, map, ticks ──> Node::step ──> what to send, which grants stand
//! each replica, now and then   ──> Node::attend ──> inputs for it: campaign, lead on without, hand over, ...
//! the map, where Raft leads    ──> steer ──> commands: targets, first primaries, recovery after a total loss
//! ```
//!
//! - A replica is only ever told to do what it would refuse if it were wrong: what is decided here decides how
//!   soon things happen, not whether they are right.
//! - Whatever may be lost is decided anew, at intervals, until it is no longer needed.
//! - A replica of which nothing is wanted is at *rest* ([`Rest`]), and need not be looked at again before it, or
//!   what this node knows of the others ([`Node::news`]), has changed: nearly all of them, nearly always.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Intervals;
use crate::failure_detector::{FailureDetector, Suspicion};
use crate::grant::{Beacon, GrantAnswer, Granted, Held};
use crate::map::{ClusterMap, Command, Reconfigure, Role, ShardConfig, ShardPlace, Standing};
use crate::pool::OnTotalLoss;
use crate::shard::{self, Replica};
use crate::{Incarnation, Instant, Member, NodeId, ShardId, Version, placement};

/// The same thing is not asked of a replica again within this time.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Shards handed over at once by one node: each pauses for about a round of the control plane.
const HANDOVERS_MAX: usize = 16;
/// Copies brought in sync at once by one node.
const JOINS_MAX: usize = 64;
/// A join that came to nothing is given up after this time.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed; to be called every [`Intervals::beacon`] or more often. The longest time that one
    /// of the workers has shown no progress for.
    Tick {
        /// That time in milliseconds.
        worker_silent_ms: u32,
    },
    /// A peer says that it lives.
    Beacon(Beacon),
    /// A peer answers this node's beacon.
    Answer(GrantAnswer),
    /// The map changed, and every replica was told.
    Map(Arc<ClusterMap>),
}

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this beacon.
    Beacon {
        /// To whom.
        to: NodeId,
        /// What.
        beacon: Beacon,
    },
    /// From now on this node is bound towards a peer. To be made known before the answer is sent.
    Bound {
        /// Whom.
        peer: NodeId,
        /// Until when.
        until: Instant,
    },
    /// Send this answer to a beacon.
    Answer {
        /// To whom.
        to: NodeId,
        /// What.
        answer: GrantAnswer,
    },
    /// A peer's grant can be relied on.
    Held {
        /// Whose.
        member: Member,
        /// Until when.
        until: Instant,
    },
    /// What became of a peer, for the log; every replica should be attended to.
    Suspicion(Suspicion),
}

/// What a replica is to be told, and what its driver has to do for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// This input.
    Step(shard::Input),
    /// Bring this node's copy to the primary's: ask it what it has, then [`shard::Input::StartJoin`].
    Join(Member),
}

/// Whether a replica has to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Rest {
    /// Not before it is told something, or [`Node::news`] has grown.
    Still,
    /// Before long, whatever happens: something is under way, or is only a matter of time.
    Stirring,
}

impl Rest {
    fn still_if(is_still: bool) -> Self {
        if is_still { Self::Still } else { Self::Stirring }
    }

    fn and(self, other: Self) -> Self {
        Self::still_if(self == Self::Still && other == Self::Still)
    }
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    me: Member,
    /// Grows with every change of what replicas at rest depend on: the map, who is overdue, whether this node
    /// is about to end.
    news: u64,
    intervals: Intervals,
    map: Arc<ClusterMap>,
    granted: Granted,
    held: Held,
    detector: FailureDetector,
    /// Peers that are overdue, and since when.
    overdue: BTreeMap<NodeId, Instant>,
    next_beacon_at: Instant,
    /// What was asked of a replica, and when: not to be asked again at once.
    asked: BTreeMap<(ShardId, u8), Instant>,
    /// Shards withheld, with the primary that is.
    withheld: BTreeMap<ShardId, NodeId>,
    handing_over: BTreeMap<ShardId, Instant>,
    /// Joins under way, and since when. Each is of one life: the next must not wait for it.
    joining: BTreeMap<(ShardId, Member), Instant>,
    is_leaving: bool,
    /// The news at which there was nothing to steer, and nothing that is only a matter of time.
    steered_at: Option<u64>,
}

const CAMPAIGN: u8 = 0;
const RETRY: u8 = 1;
const CHANGE: u8 = 2;

impl Node {
    /// A node that knows nobody yet.
    pub fn new(me: Member, intervals: Intervals) -> Self {
        Self {
            me,
            news: 0,
            map: Arc::new(ClusterMap::default()),
            granted: Granted::new(me, &intervals),
            held: Held::new(me, &intervals),
            detector: FailureDetector::new(&intervals),
            intervals,
            overdue: BTreeMap::new(),
            next_beacon_at: Instant::ZERO,
            asked: BTreeMap::new(),
            withheld: BTreeMap::new(),
            handing_over: BTreeMap::new(),
            joining: BTreeMap::new(),
            is_leaving: false,
            steered_at: None,
        }
    }

    /// This node in this life.
    pub fn me(&self) -> Member {
        self.me
    }

    /// From now on shards are handed over to whoever is in sync: the process is about to end.
    pub fn leave(&mut self) {
        self.is_leaving = true;
        self.news += 1;
    }

    /// Grows when replicas that were at rest have to be looked at again, all of them.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// Whether a peer is thought to be alive.
    pub fn is_alive(&self, peer: NodeId) -> bool {
        peer == self.me.node || !self.overdue.contains_key(&peer)
    }

    /// For how long a peer has been overdue.
    pub fn overdue_for(&self, peer: NodeId, now: Instant) -> Option<Duration> {
        self.overdue.get(&peer).map(|&since| now.since(since))
    }

    /// Joins under way: the shard, and who joins.
    pub fn joins(&self) -> impl Iterator<Item = (ShardId, NodeId)> {
        self.joining.keys().map(|&(shard, member)| (shard, member.node))
    }

    /// Advances by one input and appends to `effects` what the driver must do, in this order.
    pub fn step(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        let mut suspicions = Vec::new();
        match input {
            Input::Tick { worker_silent_ms } => {
                self.detector.tick(now, &mut suspicions);
                if now >= self.next_beacon_at {
                    self.next_beacon_at = now.after(self.intervals.beacon);
                    self.send_beacons(now, worker_silent_ms, effects);
                }
            }
            Input::Beacon(beacon) => {
                let peer = beacon.from.node;
                self.detector.on_beacon(now, &beacon, &mut suspicions);
                if let Some(answer) = self.granted.on_beacon(now, &beacon) {
                    let until = self.granted.binds_until(peer);
                    effects.push(Effect::Bound { peer, until });
                    effects.push(Effect::Answer { to: peer, answer });
                }
            }
            Input::Answer(answer) => {
                self.held.on_answer(now, &answer);
                self.tell_held(answer.from, effects);
            }
            Input::Map(map) => self.take_map(now, map, effects),
        }
        for suspicion in suspicions {
            match suspicion {
                Suspicion::PeerOverdue { peer, .. } => self.overdue.insert(peer, now),
                Suspicion::PeerBack { peer } => self.overdue.remove(&peer),
            };
            self.news += 1;
            effects.push(Effect::Suspicion(suspicion));
        }
    }

    fn send_beacons(&self, now: Instant, worker_silent_ms: u32, effects: &mut Vec<Effect>) {
        for to in self.peers() {
            let beacon = Beacon {
                from: self.me,
                sent_at: now,
                worker_silent_ms,
                map_revision: self.map.revision,
            };
            effects.push(Effect::Beacon { to, beacon });
        }
    }

    fn peers(&self) -> impl Iterator<Item = NodeId> {
        let me = self.me.node;
        self.map
            .nodes
            .iter()
            .filter(move |(id, node)| **id != me && node.standing != Standing::Removed)
            .map(|(&id, _)| id)
    }

    fn take_map(&mut self, now: Instant, map: Arc<ClusterMap>, effects: &mut Vec<Effect>) {
        for (shard, before) in self.map.places() {
            let now = map.primary_of(shard);
            if let Some(deposed) = before.config.primary_member()
                && now != Some(deposed)
            {
                self.granted.require(deposed.node, map.revision);
            }
        }
        self.map = map;
        self.news += 1;
        let peers: Vec<NodeId> = self.peers().collect();
        self.overdue.retain(|peer, _| peers.contains(peer));
        self.detector.watch(now, peers.iter().copied());
        for &peer in &peers {
            if let Some(member) = self.map.current(peer) {
                self.tell_held(member, effects);
            }
        }
    }

    fn tell_held(&self, member: Member, effects: &mut Vec<Effect>) {
        let until = self.held.until(member, self.map.revision);
        effects.push(Effect::Held { member, until });
    }

    /// The replica has promised itself to somebody else than its primary, or no more: no grant is renewed
    /// meanwhile. To be called for every replica before grants are renewed; [`Node::attend`] does.
    pub fn note_seal(&mut self, replica: &Replica) {
        let shard = replica.id();
        let withheld = replica.withholds_from().or_else(|| self.survived(replica));
        if let Some(&peer) = self.withheld.get(&shard)
            && withheld != Some(peer)
        {
            self.withheld.remove(&shard);
            self.granted.resume(peer, shard, self.map.revision);
        }
        if let Some(peer) = withheld
            && self.withheld.insert(shard, peer).is_none()
        {
            self.granted.withhold(peer, shard);
        }
    }

    /// The primary that a replica of this node has outlived: its process has begun another life. A grant to
    /// that life, which leads nothing of this shard, must not keep the members from taking over.
    fn survived(&self, replica: &Replica) -> Option<NodeId> {
        let primary = replica.config().primary_member()?;
        let present = self.map.current(primary.node)?;
        (replica.is_in_sync() && primary != present && primary.node != self.me.node)
            .then_some(primary.node)
    }

    /// Whether any shard is withheld from `peer`.
    pub fn withholds_from(&self, peer: NodeId) -> bool {
        self.withheld.values().any(|&withheld| withheld == peer)
    }

    /// Whether the same was asked of the shard a moment ago; if not, it is now.
    fn was_asked(&mut self, now: Instant, shard: ShardId, what: u8) -> bool {
        let again_after = AGAIN_AFTER;
        match self.asked.get(&(shard, what)) {
            Some(&at) if now.since(at) < again_after => true,
            _ => {
                self.asked.insert((shard, what), now);
                false
            }
        }
    }

    /// Looks at a replica: what it is to be told now, and whether it has to be looked at again.
    pub fn attend(&mut self, now: Instant, replica: &Replica, tasks: &mut Vec<Task>) -> Rest {
        self.note_seal(replica);
        let map = Arc::clone(&self.map);
        let Some(place) = map.place(replica.id()) else { return Rest::Still };
        let mut rest = Rest::still_if(!self.withheld.contains_key(&replica.id()));
        if replica.is_primary() {
            rest = rest.and(self.attend_primary(now, replica, place, tasks));
        } else {
            self.handing_over.remove(&replica.id());
            self.forget_joins(replica.id());
            if replica.is_in_sync() {
                rest = rest.and(self.attend_backup(now, replica, place, tasks));
            }
        }
        if replica.has_open_business() {
            rest = Rest::Stirring;
            if !self.was_asked(now, replica.id(), RETRY) {
                tasks.push(Task::Step(shard::Input::Retry));
            }
        }
        debug_assert!(
            tasks.is_empty() || rest == Rest::Stirring,
            "what is told something is looked at"
        );
        rest
    }

    /// Whether a member of an in-sync set is lost: its process is another by now, or it is overdue.
    fn is_lost(&self, member: Member) -> bool {
        member != self.me
            && (!self.is_alive(member.node) || self.map.current(member.node) != Some(member))
    }

    fn attend_backup(
        &mut self,
        now: Instant,
        replica: &Replica,
        place: &ShardPlace,
        tasks: &mut Vec<Task>,
    ) -> Rest {
        let config = replica.config();
        let member = config.primary_member().filter(|member| member.node != self.me.node);
        let Some(member) = member.filter(|&member| self.is_lost(member)) else {
            return Rest::Still;
        };
        let primary = member.node;
        if !self.granted.ran_out(primary, now) {
            return Rest::Stirring;
        }
        // Those who would be better primaries go first.
        let rank = self.rank(config, place, primary);
        let since = self.overdue.get(&primary).copied().unwrap_or(Instant::ZERO);
        let delay = self.intervals.takeover_delay(rank);
        if now.since(since) >= delay && !self.was_asked(now, replica.id(), CAMPAIGN) {
            tasks.push(Task::Step(shard::Input::Campaign));
            tasks.extend(self.returned(replica.id(), config).map(Task::Step));
        }
        Rest::Stirring
    }

    /// The members of an in-sync set whose lives have ended, with what their next ones found.
    fn returned(&self, shard: ShardId, config: &ShardConfig) -> impl Iterator<Item = shard::Input> {
        config.in_sync.iter().filter_map(move |&ended| {
            let member = self.map.current(ended.node).filter(|&it| it != ended)?;
            let last = self.map.nodes[&member.node].recovered.get(&shard).copied();
            // One that is not heard can be waited for, and not be counted on to lead.
            let last = last.filter(|_| self.is_alive(member.node) && self.may_hold(member.node));
            Some(shard::Input::Returned(shard::Returned { member, last }))
        })
    }

    /// How many of the in-sync set should lead rather than this node.
    fn rank(&self, config: &ShardConfig, place: &ShardPlace, primary: NodeId) -> u32 {
        let wish = |node: NodeId| {
            let at = place.targets.iter().position(|&target| target == node);
            (at.unwrap_or(usize::MAX), node)
        };
        let mine = wish(self.me.node);
        let better = config.in_sync.iter().filter(|&&member| {
            member.node != primary
                && member.node != self.me.node
                && !self.is_lost(member)
                && wish(member.node) < mine
        });
        u32::try_from(better.count()).unwrap_or(u32::MAX)
    }

    fn attend_primary(
        &mut self,
        now: Instant,
        replica: &Replica,
        place: &ShardPlace,
        tasks: &mut Vec<Task>,
    ) -> Rest {
        let shard = replica.id();
        let config = replica.config();
        if replica.is_serving() {
            self.handing_over.remove(&shard);
        }
        let lost: Vec<Member> =
            config.in_sync.iter().copied().filter(|&member| self.is_lost(member)).collect();
        if !lost.is_empty() {
            if !self.was_asked(now, shard, CHANGE) {
                tasks.push(Task::Step(shard::Input::MembersLost(lost)));
            }
            return Rest::Stirring;
        }
        let joins = self.tend_joins(now, replica, tasks);
        if !replica.is_serving() {
            return Rest::Stirring;
        }
        if self.is_leaving && config.in_sync.len() > 1 {
            self.hand_over_to_anybody(now, shard, config, place, tasks);
            return Rest::Stirring;
        }
        let wanted: Vec<Member> = place
            .targets
            .iter()
            .filter_map(|&node| self.map.current(node))
            .filter(|&member| member == self.me || !self.is_lost(member))
            .collect();
        let missing = wanted.iter().find(|member| !config.in_sync.contains(member));
        if let Some(&member) = missing {
            let is_new = !self.joining.contains_key(&(shard, member));
            if is_new && self.joining.len() < JOINS_MAX && replica.is_settled() {
                self.joining.insert((shard, member), now);
                tasks.push(Task::Join(member));
            }
            return Rest::Stirring;
        }
        joins.and(self.settle(now, shard, config, place, &wanted, tasks))
    }

    /// All that are wanted are in sync: the preferred one leads, and the others are let go.
    fn settle(
        &mut self,
        now: Instant,
        shard: ShardId,
        config: &ShardConfig,
        place: &ShardPlace,
        wanted: &[Member],
        tasks: &mut Vec<Task>,
    ) -> Rest {
        let Some(first) = wanted.first().filter(|first| Some(&first.node) == place.targets.first())
        else {
            return Rest::Still;
        };
        if *first != self.me {
            self.hand_over(now, shard, first.node, tasks);
            return Rest::Stirring;
        }
        let extra = config.in_sync.iter().find(|member| !wanted.contains(member));
        let Some(extra) = extra.filter(|_| wanted.len() == place.targets.len()) else {
            return Rest::Still;
        };
        if !self.was_asked(now, shard, CHANGE) {
            tasks.push(Task::Step(shard::Input::LetGo(*extra)));
        }
        Rest::Stirring
    }

    fn hand_over_to_anybody(
        &mut self,
        now: Instant,
        shard: ShardId,
        config: &ShardConfig,
        place: &ShardPlace,
        tasks: &mut Vec<Task>,
    ) {
        let wish = |member: &&Member| {
            place.targets.iter().position(|&node| node == member.node).unwrap_or(usize::MAX)
        };
        let others = config.in_sync.iter().filter(|member| member.node != self.me.node);
        if let Some(heir) = others.min_by_key(wish) {
            self.hand_over(now, shard, heir.node, tasks);
        }
    }

    fn hand_over(&mut self, now: Instant, shard: ShardId, to: NodeId, tasks: &mut Vec<Task>) {
        self.handing_over.retain(|_, &mut since| now.since(since) < Duration::from_secs(1));
        if self.handing_over.len() < HANDOVERS_MAX && !self.was_asked(now, shard, CHANGE) {
            self.handing_over.insert(shard, now);
            tasks.push(Task::Step(shard::Input::HandOver(to)));
        }
    }

    /// Forgets joins that are over, and gives up those that came to nothing.
    fn tend_joins(&mut self, now: Instant, replica: &Replica, tasks: &mut Vec<Task>) -> Rest {
        let shard = replica.id();
        let joiners = replica.joiners();
        let is_lost = |member: &&Member| self.is_lost(**member);
        let mut lost: BTreeSet<Member> = joiners.iter().filter(is_lost).copied().collect();
        let began: Vec<(Member, Instant)> = self.joins_of(shard).collect();
        for (member, since) in began {
            let is_in = replica.config().in_sync.contains(&member);
            let is_late = now.since(since) > JOIN_TIMEOUT;
            // Asked what it has, and not begun: the question or its answer was lost.
            let is_stuck = !joiners.contains(&member) && now.since(since) > 20 * AGAIN_AFTER;
            if is_late && !is_in {
                lost.insert(member);
            }
            if is_in || is_late || is_stuck || self.is_lost(member) {
                self.joining.remove(&(shard, member));
            }
        }
        if !lost.is_empty() {
            tasks.push(Task::Step(shard::Input::MembersLost(lost.into_iter().collect())));
        }
        Rest::still_if(joiners.is_empty() && self.joins_of(shard).next().is_none())
    }

    fn joins_of(&self, shard: ShardId) -> impl Iterator<Item = (Member, Instant)> {
        let least = Member { node: NodeId(0), incarnation: Incarnation(0) };
        let of_shard = self.joining.range((shard, least)..);
        of_shard
            .take_while(move |((other, _), _)| *other == shard)
            .map(|(&(_, member), &since)| (member, since))
    }

    fn forget_joins(&mut self, shard: ShardId) {
        let began: Vec<Member> = self.joins_of(shard).map(|(member, _)| member).collect();
        for member in began {
            self.joining.remove(&(shard, member));
        }
    }

    /// Forgets what was asked of shards that this node leads no more.
    pub fn forget(&mut self, now: Instant) {
        self.asked.retain(|_, &mut at| now.since(at) < Duration::from_secs(10));
        self.joining.retain(|_, &mut since| now.since(since) <= JOIN_TIMEOUT);
    }

    /// What the node on which Raft leads has to ask of the map: first primaries, recovery after a total loss,
    /// and who should hold what. Nodes overdue for longer than `replace_after` get no share.
    pub fn steer(&mut self, now: Instant, replace_after: Duration) -> Vec<Command> {
        if self.steered_at == Some(self.news) {
            return Vec::new();
        }
        let commands = self.wishes(now, replace_after);
        let is_still = commands.is_empty() && self.overdue.is_empty();
        self.steered_at = is_still.then_some(self.news);
        commands
    }

    fn wishes(&self, now: Instant, replace_after: Duration) -> Vec<Command> {
        let map = &self.map;
        if !map.is_founded() {
            return Vec::new();
        }
        let mut commands = Vec::new();
        let changes: Vec<Reconfigure> = map
            .places()
            .filter_map(|(shard, place)| {
                let to = self.first_or_recovered(shard, place)?;
                Some(Reconfigure { shard, from: place.config.epoch, to })
            })
            .collect();
        if !changes.is_empty() {
            commands.push(Command::Reconfigure(changes));
            return commands;
        }
        let mut counted = ClusterMap::clone(map);
        for (&id, node) in &mut counted.nodes {
            let is_gone = self.overdue_for(id, now).is_some_and(|gone| gone > replace_after);
            if is_gone && node.standing == Standing::Member {
                node.standing = Standing::Draining;
            }
        }
        let targets = placement::plan(&counted);
        if !targets.is_empty() {
            commands.push(Command::SetTargets { based_on: map.placement_revision, targets });
        }
        commands
    }

    /// Who is to lead a shard that nobody leads and nobody will.
    fn first_or_recovered(&self, shard: ShardId, place: &ShardPlace) -> Option<ShardConfig> {
        let config = &place.config;
        let map = &self.map;
        let holder = |node: NodeId| {
            map.current(node).filter(|it| self.is_alive(it.node) && self.may_hold(it.node))
        };
        let lead = |member: Member| {
            Some(ShardConfig {
                epoch: config.epoch.next(),
                primary: Some(member.node),
                in_sync: vec![member],
            })
        };
        let by_wish = || place.targets.iter().copied().chain(map.nodes.keys().copied());
        if config.in_sync.is_empty() {
            return lead(by_wish().find_map(holder)?);
        }
        // Rule 6, with lives that ended for seals: they acknowledge nothing any more.
        let quorum = map.pool.ack.write_quorum(config.in_sync.len());
        let enough = config.in_sync.len() + 1 - quorum.min(config.in_sync.len());
        let lives = |member: &Member| map.current(member.node) == Some(*member);
        let living = config.in_sync.iter().filter(|&member| lives(member)).count();
        if living >= enough || config.primary_member().is_some_and(|primary| lives(&primary)) {
            // They go on by themselves.
            return None;
        }
        let back: Vec<(Version, Member)> = config
            .in_sync
            .iter()
            .filter(|&member| !lives(member))
            .filter_map(|member| {
                let now = holder(member.node)?;
                Some((*map.nodes[&now.node].recovered.get(&shard)?, now))
            })
            .collect();
        if back.len() >= enough {
            let best =
                back.iter().max_by_key(|(last, member)| (*last, std::cmp::Reverse(member.node)));
            return lead(best?.1);
        }
        if living > 0 {
            // What it holds may be the best there is.
            return None;
        }
        let all_are_back = config.in_sync.iter().all(|member| holder(member.node).is_some());
        let may_be_empty = map.pool.on_total_loss == OnTotalLoss::Recover && all_are_back;
        if !may_be_empty {
            return None;
        }
        // Nothing more can come: the best of what there is, or an empty shard.
        match back.iter().max_by_key(|(last, member)| (*last, std::cmp::Reverse(member.node))) {
            Some(&(_, best)) => lead(best),
            None => lead(by_wish().find_map(holder)?),
        }
    }

    fn may_hold(&self, node: NodeId) -> bool {
        let there = self.map.nodes.get(&node);
        there.is_some_and(|it| it.role == Role::Data && it.standing != Standing::Removed)
    }

    /// The peers that are thought to be alive, this node among them.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.peers().filter(|&peer| self.is_alive(peer)).chain([self.me.node]).collect()
    }
}

#[cfg(test)]
mod tests;
