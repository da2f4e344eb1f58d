//! The log: open segments that records are appended to, sealed ones, free ones, live bytes of each.
//!
//! ```text
//! free ──open──▶ open (new | moved) ──full──▶ sealed ──emptiest──▶ cleaning ──▶ free
//!                                               └── last record dies ──▶ free
//! ```
//!
//! - New records and those that the cleaner moved go to different open segments: what survived one
//!   cleaning tends to survive the next, and stays out of the way of what dies young.
//! - A free segment that was in use before is taken before one that never was, so resident memory
//!   grows only as far as it is needed.
//! - `live_bytes` of a segment counts the records that an entry still points at.
//! - In an arena that outlives the process a record that dies is marked, a segment that is free has no
//!   header, and what is rewritten in place is noted first: at every instant the bytes alone say what
//!   the shard holds. `docs/file-format.md` has the argument.

mod reopen;
mod saved;

use std::sync::atomic::{Ordering, compiler_fence};

pub(crate) use reopen::Reopening;
pub(crate) use saved::Unusable;

use crate::arena::{Arena, HeapArena, SegmentId};
use crate::page::{self, Patch};
use crate::pins::{PinnedPiece, Pins};
use crate::prefetch::prefetch_lines;
use crate::record::{self, Seal, View};
use crate::segment;
use crate::time::Timestamp;

/// Cache lines of a record fetched ahead: header, key and a short value.
const PREFETCHED_LINES: usize = 3;
/// Sequence numbers of segments reserved at once.
const SEGMENT_SEQUENCES_STEP: u64 = 64;

/// Where a record stands: in units of 4 bytes from the arena's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location(pub(crate) u32);

impl Location {
    /// No record.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// Which open segment a record is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Written by a client.
    New,
    /// Moved by the cleaner.
    Moved,
}

impl Stream {
    /// Every stream, in the order of its number.
    pub(crate) const ALL: [Self; 2] = [Self::New, Self::Moved];
}

/// Where a segment is on its way from free to free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Open,
    Sealed,
    Cleaning,
}

impl State {
    /// Every state.
    const ALL: [Self; 4] = [Self::Free, Self::Open, Self::Sealed, Self::Cleaning];
}

/// Room in an open segment for one record.
pub(crate) struct Place<'a> {
    pub(crate) location: Location,
    pub(crate) seal: Seal,
    pub(crate) bytes: &'a mut [u8],
}

/// What the log knows of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) state: State,
    /// Bytes of the records that an entry points at.
    pub(crate) live_bytes: u32,
    /// Bytes written, header included.
    pub(crate) used: u32,
    /// What its records' checksums are stored under.
    pub(crate) seal: Seal,
}

impl Segment {
    pub(crate) const FREE: Self =
        Self { state: State::Free, live_bytes: 0, used: 0, seal: Seal::of_life(0) };
}

/// Segments, and the records in them.
pub(crate) struct Log {
    arena: Box<dyn Arena>,
    segments: Vec<Segment>,
    /// Free segments that hold memory, the last freed on top.
    free_resident: Vec<SegmentId>,
    /// Free segments that hold none.
    free_released: Vec<SegmentId>,
    /// Segments that are free once nobody has them pinned.
    free_pinned: Vec<SegmentId>,
    pins: Pins,
    open: [Option<SegmentId>; 2],
    /// Segments that may hold memory at once.
    resident_max: u32,
    /// Of the segment opened last.
    sequence: u64,
    /// What the shard's page says, in an arena that outlives the process.
    state: page::State,
    /// Whether the arena does.
    is_durable: bool,
    shard: u32,
    segment_shift: u32,
}

