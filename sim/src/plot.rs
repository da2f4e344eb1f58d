//! Curves as a picture: an SVG that stands for itself, light or dark as the reader's system is.
//!
//! ```text
//! miss ratio
//! 100% ┬────────────────────────
//!      │ \__  band around each line where it is an estimate
//!      │    \____
//!   0% ┴────────────────────────  size, each step twice the one before
//! ```

use std::fmt::{self, Write};

use crate::curve::Point;
use crate::curve::run::{Curve, CurveReport};
use crate::replay::Unit;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;

/// Colours that the colour-blind tell apart: M. Okabe, K. Ito, "Color universal design", 2008. Yellow and
/// black are left out: neither is seen on both grounds.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// Dashes tell further lines of one colour apart.
const DASHES: [&str; 2] = ["none", "6 4"];

/// What both grounds share, and how they differ.
pub(crate) const STYLE: &str = "\
:root{--ground:#ffffff;--ink:#1c2430;--faint:#5b6675;--rule:#dfe4ea}\
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--ink:#e6eaf0;--faint:#9aa6b5;--rule:#2b333e}}\
text{font:13px system-ui,sans-serif;fill:var(--ink)}.faint{fill:var(--faint)}\
.rule{stroke:var(--rule)}.ground{fill:var(--ground)}";

/// Where points lie in the picture.
struct Scale {
    smallest: f64,
    largest: f64,
}

impl Scale {
    fn of(report: &CurveReport) -> Self {
        let sizes =
            || report.curves.iter().flat_map(|curve| &curve.points).map(|p| p.cache_size as f64);
        let smallest = sizes().fold(f64::INFINITY, f64::min).max(1.0);
        let largest = sizes().fold(smallest * 2.0, f64::max);
        Self { smallest: smallest.min(largest), largest }
    }

    fn x(&self, size: f64) -> f64 {
        let share = (size / self.smallest).ln() / (self.largest / self.smallest).ln();
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(ratio: f64) -> f64 {
        TOP + (1.0 - ratio) * (HEIGHT - TOP - BOTTOM)
    }

    /// Sizes that are labelled: powers of 2 of bytes, of 10 of objects, so many that labels do not meet.
    fn ticks(&self, unit: Unit) -> Vec<f64> {
        let base: f64 = match unit {
            Unit::Objects => 10.0,
            Unit::Bytes => 2.0,
        };
        let log = |size: f64| size.ln() / base.ln();
        let (first, last) = (log(self.smallest).ceil(), log(self.largest).floor());
        let step = ((last - first) / 9.0).ceil().max(1.0);
        let mut ticks = Vec::new();
        let mut at = first;
        while at <= last {
            ticks.push(base.powf(at));
            at += step;
        }
        ticks
    }
}

/// Writes the picture as an SVG document; `style` is left out where a page around it has it.
///
/// # Errors
///
/// What `out` answers.
pub fn svg(report: &CurveReport, with_style: bool, out: &mut String) -> fmt::Result {
    let scale = Scale::of(report);
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"miss ratio by cache size\">"
    )?;
    if with_style {
        write!(out, "<style>{STYLE}</style>")?;
    }
    write!(out, "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>")?;
    write!(
        out,
        "<text x=\"{LEFT}\" y=\"22\">Miss ratio by cache size: {}</text>",
        escaped(&report.trace)
    )?;
    axes(report, &scale, out)?;
    let mut labels: Vec<(f64, String)> = Vec::new();
    for (number, curve) in report.curves.iter().enumerate() {
        band(curve, number, &scale, out)?;
        line(curve, number, &scale, out)?;
        if let Some(last) = curve.points.last() {
            let label = format!("<tspan fill=\"{}\">{}</tspan>", colour(number), curve.policy);
            labels.push((Scale::y(last.miss_ratio), label));
        }
    }
    // Labels at the ends of lines, pushed apart where lines end together.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP;
    for (y, label) in labels {
        let y = y.max(free);
        write!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>", WIDTH - RIGHT + 8.0, y + 4.0)?;
        free = y + 16.0;
    }
    write!(out, "</svg>")
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

fn axes(report: &CurveReport, scale: &Scale, out: &mut String) -> fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tenth in (0..=10).step_by(2) {
        let ratio = f64::from(tenth) / 10.0;
        let y = Scale::y(ratio);
        write!(
            out,
            "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        )?;
        write!(
            out,
            "<text class=\"faint\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}%</text>",
            LEFT - 8.0,
            y + 4.0,
            tenth * 10
        )?;
    }
    let unit = report.map.unit();
    for tick in scale.ticks(unit) {
        let x = scale.x(tick);
        write!(
            out,
            "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
        )?;
        write!(
            out,
            "<text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 20.0,
            amount(tick, unit)
        )?;
    }
    write!(
        out,
        "<text class=\"faint\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">cache size</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 10.0
    )
}

fn band(curve: &Curve, number: usize, scale: &Scale, out: &mut String) -> fmt::Result {
    if curve.points.iter().all(|point| point.margin < MARGIN_SEEN) {
        return Ok(());
    }
    let low = curve.points.iter().map(|point| (point.cache_size, point.band().0));
    let high = curve.points.iter().rev().map(|point| (point.cache_size, point.band().1));
    write!(out, "<polygon fill=\"{}\" fill-opacity=\"0.16\" points=\"", colour(number))?;
    for (size, ratio) in low.chain(high) {
        write!(out, "{:.1},{:.1} ", scale.x(size as f64), Scale::y(ratio))?;
    }
    write!(out, "\"/>")
}

/// A band narrower than this is no wider than the line.
const MARGIN_SEEN: f64 = 0.001;

fn line(curve: &Curve, number: usize, scale: &Scale, out: &mut String) -> fmt::Result {
    let dashes = DASHES[number / COLOURS.len() % DASHES.len()];
    write!(
        out,
        "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\" points=\"",
        colour(number)
    )?;
    for Point { cache_size, miss_ratio, .. } in &curve.points {
        write!(out, "{:.1},{:.1} ", scale.x(*cache_size as f64), Scale::y(*miss_ratio))?;
    }
    write!(out, "\"/>")
}

/// A size as a person writes it.
pub(crate) fn amount(size: f64, unit: Unit) -> String {
    let (base, names): (f64, [&str; 6]) = match unit {
        Unit::Objects => (1_000.0, ["", "k", "M", "G", "T", "P"]),
        Unit::Bytes => (1_024.0, [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]),
    };
    let (mut size, mut step) = (size, 0);
    while size >= base * 0.9995 && step + 1 < names.len() {
        size /= base;
        step += 1;
    }
    let digits = if size.fract() == 0.0 || size >= 99.95 { 0 } else { 1 };
    format!("{size:.digits$}{}", names[step])
}

/// A text as it may stand in XML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::curve::{LruMapper, Spec};
    use crate::replay::{Expiry, Player, Request};
    use crate::sampling::{Part, Sampling};
    use crate::trace::Access;

