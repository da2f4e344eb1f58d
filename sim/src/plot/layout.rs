//! Where everything of a chart stands: a chart and a frame become shapes.

use super::shape::{Anchor, Colour, Pen, SERIES, Shape};
use super::{Across, Chart, Frame, Level, Line, Mark, Spot, Up, amount, money};
use crate::replay::Unit;

/// Dashes tell further lines of one colour apart.
const DASHES: [Option<(f64, f64)>; 2] = [None, Some((6.0, 4.0))];

/// What is drawn across the picture to be compared with is dashed.
const LEVEL_DASHES: Option<(f64, f64)> = Some((5.0, 4.0));

/// The base line of the title.
const TITLE_Y: f64 = 22.0;
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

/// What a chart in a frame is drawn of, its ground aside.
pub(super) fn shapes(chart: &Chart, frame: Frame) -> Vec<Shape> {
    let scale = Scale::of(chart, frame);
    let mut shapes = Vec::new();
    if frame.has_title {
        shapes.push(title(&scale));
    }
    axes(&scale, &mut shapes);
    shapes.extend(chart.lines.iter().filter_map(|line| band(line, &scale)));
    levels(&scale, &mut shapes);
    // The heavier lines last, so that nothing lies on them.
    for is_strong in [false, true] {
        let of_kind = chart.lines.iter().filter(|line| line.is_strong == is_strong);
        shapes.extend(of_kind.map(|line| trail(line, &scale)));
    }
    names(&scale, &mut shapes);
    marks(&scale, &mut shapes);
    hints(&scale, &mut shapes);
    shapes
}

/// The title, shortened where the picture ends before it does.
fn title(scale: &Scale<'_>) -> Shape {
    let title = &scale.chart.title;
    let room = (scale.frame.width - scale.frame.left) / LETTER;
    let is_out = |(number, _): &(usize, _)| (*number as f64) > room;
    let text = match title.char_indices().enumerate().find(is_out) {
        None => title.clone(),
        Some((_, (end, _))) => format!("{}…", &title[..end]),
    };
    text_at(scale.frame.left, TITLE_Y, Anchor::Start, Colour::Ink, text)
}

/// A text on nothing but the ground.
fn text_at(x: f64, y: f64, anchor: Anchor, colour: Colour, text: String) -> Shape {
    Shape::Text { x, y, anchor, colour, has_halo: false, text }
}

fn axes(scale: &Scale<'_>, shapes: &mut Vec<Shape>) {
    let (left, top, right, bottom) =
        (scale.frame.left, scale.frame.top, scale.right(), scale.bottom());
    let rule = |from, to| Shape::Path { points: vec![from, to], pen: Pen::of(Colour::Rule) };
    let label = |x, y, anchor, text| text_at(x, y, anchor, Colour::Faint, text);
    let mut height = 0.0;
    while height <= scale.highest * 1.0001 {
        let y = scale.y(height);
        shapes.push(rule((left, y), (right, y)));
        shapes.push(label(left - 7.0, y + 4.0, Anchor::End, scale.label_of(height)));
        height += scale.step;
    }
    for (at, text) in scale.ticks() {
        let x = scale.x(at);
        shapes.push(rule((x, top), (x, bottom)));
        shapes.push(label(x, bottom + 19.0, Anchor::Middle, text));
    }
    let below = match scale.chart.across {
        Across::Sizes(_, what) => what,
        Across::Tenths => "tenths of the log",
    };
    let middle = f64::midpoint(left, right);
    shapes.push(label(middle, scale.frame.height - 9.0, Anchor::Middle, below.into()));
}

/// A band narrower than this share of the scale is no wider than the line.
const BAND_SEEN: f64 = 0.002;

fn band(line: &Line, scale: &Scale<'_>) -> Option<Shape> {
    let is_seen = |spot: &Spot| spot.band.1 - spot.band.0 >= BAND_SEEN * scale.highest;
    if !line.spots.iter().any(is_seen) {
        return None;
    }
    let low = line.spots.iter().map(|spot| (spot.x, spot.band.0));
    let high = line.spots.iter().rev().map(|spot| (spot.x, spot.band.1));
    let points = low.chain(high).map(|(x, y)| (scale.x(x), scale.y(y))).collect();
    Some(Shape::Area { points, colour: Colour::Series(line.colour), opacity: 0.16 })
}

