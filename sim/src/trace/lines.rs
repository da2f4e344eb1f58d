//! `Reader`: a log of lines, each read by one of the text formats.
//!
//! ```text
//! source's buffer: |...line\nline\nli|      whole lines are parsed where they lie
//!                               ne\n...     one that ends in the next buffer is carried over
//! ```
//!
//! - A format sees one line at a time, without its line break, and says what it means: an access, one
//!   repeated, several in a queue, or none.
//! - Memory is bounded whatever the log holds: lines are cut off at [`LINE_BYTES_MAX`].
//! - Blank lines are passed over in silence.

use std::io::{self, BufRead};

use memchr::memchr;

use super::{Access, Fault, Notes, Place, TraceError};

/// The longest line taken, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// What some editors put before the first line.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// One access.
    One(Access),
    /// The same access so many times.
    Repeated(Access, u32),
    /// Accesses, perhaps none, that [`LineFormat::pop`] hands out.
    Queued,
    /// A record that asks no cache for anything.
    PassedOver,
    /// No record: a header, a greeting, a comment.
    Silent,
    /// So many records are lost here.
    Lost(u64),
}

/// How the lines of a format are read.
pub(crate) trait LineFormat: Send {
    /// Reads a line, which is not blank.
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault>;

    /// The next access of the queue.
    fn pop(&mut self) -> Option<Access> {
        None
    }

    /// The log has ended: what was held back goes to the queue.
    fn finish(&mut self) {}
}

/// Reads lines until the source ends.
pub(crate) struct Reader<R> {
    source: R,
    format: Box<dyn LineFormat>,
    /// The beginning of a line whose end is not in the source's buffer.
    carried: Vec<u8>,
    /// The line carried over is too long, and what is read of it is thrown away.
    is_too_long: bool,
    line_number: u64,
    repeated: Option<(Access, u32)>,
    /// The format has accesses in its queue, or may have.
    is_queued: bool,
    has_ended: bool,
    notes: Notes,
}

impl<R: BufRead> Reader<R> {
    /// A reader of the lines of `source` by `format`.
    pub(crate) fn new(source: R, format: Box<dyn LineFormat>) -> Self {
        Self {
            source,
            format,
            carried: Vec::new(),
            is_too_long: false,
            line_number: 0,
            repeated: None,
            is_queued: false,
            has_ended: false,
            notes: Notes::default(),
        }
    }

    /// What has been met that is no access.
    pub(crate) fn notes(&self) -> Notes {
        self.notes
    }

    /// Reads and parses the next line; none when there is none.
    fn next_line(&mut self) -> io::Result<Option<Result<Parsed, Fault>>> {
        loop {
            let buffer = match self.source.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                if self.carried.is_empty() && !self.is_too_long {
                    return Ok(None);
                }
                return Ok(Some(self.parse_carried()));
            }
            let taken = match memchr(b'\n', buffer) {
                Some(end) if self.carried.is_empty() && !self.is_too_long => {
                    self.line_number += 1;
                    let parsed = parse(&mut *self.format, &buffer[..end], self.line_number);
                    self.source.consume(end + 1);
                    return Ok(Some(parsed));
                }
                Some(end) => {
                    carry(&mut self.carried, &mut self.is_too_long, &buffer[..end]);
                    self.source.consume(end + 1);
                    return Ok(Some(self.parse_carried()));
                }
                None => {
                    carry(&mut self.carried, &mut self.is_too_long, buffer);
                    buffer.len()
                }
            };
            self.source.consume(taken);
        }
    }

    /// Parses the line that was carried over to its end.
    fn parse_carried(&mut self) -> Result<Parsed, Fault> {
        self.line_number += 1;
        let parsed = if std::mem::take(&mut self.is_too_long) {
            Err(Fault::LineTooLong { max_bytes: LINE_BYTES_MAX })
        } else {
            parse(&mut *self.format, &self.carried, self.line_number)
        };
        self.carried.clear();
        parsed
    }
}

/// Appends to the line carried over, unless it is too long.
fn carry(carried: &mut Vec<u8>, is_too_long: &mut bool, bytes: &[u8]) {
    if carried.len() + bytes.len() > LINE_BYTES_MAX {
        *is_too_long = true;
        carried.clear();
    }
    if !*is_too_long {
        carried.extend_from_slice(bytes);
    }
}

