//! The replicas of one store shard, under its lock: where the shard protocol meets items.
//!
//! ```text
//!  store shard = cluster shards first .. first + n, each a `cluster::shard::Replica`
//!
//!  primary:  store changes ──> op ──> Replica::write ──> lanes          answers wait in `waiting`
//!            acks ──> Replica::step ──> Committed ──> agenda: they may go
//!  backup:   append ──> Replica::step ──> Apply ──> store ──> position
//! ```
//!
//! - A cluster shard lies in one store shard, so one lock keeps items and protocol in step.
//! - What every request asks of its shard, and nearly always in vain, stands in a [`Gate`] of its own: the gates
//!   of all shards fit where the processor has them at hand, and the replicas do not.
//! - What a primary's store evicts or expires goes into the stream as well. What a backup's does is reported
//!   to the primary, which lets go of that item too, so that copies stay equal.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use bytes::Bytes;
use cluster::map::{ClusterMap, ShardConfig};
use cluster::message::Message;
use cluster::node::Rest;
use cluster::pool::Ack;
use cluster::shard::{Effect, Entry, Input, Pending, Replica};
use cluster::{Member, NodeId, Sequence, ShardId, Version};
use eviction::KeyHash;
use store::{
    Applied, DepartureReason, Departures, HashRange, Key, RangePlace, Replicated, Shard,
    SliceLimit, Timestamp,
};

use crate::replication::lanes::KnownLanes;
use crate::replication::leases::Lease;
use crate::replication::op::{
    Facts, Op, encode_confirm, encode_flush, encode_put, encode_remove, encode_touch,
};
use crate::replication::wire::{KeyStamp, LaneMessage, encode_shard};
use crate::replication::{Agenda, Replication, Waiter};

/// The cluster shards of one store shard, on this node.
pub(crate) struct Replicas {
    store_shard: u32,
    first: u16,
    /// How many top bits of a key's hash are its cluster shard.
    bits: u32,
    all: Box<[Tracked]>,
    /// In the same order.
    gates: Box<[Gate]>,
    /// The news at which all of them were looked at ([`cluster::node::Node::news`]).
    news: Option<u64>,
    lanes: KnownLanes,
    effects: Vec<Effect>,
    departures: Departures,
}

/// What is asked of a replica with every request and in every round, as its last change left it.
#[derive(Clone, Copy, Default)]
struct Gate {
    /// By which reads are answered.
    lease: Lease,
    /// The version of the next write.
    next: Version,
    /// Copies in sync; 255 for that many or more.
    in_sync: u8,
    is_serving: bool,
    /// Whether some write is not committed.
    is_pending: bool,
    /// Whether it said so: something is open that is to be said again.
    is_open: bool,
    /// Whether it has to be looked at ([`cluster::node::Rest`]).
    is_stirring: bool,
}

/// A replica and what waits for it.
pub(crate) struct Tracked {
    pub(crate) replica: Replica,
    pending: Pending,
    waiting: VecDeque<(Sequence, Waiter)>,
    /// Items that left this copy, and that the primary does not know of.
    unsaid: Vec<KeyStamp>,
    /// Whether another node was told what this copy, which counts for nothing, holds.
    has_told: bool,
    /// Whether this copy, which counts for nothing, was emptied.
    is_dropped: bool,
    /// Since when it stands still, if it does: [`crate::replication::pauses`].
    pause: Option<Pause>,
}

/// Since when a shard that this node is the primary of is not served, and why.
#[derive(Clone, Copy)]
enum Pause {
    /// Another is to lead it.
    HandingOver { since_ns: u64 },
    /// This node was appointed, and does not serve yet.
    TakingOver { since_ns: u64 },
}

/// What was sent to a joiner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Items.
    pub(crate) items: u64,
    /// Their bytes, as they travel.
    pub(crate) bytes: u64,
}

/// What a call on replicas works with besides them: the same for a whole turn.
pub(crate) struct Context<'a> {
    /// What all threads share.
    pub(crate) replication: &'a Replication,
    /// What is to be done once the lock is released.
    pub(crate) agenda: &'a mut Agenda,
    /// The wall clock.
    pub(crate) now: Timestamp,
    /// The clock that grants are measured by.
    pub(crate) boot_ns: u64,
}

/// Whether this node may carry out a request on a key now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It may.
    Granted,
    /// Another node leads the shard.
    Elsewhere(NodeId),
    /// Nobody does, or this node does not yet, or cannot be certain that it still does.
    Nobody,
    /// Too few copies are in sync for a write.
    TooFewCopies,
}

impl Tracked {
    /// Whether this copy is in sync or about to be.
    fn counts(&self) -> bool {
        self.replica.is_in_sync() || self.replica.is_joining()
    }

