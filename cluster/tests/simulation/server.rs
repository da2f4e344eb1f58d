//! One simulated node: its clock, its replicas with their stores, and the node that decides for them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use cluster::config::Intervals;
use cluster::node::Node;
use cluster::pool::Ack;
use cluster::shard::{Entry, Grants, Pending, Replica};
use cluster::{Incarnation, Instant, Member, NodeId, Sequence, ShardId, Version};

use crate::history::{OperationId, Write};

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
        self.items.insert(write.key, write);
    }

    /// The write that made the key what it is.
    pub(crate) fn last(&self, key: u8) -> Version {
        self.items.get(&key).map_or(Version::ZERO, |item| item.version)
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        self.put(decode(entry));
    }
}

/// A write as it travels.
pub(crate) fn encode(key: u8, value: u64, by: OperationId) -> Bytes {
    let mut op = BytesMut::with_capacity(13);
    op.put_u8(key);
    op.put_u64_le(value);
    op.put_u32_le(by);
    op.freeze()
}

fn decode(entry: &Entry) -> Write {
    let op = &entry.op;
    Write {
        version: entry.version,
        key: op[0],
        value: u64::from_le_bytes(op[1..9].try_into().unwrap()),
        by: u32::from_le_bytes(op[9..13].try_into().unwrap()),
    }
}

/// An answer that waits for a write to be committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) sequence: Sequence,
    pub(crate) operation: OperationId,
    pub(crate) saw: Version,
    pub(crate) wrote: bool,
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

/// A clock: an offset of its own in each life, and a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) offset_ns: u64,
    pub(crate) rate_permille: u64,
}

impl Clock {
    pub(crate) fn at(self, now_ns: u64) -> Instant {
        Instant(self.offset_ns + now_ns / 1000 * self.rate_permille)
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
