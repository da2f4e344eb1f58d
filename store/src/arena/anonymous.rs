//! Anonymous memory in one stretch, in huge pages where the system has them.
//!
//! ```text
//! segment  0 .......... n-1 | n ...... m-1 | ...
//!          | first stretch  | grown        |        one mapping each
//! ```
//!
//! Items are read at random, so nearly every read of one misses the processor's cache of addresses where a page
//! is 4 KiB, and seldom where it is 2 MiB. Huge pages are asked for, never insisted on.
//!
//! - A segment that was never written, or was released, takes no memory, as in a heap of small pages: huge pages end
//!   where segments are expected to be in use.
//! - They are asked for when a stretch is used beyond its first thirty-second part: a cache that holds nearly nothing
//!   stays small.

#![expect(unsafe_code, reason = "giving memory back is a call that could forget what is borrowed")]

use std::io;
use std::ops::Range;

use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};

use crate::arena::{Arena, SegmentId};

/// Stretches shorter than this stay in small pages: a page that is used in part would be too much of them.
const HUGE_FROM_BYTES: usize = 32 << 20;
/// The first so many-th of a stretch may be used before huge pages are asked for.
const SMALL_SHARE: usize = 32;
/// What processors call a large page, most of them.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// An arena in anonymous memory that is reserved as a whole.
pub struct AnonymousArena {
    first: Stretch,
    grown: Vec<Stretch>,
    segment_bytes: u32,
}

struct Stretch {
    bytes: MmapMut,
    /// How much of it is going to be in use, from its beginning.
    expected_bytes: usize,
    /// How much of it is to be in huge pages, from its beginning.
    huge_bytes: usize,
}

impl Stretch {
    fn new(bytes: usize) -> io::Result<Self> {
        // As with any heap, what is never touched is not counted: -m may be more than there is.
        let mapped = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        Ok(Self { bytes: mapped, expected_bytes: bytes, huge_bytes: 0 })
    }

    /// Asks for huge pages if so much of the stretch is in use that they are worth it.
    #[inline]
    fn note_use(&mut self, offset: usize) {
        let is_worth_it =
            self.expected_bytes >= HUGE_FROM_BYTES && offset >= self.bytes.len() / SMALL_SHARE;
        if self.huge_bytes == 0 && is_worth_it {
            self.set_huge();
        }
    }

    /// Has all that is expected to be used lie in huge pages, and nothing of them beyond.
    #[cold]
    fn set_huge(&mut self) {
        let begin = self.bytes.as_ptr().addr();
        let end = (begin + self.expected_bytes) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        let (before, now) = (self.huge_bytes, end.saturating_sub(begin));
        self.huge_bytes = now;
        // Refused by kernels built without them, and then things stay as they are.
        #[cfg(target_os = "linux")]
        let _offered = match now >= before {
            true => self.bytes.advise_range(memmap2::Advice::HugePage, before, now - before),
            false => self.bytes.advise_range(memmap2::Advice::NoHugePage, now, before - now),
        };
    }

    fn expect(&mut self, bytes: usize) {
        self.expected_bytes = bytes.min(self.bytes.len());
        if self.huge_bytes > 0 {
            self.set_huge();
        }
    }
}

impl AnonymousArena {
    /// An arena of `segment_count` segments of `segment_bytes`, none of them resident yet.
    ///
    /// # Errors
    ///
    /// When the system does not let the process have so many addresses.
    pub fn new(segment_bytes: u32, segment_count: u32) -> io::Result<Self> {
        assert!(segment_bytes.is_power_of_two(), "a location is split by shift and mask");
        let segment = segment_bytes as usize;
        let bytes =
            segment.checked_mul(segment_count as usize).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first: Stretch::new(bytes)?, grown: Vec::new(), segment_bytes })
    }

    /// The bytes of a segment among those of its stretch, and which grown one that is.
    fn locate(&self, segment: SegmentId) -> (Option<usize>, Range<usize>) {
        let bytes = self.segment_bytes as usize;
        let mut from = segment.index() * bytes;
        if from < self.first.bytes.len() {
            return (None, from..from + bytes);
        }
        from -= self.first.bytes.len();
        for (index, stretch) in self.grown.iter().enumerate() {
            if from < stretch.bytes.len() {
                return (Some(index), from..from + bytes);
            }
            from -= stretch.bytes.len();
        }
        panic!("segment {} of {} is asked for", segment.0, self.segment_count())
    }

    fn stretch(&self, index: Option<usize>) -> &Stretch {
        index.map_or(&self.first, |index| &self.grown[index])
    }
}

impl Arena for AnonymousArena {
    fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    fn segment_count(&self) -> u32 {
        let grown: usize = self.grown.iter().map(|stretch| stretch.bytes.len()).sum();
        let segments = (self.first.bytes.len() + grown) / self.segment_bytes as usize;
        u32::try_from(segments).unwrap_or(u32::MAX)
    }

