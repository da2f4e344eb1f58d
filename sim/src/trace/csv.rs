//! CSV: a request a line, in columns that the user names.
//!
//! ```text
//! time,obj_id,obj_size          ts;op;key;bytes;ttl
//! 5633898,42932745,512          1700000000123;set;user:7;512;3600
//! ```
//!
//! - A line is a record: a field may be quoted and hold the delimiter, but not a line break, so one
//!   stray quote costs one line and not the rest of the log.
//! - An id that is a plain decimal number stays that number; any other text is hashed
//!   (`fields.rs`).
//! - Times may be in seconds, or steps of 1/1,000, 1/1,000,000 or 1/1,000,000,000 of one: unless the
//!   layout says so, the first record tells by its magnitude.
//! - Without a size column every object has size 1; without one of ops every request is a get.

use std::ops::Range;
use std::str::FromStr;

use memchr::{memchr, memchr_iter};

use super::fields::{bad, bad_number, key_length, length_of, number, number_u32, object_id};
use super::lines::{BYTE_ORDER_MARK, LineFormat, Parsed};
use super::{Access, Fault, Op, OpenError};

/// Which column holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By its place in the line, the first being 1.
    Number(usize),
    /// By its name in the header.
    Name(String),
}

/// Whether the first line is a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Header {
    /// It is if a column is named, or if a time or size column of it is no number.
    #[default]
    Auto,
    /// It is.
    Present,
    /// It is a request like all others.
    Absent,
}

/// What a step of the times is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeUnit {
    /// Told by the first record: what would be a moment far beyond this century in one unit is taken
    /// for one of this age in the next smaller one.
    #[default]
    Auto,
    /// A second.
    Seconds,
    /// A thousandth of one.
    Millis,
    /// A millionth.
    Micros,
    /// A billionth.
    Nanos,
}

impl TimeUnit {
    /// Steps in a second.
    fn per_second(self) -> u64 {
        match self {
            Self::Auto | Self::Seconds => 1,
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }

    /// The unit in which `time` is a moment that a log may be of.
    fn of(time: u64) -> Self {
        match time {
            0..100_000_000_000 => Self::Seconds,
            100_000_000_000..100_000_000_000_000 => Self::Millis,
            100_000_000_000_000..100_000_000_000_000_000 => Self::Micros,
            _ => Self::Nanos,
        }
    }
}

/// How the lines of a CSV are to be read. By default `time=1,id=2,size=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The column of the time; none if the log has none.
    pub time: Option<Column>,
    /// The column of the object's id.
    pub id: Column,
    /// The column of the object's size, in bytes; none if the log has none.
    pub size: Option<Column>,
    /// The column of the key's length, in bytes; without one the id's text is the key.
    pub key_size: Option<Column>,
    /// The column of the op; without one every request is a get.
    pub op: Option<Column>,
    /// The column of the TTL, in seconds; none if the log has none.
    pub ttl: Option<Column>,
    /// What a step of the times is.
    pub time_unit: TimeUnit,
    /// What stands between two fields.
    pub delimiter: u8,
    /// Whether the first line is a header.
    pub header: Header,
}

impl Layout {
    /// `time=1,id=2,size=3`.
    pub const DEFAULT: Self = Self {
        time: Some(Column::Number(1)),
        id: Column::Number(2),
        size: Some(Column::Number(3)),
        key_size: None,
        op: None,
        ttl: None,
        time_unit: TimeUnit::Auto,
        delimiter: b',',
        header: Header::Auto,
    };

