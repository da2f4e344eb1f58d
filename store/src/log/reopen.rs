//! A log over segments that an earlier process wrote: what they hold, by their bytes alone.
//!
//! ```text
//! page ──▶ redo what was being rewritten
//! headers ──▶ the segments in the order of their lives
//! each segment ──▶ records alive | dead | stretches of damage, made dead records
//! ```
//!
//! - A record counts when its checksum holds under its segment's seal and it is not marked dead.
//! - Where a record is broken the walk looks for the next one that is whole, four bytes further on
//!   each time, so damage costs the records it hit and no others. What lies behind the last whole
//!   record of a segment that was still open was never acknowledged, or is damaged: it is written
//!   over.
//! - A stretch of damage becomes dead records, so that the next walk, the cleaner's too, finds one
//!   record behind the other.

use crate::arena::SegmentId;
use crate::log::{Location, Log, Segment, State, Stream};
use crate::page::{self, Patch};
use crate::record::{self, FILLER_BYTES, Standing, View};
use crate::segment;
use crate::time::Timestamp;

/// Of a segment's bytes, how many times over may be read while looking for the next whole record. A
/// value can be made to look like the beginning of a great many records.
const SEARCHES_MAX: usize = 16;
/// The shortest stretch of damage in bytes: a record's.
const LEAST_GAP: usize = *FILLER_BYTES.start() as usize;
/// Lives of segments skipped by every walk: where power was lost, or both copies of a shard's state,
/// some may have been lived that nothing tells of.
const LIVES_SKIPPED: u64 = 1 << 20;

/// A segment with an intact header, not yet walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwalked {
    segment: SegmentId,
    header: segment::Header,
    sealed_used: Option<u32>,
}

/// A segment that was walked and was not sealed.
#[derive(Clone, Copy, Debug)]
struct Unsealed {
    segment: SegmentId,
    stream: u16,
    sequence: u64,
}

/// What is known of the segments while they are walked.
#[derive(Debug, Default)]
pub(crate) struct Reopening {
    /// In the order in which they were opened.
    pub(crate) unwalked: Vec<Unwalked>,
    unsealed: Vec<Unsealed>,
    /// Stretches of bytes that are no records, and headers that were put right.
    pub(crate) damages: u64,
    /// Bytes in those stretches.
    pub(crate) damaged_bytes: u64,
    /// Number of entries when it was last noted.
    pub(crate) entries_hint: u64,
    /// The flush that was asked for and not carried out.
    pub(crate) flush_at: Option<Timestamp>,
    /// No write was given this sequence number or a greater one.
    pub(crate) write_sequences: u64,
}

impl Log {
    /// Looks at the page and the headers, and finishes what a kill interrupted.
    pub(crate) fn begin_reopening(&mut self) -> Reopening {
        let mut reopening = Reopening::default();
        self.redo_patch();
        let state = self.arena.page_mut().and_then(page::State::read_mending);
        let was_blank = self.arena.page().is_none_or(|page| page.iter().all(|&byte| byte == 0));
        reopening.damages += u64::from(state.is_none() && !was_blank);
        self.state = state.unwrap_or_default();
        reopening.entries_hint = self.state.entries;
        reopening.flush_at = self.state.flush_at;
        reopening.write_sequences = self.state.write_sequences;
        let mut last = 0;
        for segment in (0..self.arena.segment_count()).map(SegmentId) {
            if self.arena.is_blank(segment) {
                continue;
            }
            let bytes = self.arena.segment_mut(segment);
            let Some((header, was_damaged)) = segment::Header::read_correcting(bytes) else {
                let is_wiped = bytes[..segment::HEADER_BYTES as usize].iter().all(|&it| it == 0);
                if !is_wiped {
                    reopening.damages += 1;
                    reopening.damaged_bytes += u64::from(self.segment_bytes());
                    segment::wipe(self.arena.segment_mut(segment));
                }
                continue;
            };
            reopening.damages += u64::from(was_damaged);
            if header.shard != self.shard {
                segment::wipe(bytes);
                continue;
            }
            last = last.max(header.sequence);
            let sealed_used = segment::sealed_used(bytes);
            reopening.unwalked.push(Unwalked { segment, header, sealed_used });
        }
        reopening.unwalked.sort_unstable_by_key(|it| it.header.sequence);
        self.sequence = last.max(self.state.segment_sequences) + LIVES_SKIPPED;
        reopening
    }

    /// Does again what was being rewritten in place when the process ended.
    fn redo_patch(&mut self) {
        let mut bytes = [0; page::PATCH_BYTES_MAX];
        let pending = self.arena.page().and_then(Patch::pending).map(|patch| {
            bytes[..patch.bytes.len()].copy_from_slice(patch.bytes);
            let len = patch.bytes.len();
            (patch.segment, patch.sequence, patch.offset as usize, len)
        });
        let Some((segment, sequence, offset, len)) = pending else { return };
        let (from, to) = (offset, offset.saturating_add(len));
        let fits = segment < self.arena.segment_count() && to <= self.segment_bytes() as usize;
        if fits {
            let segment = self.arena.segment_mut(SegmentId(segment));
            if segment::Header::read(segment).is_some_and(|it| it.sequence == sequence) {
                segment[from..to].copy_from_slice(&bytes[..len]);
            }
        }
        if let Some(page) = self.arena.page_mut() {
            Patch::end(page);
        }
    }

