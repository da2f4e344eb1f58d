//! What a person sees on standard error while a run goes on: progress, complaints, a summary.
//!
//! The progress bar shows on a terminal only; complaints and summary are plain lines everywhere.

use std::io::{self, Write};
use std::path::Path;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::capture::Recorded;
use crate::curve::run::CurveReport;
use crate::run::{Observer, Report};
use crate::sizing::run::Advice;
use crate::trace::{Notes, TraceError};

/// Malformed records that are told one by one; of more of them only the number is of use.
const COMPLAINTS_MAX: u64 = 20;

/// Tells a run's course on standard error.
#[derive(Debug)]
pub struct Console {
    trace: String,
    bar: ProgressBar,
    complaints: u64,
}

impl Console {
    /// A console for the run over `trace`, as the user named it.
    pub fn new(trace: String) -> Self {
        Self { trace, bar: ProgressBar::hidden(), complaints: 0 }
    }

    /// What was read, and what was left out of it.
    ///
    /// # Errors
    ///
    /// What standard error answers.
    pub fn summarise(&self, report: &Report) -> io::Result<()> {
        writeln!(io::stderr(), "{}", summary(report))
    }
}

impl Console {
    /// What a curve rests on.
    ///
    /// # Errors
    ///
    /// What standard error answers.
    pub fn summarise_curve(&self, report: &CurveReport) -> io::Result<()> {
        writeln!(io::stderr(), "{}", curve_summary(report))
    }
}

impl Console {
    /// What an advice rests on, and where its picture is.
    ///
    /// # Errors
    ///
    /// What standard error answers.
    pub fn summarise_advice(&self, advice: &Advice, picture: Option<&Path>) -> io::Result<()> {
        writeln!(io::stderr(), "{}", advice_summary(advice))?;
        match picture {
            Some(path) => writeln!(io::stderr(), "the picture is in {}", path.display()),
            None => Ok(()),
        }
    }

    /// How far a recording is.
    pub fn recorded(&self, recorded: &Recorded) {
        let Recorded { requests, skipped, packed_bytes, .. } = *recorded;
        let lost = if skipped > 0 { format!(", {skipped} lines skipped") } else { String::new() };
        let packed = HumanBytes(packed_bytes);
        self.bar.set_message(format!("capture: {requests} requests, {packed}{lost}"));
        self.bar.tick();
    }

    /// What was recorded, and what was lost of it.
    ///
    /// # Errors
    ///
    /// What standard error answers.
    pub fn summarise_capture(&self, recorded: &Recorded, file: &Path) -> io::Result<()> {
        writeln!(io::stderr(), "{}: {}", self.trace, capture_summary(recorded, file))
    }
}

impl Observer for Console {
    fn begin(&mut self, what: &'static str, end: Option<u64>) {
        self.bar.finish_and_clear();
        // Without a terminal on standard error it draws nothing.
        self.bar = match end {
            Some(end) => ProgressBar::new(end).with_style(bar_style()),
            None => ProgressBar::new_spinner(),
        };
        self.bar.set_message(what);
    }

    fn advance(&mut self, at: u64) {
        self.bar.set_position(at);
    }

