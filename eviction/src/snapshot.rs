//! Snapshots: what a policy remembers as bytes, for a warm restart.
//!
//! ```text
//! | policy, 8 B | format, 4 B | ends of lists, counters, targets | rows, 8 B | links | column | ... |
//! ```
//!
//! - All is little-endian. The columns of one set of entries are equally long, so their length stands
//!   once, in front of the first of them, the links.
//! - Columns are converted row by row without a branch, which compiles to a copy; what a row may not
//!   hold is either impossible ([`Row::from_bytes`] takes any bytes) or found in a pass of its own.
//! - What can be counted from the columns (lengths, sums of weights) is not written: a snapshot cannot
//!   contradict itself there.
//! - There is no checksum. The bytes are made sure to be ones that the policy can live with, not to be
//!   the ones that were written; whoever keeps them knows how far to trust the place.

use std::{error, fmt};

use crate::{EntryId, KeyHash, Kind};

/// Of the bytes after the policy's name. Another number: they mean something else.
const FORMAT: u32 = 1;
/// The policy's name with zeros behind it.
const NAME_BYTES: usize = 8;
/// In place of an entry: none. No entry has the last id.
const NO_ENTRY: u32 = u32::MAX;

/// Why bytes cannot be what a policy remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// Another policy wrote them, or none.
    OtherKind {
        /// What stands where the name should, readable.
        found: String,
        /// The policy that was to load them.
        expected: Kind,
    },
    /// Another build wrote them.
    OtherFormat {
        /// The format of the bytes.
        found: u32,
        /// The format that this build reads and writes.
        expected: u32,
    },
    /// The policy that wrote them was built for another capacity.
    OtherCapacity {
        /// The capacity of the policy that wrote them.
        found: u64,
        /// The capacity of the one that was to load them.
        expected: u64,
    },
    /// They end too early.
    TooShort {
        /// Bytes that the next part takes.
        needed_bytes: u64,
        /// Bytes that were left.
        left_bytes: usize,
    },
    /// They go on behind the last part.
    TooLong {
        /// Bytes that were left.
        left_bytes: usize,
    },
    /// An entry, a ghost's slot or a bucket is named that there is no row for.
    OutOfRange {
        /// The number that was named.
        id: u32,
        /// How many rows there are.
        rows: usize,
    },
    /// A list does not close: an entry's neighbour does not know it, or stands in another list.
    BrokenList {
        /// The entry, slot or bucket.
        id: u32,
    },
    /// Some entries say that they stand in a list, and none leads to them.
    Unreachable {
        /// How many the lists lead to.
        reached: usize,
        /// How many say so.
        standing: usize,
    },
    /// A number or mark has a value that it never has.
    Impossible {
        /// What it tells.
        what: &'static str,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKind { found, expected } => {
                write!(f, "snapshot is of policy \"{found}\", not of {expected}")
            }
            Self::OtherFormat { found, expected } => {
                write!(f, "snapshot has format {found}, this build reads format {expected}")
            }
            Self::OtherCapacity { found, expected } => {
                write!(f, "snapshot is of a policy of capacity {found}, not of {expected}")
            }
            Self::TooShort { needed_bytes, left_bytes } => {
                write!(f, "snapshot ends too early: {needed_bytes} bytes more, {left_bytes} left")
            }
            Self::TooLong { left_bytes } => {
                write!(f, "snapshot goes on for {left_bytes} bytes behind its end")
            }
            Self::OutOfRange { id, rows } => {
                write!(f, "snapshot names entry {id} of {rows}")
            }
            Self::BrokenList { id } => {
                write!(f, "snapshot has a list that is broken at entry {id}")
            }
            Self::Unreachable { reached, standing } => {
                write!(f, "snapshot has lists that lead to {reached} of {standing} entries")
            }
            Self::Impossible { what } => write!(f, "snapshot has an impossible {what}"),
        }
    }
}

impl error::Error for SnapshotError {}

/// `Ok` if `possible`, else the error that says `what` has a value that it never has.
pub(crate) fn check(possible: bool, what: &'static str) -> Result<(), SnapshotError> {
    if possible { Ok(()) } else { Err(SnapshotError::Impossible { what }) }
}

