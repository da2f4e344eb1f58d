//! The cleaner: moves live records out of the emptiest segment, and frees it.
//!
//! Eviction decides which items leave; cleaning only reclaims the room of those that left. It works
//! in bounded steps between writes, and in one go only when the log has run out of free segments.

use eviction::EntryId;

use crate::arena::SegmentId;
use crate::entries::Entries;
use crate::hash::{Tagging, key_hash};
use crate::index::Index;
use crate::log::{Location, Log, Stream};
use crate::record::Chain;
use crate::segment;
use crate::snapshot::{Reader, Writer};

/// What a step of cleaning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A segment became free.
    Freed,
    /// The bytes granted are spent; the segment is not free yet.
    Working,
    /// Every segment is too full for moving to gain anything, or there is nowhere to move to.
    Stuck,
}

/// Remembers the segment being cleaned between steps.
pub(crate) struct Cleaner {
    tagging: Tagging,
    victim: Option<(SegmentId, u32)>,
    scratch: Vec<u8>,
    moved_bytes: u64,
}

impl Cleaner {
    /// A cleaner of a shard whose keys have such tags.
    pub(crate) fn new(tagging: Tagging) -> Self {
        Self { tagging, victim: None, scratch: Vec::new(), moved_bytes: 0 }
    }

    /// Bytes of live records moved so far.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// Walks on through the segment being cleaned, or the emptiest one, for about `bytes` bytes.
    pub(crate) fn step(
        &mut self,
        log: &mut Log,
        index: &Index,
        entries: &mut Entries,
        bytes: u32,
    ) -> Progress {
        let Some((victim, mut offset)) = self
            .victim
            .or_else(|| log.begin_cleaning().map(|segment| (segment, segment::HEADER_BYTES)))
        else {
            return Progress::Stuck;
        };
        let stop = offset.saturating_add(bytes);
        while log.live_bytes(victim) > 0 {
            self.victim = Some((victim, offset));
            if offset >= stop {
                return Progress::Working;
            }
            let Some((location, next)) = log.record_at(victim, offset) else {
                unreachable!("the live records of a segment are found by walking it");
            };
            if let Some(owner) = self.owner_of(log, index, entries, location) {
                let len = next - offset;
                if log.room(Stream::Moved) < len && !log.open_next(Stream::Moved) {
                    return Progress::Stuck;
                }
                let moved = log.copy_record(location, &mut self.scratch);
                entries.set_location(owner, moved);
                log.kill(location, len);
                self.moved_bytes += u64::from(len);
            }
            offset = next;
        }
        self.victim = None;
        log.end_cleaning(victim);
        Progress::Freed
    }

    pub(crate) fn reset_moved_bytes(&mut self) {
        self.moved_bytes = 0;
    }

    /// Writes how far cleaning has come to a snapshot.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        let (segment, offset) = self.victim.map_or((u32::MAX, 0), |(it, offset)| (it.0, offset));
        to.u32(segment);
        to.u32(offset);
    }

    /// The cleaner of a snapshot.
    pub(crate) fn load(from: &mut Reader<'_>, tagging: Tagging, moved_bytes: u64) -> Option<Self> {
        let (segment, offset) = (from.u32()?, from.u32()?);
        let victim = (segment != u32::MAX).then_some((SegmentId(segment), offset));
        Some(Self { victim, moved_bytes, ..Self::new(tagging) })
    }

    /// Forgets the segment being cleaned: all segments are free.
    pub(crate) fn clear(&mut self) {
        self.victim = None;
    }

    /// The entry that points at a record, or `None` when the record is dead.
    fn owner_of(
        &self,
        log: &Log,
        index: &Index,
        entries: &Entries,
        location: Location,
    ) -> Option<EntryId> {
        let record = log.record(location);
        if let Chain::Part { entry, .. } = record.chain() {
            let owner = EntryId(entry);
            let known = entry < entries.high();
            return (known && entries.location(owner) == location).then_some(owner);
        }
        let tag = self.tagging.tag_of(key_hash(record.key()));
        index.find(tag, |id| entries.location(id) == location)
    }
}
