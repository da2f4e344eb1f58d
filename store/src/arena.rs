//! `Arena`: the bytes segments are cut from.
//!
//! The log above asks for segments by number and never learns where they live, so a shard over
//! anonymous memory and one over a mapped file are the same shard.

mod anonymous;
pub mod bus_error;
pub(crate) mod cache_file;
pub(crate) mod heap;
pub(crate) mod mapped;
mod space;

pub use anonymous::AnonymousArena;
pub use cache_file::{CacheFile, Durability, Existing, OpenError};
pub use heap::HeapArena;
pub use mapped::MappedArena;

/// A segment's number within its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId(pub u32);

impl SegmentId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Memory cut into segments of equal size, a power of two.
///
/// A segment that was never written, or was released, takes no resident memory and reads as zeros.
pub trait Arena: Send {
    /// Size of every segment in bytes.
    fn segment_bytes(&self) -> u32;
    /// How many segments there are.
    fn segment_count(&self) -> u32;
    /// The bytes of a segment. Reading one that is not in use gives an empty slice or zeros.
    fn segment(&self, segment: SegmentId) -> &[u8];
    /// The bytes of a segment, to write: `segment_bytes` of them.
    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8];
    /// Makes it `segment_count` segments, if there are fewer. An arena that cannot grow stays as it
    /// is.
    fn grow(&mut self, segment_count: u32);
    /// So many segments are going to be in use at a time, at most; those of the lowest numbers first.
    fn expect(&mut self, _segments: u32) {}
    /// Gives the segment's memory back to the system; its content is lost.
    fn release(&mut self, segment: SegmentId);
    /// Makes sure that writing to a segment cannot fail for want of room: `false` where the system
    /// has none. Asked before a segment that was released is used again, and in an arena that was
    /// reopened before any is used for the first time; what the segment holds stays.
    fn reserve(&mut self, _segment: SegmentId) -> bool {
        true
    }
    /// Whether the segment is known to hold nothing but zeros without reading it. A walk over all
    /// segments passes by those: on tmpfs reading a segment that was released takes memory.
    fn is_blank(&self, _segment: SegmentId) -> bool {
        false
    }
    /// The page in which a shard keeps what must outlive the process beside its segments; none in
    /// anonymous memory.
    fn page(&self) -> Option<&[u8]> {
        None
    }
    /// The same page, to write.
    fn page_mut(&mut self) -> Option<&mut [u8]> {
        None
    }
}
