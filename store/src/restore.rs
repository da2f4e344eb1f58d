//! From segments back to index, columns and policy: `Shard::reopen`, and `RestoreError`.
//!
//! ```text
//! stopped in order:  snapshot ──▶ index, columns, policy      every segment's checksum compared
//! killed, damaged:   segments ──▶ records ──▶ index, columns, policy      in the order of writing
//! ```
//!
//! - Of two records of one key the one with the greater sequence number counts; the other is marked
//!   dead. Two are there only if the process ended between writing the one and marking the other.
//! - A large item counts when its head and all its parts are there; what is left of another is dead.
//! - The policy hears of the items in the order in which their segments were opened: recency by the
//!   order of writing. How often an item was read is not known.

use std::collections::BTreeMap;

use eviction::{EntryId, KeyHash};

use crate::arena::Arena;
use crate::config::Config;
use crate::hash::key_hash;
use crate::log::{Location, Log, Reopening, Unusable};
use crate::record::{self, Chain};
use crate::shard::Shard;
use crate::snapshot::{Reader, SnapshotError, Writer};
use crate::time::Timestamp;

/// Records found that are looked up in the index ahead of their turn.
const PREFETCHED: usize = 16;

/// What a shard brought back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Items.
    pub items: u64,
    /// Items whose time was over.
    pub expired: u64,
    /// Stretches of damage, and large items of which a part is missing. Each is one record lost, or
    /// several that stood together.
    pub dropped_records: u64,
    /// Bytes in the stretches of damage.
    pub damaged_bytes: u64,
}

impl std::ops::AddAssign for Restored {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.expired += other.expired;
        self.dropped_records += other.dropped_records;
        self.damaged_bytes += other.damaged_bytes;
    }
}

/// Why a shard cannot go on where its snapshot says it stood. Never fatal: its segments are walked.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A segment holds other bytes than it did.
    #[error("{segments} segments were changed since the snapshot was taken")]
    Segments {
        /// How many.
        segments: u32,
    },
}

/// A record that is alive, and not yet known to the index.
struct Found {
    location: Location,
    hash: KeyHash,
}

/// The parts found of one large item, by their number.
type Parts = BTreeMap<u32, Location>;

/// What the walk found and cannot judge before its end.
#[derive(Default)]
struct Pending {
    /// Heads of large items, with the sequence number that their parts carry.
    heads: Vec<(EntryId, Location, u64)>,
    parts: BTreeMap<u64, Parts>,
}

impl Shard {
    /// A shard over the segments that another process left in `arena`, which outlives processes.
    /// `config` must have the geometry that they were written with.
    ///
    /// Nothing is believed but what a checksum confirms; what fails is dropped and counted.
    pub fn reopen(config: Config, arena: Box<dyn Arena>, now: Timestamp) -> (Self, Restored) {
        Self::reopen_paced(config, arena, now, &mut || {})
    }

    /// As [`Self::reopen`], with a call of `pace` after every segment: who has something more urgent
    /// to do can do it there.
    pub fn reopen_paced(
        config: Config,
        arena: Box<dyn Arena>,
        now: Timestamp,
        pace: &mut dyn FnMut(),
    ) -> (Self, Restored) {
        let mut shard = Self::over(config, Log::over(arena, config.shard));
        let mut restored = Restored::default();
        let mut reopening = shard.log_mut().begin_reopening();
        if reopening.flush_at.is_some_and(|at| at <= now) {
            // It came due meanwhile, or a kill interrupted it: what is left need not be searched.
            shard.log_mut().flush(&mut reopening);
        }
        shard.index_mut().reserve(reopening.entries_hint);
        let mut pending = Pending::default();
        let mut found = Vec::new();
        for segment in std::mem::take(&mut reopening.unwalked) {
            pace();
            found.clear();
            let mut twins = Vec::new();
            shard.log_mut().walk(&segment, &mut reopening, |location, record| {
                if let Chain::Part { number, .. } = record.chain() {
                    let head = u64::from_le_bytes(record.key().try_into().unwrap_or_default());
                    let before = pending.parts.entry(head).or_default().insert(number, location);
                    // Copied by the cleaner, and not yet marked: either will do.
                    twins.extend(before);
                } else {
                    found.push(Found { location, hash: key_hash(record.key()) });
                }
            });
            for twin in twins {
                shard.drop_record(twin);
            }
            for at in 0..found.len() {
                if let Some(ahead) = found.get(at + PREFETCHED) {
                    shard.prefetch_insert(ahead.hash);
                }
                shard.admit(&found[at], &mut pending, &mut restored, now);
            }
        }
        shard.join_parts(pending, &mut restored, now);
        shard.end_reopening(&mut reopening, now);
        restored.items = shard.items();
        restored.dropped_records += reopening.damages;
        restored.damaged_bytes += reopening.damaged_bytes;
        (shard, restored)
    }

