//! Anonymous memory: each segment an allocation of its own, made when it is first written.

use crate::arena::{Arena, SegmentId};

/// An arena in anonymous memory.
pub struct HeapArena {
    segments: Vec<Box<[u8]>>,
    segment_bytes: u32,
}

impl HeapArena {
    /// An arena of `segment_count` segments of `segment_bytes`, none of them resident yet.
    pub fn new(segment_bytes: u32, segment_count: u32) -> Self {
        assert!(segment_bytes.is_power_of_two(), "a location is split by shift and mask");
        Self { segments: vec![Box::default(); segment_count as usize], segment_bytes }
    }
}

impl Arena for HeapArena {
    fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    fn segment_count(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn segment(&self, segment: SegmentId) -> &[u8] {
        &self.segments[segment.index()]
    }

    #[inline]
    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        let bytes = &mut self.segments[segment.index()];
        if bytes.is_empty() {
            *bytes = vec![0; self.segment_bytes as usize].into_boxed_slice();
        }
        bytes
    }

    fn grow(&mut self, segment_count: u32) {
        let count = self.segments.len().max(segment_count as usize);
        self.segments.resize_with(count, Box::default);
    }

    fn release(&mut self, segment: SegmentId) {
        self.segments[segment.index()] = Box::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_what_is_written_until_it_is_released() {
        let mut arena = HeapArena::new(1024, 4);
        arena.segment_mut(SegmentId(2))[7] = 9;
        assert_eq!(arena.segment(SegmentId(2))[7], 9);
        arena.release(SegmentId(2));
        assert_eq!(arena.segment_mut(SegmentId(2))[7], 0);
    }
}
