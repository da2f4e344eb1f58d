//! `Shard`: one single-threaded cache; the only file that sees all those below.
//!
//! ```text
//!              key ──hash──▶ index ──▶ entry ──▶ columns ──location──▶ record in the log
//! policy ranks entries            budget counts footprints            cleaner frees segments
//! ```
//!
//! - Every entry in the index is known to the policy and counted in the budget, and the other way
//!   round. Parts of large items are neither.
//! - Eviction happens when the budget says so, before a write; the log's room follows, since live
//!   records are held to a share of it. Only when that fails does the log ask for victims.

use eviction::{EntryId, KeyHash, Kind, Policy};

use crate::arena::{Arena, HeapArena};
use crate::budget::Budget;
use crate::changed_keys::KeyNotes;
use crate::changes::ChangedGroups;
use crate::chunks::{Chains, Value, range};
use crate::cleaner::{Cleaner, Progress};
use crate::config::{Config, Geometry};
use crate::counters::Counters;
use crate::departures::{DepartureNotes, DepartureReason};
use crate::entries::{Entries, Expiry, state};
use crate::hash::{Tagging, key_hash};
use crate::index::Index;
use crate::log::{Location, Log, Place, Stream};
use crate::prefetch::prefetch_address;
use crate::put::{NewItem, Precondition, PutOutcome};
use crate::ranking::Ranking;
use crate::recency::Uses;
use crate::record::{
    self, COLUMN_BYTES, Chain, Footprint, Header, PART_KEY_BYTES, SHARD_OVERHEAD_BYTES, Seal,
    Shape, Standing, VALUE_BYTES_MAX, entry_bytes, footprint, padded,
};
use crate::samples::Samples;
use crate::sequence::Sequence;
use crate::size_counts::SizeCounts;
use crate::snapshot::{Reader, SnapshotError, Writer};
use crate::time::{Deadline, Timestamp};
use crate::victims::VictimNotes;

/// Free segments that only the cleaner may open: it needs somewhere to move records to.
const SEGMENTS_RESERVED: u32 = 1;
/// The cleaner works between writes when fewer segments than this are free.
const SEGMENTS_LOW: u32 = 3;
/// Segments cleaned for one record before an item is evicted instead. Cleaning stops to be worth it
/// where segments are fifteen sixteenths full, so that many of them gain one.
const CLEANED_AT_ONCE_MAX: u32 = 16;
/// Of items that another node may be just touching none has expired before so much more time.
const COPIES_GRACE_MS: u64 = 5_000;
/// An item read within so many seconds before its eviction counts as active.
const ACTIVE_SECS: u32 = 60;
/// A scratch buffer that grew beyond this is given back.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

/// A key, and its hash, computed once.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    bytes: &'a [u8],
    hash: KeyHash,
}

impl<'a> Key<'a> {
    /// Hashes a key of 1 to 250 bytes.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        debug_assert!((1..=250).contains(&bytes.len()), "the protocol checked the length");
        Self { bytes, hash: key_hash(bytes) }
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The key's hash; [`crate::Geometry::shard_of`] picks its shard.
    #[inline]
    pub fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// An item as a reader sees it.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// Opaque to the server.
    pub client_flags: u32,
    /// Changes with every write of the item.
    pub cas: u64,
    /// When the item expires.
    pub deadline: Deadline,
    /// Whether it was read before this read.
    pub fetched: bool,
    /// Seconds since it was used before this read.
    pub idle_secs: u32,
    /// Whether a client marked it stale.
    pub stale: bool,
    /// Whether a client was told to compute it again.
    pub win_sent: bool,
    /// The value.
    pub value: Value<'a>,
}

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// No item of this key.
    Nothing,
    /// One whose time is over.
    Expired,
    /// An item.
    Item {
        /// The length of its value.
        value_bytes: u64,
    },
}

/// How far into the chain of what a read touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchDepth {
    /// The bucket of the index.
    Index,
    /// The columns of the entry, the policy's too.
    Columns,
    /// The record.
    Record,
}

impl PrefetchDepth {
    /// All, in the order in which they depend on each other.
    pub const ALL: [Self; 3] = [Self::Index, Self::Columns, Self::Record];
}

/// A shard's segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Segments that hold memory.
    pub resident: u32,
    /// Of these, the free ones.
    pub free: u32,
    /// Size of a segment in bytes.
    pub bytes: u32,
}

/// Why an entry leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Deleted,
    Expired,
    Evicted,
    /// To make room where another copy of the shard is.
    EvictedElsewhere,
    /// What was to replace it could not be written.
    Unwritten,
}

impl Leaving {
    /// How whoever keeps a copy of the shard hears of it, unless it is by what was asked for.
    fn departure(self) -> Option<DepartureReason> {
        match self {
            Self::Deleted => None,
            Self::Expired => Some(DepartureReason::Expired),
            Self::Evicted | Self::EvictedElsewhere => Some(DepartureReason::Evicted),
            Self::Unwritten => Some(DepartureReason::Unwritten),
        }
    }
}

/// What a record says of an item besides its key and value, before it has a place in the log.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) client_flags: u32,
    pub(crate) deadline: Deadline,
    pub(crate) own_cas: Option<u64>,
    /// Whether a client marked the item stale.
    pub(crate) stale: bool,
    /// The number of the write that makes the record; the item's cas if it has no own.
    pub(crate) sequence: u64,
}

/// Where an item's records came to stand.
struct Written {
    location: Location,
    /// The entries of a large item's further parts.
    parts: Option<Box<[EntryId]>>,
}

/// How room is made.
#[derive(Clone, Copy, Debug)]
enum WayOut {
    /// The policy has given this entry up.
    Victim(EntryId),
    /// Items that had expired were removed: there may be room now.
    Swept,
    /// There is none.
    None,
}

/// No room could be made for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    TooLarge,
    OutOfMemory,
}

/// One single-threaded cache.
pub struct Shard {
    config: Config,
    log: Log,
    index: Index,
    entries: Entries,
    chains: Chains,
    ranking: Ranking,
    budget: Budget,
    cleaner: Cleaner,
    tagging: Tagging,
    counters: Counters,
    /// The numbers of writes; the next item's cas.
    sequence: Sequence,
    /// No number from here on has been handed out, whatever a kill leaves of the records.
    sequences_reserved: u64,
    columns_generation: u64,
    /// Everything present at this time is to go.
    flush_at: Option<Timestamp>,
    /// Where the expiry sweep goes on.
    pub(crate) sweep_at: u32,
    /// The second in which all was swept last, before anything protected was evicted.
    swept_for_protected: u32,
    scratch: Vec<u8>,
    departures: DepartureNotes,
    victims: VictimNotes,
    uses: Uses,
    samples: Samples,
    /// Whether an item was changed because a caller asked; see [`Shard::take_changed`].
    is_changed: bool,
    changed_groups: ChangedGroups,
    changed_keys: KeyNotes,
}