    fn malformed(&mut self, error: &TraceError) {
        self.complaints += 1;
        let line = match self.complaints {
            ..=COMPLAINTS_MAX => format!("{}: {error}", self.trace),
            n if n == COMPLAINTS_MAX + 1 => {
                format!("{}: further malformed records are counted only", self.trace)
            }
            _ => return,
        };
        // Standard error being closed is no reason to stop.
        let _unheard = self.bar.suspend(|| writeln!(io::stderr(), "{line}"));
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar_style() -> ProgressStyle {
    // The template is a constant; a typo in it shows as the default style.
    ProgressStyle::with_template("{msg:8} {bar:40} {percent:>3}%  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line on what the figures rest on.
fn summary(report: &Report) -> String {
    let found = report.found;
    let mut line = format!("{}: {} requests", report.trace, found.requests);
    if found.reads < found.requests {
        let others = found.requests - found.reads - found.writes;
        line += &format!(" ({} reads, {} writes, {others} others)", found.reads, found.writes);
    }
    let Notes { lost, passed_over } = found.notes;
    if lost > 0 {
        let share = 100.0 * lost as f64 / (lost + found.requests) as f64;
        line += &format!(", {lost} more lost by the log itself ({share:.2}% of all)");
    }
    if passed_over > 0 {
        line += &format!(", {passed_over} records passed over that ask no cache for anything");
    }
    if found.malformed > 0 {
        line += &format!(", {} malformed left out", found.malformed);
    }
    if found.empty_dropped > 0 {
        line += &format!(", {} of size 0 left out", found.empty_dropped);
    }
    line += match report.readings {
        1 => ", read once",
        _ => ", read twice: once to survey it, once to replay",
    };
    line
}

/// One line on what an advice rests on.
fn advice_summary(advice: &Advice) -> String {
    let scouted = &advice.scouted;
    let mut line =
        format!("{}: {} reads of {} objects", advice.trace, scouted.reads, scouted.objects);
    if advice.found.malformed > 0 {
        line += &format!(", {} malformed left out", advice.found.malformed);
    }
    let times =
        if advice.readings == 1 { "once".into() } else { format!("{} times", advice.readings) };
    line + &format!(
        ", read {times}, {} caches played",
        advice.curves.len() + advice.confirmed.len()
    )
}

/// One line on what a curve rests on.
fn curve_summary(report: &CurveReport) -> String {
    let map = &report.map;
    let mut line =
        format!("{}: {} reads of {} objects", report.trace, map.requests(), map.objects());
    if report.found.malformed > 0 {
        line += &format!(", {} malformed left out", report.found.malformed);
    }
    if map.rate() < 1.0 {
        line += &format!(", {:.3}% of the objects looked at", map.rate() * 100.0);
    }
    match map.parts_missing() {
        0 => {}
        missing => line += &format!(", {missing} parts of the log are not in it"),
    }
    line
}

/// One line on what was recorded.
fn capture_summary(recorded: &Recorded, file: &Path) -> String {
    let Recorded { requests, lines, skipped, packed_bytes, time } = *recorded;
    let mut line = format!(
        "{requests} requests in {:.1} s, {packed_bytes} bytes in {}",
        time.as_secs_f64(),
        file.display()
    );
    if skipped > 0 {
        let share = 100.0 * skipped as f64 / (skipped + lines) as f64;
        line += &format!("; the server left out {skipped} more lines ({share:.2}% of all)");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Found;

    fn report(found: Found, readings: u32) -> Report {
        let (trace, format, unit) = ("a.csv".into(), "csv", "objects");
        Report { trace, format, unit, found, readings, rows: Vec::new() }
    }

    #[test]
    fn summary_tells_what_is_missing_from_the_figures() {
        let found =
            Found { requests: 5, reads: 5, malformed: 2, empty_dropped: 3, ..Found::default() };
        assert_eq!(
            summary(&report(found, 1)),
            "a.csv: 5 requests, 2 malformed left out, 3 of size 0 left out, read once"
        );
    }

    #[test]
    fn summary_of_a_recording_tells_what_the_server_left_out() {
        let time = std::time::Duration::from_millis(1_500);
        let recorded = Recorded { requests: 70, lines: 75, skipped: 25, packed_bytes: 900, time };
        assert_eq!(
            capture_summary(&recorded, Path::new("a.zst")),
            "70 requests in 1.5 s, 900 bytes in a.zst; the server left out 25 more lines (25.00% \
             of all)"
        );
        let recorded = Recorded { skipped: 0, ..recorded };
        assert!(capture_summary(&recorded, Path::new("a.zst")).ends_with("900 bytes in a.zst"));
    }

    #[test]
    fn summary_tells_ops_and_losses() {
        let notes = Notes { lost: 5, passed_over: 7 };
        let found = Found { requests: 95, reads: 50, writes: 40, notes, ..Found::default() };
        assert_eq!(
            summary(&report(found, 1)),
            "a.csv: 95 requests (50 reads, 40 writes, 5 others), 5 more lost by the log itself \
             (5.00% of all), 7 records passed over that ask no cache for anything, read once"
        );
    }

    #[test]
    fn summary_of_a_clean_trace_is_short() {
        let found = Found { requests: 5, reads: 5, ..Found::default() };
        assert_eq!(summary(&report(found, 1)), "a.csv: 5 requests, read once");
        assert!(summary(&report(found, 2)).contains("read twice"));
    }
}
