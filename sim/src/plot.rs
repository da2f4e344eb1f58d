//! Curves as a picture: an SVG that stands for itself, light or dark as the reader's system is.
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

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use crate::curve::Point;
use crate::curve::run::{Curve, CurveReport};
use crate::html;
use crate::replay::Unit;

/// Colours that the colour-blind tell apart, on light ground and on dark: M. Okabe, K. Ito, "Color
/// universal design", 2008, made a little darker, or lighter, where the ground asks for it. Yellow and black
/// are left out: neither is seen on both.
const COLOURS: [(&str, &str); 6] = [
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#f0803c"),
    ("#009e73", "#2ec49a"),
    ("#b5588f", "#e09cc4"),
    ("#9a7d00", "#f2cc3c"),
    ("#2f93c8", "#8fd0f7"),
];

/// Dashes tell further lines of one colour apart.
const DASHES: [&str; 2] = ["none", "6 4"];

/// What is drawn in neutral colours: its class, the property, and its colour on light ground and on dark.
const NEUTRALS: [(&str, &str, &str, &str); 6] = [
    (".ground", "fill", "#ffffff", "#12161c"),
    (".ink", "fill", "#1c2430", "#e6eaf0"),
    (".faint", "fill", "#5b6675", "#9aa6b5"),
    (".rule", "stroke", "#dfe4ea", "#2b333e"),
    (".halo", "stroke", "#ffffff", "#12161c"),
    (".line", "stroke", "#1c2430", "#e6eaf0"),
];

/// What pictures look like. Colours are written out for each ground rather than as variables: many
/// programs that show an SVG know none.
pub(crate) fn style() -> String {
    let mut light = String::from(
        "svg text{font:13px system-ui,sans-serif}svg text.halo{stroke-width:4px;paint-order:stroke;\
         stroke-linejoin:round}svg .dashed{stroke-dasharray:5 4}",
    );
    let mut dark = String::new();
    for (class, property, on_light, on_dark) in NEUTRALS {
        light += &format!("{class}{{{property}:{on_light}}}");
        dark += &format!("{class}{{{property}:{on_dark}}}");
    }
    for (number, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        light += &format!(".s{number}{{stroke:{on_light}}}.f{number}{{fill:{on_light}}}");
        dark += &format!(".s{number}{{stroke:{on_dark}}}.f{number}{{fill:{on_dark}}}");
    }
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}")
}

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

/// Letters are about so wide.
const LETTER: f64 = 7.0;
/// Lines of text are so far apart.
const LEADING: f64 = 17.0;

/// Where points lie in the picture.
struct Scale<'a> {
    frame: Frame,
    chart: &'a Chart,
    smallest: f64,
    largest: f64,
    highest: f64,
    /// The distance between two heights that are labelled.
    step: f64,
}

impl<'a> Scale<'a> {
    fn of(chart: &'a Chart, frame: Frame) -> Self {
        let spots = || chart.lines.iter().flat_map(|line| &line.spots);
        let (smallest, largest) = match chart.across {
            Across::Sizes(..) => {
                let smallest = spots().map(|spot| spot.x).fold(f64::INFINITY, f64::min).max(1.0);
                let largest = spots().map(|spot| spot.x).fold(smallest * 2.0, f64::max);
                (smallest.min(largest), largest)
            }
            Across::Tenths => (1.0, 10.0),
        };
        let levels = chart.levels.iter().map(|level| level.y);
        let most = spots().map(|spot| spot.band.1.max(spot.y)).chain(levels).fold(0.0, f64::max);
        let (highest, step) = match chart.up {
            Up::Share => shares(most),
            Up::Money => round_steps(most),
        };
        Self { frame, chart, smallest, largest, highest, step }
    }

    fn right(&self) -> f64 {
        self.frame.width - self.frame.right
    }

    fn bottom(&self) -> f64 {
        self.frame.height - self.frame.bottom
    }

    fn x(&self, x: f64) -> f64 {
        let share = match self.chart.across {
            Across::Sizes(..) => (x / self.smallest).ln() / (self.largest / self.smallest).ln(),
            Across::Tenths => (x - self.smallest) / (self.largest - self.smallest),
        };
        self.frame.left + share * (self.right() - self.frame.left)
    }

