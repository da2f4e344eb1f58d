//! A segment: a fixed-size run of the arena that records are appended to, and never moved within.
//!
//! ```text
//! | header, 64 B | record 0 | record 1 | ... | record n-1 | free |
//!
//! header: magic 4 | format 2 | stream 2 | shard 4 | sequence 8 | zeros 8 | crc32c 4
//!         used 4 | crc32c 4 | zeros 24
//! ```
//!
//! - A byte below `used` is never written again, except the fields `record.rs` names.
//! - The first line of the header is written when the segment is opened, the second once, when it is
//!   full. Neither is ever rewritten while the segment holds a record, so there is no moment at which
//!   a kill could cost a segment. Before a segment is sealed the records' own checksums say where its
//!   written part ends.
//! - Sequence numbers grow with every segment opened and name one life of a segment: its records are
//!   stored under a seal made from it.

use crate::record::Seal;

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: u32 = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"CSEG");
const FORMAT: u16 = 2;
/// Bytes of the header that its first checksum covers, and where that stands.
const OPENED_BYTES: usize = 28;

/// A segment's header, as it stands in its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The shard the segment belongs to.
    pub(crate) shard: u32,
    /// Which of the shard's open segments it is or was.
    pub(crate) stream: u16,
    /// Grows with every segment the shard opens.
    pub(crate) sequence: u64,
}

impl Header {
    /// Writes the header of a segment that is opened: no record in it counts from now on.
    pub(crate) fn open(&self, segment: &mut [u8]) {
        let header = &mut segment[..HEADER_BYTES as usize];
        header.fill(0);
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        header[6..8].copy_from_slice(&self.stream.to_le_bytes());
        header[8..12].copy_from_slice(&self.shard.to_le_bytes());
        header[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32c::crc32c(&header[..OPENED_BYTES]);
        header[OPENED_BYTES..OPENED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The seal of the segment's records.
    pub(crate) fn record_seal(&self) -> Seal {
        Seal::of_life(self.sequence)
    }

    /// Reads a header back, or `None` where no intact header of this format stands.
    pub(crate) fn read(segment: &[u8]) -> Option<Self> {
        let header = segment.get(..HEADER_BYTES as usize)?;
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let is_intact = word(header, OPENED_BYTES) == crc32c::crc32c(&header[..OPENED_BYTES]);
        if !is_intact || word(header, 0) != MAGIC || half(4) != FORMAT {
            return None;
        }
        Some(Self {
            shard: word(header, 8),
            stream: half(6),
            sequence: u64::from(word(header, 12)) | u64::from(word(header, 16)) << 32,
        })
    }

    /// Reads a header of which one bit may be wrong, and says whether one was: a checksum of 32 bits
    /// over 28 bytes tells which, and a header is worth all the records behind it.
    pub(crate) fn read_correcting(segment: &mut [u8]) -> Option<(Self, bool)> {
        if let Some(header) = Self::read(segment) {
            return Some((header, false));
        }
        if segment.len() < HEADER_BYTES as usize {
            return None;
        }
        for bit in 0..(OPENED_BYTES + 4) * 8 {
            let mask = 1 << (bit % 8);
            let mut header = [0; HEADER_BYTES as usize];
            header.copy_from_slice(&segment[..HEADER_BYTES as usize]);
            header[bit / 8] ^= mask;
            if let Some(read) = Self::read(&header) {
                segment[bit / 8] ^= mask;
                return Some((read, true));
            }
        }
        None
    }
}

/// Notes how far a segment is written. It is not written to any more, until it is opened again.
pub(crate) fn seal(segment: &mut [u8], used: u32) {
    segment[32..36].copy_from_slice(&used.to_le_bytes());
    let crc = seal_checksum(segment);
    segment[36..40].copy_from_slice(&crc.to_le_bytes());
}

/// Bytes written to a segment, header included, if it was sealed.
pub(crate) fn sealed_used(segment: &[u8]) -> Option<u32> {
    let used = word(segment, 32);
    let fits = used >= HEADER_BYTES && used as usize <= segment.len();
    (fits && word(segment, 36) == seal_checksum(segment)).then_some(used)
}

/// Makes a segment one that was never opened: nothing in it counts any more.
pub(crate) fn wipe(segment: &mut [u8]) {
    segment[..HEADER_BYTES as usize].fill(0);
}

/// The checksum of the header's second line, which belongs to one life of the segment as well.
fn seal_checksum(segment: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment[12..20]), &segment[32..36])
}

fn word(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { shard: 3, stream: 1, sequence: 1 << 40 };

    #[test]
    fn a_header_is_read_back_and_its_damage_noticed() {
        let mut bytes = vec![0xaa; 256];
        HEADER.open(&mut bytes);
        assert_eq!(Header::read(&bytes), Some(HEADER));
        assert_eq!(sealed_used(&bytes), None);
        seal(&mut bytes, 99);
        assert_eq!(sealed_used(&bytes), Some(99));
        for bit in 0..40 * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let sound = Header::read(&damaged).is_some() && sealed_used(&damaged).is_some();
            assert!(!sound, "bit {bit}");
        }
    }

    #[test]
    fn a_header_with_one_wrong_bit_is_put_right() {
        let mut bytes = vec![0; 256];
        HEADER.open(&mut bytes);
        for bit in 0..(OPENED_BYTES + 4) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read_correcting(&mut damaged), Some((HEADER, true)), "bit {bit}");
            assert_eq!(damaged, bytes);
        }
        bytes[0] ^= 3;
        assert_eq!(Header::read_correcting(&mut bytes), None);
    }

    #[test]
    fn a_wiped_segment_has_no_header() {
        let mut bytes = vec![0; 256];
        HEADER.open(&mut bytes);
        wipe(&mut bytes);
        assert_eq!(Header::read_correcting(&mut bytes), None);
    }
}
