//! Replication: what all threads of a node share of the cluster's shards.
//!
//! ```text
//! workers ──┐                                         ┌── lanes.rs: to other nodes
//! control ──┼──> a store shard's lock ──> replicas.rs ┼── leases.rs: who grants whom
//! joins   ──┘       agenda: what to do once unlocked  └── proposals: to the control plane
//! ```
//!
//! The shard protocol decides in [`cluster::shard`]; here it meets items, threads and sockets. What follows
//! from a call under a lock and must not happen under it stands in an [`Agenda`].

pub(crate) mod lanes;
pub(crate) mod leases;
pub(crate) mod op;
pub(crate) mod pauses;
pub(crate) mod replicas;
mod sync;
pub(crate) mod wire;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use cluster::map::{ClusterMap, Node, Reconfigure, Role, Standing};
use cluster::pool::{Pool, Reads};
use cluster::{Member, NodeId, ShardId, Version};
use parking_lot::{Mutex, RwLock};
use store::positions::Positions;
use tokio::sync::Notify;

use crate::net::mailbox::Postbox;
use crate::net::ticket::Ticket;
use crate::peer::connection::PeerConnection;
use crate::replication::lanes::{Lane, Lanes};
use crate::replication::leases::Leases;
use crate::replication::op::Ops;
use crate::replication::pauses::Pauses;
use crate::replication::wire::LaneMessage;

/// Who is to be told what became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    /// The worker.
    pub(crate) worker: u16,
    /// What it knows the answer by.
    pub(crate) token: Token,
}

/// What a worker knows by itself of an answer that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The answer is held in its connection, and leaves as it is.
    Held(Ticket),
    /// Whatever the worker has noted under this number.
    Noted(u64),
}

/// What other threads post to a worker of a cluster's node.
pub enum WorkerMessage {
    /// Writes that its answers waited for are committed, or will never be.
    Decided(Vec<(Token, bool)>),
    /// Who leads which shard has changed, or this node serves one: requests that wait for that may go on.
    News,
    /// Another node has connected.
    Accepted(Box<Incoming>),
}

/// A connection that another node has made, after the handshake.
pub struct Incoming {
    /// Who.
    pub(crate) from: Member,
    /// The connection.
    pub(crate) connection: PeerConnection,
    /// Goes false when a newer connection takes this one's place.
    pub(crate) is_current: Arc<AtomicBool>,
}

/// What is to be done once no lock is held.
#[derive(Default)]
pub(crate) struct Agenda {
    /// What writes left is put together here.
    pub(crate) ops: Ops,
    lanes: Vec<Arc<Lane>>,
    decided: Vec<(Waiter, bool)>,
    has_news: bool,
}

impl Agenda {
    /// What was pushed to `lane` is to be sent.
    #[inline]
    pub(crate) fn flush_later(&mut self, lane: &Arc<Lane>) {
        if !self.lanes.iter().any(|other| Arc::ptr_eq(other, lane)) {
            self.lanes.push(Arc::clone(lane));
        }
    }

    /// `waiter`'s write is committed, or never will be.
    pub(crate) fn tell(&mut self, waiter: Waiter, is_committed: bool) {
        self.decided.push((waiter, is_committed));
    }

    /// Workers are to look at who leads what.
    pub(crate) fn has_news(&mut self) {
        self.has_news = true;
    }

    /// The lanes to which something was pushed: whoever takes them flushes them.
    pub(crate) fn take_lanes(&mut self) -> impl Iterator<Item = Arc<Lane>> {
        self.lanes.drain(..)
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.decided.is_empty() && !self.has_news
    }

    /// Sends what was pushed, and tells whoever waits. What the worker `own`, if any, waits for is handed to
    /// `decide` directly.
    pub(crate) fn carry_out(
        &mut self,
        replication: &Replication,
        own: Option<u16>,
        mut decide: impl FnMut(Token, bool),
    ) {
        for lane in self.lanes.drain(..) {
            lane.flush();
        }
        if !self.decided.is_empty() {
            let mut others = Vec::new();
            for (waiter, is_committed) in self.decided.drain(..) {
                if own == Some(waiter.worker) {
                    decide(waiter.token, is_committed);
                } else {
                    others.push((waiter, is_committed));
                }
            }
            replication.post_decided(others);
        }
        if std::mem::take(&mut self.has_news) {
            replication.post_news();
        }
    }
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replication").field("me", &self.me).finish_non_exhaustive()
    }
}

