//! One simulated node: its clock, its replicas with their stores, and the node that decides for them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use cluster::config::Intervals;
use cluster::node::Node;
use cluster::pool::Ack;
use cluster::shard::{Entry, Grants, Pending, Replica};
use cluster::{Incarnation, Instant, Member, NodeId, Sequence, ShardId, Version};

use crate::history::{By, End, Left, OperationId, Write};

/// What a shard's store has on one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    /// Every write that it is made of, in order.
    pub(crate) history: Vec<Write>,
    /// The last write of each key.
    pub(crate) items: BTreeMap<u8, Write>,
    /// Whether the copy is one: not while it is being joined.
    pub(crate) is_whole: bool,
}

impl Store {
    pub(crate) fn put(&mut self, write: Write) {
        self.history.push(write);
        match write.left {
            Left::Value { .. } => _ = self.items.insert(write.key, write),
            Left::Nothing => self.items.retain(|&key, _| !write.is_about(key)),
        }
    }

    /// The write that made the key what it is, as the items say; where there is none, as the history does.
    pub(crate) fn last(&self, key: u8) -> Version {
        match self.items.get(&key) {
            Some(item) => item.version,
            None => self.last_of_history(key).map_or(Version::ZERO, |write| write.version),
        }
    }

    fn last_of_history(&self, key: u8) -> Option<&Write> {
        self.history.iter().rev().find(|write| write.is_about(key))
    }

    /// Whether the items have of a key what the writes made of it.
    pub(crate) fn agrees_on(&self, key: u8) -> bool {
        let made = self.last_of_history(key).filter(|write| write.value().is_some());
        self.items.get(&key) == made
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.put(decode(entry));
    }
}

/// A write as it travels.
pub(crate) fn encode(write: &Write) -> Bytes {
    let mut op = BytesMut::with_capacity(32);
    op.put_u8(write.key);
    op.put_u64_le(write.deadline_ns().map_or(0, |deadline_ns| deadline_ns + 1));
    op.put_u32_le(match write.by {
        By::Client(id) => id,
        By::Eviction => u32::MAX,
        By::Expiry => u32::MAX - 1,
    });
    if let Some(value) = write.value() {
        op.put_u64_le(value);
    }
    op.freeze()
}

fn decode(entry: &Entry) -> Write {
    let op = &entry.op;
    let deadline = u64::from_le_bytes(op[1..9].try_into().unwrap());
    let left = match op.get(13..21) {
        None => Left::Nothing,
        Some(value) => Left::Value {
            value: u64::from_le_bytes(value.try_into().unwrap()),
            deadline_ns: deadline.checked_sub(1),
        },
    };
    let by = match u32::from_le_bytes(op[9..13].try_into().unwrap()) {
        u32::MAX => By::Eviction,
        by if by == u32::MAX - 1 => By::Expiry,
        id => By::Client(id),
    };
    Write { version: entry.version, key: op[0], left, by }
}

/// An answer that waits for a write to be committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) sequence: Sequence,
    pub(crate) operation: OperationId,
    pub(crate) end: End,
}

/// A copy being sent to a joiner: what it has, and the keys not looked at yet.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(crate) has: BTreeMap<u8, Version>,
    pub(crate) left: BTreeSet<u8>,
    pub(crate) history: Vec<Write>,
}

/// One shard on one node.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) replica: Replica,
    pub(crate) store: Store,
    pub(crate) pending: Pending,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) walks: BTreeMap<NodeId, Walk>,
    /// What it was, and what its node knew, when it was last found at rest.
    pub(crate) at_rest: Option<(u64, Replica)>,
}

/// The leases of one node, as its control thread made them known to those who serve.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases {
    pub(crate) bound: BTreeMap<NodeId, Instant>,
    pub(crate) held: BTreeMap<Member, Instant>,
}

/// The leases at one moment.
pub(crate) struct LeasesAt<'a> {
    pub(crate) leases: &'a Leases,
    pub(crate) now: Instant,
}

impl Grants for LeasesAt<'_> {
    fn binds_towards(&self, node: NodeId) -> bool {
        self.leases.bound.get(&node).is_some_and(|&until| self.now < until)
    }

    fn holds_from(&self, member: Member) -> bool {
        self.leases.held.get(&member).is_some_and(|&until| self.now < until)
    }
}

/// The clocks of a node: one that grants are measured by, with an offset of its own in each life, and a rate;
/// and one on the wall, which is right within a minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) offset_ns: u64,
    pub(crate) rate_permille: u64,
    pub(crate) wall_ahead_ns: u64,
}

impl Clock {
    pub(crate) fn at(self, now_ns: u64) -> Instant {
        Instant(self.offset_ns + now_ns / 1000 * self.rate_permille)
    }

    pub(crate) fn wall_ns(self, now_ns: u64) -> u64 {
        now_ns + self.wall_ahead_ns
    }

    /// From now on it runs at another rate, without a jump.
    pub(crate) fn run_at(&mut self, rate_permille: u64, now_ns: u64) {
        let shown = self.at(now_ns).0;
        self.rate_permille = rate_permille;
        self.offset_ns = shown - now_ns / 1000 * rate_permille;
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) me: Member,
    pub(crate) is_alive: bool,
    pub(crate) is_paused: bool,
    pub(crate) clock: Clock,
    pub(crate) node: Node,
    pub(crate) leases: Leases,
    pub(crate) copies: Vec<Copy>,
    /// Where the memory file that this life found says that its copies stood.
    pub(crate) recovered: BTreeMap<ShardId, Version>,
    /// How much of the control plane's log it has applied. On disk: it outlives the process.
    pub(crate) applied: usize,
}

impl Server {
    pub(crate) fn new(me: Member, clock: Clock, ack: Ack, stores: Vec<(Store, Version)>) -> Self {
        let stores: Vec<_> = (0..).map(ShardId).zip(stores).collect();
        let recovered = stores
            .iter()
            .map(|(shard, (_, last))| (*shard, *last))
            .filter(|(_, last)| *last != Version::ZERO)
            .collect();
        let copies = stores
            .into_iter()
            .map(|(shard, (store, recovered))| Copy {
                replica: Replica::new(shard, me, ack, recovered),
                store,
                pending: Pending::default(),
                waiting: Vec::new(),
                walks: BTreeMap::new(),
                at_rest: None,
            })
            .collect();
        Self {
            me,
            is_alive: true,
            is_paused: false,
            clock,
            node: Node::new(me, Intervals::default()),
            leases: Leases::default(),
            copies,
            recovered,
            applied: 0,
        }
    }

    /// What a next life finds in the memory file of this one: of copies that were whole, where they stood.
    pub(crate) fn left_behind(&self) -> Vec<(Store, Version)> {
        let found = |copy: &Copy| match copy.store.is_whole {
            true => (copy.store.clone(), copy.replica.position()),
            false => (Store { is_whole: false, ..copy.store.clone() }, Version::ZERO),
        };
        self.copies.iter().map(found).collect()
    }

    pub(crate) fn next_life(&self) -> Member {
        Member { incarnation: Incarnation(self.me.incarnation.0 + 1), ..self.me }
    }
}