    fn y(&self, y: f64) -> f64 {
        let share = (y / self.highest).clamp(0.0, 1.0);
        self.frame.top + (1.0 - share) * (self.bottom() - self.frame.top)
    }

    /// What is labelled from left to right. Of sizes powers of 2 of bytes, of 10 of objects, so many that
    /// labels do not meet.
    fn ticks(&self) -> Vec<(f64, String)> {
        let unit = match self.chart.across {
            Across::Sizes(unit, _) => unit,
            Across::Tenths => return (1..=10_u8).map(|n| (n.into(), n.to_string())).collect(),
        };
        let base: f64 = match unit {
            Unit::Objects => 10.0,
            Unit::Bytes => 2.0,
        };
        let log = |size: f64| size.ln() / base.ln();
        // A hair's breadth of rounding must not cost the tick at the edge.
        let (first, last) =
            ((log(self.smallest) - 1e-9).ceil(), (log(self.largest) + 1e-9).floor());
        let room = ((self.right() - self.frame.left) / 72.0).floor();
        let step = ((last - first) / room).ceil().max(1.0);
        let mut ticks = Vec::new();
        let mut at = first;
        while at <= last {
            let size = base.powf(at);
            ticks.push((size, amount(size, unit)));
            at += step;
        }
        ticks
    }

    fn label_of(&self, y: f64) -> String {
        match self.chart.up {
            Up::Share => format!("{:.0}%", y * 100.0),
            Up::Money => money(y),
        }
    }
}

/// The top of a scale of shares, and its steps.
fn shares(most: f64) -> (f64, f64) {
    let scales = [(0.05, 0.01), (0.1, 0.02), (0.2, 0.05), (0.4, 0.1), (0.6, 0.2), (0.8, 0.2)];
    scales.into_iter().find(|(highest, _)| most <= *highest).unwrap_or((1.0, 0.2))
}

/// The top of a scale of amounts, and its steps: 1, 2 or 5 times a power of 10, at most six of them.
fn round_steps(most: f64) -> (f64, f64) {
    if most.is_nan() || most <= 0.0 {
        return (1.0, 0.2);
    }
    let power = 10_f64.powf((most / 6.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| step * 6.0 >= most);
    let step = step.unwrap_or(power * 10.0);
    ((most / step).ceil() * step, step)
}

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

/// Writes the picture of a curve as an SVG document; `with_style` is left out where a page around it has
/// one.
///
/// # Errors
///
/// What `out` answers.
pub fn svg(report: &CurveReport, with_style: bool, out: &mut String) -> fmt::Result {
    draw(&chart(report), ALONE, with_style, out)
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
    draw(chart, WIDE, false, out)?;
    write!(out, "</div><div class=\"narrow\">")?;
    draw(chart, NARROW, false, out)?;
    write!(out, "</div></figure>")
}

/// Writes a chart as an SVG.
///
/// # Errors
///
/// What `out` answers.
pub(crate) fn draw(chart: &Chart, frame: Frame, with_style: bool, out: &mut String) -> fmt::Result {
    let scale = Scale::of(chart, frame);
    let Frame { width, height, left, .. } = frame;
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\">",
        escaped(&chart.title)
    )?;
    if with_style {
        write!(out, "<style>{}</style>", style())?;
    }
    write!(out, "<rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>")?;
    if frame.has_title {
        write!(out, "<text class=\"ink\" x=\"{left}\" y=\"22\">{}</text>", escaped(&chart.title))?;
    }
    axes(&scale, out)?;
    chart.lines.iter().try_for_each(|line| band(line, &scale, out))?;
    levels(&scale, out)?;
    // The heavier lines last, so that nothing lies on them.
    for is_strong in [false, true] {
        let of_kind = chart.lines.iter().filter(|line| line.is_strong == is_strong);
        of_kind.clone().try_for_each(|line| trail(line, &scale, out))?;
    }
    names(&scale, out)?;
    marks(&scale, out)?;
    spots(&scale, out)?;
    write!(out, "</svg>")
}

