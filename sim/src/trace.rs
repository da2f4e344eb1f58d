//! `Access` and `Trace`: a request log as an iterator, so a trace of any length streams.
//!
//! ```text
//! file or standard input -> bytes counted -> unpacked if zstd -> one of trace/*.rs -> Access
//! ```
//!
//! What cannot be read as an access is an item of its own, [`TraceError::Malformed`], and the
//! iteration goes on behind it; only a reader that fails ends it. A format is one file under
//! `trace/` and one line in [`Format`], in [`Trace::read`] and in `Trace::next`.

mod access;

pub mod csv;
pub mod oracle_general;
pub mod zipf;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use access::with_decimal;
pub use access::{Access, KEY_BYTES_MAX, Op};

/// How much is asked of the source at a time.
const BUFFER_BYTES: usize = 128 * 1024;

/// The first bytes of a zstd frame: magic number 0xFD2FB528, little-endian (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The widest window that zstd can make (`--long=31`); frames name how much of it they need.
const ZSTD_WINDOW_LOG_MAX: u32 = 31;

/// Where in a trace something stands, as a person would look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line of a text, the first being 1, headers counted.
    Line(u64),
    /// The offset in a binary, unpacked, in bytes.
    Byte(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Byte(offset) => write!(f, "byte {offset}"),
        }
    }
}

/// Why a record is not an access.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A binary trace ends inside a record.
    #[error("the trace ends {found_bytes} bytes into a record of {record_bytes}")]
    Truncated {
        /// Bytes there are of the record.
        found_bytes: usize,
        /// Bytes a record has.
        record_bytes: usize,
    },
    /// A line has too few fields.
    #[error("no column {column} for the {field}, the line has {fields}")]
    MissingField {
        /// What was to be read.
        field: &'static str,
        /// Its column, the first being 1.
        column: usize,
        /// Fields found in the line.
        fields: usize,
    },
    /// A field that must be a number is none, or one out of range.
    #[error("the {field} is `{text}`, not a number from 0 to {max}")]
    BadNumber {
        /// What was to be read.
        field: &'static str,
        /// What stands there, its beginning if it is long.
        text: String,
        /// The largest number taken.
        max: u64,
    },
    /// The id's field is empty.
    #[error("the id is empty")]
    EmptyId,
    /// A quote is opened and not closed in the line.
    #[error("a quote is not closed in its line")]
    OpenQuote,
    /// A line longer than anything a log would hold.
    #[error("the line is longer than {max_bytes} bytes")]
    LineTooLong {
        /// The longest line taken.
        max_bytes: usize,
    },
}

/// What a trace can yield instead of an access.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// One record is unreadable; the next item is the record behind it.
    #[error("{place}: {fault}")]
    Malformed {
        /// Where the record begins.
        place: Place,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The source failed, or its zstd data is damaged. Nothing follows.
    #[error("cannot read on: {0}")]
    Io(#[from] io::Error),
}

/// Why a trace cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened, or its first bytes cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A column is given by a name that the header does not hold.
    #[error("no column is named `{name}`, the header has: {header}")]
    NoSuchColumn {
        /// The name asked for.
        name: String,
        /// The header's names, separated by commas.
        header: String,
    },
}

/// How a log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// libCacheSim's binary records, see [`oracle_general`].
    OracleGeneral,
    /// Lines of fields, see [`csv`].
    Csv(csv::Layout),
}

impl Format {
    /// The format that a file's name tells, `.zst` aside: `.oracleGeneral` (or `.oracleGeneral.bin`),
    /// `.csv`, `.tsv`; case does not matter.
    pub fn guess(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".zst").unwrap_or(&name);
        if name.ends_with(".oraclegeneral") || name.ends_with(".oraclegeneral.bin") {
            Some(Self::OracleGeneral)
        } else if name.ends_with(".csv") {
            Some(Self::Csv(csv::Layout::default()))
        } else if name.ends_with(".tsv") {
            Some(Self::Csv(csv::Layout { delimiter: b'\t', ..csv::Layout::default() }))
        } else {
            None
        }
    }

    /// Whether it may hold other ops than gets.
    pub fn has_writes(&self) -> bool {
        match self {
            Self::OracleGeneral => false,
            Self::Csv(_) => false,
        }
    }

    /// Whether an object's bytes are those of its key and its value.
    pub fn keys_count(&self) -> bool {
        self.has_writes()
    }

    /// The name on command lines and in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OracleGeneral => "oracle-general",
            Self::Csv(_) => "csv",
        }
    }
}

/// What of a log is neither an access nor malformed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Records that the log itself says it lost.
    pub lost: u64,
    /// Records that ask no cache for anything: an eviction, a POST, a comment.
    pub passed_over: u64,
}

/// A request log being read, in constant memory: an iterator of accesses and of what is malformed.
pub struct Trace {
    format: Format,
    records: Records,
    position: Position,
}

