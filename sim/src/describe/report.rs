//! A description as a table for people, CSV for tools, JSON for both.
//!
//! What a log does not tell is `-` in the table, empty in CSV and null in JSON.

use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value as Json};

use super::{Figure, Value};
use crate::report::Output;

/// Writes `figures` in the form of `output`.
///
/// # Errors
///
/// What `out` answers.
pub fn write(figures: &[Figure], output: Output, out: &mut impl Write) -> io::Result<()> {
    match output {
        Output::Table => writeln!(out, "{}", table(figures).trim_fmt()),
        Output::Csv => {
            writeln!(out, "section,name,value")?;
            figures.iter().try_for_each(|figure| {
                writeln!(out, "{},{},{}", figure.section, figure.name, text(&figure.value, ""))
            })
        }
        Output::Json => writeln!(out, "{:#}", json(figures)),
    }
}

/// No text of ours needs quotes: formats are plain names, ids are digits.
fn text(value: &Value, unknown: &str) -> String {
    match value {
        Value::Count(count) => count.to_string(),
        Value::Number(number) => format!("{number:.6}"),
        Value::Text(text) => text.clone(),
        Value::Unknown => unknown.to_owned(),
    }
}

fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["section", "name", "value"]);
    let mut section = "";
    for figure in figures {
        // A section is named once.
        let name = if figure.section == section { "" } else { figure.section };
        section = figure.section;
        table.add_row([name, &figure.name, &text(&figure.value, "-")]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// An object a section, in it a field a figure.
fn json(figures: &[Figure]) -> Json {
    let mut sections = Map::new();
    for figure in figures {
        let value = match &figure.value {
            Value::Count(count) => Json::from(*count),
            Value::Number(number) => Json::from((number * 1e6).round() / 1e6),
            Value::Text(text) => Json::from(text.as_str()),
            Value::Unknown => Json::Null,
        };
        let section = sections.entry(figure.section).or_insert_with(|| Json::Object(Map::new()));
        if let Json::Object(section) = section {
            section.insert(figure.name.clone(), value);
        }
    }
    Json::Object(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(output: Output) -> String {
        let figure = |section, name: &str, value| Figure { section, name: name.into(), value };
        let figures = [
            figure("log", "format", Value::Text("csv".into())),
            figure("log", "requests", Value::Count(5)),
            figure("sizes", "mean_bytes", Value::Number(1.5)),
            figure("sizes", "max_bytes", Value::Unknown),
        ];
        let mut out = Vec::new();
        write(&figures, output, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_has_a_line_a_figure() {
        let want = "section,name,value\nlog,format,csv\nlog,requests,5\nsizes,mean_bytes,1.500000\n\
                    sizes,max_bytes,\n";
        assert_eq!(written(Output::Csv), want);
    }

    #[test]
    fn json_has_an_object_a_section() {
        let value: Json = serde_json::from_str(&written(Output::Json)).unwrap();
        assert_eq!(value["log"]["requests"], 5);
        assert_eq!(value["sizes"]["mean_bytes"], 1.5);
        assert_eq!(value["sizes"]["max_bytes"], Json::Null);
    }

    #[test]
    fn table_names_a_section_once() {
        assert_eq!(written(Output::Table).matches("sizes").count(), 1);
    }
}
