//! Results for people (table) and for programs (csv, json), all from the same cells.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Aligned columns, for people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// An array of objects, one per row.
    Json,
}

/// One result.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A name.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A number that is printed with so many decimals.
    Real(f64, usize),
    /// Not measured: an empty field, or null.
    Absent,
}

impl Cell {
    /// A number that may not have been measured, with so many decimals.
    pub fn real(value: Option<f64>, decimals: usize) -> Self {
        value.map_or(Self::Absent, |value| Self::Real(value, decimals))
    }

    /// A count that may not have been measured.
    pub fn count(value: Option<u64>) -> Self {
        value.map_or(Self::Absent, Self::Count)
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Real(value, decimals) => format!("{value:.decimals$}"),
            Self::Absent => String::new(),
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Count(count) => (*count).into(),
            // Rounded as everywhere else, so that the three forms of one report agree.
            Self::Real(..) => {
                self.text().parse::<f64>().map_or(serde_json::Value::Null, Into::into)
            }
            Self::Absent => ().into(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

/// Results under the names of their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Report {
    /// A report without rows.
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A report of one row, column by column.
    pub fn of_one(cells: Vec<(&'static str, Cell)>) -> Self {
        let (columns, row) = cells.into_iter().unzip();
        Self { columns, rows: vec![row] }
    }

    /// Adds a row, a cell for each column.
    pub fn push(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.columns.len(), "every column has its cell");
        self.rows.push(row);
    }

    /// Writes everything in the form asked for; a report of one row is a table of names and values,
    /// since it would be too wide otherwise.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write(&self, output: Output, out: &mut impl Write) -> io::Result<()> {
        match output {
            Output::Table => self.write_table(out),
            Output::Csv => self.write_csv(out),
            Output::Json => self.write_json(out),
        }
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(NOTHING);
        if let [row] = self.rows.as_slice() {
            for (name, cell) in self.columns.iter().zip(row) {
                if *cell != Cell::Absent {
                    table.add_row(vec![(*name).to_owned(), cell.text()]);
                }
            }
        } else {
            table.set_header(&self.columns);
            for row in &self.rows {
                table.add_row(row.iter().map(Cell::text));
            }
            for (index, column) in table.column_iter_mut().enumerate() {
                if self.rows.iter().all(|row| !matches!(row[index], Cell::Text(_))) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn write_csv(&self, out: &mut impl Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(&self.columns)?;
        for row in &self.rows {
            csv.write_record(row.iter().map(Cell::text))?;
        }
        csv.flush()
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let objects: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|row| {
                let named = self.columns.iter().map(|&name| name.to_owned());
                named.zip(row.iter().map(Cell::json)).collect::<serde_json::Map<_, _>>().into()
            })
            .collect();
        serde_json::to_writer_pretty(&mut *out, &objects)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(report: &Report, output: Output) -> String {
        let mut out = Vec::new();
        report.write(output, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn two_rows() -> Report {
        let mut report = Report::new(&["server", "hits", "ratio"]);
        report.push(vec!["ours, new".into(), 12_u64.into(), Cell::Real(0.25, 4)]);
        report.push(vec!["theirs".into(), 3_u64.into(), Cell::Absent]);
        report
    }

    #[test]
    fn csv_quotes_what_needs_it_and_leaves_the_unmeasured_empty() {
        let csv = "server,hits,ratio\n\"ours, new\",12,0.2500\ntheirs,3,\n";
        assert_eq!(written(&two_rows(), Output::Csv), csv);
    }

    #[test]
    fn json_keeps_numbers_as_numbers() {
        let json: serde_json::Value =
            serde_json::from_str(&written(&two_rows(), Output::Json)).unwrap();
        assert_eq!(json[0]["hits"], 12);
        assert_eq!(json[0]["ratio"], 0.25);
        assert_eq!(json[1]["ratio"], serde_json::Value::Null);
    }

    #[test]
    fn a_table_aligns_its_columns() {
        let table = written(&two_rows(), Output::Table);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[0].contains("server") && lines[1].contains("0.2500"));
        assert_eq!(lines[1].find("12").map(|at| at + 1), lines[2].find('3'), "{table}");
    }

    #[test]
    fn one_row_is_a_table_of_names_and_values_without_the_unmeasured() {
        let report = Report::of_one(vec![("hits", 12_u64.into()), ("ratio", Cell::Absent)]);
        let table = written(&report, Output::Table);
        assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["hits", "12"]);
    }
}