/// What all threads of a node share.
pub(crate) struct Replication {
    me: Member,
    shard_count: u16,
    in_sync_min: AtomicU8,
    reads: AtomicU8,
    /// By shard: the node that leads it; 0 while nobody does.
    routes: Box<[AtomicU32]>,
    leases: Leases,
    lanes: Lanes,
    proposals: Mutex<Vec<Reconfigure>>,
    /// Told when there are proposals.
    proposed: Notify,
    workers: OnceLock<Box<[Postbox<WorkerMessage>]>>,
    /// The map as this node has applied it.
    map: RwLock<Arc<ClusterMap>>,
    /// When everything is to be flushed, in milliseconds since the start of 1970; 0 for not at all.
    flush_at_ms: AtomicU64,
    /// What joiners say they have, for the thread that sends them the rest.
    joiners: Mutex<Option<mpsc::Sender<(Member, LaneMessage)>>>,
    has_left: AtomicBool,
    positions: Option<Positions>,
    pub(crate) counters: ReplicationCounters,
    pub(crate) pauses: Pauses,
}

/// What happened, for `stats`.
#[derive(Default)]
pub(crate) struct ReplicationCounters {
    pub(crate) forwarded: AtomicU64,
    pub(crate) served_for_others: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) parked_too_long: AtomicU64,
    pub(crate) unknown_outcomes: AtomicU64,
    pub(crate) frames_refused: AtomicU64,
    pub(crate) bytes_sent_to_joiners: AtomicU64,
    pub(crate) joins_completed: AtomicU64,
}

impl ReplicationCounters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

impl Replication {
    /// Of a node in one of its lives, which knows no other node yet.
    pub(crate) fn new(
        me: Member,
        shard_count: u16,
        pool: &Pool,
        lanes_per_node: u16,
        positions: Option<Positions>,
    ) -> Self {
        let this = Self {
            me,
            shard_count,
            in_sync_min: AtomicU8::new(0),
            reads: AtomicU8::new(0),
            routes: (0..shard_count).map(|_| AtomicU32::new(0)).collect(),
            leases: Leases::default(),
            lanes: Lanes::new(lanes_per_node),
            proposals: Mutex::default(),
            proposed: Notify::new(),
            workers: OnceLock::new(),
            map: RwLock::new(Arc::new(ClusterMap::default())),
            flush_at_ms: AtomicU64::new(0),
            joiners: Mutex::default(),
            has_left: AtomicBool::new(false),
            positions,
            counters: ReplicationCounters::default(),
            pauses: Pauses::default(),
        };
        this.set_pool(pool);
        this
    }

    /// This node in this life.
    pub(crate) fn me(&self) -> Member {
        self.me
    }

    /// How many cluster shards there are.
    pub(crate) fn shard_count(&self) -> u16 {
        self.shard_count
    }

    /// The copies below which writes are refused.
    #[inline]
    pub(crate) fn in_sync_min(&self) -> usize {
        usize::from(self.in_sync_min.load(Ordering::Relaxed))
    }

    /// Whether requests are taken under a lease alone: whoever has none would have answers wait without end.
    #[inline]
    pub(crate) fn reads_need_lease(&self) -> bool {
        self.reads.load(Ordering::Relaxed) != READS_ANY
    }

    /// Whether an answer that tells of no write waits until the shard's copies have said that they still follow.
    #[inline]
    pub(crate) fn reads_are_confirmed(&self) -> bool {
        self.reads.load(Ordering::Relaxed) == READS_CONFIRM
    }

    /// Whether any copy that is in sync answers reads.
    #[inline]
    pub(crate) fn copies_answer(&self) -> bool {
        self.reads.load(Ordering::Relaxed) == READS_ANY
    }

    /// Takes over what the pool promises.
    pub(crate) fn set_pool(&self, pool: &Pool) {
        self.in_sync_min.store(pool.in_sync_min, Ordering::Relaxed);
        let reads = match pool.reads {
            Reads::Lease => READS_LEASE,
            Reads::Any => READS_ANY,
            Reads::Confirm => READS_CONFIRM,
        };
        self.reads.store(reads, Ordering::Relaxed);
    }

    /// Who leads the shard of the key with this hash.
    #[inline]
    pub(crate) fn leader_of(&self, key_hash: u64) -> Option<NodeId> {
        let shard = cluster::hash::shard_of_hash(key_hash, self.shard_count);
        match self.routes[usize::from(shard.0)].load(Ordering::Relaxed) {
            0 => None,
            node => Some(NodeId(node)),
        }
    }

    /// Who leads `shard`.
    pub(crate) fn leader_of_shard(&self, shard: ShardId) -> Option<NodeId> {
        match self.routes[usize::from(shard.0)].load(Ordering::Relaxed) {
            0 => None,
            node => Some(NodeId(node)),
        }
    }

    /// Takes over who leads what.
    pub(crate) fn set_map(&self, map: &Arc<ClusterMap>) {
        for (route, place) in self.routes.iter().zip(&map.shards) {
            route.store(place.config.primary.map_or(0, |node| node.0), Ordering::Relaxed);
        }
        *self.map.write() = Arc::clone(map);
    }