    #[inline]
    fn segment(&self, segment: SegmentId) -> &[u8] {
        let bytes = self.segment_bytes as usize;
        let from = segment.index() * bytes;
        if let Some(found) = self.first.bytes.get(from..from + bytes) {
            return found;
        }
        let (index, range) = self.locate(segment);
        &self.stretch(index).bytes[range]
    }

    #[inline]
    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        let (index, range) = self.locate(segment);
        let stretch = match index {
            None => &mut self.first,
            Some(index) => &mut self.grown[index],
        };
        stretch.note_use(range.start);
        &mut stretch.bytes[range]
    }

    fn grow(&mut self, segment_count: u32) {
        let further = segment_count.saturating_sub(self.segment_count()) as usize;
        let segment = self.segment_bytes as usize;
        if further > 0
            && let Ok(stretch) = Stretch::new(further * segment)
        {
            self.grown.push(stretch);
        }
    }

    fn expect(&mut self, segments: u32) {
        let mut bytes = segments as usize * self.segment_bytes as usize;
        for stretch in std::iter::once(&mut self.first).chain(&mut self.grown) {
            stretch.expect(bytes);
            bytes = bytes.saturating_sub(stretch.bytes.len());
        }
    }

    fn release(&mut self, segment: SegmentId) {
        let (index, range) = self.locate(segment);
        let stretch = self.stretch(index);
        // SAFETY: nothing of the segment is borrowed, or `self` could not be lent mutably. What is read
        // there afterwards are zeros, which are valid bytes.
        let given_back = unsafe {
            let (offset, len) = (range.start, range.len());
            stretch.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len)
        };
        debug_assert!(given_back.is_ok(), "memory of this process: {given_back:?}");
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_what_is_written_until_it_is_released() {
        let mut arena = AnonymousArena::new(4096, 4).unwrap();
        arena.segment_mut(SegmentId(2))[7] = 9;
        assert_eq!(arena.segment(SegmentId(2))[7], 9);
        arena.release(SegmentId(2));
        assert_eq!(arena.segment(SegmentId(2))[7], 0);
        assert_eq!(arena.segment_mut(SegmentId(2)).len(), 4096);
    }

    #[test]
    fn segments_of_all_stretches_are_apart() {
        let mut arena = AnonymousArena::new(4096, 4).unwrap();
        arena.grow(3);
        assert_eq!(arena.segment_count(), 4, "it only grows");
        arena.grow(7);
        arena.grow(8);
        assert_eq!(arena.segment_count(), 8);
        for segment in 0..8_u8 {
            arena.segment_mut(SegmentId(segment.into())).fill(segment);
        }
        for segment in 0..8_u8 {
            let bytes = arena.segment(SegmentId(segment.into()));
            assert!(bytes.len() == 4096 && bytes.iter().all(|&byte| byte == segment));
        }
        arena.release(SegmentId(5));
        assert_eq!(arena.segment(SegmentId(5))[0], 0);
        assert_eq!([4, 6].map(|segment| arena.segment(SegmentId(segment))[0]), [4, 6]);
    }

    #[test]
    fn huge_pages_are_asked_for_once_a_small_part_is_used() {
        let segment_bytes = 1 << 20;
        let mut arena = AnonymousArena::new(segment_bytes, 32).unwrap();
        arena.segment_mut(SegmentId(0))[0] = 1;
        assert_eq!(arena.first.huge_bytes, 0);
        arena.segment_mut(SegmentId(1))[0] = 1;
        assert!(arena.first.huge_bytes > 30 << 20, "{}", arena.first.huge_bytes);
        let mut small = AnonymousArena::new(segment_bytes, 31).unwrap();
        small.segment_mut(SegmentId(30))[0] = 1;
        assert_eq!(small.first.huge_bytes, 0);
    }

    #[test]
    fn huge_pages_end_where_use_is_expected_to() {
        let mut arena = AnonymousArena::new(1 << 20, 64).unwrap();
        arena.expect(41);
        arena.segment_mut(SegmentId(2))[0] = 1;
        let huge_mib = |arena: &AnonymousArena| arena.first.huge_bytes >> 20;
        assert!((39..=41).contains(&huge_mib(&arena)), "{}", huge_mib(&arena));
        arena.segment_mut(SegmentId(40))[0] = 7;
        for expected in [20, 63] {
            arena.expect(expected);
            assert!((expected - 2..=expected).contains(&u32::try_from(huge_mib(&arena)).unwrap()));
            assert_eq!(arena.segment(SegmentId(40))[0], 7);
        }
    }

    #[test]
    fn more_addresses_than_there_are_is_an_error() {
        assert!(AnonymousArena::new(1 << 31, u32::MAX).is_err());
    }
}
