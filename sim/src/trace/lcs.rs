//! lcs: libCacheSim's own binary, in its two generations, packed, little-endian.
//!
//! ```text
//! 2024, a header of 1,024 B that says where the fields are:
//! | 0 magic: u64 | 8 format: 240 characters, as of Python's struct | 248 numbers, from 1, of the fields
//!   id, size, time, last, next, op, TTL, tenant, content type: u8 each | ... | 1000 fields: u32 |
//!   1004 record bytes: u32 | 1008 version: u64 | 1016 magic: u64 |
//!
//! 2025, a header of 8,192 B and records of eight versions:
//! | 0 magic: u64 | 8 version: u64 | 16 statistics: 8,000 B | ... | 8184 magic: u64 |
//! version 1    | time, s: u32 | id: u64 | bytes: u32 | next: i64 |
//! version 2    | time, s: u32 | id: u64 | bytes: u32 | op: u8, tenant: u24 | next: i64 |
//! version 3    | time, s: u32 | id: u64 | bytes: i64 | op: u8, tenant: u24 | TTL, s: u32 | next: i64 |
//! version 4..8 | as 3 | 1, 2, 4, 8, 16 features: u32 |
//! ```
//!
//! The layouts are those of libCacheSim's `traceReader/generalReader/lcs.h` of October 2024 and
//! `traceReader/customizedReader/lcs.h` of 2025. Sizes are those of key and value together.

use super::records::{RecordFormat, op_of_number, u32_at, u64_at};
use super::{Access, Fault, Op, OpenError};

/// What a header begins and ends with.
pub(crate) const MAGIC: [u8; 8] = 0x1234_5678_9abc_def0_u64.to_le_bytes();

/// Bytes of the header of 2024.
const FIRST_HEADER_BYTES: usize = 1024;

/// Bytes of the header of 2025.
const SECOND_HEADER_BYTES: usize = 8192;

/// Where the header of 2024 keeps its format string, and how long it may be.
const FORMAT_AT: std::ops::Range<usize> = 8..248;

/// A number in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    at: usize,
    bytes: usize,
}

impl Field {
    /// The number; one that is negative counts as 0.
    fn read(self, record: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        if let Some(found) = record.get(self.at..self.at + self.bytes) {
            bytes[..self.bytes].copy_from_slice(found);
        }
        u64::from_le_bytes(bytes)
    }
}

/// The records, once the header is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lcs {
    record_bytes: usize,
    id: Field,
    time: Option<Field>,
    size: Option<Field>,
    op: Option<Field>,
    ttl: Option<Field>,
}

impl Lcs {
    /// Reads the header from the trace's beginning and says how long it is.
    ///
    /// # Errors
    ///
    /// It is none, or one of records without ids.
    pub(crate) fn open(head: &[u8]) -> Result<(Self, usize), OpenError> {
        if !head.starts_with(&MAGIC) {
            return Err(OpenError::NoHeader("lcs"));
        }
        match u64_at(head, 8) {
            version @ 1..=8 if head.len() >= SECOND_HEADER_BYTES => {
                Ok((Self::of_version(version), SECOND_HEADER_BYTES))
            }
            _ => Self::of_first_header(head)
                .map(|lcs| (lcs, FIRST_HEADER_BYTES))
                .ok_or(OpenError::NoHeader("lcs")),
        }
    }

    fn of_version(version: u64) -> Self {
        let field = |at, bytes| Field { at, bytes };
        let (size_bytes, record_bytes) = match version {
            1 => (4, 24),
            2 => (4, 28),
            3 => (8, 36),
            version => (8, 36 + (4 << (version - 4))),
        };
        Self {
            record_bytes,
            id: field(4, 8),
            time: Some(field(0, 4)),
            size: Some(field(12, size_bytes)),
            op: (version >= 2).then_some(field(12 + size_bytes, 1)),
            ttl: (version >= 3).then_some(field(24, 4)),
        }
    }

