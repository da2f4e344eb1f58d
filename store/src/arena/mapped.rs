//! A mapped file: the segments and the page of one shard of a [`CacheFile`].
//!
//! ```text
//! segment  0 .......... n-1 | n ...... m-1 | ...
//!          | first extent   | second       |       one mapping each, contiguous in the file
//! ```
//!
//! A file that somebody else writes to cannot be lent as a `&mut [u8]`. What makes it acceptable:
//!
//! - The file is locked, every process of ours asks for the lock, and within the process a shard has
//!   one arena. Only the owner of the file may open it otherwise.
//! - Whoever writes to it all the same, without the lock, changes bytes under the borrow, as anybody
//!   can who may debug the process. What is read is bytes, for which every pattern is valid, and
//!   nothing is believed that its checksum does not confirm.
//! - Whoever truncates it takes pages away; see [`bus_error`](super::bus_error).
//!
//! Room that was given back may be gone when it is wanted again, and a page without room is a bus
//! error. So a segment says whether its room is certain, and [`Arena::reserve`] makes it certain.

#![expect(unsafe_code, reason = "mapping hands out raw memory; everything above is safe")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use memmap2::{Mmap, MmapMut, MmapOptions, MmapRaw};

use crate::arena::bus_error::Registration;
use crate::arena::cache_file::Claim;
use crate::arena::{Arena, CacheFile, SegmentId, space};
use crate::superblock::PAGE_BYTES;

/// The arena of one shard in a cache file.
pub struct MappedArena {
    page: Mapping,
    first: Mapping,
    further: Vec<Mapping>,
    /// Room of every segment in use.
    room: Vec<Room>,
    segment_shift: u32,
    /// Dropped last: until then the shard has this arena.
    claim: Claim,
}

/// Whether the file system has room for a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Reserved,
    /// An earlier process may have given it back.
    Unknown,
    Released,
}

impl MappedArena {
    pub(super) fn new(file: &CacheFile, shard: u32) -> io::Result<Self> {
        let superblock = file.superblock();
        let claim = file.claim(shard).ok_or_else(|| {
            let count = superblock.shard_count;
            let reason = format!("shard {shard} of {count} has an arena already, or is none");
            io::Error::new(io::ErrorKind::ResourceBusy, reason)
        })?;
        let mut arena = Self {
            page: Mapping::new(file.file(), superblock.page_offset(shard), PAGE_BYTES as u64)?,
            first: Mapping::of_extent(&claim, 0)?,
            further: Vec::new(),
            room: Vec::new(),
            segment_shift: superblock.segment_bytes.trailing_zeros(),
            claim,
        };
        arena.map_further(u32::MAX)?;
        arena.set_segment_count(u32::MAX);
        Ok(arena)
    }

    /// Maps extents until there are `segment_count` segments, or no more extents.
    fn map_further(&mut self, segment_count: u32) -> io::Result<()> {
        let extents = self.claim.file.superblock().extents.len();
        while self.further.len() + 1 < extents && self.mapped_segments() < segment_count as usize {
            let extent = Mapping::of_extent(&self.claim, self.further.len() + 1)?;
            self.further.push(extent);
        }
        Ok(())
    }

    fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        std::iter::once(&self.first).chain(&self.further)
    }

    fn mapped_segments(&self) -> usize {
        self.mappings().map(|it| it.bytes.len() >> self.segment_shift).sum()
    }

    /// Takes segments into use that are mapped, up to `segment_count`.
    fn set_segment_count(&mut self, segment_count: u32) {
        let mut room = Vec::new();
        for (index, mapping) in self.mappings().enumerate() {
            let known = index >= self.claim.known_from;
            let state = if known { Room::Reserved } else { Room::Unknown };
            room.resize(room.len() + (mapping.bytes.len() >> self.segment_shift), state);
        }
        room.truncate(segment_count as usize);
        let before = self.room.len();
        self.room.extend(room.into_iter().skip(before));
    }

    fn range(&self, segment: SegmentId) -> Range<usize> {
        let from = segment.index() << self.segment_shift;
        from..from + (1 << self.segment_shift)
    }

    /// The mapping and the range in it of a segment, whichever extent it is in.
    fn locate(&self, segment: SegmentId) -> (usize, Range<usize>) {
        let mut range = self.range(segment);
        for (index, mapping) in self.mappings().enumerate() {
            let len = mapping.bytes.len();
            if range.start < len {
                return (index, range);
            }
            range = range.start - len..range.end - len;
        }
        panic!("segment {} of {} is asked for", segment.0, self.room.len())
    }

    fn file_offset(&self, segment: SegmentId) -> u64 {
        let (index, range) = self.locate(segment);
        let mapping = self.mappings().nth(index).unwrap_or(&self.first);
        mapping.file_offset + range.start as u64
    }

    #[cold]
    #[inline(never)]
    fn segment_in_further(&self, segment: SegmentId) -> &[u8] {
        let (index, range) = self.locate(segment);
        &self.further[index - 1].bytes[range]
    }

    #[cold]
    #[inline(never)]
    fn segment_in_further_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        let (index, range) = self.locate(segment);
        &mut self.further[index - 1].bytes[range]
    }

    /// A released segment is written to although its room was not asked for: our own bug, which must
    /// not become a bus error where it need not.
    #[cold]
    #[inline(never)]
    fn reserve_late(&mut self, segment: SegmentId) {
        debug_assert!(false, "segment {} was released and is written to", segment.0);
        self.reserve(segment);
    }
}