/// A line through its points.
fn trail(line: &Line, scale: &Scale<'_>) -> Shape {
    let pen = Pen {
        width: if line.is_strong { 2.2 } else { 1.2 },
        dashes: DASHES[line.colour / SERIES.len() % DASHES.len()],
        ..Pen::of(Colour::Series(line.colour))
    };
    let points = line.spots.iter().map(|spot| (scale.x(spot.x), scale.y(spot.y))).collect();
    Shape::Path { points, pen }
}

/// Names at the ends of lines, pushed apart where lines end together.
fn names(scale: &Scale<'_>, shapes: &mut Vec<Shape>) {
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
    let x = scale.right() + 7.0;
    shapes.extend(
        labels.into_iter().map(|(y, name, colour)| {
            text_at(x, y + 4.0, Anchor::Start, Colour::Series(colour), name)
        }),
    );
}

/// A text that lines pass below.
fn text_over(x: f64, y: f64, text: &str) -> Shape {
    let (anchor, colour) = (Anchor::Start, Colour::Ink);
    Shape::Text { x, y, anchor, colour, has_halo: true, text: text.into() }
}

fn levels(scale: &Scale<'_>, shapes: &mut Vec<Shape>) {
    for Level { y, label } in &scale.chart.levels {
        let y = scale.y(*y);
        let points = vec![(scale.frame.left, y), (scale.right(), y)];
        let pen = Pen { dashes: LEVEL_DASHES, ..Pen::of(Colour::Ink) };
        shapes.push(Shape::Path { points, pen });
        // Above the line, or below it where there is no room.
        let base = if y - LEADING < scale.frame.top { y + 15.0 } else { y - 5.0 };
        shapes.push(text_over(scale.frame.left + 6.0, base, label));
    }
}

fn marks(scale: &Scale<'_>, shapes: &mut Vec<Shape>) {
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
        let pen = Pen { dashes: LEVEL_DASHES, opacity: 0.5, ..Pen::of(Colour::Ink) };
        shapes.push(Shape::Path { points: vec![(x, y), (x, scale.bottom())], pen });
        shapes.push(Shape::Ring { x, y, radius: 5.0, edge: 2.0 });
        shapes.push(text_over(from, at, label));
    }
}

/// Points that say what they are to who points at them.
fn hints(scale: &Scale<'_>, shapes: &mut Vec<Shape>) {
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
            let text = format!("{}, {place}: {value}", line.name);
            shapes.push(Shape::Hint { x: scale.x(spot.x), y: scale.y(spot.y), radius: 6.0, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ALONE, NARROW};
    use super::*;

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

    fn chart(title: &str, marks: Vec<Mark>) -> Chart {
        let spots = [(1e6, 0.1), (1e8, 0.9)].map(|(x, y)| Spot { x, y, band: (y, y) }).to_vec();
        Chart {
            title: title.into(),
            across: Across::Sizes(Unit::Bytes, "size"),
            up: Up::Share,
            lines: vec![Line { name: "lru".into(), colour: 0, is_strong: true, spots }],
            levels: Vec::new(),
            marks,
        }
    }

    fn texts(chart: &Chart, frame: Frame) -> Vec<(f64, String)> {
        let text = |shape| match shape {
            Shape::Text { y, text, .. } => Some((y, text)),
            _ => None,
        };
        shapes(chart, frame).into_iter().filter_map(text).collect()
    }

    #[test]
    fn labels_of_marks_do_not_meet() {
        let mark = |label: &str| Mark { x: 1e7, y: 0.5, label: label.into() };
        let texts = texts(&chart("t", vec![mark("one"), mark("two")]), NARROW);
        let height_of = |label: &str| texts.iter().find(|(_, text)| text == label).unwrap().0;
        assert!((height_of("one") - height_of("two")).abs() >= LEADING);
    }

    #[test]
    fn a_title_longer_than_the_picture_is_shortened() {
        let title_of = |title: &str| texts(&chart(title, Vec::new()), ALONE).swap_remove(0).1;
        assert_eq!(title_of("é short"), "é short");
        let title = title_of(&"é".repeat(300));
        assert!(title.ends_with("é…") && title.chars().count() < 120, "{title}");
    }
}
