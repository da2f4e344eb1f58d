//! Answers for people and for programs.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

/// A table under `columns`.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(columns);
    table
}

/// Writes what a node said, as it said it.
///
/// # Errors
///
/// When it cannot be written.
pub fn json(mut out: impl Write, said: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, said)?;
    writeln!(out)
}

/// Node ids in a row, or a dash for none.
pub fn ids(nodes: impl IntoIterator<Item = u32>) -> String {
    let ids: Vec<_> = nodes.into_iter().map(|node| node.to_string()).collect();
    if ids.is_empty() { "-".to_owned() } else { ids.join(",") }
}

/// A text, or a dash where there is none.
pub fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A time in milliseconds, as a person says it.
pub fn seconds(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

/// Writes `table` without the spaces that begin and end all its lines.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_table(mut out: impl Write, table: &Table) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end())?;
    }
    Ok(())
}