impl Arena for MappedArena {
    fn segment_bytes(&self) -> u32 {
        1 << self.segment_shift
    }

    fn segment_count(&self) -> u32 {
        u32::try_from(self.room.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn segment(&self, segment: SegmentId) -> &[u8] {
        match self.first.bytes.get(self.range(segment)) {
            Some(bytes) => bytes,
            None => self.segment_in_further(segment),
        }
    }

    #[inline]
    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        if self.room[segment.index()] == Room::Released {
            self.reserve_late(segment);
        }
        let range = self.range(segment);
        if range.end <= self.first.bytes.len() {
            &mut self.first.bytes[range]
        } else {
            self.segment_in_further_mut(segment)
        }
    }

    fn grow(&mut self, segment_count: u32) {
        if self.map_further(segment_count).is_ok() {
            self.set_segment_count(segment_count);
        }
    }

    fn release(&mut self, segment: SegmentId) {
        let (offset, bytes) = (self.file_offset(segment), u64::from(self.segment_bytes()));
        if space::give_back(self.claim.file.file(), offset, bytes) {
            self.room[segment.index()] = Room::Released;
        } else {
            // The room stays taken; the content is gone, as promised.
            self.segment_mut(segment).fill(0);
        }
    }

    fn reserve(&mut self, segment: SegmentId) -> bool {
        if self.room[segment.index()] != Room::Reserved {
            let (offset, bytes) = (self.file_offset(segment), u64::from(self.segment_bytes()));
            // Where room cannot be reserved it cannot be given back either: it is still there since
            // the file was made.
            if space::reserve(self.claim.file.file(), offset, bytes).is_err() {
                return false;
            }
            self.room[segment.index()] = Room::Reserved;
        }
        true
    }

    fn is_blank(&self, segment: SegmentId) -> bool {
        let (offset, bytes) = (self.file_offset(segment), u64::from(self.segment_bytes()));
        !space::holds_data(self.claim.file.file(), offset, bytes)
    }

    fn page(&self) -> Option<&[u8]> {
        Some(&self.page.bytes)
    }

    fn page_mut(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.page.bytes)
    }
}

/// A whole file in memory, to read.
#[derive(Debug)]
pub(crate) struct ReadMapping {
    /// Dropped before the bytes are unmapped.
    _registration: Option<Registration>,
    bytes: Mmap,
}

impl ReadMapping {
    /// Maps a file that is only read from now on.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: it is a snapshot, which is complete before it gets its name and is never written to
        // again; only the owner may open it otherwise. Bytes that change all the same fail the
        // checksum that is compared before they are believed, and bytes of which every pattern is
        // valid are all that is read.
        let bytes = unsafe { Mmap::map(file) }?;
        Ok(Self { _registration: Registration::of(&bytes), bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A whole file in memory as words that any thread may load and store.
#[derive(Debug)]
pub(crate) struct SharedWords {
    /// Dropped before the words are unmapped.
    _registration: Registration,
    mapping: MmapRaw,
}

impl SharedWords {
    /// Maps a file; what is beyond its last whole word is left out.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let mapping = MmapOptions::new().map_raw(file)?;
        // SAFETY: the mapping begins there and is so long; nothing is read from the slice, whose
        // address and length are all that is entered.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.as_ptr(), mapping.len()) };
        let registration = Registration::of(bytes).ok_or_else(|| {
            io::Error::other("too many mappings to protect them all from bus errors")
        })?;
        Ok(Self { _registration: registration, mapping })
    }

    /// The words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let count = self.mapping.len() / size_of::<AtomicU64>();
        let first = self.mapping.as_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping begins at a page, so its words are aligned; it holds `count` of them
        // until `self` drops; and every pattern is a valid word. All that this process does to them
        // it does through atomics, as does whoever else maps the file and keeps to its rules.
        unsafe { std::slice::from_raw_parts(first, count) }
    }
}

/// A stretch of the file in memory.
struct Mapping {
    /// Dropped before the bytes are unmapped.
    _registration: Registration,
    bytes: MmapMut,
    file_offset: u64,
}

impl Mapping {
    /// A shard's run of segments in an extent.
    fn of_extent(claim: &Claim, index: usize) -> io::Result<Self> {
        let superblock = claim.file.superblock();
        let run_bytes = superblock.run_bytes(superblock.extents[index]);
        let file_offset = superblock.extent_offset(index) + u64::from(claim.shard) * run_bytes;
        let mapping = Self::new(claim.file.file(), file_offset, run_bytes)?;
        // Fewer misses of the address cache where it helps; tmpfs mounted for it and some file
        // systems do, the others refuse.
        #[cfg(target_os = "linux")]
        let _offered = mapping.bytes.advise(memmap2::Advice::HugePage);
        Ok(mapping)
    }

