//! `Access` and `Trace`: a request log as an iterator, so a trace of any length streams.
//!
//! ```text
//! file or standard input -> bytes, unpacked -> lines, or records of one length -> one of trace/*.rs -> Access
//!     source.rs                                lines.rs   records.rs
//! ```
//!
//! What cannot be read as an access is an item of its own, [`TraceError::Malformed`], and the
//! iteration goes on behind it; only a reader that fails ends it. A format is one file under
//! `trace/`, one variant of [`Format`] and one arm of `Trace::over`. Parquet alone is no stream: its file's end
//! comes first.

mod access;
mod access_log;
mod arc_lis;
mod block_io;
mod fields;
mod format;
mod header;
mod ids;
mod largest;
mod lcs;
mod lines;
mod memcached_watch;
mod meta_block;
mod meta_cdn;
mod meta_kvcache;
mod oracle_general_op_ns;
#[cfg(feature = "parquet")]
mod parquet;
mod proxy_requests;
mod records;
mod redis_monitor;
mod source;
mod squid;
mod tencent_photo;
mod twitter;
mod twr;
mod vscsi;
mod webcachesim;
mod wikibench;
mod wikimedia;

pub mod csv;
pub mod oracle_general;
pub mod zipf;

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

pub(crate) use access::with_decimal;
pub use access::{Access, KEY_BYTES_MAX, Op};
pub use format::Format;
use lines::LineFormat;
pub use source::Position;
use source::{BUFFER_BYTES, Source};

/// What every Parquet file begins with.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// Where in a trace something stands, as a person would look it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line of a text, the first being 1, headers counted.
    Line(u64),
    /// The offset in a binary, unpacked, in bytes.
    Byte(u64),
    /// The row of a table, the first being 1.
    Row(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Byte(offset) => write!(f, "byte {offset}"),
            Self::Row(number) => write!(f, "row {number}"),
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
    #[error("the {field} is `{}`, not a number from 0 to {max}", printable(text))]
    BadNumber {
        /// What was to be read.
        field: &'static str,
        /// What stands there, its beginning if it is long.
        text: String,
        /// The largest number taken.
        max: u64,
    },
    /// Something that every line has.
    #[error("there is no {field}")]
    Missing {
        /// What was to be read.
        field: &'static str,
    },
    /// A field that is not what it should be.
    #[error("the {field} is `{}`, not {expected}", printable(text))]
    Bad {
        /// What was to be read.
        field: &'static str,
        /// What stands there, its beginning if it is long.
        text: String,
        /// What it should be.
        expected: &'static str,
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
    /// The source failed, or its packed data is damaged. Nothing follows.
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
    #[error("no column is named `{name}`, the header has: {}", printable(header))]
    NoSuchColumn {
        /// The name asked for.
        name: String,
        /// The header's names, separated by commas.
        header: String,
    },
    /// Neither the name nor the first lines tell how the log is written.
    #[error(
        "neither its name nor its first lines tell how it is written: give --format, or --csv for \
         columns of your own"
    )]
    UnknownFormat,
    /// A binary log without the header that it must have.
    #[error("it does not begin with a header of {0} that can be read")]
    NoHeader(&'static str),
    /// A format that this build does not read, or not from this source.
    #[error("{0}")]
    NotRead(String),
}

/// Characters of a header that are told at most.
const PRINTED_MAX: usize = 300;

/// A text of a log as a terminal can show it: nothing in it that a terminal would obey.
fn printable(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().collect(),
        false => letter.to_string(),
    };
    text.chars().take(PRINTED_MAX).map(shown).collect::<String>()
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

/// The readers. An enum and not a trait object: one access is a few nanoseconds of work.
enum Records {
    OracleGeneral(oracle_general::Reader<Source>),
    Lines(lines::Reader<Source>),
    Binary(records::Reader<Source>),
    #[cfg(feature = "parquet")]
    Parquet(Box<parquet::Reader>),
}

impl Trace {
    /// Opens a file, packed or not: its first bytes tell.
    ///
    /// # Errors
    ///
    /// The file cannot be read, lacks a named column or a header, or nothing tells its format.
    pub fn open(path: &Path, format: &Format) -> Result<Self, OpenError> {
        let (file, named) = (File::open(path)?, Format::guess(path));
        if let Some(layout) = parquet_layout(&file, format, named.as_ref())? {
            return Self::over_parquet(file, layout);
        }
        Self::over(file, format, named)
    }

    #[cfg(feature = "parquet")]
    fn over_parquet(file: File, layout: csv::Layout) -> Result<Self, OpenError> {
        let position = Position::default();
        let reader = parquet::Reader::open(file, &layout, position.clone())?;
        let format = Format::Parquet(reader.layout().clone());
        Ok(Self { format, records: Records::Parquet(Box::new(reader)), position })
    }