/// The formats. An enum and not a trait object: one access is a few nanoseconds of work.
enum Records {
    OracleGeneral(oracle_general::Reader<Source>),
    Csv(csv::Reader<Source>),
}

/// The bytes of a trace, unpacked.
type Source = Box<dyn BufRead + Send>;

impl Trace {
    /// Opens a file, packed with zstd or not: its first bytes tell.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or lacks a named column.
    pub fn open(path: &Path, format: &Format) -> Result<Self, OpenError> {
        Self::read(File::open(path)?, format)
    }

    /// Reads from anything, packed with zstd or not; standard input, say.
    ///
    /// # Errors
    ///
    /// The first bytes cannot be read, or the header lacks a named column.
    pub fn read(source: impl Read + Send + 'static, format: &Format) -> Result<Self, OpenError> {
        let position = Position::default();
        let counted = Counted { source, position: position.clone() };
        let source = unpacked(BufReader::with_capacity(BUFFER_BYTES, counted))?;
        let records = match format {
            Format::OracleGeneral => Records::OracleGeneral(oracle_general::Reader::new(source)),
            Format::Csv(layout) => Records::Csv(csv::Reader::new(source, layout)?),
        };
        Ok(Self { format: format.clone(), records, position })
    }

    /// How the log is written.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// What has been met by now that is neither an access nor malformed.
    pub fn notes(&self) -> Notes {
        Notes::default()
    }

    /// How far reading has come, to be watched while the trace is consumed.
    pub fn position(&self) -> Position {
        self.position.clone()
    }
}

impl Iterator for Trace {
    type Item = Result<Access, TraceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.records {
            Records::OracleGeneral(reader) => reader.next(),
            Records::Csv(reader) => reader.next(),
        }
    }
}

/// How many bytes of the source, as they are stored, have been taken.
#[derive(Clone, Debug, Default)]
pub struct Position(Arc<AtomicU64>);

impl Position {
    /// Bytes taken by now.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts what passes through.
struct Counted<R> {
    source: R,
    position: Position,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.position.0.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// `source` as it is, or through a zstd decoder if it begins like a zstd frame.
fn unpacked(mut source: impl BufRead + Send + 'static) -> io::Result<Source> {
    if !source.fill_buf()?.starts_with(&ZSTD_MAGIC) {
        return Ok(Box::new(source));
    }
    let mut decoder = zstd::Decoder::with_buffer(source)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_told_by_the_name() {
        let guess = |name: &str| Format::guess(Path::new(name)).map(|format| format.name());
        assert_eq!(guess("logs/a.oracleGeneral.zst"), Some("oracle-general"));
        assert_eq!(guess("cloudPhysicsIO.oracleGeneral.bin"), Some("oracle-general"));
        assert_eq!(guess("a.CSV"), Some("csv"));
        assert_eq!(guess("a.csv.zst"), Some("csv"));
        assert_eq!(guess("a.log"), None);
        assert_eq!(guess("-"), None);
        let tabs = Format::Csv(csv::Layout { delimiter: b'\t', ..csv::Layout::default() });
        assert_eq!(Format::guess(Path::new("a.tsv")), Some(tabs));
    }

    #[test]
    fn packed_and_plain_read_the_same() {
        let accesses: Vec<Access> =
            (0..1000).map(|n| Access::get(n, u64::from(n % 7), 5)).collect();
        let mut plain = Vec::new();
        oracle_general::write(&mut plain, &accesses).unwrap();
        let packed = zstd::encode_all(plain.as_slice(), 0).unwrap();
        for bytes in [plain, packed] {
            let bytes_len = bytes.len() as u64;
            let mut trace = Trace::read(io::Cursor::new(bytes), &Format::OracleGeneral).unwrap();
            let position = trace.position();
            let read: Vec<Access> = trace.by_ref().map(Result::unwrap).collect();
            assert_eq!(read, accesses);
            assert_eq!(position.bytes(), bytes_len);
        }
    }

    #[test]
    fn damaged_zstd_data_ends_the_trace_with_an_error() {
        let plain = [7u8; 24 * 5000].map(|byte| byte.wrapping_mul(31));
        let mut packed = zstd::encode_all(plain.as_slice(), 0).unwrap();
        packed.truncate(packed.len() - 3);
        let trace = Trace::read(io::Cursor::new(packed), &Format::OracleGeneral).unwrap();
        let last = trace.last().unwrap();
        assert!(matches!(last, Err(TraceError::Io(_))), "{last:?}");
    }

    #[test]
    fn empty_source_is_an_empty_trace() {
        for format in [Format::OracleGeneral, Format::Csv(csv::Layout::default())] {
            assert_eq!(Trace::read(io::empty(), &format).unwrap().count(), 0);
        }
    }
}