impl Shard {
    /// An empty shard in anonymous memory. Memory is reserved now and becomes resident as it is
    /// used.
    pub fn new(config: Config) -> Self {
        let geometry = config.geometry;
        let arena = HeapArena::new(geometry.segment_bytes, geometry.segment_count());
        Self::with_arena(config, Box::new(arena))
    }

    /// An empty shard over the segments of `arena`, whatever they hold.
    pub fn with_arena(config: Config, arena: Box<dyn Arena>) -> Self {
        let mut shard = Self::over(config, Log::new(arena, config.shard));
        shard.limit_segments();
        shard
    }

    /// A shard over a log, without an entry.
    pub(crate) fn over(config: Config, log: Log) -> Self {
        let policy_bytes = config.policy_bytes();
        let budget = Budget::new(config.geometry.items_bytes_max(), entry_bytes(policy_bytes));
        let entries_max = entries_max(&config);
        Self {
            log,
            index: Index::new(),
            entries: Entries::new(entries_max),
            chains: Chains::default(),
            ranking: Ranking::new(&config, budget.bytes_max(), entries_max),
            budget,
            cleaner: Cleaner::new(config.geometry.tagging()),
            tagging: config.geometry.tagging(),
            counters: Counters::default(),
            sequence: Sequence::of_shard(config.shard, config.geometry.shard_count),
            sequences_reserved: 0,
            columns_generation: 0,
            flush_at: None,
            sweep_at: 0,
            swept_for_protected: 0,
            scratch: Vec::new(),
            is_changed: false,
            changed_groups: ChangedGroups::default(),
            changed_keys: KeyNotes::default(),
            departures: DepartureNotes::default(),
            victims: VictimNotes::default(),
            uses: Uses::default(),
            samples: Samples::default(),
            config,
        }
    }

