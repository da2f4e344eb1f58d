//! CSV: a request a line, in columns that the user names.
//!
//! ```text
//! time,obj_id,obj_size
//! 5633898,42932745,512
//! ```
//!
//! - A line is a record: a field may be quoted and hold the delimiter, but not a line break, so one
//!   stray quote costs one line and not the rest of the log.
//! - An id that is a plain decimal number stays that number; any other text is hashed (XXH3-64, the
//!   same in every run), so `7` and `07` are two objects.
//! - Times keep their whole seconds. Without a size column every object has size 1.
//! - Blank lines are passed over, a byte order mark too.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

use super::{Access, Fault, OpenError, Place, TraceError};

/// The longest line taken, in bytes; bounds memory whatever the file holds.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The longest piece of a bad field that is quoted in its fault, in bytes.
const QUOTED_BYTES_MAX: usize = 40;

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

/// How the lines of a CSV are to be read. By default `time=1,id=2,size=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The column of the time, in seconds; none if the log has none.
    pub time: Option<Column>,
    /// The column of the object's id.
    pub id: Column,
    /// The column of the object's size, in bytes; none if the log has none.
    pub size: Option<Column>,
    /// What stands between two fields.
    pub delimiter: u8,
    /// Whether the first line is a header.
    pub header: Header,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            time: Some(Column::Number(1)),
            id: Column::Number(2),
            size: Some(Column::Number(3)),
            delimiter: b',',
            header: Header::Auto,
        }
    }
}

/// Why a layout's text is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A part is not `key=value`.
    #[error("`{0}` is not of the form key=value")]
    NotAPair(String),
    /// A key nobody knows.
    #[error("`{0}` is none of time, id, size, delimiter, header")]
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
    /// Names need a header to stand in.
    #[error("a column is given by name, so the header cannot be absent")]
    NamesWithoutHeader,
}

impl FromStr for Layout {
    type Err = LayoutError;

    /// Reads `time=1,id=key,size=3,delimiter=tab,header=yes`: only `id` must be there.
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

impl Layout {
    /// Whether any column is given by name.
    fn has_names(&self) -> bool {
        [self.time.as_ref(), Some(&self.id), self.size.as_ref()]
            .into_iter()
            .flatten()
            .any(|column| matches!(column, Column::Name(_)))
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

/// A layout with its names looked up: places in a line, the first being 0.
#[derive(Clone, Copy)]
struct Columns {
    time: Option<usize>,
    id: usize,
    size: Option<usize>,
}

/// Reads lines until the source ends.
pub struct Reader<R> {
    source: R,
    columns: Columns,
    delimiter: u8,
    /// The line last read, without its line break.
    line: Vec<u8>,
    line_number: u64,
    /// Where the fields of `line` lie.
    fields: Vec<Range<usize>>,
    /// The first line, read to look for a header, turned out to be a request.
    pending: Option<Line>,
    /// The source failed; it is not asked again.
    failed: bool,
}

/// What became of asking for a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Read,
    TooLong,
    End,
}

impl<R: BufRead> Reader<R> {
    /// A reader that takes the header, if there is one, from the first line of `source`.
    ///
    /// # Errors
    ///
    /// The first line cannot be read, or it lacks a named column.
    pub fn new(source: R, layout: &Layout) -> Result<Self, OpenError> {
        let mut reader = Self {
            source,
            columns: Columns { time: None, id: 0, size: None },
            delimiter: layout.delimiter,
            line: Vec::new(),
            line_number: 0,
            fields: Vec::new(),
            pending: None,
            failed: false,
        };
        let first = reader.read_line()?;
        if reader.line.starts_with(BYTE_ORDER_MARK) {
            reader.line.drain(..BYTE_ORDER_MARK.len());
        }
        let names = reader.names();
        reader.columns = Columns::find(layout, &names)?;
        let has_header = match layout.header {
            Header::Present => true,
            Header::Absent => false,
            Header::Auto => layout.has_names() || reader.columns.hold_no_number(&names),
        };
        reader.pending = (!has_header).then_some(first);
        Ok(reader)
    }

