//! The control thread: what it hears, decides and has others do, until the node stops.
//!
//! ```text
//! tick    every 25 ms: beacons, failure detection; every 50 ms, and when something happened: each replica
//! map     to the replicas, then to the workers, then grants that need it
//! changes proposed by replicas, in batches, to the control plane
//! steer   where Raft leads: first primaries, recovery, who should hold what, who votes
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::config::Intervals;
use cluster::failure_detector::{Overdue, Suspicion};
use cluster::grant::{Beacon, GrantAnswer};
use cluster::map::{ClusterMap, Command, Outcome, Reconfigure, Standing};
use cluster::node::{Effect, Input, Node, Task};
use cluster::{ClusterId, Incarnation, Instant, Member, NodeId, ShardId, shard};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::Shard;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::admin_backend::{Backend, Peers};
use super::bootstrap::{Bootstrapped, Heard, NODE_LIFETIME, roster};
use super::joins::Joins;
use super::seeds::JoinDetails;
use super::tenure::{self, Tenure};
use super::{NodeParts, Phase};
use crate::clock::{Now, boot_ns};
use crate::control_plane::voters::VOTERS_MAX;
use crate::control_plane::{ControlPlane, RaftControlPlane};
use crate::peer::certificates::{CertificateAuthority, ClusterFiles};
use crate::peer::connection::{ConnectionError, PeerConnection};
use crate::peer::handshake::{Purpose, Reason, Refused};
use crate::peer::join::{self, JoinAnswer, JoinCertificates, JoinRequest};
use crate::peer::links::{LinkEvent, Links};
use crate::peer::tls::Security;
use crate::replication::replicas::{Context, Replicas};
use crate::replication::wire::{KeyStamp, LaneMessage};
use crate::replication::{Agenda, Incoming, Replication, WorkerMessage};
use crate::signal::StopReason;

/// How often the control thread looks around.
const TICK: Duration = Duration::from_millis(25);
/// How many ticks until every replica is looked at without an occasion.
const ATTEND_TICKS: u64 = 2;
/// How many ticks between two reports of the keys that were read.
const USED_TICKS: u64 = 20;
/// How many ticks between two looks for copies that nobody wants any more.
const LEFTOVER_TICKS: u64 = 200;
/// How often the node on which Raft leads looks at the whole.
const STEER_INTERVAL: Duration = Duration::from_millis(100);
/// How long a change of the map is tried for.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that is gone for so long is replaced: its copies are made anew elsewhere.
const REPLACE_AFTER: Duration = Duration::from_secs(60);
/// How long the other voters may still refuse a vote after they heard from a leader.
const CAMPAIGN_AFTER: Duration = Duration::from_millis(150);
/// The voter after the first waits this much longer before it asks for votes, and so on.
const CAMPAIGN_STAGGER: Duration = Duration::from_millis(50);

/// When a shard of which this node just became the primary asks its other copies again, each pause in milliseconds.
const PROMPTS_MS: [u64; 6] = [1, 2, 4, 8, 8, 8];
/// A leader whose majority was last heard of before this leads nobody.
const MAJORITY_AGE_MAX: Duration = Duration::from_secs(1);

/// What control connections carry besides the control plane's calls.
#[derive(Debug, Serialize, Deserialize)]
enum ControlMessage {
    Beacon(Beacon),
    Answer(GrantAnswer),
}

/// The control thread's state.
pub(super) struct Control {
    pub(super) member: Member,
    pub(super) parts: NodeParts,
    pub(super) links: Links,
    pub(super) control_plane: Arc<RaftControlPlane>,
    pub(super) replication: Arc<Replication>,
    pub(super) node: RefCell<Node>,
    joins: Joins,
    /// By peer: how often a seal was tried when none of its shards was known to be sealed.
    seals_seen: RefCell<BTreeMap<NodeId, u64>>,
    /// By peer and lane: what tells its present data connection from those before.
    current_lanes: RefCell<BTreeMap<(NodeId, u16), CurrentLane>>,
    next_worker: Cell<usize>,
    attention: Notify,
    ticks: Cell<u64>,
    /// Whether this node is asking for votes in the place of a leader that is gone.
    is_campaigning: Cell<bool>,
    /// In which life each node, this one among them, was heard of last.
    lives: RefCell<BTreeMap<NodeId, Incarnation>>,
    tenure: RefCell<Tenure>,
    /// Shards that this node was just appointed to lead, how often each was prompted and when it is again, and what
    /// wakes [`Control::prompt_new_primaries`].
    appointed: RefCell<BTreeMap<ShardId, (usize, Instant)>>,
    new_primaries: Notify,
    /// When somebody was last known to lead the control plane with a majority.
    led_at: Cell<Instant>,
    peers: Arc<Mutex<Peers>>,
    security: Arc<Security>,
    /// What certificates are issued with, where this node can.
    authority: RefCell<Option<Rc<CertificateAuthority>>>,
}

