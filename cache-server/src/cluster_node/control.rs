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
use cluster::failure_detector::Suspicion;
use cluster::grant::{Beacon, GrantAnswer};
use cluster::map::{ClusterMap, Command, Outcome, Reconfigure, Standing};
use cluster::node::{Effect, Input, Node, Task};
use cluster::{Instant, Member, NodeId, ShardId, shard};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::Shard;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::admin_backend::{Backend, Peers};
use super::bootstrap::{Bootstrapped, Heard, JoinDetails, NODE_LIFETIME, roster};
use super::joins::Joins;
use super::{NodeParts, Phase};
use crate::clock::{Now, boot_ns};
use crate::control_plane::{ControlPlane, RaftControlPlane};
use crate::peer::connection::PeerConnection;
use crate::peer::handshake::Purpose;
use crate::peer::join::{self, JoinAnswer, JoinCertificates, JoinRequest};
use crate::peer::links::{LinkEvent, Links};
use crate::replication::replicas::{Context, Replicas};
use crate::replication::wire::{KeyStamp, LaneMessage};
use crate::replication::{Agenda, Incoming, Replication, WorkerMessage};

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
/// Nodes that vote, at most, unless the operator says otherwise.
const VOTERS_MAX: usize = 3;

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
    peers: Arc<Mutex<Peers>>,
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
        peers: Arc::default(),
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
    let authority = authority.clone();
    tasks.push(spawn_local(async move {
        while let Some(connection) = handed_on.recv().await {
            match connection.purpose {
                Purpose::Join => {
                    let (of, authority) = (Rc::clone(&of), authority.clone());
                    let plain = security.tls.is_none();
                    spawn_local(async move {
                        of.let_in(connection, cluster, authority.as_deref(), plain).await;
                    });
                }
                _ => of.accept(connection),
            }
        }
    }));
    let backend = Arc::new(Backend {
        replication: Arc::clone(&control.replication),
        control_plane: Arc::clone(&control_plane),
        shards: Arc::clone(&control.parts.shards),
        clock: control.parts.clock.clone(),
        peers: Arc::clone(&control.peers),
        fingerprint: authority_fingerprint(authority_of(&dir)),
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

fn authority_of(dir: &crate::cluster_dir::ClusterDir) -> crate::peer::certificates::ClusterFiles {
    crate::peer::certificates::ClusterFiles::new(dir.path())
}

/// What join tokens say of the cluster's CA, if it has one.
fn authority_fingerprint(
    files: crate::peer::certificates::ClusterFiles,
) -> Option<crate::peer::certificates::Fingerprint> {
    let now = crate::clock::Clock::system().now();
    files
        .has_node()
        .then(|| crate::peer::tls::Tls::load(files, now).ok())
        .flatten()
        .map(|tls| tls.fingerprint())
}

impl Control {
    pub(super) fn now(&self) -> Now {
        self.parts.clock.now()
    }

    /// Beacons, failure detection, and every replica now and then.
    async fn tick(&self) {
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

    fn step(&self, input: Input) {
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
                            self.succeed_leader(peer);
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
    fn succeed_leader(&self, gone: NodeId) {
        if self.control_plane.leader() != Some(gone) {
            return;
        }
        let voters = self.control_plane.voters();
        let mut others = voters.iter().filter(|&&voter| voter != gone);
        let Some(rank) = others.position(|&voter| voter == self.member.node) else { return };
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let control_plane = Arc::clone(&self.control_plane);
        spawn_local(async move {
            sleep(CAMPAIGN_AFTER + rank * CAMPAIGN_STAGGER).await;
            for _ in 0..5 {
                if control_plane.leader() != Some(gone) {
                    return;
                }
                control_plane.campaign().await;
                sleep(CAMPAIGN_STAGGER * 2).await;
            }
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

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Message(from, payload) => match postcard::from_bytes(&payload) {
                Ok(ControlMessage::Beacon(beacon)) if beacon.from == from => {
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
                self.succeed_leader(member.node);
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
        for slot in 0..self.parts.shards.geometry().shard_count {
            let mut node = self.node.borrow_mut();
            self.parts.shards.with_replicas(
                slot,
                &mut agenda,
                self.now(),
                now.0,
                |shard, replicas, context| {
                    for id in replicas.ids() {
                        let Some(replica) = replicas.get(id) else { continue };
                        node.attend(now, replica, &mut tasks);
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
                        }
                    }
                },
            );
        }
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
            *self.peers.lock() = Peers { alive: node.alive(), joins: node.joins().collect() };
        }
        agenda.carry_out(&self.replication, None, |_, _| {});
    }

    /// Applies the map, now and whenever it changes.
    async fn follow_map(&self) {
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

    fn apply_map(&self, before: &ClusterMap, map: &Arc<ClusterMap>) {
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
        if map.nodes.get(&self.member.node).is_some_and(|node| node.standing == Standing::Removed) {
            tracing::error!("this node was removed from its cluster; it ends");
            std::process::exit(1);
        }
        self.attention.notify_one();
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
                let node = self.node.borrow();
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
    async fn let_in(
        &self,
        mut connection: PeerConnection,
        cluster: cluster::ClusterId,
        authority: Option<&crate::peer::certificates::CertificateAuthority>,
        plain: bool,
    ) {
        let address = connection.address;
        let answer = match join::hear(&mut connection).await {
            Ok(request) => self.admit(&request, cluster, authority, plain).await,
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

    async fn admit(
        &self,
        request: &JoinRequest,
        cluster: cluster::ClusterId,
        authority: Option<&crate::peer::certificates::CertificateAuthority>,
        plain: bool,
    ) -> JoinAnswer {
        let Ok(details) = postcard::from_bytes::<JoinDetails>(&request.details) else {
            return JoinAnswer::Refused("a request of another version".into());
        };
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

    /// Hands over what this node leads, then has the others go on without it.
    async fn leave(&self) {
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

/// What [`KeyStamp`]s are compared by when a joiner says what it has.
pub(super) fn stamps(items: &[KeyStamp]) -> BTreeMap<u64, u64> {
    items.iter().map(|item| (item.key_hash, item.stamp)).collect()
}
