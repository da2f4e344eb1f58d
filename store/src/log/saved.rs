//! What the log knows of its segments, in a snapshot, and a checksum of each.

use crate::arena::SegmentId;
use crate::log::{Log, Segment, State, Stream};
use crate::record::Seal;
use crate::snapshot::{Reader, Writer};
use crate::{page, segment};

const NO_SEGMENT: u32 = u32::MAX;

/// Why the log cannot go on from a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// What the snapshot says cannot be.
    Snapshot,
    /// So many segments hold other bytes than they did.
    Changed { segments: u32 },
}

impl Log {
    /// Writes what is known of the segments, and their checksums.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        to.u64(self.sequence);
        to.u32(self.resident_max);
        for open in self.open {
            to.u32(open.map_or(NO_SEGMENT, |segment| segment.0));
        }
        let rows: Vec<(u32, Segment)> = (0..).zip(self.segments.iter().copied()).collect();
        to.column(&rows, |&(id, segment)| {
            let mut row = [0; 16];
            row[0] = segment.state as u8;
            row[4..8].copy_from_slice(&segment.live_bytes.to_le_bytes());
            row[8..12].copy_from_slice(&segment.used.to_le_bytes());
            row[12..16].copy_from_slice(&self.checksum(SegmentId(id), segment).to_le_bytes());
            row
        });
        // Nobody reads in a process that is started with this.
        let resident = [&self.free_resident[..], &self.free_pinned].concat();
        for free in [&resident, &self.free_released] {
            to.column(free, |segment| segment.0.to_le_bytes());
        }
    }

    /// Goes on from a snapshot, provided that every segment holds what it held then.
    pub(crate) fn load(
        &mut self,
        from: &mut Reader<'_>,
        pace: &mut dyn FnMut(),
    ) -> Result<(), Unusable> {
        let changed = self.load_segments(from, pace).ok_or(Unusable::Snapshot)?;
        match changed {
            0 => Ok(()),
            segments => Err(Unusable::Changed { segments }),
        }
    }

    /// How many segments hold other bytes than they did; `None` when the snapshot cannot be.
    fn load_segments(&mut self, from: &mut Reader<'_>, pace: &mut dyn FnMut()) -> Option<u32> {
        // The page is as trustworthy as the segments: it is not in use between the stop and now.
        self.state = self.arena.page_mut().and_then(page::State::read_mending)?;
        self.sequence = from.u64()?;
        self.resident_max = from.u32()?;
        let count = self.arena.segment_count();
        let exists = |segment: u32| segment < count;
        for stream in Stream::ALL {
            let segment = from.u32()?;
            if segment != NO_SEGMENT && !exists(segment) {
                return None;
            }
            self.open[stream as usize] = (segment != NO_SEGMENT).then_some(SegmentId(segment));
        }
        let rows = from.column::<16>()?;
        let known_count = u32::try_from(rows.len()).ok().filter(|&known| known <= count)?;
        let mut changed = 0;
        for (id, row) in (0..).zip(rows) {
            let word =
                |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
            let state = State::ALL.into_iter().find(|&state| state as u8 == row[0])?;
            let mut segment =
                Segment { state, live_bytes: word(4), used: word(8), seal: Segment::FREE.seal };
            if segment.used > self.segment_bytes() {
                return None;
            }
            if state != State::Free {
                pace();
                let bytes = self.arena.segment(SegmentId(id));
                let header = segment::Header::read(bytes);
                segment.seal = header.map_or_else(Seal::default, |header| header.record_seal());
                let is_same = header.is_some() && self.checksum(SegmentId(id), segment) == word(12);
                changed += u32::from(!is_same);
            }
            self.segments[id as usize] = segment;
        }
        // Segments that were added since are empty, or they are not what the snapshot knows of.
        let added = (known_count..count).map(SegmentId);
        for segment in added.clone().filter(|&it| !self.arena.is_blank(it)) {
            changed += u32::from(segment::Header::read(self.arena.segment(segment)).is_some());
        }
        for free in [&mut self.free_resident, &mut self.free_released] {
            free.clear();
            for id in from.column::<4>()? {
                let segment = u32::from_le_bytes(*id);
                if !exists(segment) {
                    return None;
                }
                free.push(SegmentId(segment));
            }
        }
        self.free_released.splice(0..0, added.rev());
        Some(changed)
    }

    /// The checksum of what is written to a segment; 0 for a free one.
    fn checksum(&self, id: SegmentId, segment: Segment) -> u32 {
        match segment.state {
            State::Free => 0,
            _ => crc32c::crc32c(&self.arena.segment(id)[..segment.used as usize]),
        }
    }
}