/// Who made a data connection, and what goes false when a newer one takes its place.
type CurrentLane = (Member, Arc<AtomicBool>);

/// Runs the node until it is told to stop.
pub(super) async fn run(node: Bootstrapped, parts: NodeParts, mut phases: watch::Receiver<Phase>) {
    let Bootstrapped {
        member,
        cluster,
        links,
        control_plane,
        replication,
        mut inbox,
        mut handed_on,
        admin,
        security,
        authority,
        peer_counters,
        _dir: dir,
    } = node;
    if phases.wait_for(|&phase| phase >= Phase::Running).await.is_err() {
        return;
    }
    let files = ClusterFiles::new(dir.path());
    let joins =
        Joins::start(Arc::clone(&parts.shards), Arc::clone(&replication), parts.clock.clone());
    let control = Rc::new(Control {
        member,
        links: links.clone(),
        control_plane: Arc::clone(&control_plane),
        node: RefCell::new(Node::new(member, Intervals::default())),
        joins,
        seals_seen: RefCell::default(),
        current_lanes: RefCell::default(),
        next_worker: Cell::new(0),
        attention: Notify::new(),
        ticks: Cell::new(0),
        is_campaigning: Cell::new(false),
        lives: RefCell::new([(member.node, member.incarnation)].into()),
        tenure: RefCell::default(),
        appointed: RefCell::default(),
        new_primaries: Notify::new(),
        led_at: Cell::new(Instant(boot_ns())),
        peers: Arc::default(),
        security,
        authority: RefCell::new(authority),
        replication,
        parts,
    });

    let mut tasks = Vec::new();
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move {
        while let Some(heard) = inbox.recv().await {
            of.hear(heard);
        }
    }));
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move { of.follow_map().await }));
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move { of.propose().await }));
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move { of.steer().await }));
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move {
        while let Some(connection) = handed_on.recv().await {
            match connection.purpose {
                Purpose::Join => {
                    let of = Rc::clone(&of);
                    spawn_local(async move { of.let_in(connection, cluster).await });
                }
                _ => of.accept(connection),
            }
        }
    }));
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move { of.reload_certificates(&files).await }));
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move { of.prompt_new_primaries().await }));
    let backend = Arc::new(Backend {
        replication: Arc::clone(&control.replication),
        control_plane: Arc::clone(&control_plane),
        shards: Arc::clone(&control.parts.shards),
        live_curve: Arc::clone(&control.parts.live_curve),
        clock: control.parts.clock.clone(),
        peers: Arc::clone(&control.peers),
        security: Arc::clone(&control.security),
    });
    match tokio::net::TcpListener::from_std(admin) {
        Ok(listener) => {
            tasks.push(spawn_local(crate::admin::serve(listener, backend)));
        }
        Err(error) => tracing::error!("the admin port cannot be served: {error}"),
    }
    let of = Rc::clone(&control);
    tasks.push(spawn_local(async move { of.tick().await }));

    let _ = phases.wait_for(|&phase| phase >= Phase::Leaving).await;
    if *phases.borrow() == Phase::Leaving {
        let leaving = Rc::clone(&control);
        let left = spawn_local(async move { leaving.leave().await });
        let _ = phases.wait_for(|&phase| phase >= Phase::Stopped).await;
        left.abort();
    }
    for task in tasks {
        task.abort();
    }
    control.joins.stop();
    links.stop();
    control_plane.stop().await;
    drop(peer_counters);
}

