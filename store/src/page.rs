//! A shard's page in a cache file: the little that must outlive the process beside the segments.
//!
//! ```text
//! 0      state    copy A, 64 B
//! 64     state    copy B, 64 B
//! 128    patch    what is about to be rewritten in place, 512 B
//!
//! state: segment_sequences 8 | write_sequences 8 | flush_at_ms 8 | entries 8 | zeros 28 | crc32c 4
//! patch: crc32c 4 | offset 4 | segment 4 | len 4 | segment's sequence 8 | bytes
//! ```
//!
//! - The state is written to copy A, then to copy B: a kill in between leaves one of them whole. The
//!   next start makes the other whole first, so that a second kill cannot take both.
//! - Sequence numbers are reserved ahead in steps, so that no number is handed out twice, whatever is
//!   left of the segments that carry them.
//! - A rewriting in place is noted here first, done, and crossed out: after a kill it is done again,
//!   which changes nothing where it was complete.

use std::sync::atomic::{Ordering, compiler_fence};

use crate::time::Timestamp;

const STATE_BYTES: usize = 64;
const PATCH_AT: usize = 128;
const PATCH_HEADER_BYTES: usize = 24;
/// The longest run of bytes that is rewritten in place.
pub(crate) const PATCH_BYTES_MAX: usize = 400;

/// What a shard knows beside its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// No segment was opened with this sequence number or a greater one.
    pub(crate) segment_sequences: u64,
    /// No write was given this sequence number or a greater one.
    pub(crate) write_sequences: u64,
    /// A flush that was asked for and not carried out.
    pub(crate) flush_at: Option<Timestamp>,
    /// How many entries there were, about: so that an index can be built in its final size.
    pub(crate) entries: u64,
}

impl State {
    fn encode(&self) -> [u8; STATE_BYTES] {
        let flush_at = self.flush_at.map_or(u64::MAX, |at| at.0);
        let mut bytes = [0; STATE_BYTES];
        bytes[0..8].copy_from_slice(&self.segment_sequences.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.write_sequences.to_le_bytes());
        bytes[16..24].copy_from_slice(&flush_at.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.entries.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..STATE_BYTES - 4]);
        bytes[STATE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let is_intact = crc32c::crc32c(&bytes[..STATE_BYTES - 4]) == word(bytes, STATE_BYTES - 4);
        let is_written = bytes.iter().any(|&byte| byte != 0);
        (is_intact && is_written).then(|| Self {
            segment_sequences: long(bytes, 0),
            write_sequences: long(bytes, 8),
            flush_at: Some(long(bytes, 16)).filter(|&at| at != u64::MAX).map(Timestamp),
            entries: long(bytes, 24),
        })
    }

    /// Writes the state to both its places.
    pub(crate) fn write(&self, page: &mut [u8]) {
        let bytes = self.encode();
        compiler_fence(Ordering::SeqCst);
        page[..STATE_BYTES].copy_from_slice(&bytes);
        compiler_fence(Ordering::SeqCst);
        page[STATE_BYTES..2 * STATE_BYTES].copy_from_slice(&bytes);
        compiler_fence(Ordering::SeqCst);
    }

    /// Reads the state from the place that is whole; the first, where both are, is the newer. Both are
    /// whole afterwards.
    pub(crate) fn read_mending(page: &mut [u8]) -> Option<Self> {
        let (first, rest) = page.split_at_mut(STATE_BYTES);
        let second = &mut rest[..STATE_BYTES];
        if let Some(state) = Self::decode(first) {
            if first != second {
                second.copy_from_slice(first);
                compiler_fence(Ordering::SeqCst);
            }
            return Some(state);
        }
        let state = Self::decode(second)?;
        first.copy_from_slice(second);
        compiler_fence(Ordering::SeqCst);
        Some(state)
    }
}

/// A run of bytes to be rewritten in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch<'a> {
    /// The segment's number.
    pub(crate) segment: u32,
    /// The life of the segment that is meant.
    pub(crate) sequence: u64,
    /// Where in the segment, in bytes from its start.
    pub(crate) offset: u32,
    /// What is to stand there: at most [`PATCH_BYTES_MAX`].
    pub(crate) bytes: &'a [u8],
}