    /// The layout of a header whose names tell it; none if no name is that of an id.
    pub(crate) fn of_header(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii();
        let delimiter = *b",\t; ".iter().find(|&&delimiter| line.contains(&delimiter))?;
        let names: Vec<String> = line
            .split(|&byte| byte == delimiter)
            .map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned())
            .collect();
        Some(Self { delimiter, ..Self::of_names(&names)? })
    }

    /// The layout of columns whose names tell it; none if no name is that of an id.
    pub(crate) fn of_names(names: &[String]) -> Option<Self> {
        let find = |known: &[&str]| {
            let is_known = |name: &&String| known.contains(&name.to_ascii_lowercase().as_str());
            names.iter().find(is_known).map(|name| Column::Name(name.clone()))
        };
        Some(Self {
            id: find(&["id", "obj_id", "object_id", "key", "url", "path", "object", "block_id"])?,
            time: find(&["time", "timestamp", "ts", "time_s", "clock_time"]),
            size: find(&["size", "obj_size", "object_size", "bytes", "value_size", "size_bytes"]),
            key_size: find(&["key_size", "key_bytes"]),
            op: find(&["op", "operation", "command", "cmd"]),
            ttl: find(&["ttl", "ttl_s"]),
            header: Header::Present,
            ..Self::DEFAULT
        })
    }

    /// All its columns.
    fn columns(&self) -> [Option<&Column>; 6] {
        let Self { time, id, size, key_size, op, ttl, .. } = self;
        [time.as_ref(), Some(id), size.as_ref(), key_size.as_ref(), op.as_ref(), ttl.as_ref()]
    }

    /// Whether any column is given by name.
    fn has_names(&self) -> bool {
        self.columns().into_iter().flatten().any(|column| matches!(column, Column::Name(_)))
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a layout's text is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A part is not `key=value`.
    #[error("`{0}` is not of the form key=value")]
    NotAPair(String),
    /// A key nobody knows.
    #[error("`{0}` is none of time, id, size, key-size, op, ttl, time-unit, delimiter, header")]
    UnknownKey(String),
    /// Columns count from 1.
    #[error("the columns of a line count from 1")]
    ColumnZero,
    /// A column without a name.
    #[error("the column of the {0} is empty")]
    EmptyColumn(String),
    /// No column of ids.
    #[error("the column of the id is missing, as in id=2")]
    NoId,
    /// A delimiter that is not one byte.
    #[error("the delimiter `{0}` is not one character, nor tab, space, comma or semicolon")]
    Delimiter(String),
    /// A header that is neither.
    #[error("header is `{0}`, not yes, no or auto")]
    Header(String),
    /// A unit that is none.
    #[error("time-unit is `{0}`, not s, ms, us, ns or auto")]
    TimeUnit(String),
    /// Names need a header to stand in.
    #[error("a column is given by name, so the header cannot be absent")]
    NamesWithoutHeader,
}

impl FromStr for Layout {
    type Err = LayoutError;

    /// Reads `time=1,id=key,size=3,op=4,ttl=5,delimiter=tab,header=yes`: only `id` must be there.
    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let mut id = None;
        let mut layout = Self { time: None, size: None, ..Self::default() };
        for part in text.split(',') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| LayoutError::NotAPair(part.into()))?;
            match key.trim() {
                "time" => layout.time = Some(column(key, value)?),
                "id" => id = Some(column(key, value)?),
                "size" => layout.size = Some(column(key, value)?),
                "key-size" => layout.key_size = Some(column(key, value)?),
                "op" => layout.op = Some(column(key, value)?),
                "ttl" => layout.ttl = Some(column(key, value)?),
                "time-unit" => layout.time_unit = time_unit(value)?,
                "delimiter" => layout.delimiter = delimiter(value)?,
                "header" => layout.header = header(value)?,
                other => return Err(LayoutError::UnknownKey(other.into())),
            }
        }
        layout.id = id.ok_or(LayoutError::NoId)?;
        if layout.header == Header::Absent && layout.has_names() {
            return Err(LayoutError::NamesWithoutHeader);
        }
        Ok(layout)
    }
}

/// A column of a layout's text.
fn column(key: &str, value: &str) -> Result<Column, LayoutError> {
    match (value, value.parse()) {
        ("", _) => Err(LayoutError::EmptyColumn(key.into())),
        (_, Ok(0)) => Err(LayoutError::ColumnZero),
        (_, Ok(number)) => Ok(Column::Number(number)),
        (name, Err(_)) => Ok(Column::Name(name.into())),
    }
}