    fn of_first_header(head: &[u8]) -> Option<Self> {
        let header = head.get(..FIRST_HEADER_BYTES)?;
        let format = header[FORMAT_AT].split(|&byte| byte == 0).next()?;
        // The first character is the byte order, and only little-endian is written.
        let (_, format) = format.split_first().filter(|&(&order, _)| order == b'<')?;
        let mut fields = Vec::new();
        let mut at = 0;
        for kind in format {
            let bytes = match kind {
                b'c' | b'b' | b'B' => 1,
                b'h' | b'H' => 2,
                b'i' | b'I' | b'l' | b'L' | b'f' => 4,
                b'q' | b'Q' | b'd' => 8,
                _ => return None,
            };
            fields.push(Field { at, bytes });
            at += bytes;
        }
        let field = |index: usize| match header[FORMAT_AT.end + index] {
            0 => None,
            number => fields.get(usize::from(number) - 1).copied(),
        };
        let is_whole = usize::try_from(u32_at(header, 1004)) == Ok(at);
        Some(Self {
            record_bytes: at,
            id: field(0)?,
            size: field(1),
            time: field(2),
            op: field(5),
            ttl: field(6),
        })
        .filter(|_| is_whole)
    }
}

impl RecordFormat for Lcs {
    fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn decode(&mut self, record: &[u8]) -> Result<Option<Access>, Fault> {
        let number = |field: Option<Field>| field.map(|field| field.read(record));
        let u32_of = |field| number(field).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let op = match number(self.op) {
            None | Some(0) => Some(Op::Get),
            Some(number) => op_of_number(number),
        };
        Ok(op.map(|op| Access {
            id: self.id.read(record),
            time_s: u32_of(self.time).unwrap_or(0),
            size_bytes: u32_of(self.size).unwrap_or(1),
            // -1 is for ever.
            ttl_s: u32_of(self.ttl).filter(|&ttl_s| ttl_s <= i32::MAX as u32).unwrap_or(0),
            key_bytes: 0,
            op,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_header(format: &str, fields: &[(usize, u8)], record_bytes: u32) -> Vec<u8> {
        let mut header = vec![0; FIRST_HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..8 + format.len()].copy_from_slice(format.as_bytes());
        for &(index, number) in fields {
            header[248 + index] = number;
        }
        header[1004..1008].copy_from_slice(&record_bytes.to_le_bytes());
        header[1016..].copy_from_slice(&MAGIC);
        header
    }

    #[test]
    fn header_of_2024_says_where_the_fields_are() {
        let header = first_header("<IQIqHI", &[(0, 2), (1, 3), (2, 1), (4, 4), (5, 5), (6, 6)], 30);
        let (mut lcs, header_bytes) = Lcs::open(&header).unwrap();
        assert_eq!((header_bytes, lcs.record_bytes()), (1024, 30));
        let mut record = vec![0; 30];
        (record[0], record[4], record[12], record[24], record[26]) = (7, 9, 100, 3, 60);
        let want =
            Access { id: 9, time_s: 7, size_bytes: 100, ttl_s: 60, key_bytes: 0, op: Op::Set };
        assert_eq!(lcs.decode(&record), Ok(Some(want)));
    }

    #[test]
    fn versions_of_2025_are_as_long_as_documented() {
        for (version, record_bytes) in
            [(1u64, 24), (2, 28), (3, 36), (4, 40), (5, 44), (6, 52), (7, 68), (8, 100)]
        {
            let mut header = vec![0; SECOND_HEADER_BYTES];
            header[..8].copy_from_slice(&MAGIC);
            header[8..16].copy_from_slice(&version.to_le_bytes());
            let (lcs, header_bytes) = Lcs::open(&header).unwrap();
            assert_eq!((header_bytes, lcs.record_bytes()), (8192, record_bytes));
        }
    }

    #[test]
    fn version_3_has_op_and_ttl() {
        let mut record = vec![0; 36];
        (record[0], record[4], record[12], record[20], record[24]) = (7, 9, 100, 9, 60);
        let want =
            Access { id: 9, time_s: 7, size_bytes: 100, ttl_s: 60, key_bytes: 0, op: Op::Delete };
        assert_eq!(Lcs::of_version(3).decode(&record), Ok(Some(want)));
    }

    #[test]
    fn header_that_contradicts_itself_is_refused() {
        for header in [
            first_header("<IQIq", &[(0, 2)], 23),
            first_header(">IQIq", &[(0, 2)], 24),
            first_header("<IQIq", &[], 24),
            first_header("<IQIq", &[(0, 9)], 24),
            first_header("<IQ?q", &[(0, 2)], 24),
            vec![0; 1024],
            MAGIC.to_vec(),
        ] {
            assert!(Lcs::open(&header).is_err());
        }
    }
}
