//! Parquet: a request a row, in columns that the user names or whose names are usual.
//!
//! ```text
//! file:  | PAR1 | row group | row group | ... | schema and places of all columns | length | PAR1 |
//!
//! row group -> the columns wanted, 1,024 rows at a time, as text -> csv.rs, as if they were fields of a line
//! ```
//!
//! - The file's end says where its columns are, so it is read from a file and not from a pipe.
//! - A time column of a timestamp type says its unit itself. What is null is an empty field: for a TTL that is
//!   "for ever", for an id or a size a malformed row.
//! - Nested columns and decimals are refused: neither is an id, a time or a size.
//!
//! The format: <https://parquet.apache.org/docs/file-format/>.

use std::fs::File;
use std::io::{self, Write as _};

use parquet::basic::{ConvertedType, LogicalType, TimeUnit as Unit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::csv::{Csv, Layout, TimeUnit};
use super::source::Position;
use super::{Access, OpenError, Place, TraceError};

/// Rows whose columns are decoded together.
const BATCH_ROWS: usize = 1024;

/// The rows of one file.
pub(crate) struct Reader {
    file: SerializedFileReader<File>,
    layout: Layout,
    /// Reads a row whose fields have become text.
    csv: Csv,
    /// By place in the schema: what is read of it, if anything.
    columns: Vec<Option<Column>>,
    /// The row group that is read next.
    next_group: usize,
    /// Rows of the present group that are not decoded yet.
    group_rows_left: usize,
    batch_rows: usize,
    /// The row of the batch that is next.
    next_in_batch: usize,
    /// The row that is next, the first being 1.
    row: u64,
    /// Bytes of the present group, as they are stored, that a row stands for.
    bytes_per_row: u64,
    position: Position,
    file_bytes: u64,
    /// The fields of one row, one behind the other.
    line: Vec<u8>,
    is_over: bool,
}

/// One column as text, a batch at a time.
struct Column {
    kind: Kind,
    reader: Option<ColumnReader>,
    text: Vec<u8>,
    /// Where each field of the batch ends in `text`.
    ends: Vec<usize>,
}

/// How the numbers of a column are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Signed,
    Unsigned,
}

impl Reader {
    /// Reads the schema and looks the columns of `layout` up in it. The default layout stands for the names that
    /// are usual, where the schema has them.
    ///
    /// # Errors
    ///
    /// It is no Parquet file, lacks a column, or has one of a type that cannot be read.
    pub(crate) fn open(file: File, layout: &Layout, position: Position) -> Result<Self, OpenError> {
        let file_bytes = file.metadata()?.len();
        let file = SerializedFileReader::new(file)
            .map_err(|error| OpenError::NotRead(format!("its Parquet cannot be read: {error}")))?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let names: Vec<String> =
            schema.columns().iter().map(|column| column.path().string()).collect();
        let usual = (*layout == Layout::DEFAULT).then(|| Layout::of_names(&names)).flatten();
        let layout = usual.unwrap_or_else(|| layout.clone());
        let mut csv = Csv::of_columns(&layout, &names)?;
        if let Some(unit) = csv.time_place().and_then(|place| time_unit(&schema.columns()[place])) {
            csv.set_time_unit(unit);
        }
        let mut columns: Vec<Option<Column>> = names.iter().map(|_| None).collect();
        for place in csv.places() {
            let kind = kind_of(&schema.columns()[place])?;
            columns[place] =
                Some(Column { kind, reader: None, text: Vec::new(), ends: Vec::new() });
        }
        Ok(Self {
            file,
            layout,
            csv,
            columns,
            next_group: 0,
            group_rows_left: 0,
            batch_rows: 0,
            next_in_batch: 0,
            row: 1,
            bytes_per_row: 0,
            position,
            file_bytes,
            line: Vec::new(),
            is_over: false,
        })
    }

