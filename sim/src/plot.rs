//! Curves as a picture: an SVG that stands for itself, light or dark as the reader's system is, or a PNG.
//!
//! ```text
//! miss ratio
//! 100% ┬────────────────────────
//!      │ \__  band around each line where it is an estimate
//!      │    \____
//!   0% ┴────────────────────────  size, each step twice the one before
//! ```
//!
//! A `Chart` says what is drawn, a `Frame` how large: pages draw each chart twice and show the one
//! that fits the reader's screen, as letters that shrink with the picture cannot be read on a telephone.
//! `layout` turns both into shapes, which `svg` and `png` draw alike.

mod layout;
mod letters;
mod png;
mod shape;
mod svg;

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

pub use self::png::PngError;
pub(crate) use self::svg::style;
use crate::curve::Point;
use crate::curve::run::{Curve, CurveReport};
use crate::html;
use crate::replay::Unit;

/// What is drawn.
pub(crate) struct Chart {
    /// What it shows: its title where it stands alone, its name for those who hear it.
    pub(crate) title: String,
    /// What runs from left to right.
    pub(crate) across: Across,
    /// What runs upwards.
    pub(crate) up: Up,
    /// The lines.
    pub(crate) lines: Vec<Line>,
    /// Heights that are marked from side to side.
    pub(crate) levels: Vec<Level>,
    /// Points that are marked.
    pub(crate) marks: Vec<Mark>,
}

/// What runs from left to right.
#[derive(Clone, Copy)]
pub(crate) enum Across {
    /// Sizes, each step a factor, and what they are sizes of.
    Sizes(Unit, &'static str),
    /// Tenths of a log, from 1 to 10.
    Tenths,
}

/// What runs upwards.
#[derive(Clone, Copy)]
pub(crate) enum Up {
    /// Shares of a whole, in percent.
    Share,
    /// Amounts of money.
    Money,
}

/// A line, with a band around it where it is an estimate.
pub(crate) struct Line {
    /// What it is called at its end.
    pub(crate) name: String,
    /// Which colour it has, counted from 0.
    pub(crate) colour: usize,
    /// Whether it is drawn heavier than others.
    pub(crate) is_strong: bool,
    /// Its points, from left to right.
    pub(crate) spots: Vec<Spot>,
}

/// A point of a line.
#[derive(Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// The band's lower and upper edge.
    pub(crate) band: (f64, f64),
}

/// A height that is marked.
pub(crate) struct Level {
    pub(crate) y: f64,
    pub(crate) label: String,
}

/// A point that is marked.
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) label: String,
}

/// How large the picture is, and what its edges leave free.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Whether the chart's title is written into it.
    has_title: bool,
}

/// A picture of its own.
pub(crate) const ALONE: Frame = Frame {
    width: 860.0,
    height: 460.0,
    left: 64.0,
    right: 110.0,
    top: 40.0,
    bottom: 52.0,
    has_title: true,
};

/// On a page, on a large screen.
pub(crate) const WIDE: Frame =
    Frame { height: 430.0, right: 84.0, top: 16.0, has_title: false, ..ALONE };

/// On a page, on a small one.
pub(crate) const NARROW: Frame = Frame {
    width: 380.0,
    height: 320.0,
    left: 44.0,
    right: 66.0,
    top: 14.0,
    bottom: 48.0,
    has_title: false,
};

/// The chart of a curve.
fn chart(report: &CurveReport) -> Chart {
    let line = |(number, curve): (usize, &Curve)| Line {
        name: curve.policy.to_string(),
        colour: number,
        is_strong: true,
        spots: curve.points.iter().map(spot).collect(),
    };
    Chart {
        title: format!("Miss ratio by cache size: {}", html::name_of(&report.trace)),
        across: Across::Sizes(report.map.unit(), "cache size"),
        up: Up::Share,
        lines: report.curves.iter().enumerate().map(line).collect(),
        levels: Vec::new(),
        marks: Vec::new(),
    }
}

fn spot(point: &Point) -> Spot {
    Spot { x: point.cache_size as f64, y: point.miss_ratio, band: point.band() }
}

/// Draws a curve in the form asked for; `command` is the command line that made it.
///
/// # Errors
///
/// There is no room for the picture.
pub fn draw_curve(report: &CurveReport, form: Form, command: &str) -> Result<Vec<u8>, DrawError> {
    if form == Form::Html {
        let mut page = String::new();
        html::page(report, command, &mut page)?;
        return Ok(page.into_bytes());
    }
    draw_alone(&chart(report), form == Form::Png)
}