    #[cfg(not(feature = "parquet"))]
    fn over_parquet(_: File, _: csv::Layout) -> Result<Self, OpenError> {
        let why = "this build reads no Parquet: build it with the feature `parquet`";
        Err(OpenError::NotRead(why.into()))
    }

    /// Reads from anything, packed with zstd, gzip or xz or not; standard input, say.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`].
    pub fn read(source: impl Read + Send + 'static, format: &Format) -> Result<Self, OpenError> {
        Self::over(source, format, None)
    }

    fn over(
        source: impl Read + Send + 'static,
        format: &Format,
        named: Option<Format>,
    ) -> Result<Self, OpenError> {
        let (mut source, position) = source::unpacked(source)?;
        let mut format = format.clone();
        if format == Format::Guess {
            let head = source.peek(BUFFER_BYTES / 2)?;
            // Nothing is in an empty log, however it is written.
            let told = match head {
                [] => named.or(Some(Format::Ids)),
                head => Format::tell(named, head),
            };
            format = told.ok_or(OpenError::UnknownFormat)?;
        }
        if format == Format::OracleGeneral {
            let records = Records::OracleGeneral(oracle_general::Reader::new(source));
            return Ok(Self { format, records, position });
        }
        let head = source.peek(BUFFER_BYTES / 2)?;
        let lines: Box<dyn LineFormat> = match &format {
            Format::OracleGeneralOpNs => {
                return Ok(Self::binary(
                    format,
                    source,
                    0,
                    oracle_general_op_ns::OracleGeneralOpNs,
                    position,
                ));
            }
            Format::Twr => return Ok(Self::binary(format, source, 0, twr::Twr, position)),
            Format::Vscsi => {
                let version = match vscsi::Vscsi::of(head) {
                    None if head.is_empty() => vscsi::Vscsi::V1,
                    version => version.ok_or(OpenError::NoHeader("vscsi"))?,
                };
                return Ok(Self::binary(format, source, 0, version, position));
            }
            Format::Lcs => {
                let (lcs, header_bytes) = lcs::Lcs::open(head)?;
                io::BufRead::consume(&mut source, header_bytes);
                return Ok(Self::binary(format, source, header_bytes as u64, lcs, position));
            }
            Format::Guess | Format::OracleGeneral => return Err(OpenError::UnknownFormat),
            Format::Parquet(_) => {
                let why = "a Parquet file says at its end where its columns are: give it as a file, unpacked";
                return Err(OpenError::NotRead(why.into()));
            }
            Format::Ids => Box::new(ids::Ids::Plain),
            Format::Lirs => Box::new(ids::Ids::Lirs),
            Format::Csv(layout) => Box::new(csv::Csv::open(head, layout)?),
            Format::Twitter => Box::new(twitter::Twitter),
            Format::MetaKv2022 => Box::new(meta_kvcache::MetaKv2022::open(head)?),
            Format::MetaKv2024 => Box::new(meta_kvcache::MetaKv2024::open(head)?),
            Format::MetaCdn => Box::new(meta_cdn::MetaCdn::open(head)?),
            Format::MetaBlock => Box::new(meta_block::MetaBlock::open(head)?),
            Format::WikimediaUpload2019 => Box::new(wikimedia::Wikimedia::Upload2019),
            Format::WikimediaText2019 => Box::new(wikimedia::Wikimedia::Text2019),
            Format::Wikimedia2016 => Box::new(wikimedia::Wikimedia::Of2016),
            Format::Wikibench => Box::new(wikibench::Wikibench),
            Format::Msr => Box::new(block_io::BlockIo::Msr),
            Format::TencentBlock => Box::new(block_io::BlockIo::Tencent),
            Format::Systor => Box::new(block_io::BlockIo::Systor),
            Format::TencentPhoto => Box::new(tencent_photo::TencentPhoto),
            Format::ArcLis => Box::new(arc_lis::ArcLis::default()),
            Format::Webcachesim => Box::new(webcachesim::Webcachesim),
            Format::MemcachedWatch => Box::new(memcached_watch::MemcachedWatch::default()),
            Format::ProxyRequests => Box::new(proxy_requests::ProxyRequests::default()),
            Format::RedisMonitor => Box::new(redis_monitor::RedisMonitor::default()),
            Format::AccessLog => Box::new(access_log::AccessLog::default()),
            Format::Squid => Box::new(squid::Squid::default()),
        };
        let records = Records::Lines(lines::Reader::new(source, lines));
        Ok(Self { format, records, position })
    }