    /// Reads an item: a hit for the policy.
    #[inline]
    pub fn get(&mut self, key: &Key<'_>, now: Timestamp) -> Option<Item<'_>> {
        let found = self.find(key, now);
        if self.samples.count_read(key.hash, found.is_some()) {
            self.sample_read(key.hash, found);
        }
        let id = found?;
        let before = self.mark_used(id, now);
        self.entries.set_state(id, before.state | state::FETCHED);
        self.uses.note(key.hash);
        Some(self.item(id, before))
    }

    /// Asks the processor to fetch what a read of `key` will touch at `depth`, provided that the
    /// depths before were asked for. Changes nothing, and may fetch what turns out another's.
    #[inline]
    pub fn prefetch(&self, key: &Key<'_>, depth: PrefetchDepth) {
        match depth {
            PrefetchDepth::Index => self.index.prefetch(self.tag_of(key.hash)),
            PrefetchDepth::Columns => {
                if let Some(id) = self.index.first(self.tag_of(key.hash)) {
                    self.entries.prefetch(id);
                    self.ranking.prefetch_hit(id);
                }
            }
            PrefetchDepth::Record => {
                if let Some(id) = self.index.first(self.tag_of(key.hash)) {
                    self.log.prefetch(self.entries.location(id));
                }
            }
        }
    }

    /// Reads an item without the policy hearing of it, and without counting it as read.
    pub fn peek(&mut self, key: &Key<'_>, now: Timestamp) -> Option<Item<'_>> {
        let id = self.find(key, now)?;
        let before = self.usage(id, now);
        Some(self.item(id, before))
    }

    /// What a lookup of `key` is about to find. Changes nothing.
    pub fn look(&self, key: &Key<'_>, now: Timestamp) -> Look {
        if self.flush_at.is_some_and(|at| at <= now) {
            return Look::Nothing;
        }
        match self.find_there(key) {
            None => Look::Nothing,
            Some(id) if self.is_due(id, now) => Look::Expired,
            Some(id) => Look::Item { value_bytes: self.record(id).item_value_bytes().into() },
        }
    }

    /// What an item costs of the shard's memory in bytes, overhead included.
    pub fn footprint_bytes(&mut self, key: &Key<'_>, now: Timestamp) -> Option<u64> {
        let id = self.find(key, now)?;
        Some(self.footprint(self.record(id).shape()).bytes())
    }

    /// Writes an item if its precondition holds.
    pub fn put(
        &mut self,
        key: &Key<'_>,
        new: &NewItem<'_>,
        precondition: Precondition,
        now: Timestamp,
    ) -> PutOutcome {
        let old = self.find(key, now);
        let mut fields = Fields {
            client_flags: new.client_flags,
            deadline: new.deadline,
            own_cas: new.own_cas,
            stale: false,
            sequence: 0,
        };
        let mut marks = 0;
        match (precondition, old) {
            (Precondition::None, _)
            | (Precondition::Absent, None)
            | (Precondition::Present, Some(_)) => {}
            (Precondition::Absent, Some(old)) => {
                // As in memcached, asking to add what is there counts as a use of it.
                self.mark_used(old, now);
                return PutOutcome::NotStored;
            }
            (Precondition::Present, None) => return PutOutcome::NotStored,
            (Precondition::Cas(_) | Precondition::CasOrStale(_), None) => {
                return PutOutcome::NotFound;
            }
            (Precondition::Cas(expected), Some(old)) => {
                if self.record(old).cas() != expected {
                    return PutOutcome::Exists;
                }
            }
            (Precondition::CasOrStale(expected), Some(old)) => {
                let cas = self.record(old).cas();
                if expected > cas {
                    return PutOutcome::Exists;
                }
                if expected < cas {
                    fields.deadline = self.record(old).deadline();
                    fields.stale = true;
                    marks = self.entries.state(old) & state::WIN_SENT;
                }
            }
        }
        fields.sequence = self.next_sequence();
        let cas = fields.own_cas.unwrap_or(fields.sequence);
        if fields.deadline.is_due(now) {
            // Stored and expired in the same moment.
            if let Some(old) = old {
                self.remove(old, Leaving::Deleted, now);
            }
            self.sample_delete(key.hash);
            self.counters.items_stored += 1;
            return PutOutcome::Stored { cas };
        }
        match self.store(key, old, fields, new.value, now) {
            Ok(id) => {
                self.add_marks(id, marks);
                self.counters.items_stored += 1;
                PutOutcome::Stored { cas }
            }
            Err(no_room) => {
                // A client whose write failed must not read the value before it. As in memcached this
                // goes for an unconditional write alone.
                if precondition == Precondition::None {
                    self.remove_unwritten(key, now);
                }
                match no_room {
                    NoRoom::TooLarge => PutOutcome::TooLarge,
                    NoRoom::OutOfMemory => PutOutcome::OutOfMemory,
                }
            }
        }
    }

    /// Forgets all items at `at`: now, when that is not in the future. A later call replaces an
    /// earlier one that has not come due.
    pub fn flush_all(&mut self, at: Timestamp, now: Timestamp) {
        self.flush_at = Some(at);
        self.log.set_flush_at(self.flush_at);
        self.changed_groups = ChangedGroups::ALL;
        self.flush_if_due(now);
    }

    /// When everything present is to go, if a flush was asked for that has not come yet.
    pub fn flush_to_come(&self) -> Option<Timestamp> {
        self.flush_at
    }

    /// Whether a caller's request has changed an item since the last call: written, touched, marked or
    /// deleted it. What leaves by itself does not count.
    #[inline]
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    #[inline]
    pub(crate) fn changed_groups_mut(&mut self) -> &mut ChangedGroups {
        &mut self.changed_groups
    }

    #[inline]
    pub(crate) fn key_notes(&self) -> &KeyNotes {
        &self.changed_keys
    }

    #[inline]
    pub(crate) fn key_notes_mut(&mut self) -> &mut KeyNotes {
        &mut self.changed_keys
    }

    pub(crate) fn note_changed(&mut self) {
        self.is_changed = true;
    }

    /// Items resident now, expired ones that were not met yet included.
    pub fn items(&self) -> u64 {
        self.budget.items()
    }

    /// Footprints of the resident items, and the most they may come to, in bytes.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn budget_mut(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters { moved_bytes: self.cleaner.moved_bytes(), ..self.counters }
    }

    /// The policy in force.
    pub fn policy(&self) -> Kind {
        self.config.policy
    }

    /// Ranks the resident entries by another policy from now on, starting from the order in which
    /// the policy before would have evicted them.
    pub fn set_policy(&mut self, kind: Kind, now: Timestamp) {
        self.config.policy = kind;
        self.rebuild();
        // The new policy's columns may cost more for each entry.
        self.evict_beyond_budget(now);
    }

    /// Gives the shard another amount of memory. What does not fit any more is evicted, and the
    /// segments it was in are given back once they are cleaned.
    pub fn set_geometry(&mut self, geometry: Geometry, now: Timestamp) {
        assert_eq!(geometry.segment_bytes, self.config.geometry.segment_bytes, "segments stay");
        self.config.geometry = geometry;
        self.log.grow(geometry.segment_count());
        self.rebuild();
        self.evict_beyond_budget(now);
        self.limit_segments();
        // Each step frees a segment and may fill a part of another, so this many are plenty.
        for _ in 0..2 * self.log.resident_segments() {
            if !self.log.is_beyond_limit() {
                break;
            }
            let (log, index, entries) = (&mut self.log, &self.index, &mut self.entries);
            if self.cleaner.step(log, index, entries, u32::MAX) == Progress::Stuck {
                break;
            }
            self.limit_segments();
        }
    }

    /// Evicts what the budget has no room for any more. What leaves gives its columns back only with
    /// the next building of them, so they are built once more.
    pub(crate) fn evict_beyond_budget(&mut self, now: Timestamp) {
        let mut evicted = false;
        while self.budget.used_bytes() > self.budget.bytes_max() {
            let Some(victim) = self.ranking.evict_any() else { break };
            self.remove(victim, Leaving::Evicted, now);
            evicted = true;
        }
        if evicted {
            self.rebuild();
        }
    }

    /// Bytes that the shard's segments, index and columns hold resident, at most.
    pub fn resident_bytes(&self) -> u64 {
        let segments = u64::from(self.log.resident_segments());
        segments * u64::from(self.log.segment_bytes()) + self.metadata_bytes()
    }

    /// Segments in memory and of these the free ones, and the size of each in bytes.
    pub fn segments(&self) -> Segments {
        Segments {
            resident: self.log.resident_segments(),
            free: self.log.free_resident_segments(),
            bytes: self.log.segment_bytes(),
        }
    }

    /// Memory of the index in bytes.
    pub fn index_bytes(&self) -> u64 {
        self.index.bytes() as u64
    }

    /// The longest time in seconds since the last use among the items of the first `entries_max` entries.
    pub fn longest_idle_secs(&self, entries_max: u32, now: Timestamp) -> u32 {
        let ids = (0..entries_max.min(self.entries.high())).map(EntryId);
        let items = ids.filter(|id| self.footprint_of_item(*id).is_some());
        items.map(|id| self.usage(id, now).idle_secs).max().unwrap_or(0)
    }

    /// Ids of entries handed out so far.
    pub fn entries_high(&self) -> u32 {
        self.entries.high()
    }

    /// What the item of an entry costs; nothing where the entry is free or a part of another's item.
    pub(crate) fn footprint_of_item(&self, id: EntryId) -> Option<Footprint> {
        if self.entries.location(id) == Location::NONE || self.record(id).is_part() {
            return None;
        }
        Some(self.footprint(self.record(id).shape()))
    }

    /// Sets the counters to zero.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
        self.cleaner.reset_moved_bytes();
    }

    /// Bytes of the records that entries point at.
    pub fn live_bytes(&self) -> u64 {
        self.log.live_bytes_total()
    }

    fn metadata_bytes(&self) -> u64 {
        let columns = u64::from(COLUMN_BYTES + self.ranking.entry_bytes());
        let index = self.index.bytes() as u64;
        u64::from(self.entries.high()) * columns + index + SHARD_OVERHEAD_BYTES
    }

    #[inline]
    pub(crate) fn next_sequence(&mut self) -> u64 {
        if self.sequence.next() >= self.sequences_reserved {
            self.reserve_sequences();
        }
        self.sequence.take()
    }

    #[cold]
    fn reserve_sequences(&mut self) {
        let (end, items) = (self.sequence.reservation_end(), self.budget.items());
        self.sequences_reserved = self.log.reserve_write_sequences(end, items);
    }