    /// Which columns are read.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Decodes the next rows; `false` when there are none.
    fn fill(&mut self) -> Result<bool, ParquetError> {
        while self.group_rows_left == 0 {
            if self.next_group == self.file.num_row_groups() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.next_group)?;
            for (place, column) in self.columns.iter_mut().enumerate() {
                if let Some(column) = column {
                    column.reader = Some(group.get_column_reader(place)?);
                }
            }
            let rows = group.metadata().num_rows();
            self.group_rows_left = usize::try_from(rows).map_err(|_| negative(rows))?;
            let bytes = u64::try_from(group.metadata().compressed_size()).unwrap_or(0);
            self.bytes_per_row = bytes / self.group_rows_left.max(1) as u64;
            self.next_group += 1;
        }
        let rows = self.group_rows_left.min(BATCH_ROWS);
        for column in self.columns.iter_mut().flatten() {
            column.fill(rows)?;
        }
        self.group_rows_left -= rows;
        (self.batch_rows, self.next_in_batch) = (rows, 0);
        self.position.advance(self.bytes_per_row * rows as u64);
        Ok(true)
    }

    /// The next row of the batch, which has one.
    fn row(&mut self) -> Result<Access, TraceError> {
        let (index, row) = (self.next_in_batch, self.row);
        self.next_in_batch += 1;
        self.row += 1;
        self.line.clear();
        let fields_of_row = || {
            self.columns.iter().map(|column| match column {
                Some(column) => column.field(index),
                None => b"",
            })
        };
        fields_of_row().for_each(|field| self.line.extend_from_slice(field));
        let mut end = 0;
        let fields = fields_of_row().map(|field| {
            let start = end;
            end += field.len();
            start..end
        });
        self.csv
            .row(&self.line, fields)
            .map_err(|fault| TraceError::Malformed { place: Place::Row(row), fault })
    }
}

impl Iterator for Reader {
    type Item = Result<Access, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        if self.next_in_batch == self.batch_rows {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => {
                    self.is_over = true;
                    self.position.finish(self.file_bytes);
                    return None;
                }
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(TraceError::Io(io::Error::other(error))));
                }
            }
        }
        Some(self.row())
    }
}

impl Column {
    /// Decodes the next `rows` rows.
    fn fill(&mut self, rows: usize) -> Result<(), ParquetError> {
        self.text.clear();
        self.ends.clear();
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let (kind, text, ends) = (self.kind, &mut self.text, &mut self.ends);
        match reader {
            ColumnReader::BoolColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| write!(text, "{value}"))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| match kind {
                    Kind::Signed => write!(text, "{value}"),
                    Kind::Unsigned => write!(text, "{}", value.cast_unsigned()),
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| match kind {
                    Kind::Signed => write!(text, "{value}"),
                    Kind::Unsigned => write!(text, "{}", value.cast_unsigned()),
                })
            }
            ColumnReader::Int96ColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| write!(text, "{}", value.to_nanos()))
            }
            ColumnReader::FloatColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| write!(text, "{value}"))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| write!(text, "{value}"))
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| text.write_all(value.data()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                read(reader, rows, text, ends, |value, text| text.write_all(value.data()))
            }
        }
    }

    fn field(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }
}

/// Reads `rows` values, of which some may be null, and appends them as text.
fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    text: &mut Vec<u8>,
    ends: &mut Vec<usize>,
    mut render: impl FnMut(&T::T, &mut Vec<u8>) -> io::Result<()>,
) -> Result<(), ParquetError> {
    while ends.len() < rows {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let wanted = rows - ends.len();
        let (found, _, _) = reader.read_records(wanted, Some(&mut levels), None, &mut values)?;
        if found == 0 {
            return Err(ParquetError::EOF(format!("a column ends {wanted} rows too soon")));
        }
        let mut values = values.iter();
        for row in 0..found {
            // A column that cannot hold null has no levels.
            let is_null = levels.get(row) == Some(&0);
            if !is_null && let Some(value) = values.next() {
                render(value, text)?;
            }
            ends.push(text.len());
        }
    }
    Ok(())
}

fn negative(rows: i64) -> ParquetError {
    ParquetError::General(format!("a row group of {rows} rows"))
}