/// The delimiter of a layout's text.
fn delimiter(value: &str) -> Result<u8, LayoutError> {
    match value {
        "tab" | "\\t" => Ok(b'\t'),
        "space" => Ok(b' '),
        "comma" => Ok(b','),
        "semicolon" => Ok(b';'),
        other => match other.as_bytes() {
            [byte] => Ok(*byte),
            _ => Err(LayoutError::Delimiter(other.into())),
        },
    }
}

/// The header of a layout's text.
fn header(value: &str) -> Result<Header, LayoutError> {
    match value {
        "yes" | "true" => Ok(Header::Present),
        "no" | "false" => Ok(Header::Absent),
        "auto" => Ok(Header::Auto),
        other => Err(LayoutError::Header(other.into())),
    }
}

/// The time unit of a layout's text.
fn time_unit(value: &str) -> Result<TimeUnit, LayoutError> {
    match value {
        "auto" => Ok(TimeUnit::Auto),
        "s" => Ok(TimeUnit::Seconds),
        "ms" => Ok(TimeUnit::Millis),
        "us" => Ok(TimeUnit::Micros),
        "ns" => Ok(TimeUnit::Nanos),
        other => Err(LayoutError::TimeUnit(other.into())),
    }
}

/// A layout with its names looked up: places in a line, the first being 0.
#[derive(Clone, Copy, Debug)]
struct Columns {
    time: Option<usize>,
    id: usize,
    size: Option<usize>,
    key_size: Option<usize>,
    op: Option<usize>,
    ttl: Option<usize>,
}

/// The lines.
#[derive(Debug)]
pub(crate) struct Csv {
    columns: Columns,
    delimiter: u8,
    time_unit: TimeUnit,
    /// The next line is the header.
    header_is_next: bool,
    /// A line with quotes, which lose them here.
    scratch: Vec<u8>,
    /// Where the fields lie.
    fields: Vec<Range<usize>>,
}

impl Csv {
    /// Looks the columns up in the first line of `head`, the log's beginning.
    ///
    /// # Errors
    ///
    /// It lacks a named column.
    pub(crate) fn open(head: &[u8], layout: &Layout) -> Result<Self, OpenError> {
        let first = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let first = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(first);
        let names = names(first, layout.delimiter);
        let columns = Columns::find(layout, &names)?;
        let has_header = match layout.header {
            Header::Present => true,
            Header::Absent => false,
            Header::Auto => layout.has_names() || columns.hold_no_number(&names),
        };
        Ok(Self {
            columns,
            delimiter: layout.delimiter,
            time_unit: layout.time_unit,
            header_is_next: has_header,
            scratch: Vec::new(),
            fields: Vec::new(),
        })
    }

    /// For rows of columns that have these names, none of which is a header.
    ///
    /// # Errors
    ///
    /// A column is missing.
    #[cfg(feature = "parquet")]
    pub(crate) fn of_columns(layout: &Layout, names: &[String]) -> Result<Self, OpenError> {
        let columns = Columns::find(layout, names)?;
        if let Some(missing) = columns.places().find(|&place| place >= names.len()) {
            let name = (missing + 1).to_string();
            return Err(OpenError::NoSuchColumn { name, header: names.join(",") });
        }
        Ok(Self {
            columns,
            delimiter: layout.delimiter,
            time_unit: layout.time_unit,
            header_is_next: false,
            scratch: Vec::new(),
            fields: Vec::new(),
        })
    }

    /// The places of the columns that are read, the first being 0.
    #[cfg(feature = "parquet")]
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> + use<> {
        self.columns.places()
    }

    /// Where the time stands, the first column being 0.
    #[cfg(feature = "parquet")]
    pub(crate) fn time_place(&self) -> Option<usize> {
        self.columns.time
    }

    /// What a step of the times is, whatever the layout says.
    #[cfg(feature = "parquet")]
    pub(crate) fn set_time_unit(&mut self, unit: TimeUnit) {
        self.time_unit = unit;
    }