    /// The map as this node has applied it.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map.read())
    }

    /// The nodes, but for this one, that hold shards or may.
    pub(crate) fn other_nodes(&self) -> Vec<NodeId> {
        let map = self.map();
        let is_there = |node: &Node| node.standing != Standing::Removed && node.role == Role::Data;
        let nodes = map.nodes.iter().filter(|(_, node)| is_there(node)).map(|(&id, _)| id);
        nodes.filter(|&id| id != self.me.node).collect()
    }

    /// Where a node's peers connect; `None` if it left.
    pub(crate) fn address_of(&self, node: NodeId) -> Option<String> {
        let map = self.map.read();
        let node = map.nodes.get(&node).filter(|node| node.standing != Standing::Removed)?;
        Some(node.addresses.peer.clone())
    }

    /// Has everything flushed at a later time; a later call replaces an earlier one.
    pub(crate) fn flush_later(&self, at_ms: u64) {
        self.flush_at_ms.store(at_ms, Ordering::Relaxed);
    }

    /// Whether everything is to be flushed now. Said once.
    pub(crate) fn takes_flush(&self, now_ms: u64) -> bool {
        let at_ms = self.flush_at_ms.load(Ordering::Relaxed);
        let is_due = at_ms != 0 && at_ms <= now_ms;
        is_due
            && self
                .flush_at_ms
                .compare_exchange(at_ms, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Who takes what joiners say they have, if anybody.
    pub(crate) fn set_joiners(&self, to: Option<mpsc::Sender<(Member, LaneMessage)>>) {
        *self.joiners.lock() = to;
    }

    /// A joiner says what it has.
    pub(crate) fn joiner_has(&self, from: Member, has: LaneMessage) {
        if let Some(joiners) = &*self.joiners.lock() {
            // Nobody takes it any more: the node stops.
            let _ = joiners.send((from, has));
        }
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Asks for a change of the map.
    pub(crate) fn propose(&self, change: Reconfigure) {
        let mut proposals = self.proposals.lock();
        if !proposals.contains(&change) {
            proposals.push(change);
        }
        drop(proposals);
        self.proposed.notify_one();
    }

    /// The changes asked for since the last call; waits for one.
    pub(crate) async fn proposals(&self) -> Vec<Reconfigure> {
        loop {
            let proposals = std::mem::take(&mut *self.proposals.lock());
            if !proposals.is_empty() {
                return proposals;
            }
            self.proposed.notified().await;
        }
    }

    /// The changes asked for since the last call, if any.
    pub(crate) fn proposals_now(&self) -> Vec<Reconfigure> {
        std::mem::take(&mut *self.proposals.lock())
    }

    /// Everything is handed over that others can go on with.
    pub(crate) fn set_has_left(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    /// Whether everything is handed over.
    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }

    /// The workers' postboxes, in their order. To be set once.
    pub(crate) fn set_workers(&self, workers: Box<[Postbox<WorkerMessage>]>) {
        assert!(self.workers.set(workers).is_ok(), "workers are started once");
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers.get().map_or(0, |workers| workers.len())
    }

    /// Posts to one of the workers.
    pub(crate) fn post(&self, worker: usize, message: WorkerMessage) {
        if let Some(worker) = self.workers.get().and_then(|workers| workers.get(worker)) {
            worker.post(message);
        }
    }

    fn post_decided(&self, mut decided: Vec<(Waiter, bool)>) {
        decided.sort_by_key(|(waiter, _)| waiter.worker);
        for of_one in decided.chunk_by(|(a, _), (b, _)| a.worker == b.worker) {
            let worker = usize::from(of_one[0].0.worker);
            let tokens = of_one.iter().map(|&(waiter, outcome)| (waiter.token, outcome)).collect();
            self.post(worker, WorkerMessage::Decided(tokens));
        }
    }

    /// Has all workers look at who leads what.
    pub(crate) fn post_news(&self) {
        for worker in self.workers.get().into_iter().flatten() {
            worker.post(WorkerMessage::News);
        }
    }

    /// A shard's log on this node, with all that stands in the memory file, ends at `version`.
    #[inline]
    pub(crate) fn note_position(&self, shard: ShardId, version: Version) {
        if let Some(positions) = &self.positions {
            positions.set(shard.0, version.cas());
        }
    }

    /// What this node holds of a shard is of no single version.
    pub(crate) fn forget_position(&self, shard: ShardId) {
        if let Some(positions) = &self.positions {
            positions.forget(shard.0);
        }
    }
}

const READS_LEASE: u8 = 0;
const READS_ANY: u8 = 1;
const READS_CONFIRM: u8 = 2;