/// How the values of a column are meant.
///
/// # Errors
///
/// They are nothing that can be read here.
fn kind_of(column: &ColumnDescriptor) -> Result<Kind, OpenError> {
    let refuse = |what: &str| {
        let name = column.path().string();
        Err(OpenError::NotRead(format!("its column `{name}` is {what}")))
    };
    if column.max_rep_level() > 0 || column.path().parts().len() > 1 {
        return refuse("nested: ids, times and sizes are expected in columns of their own");
    }
    let converted = column.converted_type();
    let logical = column.logical_type_ref();
    if converted == ConvertedType::DECIMAL || matches!(logical, Some(LogicalType::Decimal(_))) {
        return refuse("of decimals, which are not read: cast it to an integer");
    }
    let is_unsigned = matches!(
        converted,
        ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64
    );
    let is_unsigned =
        is_unsigned || matches!(logical, Some(LogicalType::Integer(int)) if !int.is_signed);
    Ok(if is_unsigned { Kind::Unsigned } else { Kind::Signed })
}

/// What a step of a column is, if its type says so.
fn time_unit(column: &ColumnDescriptor) -> Option<TimeUnit> {
    match (column.physical_type(), column.logical_type_ref(), column.converted_type()) {
        // How Spark and Impala wrote timestamps before there was a type for them.
        (Type::INT96, _, _) => Some(TimeUnit::Nanos),
        (_, Some(LogicalType::Timestamp(timestamp)), _) => Some(match timestamp.unit {
            Unit::MILLIS => TimeUnit::Millis,
            Unit::MICROS => TimeUnit::Micros,
            Unit::NANOS => TimeUnit::Nanos,
        }),
        (_, _, ConvertedType::TIMESTAMP_MILLIS) => Some(TimeUnit::Millis),
        (_, _, ConvertedType::TIMESTAMP_MICROS) => Some(TimeUnit::Micros),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::trace::{Op, Trace};

    const SCHEMA: &str = "message log {
        REQUIRED INT64 at (TIMESTAMP(MILLIS, true));
        OPTIONAL BYTE_ARRAY key (UTF8);
        REQUIRED INT32 bytes (INTEGER(32, false));
        OPTIONAL INT64 ttl;
        REQUIRED BYTE_ARRAY op (UTF8);
        REPEATED INT32 tags;
    }";

    /// A row: its second, key, size, TTL and op.
    type Row = (i64, Option<&'static str>, u32, Option<i64>, &'static str);

    /// A file with a row group for each slice of rows.
    fn file_of(groups: &[&[Row]]) -> File {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = tempfile::tempfile().unwrap();
        let copy = file.try_clone().unwrap();
        let mut writer = SerializedFileWriter::new(copy, schema, Arc::new(properties)).unwrap();
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let mut place = 0;
            while let Some(mut column) = group.next_column().unwrap() {
                let bytes = |text: &str| ByteArray::from(text.as_bytes().to_vec());
                let present = |is_there: bool| i16::from(is_there);
                match place {
                    0 => {
                        let values: Vec<i64> = rows.iter().map(|row| row.0 * 1000 + 7).collect();
                        column.typed::<Int64Type>().write_batch(&values, None, None)
                    }
                    1 => {
                        let values: Vec<_> =
                            rows.iter().filter_map(|row| row.1).map(bytes).collect();
                        let levels: Vec<_> =
                            rows.iter().map(|row| present(row.1.is_some())).collect();
                        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)
                    }
                    2 => {
                        let values: Vec<_> = rows.iter().map(|row| row.2.cast_signed()).collect();
                        column.typed::<Int32Type>().write_batch(&values, None, None)
                    }
                    3 => {
                        let values: Vec<_> = rows.iter().filter_map(|row| row.3).collect();
                        let levels: Vec<_> =
                            rows.iter().map(|row| present(row.3.is_some())).collect();
                        column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)
                    }
                    4 => {
                        let values: Vec<_> = rows.iter().map(|row| bytes(row.4)).collect();
                        column.typed::<ByteArrayType>().write_batch(&values, None, None)
                    }
                    _ => {
                        let none = vec![0; rows.len()];
                        column.typed::<Int32Type>().write_batch(&[], Some(&none), Some(&none))
                    }
                }
                .unwrap();
                column.close().unwrap();
                place += 1;
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
        file
    }

    fn open(file: File, layout: &str) -> Result<Reader, String> {
        let layout = if layout.is_empty() { Layout::DEFAULT } else { layout.parse().unwrap() };
        Reader::open(file, &layout, Position::default()).map_err(|error| error.to_string())
    }

    fn read(file: File, layout: &str) -> Vec<Result<Access, String>> {
        let items = open(file, layout).unwrap();
        items.map(|item| item.map_err(|error| error.to_string())).collect()
    }

    const LAYOUT: &str = "time=at,id=key,size=bytes,ttl=ttl,op=op";

    #[test]
    fn rows_of_all_groups_are_read_in_order() {
        let long: Vec<Row> =
            (0..2500).map(|n| (n, Some("a"), u32::try_from(n).unwrap(), None, "get")).collect();
        let read = read(file_of(&[&long[..1030], &[], &long[1030..]]), LAYOUT);
        let seconds: Vec<u32> = read.into_iter().map(|item| item.unwrap().time_s).collect();
        assert_eq!(seconds, (0..2500).collect::<Vec<u32>>());
    }

    #[test]
    fn columns_become_the_fields_of_an_access() {
        let rows: [Row; 2] = [
            (1_700_000_000, Some("42"), u32::MAX, Some(60), "SET"),
            (1_700_000_001, Some("42"), 1, None, "get"),
        ];
        let read = read(file_of(&[&rows]), LAYOUT);
        let set = Access {
            id: 42,
            time_s: 1_700_000_000,
            size_bytes: u32::MAX,
            ttl_s: 60,
            key_bytes: 2,
            op: Op::Set,
        };
        let get = Access { time_s: 1_700_000_001, size_bytes: 1, ttl_s: 0, op: Op::Get, ..set };
        assert_eq!(read, [Ok(set), Ok(get)]);
    }

    #[test]
    fn a_row_without_an_id_is_malformed_and_the_reading_goes_on() {
        let rows: [Row; 3] = [
            (1, Some("a"), 1, None, "get"),
            (2, None, 1, None, "get"),
            (3, Some("b"), 1, None, "poke"),
        ];
        let complaints: Vec<String> =
            read(file_of(&[&rows]), LAYOUT).into_iter().filter_map(Result::err).collect();
        assert_eq!(
            complaints,
            ["row 2: the id is empty", "row 3: the op is `poke`, not one of memcached's"]
        );
    }

    #[test]
    fn usual_names_need_no_layout() {
        let reader = open(file_of(&[&[(5, Some("7"), 9, None, "delete")]]), "").unwrap();
        assert_eq!(reader.layout().ttl, Some(super::super::csv::Column::Name("ttl".into())));
        let access = reader.last().unwrap().unwrap();
        assert_eq!((access.id, access.size_bytes, access.op), (7, 9, Op::Delete));
    }

    #[test]
    fn columns_that_cannot_be_meant_are_refused() {
        let refusal = |layout: &str| open(file_of(&[&[]]), layout).err().unwrap();
        assert_eq!(
            refusal("id=url"),
            "no column is named `url`, the header has: at,key,bytes,ttl,op,tags"
        );
        assert_eq!(
            refusal("id=9"),
            "no column is named `9`, the header has: at,key,bytes,ttl,op,tags"
        );
        assert!(refusal("id=tags").contains("`tags` is nested"), "{}", refusal("id=tags"));
    }

    #[test]
    fn a_file_is_known_by_its_first_bytes_and_refused_when_cut_short() {
        let whole = tempfile::NamedTempFile::new().unwrap();
        let mut file = file_of(&[&[(5, Some("7"), 9, None, "get")]]);
        io::Seek::rewind(&mut file).unwrap();
        io::copy(&mut file, &mut whole.as_file()).unwrap();
        let trace = Trace::open(whole.path(), &crate::trace::Format::Guess).unwrap();
        let (position, bytes) = (trace.position(), whole.as_file().metadata().unwrap().len());
        assert_eq!(trace.count(), 1);
        assert_eq!(position.bytes(), bytes);
        whole.as_file().set_len(bytes - 3).unwrap();
        let error = Trace::open(whole.path(), &crate::trace::Format::Guess).err().unwrap();
        assert!(error.to_string().contains("its Parquet cannot be read"), "{error}");
    }
}