/// A row of a column as `BYTES` bytes.
pub(crate) trait Row<const BYTES: usize>: Copy {
    /// The row, little-endian.
    fn to_bytes(self) -> [u8; BYTES];
    /// The row that `to_bytes` made these bytes of; some row, whatever they are.
    fn from_bytes(bytes: [u8; BYTES]) -> Self;
}

impl Row<1> for u8 {
    fn to_bytes(self) -> [u8; 1] {
        [self]
    }

    fn from_bytes([byte]: [u8; 1]) -> Self {
        byte
    }
}

impl Row<1> for bool {
    fn to_bytes(self) -> [u8; 1] {
        [self.into()]
    }

    fn from_bytes([byte]: [u8; 1]) -> Self {
        byte != 0
    }
}

impl Row<4> for u32 {
    fn to_bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }

    fn from_bytes(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

/// Two halves as one row; as one number, because that is what compilers copy at once.
pub(crate) fn pair_to_bytes(first: u32, second: u32) -> [u8; 8] {
    (u64::from(first) | u64::from(second) << 32).to_le_bytes()
}

/// The halves that `pair_to_bytes` made these bytes of.
#[expect(clippy::cast_possible_truncation, reason = "the half is what is wanted")]
pub(crate) fn pair_from_bytes(bytes: [u8; 8]) -> (u32, u32) {
    let pair = u64::from_le_bytes(bytes);
    (pair as u32, (pair >> 32) as u32)
}

/// Writes a snapshot.
pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Begins the snapshot of a policy of this `kind` at the end of `to`.
    pub(crate) fn new(to: &'a mut Vec<u8>, kind: Kind) -> Self {
        to.extend(name_of(kind));
        to.extend(FORMAT.to_le_bytes());
        Self(to)
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.0.push(value.into());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.u64(value.to_bits());
    }

    pub(crate) fn key(&mut self, KeyHash(hash): KeyHash) {
        self.u64(hash);
    }

    /// Whether there is a value, and the value.
    pub(crate) fn option<T>(&mut self, value: Option<T>, save: impl FnOnce(T, &mut Self)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            save(value, self);
        }
    }

    /// An entry, or none.
    pub(crate) fn entry(&mut self, entry: Option<EntryId>) {
        self.u32(entry.map_or(NO_ENTRY, |entry| entry.0));
    }

    /// A number of things in memory.
    pub(crate) fn count(&mut self, value: usize) {
        self.u64(value as u64);
    }

    /// One row.
    pub(crate) fn row<const BYTES: usize, T: Row<BYTES>>(&mut self, row: T) {
        self.0.extend(row.to_bytes());
    }

    /// The rows, without their number.
    pub(crate) fn rows<const BYTES: usize, T: Row<BYTES>>(&mut self, rows: &[T]) {
        let start = self.0.len();
        self.0.resize(start + rows.len() * BYTES, 0);
        let (places, _) = self.0[start..].as_chunks_mut::<BYTES>();
        for (place, row) in places.iter_mut().zip(rows) {
            *place = row.to_bytes();
        }
    }
}