    fn new(file: &File, file_offset: u64, bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the file is locked, and the claim of the shard's arena, which outlives the
        // mapping, keeps a second one from being made of this stretch: no slice but those borrowed
        // from it points there. What others can do to the file is in the header.
        let bytes = unsafe { MmapOptions::new().offset(file_offset).len(bytes).map_mut(file) }?;
        let registration = Registration::of(&bytes).ok_or_else(|| {
            io::Error::other("too many mappings to protect them all from bus errors")
        })?;
        Ok(Self { _registration: registration, bytes, file_offset })
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;
    use crate::arena::Existing;
    use crate::superblock::{PolicyName, Superblock};

    const SEGMENT_BYTES: u32 = 64 << 10;

    fn file_of(segments: u32) -> (TempDir, CacheFile) {
        let directory = tempfile::tempdir().unwrap();
        let superblock = Superblock {
            generation: 0,
            cache_id: 1,
            cluster_id: 0,
            boot_id: 2,
            shard_count: 3,
            segment_bytes: SEGMENT_BYTES,
            shard_bytes: 1 << 20,
            item_bytes_max: 1 << 20,
            policy: PolicyName::new("lru").unwrap(),
            extents: vec![segments],
            clean: None,
            seen_unix_ms: 0,
        };
        let file = CacheFile::create(directory.path(), superblock, Existing::Keep).unwrap();
        (directory, file)
    }

    fn blocks(file: &CacheFile) -> u64 {
        file.sync().unwrap();
        file.file().metadata().unwrap().blocks()
    }

    #[test]
    fn a_released_segment_gives_its_room_back_and_reads_as_zeros() {
        let (_directory, file) = file_of(8);
        let mut arena = file.arena(1).unwrap();
        (0..8).for_each(|segment| arena.segment_mut(SegmentId(segment)).fill(7));
        let before = blocks(&file);
        arena.release(SegmentId(2));
        if cfg!(target_os = "linux") {
            let given_back = before - blocks(&file);
            // Less what the file system needs to note that the file has a hole.
            assert!(given_back >= u64::from(SEGMENT_BYTES) / 512 - 16, "{given_back} blocks");
            assert!(arena.is_blank(SegmentId(2)) && !arena.is_blank(SegmentId(3)));
        }
        for segment in 0..8 {
            let expected = if segment == 2 { 0 } else { 7 };
            assert!(arena.segment(SegmentId(segment)).iter().all(|&byte| byte == expected));
        }
        assert!(arena.reserve(SegmentId(2)));
        assert!(blocks(&file) >= before);
        arena.segment_mut(SegmentId(2)).fill(9);
        assert_eq!(arena.segment(SegmentId(2))[0], 9);
    }

    #[test]
    fn reserving_keeps_what_a_segment_holds() {
        let (directory, file) = file_of(2);
        file.arena(0).unwrap().segment_mut(SegmentId(1)).fill(7);
        drop(file);
        let file = CacheFile::open(directory.path()).unwrap().unwrap();
        let mut arena = file.arena(0).unwrap();
        for _ in 0..2 {
            assert!(arena.reserve(SegmentId(1)));
            assert!(arena.segment(SegmentId(1)).iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "was released and is written to")]
    fn writing_to_a_released_segment_without_asking_for_its_room_is_our_own_bug() {
        let (_directory, file) = file_of(2);
        let mut arena = file.arena(0).unwrap();
        arena.release(SegmentId(1));
        arena.segment_mut(SegmentId(1));
    }

    #[test]
    #[should_panic(expected = "segment 2 of 2 is asked for")]
    fn a_segment_that_does_not_exist_is_not_read() {
        let (_directory, file) = file_of(2);
        let arena = file.arena(0).unwrap();
        arena.segment(SegmentId(2));
    }

    #[test]
    fn shards_do_not_touch_each_other() {
        let (_directory, file) = file_of(3);
        let mut arenas: Vec<MappedArena> = (0..3).map(|it| file.arena(it).unwrap()).collect();
        for (value, arena) in (1..).zip(&mut arenas) {
            (0..3).for_each(|segment| arena.segment_mut(SegmentId(segment)).fill(value));
            arena.page_mut().unwrap().fill(value);
        }
        for (value, arena) in (1..).zip(&arenas) {
            let pages = std::iter::once(arena.page().unwrap());
            for bytes in pages.chain((0..3).map(|it| arena.segment(SegmentId(it)))) {
                assert!(bytes.iter().all(|&byte| byte == value));
            }
        }
    }
}
