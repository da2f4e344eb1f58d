//! The thread that brings other nodes' copies to this one's.
//!
//! ```text
//! what a joiner has ──> Join, the live stream begins ──> slices: what it lacks ──> what it has too much ──> Complete
//!                       all on the lane of the shard, in this order, each slice under the shard's lock
//! ```
//!
//! - The joiner applies what comes in the order in which it comes, and that is the order in which this node's
//!   items had it: so its copy is right when the last has come, whatever was written meanwhile.
//! - A slice is short, and between two the lock is free: clients hardly notice. A joiner that takes nothing is
//!   waited for.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cluster::shard::Input;
use cluster::{Epoch, Member, NodeId, ShardId};
use store::RangePlace;

use super::control::stamps;
use crate::clock::{Clock, boot_ns, pause};
use crate::replication::replicas::Sent;
use crate::replication::wire::{KeyStamp, LaneMessage};
use crate::replication::{Agenda, Replication, ReplicationCounters};
use crate::shards::Shards;

/// A joiner is waited for while this many bytes are on their way to it.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// How far the copy of a shard on its way to a node is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// What was sent.
    pub(super) sent: Sent,
    /// Whether that was all.
    pub(super) is_all: bool,
}

/// Copies that were begun. Whoever looks at them forgets those that are over.
type Begun = Arc<parking_lot::Mutex<BTreeMap<(ShardId, NodeId), Progress>>>;

/// The thread.
pub(super) struct Joins {
    begun: Begun,
    replication: Arc<Replication>,
    is_stopping: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Work {
    shards: Arc<Shards>,
    replication: Arc<Replication>,
    clock: Clock,
    begun: Begun,
    is_stopping: Arc<AtomicBool>,
}

impl Joins {
    /// Starts the thread; without one nobody joins, and that is logged.
    pub(super) fn start(shards: Arc<Shards>, replication: Arc<Replication>, clock: Clock) -> Self {
        let (sender, joiners) = mpsc::channel();
        replication.set_joiners(Some(sender));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let begun = Begun::default();
        let work = Work {
            shards,
            replication: Arc::clone(&replication),
            clock,
            begun: Arc::clone(&begun),
            is_stopping: Arc::clone(&is_stopping),
        };
        let thread = thread::Builder::new().name("joins".into()).spawn(move || work.run(&joiners));
        if let Err(error) = &thread {
            tracing::error!("no copy can be brought in sync: {error}");
        }
        Self { begun, replication, is_stopping, thread: Mutex::new(thread.ok()) }
    }

    /// How far each of these joins is; `None` where the joiner was not sent anything yet. All others are
    /// forgotten.
    pub(super) fn progress(
        &self,
        joins: impl Iterator<Item = (ShardId, NodeId)>,
    ) -> Vec<(ShardId, NodeId, Option<Progress>)> {
        let mut begun = self.begun.lock();
        let before = std::mem::take(&mut *begun);
        let known = joins.map(|(shard, node)| (shard, node, before.get(&(shard, node)).copied()));
        let known: Vec<_> = known.collect();
        begun.extend(known.iter().filter_map(|&(shard, node, it)| Some(((shard, node), it?))));
        known
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        // What it waits for comes no more.
        self.replication.set_joiners(None);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the joins thread met a bug, please report it");
        }
    }
}

impl Progress {
    fn add(&mut self, sent: Sent) {
        self.sent.items += sent.items;
        self.sent.bytes += sent.bytes;
    }
}

impl Work {
    fn run(&self, joiners: &mpsc::Receiver<(Member, LaneMessage)>) {
        for (member, message) in joiners {
            if self.is_stopping.load(Ordering::Acquire) {
                return;
            }
            if let LaneMessage::IHave { shard, epoch, items, .. } = message {
                self.bring_in(member, shard, epoch, &items);
            }
        }
    }

    fn bring_in(&self, member: Member, id: ShardId, epoch: Epoch, items: &[KeyStamp]) {
        let slot = self.shards.of_cluster_shard(id, self.replication.shard_count());
        let mut has = stamps(items);
        let mut agenda = Agenda::default();
        let mut place = RangePlace::default();
        let began = self.shards.with_replicas(
            slot,
            &mut agenda,
            self.clock.now(),
            boot_ns(),
            |shard, replicas, context| {
                // An answer to a question of another time says nothing of what the joiner has now.
                if replicas.get(id).is_none_or(|replica| replica.config().epoch != epoch) {
                    return false;
                }
                replicas.step(shard, id, Input::StartJoin(member), context);
                replicas.get(id).is_some_and(|replica| replica.joiners().contains(&member))
            },
        );
        agenda.carry_out(&self.replication, None, |_, _| {});
        if began != Some(true) {
            return;
        }
        let mut progress = Progress::default();
        while !progress.is_all && !self.is_stopping.load(Ordering::Acquire) {
            if self.replication.lanes().backlog_bytes(member.node) > BACKLOG_BYTES_MAX {
                pause(Duration::from_millis(2));
                continue;
            }
            let went_on = self.shards.with_replicas(
                slot,
                &mut agenda,
                self.clock.now(),
                boot_ns(),
                |shard, replicas, context| {
                    // Given up meanwhile: the connection was lost, or another leads.
                    if !replicas.get(id).is_some_and(|it| it.joiners().contains(&member)) {
                        return false;
                    }
                    match replicas.send_missing(shard, id, member.node, place, &mut has, context) {
                        ControlFlow::Continue((next, sent)) => {
                            place = next;
                            progress.add(sent);
                        }
                        ControlFlow::Break(sent) => {
                            progress.add(sent);
                            progress.is_all = true;
                            let left = has.iter();
                            let left = left.map(|(&key_hash, &stamp)| KeyStamp { key_hash, stamp });
                            let left: Vec<KeyStamp> = left.collect();
                            for part in left.chunks(4096) {
                                let drop = LaneMessage::Drop(id, part.to_vec());
                                replicas.say(member.node, &drop, context);
                            }
                            replicas.step(shard, id, Input::FinishJoin(member.node), context);
                        }
                    }
                    true
                },
            );
            agenda.carry_out(&self.replication, None, |_, _| {});
            if went_on != Some(true) {
                return;
            }
            self.begun.lock().insert((id, member.node), progress);
        }
        let counters = &self.replication.counters;
        let Sent { items, bytes } = progress.sent;
        ReplicationCounters::add(&counters.bytes_sent_to_joiners, bytes);
        ReplicationCounters::add(&counters.joins_completed, 1);
        tracing::debug!(shard = %id, node = %member.node, items, bytes, "copy sent");
    }
}
