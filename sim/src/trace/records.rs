//! `Reader`: a binary log of records of one length, each read by one of the binary formats.
//!
//! ```text
//! | [header] | record | record | ... | record |
//! ```

use std::io::{self, BufRead};

use super::{Access, Fault, Notes, Place, TraceError};

/// How the records of a format are read.
pub(crate) trait RecordFormat: Send {
    /// Bytes of a record.
    fn record_bytes(&self) -> usize;

    /// Reads a record, which has that length. None is a record that asks no cache for anything.
    fn decode(&mut self, record: &[u8]) -> Result<Option<Access>, Fault>;
}

/// Reads records until the source ends.
pub(crate) struct Reader<R> {
    source: R,
    format: Box<dyn RecordFormat>,
    /// Where the next record begins.
    offset: u64,
    /// A record that straddles two buffers of the source.
    straddling: Vec<u8>,
    has_ended: bool,
    notes: Notes,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the records of `source`, which begin at byte `offset`.
    pub(crate) fn new(source: R, offset: u64, format: Box<dyn RecordFormat>) -> Self {
        let (straddling, notes) = (Vec::new(), Notes::default());
        Self { source, format, offset, straddling, has_ended: false, notes }
    }

    /// What has been met that is no access.
    pub(crate) fn notes(&self) -> Notes {
        self.notes
    }

    /// Reads and decodes the next record; none when there is none.
    fn next_record(&mut self) -> io::Result<Option<Result<Option<Access>, Fault>>> {
        let record_bytes = self.format.record_bytes();
        if let Ok(buffer) = self.source.fill_buf()
            && let Some(record) = buffer.get(..record_bytes)
        {
            let decoded = self.format.decode(record);
            self.source.consume(record_bytes);
            return Ok(Some(decoded));
        }
        self.straddling.clear();
        while self.straddling.len() < record_bytes {
            match self.source.fill_buf() {
                Ok([]) => break,
                Ok(buffer) => {
                    let count = buffer.len().min(record_bytes - self.straddling.len());
                    self.straddling.extend_from_slice(&buffer[..count]);
                    self.source.consume(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.straddling.len() {
            0 => Ok(None),
            found_bytes if found_bytes < record_bytes => {
                self.has_ended = true;
                Ok(Some(Err(Fault::Truncated { found_bytes, record_bytes })))
            }
            _ => Ok(Some(self.format.decode(&self.straddling))),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Access, TraceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            let place = Place::Byte(self.offset);
            match self.next_record() {
                Ok(None) => self.has_ended = true,
                Ok(Some(decoded)) => {
                    self.offset += self.format.record_bytes() as u64;
                    match decoded {
                        Ok(Some(access)) => return Some(Ok(access)),
                        Ok(None) => self.notes.passed_over += 1,
                        Err(fault) => return Some(Err(TraceError::Malformed { place, fault })),
                    }
                }
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }
}

/// The bytes from `at` on as a little-endian number; 0 beyond the record's end.
#[inline]
pub(crate) fn u64_at(record: &[u8], at: usize) -> u64 {
    record
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The same of 32 bits.
#[inline]
pub(crate) fn u32_at(record: &[u8], at: usize) -> u32 {
    record
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The same of 16 bits.
#[inline]
pub(crate) fn u16_at(record: &[u8], at: usize) -> u16 {
    record
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// libCacheSim's numbers of ops (`include/libCacheSim/enum.h`, `req_op_e`); none for those that are no
/// request.
pub(crate) fn op_of_number(number: u64) -> Option<super::Op> {
    use super::Op;
    match number {
        1 | 2 | 12 => Some(Op::Get),
        3 | 13 | 14 => Some(Op::Set),
        4 => Some(Op::Add),
        5 => Some(Op::Cas),
        6 => Some(Op::Replace),
        7 => Some(Op::Append),
        8 => Some(Op::Prepend),
        9 => Some(Op::Delete),
        10 => Some(Op::Incr),
        11 => Some(Op::Decr),
        _ => None,
    }
}