    /// Carries a flush out that has come due: forgets the segments before they are walked.
    pub(crate) fn flush(&mut self, reopening: &mut Reopening) {
        for unwalked in reopening.unwalked.drain(..) {
            segment::wipe(self.arena.segment_mut(unwalked.segment));
        }
        // Last: a kill before this flushes what is left.
        reopening.flush_at = None;
        self.set_flush_at(None);
    }

    /// Walks a segment and calls `found` for every record in it that is alive.
    pub(crate) fn walk(
        &mut self,
        walk: &Unwalked,
        reopening: &mut Reopening,
        mut found: impl FnMut(Location, View<'_>),
    ) {
        let segment = walk.segment;
        let seal = walk.header.record_seal();
        let mut gaps = Vec::new();
        let mut sequence_max = 0;
        let end = walk.sealed_used.unwrap_or_else(|| self.segment_bytes()) as usize;
        let bytes = &self.arena.segment(segment)[..end];
        let mut searched_max = end * SEARCHES_MAX;
        let mut whole_to = segment::HEADER_BYTES as usize;
        let mut at = whole_to;
        while at < end {
            let Some(view) = View::plausible(&bytes[at..]) else {
                at += 4;
                continue;
            };
            let standing = view.standing(seal);
            if standing == Standing::Broken {
                at += 4;
                searched_max = searched_max.saturating_sub(view.len() as usize);
                if searched_max == 0 {
                    break;
                }
                continue;
            }
            // What is broken was a record at least, so nothing nearer can be the next one.
            if at > whole_to && at - whole_to < LEAST_GAP {
                at += 4;
                continue;
            }
            if at > whole_to {
                gaps.push((whole_to, at));
            }
            sequence_max = sequence_max.max(view.sequence());
            if standing == Standing::Alive {
                let offset = u32::try_from(at).unwrap_or(u32::MAX);
                found(self.location_of(segment, offset), view);
            }
            at += view.len() as usize;
            whole_to = at;
        }
        if walk.sealed_used.is_some() && end - whole_to >= LEAST_GAP {
            gaps.push((whole_to, end));
            whole_to = end;
        }
        for (from, to) in gaps {
            reopening.damages += 1;
            reopening.damaged_bytes += (to - from) as u64;
            fill(&mut self.arena.segment_mut(segment)[from..to], seal);
        }
        reopening.write_sequences = reopening.write_sequences.max(sequence_max + 1);
        self.segments[segment.index()] = Segment {
            // Not sealed before all are walked, or the first record to die would free it.
            state: State::Cleaning,
            live_bytes: 0,
            used: u32::try_from(whole_to).unwrap_or(u32::MAX),
            seal,
        };
        if walk.sealed_used.is_none() {
            let segment::Header { stream, sequence, .. } = walk.header;
            reopening.unsealed.push(Unsealed { segment, stream, sequence });
        }
    }

    /// An entry points at a record that was found.
    pub(crate) fn revive(&mut self, location: Location, len: u32) {
        let segment = self.segment_of(location);
        self.segments[segment.index()].live_bytes += len;
    }

    /// Every segment was walked: goes on where the log stood, in the segments that were open.
    pub(crate) fn end_reopening(&mut self, reopening: &mut Reopening) {
        for stream in Stream::ALL {
            let open = reopening.unsealed.iter().filter(|it| it.stream == stream as u16);
            self.open[stream as usize] =
                open.max_by_key(|it| it.sequence).map(|unsealed| unsealed.segment);
        }
        // Writes the reserved numbers anew, to both copies.
        self.state.segment_sequences = self.sequence + 1;
        self.state.write_sequences = reopening.write_sequences;
        self.write_state();
        let count = self.arena.segment_count();
        self.free_resident.clear();
        self.free_released.clear();
        for segment in (0..count).rev().map(SegmentId) {
            let Segment { state, live_bytes, used, .. } = self.segments[segment.index()];
            if state == State::Free {
                self.free_resident.push(segment);
            } else if self.open.contains(&Some(segment)) {
                self.segments[segment.index()].state = State::Open;
            } else {
                if segment::sealed_used(self.arena.segment(segment)).is_none() {
                    segment::seal(self.arena.segment_mut(segment), used);
                }
                self.segments[segment.index()].state = State::Sealed;
                if live_bytes == 0 {
                    self.free(segment);
                }
            }
        }
    }
}

/// Makes a stretch of damage dead records. It is as long as at least one record, and a multiple of 4.
fn fill(mut gap: &mut [u8], seal: record::Seal) {
    let most = *FILLER_BYTES.end() as usize;
    while !gap.is_empty() {
        let len = match gap.len() {
            len if len <= most => len,
            len if len - most < LEAST_GAP => most - LEAST_GAP,
            _ => most,
        };
        let (filler, rest) = gap.split_at_mut(len);
        record::write_filler(filler, seal);
        gap = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_stretch_of_damage_becomes_one_dead_record_behind_the_other(units in 5..60_000usize) {
            let seal = record::Seal::of_life(3);
            let mut gap = vec![0xff; units * 4];
            fill(&mut gap, seal);
            let mut at = 0;
            while at < gap.len() {
                let view = View::plausible(&gap[at..]).unwrap();
                prop_assert_eq!(view.standing(seal), Standing::Dead);
                at += view.len() as usize;
            }
            prop_assert_eq!(at, gap.len());
        }
    }
}