impl Log {
    /// A log without a record. What an arena that outlives the process may hold is wiped.
    pub(crate) fn new(arena: Box<dyn Arena>, shard: u32) -> Self {
        let mut log = Self::over(arena, shard);
        if log.is_durable {
            let was_blank = log.arena.page().is_some_and(|page| page.iter().all(|&byte| byte == 0));
            if !was_blank {
                log.wipe_all();
            }
            log.state.segment_sequences = log.sequence + 1;
            log.write_state();
        }
        let count = log.arena.segment_count();
        // The room of a file is reserved as a whole: its segments hold memory from the start.
        let ids = (0..count).rev().map(SegmentId);
        match log.is_durable {
            true => log.free_resident = ids.collect(),
            false => log.free_released = ids.collect(),
        }
        log
    }

    /// A log that does not know yet what its segments hold: none of them is free.
    pub(crate) fn over(arena: Box<dyn Arena>, shard: u32) -> Self {
        let count = arena.segment_count();
        let segment_shift = arena.segment_bytes().trailing_zeros();
        Self {
            segments: vec![Segment::FREE; count as usize],
            free_resident: Vec::new(),
            free_released: Vec::new(),
            free_pinned: Vec::new(),
            pins: Pins::new(count as usize),
            open: [None, None],
            resident_max: count,
            sequence: 0,
            state: page::State::default(),
            is_durable: arena.page().is_some(),
            shard,
            segment_shift,
            arena,
        }
    }

    /// The arena, with all that it holds.
    pub(crate) fn into_arena(mut self) -> Box<dyn Arena> {
        self.take_arena()
    }

    /// Leaves an arena without a segment.
    fn take_arena(&mut self) -> Box<dyn Arena> {
        let none = HeapArena::new(self.segment_bytes(), 0);
        std::mem::replace(&mut self.arena, Box::new(none))
    }

    /// Forgets what an earlier process left. Its records stay in the segments until they are written
    /// over, so their lives are not lived again.
    fn wipe_all(&mut self) {
        self.begin_reopening();
        for segment in (0..self.arena.segment_count()).map(SegmentId) {
            if !self.arena.is_blank(segment) {
                segment::wipe(self.arena.segment_mut(segment));
            }
        }
        self.state = page::State::default();
    }

    fn write_state(&mut self) {
        let state = self.state;
        if let Some(page) = self.arena.page_mut() {
            state.write(page);
        }
    }

    /// Reserves sequence numbers of writes up to `end`, and returns the first that is not. `entries`
    /// is noted for the next start.
    pub(crate) fn reserve_write_sequences(&mut self, end: u64, entries: u64) -> u64 {
        if !self.is_durable {
            return u64::MAX;
        }
        self.state.write_sequences = end;
        self.state.entries = entries;
        self.write_state();
        self.state.write_sequences
    }

    /// Notes when everything is to be forgotten, so that it is even if the process ends before.
    pub(crate) fn set_flush_at(&mut self, at: Option<Timestamp>) {
        self.state.flush_at = at;
        self.write_state();
    }

    /// Size of a segment in bytes.
    pub(crate) fn segment_bytes(&self) -> u32 {
        1 << self.segment_shift
    }

    /// Segments that hold memory.
    pub(crate) fn resident_segments(&self) -> u32 {
        let released = u32::try_from(self.free_released.len()).unwrap_or(u32::MAX);
        self.arena.segment_count() - released
    }