    /// The shard is not served, or was not before its last change.
    #[cold]
    fn note_pause(&mut self, was_serving: bool, context: &Context<'_>) {
        let (now_ns, pauses) = (context.boot_ns, &context.replication.pauses);
        let (is_primary, is_serving) = (self.replica.is_primary(), self.replica.is_serving());
        match self.pause {
            // Another leads it, or it goes on at once.
            None if !is_primary || is_serving => {}
            None if was_serving => self.pause = Some(Pause::HandingOver { since_ns: now_ns }),
            None => self.pause = Some(Pause::TakingOver { since_ns: now_ns }),
            // It goes on.
            Some(_) if is_primary && !is_serving => {}
            Some(Pause::HandingOver { since_ns }) => {
                pauses.handed_over.add_ns(now_ns.saturating_sub(since_ns));
                self.pause = None;
            }
            Some(Pause::TakingOver { since_ns }) => {
                // One that is deposed before it served has taken nothing over.
                if is_serving {
                    pauses.taken_over.add_ns(now_ns.saturating_sub(since_ns));
                }
                self.pause = None;
            }
        }
    }
}

impl Replicas {
    /// The cluster shards of store shard `store_shard` of `store_shards`, none of which this node holds yet.
    /// `recovered` says where a shard's log stood in an earlier life.
    pub(crate) fn new(
        store_shard: u32,
        store_shards: u32,
        shard_count: u16,
        me: Member,
        ack: Ack,
        recovered: impl Fn(ShardId) -> Version,
    ) -> Self {
        let each = u32::from(shard_count) / store_shards;
        assert!(each > 0, "there are at least as many cluster shards as store shards");
        let first = u16::try_from(store_shard * each).expect("below the number of cluster shards");
        let last = first + (u16::try_from(each).expect("no more than there are") - 1);
        let tracked = |id| Tracked {
            replica: Replica::new(ShardId(id), me, ack, recovered(ShardId(id))),
            pending: Pending::default(),
            waiting: VecDeque::new(),
            unsaid: Vec::new(),
            has_told: false,
            is_dropped: false,
            pause: None,
        };
        let all: Box<[Tracked]> = (first..=last).map(tracked).collect();
        Self {
            store_shard,
            first,
            bits: shard_count.trailing_zeros(),
            gates: all.iter().map(|_| Gate::default()).collect(),
            all,
            news: None,
            lanes: KnownLanes::default(),
            effects: Vec::new(),
            departures: Departures::default(),
        }
    }

    fn index_of_hash(&self, hash: KeyHash) -> usize {
        let top = usize::try_from(hash.0 >> (u64::BITS - self.bits)).unwrap_or(usize::MAX);
        top - usize::from(self.first)
    }

    fn index_of(&self, shard: ShardId) -> Option<usize> {
        let index = usize::from(shard.0).checked_sub(usize::from(self.first))?;
        (index < self.all.len()).then_some(index)
    }

    /// The hashes of a cluster shard's keys.
    fn range_of(&self, index: usize) -> HashRange {
        let top = u32::from(self.first) + u32::try_from(index).unwrap_or(u32::MAX);
        HashRange::with_top_bits(top, self.bits)
    }

    /// The replica of a cluster shard of this store shard.
    pub(crate) fn get(&self, shard: ShardId) -> Option<&Replica> {
        self.index_of(shard).map(|index| &self.all[index].replica)
    }