    /// An access whose fields lie so in `line`.
    ///
    /// # Errors
    ///
    /// They are none.
    #[cfg(feature = "parquet")]
    pub(crate) fn row(
        &mut self,
        line: &[u8],
        fields: impl Iterator<Item = Range<usize>>,
    ) -> Result<Access, Fault> {
        self.fields.clear();
        self.fields.extend(fields);
        self.access(line)
    }

    /// An access whose fields have been found in `line`.
    fn access(&mut self, line: &[u8]) -> Result<Access, Fault> {
        let Columns { time, id, size, key_size, op, ttl } = self.columns;
        let fields = &self.fields;
        let field = |name: &'static str, column: usize| match fields.get(column) {
            Some(place) => Ok(line[place.clone()].trim_ascii()),
            None => {
                let (column, fields) = (column + 1, fields.len());
                Err(Fault::MissingField { field: name, column, fields })
            }
        };
        let time_s = match time {
            Some(column) => seconds(field("time", column)?, &mut self.time_unit)?,
            None => 0,
        };
        let op = match op {
            Some(column) => op_named(field("op", column)?)?,
            None => Op::Get,
        };
        let size_bytes = match size {
            Some(column) => number_u32("size", field("size", column)?)?,
            None => 1,
        };
        let ttl_s = match ttl {
            // Written as nothing, or as -1, it is for ever.
            Some(column) => match field("TTL", column)? {
                b"" => 0,
                text if text.starts_with(b"-") => 0,
                text => number_u32("TTL", text)?,
            },
            None => 0,
        };
        let key = field("id", id)?;
        if key.is_empty() {
            return Err(Fault::EmptyId);
        }
        let key_bytes = match key_size {
            Some(column) => key_length(field("key size", column)?)?,
            None => length_of(key),
        };
        Ok(Access { id: object_id(key), time_s, size_bytes, ttl_s, key_bytes, op })
    }
}

impl LineFormat for Csv {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if std::mem::take(&mut self.header_is_next) {
            return Ok(Parsed::Silent);
        }
        if memchr(b'"', line).is_none() {
            split_plain(line, self.delimiter, &mut self.fields);
            return self.access(line).map(Parsed::One);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(line);
        let access = split(&mut scratch, self.delimiter, &mut self.fields)
            .and_then(|()| self.access(&scratch));
        self.scratch = scratch;
        access.map(Parsed::One)
    }
}

/// The fields of a line as text; none if it cannot be split.
fn names(line: &[u8], delimiter: u8) -> Vec<String> {
    let (mut line, mut fields) = (line.to_vec(), Vec::new());
    match split(&mut line, delimiter, &mut fields) {
        Ok(()) => fields
            .into_iter()
            .map(|field| String::from_utf8_lossy(line[field].trim_ascii()).into_owned())
            .collect(),
        Err(_) => Vec::new(),
    }
}

impl Columns {
    /// Looks the names of `layout` up in the header.
    fn find(layout: &Layout, names: &[String]) -> Result<Self, OpenError> {
        let place = |column: &Column| match column {
            Column::Number(number) => Ok(number.saturating_sub(1)),
            Column::Name(name) => names.iter().position(|found| found == name).ok_or_else(|| {
                OpenError::NoSuchColumn { name: name.clone(), header: names.join(",") }
            }),
        };
        let find = |column: &Option<Column>| column.as_ref().map(place).transpose();
        Ok(Self {
            time: find(&layout.time)?,
            id: place(&layout.id)?,
            size: find(&layout.size)?,
            key_size: find(&layout.key_size)?,
            op: find(&layout.op)?,
            ttl: find(&layout.ttl)?,
        })
    }

    /// All of them, the first column being 0.
    #[cfg(feature = "parquet")]
    fn places(self) -> impl Iterator<Item = usize> {
        let Self { time, id, size, key_size, op, ttl } = self;
        [time, Some(id), size, key_size, op, ttl].into_iter().flatten()
    }