/// Draws a chart as a picture of its own: its pixels, or its shapes.
///
/// # Errors
///
/// There is no room for the picture.
pub(crate) fn draw_alone(chart: &Chart, as_pixels: bool) -> Result<Vec<u8>, DrawError> {
    if as_pixels {
        return Ok(png::draw(chart, ALONE)?);
    }
    let mut picture = String::new();
    svg::draw(chart, ALONE, true, &mut picture)?;
    Ok(picture.into_bytes())
}

/// The same on a page, for screens of any size.
///
/// # Errors
///
/// What `out` answers.
pub(crate) fn figure_of(report: &CurveReport, out: &mut String) -> fmt::Result {
    figure(&chart(report), out)
}

/// A chart on a page, for screens of any size, with its title above it.
///
/// # Errors
///
/// What `out` answers.
pub(crate) fn figure(chart: &Chart, out: &mut String) -> fmt::Result {
    write!(out, "<figure><figcaption>{}</figcaption><div class=\"wide\">", escaped(&chart.title))?;
    svg::draw(chart, WIDE, false, out)?;
    write!(out, "</div><div class=\"narrow\">")?;
    svg::draw(chart, NARROW, false, out)?;
    write!(out, "</div></figure>")
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

/// An amount of money as a person writes it, without its currency: with cents where they matter.
pub(crate) fn money(amount: f64) -> String {
    match amount.abs() {
        0.0 => "0".into(),
        ..0.01 => format!("{amount:.4}"),
        ..1_000.0 => format!("{amount:.2}"),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an amount above 0, and the conversion stops at the end"
        )]
        whole => {
            format!("{}{}", if amount < 0.0 { "-" } else { "" }, grouped(whole.round() as u64))
        }
    }
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A text as it may stand in XML.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A form that a picture can have, told by its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A picture.
    Svg,
    /// A picture for where an SVG is not taken.
    Png,
    /// A page.
    Html,
}

/// Why a file's name tells no form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pictures are drawn as .svg, .png or .html, and {0:?} is none of them")]
pub struct NoForm(pub PathBuf);

/// Why a picture is not drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// Its text could not be written.
    #[error("the picture cannot be written")]
    Text(#[from] fmt::Error),
    /// Its pixels could not be drawn.
    #[error(transparent)]
    Png(#[from] PngError),
}

impl Form {
    /// The form that `path` asks for.
    ///
    /// # Errors
    ///
    /// It ends otherwise.
    pub fn of(path: &Path) -> Result<Self, NoForm> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "svg" => Ok(Self::Svg),
            "png" => Ok(Self::Png),
            "html" | "htm" => Ok(Self::Html),
            _ => Err(NoForm(path.into())),
        }
    }
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

    pub(crate) fn curve_chart(report: &CurveReport) -> Chart {
        chart(report)
    }

    #[test]
    fn amounts_are_short() {
        let told = [1.0, 1023.9, 1536.0, 2_000.0 * 1024.0, 1e12].map(|n| amount(n, Unit::Bytes));
        assert_eq!(told, ["1 B", "1.0 KiB", "1.5 KiB", "2.0 MiB", "931 GiB"]);
        assert_eq!(amount(20_000.0, Unit::Objects), "20k");
        let told = [0.0, 0.0012, 1.5, 604.3, 1_234_567.0, -1_234.0].map(money);
        assert_eq!(told, ["0", "0.0012", "1.50", "604.30", "1,234,567", "-1,234"]);
    }

    #[test]
    fn a_picture_that_cannot_be_drawn_is_refused_by_its_name() {
        assert_eq!(Form::of(Path::new("a.SVG")), Ok(Form::Svg));
        assert_eq!(Form::of(Path::new("a.png")), Ok(Form::Png));
        assert_eq!(Form::of(Path::new("a.html")), Ok(Form::Html));
        for name in ["a.jpg", "a", "a.svg.gz"] {
            let error = Form::of(Path::new(name)).unwrap_err();
            assert!(error.to_string().contains(".svg, .png or .html"), "{error}");
        }
    }

    #[test]
    fn each_form_is_what_its_name_says() {
        let report = report("a.log", Sampling::Whole);
        let drawn = |form| draw_curve(&report, form, "cache-sim curve").unwrap();
        assert!(drawn(Form::Svg).starts_with(b"<svg "));
        assert!(drawn(Form::Png).starts_with(b"\x89PNG\r\n\x1a\n"));
        assert!(drawn(Form::Html).starts_with(b"<!DOCTYPE html>"));
    }
}
