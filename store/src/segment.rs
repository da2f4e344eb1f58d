//! A segment: a fixed-size run of the arena that records are appended to, and never moved within.
//!
//! ```text
//! | header, 64 B | record 0 | record 1 | ... | record n-1 | free |
//!
//! header: magic 4 | format 2 | state 2 | shard 4 | used 4 | sequence 8 | zeros 36 | crc32c 4
//! ```
//!
//! - A byte below `used` is never written again, except the fields `record.rs` names.
//! - `used` in the header is known from the moment the segment is sealed; before, the records' own
//!   checksums say where the written part ends.
//! - Sequence numbers grow with every segment opened, so a walk in their order meets the records of
//!   one key in the order they were written.

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: u32 = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"CSEG");
const FORMAT: u16 = 1;
const OPEN: u16 = 1;
const SEALED: u16 = 2;

/// A segment's header, as it stands in its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The shard the segment belongs to.
    pub(crate) shard: u32,
    /// Grows with every segment the shard opens.
    pub(crate) sequence: u64,
    /// Bytes written, header included, once the segment is sealed.
    pub(crate) sealed_used: Option<u32>,
}

impl Header {
    /// Writes the header into the first bytes of a segment.
    pub(crate) fn write(&self, segment: &mut [u8]) {
        let header = &mut segment[..HEADER_BYTES as usize];
        header.fill(0);
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        let state = if self.sealed_used.is_some() { SEALED } else { OPEN };
        header[6..8].copy_from_slice(&state.to_le_bytes());
        header[8..12].copy_from_slice(&self.shard.to_le_bytes());
        header[12..16].copy_from_slice(&self.sealed_used.unwrap_or(0).to_le_bytes());
        header[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
    }

    /// The sequence number in a header that this process wrote.
    pub(crate) fn sequence_of(segment: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&segment[16..24]);
        u64::from_le_bytes(bytes)
    }

    /// Reads a header back, or `None` where no intact header of this format stands.
    #[cfg(test)]
    pub(crate) fn read(segment: &[u8]) -> Option<Self> {
        let header = segment.get(..HEADER_BYTES as usize)?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if word(60) != crc32c::crc32c(&header[..60]) || word(0) != MAGIC || half(4) != FORMAT {
            return None;
        }
        Some(Self {
            shard: word(8),
            sequence: u64::from(word(16)) | u64::from(word(20)) << 32,
            sealed_used: (half(6) == SEALED).then(|| word(12)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_its_damage_noticed() {
        let header = Header { shard: 3, sequence: 1 << 40, sealed_used: Some(999) };
        let mut bytes = vec![0xaa; 256];
        header.write(&mut bytes);
        assert_eq!(Header::read(&bytes), Some(header));
        for bit in 0..(HEADER_BYTES as usize * 8) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
