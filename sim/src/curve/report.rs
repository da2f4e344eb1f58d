//! A `CurveReport` as a table, CSV or JSON, with the band beside each miss ratio.

use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::Point;
use super::run::{Curve, CurveReport};
use crate::report::Output;

/// The columns of table and CSV.
const COLUMNS: [&str; 7] = [
    "policy",
    "cache_size",
    "requests",
    "miss_ratio",
    "miss_ratio_low",
    "miss_ratio_high",
    "byte_miss_ratio",
];

/// Writes `report` in the form of `output`.
///
/// # Errors
///
/// What `out` answers.
pub fn write(report: &CurveReport, output: Output, out: &mut impl Write) -> io::Result<()> {
    match output {
        Output::Table => writeln!(out, "{}", table(report).trim_fmt()),
        Output::Csv => {
            writeln!(out, "{}", COLUMNS.join(","))?;
            rows(report).try_for_each(|row| writeln!(out, "{}", row.join(",")))
        }
        Output::Json => writeln!(out, "{:#}", json(report)),
    }
}

fn rows(report: &CurveReport) -> impl Iterator<Item = [String; 7]> {
    let requests = report.map.requests();
    report.curves.iter().flat_map(move |Curve { policy, points }| {
        points.iter().map(move |point| {
            let (low, high) = point.band();
            let ratio = |ratio: f64| format!("{ratio:.6}");
            [
                policy.to_string(),
                point.cache_size.to_string(),
                requests.to_string(),
                ratio(point.miss_ratio),
                ratio(low),
                ratio(high),
                ratio(point.byte_miss_ratio),
            ]
        })
    })
}

fn table(report: &CurveReport) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(COLUMNS);
    table.add_rows(rows(report));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn json(report: &CurveReport) -> Value {
    let point = |point: &Point| {
        let (low, high) = point.band();
        json!({
            "cache_size": point.cache_size,
            "miss_ratio": point.miss_ratio,
            "miss_ratio_low": low,
            "miss_ratio_high": high,
            "byte_miss_ratio": point.byte_miss_ratio,
        })
    };
    let curve = |Curve { policy, points }: &Curve| json!({ "policy": policy.name(), "points": points.iter().map(point).collect::<Vec<_>>() });
    json!({
        "trace": report.trace,
        "format": report.format,
        "unit": report.map.unit.name(),
        "requests": report.map.requests(),
        "objects": report.map.objects(),
        "weight": report.map.weight(),
        "sampled": report.map.rate(),
        "parts_missing": report.map.parts_missing(),
        "malformed": report.found.malformed,
        "readings": report.readings,
        "curves": report.curves.iter().map(curve).collect::<Vec<_>>(),
    })
}
