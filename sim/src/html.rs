//! A report to send to a colleague: one HTML file that asks nothing of the network.
//!
//! The picture, the figures behind it, what they rest on, and the command that made it. What every page is
//! made of stands here, and the page of a curve; that of an advice is `sizing/page.rs`.

use std::fmt::{self, Write};
use std::path::Path;

use crate::curve::run::CurveReport;
use crate::plot::{self, amount, escaped};

/// What a page needs beyond the pictures' style.
const PAGE_STYLE: &str = "\
:root{--ground:#ffffff;--raised:#f3f6f9;--ink:#1c2430;--faint:#5b6675;--rule:#dfe4ea;--good:#00724f}\
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--raised:#1a2028;--ink:#e6eaf0;\
--faint:#9aa6b5;--rule:#2b333e;--good:#2ec49a}}\
*{box-sizing:border-box}\
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:900px;\
margin:0 auto;padding:1.2rem 1rem 3rem;overflow-wrap:anywhere}\
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 1rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}\
svg{width:100%;height:auto;display:block}figure{margin:1.8rem 0}\
figcaption{font-weight:600;margin-bottom:.4rem}.narrow{display:none}\
@media(max-width:600px){.wide{display:none}.narrow{display:block}}\
.answer{background:var(--raised);border:1px solid var(--rule);border-left:4px solid var(--good);\
border-radius:6px;padding:1rem 1.2rem}.answer.none{border-left-color:#d55e00}\
.answer p{margin:.3rem 0}.answer .big{font-size:1.6rem;font-weight:650;line-height:1.25}\
dl{display:grid;grid-template-columns:8.5rem 1fr;gap:.45rem 1rem;margin:1.2rem 0}\
dt{color:var(--faint)}dd{margin:0}\
@media(max-width:600px){dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.6rem}}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.2rem .9rem .2rem 0;text-align:right;border-bottom:1px solid var(--rule);\
white-space:nowrap}td:first-child,th:first-child{text-align:left}tr.chosen td{font-weight:650}\
code,pre{font:14px/1.5 ui-monospace,monospace}\
pre{white-space:pre-wrap;background:var(--raised);border:1px solid var(--rule);border-radius:6px;\
padding:.6rem .8rem;margin:.6rem 0}.answer pre{background:var(--ground)}\
details{margin-top:1rem}summary{cursor:pointer}li{margin:.25rem 0}";

/// Writes what stands before a page's content; `title` is its heading too.
///
/// # Errors
///
/// What `out` answers.
pub fn open(title: &str, out: &mut String) -> fmt::Result {
    let title = escaped(title);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
         <style>{}{PAGE_STYLE}</style></head><body><h1>{title}</h1>",
        plot::style()
    )
}

/// Writes a heading and a list below it.
///
/// # Errors
///
/// What `out` answers.
pub fn list(heading: &str, lines: &[String], out: &mut String) -> fmt::Result {
    write!(out, "<h2>{}</h2><ul>", escaped(heading))?;
    lines.iter().try_for_each(|line| write!(out, "<li>{}</li>", escaped(line)))?;
    write!(out, "</ul>")
}

/// Writes the command that made a page, and the page's end.
///
/// # Errors
///
/// What `out` answers.
pub fn close(command: &str, out: &mut String) -> fmt::Result {
    writeln!(out, "<h2>Made by</h2><pre>{}</pre></body></html>", escaped(command))
}

/// A log's name without its folders, which are nobody else's matter; the command has them.
pub(crate) fn name_of(trace: &str) -> &str {
    let name = Path::new(trace).file_name().and_then(|name| name.to_str());
    name.unwrap_or(trace)
}

/// A command line as it would be typed: words that a shell would take apart stand in quotes.
pub fn command_line(words: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:%+@".contains(c);
    let typed = |word: String| {
        if !word.is_empty() && word.chars().all(is_plain) {
            return word;
        }
        format!("'{}'", word.replace('\'', r"'\''"))
    };
    words.map(typed).collect::<Vec<_>>().join(" ")
}

/// Writes the report of a curve; `command` is the command line that made it.
///
/// # Errors
///
/// What `out` answers.
pub fn page(report: &CurveReport, command: &str, out: &mut String) -> fmt::Result {
    open(&format!("Cache sizes for {}", name_of(&report.trace)), out)?;
    plot::figure_of(report, out)?;
    list("What it rests on", &assumptions(report), out)?;
    figures(report, out)?;
    close(command, out)
}

fn assumptions(report: &CurveReport) -> Vec<String> {
    let (map, found) = (&report.map, &report.found);
    let mut lines = vec![format!(
        "{} reads of {} objects, which take {} together; the log continues as it is.",
        map.requests(),
        map.objects(),
        amount(map.weight() as f64, map.unit()),
    )];
    if map.rate() < 1.0 {
        lines.push(format!(
            "{:.3}% of the objects were looked at. Bands are five standard errors to both sides.",
            map.rate() * 100.0
        ));
    } else {
        lines.push("Every request was looked at.".into());
    }
    if map.parts_missing() > 0 {
        lines.push(format!("{} parts of the log are not in it.", map.parts_missing()));
    }
    if found.malformed > 0 {
        lines.push(format!("{} records could not be read and were left out.", found.malformed));
    }
    lines.push("The first request for an object counts as a miss.".into());
    lines
}

fn figures(report: &CurveReport, out: &mut String) -> fmt::Result {
    write!(
        out,
        "<details><summary>Figures</summary><div class=\"scroll\"><table><tr><th>policy</th>\
         <th>size</th><th>miss ratio</th><th>from</th><th>to</th><th>bytes missed</th></tr>"
    )?;
    let unit = report.map.unit();
    for curve in &report.curves {
        for point in &curve.points {
            let (low, high) = point.band();
            let percent = |ratio: f64| format!("{:.2}%", ratio * 100.0);
            write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                curve.policy,
                amount(point.cache_size as f64, unit),
                percent(point.miss_ratio),
                percent(low),
                percent(high),
                percent(point.byte_miss_ratio),
            )?;
        }
    }
    write!(out, "</table></div></details>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::tests::report;
    use crate::sampling::Sampling;

    #[test]
    fn page_asks_nothing_of_the_network_and_names_its_command() {
        let report = report("a<b.log", Sampling::Objects(600));
        let mut out = String::new();
        page(&report, "cache-sim curve --trace 'a<b.log'", &mut out).unwrap();
        assert!(out.contains("cache-sim curve --trace 'a&lt;b.log'") && out.contains("<svg"));
        for outside in ["<script", "<link", "<img", "@import", "url("] {
            assert!(!out.contains(outside), "{outside}");
        }
        assert!(out.contains("of the objects were looked at"));
    }

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let words = ["cache-sim", "size", "--trace", "it's here.log", "--sample", "1%", ""];
        let line = command_line(words.into_iter().map(str::to_owned));
        assert_eq!(line, r"cache-sim size --trace 'it'\''s here.log' --sample 1% ''");
    }
}
