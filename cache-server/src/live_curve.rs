//! The hit ratio at other sizes of `-m`, told from the server's own traffic while it serves.
//!
//! ```text
//! workers ──one comparison a request──▶ samples of each shard, under its lock, bounded
//!                                            │ ten times a second: the maintenance thread
//!                                            ▼
//!                                   eviction::live_curve, one for all shards ──▶ `stats mrc`, the admin port
//! ```
//!
//! - It is LRU's curve, whatever the policy: LRU is the policy whose hits at all sizes follow from one stack.
//!   What the server itself hits stands beside it.
//! - **Sizes are `-m`.** A size in bytes of footprint is what [`Geometry`] leaves of that `-m` for items.
//! - **It costs little.** At most 8,192 objects are kept, and at most an eighth of all is looked at. Where
//!   more comes than the shards have room for, three rounds on end, half as many are looked at from then
//!   on, so the work of a round is bounded however fast requests come.
//! - **It takes little memory**: at most 1 MiB, and 12 KiB a shard. `stats mrc` says how much.

use std::sync::Arc;

use eviction::live_curve::{self as curve, Basis, HALF_LIFE_S, Served};
use parking_lot::Mutex;
use store::{Geometry, Samples};

use crate::admin::model::{Mrc, MrcPoint};
use crate::clock::Now;
use crate::config::Config;
use crate::shards::Shards;

/// The most objects that are kept.
const OBJECTS_MAX: usize = 8192;

/// The largest share of all objects that is looked at.
const SHARE_MAX: f64 = 1.0 / 8.0;

/// Uses that a shard has room for between two rounds.
const USES_MAX: usize = 512;

/// Rounds on end that uses are lost in before fewer are looked at: a round may come late.
const CROWDED_ROUNDS_MAX: u32 = 3;

/// Sizes that are told, in quarters of the present `-m`.
const QUARTERS: [u64; 10] = [2, 3, 4, 5, 6, 8, 12, 16, 24, 32];

/// The curve of a server's traffic.
#[derive(Debug)]
pub struct LiveCurve {
    shards: Arc<Shards>,
    item_bytes_max: u64,
    threads: u32,
    policy: eviction::Kind,
    /// `None` where it is switched off.
    state: Option<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    curve: curve::LiveCurve,
    /// What the next shard goes on with.
    spare: Samples,
    memory_bytes: u64,
    crowded_rounds: u32,
    lost: u64,
}

impl LiveCurve {
    /// The curve of what `shards` serve from `now` on.
    pub fn new(shards: Arc<Shards>, config: &Config, now: Now) -> Self {
        let memory_bytes = shards.memory_bytes();
        let mut live = Self {
            shards,
            item_bytes_max: config.item_bytes_max as u64,
            threads: u32::try_from(config.threads.get()).unwrap_or(u32::MAX),
            policy: config.eviction,
            state: None,
        };
        if config.live_curve {
            let size_max = live.items_bytes(largest(memory_bytes));
            let spec = curve::Spec { objects_max: OBJECTS_MAX, share_max: SHARE_MAX, size_max };
            let curve = curve::LiveCurve::new(spec, seconds(now));
            let spare = Samples::new(curve.threshold(), USES_MAX);
            let state = State { curve, spare, memory_bytes, crowded_rounds: 0, lost: 0 };
            live.state = Some(Mutex::new(state));
            live.round(now);
        }
        live
    }

    /// Takes what the shards noted into account, and tells them which keys to note from now on.
    pub fn round(&self, now: Now) {
        if let Some(state) = &self.state {
            self.advance(&mut state.lock(), now);
        }
    }