/// Parses a line, without a carriage return at its end.
#[inline]
fn parse(format: &mut dyn LineFormat, line: &[u8], number: u64) -> Result<Parsed, Fault> {
    if line.len() > LINE_BYTES_MAX {
        return Err(Fault::LineTooLong { max_bytes: LINE_BYTES_MAX });
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = match number {
        1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
        _ => line,
    };
    if line.trim_ascii().is_empty() { Ok(Parsed::Silent) } else { format.parse(line) }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Access, TraceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((access, count)) = self.repeated {
                self.repeated = (count > 1).then_some((access, count - 1));
                return Some(Ok(access));
            }
            if self.is_queued {
                if let Some(access) = self.format.pop() {
                    return Some(Ok(access));
                }
                self.is_queued = false;
            }
            if self.has_ended {
                return None;
            }
            match self.next_line() {
                Ok(Some(Ok(Parsed::One(access)))) => return Some(Ok(access)),
                Ok(Some(Ok(Parsed::Repeated(access, count)))) => {
                    self.repeated = (count > 0).then_some((access, count));
                }
                Ok(Some(Ok(Parsed::Queued))) => self.is_queued = true,
                Ok(Some(Ok(Parsed::PassedOver))) => self.notes.passed_over += 1,
                Ok(Some(Ok(Parsed::Silent))) => {}
                Ok(Some(Ok(Parsed::Lost(count)))) => {
                    self.notes.lost = self.notes.lost.saturating_add(count);
                }
                Ok(Some(Err(fault))) => {
                    let place = Place::Line(self.line_number);
                    return Some(Err(TraceError::Malformed { place, fault }));
                }
                Ok(None) => {
                    self.has_ended = true;
                    self.format.finish();
                    self.is_queued = true;
                }
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error.into()));
                }
            }
        }
    }
}

/// What the tests of the formats share.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::trace::Op;

    /// All that a format makes of a text, and what it notes.
    pub(crate) fn read(
        format: impl LineFormat + 'static,
        text: &str,
    ) -> (Vec<Result<Access, String>>, Notes) {
        let mut reader = Reader::new(text.as_bytes(), Box::new(format));
        let items = reader.by_ref().map(|item| item.map_err(|error| error.to_string())).collect();
        (items, reader.notes())
    }

    /// The accesses of a text without a fault.
    pub(crate) fn accesses(format: impl LineFormat + 'static, text: &str) -> Vec<Access> {
        read(format, text).0.into_iter().map(Result::unwrap).collect()
    }

    /// The one complaint about a text.
    pub(crate) fn complaint(format: impl LineFormat + 'static, text: &str) -> String {
        let mut complaints = read(format, text).0.into_iter().filter_map(Result::err);
        let first = complaints.next().unwrap();
        assert_eq!(complaints.next(), None);
        first
    }

    /// Op, size and TTL of each access.
    pub(crate) fn ops(accesses: &[Access]) -> Vec<(Op, u32, u32)> {
        accesses.iter().map(|access| (access.op, access.size_bytes, access.ttl_s)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    /// Takes the length of a line for the id.
    struct Lengths;

    impl LineFormat for Lengths {
        fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
            Ok(Parsed::One(Access::get(0, line.len() as u64, 1)))
        }
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = "a\r\nbb\n\n   \nccc\ndddddddddddd\nee";
        for capacity in 1..40 {
            let source = BufReader::with_capacity(capacity, text.as_bytes());
            let reader = Reader::new(source, Box::new(Lengths));
            let ids: Vec<u64> = reader.map(|access| access.unwrap().id).collect();
            assert_eq!(ids, [1, 2, 3, 12, 2], "{capacity} bytes at a time");
        }
    }

    #[test]
    fn line_without_end_is_bounded_and_costs_one_line() {
        let long = "9".repeat(3 * LINE_BYTES_MAX);
        let text = format!("{long}\na\n{long}");
        for capacity in [1000, 10 * LINE_BYTES_MAX] {
            let source = BufReader::with_capacity(capacity, text.as_bytes());
            let mut reader = Reader::new(source, Box::new(Lengths));
            let items: Vec<_> = reader.by_ref().collect();
            assert_eq!(items.len(), 3);
            let error = items[2].as_ref().unwrap_err().to_string();
            assert!(error.starts_with("line 3: the line is longer"), "{error}");
            assert!(items[1].is_ok());
            assert!(reader.carried.capacity() <= 4 * LINE_BYTES_MAX);
        }
    }

    #[test]
    fn a_source_that_fails_ends_the_log() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn"))
            }
        }
        let mut reader = Reader::new(BufReader::new(Failing), Box::new(Lengths));
        assert!(matches!(reader.next(), Some(Err(TraceError::Io(_)))));
        assert!(reader.next().is_none());
    }
}
