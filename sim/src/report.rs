//! A `Report` as a table for people, CSV for tools, JSON for both.
//!
//! Ratios have six decimals everywhere; where a trace held nothing to take a ratio of, the field is
//! empty (JSON: null).

use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use crate::run::{Report, Row};

/// The columns of table and CSV, and the fields of JSON's results.
const COLUMNS: [&str; 6] =
    ["policy", "cache_size", "requests", "hits", "miss_ratio", "byte_miss_ratio"];

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// A header and a line a row.
    Csv,
    /// One object.
    Json,
}

/// Writes `report` in the form of `output`.
///
/// # Errors
///
/// What `out` answers.
pub fn write(report: &Report, output: Output, out: &mut impl Write) -> io::Result<()> {
    match output {
        Output::Table => writeln!(out, "{}", table(report).trim_fmt()),
        Output::Csv => csv(report, out),
        Output::Json => writeln!(out, "{:#}", json(report)),
    }
}

/// A row's fields in the order of [`COLUMNS`].
fn fields(row: &Row) -> [String; 6] {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.6}"));
    [
        row.policy.to_string(),
        row.cache_size.to_string(),
        row.tally.requests.to_string(),
        row.tally.hits.to_string(),
        ratio(row.tally.miss_ratio()),
        ratio(row.tally.byte_miss_ratio()),
    ]
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(COLUMNS);
    table.add_rows(report.rows.iter().map(fields));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// No field of ours needs quotes: policies are plain names, the rest are numbers.
fn csv(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))?;
    report.rows.iter().try_for_each(|row| writeln!(out, "{}", fields(row).join(",")))
}

fn json(report: &Report) -> Value {
    let results: Vec<Value> = report
        .rows
        .iter()
        .map(|row| {
            json!({
                "policy": row.policy.name(),
                "cache_size": row.cache_size,
                "requests": row.tally.requests,
                "hits": row.tally.hits,
                "miss_ratio": row.tally.miss_ratio().map(six_decimals),
                "byte_miss_ratio": row.tally.byte_miss_ratio().map(six_decimals),
            })
        })
        .collect();
    json!({
        "trace": report.trace,
        "format": report.format,
        "unit": report.unit,
        "requests": report.found.requests,
        "reads": report.found.reads,
        "writes": report.found.writes,
        "lost": report.found.notes.lost,
        "passed_over": report.found.notes.passed_over,
        "malformed": report.found.malformed,
        "empty_dropped": report.found.empty_dropped,
        "readings": report.readings,
        "results": results,
    })
}

/// The nearest number with six decimals.
fn six_decimals(ratio: f64) -> f64 {
    (ratio * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use eviction::Kind;

    use super::*;
    use crate::replay::Tally;
    use crate::run::Found;

    fn report(tally: Tally) -> Report {
        Report {
            trace: "a.csv".into(),
            format: "csv",
            unit: "objects",
            found: Found {
                requests: tally.requests,
                malformed: 2,
                empty_dropped: 1,
                ..Found::default()
            },
            readings: 1,
            rows: vec![Row { policy: Kind::S3Fifo.into(), cache_size: 489, tally }],
        }
    }

    fn written(output: Output, tally: Tally) -> String {
        let mut out = Vec::new();
        write(&report(tally), output, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const THIRD: Tally = Tally { requests: 3, hits: 1, bytes: 6, hit_bytes: 1 };

    #[test]
    fn csv_has_a_header_and_ratios_of_six_decimals() {
        let header = "policy,cache_size,requests,hits,miss_ratio,byte_miss_ratio\n";
        assert_eq!(
            written(Output::Csv, THIRD),
            format!("{header}s3fifo,489,3,1,0.666667,0.833333\n")
        );
        assert_eq!(written(Output::Csv, Tally::default()), format!("{header}s3fifo,489,0,0,,\n"));
    }

    #[test]
    fn json_says_what_was_left_out() {
        let value: Value = serde_json::from_str(&written(Output::Json, THIRD)).unwrap();
        assert_eq!(value["malformed"], 2);
        assert_eq!(value["empty_dropped"], 1);
        assert_eq!(value["results"][0]["policy"], "s3fifo");
        assert_eq!(value["results"][0]["miss_ratio"].to_string(), "0.666667");
        let value: Value = serde_json::from_str(&written(Output::Json, Tally::default())).unwrap();
        assert_eq!(value["results"][0]["miss_ratio"], Value::Null);
    }

    #[test]
    fn table_lines_up_its_columns() {
        let table = written(Output::Table, THIRD);
        let widths: Vec<usize> = table
            .lines()
            .filter(|line| line.contains("489") || line.contains("policy"))
            .map(|line| line.chars().count())
            .collect();
        assert_eq!(widths.len(), 2, "{table}");
        assert_eq!(widths[0], widths[1], "{table}");
    }
}