    /// Whether a column that must hold a number holds some word: then the line is a header.
    fn hold_no_number(&self, names: &[String]) -> bool {
        [self.time, self.size, self.ttl, self.key_size].into_iter().flatten().any(|column| {
            names.get(column).is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic()))
        })
    }
}

/// Finds the fields of a line without quotes.
#[inline]
fn split_plain(line: &[u8], delimiter: u8, fields: &mut Vec<Range<usize>>) {
    fields.clear();
    let mut start = 0;
    for end in memchr_iter(delimiter, line) {
        fields.push(start..end);
        start = end + 1;
    }
    fields.push(start..line.len());
}

/// Finds the fields of a line. Quoted ones lose their quotes in place (RFC 4180: a quote within is
/// doubled), which only ever shortens them.
fn split(line: &mut [u8], delimiter: u8, fields: &mut Vec<Range<usize>>) -> Result<(), Fault> {
    fields.clear();
    let mut start = 0;
    loop {
        if line.get(start) == Some(&b'"') {
            let (field, end) = unquote(line, start, delimiter).ok_or(Fault::OpenQuote)?;
            fields.push(field);
            start = end;
        } else {
            let rest = &line[start..];
            let end = start + rest.iter().position(|&b| b == delimiter).unwrap_or(rest.len());
            fields.push(start..end);
            start = end;
        }
        if start == line.len() {
            return Ok(());
        }
        start += 1; // the delimiter
    }
}

/// The field whose opening quote stands at `start`, and where its delimiter (or the line's end) is.
/// What stands between the closing quote and the delimiter belongs to the field.
fn unquote(line: &mut [u8], start: usize, delimiter: u8) -> Option<(Range<usize>, usize)> {
    let (mut write, mut read, mut open) = (start, start + 1, true);
    while read < line.len() && (open || line[read] != delimiter) {
        match (open, line[read], line.get(read + 1)) {
            (true, b'"', Some(b'"')) => {
                line[write] = b'"';
                (write, read) = (write + 1, read + 2);
            }
            (true, b'"', _) => (open, read) = (false, read + 1),
            (_, byte, _) => {
                line[write] = byte;
                (write, read) = (write + 1, read + 1);
            }
        }
    }
    (!open).then_some((start..write, read))
}

