//! The superblock: the first 4 KiB of a cache file, which say whose it is and how it is cut.
//!
//! ```text
//! file:  | superblock, 4 KiB | page of shard 0, 4 KiB | page of shard 1 | ... | gap | extent 0 | extent 1 | ...
//!                                                                               ^ at 2 MiB    ^ at 2 MiB
//! extent:     | segments of shard 0 | segments of shard 1 | ... |
//!
//! superblock: | copy A, 2 KiB | copy B, 2 KiB |
//!
//! copy:   0 magic 8           | 8 format 4         | 12 shard_count 4    | 16 generation 8
//!        24 cache_id 16       | 40 cluster_id 16   | 56 boot_id 16
//!        72 segment_bytes 4   | 76 extent count 4  | 80 shard_bytes 8    | 88 item_bytes_max 8
//!        96 policy 16         | 112 is clean 8     | 120 snapshot id 8   | 128 seen_unix_ms 8
//!       136 extents, 64 × 4   | 392 zeros          | 2044 crc32c 4
//! ```
//!
//! - Numbers are little-endian. The checksum covers the 2,044 bytes before it.
//! - Both copies say the same, except while an update is under way: it writes copy A to its end and
//!   only then copy B, so one of the two holds at every instant, and the newer that holds counts.
//! - What every later format keeps, so that any build can tell a file it cannot read from a damaged
//!   one: magic, format, generation and checksum stay where they are.
//! - An extent's start is a multiple of 2 MiB, so that huge pages fit it. The gap before it is never
//!   mapped and takes no room.

use std::fmt;

/// Bytes of the superblock: one page.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// Bytes of the page that every shard has beside its segments.
pub const PAGE_BYTES: usize = 4096;
/// The format that this build writes and reads. Format 1 chose a key's shard by other bits of its hash.
pub const FORMAT: u32 = 2;
/// A cache file has at most this many extents.
pub const EXTENTS_MAX: usize = 64;

/// Bytes of one copy.
pub(crate) const COPY_BYTES: usize = SUPERBLOCK_BYTES / 2;
/// What a file begins with whose creation is not finished.
pub(crate) const MAGIC_UNFINISHED: [u8; 8] = *b"CACHENEW";

const MAGIC: [u8; 8] = *b"CACHEARN";
const CRC_OFFSET: usize = COPY_BYTES - 4;
const EXTENTS_OFFSET: usize = 136;
const EXTENT_ALIGN_BYTES: u64 = 2 << 20;
const SEGMENT_BYTES_MIN: u32 = 4096;
/// No file system holds more in one file; sums of sizes below it cannot overflow.
const FILE_BYTES_MAX: u64 = 1 << 62;

/// A policy's name as the superblock holds it: 1 to 16 printable ASCII characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PolicyName([u8; Self::BYTES]);

impl PolicyName {
    /// Bytes that a name takes, and may have at most.
    pub const BYTES: usize = 16;

    /// The name, or `None` if it is empty, too long or not printable ASCII.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        // A zero at its end would pass for padding.
        if name.contains('\0') { None } else { Self::from_bytes(bytes) }
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(Self::BYTES);
        let (name, padding) = bytes.split_at(len);
        let holds = !name.is_empty()
            && name.iter().all(u8::is_ascii_graphic)
            && padding.iter().all(|&byte| byte == 0);
        holds.then_some(Self(bytes))
    }

    /// The name without its padding.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(Self::BYTES);
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose a cache file is, how it is cut, and how it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with every update; the file counts it, a new superblock says 0.
    pub generation: u64,
    /// Drawn at random when the file was made. What belongs to the file names it.
    pub cache_id: u128,
    /// The cluster whose data this is; 0 is none.
    pub cluster_id: u128,
    /// The start of the machine during which the file was last in use.
    pub boot_id: u128,
    /// Shards, each with a page and a run of segments in every extent.
    pub shard_count: u32,
    /// Size of a segment in bytes, a power of two of at least 4 KiB.
    pub segment_bytes: u32,
    /// Memory of one shard in bytes, index and columns included.
    pub shard_bytes: u64,
    /// The largest item in bytes.
    pub item_bytes_max: u64,
    /// Which entries leave when a shard is full.
    pub policy: PolicyName,
    /// Segments of one shard in each extent: 1 to 64 extents, none of them empty.
    pub extents: Vec<u32>,
    /// After an orderly stop the number of the snapshot that describes the segments; `None` while
    /// the file is in use, and after a kill.
    pub clean: Option<u64>,
    /// The latest time known to have been, in milliseconds since 1970.
    pub seen_unix_ms: u64,
}

