//! oracleGeneral: libCacheSim's binary records, 24 bytes each, packed, little-endian, no header.
//!
//! ```text
//! | 0 time, s: u32 | 4 id: u64 | 12 size, bytes: u32 | 16 next: i64 |
//! ```
//!
//! `next` is the ordinal of the next request of the same id, the first request of the trace being
//! 1; -1 if there is none (`i64::MAX` in traces of some converters). Clairvoyant policies need it; a
//! replay does not and skips it. The layout is that of libCacheSim's
//! `traceReader/customizedReader/oracle/oracleGeneralBin.h`.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use super::{Access, Fault, Place, TraceError};

/// Bytes of a record.
const RECORD_BYTES: usize = 24;

/// What `next` holds where no request of the id follows.
const NEVER: i64 = -1;

/// Reads records until the source ends.
pub struct Reader<R> {
    source: R,
    /// Where the next record begins.
    offset: u64,
    /// The source ended or failed; it is not asked again.
    done: bool,
}

impl<R: BufRead> Reader<R> {
    /// A reader that takes the first record from the next bytes of `source`.
    pub fn new(source: R) -> Self {
        Self { source, offset: 0, done: false }
    }

    /// The record that begins in the source's buffer and ends outside it, or the end of the trace.
    #[cold]
    fn next_across_buffers(&mut self) -> Option<Result<Access, TraceError>> {
        let mut record = [0; RECORD_BYTES];
        let mut found_bytes = 0;
        while found_bytes < RECORD_BYTES {
            match self.source.read(&mut record[found_bytes..]) {
                Ok(0) => break,
                Ok(count) => found_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.done = true;
                    return Some(Err(error.into()));
                }
            }
        }
        if found_bytes == RECORD_BYTES {
            self.offset += RECORD_BYTES as u64;
            return Some(Ok(decode(&record)));
        }
        self.done = true;
        if found_bytes == 0 {
            return None;
        }
        Some(Err(TraceError::Malformed {
            place: Place::Byte(self.offset),
            fault: Fault::Truncated { found_bytes, record_bytes: RECORD_BYTES },
        }))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Access, TraceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if let Ok(buffer) = self.source.fill_buf()
            && let Some(record) = buffer.first_chunk()
        {
            let access = decode(record);
            self.source.consume(RECORD_BYTES);
            self.offset += RECORD_BYTES as u64;
            return Some(Ok(access));
        }
        self.next_across_buffers()
    }
}

/// One record's access.
fn decode(record: &[u8; RECORD_BYTES]) -> Access {
    let [t0, t1, t2, t3, i0, i1, i2, i3, i4, i5, i6, i7, s0, s1, s2, s3, ..] = *record;
    Access::get(
        u32::from_le_bytes([t0, t1, t2, t3]),
        u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        u32::from_le_bytes([s0, s1, s2, s3]),
    )
}

/// Writes `accesses` as records, `next` included. What was asked for other than a get, and TTLs, have no
/// place in them.
///
/// # Errors
///
/// What `out` answers.
pub fn write(out: &mut impl Write, accesses: &[Access]) -> io::Result<()> {
    for (access, next) in accesses.iter().zip(next_ordinals(accesses)) {
        let mut record = [0; RECORD_BYTES];
        record[0..4].copy_from_slice(&access.time_s.to_le_bytes());
        record[4..12].copy_from_slice(&access.id.to_le_bytes());
        record[12..16].copy_from_slice(&access.size_bytes.to_le_bytes());
        record[16..24].copy_from_slice(&next.to_le_bytes());
        out.write_all(&record)?;
    }
    Ok(())
}

/// For each access the ordinal of the next one to the same id, or [`NEVER`].
fn next_ordinals(accesses: &[Access]) -> Vec<i64> {
    let mut next = vec![NEVER; accesses.len()];
    let mut seen = HashMap::new();
    for (index, access) in accesses.iter().enumerate().rev() {
        let ordinal = index as i64 + 1;
        next[index] = seen.insert(access.id, ordinal).unwrap_or(NEVER);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out `bytes` at most `step` at a time, so that records straddle its buffers.
    struct Dripping<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl io::Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.bytes.len().min(self.step).min(buffer.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn accesses() -> Vec<Access> {
        [3, 1, 3, 2, 3]
            .into_iter()
            .zip(0..)
            .map(|(id, time_s)| Access::get(time_s, id, 100))
            .collect()
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, &accesses()).unwrap();
        bytes
    }

    #[test]
    fn record_has_the_documented_layout() {
        let access = Access::get(0x0403_0201, 0x0c0b_0a09_0807_0605, 0x100f_0e0d);
        let mut bytes = Vec::new();
        write(&mut bytes, &[access]).unwrap();
        assert_eq!(bytes[..16], (1..=16).collect::<Vec<u8>>());
        assert_eq!(bytes[16..], [0xff; 8]);
    }

    #[test]
    fn next_is_the_ordinal_of_the_next_request() {
        assert_eq!(next_ordinals(&accesses()), [3, NEVER, 5, NEVER, NEVER]);
    }

    #[test]
    fn what_is_written_is_read_back_however_the_bytes_arrive() {
        let bytes = written();
        for step in 1..60 {
            let source = io::BufReader::new(Dripping { bytes: &bytes, step });
            let read: Vec<Access> = Reader::new(source).map(Result::unwrap).collect();
            assert_eq!(read, accesses(), "{step} bytes at a time");
        }
    }

    #[test]
    fn truncated_last_record_is_reported_with_its_offset() {
        let bytes = written();
        let items: Vec<_> = Reader::new(&bytes[..bytes.len() - 1]).collect();
        assert_eq!(items.iter().filter(|item| item.is_ok()).count(), 4);
        assert_eq!(
            items[4].as_ref().unwrap_err().to_string(),
            "byte 96: the trace ends 23 bytes into a record of 24"
        );
        assert_eq!(items.len(), 5);
    }
}