impl Control {
    pub(super) fn now(&self) -> Now {
        self.parts.clock.now()
    }

    /// Loads certificates again whenever the process is told to; what no other node would take is refused,
    /// and what was there before stays.
    async fn reload_certificates(&self, files: &ClusterFiles) {
        let Some(tls) = &self.security.tls else { return };
        let mut reloads = self.parts.orders.reloads();
        while reloads.changed().await.is_ok() {
            match tls.reload(self.now()) {
                Ok(true) => tracing::info!("certificates reloaded: new connections use them"),
                Ok(false) => tracing::info!("certificates are as they were"),
                Err(error) => {
                    tracing::error!("certificates not reloaded, those before stay: {error}");
                    continue;
                }
            }
            match CertificateAuthority::load(files, self.now()) {
                Ok(authority) => {
                    *self.authority.borrow_mut() = authority.map(Rc::new);
                }
                Err(error) => {
                    tracing::error!("the cluster's CA not reloaded, that before stays: {error}");
                }
            }
        }
    }

    /// Beacons, failure detection, and every replica now and then.
    async fn tick(self: &Rc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let occasion = tokio::select! {
                _ = ticks.tick() => false,
                () = self.attention.notified() => true,
            };
            let count = self.ticks.get() + 1;
            self.ticks.set(count);
            self.step(Input::Tick { worker_silent_ms: self.worker_silent_ms() });
            if occasion || count.is_multiple_of(ATTEND_TICKS) {
                self.attend();
            }
            if count.is_multiple_of(USED_TICKS) {
                self.tell_uses();
            }
            if count.is_multiple_of(LEFTOVER_TICKS) {
                self.drop_leftovers();
            }
            if self.replication.takes_flush(self.now().unix_ms) {
                self.flush_led();
            }
        }
    }

    fn worker_silent_ms(&self) -> u32 {
        let network = &self.parts.network;
        let longest = (0..network.workers()).map(|index| network.worker_stall(index)).max();
        u32::try_from(longest.unwrap_or_default().as_millis()).unwrap_or(u32::MAX)
    }

    fn step(self: &Rc<Self>, input: Input) {
        let mut effects = Vec::new();
        self.node.borrow_mut().step(Instant(boot_ns()), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Beacon { to, beacon } => self.send(to, &ControlMessage::Beacon(beacon)),
                Effect::Bound { peer, until } => self.replication.leases().set_bound(peer, until.0),
                Effect::Answer { to, answer } => self.answer(to, answer),
                Effect::Held { member, until } => {
                    self.replication.leases().set_held(member, until.0);
                }
                Effect::Suspicion(suspicion) => {
                    match suspicion {
                        Suspicion::PeerOverdue { peer, reason } => {
                            tracing::warn!(node = %peer, ?reason, "peer is overdue");
                            // From one that is silent Raft's voters have not heard for as long: they may
                            // vote for another at once.
                            let is_silent = matches!(reason, Overdue::Silent(_));
                            let after = if is_silent { Duration::ZERO } else { CAMPAIGN_AFTER };
                            self.succeed_leader(peer, after);
                        }
                        Suspicion::PeerBack { peer } => {
                            tracing::info!(node = %peer, "peer is back");
                        }
                    }
                    self.attention.notify_one();
                }
            }
        }
    }

    /// If `gone` led the control plane, asks for votes before Raft's own timeout does: those who heard from
    /// the leader a moment ago refuse, and one after the other asks.
    fn succeed_leader(self: &Rc<Self>, gone: NodeId, after: Duration) {
        // Two that ask in this node's name would outbid each other.
        if self.control_plane.leader() != Some(gone) || self.is_campaigning.get() {
            return;
        }
        let voters = self.control_plane.voters();
        let mut others = voters.iter().filter(|&&voter| voter != gone);
        let Some(rank) = others.position(|&voter| voter == self.member.node) else { return };
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        self.is_campaigning.set(true);
        let of = Rc::clone(self);
        spawn_local(async move {
            sleep(after + rank * CAMPAIGN_STAGGER).await;
            for _ in 0..5 {
                if of.control_plane.leader() != Some(gone) {
                    break;
                }
                of.control_plane.campaign().await;
                sleep(CAMPAIGN_STAGGER * 2).await;
            }
            of.is_campaigning.set(false);
        });
    }

    /// Answers a beacon, and grants nothing if somebody may have sealed one of the peer's shards meanwhile.
    fn answer(&self, to: NodeId, answer: GrantAnswer) {
        let tried = self.replication.leases().seals_tried(to);
        let seen = self.seals_seen.borrow().get(&to).copied().unwrap_or(0);
        let granted = answer.granted && tried == seen;
        self.send(to, &ControlMessage::Answer(GrantAnswer { granted, ..answer }));
    }

    fn send(&self, to: NodeId, message: &ControlMessage) {
        match postcard::to_stdvec(message) {
            Ok(bytes) => drop(self.links.send(to, Bytes::from(bytes))),
            Err(error) => tracing::error!("a control message cannot be encoded: {error}"),
        }
    }

    fn hear(self: &Rc<Self>, heard: Heard) {
        match heard {
            Heard::Message(from, payload) => match postcard::from_bytes(&payload) {
                Ok(ControlMessage::Beacon(beacon)) if beacon.from == from => {
                    self.lives.borrow_mut().insert(from.node, from.incarnation);
                    self.step(Input::Beacon(beacon));
                }
                Ok(ControlMessage::Answer(answer)) if answer.from == from => {
                    self.step(Input::Answer(answer));
                }
                _ => tracing::warn!(node = %from.node, "a control message that makes no sense"),
            },
            Heard::Link(LinkEvent::Up(member)) => {
                tracing::debug!(node = %member.node, "control connection is up");
            }
            Heard::Link(LinkEvent::Down(member)) => {
                tracing::debug!(node = %member.node, "control connection is down");
                self.succeed_leader(member.node, CAMPAIGN_AFTER);
            }
            // Its place in the cluster is gone before the map that says so reaches it.
            Heard::Link(LinkEvent::Refused(
                node,
                Refused { reason: Reason::RemovedNode, text },
            )) => {
                self.end_as_removed(&format!("node {node} says: {text}"));
            }
            Heard::Link(LinkEvent::Refused(node, refused)) => {
                tracing::warn!(%node, "refused by a peer: {refused:?}");
            }
        }
    }

    /// Looks at every replica, and tells it what is to be done.
    fn attend(&self) {
        let now = Instant(boot_ns());
        // Read before the replicas are looked at: a seal that is tried meanwhile shows as a later count.
        let tried: Vec<(NodeId, u64)> = self
            .replication
            .map()
            .nodes
            .keys()
            .map(|&peer| (peer, self.replication.leases().seals_tried(peer)))
            .collect();
        let mut agenda = Agenda::default();
        let mut tasks = Vec::new();
        let mut tenure = self.tenure.borrow_mut();
        for slot in 0..self.parts.shards.geometry().shard_count {
            let mut node = self.node.borrow_mut();
            self.parts.shards.with_replicas(
                slot,
                &mut agenda,
                self.now(),
                now.0,
                |shard, replicas, context| {
                    for id in replicas.restless(node.news()) {
                        let Some(replica) = replicas.get(id) else { continue };
                        let rest = node.attend(now, replica, &mut tasks);
                        // First: what it is told stirs it.
                        replicas.note_rest(id, rest);
                        for task in tasks.drain(..) {
                            match task {
                                Task::Step(input) => replicas.step(shard, id, input, context),
                                Task::Join(member) => {
                                    let epoch = replicas
                                        .get(id)
                                        .map(|it| it.config().epoch)
                                        .unwrap_or_default();
                                    let question = LaneMessage::WhatHaveYou(id, epoch);
                                    replicas.say(member.node, &question, context);
                                }
                            }
                        }
                        // What it was told may have sealed it.
                        if let Some(replica) = replicas.get(id) {
                            node.note_seal(replica);
                            let serves = replica.is_serving().then_some(replica.config().epoch);
                            tenure.note(now, id, serves);
                        }
                    }
                },
            );
        }
        if let Some((gained, lost)) = tenure.take_news(now) {
            tell_tenure(&gained, &lost, tenure.count());
        }
        drop(tenure);
        {
            let node = self.node.borrow();
            let mut seen = self.seals_seen.borrow_mut();
            for (peer, tried) in tried {
                if !node.withholds_from(peer) {
                    seen.insert(peer, tried);
                }
            }
        }
        {
            let mut node = self.node.borrow_mut();
            node.forget(now);
            let overdue = |peer| Some((peer, node.overdue_for(peer, now)?));
            let silent =
                self.replication.map().present().filter_map(|(id, _)| overdue(id)).collect();
            let leaderless = self.leaderless(&node, now);
            let (alive, joins) = (node.alive(), self.joins.progress(node.joins()));
            let lives = self.lives.borrow().clone();
            *self.peers.lock() = Peers { alive, lives, silent, leaderless, joins };
        }
        agenda.carry_out(&self.replication, None, |_, _| {});
    }

    /// For how long nobody who is heard of has led the control plane with a majority.
    fn leaderless(&self, node: &Node, now: Instant) -> Option<Duration> {
        let status = self.control_plane.status();
        let is_led = match status.leader {
            Some(leader) if leader == status.node => {
                let is_alone = status.voters.len() == 1;
                let age_ms = status.quorum_ack_age_ms.unwrap_or(u64::MAX);
                is_alone || u128::from(age_ms) < MAJORITY_AGE_MAX.as_millis()
            }
            Some(leader) => node.is_alive(leader),
            None => false,
        };
        if is_led {
            self.led_at.set(now);
        }
        (!is_led).then(|| now.since(self.led_at.get()))
    }

    /// Applies the map, now and whenever it changes.
    async fn follow_map(self: &Rc<Self>) {
        let mut maps = self.control_plane.watch();
        let mut before = Arc::new(ClusterMap::default());
        loop {
            let map = maps.borrow_and_update().clone();
            self.apply_map(&before, &map);
            before = map;
            if maps.changed().await.is_err() {
                return;
            }
        }
    }

    fn apply_map(self: &Rc<Self>, before: &ClusterMap, map: &Arc<ClusterMap>) {
        self.replication.set_pool(&map.pool);
        let mut changed: BTreeMap<u32, Vec<ShardId>> = BTreeMap::new();
        for (shard, place) in map.places() {
            let known = before.place(shard).map(|place| place.config.epoch);
            if known != Some(place.config.epoch) {
                let slot = self.parts.shards.of_cluster_shard(shard, map.shard_count());
                changed.entry(slot).or_default().push(shard);
            }
        }
        self.replication.set_map(map);
        let mut agenda = Agenda::default();
        let boot_ns = boot_ns();
        for (slot, shards) in changed {
            self.parts.shards.with_replicas(
                slot,
                &mut agenda,
                self.now(),
                boot_ns,
                |shard, replicas, context| {
                    for id in shards {
                        if let Some(place) = map.place(id) {
                            replicas.configure(shard, id, place.config.clone(), context);
                        }
                    }
                },
            );
        }
        agenda.has_news();
        agenda.carry_out(&self.replication, None, |_, _| {});
        self.links.set_roster(roster(map));
        // Only now: grants that need this revision count from here on.
        self.step(Input::Map(Arc::clone(map)));
        let me = self.member.node;
        if map.nodes.get(&me).is_some_and(|node| node.standing == Standing::Removed) {
            self.end_as_removed("as the map says");
        }
        self.attention.notify_one();
        let led_before = |shard| before.place(shard).and_then(|place| place.config.primary);
        let new = map.shards_led_by(me).filter(|&shard| led_before(shard) != Some(me));
        let first = Instant(boot_ns).after(Duration::from_millis(PROMPTS_MS[0]));
        let mut appointed = self.appointed.borrow_mut();
        appointed.extend(new.map(|shard| (shard, (0, first))));
        if !appointed.is_empty() {
            self.new_primaries.notify_one();
        }
    }

    /// Has shards that this node was just appointed to lead ask their other copies once more, soon. A copy
    /// follows a new primary when the map has told it to, and that may be a moment later than it told the
    /// primary: asked too soon it says no, and the shard would wait for the next look at every replica.
    ///
    /// Each by its own schedule: while shards are moved, more are appointed before the first of them serve.
    async fn prompt_new_primaries(&self) {
        loop {
            self.new_primaries.notified().await;
            while !self.appointed.borrow().is_empty() {
                sleep(Duration::from_millis(1)).await;
                let now = Instant(boot_ns());
                let appointed = std::mem::take(&mut *self.appointed.borrow_mut());
                for (shard, (prompts, at)) in appointed {
                    let is_due = at <= now;
                    if is_due && !self.prompt(shard) {
                        continue;
                    }
                    let prompts = prompts + usize::from(is_due);
                    let Some(&pause_ms) = PROMPTS_MS.get(prompts) else { continue };
                    let at = if is_due { now.after(Duration::from_millis(pause_ms)) } else { at };
                    self.appointed.borrow_mut().insert(shard, (prompts, at));
                }
            }
        }
    }

    /// Has a shard that does not serve yet ask its other copies; whether there was a need.
    fn prompt(&self, id: ShardId) -> bool {
        let slot = self.parts.shards.of_cluster_shard(id, self.replication.shard_count());
        let mut agenda = Agenda::default();
        let waits = self.parts.shards.with_replicas(
            slot,
            &mut agenda,
            self.now(),
            boot_ns(),
            |shard, replicas, context| {
                let waits = replicas.get(id).is_some_and(|it| it.is_primary() && !it.is_serving());
                if waits {
                    replicas.step(shard, id, shard::Input::Retry, context);
                }
                waits
            },
        );
        agenda.carry_out(&self.replication, None, |_, _| {});
        waits == Some(true)
    }

    /// Has the map changed as replicas ask for, all that ask at the same time at once.
    async fn propose(self: Rc<Self>) {
        loop {
            let mut changes = self.replication.proposals().await;
            // Others are about to ask as well: a lost node is a matter of many shards.
            sleep(Duration::from_millis(1)).await;
            changes.extend(self.replication.proposals_now());
            let of = Rc::clone(&self);
            spawn_local(async move { of.propose_batch(changes).await });
        }
    }

    async fn propose_batch(&self, changes: Vec<Reconfigure>) {
        let command = Command::Reconfigure(changes.clone());
        match self.control_plane.propose(command, PROPOSE_TIMEOUT).await {
            Ok(Outcome::Reconfigured(outcomes)) => {
                let mut rejected = Vec::new();
                for (change, outcome) in changes.into_iter().zip(outcomes) {
                    if let Err(refusal) = outcome {
                        tracing::debug!(shard = %change.shard, "change of the map refused: {refusal}");
                        rejected.push(change);
                    }
                }
                self.tell_rejected(rejected);
            }
            Ok(outcome) => tracing::warn!(?outcome, "the map was not changed"),
            Err(error) => tracing::debug!("the map was not changed: {error}"),
        }
    }

    fn tell_rejected(&self, rejected: Vec<Reconfigure>) {
        let mut agenda = Agenda::default();
        let boot_ns = boot_ns();
        for change in rejected {
            let map = self.control_plane.watch().borrow().clone();
            // Refused because the shard has moved on: the map says so itself.
            if map.place(change.shard).is_none_or(|place| place.config.epoch != change.from) {
                continue;
            }
            let slot = self.parts.shards.of_cluster_shard(change.shard, map.shard_count());
            self.parts.shards.with_replicas(
                slot,
                &mut agenda,
                self.now(),
                boot_ns,
                |shard, replicas, context| {
                    replicas.step(shard, change.shard, shard::Input::Rejected(change.to), context);
                },
            );
        }
        agenda.carry_out(&self.replication, None, |_, _| {});
    }

    /// Where Raft leads: sees to the whole.
    async fn steer(&self) {
        let mut ticks = interval(STEER_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.control_plane.leader() != Some(self.member.node) {
                continue;
            }
            let (commands, alive) = {
                let mut node = self.node.borrow_mut();
                (node.steer(Instant(boot_ns()), REPLACE_AFTER), node.alive())
            };
            for command in commands {
                match self.control_plane.propose(command, PROPOSE_TIMEOUT).await {
                    Ok(Outcome::Refused(refusal)) => tracing::debug!("not steered: {refusal}"),
                    Ok(_) => {}
                    Err(error) => tracing::debug!("not steered: {error}"),
                }
            }
            let alive: BTreeSet<NodeId> = alive;
            if let Err(error) =
                self.control_plane.tend_voters(&alive, VOTERS_MAX, PROPOSE_TIMEOUT).await
            {
                tracing::debug!("voters stay as they are: {error}");
            }
        }
    }

    /// Hands a connection of another node to one of the workers.
    fn accept(&self, connection: PeerConnection) {
        let Some(from) = connection.peer else { return };
        let is_current = Arc::new(AtomicBool::new(true));
        if let Purpose::Data { lane } = connection.purpose {
            let mut lanes = self.current_lanes.borrow_mut();
            if let Some((member, before)) = lanes.get(&(from.node, lane)) {
                if member.incarnation > from.incarnation {
                    return;
                }
                before.store(false, Ordering::Release);
            }
            lanes.insert((from.node, lane), (from, Arc::clone(&is_current)));
        }
        let worker = self.next_worker.get();
        self.next_worker.set((worker + 1) % self.parts.workers.max(1));
        let incoming = Incoming { from, connection, is_current };
        self.replication.post(worker, WorkerMessage::Accepted(Box::new(incoming)));
    }

    /// Lets a process in that holds a token.
    async fn let_in(&self, mut connection: PeerConnection, cluster: ClusterId) {
        let address = connection.address;
        let answer = match join::hear(&mut connection).await {
            Ok(request) => self.admit(&request, cluster).await,
            // A node that starts with its `--join` looks only of which cluster this one is.
            Err(ConnectionError::Closed) => return,
            Err(error) => {
                tracing::warn!(%address, "a join that makes no sense: {error}");
                return;
            }
        };
        tracing::info!(%address, ?answer, "a process asked to join");
        if let Err(error) = join::answer(&mut connection, &answer).await {
            tracing::warn!(%address, "the joining process was not answered: {error}");
        }
    }

    async fn admit(&self, request: &JoinRequest, cluster: ClusterId) -> JoinAnswer {
        let Ok(details) = postcard::from_bytes::<JoinDetails>(&request.details) else {
            return JoinAnswer::Refused("a request of another version".into());
        };
        let plain = self.security.tls.is_none();
        let authority = self.authority.borrow().clone();
        if !plain && authority.is_none() {
            let map = self.replication.map();
            return match map.nodes.get(&NodeId(1)) {
                Some(founder) => JoinAnswer::Elsewhere(founder.addresses.peer.clone()),
                None => JoinAnswer::Refused("no node can issue certificates".into()),
            };
        }
        let command = Command::AddNode {
            request: details.request,
            token_hash: Some(request.secret.hash()),
            now_unix_ms: self.now().unix_ms,
            node: details.node,
        };
        let node = match self.control_plane.propose(command, 5 * PROPOSE_TIMEOUT).await {
            Ok(Outcome::NodeAdded(node)) => node,
            Ok(Outcome::Refused(refusal)) => return JoinAnswer::Refused(refusal.to_string()),
            Ok(_) => return JoinAnswer::Refused("the control plane gave another answer".into()),
            Err(error) => return JoinAnswer::Refused(error.to_string()),
        };
        let certificates = match authority.filter(|_| !plain) {
            None => None,
            Some(authority) => {
                let key = request.public_key();
                match authority.issue(node, &key, self.now(), NODE_LIFETIME) {
                    Ok(node_pem) => Some(JoinCertificates {
                        authority_pem: authority.pem().to_owned(),
                        node_pem,
                    }),
                    Err(error) => return JoinAnswer::Refused(error.to_string()),
                }
            }
        };
        JoinAnswer::Admitted { cluster, node, certificates, details: Vec::new() }
    }

    /// Calls `act` with every store shard and its replicas, one after the other, and carries out what follows.
    fn on_each(&self, mut act: impl FnMut(&mut Shard, &mut Replicas, &mut Context<'_>)) {
        let mut agenda = Agenda::default();
        let boot_ns = boot_ns();
        for slot in 0..self.parts.shards.geometry().shard_count {
            self.parts.shards.with_replicas(slot, &mut agenda, self.now(), boot_ns, &mut act);
        }
        agenda.carry_out(&self.replication, None, |_, _| {});
    }

    /// Tells backups which keys were read, so that their policies know what is worth keeping.
    fn tell_uses(&self) {
        self.on_each(|shard, replicas, context| replicas.tell_uses(shard, context));
    }

    /// Gives up the memory of copies that nobody wants any more.
    fn drop_leftovers(&self) {
        let map = self.replication.map();
        self.on_each(|shard, replicas, context| replicas.drop_leftovers(shard, &map, context));
    }

    /// A flush that was put off is due.
    fn flush_led(&self) {
        self.on_each(|shard, replicas, context| replicas.flush_led_unawaited(shard, context));
    }

    /// Has the process end: the cluster has removed this node. There is nothing left to hand over, and
    /// nobody who would take it.
    fn end_as_removed(&self, how: &str) {
        if !self.replication.has_left() {
            tracing::error!("this node was removed from its cluster, and ends: {how}");
        }
        self.replication.set_has_left();
        self.parts.orders.stop(StopReason::Removed(how.to_owned()));
    }

    /// Hands over what this node leads, then has the others go on without it.
    async fn leave(&self) {
        if self.replication.has_left() {
            return;
        }
        self.node.borrow_mut().leave();
        // First, or the others would hand back what this node is wanted to lead.
        let Member { node, incarnation } = self.member;
        let down = Command::NodeDown { node, incarnation };
        if let Err(error) = self.control_plane.propose(down, PROPOSE_TIMEOUT).await {
            tracing::warn!("the cluster does not know that this node ends: {error}");
        }
        while self.leads_what_others_could() {
            self.attention.notify_one();
            sleep(Duration::from_millis(5)).await;
        }
        let pauses = &self.replication.pauses.handed_over;
        tracing::info!(
            handed_over = pauses.count(),
            pause_us_p99 = pauses.percentile_us(99),
            pause_us_max = pauses.longest_us(),
            "leads nothing any more"
        );
        while self.is_in_sync_with_others() {
            sleep(Duration::from_millis(5)).await;
        }
        self.replication.set_has_left();
    }

    /// Whether another node, in its present life, is thought to be alive.
    fn is_alive(&self, map: &ClusterMap, member: &Member) -> bool {
        member.node != self.member.node
            && self.node.borrow().is_alive(member.node)
            && map.current(member.node) == Some(*member)
    }

    /// Whether a primary that lives still counts on this node.
    fn is_in_sync_with_others(&self) -> bool {
        let map = self.replication.map();
        map.places().any(|(_, place)| {
            let in_sync = &place.config.in_sync;
            in_sync.contains(&self.member) && in_sync.iter().any(|it| self.is_alive(&map, it))
        })
    }

    fn leads_what_others_could(&self) -> bool {
        let map = self.replication.map();
        map.places().any(|(_, place)| {
            let is_alive = |member: &Member| self.is_alive(&map, member);
            // Whoever is wanted and lives will be in sync before long.
            let others = map.current_members(&place.targets);
            place.config.primary == Some(self.member.node)
                && (place.config.in_sync.iter().any(is_alive) || others.iter().any(is_alive))
        })
    }
}

/// Tells the log what this node serves that it did not, and what no more.
fn tell_tenure(gained: &tenure::Shards, lost: &tenure::Shards, count: usize) {
    if gained.count() > 0 {
        let more = gained.count();
        tracing::info!(shards = %gained, epochs = gained.epochs(), "serves {more} more, {count} in all");
    }
    if lost.count() > 0 {
        let fewer = lost.count();
        tracing::info!(shards = %lost, epochs = lost.epochs(), "leads {fewer} no more, serves {count}");
    }
}

/// What [`KeyStamp`]s are compared by when a joiner says what it has.
pub(super) fn stamps(items: &[KeyStamp]) -> BTreeMap<u64, u64> {
    items.iter().map(|item| (item.key_hash, item.stamp)).collect()
}