fn axes(scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    let (left, top, right, bottom) =
        (scale.frame.left, scale.frame.top, scale.right(), scale.bottom());
    let mut height = 0.0;
    while height <= scale.highest * 1.0001 {
        let y = scale.y(height);
        write!(
            out,
            "<line class=\"rule\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"faint\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 7.0,
            y + 4.0,
            scale.label_of(height)
        )?;
        height += scale.step;
    }
    for (at, label) in scale.ticks() {
        let x = scale.x(at);
        write!(
            out,
            "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            bottom + 19.0,
        )?;
    }
    let below = match scale.chart.across {
        Across::Sizes(_, what) => what,
        Across::Tenths => "tenths of the log",
    };
    write!(
        out,
        "<text class=\"faint\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{below}</text>",
        f64::midpoint(left, right),
        scale.frame.height - 9.0
    )
}

/// A band narrower than this share of the scale is no wider than the line.
const BAND_SEEN: f64 = 0.002;

fn band(line: &Line, scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    let is_seen = |spot: &Spot| spot.band.1 - spot.band.0 >= BAND_SEEN * scale.highest;
    if !line.spots.iter().any(is_seen) {
        return Ok(());
    }
    let low = line.spots.iter().map(|spot| (spot.x, spot.band.0));
    let high = line.spots.iter().rev().map(|spot| (spot.x, spot.band.1));
    write!(out, "<polygon class=\"{}\" fill-opacity=\"0.16\" points=\"", fill(line.colour))?;
    for (x, y) in low.chain(high) {
        write!(out, "{:.1},{:.1} ", scale.x(x), scale.y(y))?;
    }
    write!(out, "\"/>")
}

/// A line through its points.
fn trail(line: &Line, scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    let dashes = DASHES[line.colour / COLOURS.len() % DASHES.len()];
    let width = if line.is_strong { 2.2 } else { 1.2 };
    write!(
        out,
        "<polyline fill=\"none\" class=\"{}\" stroke-width=\"{width}\" stroke-linejoin=\"round\" \
         stroke-dasharray=\"{dashes}\" points=\"",
        stroke(line.colour)
    )?;
    for spot in &line.spots {
        write!(out, "{:.1},{:.1} ", scale.x(spot.x), scale.y(spot.y))?;
    }
    write!(out, "\"/>")
}

/// Names at the ends of lines, pushed apart where lines end together.
fn names(scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    let of_line = |line: &Line| {
        let last = line.spots.last()?;
        Some((scale.y(last.y), line.name.clone(), line.colour))
    };
    let mut labels: Vec<(f64, String, usize)> =
        scale.chart.lines.iter().filter_map(of_line).collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = scale.frame.top;
    for label in &mut labels {
        label.0 = label.0.max(free);
        free = label.0 + LEADING - 2.0;
    }
    // What was pushed out below is pushed back from there.
    let mut free = scale.bottom();
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(free);
        free = label.0 - LEADING + 2.0;
    }
    for (y, name, colour) in labels {
        write!(
            out,
            "<text class=\"{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            fill(colour),
            scale.right() + 7.0,
            y + 4.0,
            escaped(&name)
        )?;
    }
    Ok(())
}

fn levels(scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    for Level { y, label } in &scale.chart.levels {
        let y = scale.y(*y);
        write!(
            out,
            "<line class=\"line dashed\" x1=\"{}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"ink halo\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            scale.frame.left,
            scale.right(),
            scale.frame.left + 6.0,
            // Above the line, or below it where there is no room.
            if y - LEADING < scale.frame.top { y + 15.0 } else { y - 5.0 },
            escaped(label)
        )?;
    }
    Ok(())
}

fn marks(scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for Mark { x, y, label } in &scale.chart.marks {
        let (x, y) = (scale.x(*x), scale.y(*y));
        let width = label.chars().count() as f64 * LETTER;
        // To the right of the point, below the curve; where there is no room, to its left.
        let is_left = x + 10.0 + width > scale.right();
        let from = if is_left { (x - 10.0 - width).max(scale.frame.left) } else { x + 10.0 };
        let mut at = (y + 26.0).min(scale.bottom() - 8.0);
        let meets = |at: f64, (low, high, other): &(f64, f64, f64)| {
            from < *high && from + width > *low && (at - other).abs() < LEADING
        };
        while taken.iter().any(|other| meets(at, other)) && at + LEADING < scale.bottom() {
            at += LEADING;
        }
        while taken.iter().any(|other| meets(at, other)) && at - LEADING > scale.frame.top {
            at -= LEADING;
        }
        taken.push((from, from + width, at));
        write!(
            out,
            "<line class=\"line dashed\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\" \
             stroke-opacity=\"0.5\"/>\
             <circle class=\"ground line\" stroke-width=\"2\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text class=\"ink halo\" x=\"{from:.1}\" y=\"{at:.1}\">{}</text>",
            scale.bottom(),
            escaped(label)
        )?;
    }
    Ok(())
}