impl<'a> Patch<'a> {
    /// Notes what is about to be done.
    pub(crate) fn begin(&self, page: &mut [u8]) {
        let len = self.bytes.len();
        let note = &mut page[PATCH_AT..PATCH_AT + PATCH_HEADER_BYTES + PATCH_BYTES_MAX];
        let len_field = u32::try_from(len).unwrap_or(u32::MAX);
        note[4..8].copy_from_slice(&self.offset.to_le_bytes());
        note[8..12].copy_from_slice(&self.segment.to_le_bytes());
        note[12..16].copy_from_slice(&len_field.to_le_bytes());
        note[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        note[PATCH_HEADER_BYTES..PATCH_HEADER_BYTES + len].copy_from_slice(self.bytes);
        let crc = crc32c::crc32c(&note[4..PATCH_HEADER_BYTES + len]);
        compiler_fence(Ordering::SeqCst);
        note[0..4].copy_from_slice(&crc.to_le_bytes());
        compiler_fence(Ordering::SeqCst);
    }

    /// Crosses it out: it is done.
    pub(crate) fn end(page: &mut [u8]) {
        compiler_fence(Ordering::SeqCst);
        // The checksum alone would do, but for a note whose checksum happens to be zero.
        page[PATCH_AT..PATCH_AT + 16].fill(0);
    }

    /// What was begun and not crossed out.
    pub(crate) fn pending(page: &'a [u8]) -> Option<Self> {
        let note = &page[PATCH_AT..PATCH_AT + PATCH_HEADER_BYTES + PATCH_BYTES_MAX];
        let len = word(note, 12) as usize;
        if len == 0 || len > PATCH_BYTES_MAX {
            return None;
        }
        let crc = crc32c::crc32c(&note[4..PATCH_HEADER_BYTES + len]);
        (crc == word(note, 0)).then(|| Self {
            segment: word(note, 8),
            sequence: long(note, 16),
            offset: word(note, 4),
            bytes: &note[PATCH_HEADER_BYTES..PATCH_HEADER_BYTES + len],
        })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::PAGE_BYTES;

    const STATE: State = State {
        segment_sequences: 7,
        write_sequences: 1 << 40,
        flush_at: Some(Timestamp(1_800_000_000_000)),
        entries: 12,
    };

    #[test]
    fn a_state_survives_any_flipped_bit() {
        let mut page = vec![0; PAGE_BYTES];
        assert_eq!(State::read_mending(&mut page), None, "a page never written has none");
        STATE.write(&mut page);
        let whole = page.clone();
        for bit in 0..2 * STATE_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::read_mending(&mut page), Some(STATE), "bit {bit}");
            assert_eq!(page, whole, "bit {bit}");
        }
    }

    /// The page after each byte on the way from what `page` holds to `state` in both places.
    fn torn_pages(page: &[u8], state: State) -> impl Iterator<Item = Vec<u8>> {
        let mut after = page.to_vec();
        state.write(&mut after);
        (0..=2 * STATE_BYTES).map(move |written| {
            let mut torn = page.to_vec();
            torn[..written].copy_from_slice(&after[..written]);
            torn
        })
    }

    #[test]
    fn a_state_torn_by_two_kills_in_a_row_is_the_one_before_or_the_one_after() {
        let mut page = vec![0; PAGE_BYTES];
        STATE.write(&mut page);
        let page = page[..2 * STATE_BYTES].to_vec();
        let next = State { segment_sequences: 8, flush_at: None, ..STATE };
        let last = State { segment_sequences: 9, ..next };
        for mut torn in torn_pages(&page, next) {
            let state = State::read_mending(&mut torn);
            assert!(state == Some(STATE) || state == Some(next));
            for mut torn in torn_pages(&torn, last) {
                let read = State::read_mending(&mut torn);
                assert!(read == state || read == Some(last));
            }
        }
    }

    #[test]
    fn a_patch_is_pending_from_its_note_until_it_is_crossed_out() {
        let mut page = vec![0; PAGE_BYTES];
        assert_eq!(Patch::pending(&page), None);
        let patch = Patch { segment: 3, sequence: 9, offset: 640, bytes: b"new bytes" };
        patch.begin(&mut page);
        assert_eq!(Patch::pending(&page), Some(patch));
        for bit in PATCH_AT * 8..(PATCH_AT + PATCH_HEADER_BYTES + 9) * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Patch::pending(&page), None, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        Patch::end(&mut page);
        assert_eq!(Patch::pending(&page), None);
    }
}