    fn advance(&self, state: &mut State, now: Now) {
        let mut lost = 0;
        for index in 0..self.shards.geometry().shard_count {
            let Some(mut shard) = self.shards.lock_nth_if_back(index) else { continue };
            let threshold = state.curve.threshold();
            let mut spare = std::mem::take(&mut state.spare);
            spare.begin(threshold);
            let samples = shard.exchange_samples(spare);
            drop(shard);
            lost += samples.lost;
            self.take(state, index, samples);
        }
        let memory_bytes = self.shards.memory_bytes();
        if memory_bytes != state.memory_bytes {
            state.memory_bytes = memory_bytes;
            state.curve.set_size_max(self.items_bytes(largest(memory_bytes)));
        }
        state.curve.end_round(seconds(now));
        state.lost += lost;
        state.crowded_rounds = if lost > 0 { state.crowded_rounds + 1 } else { 0 };
        if state.crowded_rounds >= CROWDED_ROUNDS_MAX {
            state.crowded_rounds = 0;
            state.curve.thin_out();
        }
    }

    /// Takes what shard `index` noted into account, and keeps the room that it was noted in.
    fn take(&self, state: &mut State, index: u32, samples: Samples) {
        if samples.is_cleared {
            let geometry = self.shards.geometry();
            state.curve.flush(|key| geometry.shard_of(key) == index);
        }
        for &used in &samples.uses {
            state.curve.note(used);
        }
        state.curve.serve(Served { reads: samples.reads as f64, hits: samples.hits as f64 });
        state.spare = samples;
        if state.spare.uses.capacity() < USES_MAX {
            // A shard begins without.
            state.spare = Samples::new(0, USES_MAX);
        }
    }

    /// Counts anew from now on.
    pub fn reset(&self) {
        if let Some(state) = &self.state {
            let mut state = state.lock();
            state.curve.reset();
            state.lost = 0;
        }
    }

    /// The curve as it is; `None` where it is switched off.
    pub fn tell(&self, now: Now) -> Option<Mrc> {
        let mut state = self.state.as_ref()?.lock();
        self.advance(&mut state, now);
        let Basis { served, sampled, objects, share, since_s } = state.curve.basis();
        let memory_bytes = state.memory_bytes;
        let memory = QUARTERS.map(|quarters| memory_bytes / 4 * quarters);
        let sizes = memory.map(|memory_bytes| self.items_bytes(memory_bytes));
        let points = state.curve.points(&sizes);
        let points = memory.iter().zip(&sizes).zip(&points);
        Some(Mrc {
            memory_bytes,
            policy: self.policy.name().to_owned(),
            requests: rounded(served.reads),
            hit_ratio: if served.reads > 0.0 { served.hits / served.reads } else { 0.0 },
            sampled_requests: rounded(sampled),
            sampled_objects: objects as u64,
            sampled_share: share,
            lost: state.lost,
            bytes: (state.curve.bytes() + self.room_bytes()) as u64,
            seconds: seconds(now).saturating_sub(since_s),
            half_life_seconds: HALF_LIFE_S,
            points: points
                .map(|((&memory_bytes, &items_bytes), point)| {
                    let (low, high) = point.band();
                    MrcPoint { memory_bytes, items_bytes, hit_ratio: point.hit_ratio, low, high }
                })
                .collect(),
        })
    }

    /// What the shards note in, in bytes, and the room that they exchange it for.
    fn room_bytes(&self) -> usize {
        let rooms = self.shards.geometry().shard_count as usize + 1;
        rooms * USES_MAX * size_of::<curve::Use>()
    }

    /// What a server with this `-m` has for items, in footprints.
    fn items_bytes(&self, memory_bytes: u64) -> u64 {
        let geometry = Geometry::new(memory_bytes, self.item_bytes_max, self.threads);
        u64::from(geometry.shard_count) * geometry.items_bytes_max()
    }
}

/// The largest `-m` that is told.
fn largest(memory_bytes: u64) -> u64 {
    memory_bytes / 4 * QUARTERS[QUARTERS.len() - 1]
}

fn seconds(now: Now) -> u32 {
    u32::try_from(now.unix_seconds()).unwrap_or(u32::MAX)
}

fn rounded(count: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, far below 2^53"
    )]
    let rounded = count.round() as u64;
    rounded
}