    /// Which shards lie here.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        let first = self.first;
        (0..self.all.len()).map(move |index| ShardId(first + u16::try_from(index).unwrap_or(0)))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.all.iter().map(|tracked| &tracked.replica)
    }

    /// Whether a request on the key with this hash may be carried out here.
    #[inline]
    pub(crate) fn access(&mut self, hash: KeyHash, writes: bool, context: &Context<'_>) -> Access {
        let index = self.index_of_hash(hash);
        let gate = &self.gates[index];
        let replication = context.replication;
        if !gate.is_serving {
            return match self.all[index].replica.config().primary {
                Some(node) if node != replication.me().node => Access::Elsewhere(node),
                _ => Access::Nobody,
            };
        }
        if writes && usize::from(gate.in_sync) < replication.in_sync_min() {
            return Access::TooFewCopies;
        }
        // Also a write is a read: it answers by what is there.
        if !replication.leases().covers(gate.lease, context.boot_ns)
            && replication.reads_need_lease()
            && !self.find_lease(index, context)
        {
            return Access::Nobody;
        }
        Access::Granted
    }

    /// Whether a read of this key may be answered and its answer leave, and that without a further question: the
    /// shard is served, under a lease that was found before, and all its writes are committed. False says nothing.
    #[inline]
    pub(crate) fn answers_at_once(
        &self,
        hash: KeyHash,
        replication: &Replication,
        boot_ns: u64,
    ) -> bool {
        let gate = &self.gates[self.index_of_hash(hash)];
        gate.is_serving && !gate.is_pending && replication.leases().covers(gate.lease, boot_ns)
    }

    /// Whether reads may be answered, by the grants as they stand.
    #[cold]
    #[inline(never)]
    fn find_lease(&mut self, index: usize, context: &Context<'_>) -> bool {
        let replica = &self.all[index].replica;
        let leases = context.replication.leases();
        let found = leases.find(context.boot_ns, |grants| replica.may_read(grants));
        let Some(lease) = found else { return false };
        // Rule 8: while a change is proposed, which may be any moment, each read asks anew. And so does each that is
        // to be confirmed: what is found by a lease at once is answered at once.
        if replica.is_settled() && !context.replication.reads_are_confirmed() {
            self.gates[index].lease = lease;
        }
        true
    }

    /// A replica has changed: what is asked of it from now on. `is_routine` says that it was told of writes alone.
    fn refresh(&mut self, index: usize, is_routine: bool, context: &Context<'_>) {
        let before = self.gates[index];
        if !(before.is_serving && self.all[index].replica.is_serving()) {
            self.all[index].note_pause(before.is_serving, context);
        }
        let replica = &self.all[index].replica;
        let next = replica.next_version();
        let is_serving = replica.is_serving();
        // Equal epochs, equal sets: what the lease was found by is what it would be found by now.
        let is_same = is_serving && replica.is_settled() && next.epoch() == before.next.epoch();
        self.gates[index] = Gate {
            lease: if is_same { before.lease } else { Lease::default() },
            next,
            in_sync: u8::try_from(replica.config().in_sync.len()).unwrap_or(u8::MAX),
            is_serving,
            is_pending: replica.committed() < replica.last().sequence(),
            is_open: replica.has_open_business(),
            is_stirring: before.is_stirring || !is_routine,
        };
    }

    /// The replicas that have to be looked at ([`cluster::node::Node::attend`]): those that were not at rest or
    /// were told something since, or all of them when there are news. Each is to be looked at now, and
    /// [`Replicas::note_rest`] told what was seen.
    pub(crate) fn restless(&mut self, news: u64) -> Vec<ShardId> {
        let has_news = self.news.replace(news) != Some(news);
        let is_restless = |gate: &Gate| has_news || gate.is_open || gate.is_stirring;
        self.ids()
            .zip(&self.gates)
            .filter(|(_, gate)| is_restless(gate))
            .map(|(id, _)| id)
            .collect()
    }

    /// A replica was looked at, and is at rest or not.
    pub(crate) fn note_rest(&mut self, id: ShardId, rest: Rest) {
        if let Some(index) = self.index_of(id) {
            self.gates[index].is_stirring = rest == Rest::Stirring;
        }
    }

    /// The cas of the next write of a key. To be asked where access was granted.
    #[inline]
    pub(crate) fn next_cas(&self, hash: KeyHash) -> u64 {
        self.gates[self.index_of_hash(hash)].next.cas()
    }

    /// The store has changed `key`, as its primary: tells the other copies what it left. Returns what an
    /// answer has to wait for.
    ///
    /// `value_stays` says that the change was not one of the value.
    pub(crate) fn changed(
        &mut self,
        shard: &mut Shard,
        key: &Key<'_>,
        value_stays: bool,
        context: &mut Context<'_>,
    ) -> Option<Sequence> {
        let index = self.index_of_hash(key.hash());
        let op = op_of(shard, key, value_stays, context);
        let sequence = self.order(index, shard, Some(key.hash()), op, context);
        (self.all[index].replica.committed() < sequence).then_some(sequence)
    }

    /// What whoever sees this key has to wait for.
    #[inline]
    pub(crate) fn awaited(&self, hash: KeyHash) -> Option<Sequence> {
        let index = self.index_of_hash(hash);
        if self.gates[index].is_pending { self.all[index].pending.of(hash.0) } else { None }
    }

    /// Asks the shard's other copies whether they still follow this node. Returns what an answer to a read that
    /// was carried out before has to wait for: once it is committed, nobody else led the shard when this was asked,
    /// whatever the clocks say, and all that the read has seen is committed as well.
    pub(crate) fn confirm(
        &mut self,
        shard: &mut Shard,
        hash: KeyHash,
        context: &mut Context<'_>,
    ) -> Option<Sequence> {
        let index = self.index_of_hash(hash);
        let sequence = self.order(index, shard, None, encode_confirm(), context);
        (self.all[index].replica.committed() < sequence).then_some(sequence)
    }

    /// Whether the copy of the key with this hash may answer where any copy may.
    pub(crate) fn is_in_sync(&self, hash: KeyHash) -> bool {
        self.all[self.index_of_hash(hash)].replica.is_in_sync()
    }

    /// Has `waiter` told once the write `sequence` of the key's shard is committed, or never will be.
    pub(crate) fn wait(&mut self, hash: KeyHash, sequence: Sequence, waiter: Waiter) {
        let index = self.index_of_hash(hash);
        self.wait_at(index, sequence, waiter);
    }

    fn wait_at(&mut self, index: usize, sequence: Sequence, waiter: Waiter) {
        let waiting = &mut self.all[index].waiting;
        let at = waiting.partition_point(|&(other, _)| other <= sequence);
        waiting.insert(at, (sequence, waiter));
    }

    /// Removes every item of the shards that this node leads. Calls `wait` for each write that is not
    /// committed at once; what it returns is told when it is.
    pub(crate) fn flush_led(
        &mut self,
        shard: &mut Shard,
        context: &mut Context<'_>,
        mut waiter: impl FnMut() -> Waiter,
    ) {
        for index in 0..self.all.len() {
            if !self.all[index].replica.is_serving() {
                continue;
            }
            remove_all(shard, &self.range_of(index), context.now);
            let sequence = self.order(index, shard, None, encode_flush(), context);
            if self.all[index].replica.committed() < sequence {
                self.wait_at(index, sequence, waiter());
            }
        }
    }

    /// The same, and nobody waits for it.
    pub(crate) fn flush_led_unawaited(&mut self, shard: &mut Shard, context: &mut Context<'_>) {
        for index in 0..self.all.len() {
            if self.all[index].replica.is_serving() {
                remove_all(shard, &self.range_of(index), context.now);
                self.order(index, shard, None, encode_flush(), context);
            }
        }
    }

    /// Tells backups which keys were read here since the last call.
    pub(crate) fn tell_uses(&mut self, shard: &mut Shard, context: &mut Context<'_>) {
        let mut uses = Vec::new();
        shard.take_uses(&mut uses);
        uses.sort_unstable_by_key(|hash| hash.0);
        uses.dedup();
        // The hashes are in order, and so are those of one cluster shard together.
        let index_of = |hash: &KeyHash| self.index_of_hash(*hash);
        for of_one in uses.chunk_by(|a, b| index_of(a) == index_of(b)) {
            let replica = &self.all[index_of(&of_one[0])].replica;
            if !replica.is_serving() {
                continue;
            }
            let hashes: Vec<u64> = of_one.iter().map(|hash| hash.0).collect();
            let used = LaneMessage::Used(replica.id(), hashes);
            let me = context.replication.me();
            let others: Vec<NodeId> = replica.config().in_sync.iter().map(|it| it.node).collect();
            for node in others.into_iter().filter(|&node| node != me.node) {
                self.say(node, &used, context);
            }
        }
    }

    /// Removes the items of copies that this node is not to hold any more, and that others hold.
    pub(crate) fn drop_leftovers(
        &mut self,
        shard: &mut Shard,
        map: &ClusterMap,
        context: &mut Context<'_>,
    ) {
        let me = context.replication.me().node;
        for index in 0..self.all.len() {
            let replica = &self.all[index].replica;
            let Some(place) = map.place(replica.id()) else { continue };
            let config = &place.config;
            let is_held = config.in_sync.iter().any(|&it| map.current(it.node) == Some(it));
            let is_wanted = place.targets.contains(&me)
                || config.in_sync.iter().any(|it| it.node == me)
                || self.all[index].counts();
            if is_wanted || !is_held || self.all[index].is_dropped {
                continue;
            }
            context.replication.forget_position(replica.id());
            remove_all(shard, &self.range_of(index), context.now);
            self.all[index].is_dropped = true;
        }
    }

    /// Advances a replica by one input and does what follows.
    pub(crate) fn step(
        &mut self,
        shard: &mut Shard,
        id: ShardId,
        input: Input,
        context: &mut Context<'_>,
    ) {
        let Some(index) = self.index_of(id) else { return };
        let is_routine = matches!(
            input,
            Input::Received { message: Message::Append(_) | Message::Appended { .. }, .. }
        );
        let mut effects = std::mem::take(&mut self.effects);
        let grants = context.replication.leases().at(context.boot_ns);
        let tracked = &mut self.all[index];
        let was_joining = tracked.replica.is_joining();
        let counted = tracked.counts();
        tracked.replica.step(input, &grants, &mut effects);
        if tracked.counts() {
            tracked.is_dropped = false;
        }
        if tracked.replica.is_joining() && !was_joining {
            context.replication.forget_position(id);
        }
        if !counted && tracked.replica.is_primary() && tracked.replica.last() == Version::ZERO {
            // A shard that begins empty: what may lie here is another cluster's.
            remove_all(shard, &self.range_of(index), context.now);
        }
        self.carry_out(index, shard, &mut effects, context);
        self.effects = effects;
        self.refresh(index, is_routine, context);
        let tracked = &mut self.all[index];
        if (was_joining || !counted) && tracked.replica.is_in_sync() {
            context.replication.note_position(id, tracked.replica.position());
        }
        if !tracked.unsaid.is_empty() {
            self.say_unsaid(index, context);
        }
        self.pass_departures_on(shard, context);
    }

    /// What the map says of a shard.
    pub(crate) fn configure(
        &mut self,
        shard: &mut Shard,
        id: ShardId,
        config: ShardConfig,
        context: &mut Context<'_>,
    ) {
        self.step(shard, id, Input::Configured(config), context);
    }

    /// A message that is not of the shard protocol. Those of joins that the primary has to answer are
    /// returned.
    pub(crate) fn hear(
        &mut self,
        shard: &mut Shard,
        from: Member,
        message: LaneMessage,
        context: &mut Context<'_>,
    ) {
        match message {
            LaneMessage::Shard(id, message) => {
                self.step(shard, id, Input::Received { from, message }, context);
            }
            LaneMessage::Departed(id, item) => {
                let Some(index) = self.index_of(id) else { return };
                if self.all[index].replica.is_serving() {
                    shard.remove_if_cas(KeyHash(item.key_hash), item.stamp, context.now);
                    self.pass_departures_on(shard, context);
                }
            }
            LaneMessage::Used(id, hashes) => {
                let leads = |replica: &Replica| replica.config().primary == Some(from.node);
                if self.get(id).is_some_and(leads) {
                    for hash in hashes {
                        shard.note_use(KeyHash(hash), context.now);
                    }
                }
            }
            LaneMessage::WhatHaveYou(id, epoch) => {
                let Some(index) = self.index_of(id) else { return };
                if !self.all[index].replica.may_tell(from.node, epoch) {
                    return;
                }
                let range = self.range_of(index);
                self.all[index].has_told = true;
                self.all[index].unsaid.clear();
                let mut items = Vec::new();
                walk_all(shard, &range, context.now, |hash, stamp| {
                    items.push(KeyStamp { key_hash: hash.0, stamp });
                });
                let answer = LaneMessage::IHave { shard: id, epoch, is_all: true, items };
                self.say(from.node, &answer, context);
            }
            LaneMessage::Item(id, op) => {
                let Some(index) = self.index_of(id) else { return };
                if self.all[index].replica.joins_under(from.node) {
                    apply(shard, &self.range_of(index), &op, before_touches(context.now));
                    self.pass_departures_on(shard, context);
                }
            }
            LaneMessage::Drop(id, items) => {
                if self.get(id).is_some_and(|replica| replica.joins_under(from.node)) {
                    for item in items {
                        drop_item(shard, item, context.now);
                    }
                }
            }
            LaneMessage::IHave { .. } => debug_assert!(false, "joins.rs takes these"),
        }
    }

    /// What a joiner lacks of a shard that this node leads, from `place` on: each is sent to it. Returns
    /// where to go on, and what was sent.
    pub(crate) fn send_missing(
        &mut self,
        shard: &mut Shard,
        id: ShardId,
        to: NodeId,
        place: RangePlace,
        has: &mut BTreeMap<u64, u64>,
        context: &mut Context<'_>,
    ) -> ControlFlow<Sent, (RangePlace, Sent)> {
        const SLICE: SliceLimit = SliceLimit { entries: 256, value_bytes: 256 << 10 };
        let mut sent = Sent::default();
        let Some(index) = self.index_of(id) else { return ControlFlow::Break(sent) };
        let range = self.range_of(index);
        let Some(lane) = context.replication.lanes().get(to, self.store_shard) else {
            return ControlFlow::Break(sent);
        };
        let next = shard.walk_range(&range, place, SLICE, context.now, |met| {
            let fingerprint = met.fingerprint();
            if has.remove(&met.hash.0) == Some(fingerprint) {
                return;
            }
            let facts = facts_of(&met.item);
            let value = &met.item.value;
            let ops = &mut context.agenda.ops;
            let op = encode_put(ops, met.key, &facts, value.pieces(), value.len());
            sent.items += 1;
            sent.bytes += op.len() as u64;
            lane.push(|to| LaneMessage::Item(id, op).encode(to));
        });
        context.agenda.flush_later(&lane);
        match next {
            Some(next) => ControlFlow::Continue((next, sent)),
            None => ControlFlow::Break(sent),
        }
    }

    /// Sends a message about one of the shards here.
    pub(crate) fn say(&self, to: NodeId, message: &LaneMessage, context: &mut Context<'_>) {
        if let Some(lane) = context.replication.lanes().get(to, self.store_shard)
            && lane.push(|to| message.encode(to))
        {
            context.agenda.flush_later(&lane);
        }
    }

    /// What left the store by itself since the last call: into the stream where this node leads, to the
    /// primary elsewhere.
    pub(crate) fn pass_departures_on(&mut self, shard: &mut Shard, context: &mut Context<'_>) {
        // What is ordered below changes no item, so nothing departs meanwhile.
        if !shard.has_departures() {
            return;
        }
        let mut departures = std::mem::take(&mut self.departures);
        shard.take_departures(&mut departures);
        for departure in departures.iter() {
            let index = self.index_of_hash(departure.hash);
            let tracked = &mut self.all[index];
            if tracked.replica.is_serving() {
                let op = encode_remove(&mut context.agenda.ops, departure.key);
                self.order(index, shard, None, op, context);
                continue;
            }
            // The primary sees for itself what has expired, and may have touched it meanwhile.
            if departure.reason == DepartureReason::Expired {
                continue;
            }
            let item = KeyStamp { key_hash: departure.hash.0, stamp: departure.cas };
            if tracked.counts() {
                tracked.unsaid.push(item);
                self.say_unsaid(index, context);
            } else if tracked.has_told {
                tracked.unsaid.push(item);
            }
        }
        self.departures = departures;
    }

    /// Sends the primary word of items that left this copy.
    fn say_unsaid(&mut self, index: usize, context: &mut Context<'_>) {
        let tracked = &mut self.all[index];
        if tracked.replica.is_primary() || !tracked.counts() {
            return;
        }
        let (id, primary) = (tracked.replica.id(), tracked.replica.config().primary);
        let unsaid = std::mem::take(&mut tracked.unsaid);
        let Some(primary) = primary.filter(|&node| node != context.replication.me().node) else {
            return;
        };
        for item in unsaid {
            self.say(primary, &LaneMessage::Departed(id, item), context);
        }
    }

    /// Puts a write that the store has carried out into the stream.
    fn order(
        &mut self,
        index: usize,
        shard: &mut Shard,
        awaited_by: Option<KeyHash>,
        op: Bytes,
        context: &mut Context<'_>,
    ) -> Sequence {
        let mut effects = std::mem::take(&mut self.effects);
        let tracked = &mut self.all[index];
        let version = tracked.replica.write(op, &mut effects);
        context.replication.note_position(tracked.replica.id(), version);
        let sequence = version.sequence();
        if let Some(hash) = awaited_by
            && tracked.replica.committed() < sequence
        {
            tracked.pending.wrote(hash.0, sequence);
        }
        self.carry_out(index, shard, &mut effects, context);
        self.effects = effects;
        self.refresh(index, true, context);
        sequence
    }

    fn carry_out(
        &mut self,
        index: usize,
        shard: &mut Shard,
        effects: &mut Vec<Effect>,
        context: &mut Context<'_>,
    ) {
        let range = self.range_of(index);
        let tracked = &mut self.all[index];
        let id = tracked.replica.id();
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => {
                    let all = context.replication.lanes();
                    if let Some(lane) = self.lanes.get(all, to, self.store_shard)
                        && lane.push(|to| encode_shard(to, id, &message))
                    {
                        context.agenda.flush_later(lane);
                    }
                }
                Effect::Apply(Entry { version, op }) => {
                    apply(shard, &range, &op, before_touches(context.now));
                    if tracked.replica.is_in_sync() {
                        context.replication.note_position(id, version);
                    }
                }
                Effect::Committed(through) => {
                    tracked.pending.committed(through);
                    // What was ordered when there were enough copies may be committed on too few: nobody was
                    // promised that.
                    let is_enough =
                        tracked.replica.config().in_sync.len() >= context.replication.in_sync_min();
                    while let Some(&(sequence, waiter)) = tracked.waiting.front()
                        && sequence <= through
                    {
                        tracked.waiting.pop_front();
                        context.agenda.tell(waiter, is_enough);
                    }
                }
                Effect::Propose(change) => context.replication.propose(change),
                Effect::Serves => {
                    let epoch = tracked.replica.config().epoch;
                    tracing::debug!(shard = %id, %epoch, "serves");
                    context.agenda.has_news();
                }
                Effect::Deposed => {
                    let epoch = tracked.replica.config().epoch;
                    tracing::debug!(shard = %id, %epoch, "leads no more");
                    tracked.pending.clear();
                    for (_, waiter) in tracked.waiting.drain(..) {
                        context.agenda.tell(waiter, false);
                    }
                    context.agenda.has_news();
                }
            }
        }
    }
}