    /// The fields of the line as text; none if the line cannot be split. The line stays as it is.
    fn names(&self) -> Vec<String> {
        let (mut line, mut fields) = (self.line.clone(), Vec::new());
        match split(&mut line, self.delimiter, &mut fields) {
            Ok(()) => fields
                .into_iter()
                .map(|field| String::from_utf8_lossy(line[field].trim_ascii()).into_owned())
                .collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Reads the next line into `line`, without its line break.
    fn read_line(&mut self) -> io::Result<Line> {
        self.line.clear();
        let line_bytes_max = LINE_BYTES_MAX as u64 + 1;
        let taken = self.source.by_ref().take(line_bytes_max).read_until(b'\n', &mut self.line)?;
        if taken == 0 {
            return Ok(Line::End);
        }
        self.line_number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if taken > LINE_BYTES_MAX {
            self.line.clear();
            self.source.skip_until(b'\n')?;
            return Ok(Line::TooLong);
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(Line::Read)
    }

    /// The line in `line` as an access.
    fn access(&mut self) -> Result<Access, Fault> {
        split(&mut self.line, self.delimiter, &mut self.fields)?;
        let Columns { time, id, size } = self.columns;
        let time_s = match time {
            Some(column) => seconds(self.field("time", column)?)?,
            None => 0,
        };
        let size_bytes = match size {
            Some(column) => bytes(self.field("size", column)?)?,
            None => 1,
        };
        let id = match self.field("id", id)? {
            b"" => return Err(Fault::EmptyId),
            text => object_id(text),
        };
        Ok(Access::get(time_s, id, size_bytes))
    }

    /// One field of the line, without blanks around it.
    fn field(&self, field: &'static str, column: usize) -> Result<&[u8], Fault> {
        match self.fields.get(column) {
            Some(place) => Ok(self.line[place.clone()].trim_ascii()),
            None => {
                Err(Fault::MissingField { field, column: column + 1, fields: self.fields.len() })
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Access, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            let line = match self.pending.take() {
                Some(first) => Ok(first),
                None => self.read_line(),
            };
            let read = match line {
                Ok(Line::End) => return None,
                Ok(Line::Read) if self.line.trim_ascii().is_empty() => continue,
                Ok(Line::Read) => self.access(),
                Ok(Line::TooLong) => Err(Fault::LineTooLong { max_bytes: LINE_BYTES_MAX }),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error.into()));
                }
            };
            let place = Place::Line(self.line_number);
            return Some(read.map_err(|fault| TraceError::Malformed { place, fault }));
        }
    }
}

impl Columns {
    /// Looks the names of `layout` up in the header.
    fn find(layout: &Layout, names: &[String]) -> Result<Self, OpenError> {
        let place = |column: &Column| match column {
            Column::Number(number) => Ok(number - 1),
            Column::Name(name) => names.iter().position(|found| found == name).ok_or_else(|| {
                OpenError::NoSuchColumn { name: name.clone(), header: names.join(",") }
            }),
        };
        Ok(Self {
            time: layout.time.as_ref().map(place).transpose()?,
            id: place(&layout.id)?,
            size: layout.size.as_ref().map(place).transpose()?,
        })
    }

    /// Whether a column that must hold a number holds some word: then the line is a header.
    fn hold_no_number(&self, names: &[String]) -> bool {
        [self.time, self.size].into_iter().flatten().any(|column| {
            names.get(column).is_some_and(|name| name.starts_with(|c: char| c.is_alphabetic()))
        })
    }
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

/// A time's whole seconds; a fraction must be digits.
fn seconds(text: &[u8]) -> Result<u32, Fault> {
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    number(whole)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|_| fraction.iter().all(u8::is_ascii_digit))
        .ok_or_else(|| bad_number("time", text, u32::MAX.into()))
}

/// A size that fits 32 bits.
fn bytes(text: &[u8]) -> Result<u32, Fault> {
    number(text)
        .and_then(|size| u32::try_from(size).ok())
        .ok_or_else(|| bad_number("size", text, u32::MAX.into()))
}

/// Decimal digits as a number, if they are some and it fits.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The id that a text stands for: the number it is written as, else its hash.
fn object_id(text: &[u8]) -> u64 {
    let is_plain = text.len() == 1 || text[0] != b'0';
    number(text).filter(|_| is_plain).unwrap_or_else(|| xxh3_64(text))
}

/// The fault of a field that is no number up to `max`.
fn bad_number(field: &'static str, text: &[u8], max: u64) -> Fault {
    let shown = &text[..text.len().min(QUOTED_BYTES_MAX)];
    Fault::BadNumber { field, text: String::from_utf8_lossy(shown).into_owned(), max }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str, layout: &str) -> Vec<Result<Access, TraceError>> {
        Reader::new(text.as_bytes(), &layout.parse().unwrap()).unwrap().collect()
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
        let first = complaints.next().unwrap().to_string();
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
        let error = Reader::new(&b"time,obj_id\n1,2\n"[..], &layout).err().unwrap();
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
            ("1,\u{0},\u{0}", "the size is `\u{0}`, not a number from 0 to 4294967295"),
        ] {
            let text = format!("time,id,size\n\n1,2,3\n{line}\n1,2,3");
            assert_eq!(complaint(&text, DEFAULT), format!("line 4: {why}"));
            assert_eq!(items(&text, DEFAULT).len(), 3, "{line}");
        }
    }

    #[test]
    fn line_without_end_is_bounded() {
        let long = "9".repeat(3 * LINE_BYTES_MAX);
        let text = format!("{long}\n1,2,3\n{long}");
        let items = items(&text, DEFAULT);
        assert_eq!(items.len(), 3);
        assert!(
            items[0].as_ref().unwrap_err().to_string().starts_with("line 1: the line is longer")
        );
        assert!(items[1].is_ok());
        assert!(
            items[2].as_ref().unwrap_err().to_string().starts_with("line 3: the line is longer")
        );
    }

    #[test]
    fn times_keep_their_whole_seconds() {
        assert_eq!(accesses("1378822105.089572,2,3\n", DEFAULT), [(1_378_822_105, 2, 3)]);
    }

    #[test]
    fn layouts_that_cannot_be_meant_are_refused() {
        let error = |text: &str| text.parse::<Layout>().unwrap_err();
        assert_eq!(error("time=1"), LayoutError::NoId);
        assert_eq!(error("id=0"), LayoutError::ColumnZero);
        assert_eq!(error("id="), LayoutError::EmptyColumn("id".into()));
        assert_eq!(error("id=1,ttl=2"), LayoutError::UnknownKey("ttl".into()));
        assert_eq!(error("id"), LayoutError::NotAPair("id".into()));
        assert_eq!(error("id=1,delimiter=::"), LayoutError::Delimiter("::".into()));
        assert_eq!(error("id=key,header=no"), LayoutError::NamesWithoutHeader);
        assert_eq!(error("id=1,header=perhaps"), LayoutError::Header("perhaps".into()));
    }
}
