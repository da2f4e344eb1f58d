//! What the shard protocol itself costs a write: ordered, sent, appended, acknowledged, committed.
//!
//! All that a node leads, over as many shards as a cluster has, and in batches as a turn has them, so that the
//! shards' own memory is as cold as it is in a server.

use std::hint::black_box;

use bytes::Bytes;
use cluster::map::ShardConfig;
use cluster::message::Message;
use cluster::pool::Ack;
use cluster::shard::{Effect, Grants, Input, Replica};
use cluster::{Epoch, Incarnation, Member, NodeId, ShardId, Version};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SHARDS: u16 = 1024;
const WRITES: u64 = 4096;
/// Writes of one turn: ordered all, before the first is acknowledged.
const TURN: usize = 64;
const OP: &[u8] = &[b'o'; 150];

const PRIMARY: Member = Member { node: NodeId(1), incarnation: Incarnation(1) };
const BACKUP: Member = Member { node: NodeId(2), incarnation: Incarnation(1) };

/// Everybody has promised everything.
struct Granted;

impl Grants for Granted {
    fn binds_towards(&self, _: NodeId) -> bool {
        true
    }
    fn holds_from(&self, _: Member) -> bool {
        true
    }
}

/// Two nodes: one leads every shard, the other follows.
struct Pair {
    leading: Vec<Replica>,
    following: Vec<Replica>,
    effects: Vec<Effect>,
    to_backup: Vec<(usize, Message)>,
    to_primary: Vec<(usize, Message)>,
    committed: u64,
}

impl Pair {
    fn new() -> Self {
        let all_of = |me: Member| -> Vec<Replica> {
            (0..SHARDS).map(|id| Replica::new(ShardId(id), me, Ack::All, Version::ZERO)).collect()
        };
        let mut this = Self {
            leading: all_of(PRIMARY),
            following: all_of(BACKUP),
            effects: Vec::new(),
            to_backup: Vec::new(),
            to_primary: Vec::new(),
            committed: 0,
        };
        let in_sync = vec![PRIMARY, BACKUP];
        let config = ShardConfig { epoch: Epoch(1), primary: Some(PRIMARY.node), in_sync };
        for index in 0..usize::from(SHARDS) {
            let configured = || Input::Configured(config.clone());
            this.following[index].step(configured(), &Granted, &mut this.effects);
            this.leading[index].step(configured(), &Granted, &mut this.effects);
            this.route(index);
        }
        this.exchange();
        assert!(this.leading.iter().all(Replica::is_serving), "every shard is led");
        this
    }

    /// Takes effects to where they belong.
    fn route(&mut self, shard: usize) {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Send { to, message } if to == BACKUP.node => {
                    self.to_backup.push((shard, message));
                }
                Effect::Send { message, .. } => self.to_primary.push((shard, message)),
                Effect::Apply(entry) => drop(black_box(entry)),
                Effect::Committed(_) => self.committed += 1,
                Effect::Propose(_) | Effect::Serves | Effect::Deposed => {}
            }
        }
    }

    /// Delivers everything, there and back.
    fn exchange(&mut self) {
        let mut messages = std::mem::take(&mut self.to_backup);
        for (shard, message) in messages.drain(..) {
            let input = Input::Received { from: PRIMARY, message };
            self.following[shard].step(input, &Granted, &mut self.effects);
            self.route(shard);
        }
        self.to_backup = messages;
        let mut messages = std::mem::take(&mut self.to_primary);
        for (shard, message) in messages.drain(..) {
            let input = Input::Received { from: BACKUP, message };
            self.leading[shard].step(input, &Granted, &mut self.effects);
            self.route(shard);
        }
        self.to_primary = messages;
    }

    fn write(&mut self, shards: &[usize]) {
        for turn in shards.chunks(TURN) {
            for &shard in turn {
                self.leading[shard].write(Bytes::from_static(OP), &mut self.effects);
                self.route(shard);
            }
            self.exchange();
        }
    }
}

fn replicate(criterion: &mut Criterion) {
    let mut pair = Pair::new();
    let mut random = StdRng::seed_from_u64(7);
    let mut group = criterion.benchmark_group("replica");
    group.throughput(Throughput::Elements(WRITES));
    group.bench_function("write-committed", |bencher| {
        bencher.iter_batched(
            || (0..WRITES).map(|_| random.random_range(0..usize::from(SHARDS))).collect(),
            |shards: Vec<usize>| {
                let before = pair.committed;
                pair.write(&shards);
                assert!(pair.committed > before, "what was written is committed");
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, replicate);
criterion_main!(benches);