/// What a write has left of a key.
fn op_of(shard: &mut Shard, key: &Key<'_>, value_stays: bool, context: &mut Context<'_>) -> Bytes {
    let ops = &mut context.agenda.ops;
    let Some(item) = shard.peek(key, context.now) else { return encode_remove(ops, key.bytes()) };
    let facts = facts_of(&item);
    if value_stays {
        encode_touch(ops, key.bytes(), &facts)
    } else {
        encode_put(ops, key.bytes(), &facts, item.value.pieces(), item.value.len())
    }
}

fn facts_of(item: &store::Item<'_>) -> Facts {
    Facts {
        client_flags: item.client_flags,
        deadline: item.deadline,
        cas: item.cas,
        stale: item.stale,
        win_sent: item.win_sent,
    }
}

/// The time by which a copy's items are held to have expired: later than their deadlines by what a write is
/// ever under way. A touch that the primary carried out in time must find the item, however late it arrives;
/// reads, which only the primary answers, go by the deadline itself.
pub(crate) fn before_touches(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_sub(EXPIRY_GRACE_MS))
}

/// How much longer than its deadline a copy keeps an item that nobody asked for, in milliseconds.
const EXPIRY_GRACE_MS: u64 = 5_000;

/// Makes the store hold what a write left elsewhere.
fn apply(shard: &mut Shard, range: &HashRange, op: &[u8], now: Timestamp) {
    match Op::decode(op) {
        Ok(Op::Put { key, facts, value }) => {
            let new = Replicated {
                client_flags: facts.client_flags,
                deadline: facts.deadline,
                cas: facts.cas,
                stale: facts.stale,
                win_sent: facts.win_sent,
                value: &[value],
            };
            let key = Key::new(key);
            match shard.apply_put(&key, &new, now) {
                Applied::Stored | Applied::Expired => {}
                Applied::TooLarge | Applied::NoRoom => {
                    tracing::warn!("a copy has no room for an item of {} bytes", value.len());
                }
            }
        }
        Ok(Op::Touch { key, facts }) => {
            let key = Key::new(key);
            let marks = (facts.stale, facts.win_sent);
            shard.apply_touch(&key, facts.cas, facts.deadline, marks, now);
        }
        Ok(Op::Remove { key }) => {
            shard.apply_remove(&Key::new(key), now);
        }
        Ok(Op::Flush) => remove_all(shard, range, now),
        Ok(Op::Confirm) => {}
        Err(error) => tracing::error!("{error}"),
    }
}

