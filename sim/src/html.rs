//! A report to send to a colleague: one HTML file that asks nothing of the network.
//!
//! The picture, the figures behind it, what they rest on, and the command that made it.

use std::fmt::{self, Write};

use crate::curve::run::CurveReport;
use crate::plot::{self, STYLE, amount, escaped};

/// What a page needs beyond the picture's style.
const PAGE_STYLE: &str = "\
body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:900px;\
margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\
svg{width:100%;height:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.15rem .9rem .15rem 0;text-align:right;border-bottom:1px solid var(--rule)}\
td:first-child,th:first-child{text-align:left}code,pre{font:14px ui-monospace,monospace}\
pre{overflow-x:auto;border:1px solid var(--rule);padding:.6rem}details{margin-top:1rem}";

/// Writes the report; `command` is the command line that made it.
///
/// # Errors
///
/// What `out` answers.
pub fn page(report: &CurveReport, command: &str, out: &mut String) -> fmt::Result {
    let title = format!("Cache sizes for {}", escaped(&report.trace));
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" \
         content=\"light dark\"><title>{title}</title><style>{STYLE}{PAGE_STYLE}</style></head>\
         <body><h1>{title}</h1>"
    )?;
    plot::svg(report, false, out)?;
    write!(out, "<h2>What it rests on</h2><ul>")?;
    for line in assumptions(report) {
        write!(out, "<li>{}</li>", escaped(&line))?;
    }
    write!(out, "</ul><h2>Made by</h2><pre>{}</pre>", escaped(command))?;
    figures(report, out)?;
    writeln!(out, "</body></html>")
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
        "<details><summary>Figures</summary><table><tr><th>policy</th><th>size</th>\
         <th>miss ratio</th><th>from</th><th>to</th><th>bytes missed</th></tr>"
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
    write!(out, "</table></details>")
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
}