    /// A trace of records of one length, the first at byte `offset`.
    fn binary(
        format: Format,
        source: Source,
        offset: u64,
        records: impl records::RecordFormat + 'static,
        position: Position,
    ) -> Self {
        let reader = records::Reader::new(source, offset, Box::new(records));
        Self { format, records: Records::Binary(reader), position }
    }

    /// How the log is written.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// What has been met by now that is neither an access nor malformed.
    pub fn notes(&self) -> Notes {
        match &self.records {
            Records::OracleGeneral(_) => Notes::default(),
            Records::Lines(reader) => reader.notes(),
            Records::Binary(reader) => reader.notes(),
            #[cfg(feature = "parquet")]
            Records::Parquet(_) => Notes::default(),
        }
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
            Records::Lines(reader) => reader.next(),
            Records::Binary(reader) => reader.next(),
            #[cfg(feature = "parquet")]
            Records::Parquet(reader) => reader.next(),
        }
    }
}

/// How the columns of a file are to be read, if it is a Parquet file or is to be one.
fn parquet_layout(
    mut file: &File,
    format: &Format,
    named: Option<&Format>,
) -> io::Result<Option<csv::Layout>> {
    match (format, named) {
        (Format::Parquet(layout), _) => return Ok(Some(layout.clone())),
        (Format::Guess, Some(Format::Parquet(layout))) => return Ok(Some(layout.clone())),
        (Format::Guess, _) if file.metadata()?.is_file() => {}
        _ => return Ok(None),
    }
    let mut head = Vec::new();
    file.take(PARQUET_MAGIC.len() as u64).read_to_end(&mut head)?;
    file.rewind()?;
    Ok((head == PARQUET_MAGIC).then(csv::Layout::default))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

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

    /// The formats that begin with a header which must be there.
    fn needs_header(format: &Format) -> bool {
        matches!(
            format,
            Format::Lcs
                | Format::Parquet(_)
                | Format::MetaKv2022
                | Format::MetaKv2024
                | Format::MetaCdn
                | Format::MetaBlock
        )
    }

    #[test]
    fn empty_source_is_an_empty_trace() {
        for format in Format::ALL.iter().chain([&Format::Guess]) {
            match Trace::read(io::empty(), format) {
                Ok(trace) => assert_eq!(trace.count(), 0, "{}", format.name()),
                Err(_) => assert!(needs_header(format), "{}", format.name()),
            }
        }
    }

    /// Heads that let the formats which need one get at the bytes behind.
    fn head_of(format: &Format) -> Vec<u8> {
        let text = match format {
            Format::MetaKv2022 => "key,op,size,op_count,key_size\n",
            Format::MetaKv2024 => "op_time,key,key_size,op,op_count,size,cache_hits,ttl\n",
            Format::MetaCdn => "timestamp,cacheKey,OpType,objectSize,TTL\n",
            Format::MetaBlock => "op_time,block_id,io_size,io_offset,op_count\n",
            Format::Lcs => {
                let mut header = vec![0; 8192];
                header[..8].copy_from_slice(&lcs::MAGIC);
                header[8] = 3;
                return header;
            }
            _ => "",
        };
        text.into()
    }

    /// Bytes as logs have them: lines of numbers, words and quotes among arbitrary ones.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            vec(any::<u8>(), 0..12),
            "[0-9]{1,20}".prop_map(String::into_bytes),
            select(
                &[
                    ",",
                    "\n",
                    " ",
                    "\t",
                    "\"",
                    "\\",
                    "[",
                    "]",
                    "-",
                    ".",
                    "%",
                    "GET",
                    "get",
                    "SET",
                    "ts=1.5 ",
                    "gid=7 ",
                    "type=item_get ",
                    "type=item_store ",
                    "key=%41 ",
                    "cfd=1 ",
                    "cmd=set ",
                    "skipped=",
                    " req=ms a 5 T9",
                    "1.0 [0 a] \"SET\" \"k\" \"v\" \"EX\" ",
                    "\\x4",
                    "a - - [17/May/2015:10:05:03 +0000] \"GET /x HTTP/1.1\" 200 ",
                    "1.0 5 c TCP_HIT/200 ",
                ][..]
            )
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic_or_go_on_for_ever(bytes in bytes()) {
            for format in Format::ALL.iter().chain([&Format::Guess]) {
                let all = [head_of(format), bytes.clone()].concat();
                // A count in a line may call for four billion of an access.
                if let Ok(trace) = Trace::read(io::Cursor::new(all), format) {
                    let errors = trace.take(100_000).filter(Result::is_err).count();
                    prop_assert!(errors <= bytes.len() + 1);
                }
            }
        }
    }
}