/// Why a superblock cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Neither copy begins as a superblock does.
    #[error("it does not begin as a cache file does")]
    NotACacheFile,
    /// It was written by another version of the program.
    #[error("it has format {found}, this build reads format {expected}")]
    Format {
        /// The format of the newest copy that holds.
        found: u32,
        /// The format of this build.
        expected: u32,
    },
    /// No copy's checksum holds, or what it guards cannot be.
    #[error("both copies of its superblock are damaged")]
    Damaged,
}

impl Superblock {
    /// The bytes of the superblock: the same copy twice.
    ///
    /// # Panics
    ///
    /// Where [`Self::is_valid`] is false.
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let copy = self.encode_copy();
        bytes[..COPY_BYTES].copy_from_slice(&copy);
        bytes[COPY_BYTES..].copy_from_slice(&copy);
        bytes
    }

    /// The superblock in a file's first bytes, of which a truncated file may have fewer than
    /// [`SUPERBLOCK_BYTES`]: the copy that holds, and the newer if both do.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let copies = [bytes.get(..COPY_BYTES), bytes.get(COPY_BYTES..SUPERBLOCK_BYTES)];
        let newest = copies
            .into_iter()
            .flatten()
            .filter_map(Fields::checked)
            .reduce(|a, b| if b.u64(16) > a.u64(16) { b } else { a });
        match newest {
            Some(copy) if copy.u32(8) == FORMAT => {
                Self::decode_copy(&copy).ok_or(SuperblockError::Damaged)
            }
            Some(copy) => Err(SuperblockError::Format { found: copy.u32(8), expected: FORMAT }),
            None if has_magic(bytes) || bytes.get(COPY_BYTES..).is_some_and(has_magic) => {
                Err(SuperblockError::Damaged)
            }
            None => Err(SuperblockError::NotACacheFile),
        }
    }

    /// Whether a file can be cut like this.
    pub fn is_valid(&self) -> bool {
        self.shard_count > 0
            && self.segment_bytes.is_power_of_two()
            && self.segment_bytes >= SEGMENT_BYTES_MIN
            && (1..=EXTENTS_MAX).contains(&self.extents.len())
            && self.extents.iter().all(|&segments| segments > 0)
            && u128::from(self.shard_count) * u128::from(self.segment_bytes) * self.segments()
                < u128::from(FILE_BYTES_MAX) / 2
    }

    fn segments(&self) -> u128 {
        self.extents.iter().copied().map(u128::from).sum()
    }

    /// Where the page of a shard begins.
    pub fn page_offset(&self, shard: u32) -> u64 {
        SUPERBLOCK_BYTES as u64 + u64::from(shard) * PAGE_BYTES as u64
    }

    /// Where an extent begins; for `index = extents.len()`, where the next one would.
    pub fn extent_offset(&self, index: usize) -> u64 {
        self.extents[..index].iter().fold(
            self.page_offset(self.shard_count).next_multiple_of(EXTENT_ALIGN_BYTES),
            |offset, &segments| {
                (offset + self.extent_bytes(segments)).next_multiple_of(EXTENT_ALIGN_BYTES)
            },
        )
    }

    /// Bytes of an extent with so many segments for each shard.
    pub fn extent_bytes(&self, segments_per_shard: u32) -> u64 {
        u64::from(self.shard_count) * self.run_bytes(segments_per_shard)
    }

    /// Bytes of one shard's run of segments.
    pub(crate) fn run_bytes(&self, segments: u32) -> u64 {
        u64::from(segments) * u64::from(self.segment_bytes)
    }

    /// Bytes of a file cut like this.
    pub fn file_bytes(&self) -> u64 {
        match self.extents.split_last() {
            Some((&last, before)) => self.extent_offset(before.len()) + self.extent_bytes(last),
            None => self.page_offset(self.shard_count),
        }
    }

    /// The copy that an update writes twice.
    pub(crate) fn encode_copy(&self) -> [u8; COPY_BYTES] {
        assert!(self.is_valid(), "only a geometry that can be is written: {self:?}");
        let mut copy = [0; COPY_BYTES];
        let mut put = |at: usize, field: &[u8]| copy[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(12, &self.shard_count.to_le_bytes());
        put(16, &self.generation.to_le_bytes());
        put(24, &self.cache_id.to_le_bytes());
        put(40, &self.cluster_id.to_le_bytes());
        put(56, &self.boot_id.to_le_bytes());
        put(72, &self.segment_bytes.to_le_bytes());
        put(76, &u32::try_from(self.extents.len()).unwrap_or(u32::MAX).to_le_bytes());
        put(80, &self.shard_bytes.to_le_bytes());
        put(88, &self.item_bytes_max.to_le_bytes());
        put(96, &self.policy.0);
        put(112, &u64::from(self.clean.is_some()).to_le_bytes());
        put(120, &self.clean.unwrap_or(0).to_le_bytes());
        put(128, &self.seen_unix_ms.to_le_bytes());
        for (index, segments) in self.extents.iter().enumerate() {
            put(EXTENTS_OFFSET + index * 4, &segments.to_le_bytes());
        }
        let crc = crc32c::crc32c(&copy[..CRC_OFFSET]);
        copy[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        copy
    }

    fn decode_copy(copy: &Fields<'_>) -> Option<Self> {
        let extent_count = copy.u32(76) as usize;
        if extent_count > EXTENTS_MAX {
            return None;
        }
        let superblock = Self {
            generation: copy.u64(16),
            cache_id: copy.u128(24),
            cluster_id: copy.u128(40),
            boot_id: copy.u128(56),
            shard_count: copy.u32(12),
            segment_bytes: copy.u32(72),
            shard_bytes: copy.u64(80),
            item_bytes_max: copy.u64(88),
            policy: PolicyName::from_bytes(copy.array(96))?,
            extents: (0..extent_count).map(|it| copy.u32(EXTENTS_OFFSET + it * 4)).collect(),
            clean: (copy.u64(112) != 0).then(|| copy.u64(120)),
            seen_unix_ms: copy.u64(128),
        };
        superblock.is_valid().then_some(superblock)
    }
}

fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A copy whose magic and checksum hold, to read fields from.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn checked(copy: &'a [u8]) -> Option<Self> {
        let fields = Self(copy);
        let holds =
            has_magic(copy) && fields.u32(CRC_OFFSET) == crc32c::crc32c(&copy[..CRC_OFFSET]);
        holds.then_some(fields)
    }

    fn array<const BYTES: usize>(&self, at: usize) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&self.0[at..at + BYTES]);
        bytes
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn u128(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.array(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, proptest};
    use proptest::{collection, option};

    use super::*;

    fn superblock() -> impl Strategy<Value = Superblock> {
        let ids = (any::<u64>(), any::<u128>(), any::<u128>(), any::<u128>());
        let geometry = (1..5_000_u32, 12..25_u32, collection::vec(1..100_000_u32, 1..=EXTENTS_MAX));
        let rest = (any::<u64>(), any::<u64>(), "[!-~]{1,16}", option::of(any::<u64>()));
        (ids, geometry, rest, any::<u64>()).prop_map(|(ids, geometry, rest, seen_unix_ms)| {
            let (generation, cache_id, cluster_id, boot_id) = ids;
            let (shard_count, segment_shift, extents) = geometry;
            let (shard_bytes, item_bytes_max, policy, clean) = rest;
            Superblock {
                generation,
                cache_id,
                cluster_id,
                boot_id,
                shard_count,
                segment_bytes: 1 << segment_shift,
                shard_bytes,
                item_bytes_max,
                policy: PolicyName::new(&policy).expect("1 to 16 printable characters"),
                extents,
                clean,
                seen_unix_ms,
            }
        })
    }

    fn example() -> Superblock {
        Superblock {
            generation: 7,
            cache_id: 0x0123_4567_89ab_cdef << 64,
            cluster_id: 0,
            boot_id: 99,
            shard_count: 8,
            segment_bytes: 64 << 10,
            shard_bytes: 8 << 20,
            item_bytes_max: 1 << 20,
            policy: PolicyName::new("lru").unwrap(),
            extents: vec![128, 64],
            clean: Some(3),
            seen_unix_ms: 1_800_000_000_000,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(written in superblock()) {
            assert_eq!(Superblock::decode(&written.encode()), Ok(written));
        }

        #[test]
        fn no_garbage_is_a_superblock_or_panics(
            bytes in collection::vec(any::<u8>(), 0..2 * SUPERBLOCK_BYTES),
            begins_like_one in any::<[bool; 2]>(),
        ) {
            let mut bytes = bytes;
            for (copy, begins_like_one) in begins_like_one.into_iter().enumerate() {
                if let (true, Some(magic)) = (begins_like_one, bytes.get_mut(copy * COPY_BYTES..)) {
                    let len = magic.len().min(MAGIC.len());
                    magic[..len].copy_from_slice(&MAGIC[..len]);
                }
            }
            assert!(Superblock::decode(&bytes).is_err());
        }

        #[test]
        fn fields_that_cannot_be_are_damage_although_the_checksum_holds(
            (written, at, byte) in (superblock(), 8..CRC_OFFSET, any::<u8>()),
        ) {
            let mut bytes = written.encode();
            for copy in [0, COPY_BYTES] {
                bytes[copy + at] = byte;
                let crc = crc32c::crc32c(&bytes[copy..copy + CRC_OFFSET]);
                bytes[copy + CRC_OFFSET..copy + COPY_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            if let Ok(read) = Superblock::decode(&bytes) {
                assert!(read.is_valid());
                assert!(read.file_bytes() <= FILE_BYTES_MAX);
            }
        }
    }

    #[test]
    fn every_single_bit_flip_is_survived() {
        let written = example();
        let mut bytes = written.encode();
        for bit in 0..SUPERBLOCK_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::decode(&bytes).as_ref(), Ok(&written), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_kill_at_any_byte_of_an_update_leaves_the_old_or_the_new_one() {
        let old = example();
        let new = Superblock { generation: old.generation + 1, clean: None, ..old.clone() };
        let (mut bytes, update) = (old.encode(), new.encode());
        for written in 0..SUPERBLOCK_BYTES {
            let read = Superblock::decode(&bytes).unwrap();
            assert!(read == old || read == new, "{written} bytes written");
            bytes[written] = update[written];
        }
        assert_eq!(Superblock::decode(&bytes), Ok(new));
    }

    #[test]
    fn the_first_copy_alone_is_enough() {
        assert_eq!(Superblock::decode(&example().encode()[..COPY_BYTES]), Ok(example()));
    }

    #[test]
    fn both_copies_flipped_is_damage_and_another_format_is_told_from_it() {
        let mut bytes = example().encode();
        bytes[30] ^= 1;
        bytes[COPY_BYTES + 30] ^= 1;
        assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::Damaged));

        let mut bytes = example().encode();
        for copy in [0, COPY_BYTES] {
            bytes[copy + 8] = 3;
            let crc = crc32c::crc32c(&bytes[copy..copy + CRC_OFFSET]);
            bytes[copy + CRC_OFFSET..copy + COPY_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
        let error = SuperblockError::Format { found: 3, expected: FORMAT };
        assert_eq!(Superblock::decode(&bytes), Err(error));
    }

    #[test]
    fn pages_and_extents_follow_each_other_and_do_not_overlap() {
        let superblock = example();
        assert_eq!(superblock.page_offset(0), 4096);
        assert_eq!(superblock.extent_offset(0), 2 << 20);
        assert_eq!(superblock.extent_bytes(128), 64 << 20);
        assert_eq!(superblock.extent_offset(1), 66 << 20);
        assert_eq!(superblock.file_bytes(), (66 + 32) << 20);
    }

    #[test]
    fn a_policy_name_is_one_to_sixteen_printable_characters() {
        assert_eq!(PolicyName::new("w-tinylfu").unwrap().as_str(), "w-tinylfu");
        assert_eq!(PolicyName::new("sixteen-letters!").unwrap().as_str(), "sixteen-letters!");
        for name in ["", "seventeen-letters", "a b", "a\0", "é"] {
            assert_eq!(PolicyName::new(name), None, "{name:?}");
        }
        for kind in eviction::Kind::ALL {
            assert!(PolicyName::new(kind.name()).is_some(), "{}", kind.name());
        }
    }
}