/// Points that say what they are to who points at them.
fn spots(scale: &Scale<'_>, out: &mut String) -> fmt::Result {
    for line in &scale.chart.lines {
        for spot in &line.spots {
            let place = match scale.chart.across {
                Across::Sizes(unit, _) => amount(spot.x, unit),
                Across::Tenths => format!("tenth {:.0}", spot.x),
            };
            let value = match scale.chart.up {
                Up::Share => format!("{:.2}%", spot.y * 100.0),
                Up::Money => money(spot.y),
            };
            write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"6\" fill-opacity=\"0\"><title>{}, {place}: \
                 {value}</title></circle>",
                scale.x(spot.x),
                scale.y(spot.y),
                escaped(&line.name)
            )?;
        }
    }
    Ok(())
}

fn fill(colour: usize) -> String {
    format!("f{}", colour % COLOURS.len())
}

fn stroke(colour: usize) -> String {
    format!("s{}", colour % COLOURS.len())
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
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A form that a picture can have, told by its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A picture.
    Svg,
    /// A page.
    Html,
}

/// Why a file's name tells no form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pictures are drawn as .svg or .html, and {0:?} is neither; a browser saves either of them as a PNG"
)]
pub struct NoForm(pub PathBuf);

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
        let told = [0.0, 0.0012, 1.5, 604.3, 1_234_567.0, -1_234.0].map(money);
        assert_eq!(told, ["0", "0.0012", "1.50", "604.30", "1,234,567", "-1,234"]);
    }

    #[test]
    fn scales_end_a_little_above_what_they_show() {
        assert_eq!(shares(0.93), (1.0, 0.2));
        assert_eq!(shares(0.37), (0.4, 0.1));
        for most in [0.003, 1.0, 1.1, 59.0, 61.0, 4_321.0, 1e9] {
            let (highest, step) = round_steps(most);
            assert!(highest >= most && highest < most + step, "{most}: {highest} by {step}");
            assert!((2.0..=7.0).contains(&(highest / step).round()), "{most}: {highest} by {step}");
        }
    }

    #[test]
    fn labels_of_marks_do_not_meet() {
        let spots = [(1e6, 0.1), (1e8, 0.9)].map(|(x, y)| Spot { x, y, band: (y, y) }).to_vec();
        let mark = |label: &str| Mark { x: 1e7, y: 0.5, label: label.into() };
        let chart = Chart {
            title: "t".into(),
            across: Across::Sizes(Unit::Bytes, "size"),
            up: Up::Share,
            lines: vec![Line { name: "lru".into(), colour: 0, is_strong: true, spots }],
            levels: Vec::new(),
            marks: vec![mark("one"), mark("two")],
        };
        let mut out = String::new();
        draw(&chart, NARROW, false, &mut out).unwrap();
        let height_of = |label: &str| {
            let text =
                out.split("<text").find(|text| text.contains(&format!(">{label}<"))).unwrap();
            let y = text.split(" y=\"").nth(1).unwrap().split('"').next().unwrap();
            y.parse::<f64>().unwrap()
        };
        assert!((height_of("one") - height_of("two")).abs() >= LEADING);
    }

    #[test]
    fn a_picture_that_cannot_be_drawn_is_refused_by_its_name() {
        assert_eq!(Form::of(Path::new("a.SVG")), Ok(Form::Svg));
        assert_eq!(Form::of(Path::new("a.html")), Ok(Form::Html));
        for name in ["a.png", "a", "a.svg.gz"] {
            let error = Form::of(Path::new(name)).unwrap_err();
            assert!(error.to_string().contains("a browser saves"), "{error}");
        }
    }
}
