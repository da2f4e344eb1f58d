//! A suite's figures as a table: a line for each comparison.

use super::figures::{ComparedBy, Comparison, Report, Row, Verdict};
use crate::report::{self, Cell};

/// Columns of the table.
const COLUMNS: [&str; 13] = [
    "row",
    "measure",
    "against",
    "ours",
    "theirs",
    "compared",
    "low",
    "high",
    "min",
    "max",
    "noise",
    "calls",
    "calls_theirs",
];

/// What stands where there is no figure.
pub(super) const NONE: &str = "-";

/// The cells of a line, under [`COLUMNS`].
pub(super) type Line = [String; COLUMNS.len()];

/// The table of a report. `compared` is the median of the rounds: ours as a multiple of theirs, or with a
/// sign how much more; `low` and `high` are where the true median lies.
pub fn of(report: &Report) -> report::Report {
    let mut table = report::Report::new(&COLUMNS);
    for row in &report.rows {
        lines(row).into_iter().for_each(|line| table.push(line.map(Cell::Text).to_vec()));
    }
    table
}

/// A row in words, as soon as it is done: what compares with whom, and how.
pub fn in_lines(row: &Row) -> Vec<String> {
    let in_words = |[row, measure, against, ours, theirs, compared, ..]: &Line| {
        format!("{row}: {measure}: {ours}, {against} {theirs}, compared {compared}")
    };
    lines(row).iter().map(in_words).collect()
}

/// A row's lines: one for each comparison, and for whom there is none.
pub(super) fn lines(row: &Row) -> Vec<Line> {
    let mark = if row.verdict == Verdict::Noisy { "!" } else { "" };
    let noise = row.noise_share().map(|share| format!("{:.1}%{mark}", 100.0 * share));
    let without = |measure: &str, against: &str, ours: Option<String>| {
        let mut line: Line = std::array::from_fn(|_| NONE.to_owned());
        (line[0], line[1], line[2]) = (row.name.into(), measure.into(), against.into());
        line[3] = or_none(ours);
        line[10] = or_none(noise.clone());
        line
    };
    match &row.verdict {
        Verdict::TooNoisy => return vec![without("too noisy for figures", NONE, None)],
        Verdict::Failed(reason) => return vec![without(&format!("failed: {reason}"), NONE, None)],
        Verdict::Measured | Verdict::Noisy => {}
    }
    let mut lines = Vec::new();
    for (number, measure) in row.measures.iter().enumerate() {
        let value = |name: &str| {
            let values = measure.values.iter().find(|it| it.server == name)?;
            Some(amount(values.spread.median))
        };
        // System calls belong to the row, not to each of its measures.
        let calls = |name: &str| {
            let calls = row.entrant(name).filter(|_| number == 0)?.syscalls_per_request?;
            Some(format!("{calls:.2}"))
        };
        let name = format!("{}, {}", measure.name, measure.unit);
        for Comparison { server, against, rounds, spread } in &measure.comparisons {
            let told = |figure: f64| in_words(measure.compared_by, figure);
            let end = |figure: f64| Some(told(figure)).filter(|_| rounds.len() > 1);
            lines.push([
                row.name.to_owned(),
                name.clone(),
                against.clone(),
                or_none(value(server)),
                or_none(value(against)),
                told(spread.median),
                or_none(spread.interval.map(|it| told(it.low))),
                or_none(spread.interval.map(|it| told(it.high))),
                or_none(end(spread.min)),
                or_none(end(spread.max)),
                or_none(noise.clone()),
                or_none(calls(server)),
                or_none(calls(against)),
            ]);
        }
        if let ([ours], []) = (measure.values.as_slice(), measure.comparisons.as_slice()) {
            lines.push(without(&name, NONE, Some(amount(ours.spread.median))));
        }
        let absent = row.servers.iter().filter(|it| it.absent.is_some() && number == 0);
        lines.extend(absent.map(|it| without(&name, &it.server, None)));
    }
    lines
}

fn or_none(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| NONE.to_owned())
}

/// A comparison as a person writes it: `1.31`, or with a sign where it is a difference.
pub(super) fn in_words(by: ComparedBy, figure: f64) -> String {
    match by {
        ComparedBy::Ratio if figure < 9.95 => format!("{figure:.2}"),
        ComparedBy::Ratio => format!("{figure:.1}"),
        ComparedBy::Difference => format!("{figure:+.2}"),
    }
}

/// A value as a person writes it: whole from a thousand up.
fn amount(value: f64) -> String {
    if value.abs() < 1000.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Output;
    use crate::suite::html::tests::report;

    fn printed() -> String {
        let mut out = Vec::new();
        of(&report()).write(Output::Table, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_comparison_has_a_line_and_what_is_missing_a_dash() {
        let printed = printed();
        let line = |row: &str, other: &str| {
            let has = |line: &&str| line.starts_with(row) && line.contains(other);
            printed
                .lines()
                .map(str::trim_start)
                .find(has)
                .unwrap_or_else(|| panic!("{row}, {other}: {printed}"))
        };
        assert!(line("mixed ", "theirs").contains("1.50"));
        assert!(line("two-threads", "redis").contains(" - "));
        assert!(line("set-16", "too noisy").contains("31.0%"));
        assert!(line("evict", "failed: it hung up").contains(" - "));
        assert!(line("hits", "theirs").contains("+1.25"));
    }

    #[test]
    fn a_figure_that_noise_was_allowed_in_is_marked() {
        assert!(printed().contains("4.0%!"), "{}", printed());
    }
}