fn remove_all(shard: &mut Shard, range: &HashRange, now: Timestamp) {
    let mut place = Some(RangePlace::default());
    while let Some(from) = place {
        place = shard.remove_range(range, from, u32::MAX, now);
    }
}

fn walk_all(
    shard: &mut Shard,
    range: &HashRange,
    now: Timestamp,
    mut visit: impl FnMut(KeyHash, u64),
) {
    let mut place = Some(RangePlace::default());
    while let Some(from) = place {
        place = shard.walk_range(range, from, SliceLimit::NONE, now, |met| {
            visit(met.hash, met.fingerprint());
        });
    }
}

/// Removes an item that another copy has not, unless it is another item by now.
fn drop_item(shard: &mut Shard, item: KeyStamp, now: Timestamp) {
    let mut cas = None;
    walk_all_of(shard, KeyHash(item.key_hash), now, |fingerprint, its_cas| {
        if fingerprint == item.stamp {
            cas = Some(its_cas);
        }
    });
    if let Some(cas) = cas {
        shard.remove_if_cas(KeyHash(item.key_hash), cas, now);
        // It was never the primary's: nobody needs to be told.
        shard.take_departures(&mut Departures::default());
    }
}

fn walk_all_of(shard: &mut Shard, hash: KeyHash, now: Timestamp, mut visit: impl FnMut(u64, u64)) {
    let range = HashRange::of(hash);
    shard.walk_range(&range, RangePlace::default(), SliceLimit::NONE, now, |met| {
        visit(met.fingerprint(), met.item.cas);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::pool::{Pool, Reads};
    use cluster::{Epoch, Incarnation};

    use super::*;
    use crate::clock::Now;
    use crate::config::Config;
    use crate::shards::Shards;

    const ME: Member = Member { node: NodeId(1), incarnation: Incarnation(1) };
    const OTHER: Member = Member { node: NodeId(2), incarnation: Incarnation(7) };
    const ID: ShardId = ShardId(0);
    /// Its hash's top bits are those of the shard.
    const HASH: KeyHash = KeyHash(1);
    const AT: Now = Now { unix_ms: 1_800_000_000_000 };

    /// A node that leads a shard, with one backup that has everything.
    struct Leading {
        shards: Shards,
        replication: Arc<Replication>,
    }

    impl Leading {
        fn new() -> Self {
            let shards = Shards::new(&Config::default());
            let pool = Pool::sessions();
            let replication = Arc::new(Replication::new(ME, 1024, &pool, 1, None));
            let store_shards = shards.geometry().shard_count;
            shards.join_cluster(&replication, |index| {
                Replicas::new(index, store_shards, 1024, ME, pool.ack, |_| Version::ZERO)
            });
            let this = Self { shards, replication };
            this.configure(1);
            this.step(
                0,
                Input::Received {
                    from: OTHER,
                    message: Message::Appended { epoch: Epoch(1), last: Version::ZERO },
                },
            );
            this
        }

        fn with<T>(
            &self,
            boot_ns: u64,
            act: impl FnOnce(&mut Shard, &mut Replicas, &mut Context<'_>) -> T,
        ) -> T {
            let mut agenda = Agenda::default();
            self.shards.with_replicas(0, &mut agenda, AT, boot_ns, act).unwrap()
        }

        fn step(&self, boot_ns: u64, input: Input) {
            self.with(boot_ns, |shard, replicas, context| replicas.step(shard, ID, input, context));
        }

        fn configure(&self, epoch: u32) {
            let in_sync = vec![ME, OTHER];
            let config = ShardConfig { epoch: Epoch(epoch), primary: Some(ME.node), in_sync };
            self.step(0, Input::Configured(config));
        }

        fn access(&self, boot_ns: u64) -> Access {
            self.with(boot_ns, |_, replicas, context| replicas.access(HASH, false, context))
        }

        fn restless(&self, news: u64) -> usize {
            self.with(0, |_, replicas, _| {
                let restless = replicas.restless(news);
                restless.iter().for_each(|&id| replicas.note_rest(id, Rest::Still));
                restless.len()
            })
        }
    }

    #[test]
    fn reads_are_answered_as_long_as_the_grant_lasts() {
        let leading = Leading::new();
        assert_eq!(leading.access(1), Access::Nobody, "nobody has granted anything");
        leading.replication.leases().set_held(OTHER, 100);
        let accesses = [1, 99, 100].map(|now| leading.access(now));
        assert_eq!(accesses, [Access::Granted, Access::Granted, Access::Nobody]);
        leading.replication.leases().set_held(OTHER, 200);
        assert_eq!(leading.access(199), Access::Granted);
        leading.replication.leases().set_held(OTHER, 0);
        assert_eq!(leading.access(150), Access::Nobody, "it was taken back");
    }

    #[test]
    fn a_read_that_is_confirmed_waits_for_the_copies_under_a_lease_too() {
        let leading = Leading::new();
        leading.replication.set_pool(&Pool { reads: Reads::Confirm, ..Pool::sessions() });
        leading.replication.leases().set_held(OTHER, 100);
        assert_eq!([1, 100].map(|now| leading.access(now)), [Access::Granted, Access::Nobody]);
        let is_at_once = leading.with(1, |_, replicas, context| {
            replicas.answers_at_once(HASH, context.replication, context.boot_ns)
        });
        assert!(!is_at_once, "a lease is not enough");
        let confirm = || {
            let confirm =
                |shard: &mut Shard, replicas: &mut Replicas, context: &mut Context<'_>| {
                    replicas.confirm(shard, HASH, context)
                };
            leading.with(1, confirm).expect("the other copy has not answered")
        };
        let asked = confirm();
        assert_eq!(confirm(), Sequence(asked.0 + 1), "each read asks anew");
        let message = Message::Appended { epoch: Epoch(1), last: Version::new(Epoch(1), asked) };
        leading.step(0, Input::Received { from: OTHER, message });
        let committed = leading.with(0, |_, replicas, _| replicas.get(ID).unwrap().committed());
        assert_eq!(committed, asked);
    }

    #[test]
    fn lease_of_one_epoch_says_nothing_of_the_next() {
        let leading = Leading::new();
        leading.replication.leases().set_held(OTHER, 100);
        assert_eq!(leading.access(1), Access::Granted);
        let next = Member { node: NodeId(3), incarnation: Incarnation(1) };
        let in_sync = vec![ME, next];
        let config = ShardConfig { epoch: Epoch(2), primary: Some(ME.node), in_sync };
        leading.step(1, Input::Configured(config));
        assert_eq!(leading.access(1), Access::Nobody, "the new member has granted nothing");
    }

    #[test]
    fn while_a_change_is_proposed_the_proposed_set_has_to_grant_as_well() {
        let leading = Leading::new();
        leading.replication.leases().set_held(OTHER, 100);
        assert_eq!(leading.access(1), Access::Granted);
        let next = Member { node: NodeId(3), incarnation: Incarnation(1) };
        leading.step(1, Input::StartJoin(next));
        leading.step(1, Input::FinishJoin(next.node));
        let message = Message::Joined { epoch: Epoch(1), attempt: 1, last: Version::ZERO };
        leading.step(1, Input::Received { from: next, message });
        assert_eq!(leading.access(1), Access::Nobody, "it may be in the set any moment");
        leading.replication.leases().set_held(next, 50);
        assert_eq!([49, 50].map(|now| leading.access(now)), [Access::Granted, Access::Nobody]);
    }

    #[test]
    fn pause_of_a_handover_lasts_until_the_map_says_who_leads() {
        let leading = Leading::new();
        let pauses = &leading.replication.pauses;
        leading.step(1_000, Input::HandOver(OTHER.node));
        leading.step(3_000, Input::Retry);
        assert_eq!(pauses.handed_over.count(), 0, "it stands still, for how long is not known yet");
        let config =
            ShardConfig { epoch: Epoch(2), primary: Some(OTHER.node), in_sync: vec![ME, OTHER] };
        leading.step(9_000, Input::Configured(config));
        assert_eq!((pauses.handed_over.count(), pauses.handed_over.longest_us()), (1, 8));
    }

    #[test]
    fn pause_of_a_takeover_lasts_from_the_appointment_until_the_shard_is_served() {
        let leading = Leading::new();
        let pauses = &leading.replication.pauses.taken_over;
        let led_by = |epoch, primary| ShardConfig {
            epoch: Epoch(epoch),
            primary: Some(primary),
            in_sync: vec![ME, OTHER],
        };
        leading.with(0, |shard, replicas, context| {
            replicas.order(0, shard, None, encode_flush(), context);
        });
        leading.step(1_000, Input::Configured(led_by(2, OTHER.node)));
        leading.step(20_000, Input::Configured(led_by(3, ME.node)));
        assert_eq!(pauses.count(), 0, "what it took over is not committed again yet");
        let last = Version::new(Epoch(1), Sequence(1));
        let message = Message::Appended { epoch: Epoch(3), last };
        leading.step(25_000, Input::Received { from: OTHER, message });
        assert_eq!((pauses.count(), pauses.longest_us()), (1, 5));
    }

    #[test]
    fn replica_at_rest_is_looked_at_when_it_was_told_something_or_there_are_news() {
        let leading = Leading::new();
        let all = leading.restless(1);
        assert!(all > 1, "at first, all of them");
        assert_eq!((leading.restless(1), leading.restless(2)), (0, all));
        leading.configure(2);
        assert_eq!(
            (leading.restless(2), leading.restless(2)),
            (1, 0),
            "once, to see what is wanted"
        );
        leading.with(0, |shard, replicas, context| {
            replicas.order(0, shard, None, encode_flush(), context);
        });
        assert_eq!((leading.restless(2), leading.restless(2)), (1, 1), "until the backup has it");
        let last = Version::new(Epoch(2), Sequence(1));
        let message = Message::Appended { epoch: Epoch(2), last };
        leading.step(0, Input::Received { from: OTHER, message });
        assert_eq!(leading.restless(2), 0);
    }
}
