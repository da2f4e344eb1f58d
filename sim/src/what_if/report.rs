//! An `Answer` as a table with what it rests on, as CSV, or as JSON.
//!
//! Ratios have six decimals; where there was nothing to take a figure of, the field is empty (JSON: null).

use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table as Drawing};
use serde_json::{Map, Value, json};

use super::{Answer, Cell, Table};
use crate::report::Output;

/// Writes `answer` in the form of `output`.
///
/// # Errors
///
/// What `out` answers.
pub fn write(answer: &Answer, output: Output, out: &mut impl Write) -> io::Result<()> {
    let shown = match &answer.course {
        Some(course) if answer.shows_course => course,
        _ => &answer.summary,
    };
    match output {
        Output::Table => {
            writeln!(out, "{}", drawn(shown).trim_fmt())?;
            answer.assumptions.iter().try_for_each(|line| writeln!(out, "- {line}"))
        }
        Output::Csv => {
            writeln!(out, "{}", shown.columns.join(","))?;
            let line = |row: &Vec<Cell>| row.iter().map(written).collect::<Vec<_>>().join(",");
            shown.rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))
        }
        Output::Json => writeln!(out, "{:#}", json(answer)),
    }
}

/// No name of ours needs quotes.
fn written(cell: &Cell) -> String {
    match cell {
        Cell::Name(name) => name.clone(),
        Cell::Count(count) => count.to_string(),
        Cell::Difference(difference) => difference.to_string(),
        Cell::Ratio(ratio) => format!("{ratio:.6}"),
        Cell::None => String::new(),
    }
}

fn drawn(table: &Table) -> Drawing {
    let mut drawing = Drawing::new();
    drawing.load_style(UTF8_FULL_CONDENSED).set_header(table.columns);
    drawing.add_rows(table.rows.iter().map(|row| row.iter().map(written).collect::<Vec<_>>()));
    for column in drawing.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    drawing
}

fn json(answer: &Answer) -> Value {
    let value = |cell: &Cell| match cell {
        Cell::Name(name) => json!(name),
        Cell::Count(count) => json!(count),
        Cell::Difference(difference) => json!(difference),
        Cell::Ratio(ratio) => json!((ratio * 1e6).round() / 1e6),
        Cell::None => Value::Null,
    };
    let rows = |table: &Table| -> Vec<Value> {
        let row = |row: &Vec<Cell>| {
            let fields = table.columns.iter().zip(row);
            let fields = fields.map(|(name, cell)| ((*name).to_owned(), value(cell)));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        table.rows.iter().map(row).collect()
    };
    let (log, found) = (&answer.log, &answer.log.found);
    let mut value = json!({
        "what_if": answer.question,
        "trace": log.trace,
        "format": log.format,
        "unit": log.unit,
        "requests": found.requests,
        "reads": found.reads,
        "writes": found.writes,
        "lost": found.notes.lost,
        "malformed": found.malformed,
        "readings": log.readings,
        "assumptions": answer.assumptions,
        "results": rows(&answer.summary),
    });
    if let Some(course) = &answer.course {
        value["over_time"] = json!(rows(course));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Found, Report};

    fn answer(shows_course: bool) -> Answer {
        let cells =
            vec![Cell::name("lru"), Cell::Count(7), Cell::Difference(-1), Cell::Ratio(1.0 / 3.0)];
        let summary = Table { columns: &["policy", "size", "extra", "share"], rows: vec![cells] };
        let course = Table { columns: &["after_s"], rows: vec![vec![Cell::None]] };
        Answer {
            question: "restart",
            log: Report {
                trace: "a.csv".into(),
                format: "csv",
                unit: "objects",
                found: Found::default(),
                readings: 1,
                rows: Vec::new(),
            },
            assumptions: &["Nothing is assumed."],
            summary,
            course: Some(course),
            shows_course,
        }
    }

    fn text(answer: &Answer, output: Output) -> String {
        let mut out = Vec::new();
        write(answer, output, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_is_the_summary_or_the_course() {
        assert_eq!(
            text(&answer(false), Output::Csv),
            "policy,size,extra,share\nlru,7,-1,0.333333\n"
        );
        assert_eq!(text(&answer(true), Output::Csv), "after_s\n\n");
    }

    #[test]
    fn json_holds_all_of_it() {
        let value: Value = serde_json::from_str(&text(&answer(false), Output::Json)).unwrap();
        assert_eq!(value["results"][0]["share"].to_string(), "0.333333");
        assert_eq!(value["results"][0]["extra"], -1);
        assert_eq!(value["over_time"][0]["after_s"], Value::Null);
        assert_eq!(value["assumptions"][0], "Nothing is assumed.");
    }

    #[test]
    fn table_says_what_it_rests_on() {
        let table = text(&answer(false), Output::Table);
        assert!(table.contains("0.333333"), "{table}");
        assert!(table.ends_with("- Nothing is assumed.\n"), "{table}");
    }
}