    /// [`crate::WalkPlace::generation`] of a walk that begins now.
    pub fn generation(&self) -> u64 {
        self.columns_generation
    }

    /// How often ids were handed out anew: a walk over them that meets another number starts again.
    pub(crate) fn columns_generation(&self) -> u64 {
        self.columns_generation
    }

    /// The bits of a key's hash that the index works with.
    #[inline]
    pub(crate) fn tag_of(&self, hash: KeyHash) -> u32 {
        self.tagging.tag_of(hash)
    }

    pub(crate) fn tagging(&self) -> Tagging {
        self.tagging
    }

    pub(crate) fn record(&self, id: EntryId) -> record::View<'_> {
        self.log.record(self.entries.location(id))
    }

    pub(crate) fn seal_of(&self, id: EntryId) -> Seal {
        self.log.seal_of(self.entries.location(id))
    }

    /// Rewrites bytes of a record in place.
    pub(crate) fn patch_record(&mut self, id: EntryId, at: usize, bytes: &[u8]) {
        self.changed_groups.add(self.entries.tag(id));
        self.log.patch(self.entries.location(id), at, bytes);
    }

    pub(crate) fn sequence_ref(&self) -> &Sequence {
        &self.sequence
    }

    /// Gives greater numbers than `sequence` from now on, after a kill as well.
    pub(crate) fn go_on_after(&mut self, sequence: u64) {
        self.sequence.go_on_after(sequence);
        if self.sequence.next() >= self.sequences_reserved {
            self.reserve_sequences();
        }
    }

    /// Whether items are evicted from now on, and whether they were.
    pub(crate) fn set_evicts(&mut self, evicts: bool) -> bool {
        std::mem::replace(&mut self.config.evicts, evicts)
    }

    /// The entry that would be evicted next, whether or not the shard evicts.
    pub(crate) fn victim_unasked(&mut self) -> Option<EntryId> {
        self.ranking.evict_any()
    }

    pub(crate) fn accessed_secs(&self, id: EntryId) -> u32 {
        self.entries.accessed_secs(id)
    }

    pub(crate) fn part_bytes_max(&self) -> u32 {
        self.config.geometry.part_bytes_max()
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    pub(crate) fn into_arena(self) -> Box<dyn Arena> {
        self.log.into_arena()
    }

    /// The shard's number.
    pub(crate) fn number(&self) -> u32 {
        self.config.shard
    }

    /// Writes all that a snapshot holds of the shard.
    pub(crate) fn save_parts(&self, to: &mut Writer<'_>) {
        self.log.save(to);
        to.u64(self.sequence.last());
        to.u64(self.flush_at.map_or(u64::MAX, |at| at.0));
        to.u32(self.sweep_at);
        self.counters().save(to);
        self.budget.save(to);
        self.cleaner.save(to);
        self.entries.save(to);
        self.chains.save(to);
        self.index.save(to);
        self.ranking.save(to);
    }

    /// Takes all but log and policy from a snapshot; `None` when that cannot be.
    pub(crate) fn load_parts(
        &mut self,
        from: &mut Reader<'_>,
        pace: &mut dyn FnMut(),
    ) -> Option<()> {
        self.sequence.go_on_after(from.u64()?);
        self.flush_at = Some(from.u64()?).filter(|&at| at != u64::MAX).map(Timestamp);
        self.sweep_at = from.u32()?;
        self.counters = Counters::load(from)?;
        self.budget.load(from)?;
        self.cleaner = Cleaner::load(from, self.tagging, self.counters.moved_bytes)?;
        self.entries = Entries::load(from, entries_max(&self.config))?;
        let high = self.entries.high();
        self.chains = Chains::load(from, high)?;
        pace();
        self.index = Index::load(from, high)?;
        Some(())
    }

    /// Takes the policy's order from a snapshot.
    pub(crate) fn load_policy(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        self.ranking.load(from)
    }

    pub(crate) fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(crate) fn index_ref(&self) -> &Index {
        &self.index
    }

    pub(crate) fn departure_notes(&mut self) -> &mut DepartureNotes {
        &mut self.departures
    }

    pub(crate) fn departure_notes_ref(&self) -> &DepartureNotes {
        &self.departures
    }

    pub(crate) fn victim_notes(&mut self) -> &mut VictimNotes {
        &mut self.victims
    }

    pub(crate) fn uses(&mut self) -> &mut Uses {
        &mut self.uses
    }

    pub(crate) fn samples(&self) -> &Samples {
        &self.samples
    }

    pub(crate) fn samples_mut(&mut self) -> &mut Samples {
        &mut self.samples
    }

    /// The entry with this tag whose key `is_it` says yes to.
    pub(crate) fn find_tagged(
        &self,
        tag: u32,
        mut is_it: impl FnMut(&[u8]) -> bool,
    ) -> Option<EntryId> {
        let (log, entries) = (&self.log, &self.entries);
        self.index
            .find(tag, |id| entries.tag(id) == tag && is_it(log.record(entries.location(id)).key()))
    }

    /// Asks the processor to fetch what a read needs of the columns of `ids`.
    pub(crate) fn prefetch_rows(&self, ids: &[EntryId]) {
        ids.iter().for_each(|&id| self.entries.prefetch(id));
    }

    /// Asks the processor to fetch the records of `ids`.
    pub(crate) fn prefetch_records(&self, ids: &[EntryId]) {
        ids.iter().for_each(|&id| self.log.prefetch(self.entries.location(id)));
    }

    pub(crate) fn location_of(&self, id: EntryId) -> Location {
        self.entries.location(id)
    }

    /// Asks the processor to fetch what the insertion of a key will touch.
    pub(crate) fn prefetch_insert(&self, hash: KeyHash) {
        self.index.prefetch(self.tag_of(hash));
        prefetch_address(self.ranking.insert_address(hash));
    }

    /// The entry of the key of a record.
    pub(crate) fn find_record(&self, location: Location, tag: u32) -> Option<EntryId> {
        let key = self.log.record(location).key();
        self.find_tagged(tag, |it| it == key)
    }

    /// Makes a record that was found the item of its key, which has none. A large item has no parts
    /// yet.
    pub(crate) fn insert_found(
        &mut self,
        location: Location,
        hash: KeyHash,
        now: Timestamp,
    ) -> EntryId {
        let record = self.log.record(location);
        let (len, shape, deadline) = (record.len(), record.shape(), record.deadline());
        let marks = if record.is_stale() { state::STALE } else { 0 };
        self.log.revive(location, len);
        let tag = self.tag_of(hash);
        let id = self.entries.allocate(tag, location);
        let entries = &self.entries;
        self.index.insert(tag, id, |id| entries.tag(id));
        let footprint = self.footprint(shape);
        self.budget.insert(footprint);
        let log = &self.log;
        let policy = self.ranking.of(|| log.record(location).key());
        policy.before_insert(hash, footprint.weight());
        policy.on_insert(id, hash, footprint.weight());
        self.add_marks(id, marks);
        self.link(id, deadline, None, now);
        id
    }

    pub(crate) fn insert_chain(&mut self, head: EntryId, parts: Box<[EntryId]>) {
        self.chains.insert(head, parts);
    }

    /// Goes on after a walk of the segments: with numbers greater than `sequence`, and with a flush
    /// still to come.
    pub(crate) fn go_on_after_walk(&mut self, sequence: u64, flush_at: Option<Timestamp>) {
        self.sequence.go_on_after(sequence);
        self.flush_at = flush_at;
        self.columns_generation += 1;
    }

    pub(crate) fn entries(&mut self) -> &mut Entries {
        &mut self.entries
    }

    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The entry of a key, if it is there and valid. One that has expired is removed.
    #[inline]
    pub(crate) fn find(&mut self, key: &Key<'_>, now: Timestamp) -> Option<EntryId> {
        self.flush_if_due(now);
        let id = self.find_there(key)?;
        if self.is_due(id, now) {
            self.counters.read_expired += 1;
            self.remove(id, Leaving::Expired, now);
            return None;
        }
        Some(id)
    }

    /// The entry of a key, expired or not.
    #[inline]
    pub(crate) fn find_there(&self, key: &Key<'_>) -> Option<EntryId> {
        let (log, entries) = (&self.log, &self.entries);
        let tag = self.tag_of(key.hash);
        self.index.find(tag, |id| log.record(entries.location(id)).key() == key.bytes)
    }

    #[inline]
    pub(crate) fn is_due(&self, id: EntryId, now: Timestamp) -> bool {
        match self.entries.expiry(id, now) {
            Expiry::Valid => false,
            Expiry::Due => true,
            Expiry::WithinThisSecond => self.record(id).deadline().is_due(now),
        }
    }

    /// Removes an entry if it has expired. For the sweep.
    pub(crate) fn expire_if_due(&mut self, id: EntryId, now: Timestamp) -> bool {
        let due = self.entries.has_deadline(id) && self.is_due(id, now);
        if due {
            self.remove(id, Leaving::Expired, now);
        }
        due
    }

    #[inline]
    pub(crate) fn flush_if_due(&mut self, now: Timestamp) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.counters.flushed += self.items();
            self.clear();
            // Last: a kill before this flushes what is left.
            self.flush_at = None;
            self.log.set_flush_at(None);
        }
    }

    /// Forgets every item at once, and starts from an empty index and empty columns: also the way
    /// back to books that agree, should a bug have interrupted a change.
    pub fn clear(&mut self) {
        self.log.clear();
        self.index = Index::new();
        self.entries = Entries::new(entries_max(&self.config));
        self.chains = Chains::default();
        self.cleaner.clear();
        self.budget.clear();
        let entries_max = entries_max(&self.config);
        self.ranking = Ranking::new(&self.config, self.budget.bytes_max(), entries_max);
        self.sweep_at = 0;
        self.columns_generation += 1;
        self.samples.clear();
        self.changed_groups = ChangedGroups::ALL;
        self.changed_keys.note_all();
    }

    /// A use of an entry that is not a write. Returns how it stood before.
    #[inline]
    pub(crate) fn mark_used(&mut self, id: EntryId, now: Timestamp) -> Usage {
        let before = self.usage(id, now);
        self.policy_of(id).on_hit(id);
        self.entries.set_accessed(id, now);
        before
    }

    #[inline]
    pub(crate) fn usage(&self, id: EntryId, now: Timestamp) -> Usage {
        let idle_secs = now.as_secs().saturating_sub(self.entries.accessed_secs(id));
        Usage { state: self.entries.state(id), idle_secs }
    }

    #[inline]
    pub(crate) fn item(&self, id: EntryId, usage: Usage) -> Item<'_> {
        let record = self.record(id);
        let rest = if record.is_chain_head() { self.chains.of(id) } else { &[] };
        Item {
            client_flags: record.client_flags(),
            cas: record.cas(),
            deadline: record.deadline(),
            fetched: usage.state & state::FETCHED != 0,
            idle_secs: usage.idle_secs,
            stale: usage.state & state::STALE != 0,
            win_sent: usage.state & state::WIN_SENT != 0,
            value: Value {
                first: record.value(),
                first_at: self.entries.location(id),
                rest,
                log: &self.log,
                entries: &self.entries,
                len: record.item_value_bytes() as usize,
            },
        }
    }

    pub(crate) fn footprint(&self, shape: Shape) -> Footprint {
        let part_bytes_max = self.config.geometry.part_bytes_max();
        footprint(shape, self.ranking.entry_bytes(), part_bytes_max)
    }

    /// Takes an entry out of everything. The policy has forgotten a victim by itself already.
    fn remove(&mut self, id: EntryId, leaving: Leaving, now: Timestamp) {
        self.is_changed |= leaving == Leaving::Deleted;
        self.changed_groups.add(self.entries.tag(id));
        self.count_leaving(id, leaving, now);
        if self.departures.is_on
            && let Some(reason) = leaving.departure()
        {
            self.note_departure(id, reason);
        }
        if matches!(leaving, Leaving::Deleted | Leaving::Unwritten) {
            self.note_changed_entry(id);
        }
        if self.victims.is_on && leaving == Leaving::Evicted {
            self.note_victim(id, now);
        }
        if leaving != Leaving::Evicted {
            self.policy_of(id).on_remove(id);
        }
        let footprint = self.footprint(self.record(id).shape());
        self.budget.remove(footprint);
        self.index.remove(self.entries.tag(id), id);
        self.kill_records(id);
        self.entries.release(id);
    }

    fn count_leaving(&mut self, id: EntryId, leaving: Leaving, now: Timestamp) {
        let usage = self.usage(id, now);
        let fetched = usage.state & state::FETCHED != 0;
        match leaving {
            Leaving::Deleted | Leaving::EvictedElsewhere | Leaving::Unwritten => {}
            Leaving::Expired => {
                self.counters.expired += 1;
                self.counters.expired_unfetched += u64::from(!fetched);
            }
            Leaving::Evicted => {
                let active = fetched && usage.idle_secs <= ACTIVE_SECS;
                self.counters.evicted += 1;
                self.counters.evicted_unfetched += u64::from(!fetched);
                self.counters.evicted_active += u64::from(active);
                self.counters.evicted_with_deadline += u64::from(self.entries.has_deadline(id));
                self.counters.evicted_idle_secs = u64::from(usage.idle_secs);
                if self.ranking.is_split() && self.config.protected.covers(self.record(id).key()) {
                    self.counters.evicted_protected += u64::from(!self.is_due(id, now));
                }
            }
        }
    }

    /// The records of an entry, all its parts included, are dead: the head first, so that no head
    /// ever stands without its parts.
    fn kill_records(&mut self, id: EntryId) {
        let is_chain_head = self.record(id).is_chain_head();
        self.kill_record(id);
        if is_chain_head {
            for part in self.chains.remove(id) {
                self.kill_record(part);
                self.entries.release(part);
            }
        }
    }

    fn kill_record(&mut self, id: EntryId) {
        let location = self.entries.location(id);
        let len = self.log.record(location).len();
        self.log.kill(location, len);
    }

    /// Makes room in the budget and the log, writes the item's records, and points its entry, `old`
    /// or a new one, at them. The value must not lie in the log.
    pub(crate) fn store(
        &mut self,
        key: &Key<'_>,
        old: Option<EntryId>,
        fields: Fields,
        value: &[&[u8]],
        now: Timestamp,
    ) -> Result<EntryId, NoRoom> {
        let shape = shape_of(key, fields, value)?;
        if shape.item_bytes() > self.config.item_bytes_max {
            return Err(NoRoom::TooLarge);
        }
        self.store_shaped(key, old, fields, value, shape, now)
    }

    /// The same for an item whose shape is known, however large.
    pub(crate) fn store_shaped(
        &mut self,
        key: &Key<'_>,
        old: Option<EntryId>,
        fields: Fields,
        value: &[&[u8]],
        shape: Shape,
        now: Timestamp,
    ) -> Result<EntryId, NoRoom> {
        let footprint = self.footprint(shape);
        self.make_room_in_budget(key, old, footprint, now)?;
        let Written { location, parts } = self.write_records(key, fields, value, shape, now)?;
        self.is_changed = true;
        self.changed_groups.add(self.tag_of(key.hash));
        self.changed_keys.note(key.bytes);

        // Making room may have taken the old item for a victim.
        match self.find(key, now) {
            Some(id) => {
                let before = self.footprint(self.record(id).shape());
                self.kill_records(id);
                self.entries.set_location(id, location);
                self.entries.set_state(id, 0);
                self.add_marks(id, if fields.stale { state::STALE } else { 0 });
                self.budget.replace(before, footprint);
                self.ranking.of(|| key.bytes).on_update(id, footprint.weight());
                self.link(id, fields.deadline, parts, now);
                self.sample_write(key, id);
                Ok(id)
            }
            None => {
                let tag = self.tag_of(key.hash);
                let id = self.entries.allocate(tag, location);
                self.add_marks(id, if fields.stale { state::STALE } else { 0 });
                let entries = &self.entries;
                self.index.insert(tag, id, |id| entries.tag(id));
                self.budget.insert(footprint);
                self.ranking.of(|| key.bytes).on_insert(id, key.hash, footprint.weight());
                self.link(id, fields.deadline, parts, now);
                self.sample_write(key, id);
                Ok(id)
            }
        }
    }

    fn add_marks(&mut self, id: EntryId, marks: u32) {
        self.entries.set_state(id, self.entries.state(id) | marks);
    }

    fn link(
        &mut self,
        id: EntryId,
        deadline: Deadline,
        parts: Option<Box<[EntryId]>>,
        now: Timestamp,
    ) {
        self.entries.set_deadline(id, deadline);
        self.entries.set_accessed(id, now);
        if let Some(parts) = parts {
            self.chains.insert(id, parts);
        }
    }

    /// Evicts until the budget has room for `need`, in place of `old` if that is still there.
    fn make_room_in_budget(
        &mut self,
        key: &Key<'_>,
        mut old: Option<EntryId>,
        need: Footprint,
        now: Timestamp,
    ) -> Result<(), NoRoom> {
        if !self.budget.could_hold(need) {
            return Err(NoRoom::TooLarge);
        }
        if old.is_none() {
            self.ranking.of(|| key.bytes).before_insert(key.hash, need.weight());
        }
        let mut old_footprint = old.map(|old| self.footprint(self.record(old).shape()));
        loop {
            let fits = match old_footprint {
                Some(before) => self.budget.fits_replacing(before, need),
                None => self.budget.fits(need),
            };
            if fits {
                return Ok(());
            }
            if self.budget.wants_compaction() {
                self.rebuild();
                old = self.find(key, now);
                continue;
            }
            let victim = match self.way_out(key, now) {
                WayOut::Victim(victim) => victim,
                WayOut::Swept => continue,
                WayOut::None => {
                    if self.budget.has_idle() {
                        self.rebuild();
                        old = self.find(key, now);
                        continue;
                    }
                    self.counters.out_of_memory += 1;
                    return Err(NoRoom::OutOfMemory);
                }
            };
            self.remove(victim, Leaving::Evicted, now);
            if old == Some(victim) {
                (old, old_footprint) = (None, None);
                self.ranking.of(|| key.bytes).before_insert(key.hash, need.weight());
            }
        }
    }

    /// Writes an item's records and returns where the head is, with the entries of the further
    /// parts of a large item.
    fn write_records(
        &mut self,
        key: &Key<'_>,
        fields: Fields,
        value: &[&[u8]],
        shape: Shape,
        now: Timestamp,
    ) -> Result<Written, NoRoom> {
        let mut header = Header {
            cas: fields.sequence,
            deadline: shape.expires.then_some(fields.deadline),
            client_flags: fields.client_flags,
            own_cas: fields.own_cas,
            stale: fields.stale,
            chain: Chain::Whole,
        };
        let part_bytes_max = self.config.geometry.part_bytes_max().min(VALUE_BYTES_MAX);
        let whole = header.bytes() + shape.key_bytes;
        if u64::from(whole) + u64::from(shape.value_bytes) <= u64::from(part_bytes_max) {
            let len = padded(whole + shape.value_bytes);
            self.make_room_in_log(key, len, now)?;
            let Place { location, seal, bytes } = self.log.append(Stream::New, len);
            record::write(bytes, seal, &header, key.bytes, value.iter().copied());
            self.after_append(len);
            return Ok(Written { location, parts: None });
        }
        header.chain = Chain::Head { value_bytes: shape.value_bytes };
        let fixed = header.bytes() + shape.key_bytes;
        let first = part_bytes_max - fixed;
        let parts = self.write_parts(key, fields.sequence, value, first, shape.value_bytes, now)?;
        if let Err(no_room) = self.make_room_in_log(key, part_bytes_max, now) {
            self.discard_parts(&parts);
            return Err(no_room);
        }
        let place = self.log.append(Stream::New, padded(fixed + first));
        let Place { location, seal, bytes } = place;
        record::write(bytes, seal, &header, key.bytes, range(value, 0, first as usize));
        self.after_append(fixed + first);
        Ok(Written { location, parts: Some(parts) })
    }

    /// Writes the value from byte `from` on as parts, each as long as the open segment has room.
    fn write_parts(
        &mut self,
        key: &Key<'_>,
        sequence: u64,
        value: &[&[u8]],
        from: u32,
        value_bytes: u32,
        now: Timestamp,
    ) -> Result<Box<[EntryId]>, NoRoom> {
        let part_bytes_max = self.config.geometry.part_bytes_max().min(VALUE_BYTES_MAX);
        // Smaller rests of a segment are not worth a part.
        let part_bytes_min = part_bytes_max / 8;
        let chain = |entry, number| Header {
            cas: sequence,
            deadline: None,
            client_flags: 0,
            own_cas: None,
            stale: false,
            chain: Chain::Part { entry, number },
        };
        let fixed = chain(0, 0).bytes() + PART_KEY_BYTES;
        let mut parts: Vec<EntryId> = Vec::new();
        let mut at = from;
        while at < value_bytes {
            let rest = padded(fixed + (value_bytes - at));
            let wanted = rest.min(part_bytes_max);
            let room = self.log.room(Stream::New);
            let len = if room >= part_bytes_min { wanted.min(room) } else { wanted };
            if let Err(no_room) = self.make_room_in_log(key, len, now) {
                self.discard_parts(&parts);
                return Err(no_room);
            }
            let bytes = (len - fixed).min(value_bytes - at);
            let Place { location, seal, bytes: to } =
                self.log.append(Stream::New, padded(fixed + bytes));
            let entry = self.entries.allocate(0, location);
            parts.push(entry);
            let number = u32::try_from(parts.len()).map_err(|_| NoRoom::TooLarge)?;
            let piece = range(value, at as usize, bytes as usize);
            record::write(to, seal, &chain(entry.0, number), &sequence.to_le_bytes(), piece);
            self.after_append(padded(fixed + bytes));
            at += bytes;
        }
        Ok(parts.into_boxed_slice())
    }

    fn discard_parts(&mut self, parts: &[EntryId]) {
        for &part in parts {
            self.kill_record(part);
            self.entries.release(part);
        }
    }

    /// Sees to it that the open segment has room for a record of `len` bytes: opens a free segment,
    /// cleans, and as the last resort evicts.
    fn make_room_in_log(&mut self, key: &Key<'_>, len: u32, now: Timestamp) -> Result<(), NoRoom> {
        if self.log.room(Stream::New) >= len {
            return Ok(());
        }
        self.limit_segments();
        let mut cleaned = 0;
        loop {
            let may_open = self.log.segments_available() > SEGMENTS_RESERVED;
            // Cleaning what is mostly dead is cheaper than becoming larger.
            let better_cleaned = cleaned == 0 && self.log.is_growing() && self.log.has_half_empty();
            if may_open && !better_cleaned && self.log.open_next(Stream::New) {
                return Ok(());
            }
            // What one segment gains may go into the next one that is opened to move records to; of
            // several some must be left over, or cleaning gains nothing any more.
            let (log, index, entries) = (&mut self.log, &self.index, &mut self.entries);
            if cleaned < CLEANED_AT_ONCE_MAX
                && self.cleaner.step(log, index, entries, u32::MAX) != Progress::Stuck
            {
                cleaned += 1;
                continue;
            }
            cleaned = 0;
            match self.way_out(key, now) {
                WayOut::Victim(victim) => {
                    self.counters.evicted_by_log += 1;
                    self.remove(victim, Leaving::Evicted, now);
                }
                WayOut::Swept => {}
                WayOut::None => {
                    self.counters.out_of_memory += 1;
                    return Err(NoRoom::OutOfMemory);
                }
            }
        }
    }

    /// How room for `key` may be made next. What is protected goes last: after all else, after what has expired, and
    /// never for what is not protected.
    fn way_out(&mut self, key: &Key<'_>, now: Timestamp) -> WayOut {
        if !self.config.evicts {
            return WayOut::None;
        }
        if let Some(victim) = self.ranking.evict_other() {
            return WayOut::Victim(victim);
        }
        if !self.ranking.is_split() {
            return WayOut::None;
        }
        if self.sweep_for_protected(now) {
            return WayOut::Swept;
        }
        let may_take = self.config.protected.covers(key.bytes);
        let victim = may_take.then(|| self.ranking.evict_any()).flatten();
        victim.map_or(WayOut::None, WayOut::Victim)
    }

    /// Removes whatever has expired, once a second at most: whether there was any. A pass over four bytes an entry,
    /// where otherwise somebody would be logged out.
    #[cold]
    fn sweep_for_protected(&mut self, now: Timestamp) -> bool {
        let second = now.as_secs();
        if self.swept_for_protected == second {
            return false;
        }
        self.swept_for_protected = second;
        // A touch that another node has carried out may be on its way.
        let grace_ms = if self.departures.is_on { COPIES_GRACE_MS } else { 0 };
        let now = Timestamp(now.0.saturating_sub(grace_ms));
        let before = self.items();
        self.sweep_at = 0;
        while !self.sweep(now, u32::MAX).wrapped {}
        self.items() < before
    }

    /// The policy that ranks an entry.
    #[inline]
    fn policy_of(&mut self, id: EntryId) -> &mut dyn Policy {
        let (log, entries) = (&self.log, &self.entries);
        self.ranking.of(|| log.record(entries.location(id)).key())
    }

    /// What index and columns take, the segments may not.
    pub(crate) fn limit_segments(&mut self) {
        let bytes = self.config.geometry.shard_bytes.saturating_sub(self.metadata_bytes());
        let segments = bytes / u64::from(self.log.segment_bytes());
        self.log.set_resident_max(u32::try_from(segments).unwrap_or(u32::MAX));
    }

    /// A record of `len` bytes was written; the cleaner keeps pace.
    fn after_append(&mut self, len: u32) {
        self.counters.written_bytes += u64::from(len);
        if self.log.segments_available() < SEGMENTS_LOW {
            let (log, index, entries) = (&mut self.log, &self.index, &mut self.entries);
            self.cleaner.step(log, index, entries, len.saturating_mul(4));
        }
    }

    /// Builds columns, index and policy anew, with the resident entries alone, in the order in which
    /// the policy would have evicted them.
    fn rebuild(&mut self) {
        let mut order = Vec::new();
        while let Some(id) = self.ranking.evict_any() {
            order.push(id);
        }
        let entries_max = entries_max(&self.config);
        let old = std::mem::replace(&mut self.entries, Entries::new(entries_max));
        let mut chains = std::mem::take(&mut self.chains);
        let policy_bytes = self.config.policy_bytes();
        self.index = Index::new();
        let items_bytes_max = self.config.geometry.items_bytes_max();
        self.budget.begin_anew(items_bytes_max, entry_bytes(policy_bytes));
        self.ranking = Ranking::new(&self.config, self.budget.bytes_max(), entries_max);
        self.sweep_at = 0;
        self.columns_generation += 1;
        for before in order {
            let id = self.entries.take_over(&old, before);
            let entries = &self.entries;
            self.index.insert(old.tag(before), id, |id| entries.tag(id));
            let record = self.log.record(old.location(before));
            let hash = key_hash(record.key());
            let is_protected = self.config.protected.covers(record.key());
            let footprint = self.footprint(record.shape());
            if record.is_chain_head() {
                let mut parts = chains.remove(before);
                for part in &mut parts {
                    let location = old.location(*part);
                    *part = self.entries.take_over(&old, *part);
                    record::set_part_entry(self.log.record_mut(location), part.0);
                }
                self.chains.insert(id, parts);
            }
            self.budget.insert(footprint);
            let policy = self.ranking.of_kind(is_protected);
            policy.before_insert(hash, footprint.weight());
            policy.on_insert(id, hash, footprint.weight());
        }
    }

    /// Takes the scratch buffer, filled with the value of an item.
    pub(crate) fn take_value(&mut self, id: EntryId) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        self.item(id, Usage::default()).value.append_to(&mut scratch);
        scratch
    }

    /// Gives the scratch buffer back.
    pub(crate) fn give_scratch(&mut self, scratch: Vec<u8>) {
        if scratch.capacity() <= SCRATCH_BYTES_KEPT {
            self.scratch = scratch;
        }
    }

    /// Removes what a write that failed was to replace.
    pub(crate) fn remove_unwritten(&mut self, key: &Key<'_>, now: Timestamp) {
        if let Some(id) = self.find(key, now) {
            self.remove(id, Leaving::Unwritten, now);
        }
        self.sample_delete(key.hash);
    }

    pub(crate) fn remove_evicted_elsewhere(&mut self, id: EntryId, now: Timestamp) {
        self.remove(id, Leaving::EvictedElsewhere, now);
    }

    /// Removes an item because somebody asked for it.
    pub(crate) fn delete_entry(&mut self, id: EntryId, now: Timestamp) {
        self.remove(id, Leaving::Deleted, now);
    }

    /// Walks everything the shard keeps and panics where two books disagree. For tests.
    #[doc(hidden)]
    pub fn check(&self) {
        let mut footprints = 0;
        let mut sizes = SizeCounts::default();
        let mut items = 0;
        let mut live_bytes = 0;
        for id in (0..self.entries.high()).map(EntryId) {
            let location = self.entries.location(id);
            if location == Location::NONE {
                continue;
            }
            let record = self.log.record(location);
            let standing = record.standing(self.log.seal_of(location));
            assert_eq!(standing, Standing::Alive, "the record of {id:?} is what was written");
            live_bytes += u64::from(record.len());
            if record.is_part() {
                continue;
            }
            let hash = key_hash(record.key());
            assert_eq!(self.entries.tag(id), self.tag_of(hash), "{id:?} has the tag of its key");
            let found = self.index.find(self.tag_of(hash), |it| it == id);
            assert_eq!(found, Some(id), "the index knows {id:?}");
            let value = self.item(id, Usage::default()).value;
            let value_bytes: usize = value.pieces().map(<[u8]>::len).sum();
            assert_eq!(value_bytes, value.len(), "{id:?} has all its parts");
            let footprint = self.footprint(record.shape());
            footprints += footprint.bytes();
            sizes.insert(footprint);
            items += 1;
        }
        assert_eq!(items, self.budget.items(), "the budget counts the resident entries");
        if let Some(counts) = self.size_counts() {
            assert_eq!(*counts, sizes, "and their sizes");
        }
        assert_eq!(footprints, self.budget.used_bytes(), "and their footprints");
        assert_eq!(live_bytes, self.log.live_bytes_total(), "the log counts the live records");
        assert!(self.budget.used_bytes() <= self.budget.bytes_max(), "the budget holds");
        let parts = self.chains.part_count() as u64;
        let resident = u64::from(self.entries.high() - self.entries.free_count());
        assert_eq!(resident, items + parts, "every id is free, an item or a part");
    }
}

pub(crate) fn shape_of(key: &Key<'_>, fields: Fields, value: &[&[u8]]) -> Result<Shape, NoRoom> {
    let value_bytes: usize = value.iter().map(|piece| piece.len()).sum();
    Ok(Shape {
        key_bytes: u32::try_from(key.bytes.len()).map_err(|_| NoRoom::TooLarge)?,
        value_bytes: u32::try_from(value_bytes).map_err(|_| NoRoom::TooLarge)?,
        expires: fields.deadline != Deadline::NEVER,
        has_client_flags: fields.client_flags != 0,
        has_own_cas: fields.own_cas.is_some(),
    })
}

/// How an entry stood before it was used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) state: u32,
    pub(crate) idle_secs: u32,
}

/// The most entries a shard could have: its memory full of the smallest items.
fn entries_max(config: &Config) -> usize {
    let geometry = config.geometry;
    let policy_bytes = config.policy_bytes();
    let smallest = footprint(Shape::plain(1, 0), policy_bytes, geometry.part_bytes_max());
    usize::try_from(geometry.shard_bytes / smallest.bytes()).unwrap_or(usize::MAX)
}