/// A time's whole seconds; a fraction must be digits. The first time tells its unit, if nothing else
/// does.
fn seconds(text: &[u8], unit: &mut TimeUnit) -> Result<u32, Fault> {
    let (whole, fraction) = match memchr(b'.', text) {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let steps = number(whole).filter(|_| fraction.iter().all(u8::is_ascii_digit));
    let steps = steps.ok_or_else(|| bad_number("time", text, u32::MAX.into()))?;
    if *unit == TimeUnit::Auto {
        *unit = TimeUnit::of(steps);
    }
    let per_second = unit.per_second();
    let most = u64::from(u32::MAX).saturating_mul(per_second);
    u32::try_from(steps / per_second).map_err(|_| bad_number("time", text, most))
}

/// The op of a name: memcached's in any case, and what people write for get and set.
fn op_named(name: &[u8]) -> Result<Op, Fault> {
    let mut lower = [0; 16];
    let Some(lower) = lower.get_mut(..name.len()) else {
        return Err(bad("op", name, "one of memcached's"));
    };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    super::twitter::op_named(lower)
        .or(match &*lower {
            b"read" | b"r" | b"lookup" => Some(Op::Get),
            b"write" | b"w" | b"put" | b"store" | b"insert" => Some(Op::Set),
            b"del" | b"remove" | b"unlink" => Some(Op::Delete),
            b"expire" => Some(Op::Touch),
            _ => None,
        })
        .ok_or_else(|| bad("op", name, "one of memcached's"))
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::trace::lines::testing::read;

    fn items(text: &str, layout: &str) -> Vec<Result<Access, String>> {
        read(Csv::open(text.as_bytes(), &layout.parse().unwrap()).unwrap(), text).0
    }

    fn accesses(text: &str, layout: &str) -> Vec<(u32, u64, u32)> {
        items(text, layout)
            .into_iter()
            .map(|item| item.map(|access| (access.time_s, access.id, access.size_bytes)).unwrap())
            .collect()
    }

    /// The one complaint about a text, as the user reads it.
    fn complaint(text: &str, layout: &str) -> String {
        let mut complaints = items(text, layout).into_iter().filter_map(Result::err);
        let first = complaints.next().unwrap();
        assert!(complaints.next().is_none());
        first
    }

    const DEFAULT: &str = "time=1,id=2,size=3";

    #[test]
    fn default_layout_is_time_id_size() {
        assert_eq!(DEFAULT.parse(), Ok(Layout::default()));
    }

    #[test]
    fn header_is_passed_over() {
        let want = [(5, 7, 512), (6, 8, 1024)];
        assert_eq!(accesses("time,obj_id,obj_size\n5,7,512\n6,8,1024\n", DEFAULT), want);
        assert_eq!(accesses("5,7,512\n6,8,1024\n", DEFAULT), want);
        assert_eq!(accesses("1,2,3\n5,7,512\n6,8,1024\n", "time=1,id=2,size=3,header=yes"), want);
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = "\u{feff}size;key;when\r\n512;7;5\r\n1024;8;6\r\n";
        let layout = "time=when,id=key,size=size,delimiter=;";
        assert_eq!(accesses(text, layout), [(5, 7, 512), (6, 8, 1024)]);
    }

    #[test]
    fn unknown_name_says_what_there_is() {
        let layout = "id=key".parse().unwrap();
        let error = Csv::open(b"time,obj_id\n1,2\n", &layout).unwrap_err();
        assert_eq!(error.to_string(), "no column is named `key`, the header has: time,obj_id");
    }

    #[test]
    fn without_time_and_size_there_are_ids() {
        assert_eq!(accesses("4\n2\n4", "id=1"), [(0, 4, 1), (0, 2, 1), (0, 4, 1)]);
    }

    #[test]
    fn text_ids_are_hashed_and_numbers_are_not() {
        let ids: Vec<u64> = items("7\n07\n/a\n\"/a\"\n18446744073709551615\n", "id=1")
            .into_iter()
            .map(|item| item.unwrap().id)
            .collect();
        assert_eq!(ids[0], 7);
        assert_eq!(ids[1], xxh3_64(b"07"));
        assert_eq!(ids[2], xxh3_64(b"/a"));
        assert_eq!(ids[3], ids[2]);
        assert_eq!(ids[4], u64::MAX);
    }

    #[test]
    fn quoted_field_may_hold_the_delimiter_and_quotes() {
        let ids: Vec<u64> = items("1,\"a,\"\"b\"\"\",3\n1,\"\",3\n", DEFAULT)
            .into_iter()
            .filter_map(|item| item.ok())
            .map(|access| access.id)
            .collect();
        assert_eq!(ids, [xxh3_64(b"a,\"b\"")]);
    }

    #[test]
    fn stray_quote_costs_one_line() {
        let text = "1,2,3\n1,\"2,3\n1,4,5\n";
        assert_eq!(complaint(text, DEFAULT), "line 2: a quote is not closed in its line");
        assert_eq!(items(text, DEFAULT).len(), 3);
    }

    #[test]
    fn malformed_lines_are_named_by_number_and_the_reading_goes_on() {
        for (line, why) in [
            ("1,2", "no column 3 for the size, the line has 2"),
            ("1,2,-3", "the size is `-3`, not a number from 0 to 4294967295"),
            ("1,2,4294967296", "the size is `4294967296`, not a number from 0 to 4294967295"),
            ("1,2,", "the size is ``, not a number from 0 to 4294967295"),
            ("x,2,3", "the time is `x`, not a number from 0 to 4294967295"),
            ("1.x,2,3", "the time is `1.x`, not a number from 0 to 4294967295"),
            ("1,,3", "the id is empty"),
            ("1,\u{0},\u{0}", r"the size is `\u{0}`, not a number from 0 to 4294967295"),
        ] {
            let text = format!("time,id,size\n\n1,2,3\n{line}\n1,2,3");
            assert_eq!(complaint(&text, DEFAULT), format!("line 4: {why}"));
            assert_eq!(items(&text, DEFAULT).len(), 3, "{line}");
        }
    }

    #[test]
    fn times_keep_their_whole_seconds() {
        assert_eq!(accesses("1378822105.089572,2,3\n", DEFAULT), [(1_378_822_105, 2, 3)]);
    }

    #[test]
    fn times_in_smaller_steps_are_told_by_their_magnitude_or_said() {
        for (time, want) in [
            ("1378822105089", 1_378_822_105),
            ("1378822105089572", 1_378_822_105),
            ("1378822105089572123", 1_378_822_105),
            ("1378822105", 1_378_822_105),
        ] {
            assert_eq!(accesses(&format!("{time},2,3\n"), DEFAULT), [(want, 2, 3)]);
        }
        assert_eq!(accesses("5000,2,3\n", "time=1,id=2,size=3,time-unit=ms"), [(5, 2, 3)]);
        assert_eq!(
            complaint("1,2,3\n1378822105089,2,3\n", DEFAULT),
            "line 2: the time is `1378822105089`, not a number from 0 to 4294967295"
        );
    }

    #[test]
    fn ops_ttls_and_key_sizes_have_columns() {
        let text = "ts;op;key;bytes;ttl;len\n5;SET;user:7;512;3600;6\n6;read;user:7;0;;6\n\
                    7;Delete;user:7;0;-1;6\n";
        let layout = "time=ts,op=op,id=key,size=bytes,ttl=ttl,key-size=len,delimiter=;";
        let read: Vec<Access> = items(text, layout).into_iter().map(Result::unwrap).collect();
        let set = Access {
            id: object_id(b"user:7"),
            time_s: 5,
            size_bytes: 512,
            ttl_s: 3600,
            key_bytes: 6,
            op: Op::Set,
        };
        let get = Access { time_s: 6, size_bytes: 0, ttl_s: 0, op: Op::Get, ..set };
        assert_eq!(read, [set, get, Access { time_s: 7, op: Op::Delete, ..get }]);
        assert_eq!(
            complaint("get,1\npoke,1\n", "op=1,id=2"),
            "line 2: the op is `poke`, not one of memcached's"
        );
    }

    #[test]
    fn a_header_tells_its_layout_if_its_names_are_usual() {
        let layout = Layout::of_header(b"time,obj_id,obj_size\r").unwrap();
        assert_eq!(layout.id, Column::Name("obj_id".into()));
        assert_eq!(layout.size, Some(Column::Name("obj_size".into())));
        assert_eq!(Layout::of_header(b"Key\tBytes").unwrap().delimiter, b'\t');
        assert_eq!(Layout::of_header(b"a,b,c"), None);
        assert_eq!(Layout::of_header(b"1,2,3"), None);
    }

    #[test]
    fn layouts_that_cannot_be_meant_are_refused() {
        let error = |text: &str| text.parse::<Layout>().unwrap_err();
        assert_eq!(error("time=1"), LayoutError::NoId);
        assert_eq!(error("id=0"), LayoutError::ColumnZero);
        assert_eq!(error("id="), LayoutError::EmptyColumn("id".into()));
        assert_eq!(error("id=1,cost=2"), LayoutError::UnknownKey("cost".into()));
        assert_eq!(error("id"), LayoutError::NotAPair("id".into()));
        assert_eq!(error("id=1,delimiter=::"), LayoutError::Delimiter("::".into()));
        assert_eq!(error("id=key,header=no"), LayoutError::NamesWithoutHeader);
        assert_eq!(error("id=1,header=perhaps"), LayoutError::Header("perhaps".into()));
    }
}