    /// A shard that goes on where its snapshot says it stood, over the segments that were left in
    /// `arena`. `config` must be the one it had.
    ///
    /// # Errors
    ///
    /// Gives the arena back, to be walked, when the snapshot cannot be used or a segment was changed.
    pub fn reopen_from(
        config: Config,
        arena: Box<dyn Arena>,
        section: &[u8],
    ) -> Result<Self, (RestoreError, Box<dyn Arena>)> {
        Self::reopen_from_paced(config, arena, section, &mut || {})
    }

    /// As [`Self::reopen_from`], with a call of `pace` after every segment and every column.
    ///
    /// # Errors
    ///
    /// As [`Self::reopen_from`].
    pub fn reopen_from_paced(
        config: Config,
        arena: Box<dyn Arena>,
        section: &[u8],
        pace: &mut dyn FnMut(),
    ) -> Result<Self, (RestoreError, Box<dyn Arena>)> {
        let mut shard = Self::over(config, Log::over(arena, config.shard));
        match shard.load(section, pace) {
            Ok(()) => Ok(shard),
            Err(error) => Err((error, shard.into_arena())),
        }
    }

    /// What the segments do not say of the shard: a section of a snapshot.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut to = Writer(&mut bytes);
        self.save_parts(&mut to);
        bytes
    }

    fn load(&mut self, section: &[u8], pace: &mut dyn FnMut()) -> Result<(), RestoreError> {
        let damaged = SnapshotError::Section { shard: self.number() };
        let mut from = Reader::new(section);
        match self.log_mut().load(&mut from, pace) {
            Ok(()) => {}
            Err(Unusable::Snapshot) => return Err(damaged.into()),
            Err(Unusable::Changed { segments }) => return Err(RestoreError::Segments { segments }),
        }
        self.load_parts(&mut from, pace).ok_or(damaged)?;
        pace();
        self.load_policy(from.rest())?;
        Ok(())
    }

    fn end_reopening(&mut self, reopening: &mut Reopening, now: Timestamp) {
        reopening.write_sequences += self.sequence_ref().skipped();
        self.log_mut().end_reopening(reopening);
        self.go_on_after_walk(reopening.write_sequences, reopening.flush_at);
        self.evict_beyond_budget(now);
        self.limit_segments();
    }

    /// A record that was found becomes its key's item, unless its time is over or a newer one is
    /// there.
    fn admit(
        &mut self,
        found: &Found,
        pending: &mut Pending,
        restored: &mut Restored,
        now: Timestamp,
    ) {
        let location = found.location;
        let record = self.log_mut().record(location);
        let (sequence, deadline) = (record.sequence(), record.deadline());
        let is_chain_head = record.is_chain_head();
        if deadline.is_due(now) {
            restored.expired += 1;
            return self.drop_record(location);
        }
        if let Some(there) = self.find_record(location, self.tag_of(found.hash)) {
            if self.record(there).sequence() >= sequence {
                return self.drop_record(location);
            }
            self.delete_entry(there, now);
        }
        let id = self.insert_found(location, found.hash, now);
        if is_chain_head {
            pending.heads.push((id, location, sequence));
        }
    }

    /// Marks a record dead that no entry points at.
    fn drop_record(&mut self, location: Location) {
        let log = self.log_mut();
        let len = log.record(location).len();
        log.revive(location, len);
        log.kill(location, len);
    }

    /// Gives the large items their parts, and drops those that miss one.
    fn join_parts(&mut self, mut pending: Pending, restored: &mut Restored, now: Timestamp) {
        for (head, location, sequence) in pending.heads {
            // Superseded by a record that was found later.
            if self.location_of(head) != location {
                continue;
            }
            let parts = pending.parts.remove(&sequence).unwrap_or_default();
            let bytes = |&part: &Location| u64::from(self.log().record(part).value_bytes());
            let record = self.log().record(location);
            let first = u64::from(record.value_bytes());
            let whole = first + parts.values().map(bytes).sum::<u64>();
            let in_order = parts.keys().zip(1..).all(|(&number, expected)| number == expected);
            if in_order && whole == u64::from(record.item_value_bytes()) {
                self.link_parts(head, parts.into_values());
            } else {
                restored.dropped_records += 1;
                self.delete_entry(head, now);
                pending.parts.insert(sequence, parts);
            }
        }
        for part in pending.parts.into_values().flat_map(BTreeMap::into_values) {
            self.drop_record(part);
        }
    }

    fn link_parts(&mut self, head: EntryId, locations: impl Iterator<Item = Location>) {
        let mut parts = Vec::new();
        for location in locations {
            let len = self.log().record(location).len();
            let part = self.entries().allocate(0, location);
            self.log_mut().revive(location, len);
            record::set_part_entry(self.log_mut().record_mut(location), part.0);
            parts.push(part);
        }
        self.insert_chain(head, parts.into_boxed_slice());
    }
}