    /// Free segments that hold memory.
    pub(crate) fn free_resident_segments(&self) -> u32 {
        let free = self.free_resident.len() + self.free_pinned.len();
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Segments that can be opened without cleaning.
    #[inline]
    pub(crate) fn segments_available(&self) -> u32 {
        let free = self.free_resident_segments();
        let released = u32::try_from(self.free_released.len()).unwrap_or(u32::MAX);
        let in_use = self.arena.segment_count() - free - released;
        self.resident_max.saturating_sub(in_use).min(free + released)
    }

    /// Has room for `segments` segments at least, where the arena can grow.
    pub(crate) fn grow(&mut self, segments: u32) {
        let before = self.arena.segment_count();
        self.arena.grow(segments);
        let count = self.arena.segment_count();
        self.segments.resize(count as usize, Segment::FREE);
        self.pins.grow(count as usize);
        self.free_released.splice(0..0, (before..count).rev().map(SegmentId));
    }

    /// Limits the segments that hold memory, and gives back what is free beyond the limit.
    pub(crate) fn set_resident_max(&mut self, segments: u32) {
        self.resident_max = segments.min(self.arena.segment_count());
        self.arena.expect(self.resident_max);
        while self.resident_segments() > self.resident_max {
            let Some(segment) = self.free_resident.pop() else { break };
            self.arena.release(segment);
            self.free_released.push(segment);
        }
    }

    /// Bytes that can still be appended to the open segment of `stream`.
    #[inline]
    pub(crate) fn room(&self, stream: Stream) -> u32 {
        match self.open[stream as usize] {
            Some(segment) => self.segment_bytes() - self.segments[segment.index()].used,
            None => 0,
        }
    }

    /// Whether the next segment opened will be one that holds no memory yet.
    pub(crate) fn is_growing(&self) -> bool {
        self.free_resident.is_empty() && self.free_pinned.is_empty()
    }

    /// Whether a sealed segment is half empty, or more than that.
    pub(crate) fn has_half_empty(&self) -> bool {
        let half = self.segment_bytes() / 2;
        self.segments.iter().any(|it| it.state == State::Sealed && it.live_bytes <= half)
    }

    /// Whether more segments hold memory than may.
    pub(crate) fn is_beyond_limit(&self) -> bool {
        self.resident_segments() > self.resident_max
    }

    /// Seals the open segment of `stream` and opens a free one. `false` when none is available.
    pub(crate) fn open_next(&mut self, stream: Stream) -> bool {
        // The cleaner may go beyond the limit by the segment that it is about to free.
        if stream == Stream::New && self.segments_available() == 0 {
            return false;
        }
        let Some(next) = self.take_free() else { return false };
        self.seal(stream);
        self.sequence += 1;
        if self.is_durable && self.sequence >= self.state.segment_sequences {
            self.state.segment_sequences = self.sequence + SEGMENT_SEQUENCES_STEP;
            self.write_state();
        }
        let header =
            segment::Header { shard: self.shard, stream: stream as u16, sequence: self.sequence };
        header.open(self.arena.segment_mut(next));
        self.segments[next.index()] = Segment {
            state: State::Open,
            live_bytes: 0,
            used: segment::HEADER_BYTES,
            seal: header.record_seal(),
        };
        self.open[stream as usize] = Some(next);
        true
    }

    /// A free segment that can be written to without fail.
    fn take_free(&mut self) -> Option<SegmentId> {
        if !self.free_pinned.is_empty() {
            self.take_back_pinned();
        }
        for free in [&mut self.free_resident, &mut self.free_released] {
            if let Some(&next) = free.last()
                && self.arena.reserve(next)
            {
                return free.pop();
            }
        }
        None
    }

    /// Frees what nobody has pinned any more. If there is nothing else to be had, waits until that is so of one segment:
    /// pins are kept for a moment, by who waits for nothing that this shard has locked.
    #[cold]
    fn take_back_pinned(&mut self) {
        loop {
            let (pinned, free) = std::mem::take(&mut self.free_pinned)
                .into_iter()
                .partition(|segment| self.pins.is_pinned(segment.index()));
            self.free_pinned = pinned;
            let free: Vec<SegmentId> = free;
            free.into_iter().for_each(|segment| self.put_back(segment));
            let has_free = !self.free_resident.is_empty() || !self.free_released.is_empty();
            if has_free || self.free_pinned.is_empty() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn seal(&mut self, stream: Stream) {
        let Some(segment) = self.open[stream as usize].take() else { return };
        let used = self.segments[segment.index()].used;
        segment::seal(self.arena.segment_mut(segment), used);
        self.segments[segment.index()].state = State::Sealed;
        self.free_if_dead(segment);
    }

    /// Appends `len` bytes, a record's padded length, for which there is [`Self::room`].
    #[inline]
    pub(crate) fn append(&mut self, stream: Stream, len: u32) -> Place<'_> {
        assert!(len <= self.room(stream), "the caller opened a segment with room");
        let Some(segment) = self.open[stream as usize] else {
            unreachable!("room is 0 without one")
        };
        let state = &mut self.segments[segment.index()];
        let offset = state.used;
        state.used += len;
        state.live_bytes += len;
        let seal = state.seal;
        let (from, to) = (offset as usize, (offset + len) as usize);
        Place {
            location: self.location_of(segment, offset),
            seal,
            bytes: &mut self.arena.segment_mut(segment)[from..to],
        }
    }

    #[inline]
    fn location_of(&self, segment: SegmentId, offset: u32) -> Location {
        Location((segment.0 << (self.segment_shift - 2)) + offset / 4)
    }

    #[inline]
    fn segment_of(&self, location: Location) -> SegmentId {
        SegmentId(location.0 >> (self.segment_shift - 2))
    }

    #[inline]
    fn offset_of(&self, location: Location) -> usize {
        (location.0 & ((1 << (self.segment_shift - 2)) - 1)) as usize * 4
    }

    /// What the record at a location is stored under.
    pub(crate) fn seal_of(&self, location: Location) -> Seal {
        self.segments[self.segment_of(location).index()].seal
    }

    /// The record at a location.
    #[inline]
    pub(crate) fn record(&self, location: Location) -> View<'_> {
        let segment = self.arena.segment(self.segment_of(location));
        View::of(&segment[self.offset_of(location)..])
    }

    /// Pins `value`, which stands in the record at a location.
    pub(crate) fn pin(&self, location: Location, value: &[u8]) -> PinnedPiece {
        self.pins.pin(self.segment_of(location).index(), value)
    }

    /// Asks the processor to fetch the beginning of a record.
    #[inline]
    pub(crate) fn prefetch(&self, location: Location) {
        let segment = self.arena.segment(self.segment_of(location));
        if let Some(record) = segment.get(self.offset_of(location)..) {
            prefetch_lines(record, PREFETCHED_LINES);
        }
    }

    /// The bytes of a record and what follows it, to rewrite what a restart does not read.
    pub(crate) fn record_mut(&mut self, location: Location) -> &mut [u8] {
        let (segment, offset) = (self.segment_of(location), self.offset_of(location));
        &mut self.arena.segment_mut(segment)[offset..]
    }

    /// Rewrites `bytes` of a record in place, from its byte `at` on, as one step: after a kill either
    /// all of them stand or none.
    pub(crate) fn patch(&mut self, location: Location, at: usize, bytes: &[u8]) {
        let (segment, offset) = (self.segment_of(location), self.offset_of(location) + at);
        if self.is_durable {
            let header = segment::Header::read(self.arena.segment(segment));
            let patch = Patch {
                segment: segment.0,
                sequence: header.map_or(0, |header| header.sequence),
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
                bytes,
            };
            if let Some(page) = self.arena.page_mut() {
                patch.begin(page);
            }
        }
        self.arena.segment_mut(segment)[offset..offset + bytes.len()].copy_from_slice(bytes);
        if self.is_durable
            && let Some(page) = self.arena.page_mut()
        {
            Patch::end(page);
        }
    }

    /// The record at `location`, of `len` bytes, is not pointed at any more.
    #[inline]
    pub(crate) fn kill(&mut self, location: Location, len: u32) {
        let segment = self.segment_of(location);
        if self.is_durable {
            // What takes its place was written before, and has to stand before.
            compiler_fence(Ordering::SeqCst);
            let offset = self.offset_of(location);
            record::mark_dead(&mut self.arena.segment_mut(segment)[offset..]);
            compiler_fence(Ordering::SeqCst);
        }
        let state = &mut self.segments[segment.index()];
        debug_assert!(state.live_bytes >= len, "a record dies once");
        state.live_bytes -= len;
        self.free_if_dead(segment);
    }

    #[inline]
    fn free_if_dead(&mut self, segment: SegmentId) {
        let state = &self.segments[segment.index()];
        if state.state == State::Sealed && state.live_bytes == 0 {
            self.free(segment);
        }
    }

    fn free(&mut self, segment: SegmentId) {
        self.segments[segment.index()] = Segment::FREE;
        if self.is_durable {
            segment::wipe(self.arena.segment_mut(segment));
        }
        if self.pins.is_pinned(segment.index()) {
            self.free_pinned.push(segment);
        } else {
            self.put_back(segment);
        }
    }

    /// A segment that is free, and not pinned, goes to the others.
    fn put_back(&mut self, segment: SegmentId) {
        if self.resident_segments() > self.resident_max {
            self.arena.release(segment);
            self.free_released.push(segment);
        } else {
            self.free_resident.push(segment);
        }
    }

    /// Takes the sealed segment with the fewest live bytes out for cleaning, unless even that one is
    /// so full that moving its records gains less than a sixteenth of a segment.
    ///
    /// Weighing a segment's age in, as LFS's cost-benefit rule does, was tried: it moved a quarter
    /// less under ARC and S3-FIFO, but nearly twice as much under LRU and W-TinyLFU, whose victims
    /// empty old segments by themselves.
    pub(crate) fn begin_cleaning(&mut self) -> Option<SegmentId> {
        let (index, emptiest) = self
            .segments
            .iter()
            .enumerate()
            .filter(|(_, segment)| segment.state == State::Sealed)
            .min_by_key(|(_, segment)| segment.live_bytes)?;
        if emptiest.live_bytes > self.segment_bytes() - self.segment_bytes() / 16 {
            return None;
        }
        let segment = SegmentId(u32::try_from(index).ok()?);
        self.segments[index].state = State::Cleaning;
        Some(segment)
    }

    /// The first record at or after `offset` in a segment, and where the next one begins.
    pub(crate) fn record_at(&self, segment: SegmentId, offset: u32) -> Option<(Location, u32)> {
        if offset >= self.segments[segment.index()].used {
            return None;
        }
        let location = self.location_of(segment, offset);
        Some((location, offset + self.record(location).len()))
    }

    /// Live bytes of a segment.
    pub(crate) fn live_bytes(&self, segment: SegmentId) -> u32 {
        self.segments[segment.index()].live_bytes
    }

    /// The segment being cleaned has no live record left; it is free.
    pub(crate) fn end_cleaning(&mut self, segment: SegmentId) {
        let state = &self.segments[segment.index()];
        assert!(state.state == State::Cleaning, "only a segment taken for cleaning is given back");
        assert!(state.live_bytes == 0, "every live record was moved");
        self.free(segment);
    }

    /// Copies a record to the open segment for moved ones, which has room, and returns where it is
    /// now. The old bytes stay as they are.
    pub(crate) fn copy_record(&mut self, from: Location, scratch: &mut Vec<u8>) -> Location {
        let len = self.record(from).len();
        scratch.clear();
        scratch.extend_from_slice(&self.record_mut(from)[..len as usize]);
        let before = self.seal_of(from);
        let place = self.append(Stream::Moved, len);
        record::change_seal(scratch, before, place.seal);
        place.bytes.copy_from_slice(scratch);
        place.location
    }

    /// Frees every segment.
    pub(crate) fn clear(&mut self) {
        self.open = [None, None];
        for index in 0..self.segments.len() {
            if self.segments[index].state != State::Free {
                self.free(SegmentId(u32::try_from(index).unwrap_or(u32::MAX)));
            }
        }
    }

    /// Live bytes over all segments.
    pub(crate) fn live_bytes_total(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.live_bytes)).sum()
    }
}

impl Drop for Log {
    /// What is pinned is not given back, ever: whoever reads it does not hear of the end.
    fn drop(&mut self) {
        if self.pins.is_any_pinned() {
            std::mem::forget(self.take_arena());
        }
    }
}