    pub(crate) fn report(trace: &str, sampling: Sampling) -> CurveReport {
        let weighing = Unit::Bytes.into();
        let spec = Spec { weighing, expiry: Expiry::Eager, sampling, part: Part::WHOLE };
        let mut mapper = LruMapper::new(spec);
        for n in 0..20_000_u64 {
            mapper.request(&Request::from(Access::get(0, n * n % 5_003, 77)));
        }
        CurveReport { trace: trace.into(), ..CurveReport::of_map(mapper.finish(), &[], 20) }
    }

    fn picture(report: &CurveReport) -> String {
        let mut out = String::new();
        svg(report, true, &mut out).unwrap();
        out
    }

    #[test]
    fn picture_has_a_line_and_where_it_is_an_estimate_a_band() {
        let exact = picture(&report("a.log", Sampling::Whole));
        assert!(exact.contains("<polyline") && !exact.contains("<polygon"), "{exact}");
        assert!(picture(&report("a.log", Sampling::Objects(600))).contains("<polygon"));
        assert!(exact.contains("prefers-color-scheme:dark"));
        assert!(!exact.contains("NaN") && !exact.contains("inf"), "{exact}");
    }

    #[test]
    fn names_of_files_are_no_markup() {
        let picture = picture(&report("<script>&.log", Sampling::Whole));
        assert!(picture.contains("&lt;script&gt;&amp;.log") && !picture.contains("<script"));
    }

    #[test]
    fn amounts_are_short() {
        let told = [1.0, 1023.9, 1536.0, 2_000.0 * 1024.0, 1e12].map(|n| amount(n, Unit::Bytes));
        assert_eq!(told, ["1 B", "1.0 KiB", "1.5 KiB", "2.0 MiB", "931 GiB"]);
        assert_eq!(amount(20_000.0, Unit::Objects), "20k");
    }
}