/// Reads a snapshot.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins to read the snapshot of a policy of this `kind`.
    pub(crate) fn new(from: &'a [u8], kind: Kind) -> Result<Self, SnapshotError> {
        let mut reader = Self(from);
        let name: [u8; NAME_BYTES] = reader.array()?;
        if name != name_of(kind) {
            let found = name.escape_ascii().to_string();
            let found = found.trim_end_matches("\\x00").to_owned();
            return Err(SnapshotError::OtherKind { found, expected: kind });
        }
        let format = reader.u32()?;
        if format != FORMAT {
            return Err(SnapshotError::OtherFormat { found: format, expected: FORMAT });
        }
        Ok(reader)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], SnapshotError> {
        let Some((taken, rest)) = self.0.split_at_checked(bytes) else {
            return Err(self.too_short(bytes as u64));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], SnapshotError> {
        let Some((taken, rest)) = self.0.split_first_chunk() else {
            return Err(self.too_short(BYTES as u64));
        };
        self.0 = rest;
        Ok(*taken)
    }

    fn too_short(&self, needed_bytes: u64) -> SnapshotError {
        SnapshotError::TooShort { needed_bytes, left_bytes: self.0.len() }
    }

    pub(crate) fn bool(&mut self) -> Result<bool, SnapshotError> {
        let [byte] = self.array()?;
        check(byte <= 1, "yes or no")?;
        Ok(byte == 1)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, SnapshotError> {
        self.u64().map(f64::from_bits)
    }

    pub(crate) fn key(&mut self) -> Result<KeyHash, SnapshotError> {
        self.u64().map(KeyHash)
    }

    /// Whether there is a value, and the value.
    pub(crate) fn option<T>(
        &mut self,
        load: impl FnOnce(&mut Self) -> Result<T, SnapshotError>,
    ) -> Result<Option<T>, SnapshotError> {
        if self.bool()? { load(self).map(Some) } else { Ok(None) }
    }

    /// An entry, or none; whether there is such an entry remains to be checked.
    pub(crate) fn entry(&mut self) -> Result<Option<EntryId>, SnapshotError> {
        let entry = self.u32()?;
        Ok((entry != NO_ENTRY).then_some(EntryId(entry)))
    }

    /// A number of things in memory.
    pub(crate) fn count(&mut self) -> Result<usize, SnapshotError> {
        usize::try_from(self.u64()?).map_err(|_| SnapshotError::Impossible { what: "count" })
    }

    /// The capacity, which must be that of the policy that loads.
    pub(crate) fn capacity(&mut self, expected: u64) -> Result<(), SnapshotError> {
        let found = self.u64()?;
        if found == expected {
            return Ok(());
        }
        Err(SnapshotError::OtherCapacity { found, expected })
    }

    /// One row.
    pub(crate) fn row<const BYTES: usize, T: Row<BYTES>>(&mut self) -> Result<T, SnapshotError> {
        self.array().map(T::from_bytes)
    }

    /// Replaces all of `to` by the next `count` rows. What was reserved stays so.
    pub(crate) fn rows<const BYTES: usize, T: Row<BYTES>>(
        &mut self,
        count: usize,
        to: &mut Vec<T>,
    ) -> Result<(), SnapshotError> {
        // More bytes than could be counted are more than there are.
        let bytes = self.take(count.saturating_mul(BYTES))?;
        let (rows, _) = bytes.as_chunks::<BYTES>();
        to.clear();
        to.extend(rows.iter().map(|row| T::from_bytes(*row)));
        Ok(())
    }

    /// Makes sure that all was read.
    pub(crate) fn finish(self) -> Result<(), SnapshotError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(SnapshotError::TooLong { left_bytes: self.0.len() })
    }
}

fn name_of(kind: Kind) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name[..kind.name().len()].copy_from_slice(kind.name().as_bytes());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let rows: Vec<u32> = (0..1_000).map(|row: u32| row.wrapping_mul(0x9E37_79B9)).collect();
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Kind::Lru).rows(&rows);
        let mut reader = Reader::new(&bytes, Kind::Lru).unwrap();
        let mut read = vec![7];
        reader.rows(rows.len(), &mut read).unwrap();
        reader.finish().unwrap();
        assert_eq!(read, rows);
    }

    #[test]
    fn more_rows_than_there_are_bytes_for_take_no_memory() {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Kind::Lru);
        for count in [1, 1 << 40, usize::MAX] {
            let mut reader = Reader::new(&bytes, Kind::Lru).unwrap();
            let mut rows: Vec<u32> = Vec::new();
            let error = reader.rows(count, &mut rows).unwrap_err();
            assert!(matches!(error, SnapshotError::TooShort { left_bytes: 0, .. }), "{error}");
            assert_eq!(rows.capacity(), 0);
        }
    }

    #[test]
    fn an_error_says_what_does_not_fit() {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Kind::S3Fifo).bool(true);
        let error = |bytes: &[u8], kind| match Reader::new(bytes, kind) {
            Ok(reader) => reader.finish().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(error(&bytes, Kind::Arc), "snapshot is of policy \"s3fifo\", not of arc");
        assert_eq!(error(&bytes, Kind::S3Fifo), "snapshot goes on for 1 bytes behind its end");
        assert_eq!(
            error(&bytes[..3], Kind::S3Fifo),
            "snapshot ends too early: 8 bytes more, 3 left"
        );
        bytes[NAME_BYTES] = 9;
        assert_eq!(error(&bytes, Kind::S3Fifo), "snapshot has format 9, this build reads format 1");
    }
}
