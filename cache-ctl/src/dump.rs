//! `cache-ctl dump`: items as text, of a server or of a backup.
//!
//! ```text
//! {"cas":1,"expires_unix_ms":null,"flags":0,"key":"k","key_encoding":"utf8","stale":false, ...}
//! ```
//!
//! One line an item. A key or value that is UTF-8 stands as it is, any other in base64; a field
//! beside it says which.

use std::io::{self, Read, Write};

use clap::ValueEnum;
use indicatif::ProgressBar;
use protocol::backup::{Cursor, Item};
use protocol::meta::base64;

use crate::backup_file::BackupReader;
use crate::connection::Connection;

/// How items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values, after a line with their names.
    Csv,
}

/// The names of what is told of an item, in the order of the columns.
const COLUMNS: [&str; 8] =
    ["key", "key_encoding", "flags", "cas", "expires_unix_ms", "stale", "value", "value_encoding"];

/// Writes the items of a server whose keys begin with `prefix`.
///
/// # Errors
///
/// When the server or `out` fails.
pub fn dump_server(
    server: &mut Connection,
    prefix: &[u8],
    format: Format,
    out: impl Write,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let facts = server.facts()?;
    if prefix.is_empty() {
        bar.set_length(facts.items);
    }
    let mut writer = Writer::begin(format, out)?;
    let mut cursor = Cursor::default();
    while let Some((next, items)) = server.slice(cursor, prefix)? {
        bar.inc(items.len() as u64);
        items.into_iter().try_for_each(|item| writer.write(&item))?;
        cursor = next;
    }
    Ok(writer.end()?)
}

/// Writes the items of a backup whose keys begin with `prefix`.
///
/// # Errors
///
/// When the backup is damaged, or `out` fails.
pub fn dump_file(
    input: impl Read,
    prefix: &[u8],
    format: Format,
    out: impl Write,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut file = BackupReader::open(bar.wrap_read(input))?;
    let mut writer = Writer::begin(format, out)?;
    while let Some(items) = file.next_block()? {
        for item in items.filter(|item| item.head.key.as_bytes().starts_with(prefix)) {
            writer.write(&item)?;
        }
    }
    Ok(writer.end()?)
}

/// Writes items in one of the formats.
enum Writer<W: Write> {
    Jsonl(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Writer<W> {
    fn begin(format: Format, out: W) -> io::Result<Self> {
        match format {
            Format::Jsonl => Ok(Self::Jsonl(out)),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(COLUMNS).map_err(io_error)?;
                Ok(Self::Csv(Box::new(writer)))
            }
        }
    }

    fn write(&mut self, item: &Item<'_>) -> io::Result<()> {
        let head = &item.head;
        let (key, key_encoding) = text_of(head.key.as_bytes());
        let (value, value_encoding) = text_of(item.value);
        match self {
            Self::Jsonl(out) => {
                let line = serde_json::json!({
                    "key": key,
                    "key_encoding": key_encoding,
                    "flags": head.client_flags,
                    "cas": head.cas,
                    "expires_unix_ms": head.deadline_unix_ms,
                    "stale": head.stale,
                    "value": value,
                    "value_encoding": value_encoding,
                });
                writeln!(out, "{line}")
            }
            Self::Csv(out) => {
                let (flags, cas) = (head.client_flags.to_string(), head.cas.to_string());
                let expires = head.deadline_unix_ms.map(|at| at.to_string()).unwrap_or_default();
                let stale = if head.stale { "true" } else { "false" };
                let record =
                    [&key, key_encoding, &flags, &cas, &expires, stale, &value, value_encoding];
                out.write_record(record).map_err(io_error)
            }
        }
    }

    fn end(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut out) => out.flush(),
            Self::Csv(mut out) => out.flush(),
        }
    }
}

/// Bytes as text, and how.
fn text_of(bytes: &[u8]) -> (String, &'static str) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), "utf8"),
        Err(_) => {
            let mut written = Vec::new();
            base64::encode(bytes, &mut written);
            (String::from_utf8_lossy(&written).into_owned(), "base64")
        }
    }
}

fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Key;
    use protocol::backup::ItemHead;

    use super::*;

    fn dumped(format: Format, key: &[u8], value: &[u8]) -> String {
        let head = ItemHead {
            key: Key::new(key).unwrap(),
            client_flags: 7,
            cas: u64::MAX,
            deadline_unix_ms: Some(1_800_000_000_123),
            stale: true,
        };
        let mut out = Vec::new();
        let mut writer = Writer::begin(format, &mut out).unwrap();
        writer.write(&Item { head, value }).unwrap();
        writer.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_stands_as_it_is_and_other_bytes_in_base64() {
        let line = dumped(Format::Jsonl, b"k", "a \"quoted\"\nl\u{ed}ne".as_bytes());
        let item: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(item["value"], "a \"quoted\"\nl\u{ed}ne");
        assert_eq!((&item["value_encoding"], &item["cas"]), (&"utf8".into(), &u64::MAX.into()));
        assert_eq!(line.lines().count(), 1, "one line an item");
        let item: serde_json::Value =
            serde_json::from_str(&dumped(Format::Jsonl, b"\xff", b"\xfe\xfd")).unwrap();
        assert_eq!((&item["key"], &item["key_encoding"]), (&"/w==".into(), &"base64".into()));
        assert_eq!((&item["value"], &item["value_encoding"]), (&"/v0=".into(), &"base64".into()));
    }

    #[test]
    fn csv_has_its_names_first() {
        assert_eq!(
            dumped(Format::Csv, b"k", b"a,b"),
            "key,key_encoding,flags,cas,expires_unix_ms,stale,value,value_encoding\n\
             k,utf8,7,18446744073709551615,1800000000123,true,\"a,b\",utf8\n"
        );
    }
}
