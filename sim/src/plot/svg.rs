//! Shapes as an SVG: light or dark as the reader's system is, in the letters it has.

use std::fmt::{self, Write};

use super::shape::{Anchor, Colour, HALO, LETTERS, Pen, Rgb, SERIES, Shape, Tones};
use super::{Chart, Frame, escaped, layout};

/// What letters and areas are filled with, and lines drawn in: the class of each, and its colour.
const CLASSES: [(&str, &str, Colour); 6] = [
    (".ground", "fill", Colour::Ground),
    (".ink", "fill", Colour::Ink),
    (".faint", "fill", Colour::Faint),
    (".rule", "stroke", Colour::Rule),
    (".halo", "stroke", Colour::Ground),
    (".line", "stroke", Colour::Ink),
];

/// What pictures look like. Colours are written out for each ground rather than as variables: many
/// programs that show an SVG know none.
pub(crate) fn style() -> String {
    let mut light = format!(
        "svg text{{font:{LETTERS}px system-ui,sans-serif}}svg text.halo{{stroke-width:{HALO}px;\
         paint-order:stroke;stroke-linejoin:round}}"
    );
    let mut dark = String::new();
    for (class, property, colour) in CLASSES {
        let Tones { on_light, on_dark } = colour.tones();
        light += &format!("{class}{{{property}:{on_light}}}");
        dark += &format!("{class}{{{property}:{on_dark}}}");
    }
    for (number, Tones { on_light, on_dark }) in SERIES.iter().enumerate() {
        light += &format!(".s{number}{{stroke:{on_light}}}.f{number}{{fill:{on_light}}}");
        dark += &format!(".s{number}{{stroke:{on_dark}}}.f{number}{{fill:{on_dark}}}");
    }
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}")
}

/// The class of what is filled with a colour.
fn fill(colour: Colour) -> String {
    match colour {
        Colour::Ground => "ground".into(),
        Colour::Ink => "ink".into(),
        Colour::Faint | Colour::Rule => "faint".into(),
        Colour::Series(number) => format!("f{}", number % SERIES.len()),
    }
}

/// The class of lines of a colour.
fn stroke(colour: Colour) -> String {
    match colour {
        Colour::Ground => "halo".into(),
        Colour::Ink => "line".into(),
        Colour::Faint | Colour::Rule => "rule".into(),
        Colour::Series(number) => format!("s{}", number % SERIES.len()),
    }
}

/// Writes a chart as an SVG; `with_style` is left out where a page around it has one.
///
/// # Errors
///
/// What `out` answers.
pub(crate) fn draw(chart: &Chart, frame: Frame, with_style: bool, out: &mut String) -> fmt::Result {
    let Frame { width, height, .. } = frame;
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
    layout::shapes(chart, frame).iter().try_for_each(|shape| write!(out, "{shape}"))?;
    write!(out, "</svg>")
}

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(red, green, blue) = self;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { points, pen } => path(points, *pen, f),
            Self::Area { points, colour, opacity } => {
                let class = fill(*colour);
                write!(f, "<polygon class=\"{class}\" fill-opacity=\"{opacity}\" points=\"")?;
                points.iter().try_for_each(|(x, y)| write!(f, "{x:.1},{y:.1} "))?;
                write!(f, "\"/>")
            }
            Self::Text { x, y, anchor, colour, has_halo, text } => {
                let halo = if *has_halo { " halo" } else { "" };
                let anchor = match anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                let (class, text) = (fill(*colour), escaped(text));
                write!(
                    f,
                    "<text class=\"{class}{halo}\"{anchor} x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
                )
            }
            Self::Ring { x, y, radius, edge } => write!(
                f,
                "<circle class=\"ground line\" stroke-width=\"{edge}\" cx=\"{x:.1}\" cy=\"{y:.1}\" \
                 r=\"{radius}\"/>"
            ),
            Self::Hint { x, y, radius, text } => write!(
                f,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill-opacity=\"0\"><title>{}\
                 </title></circle>",
                escaped(text)
            ),
        }
    }
}

fn path(points: &[(f64, f64)], pen: Pen, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let class = stroke(pen.colour);
    if let [(x1, y1), (x2, y2)] = points {
        write!(f, "<line x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"")?;
    } else {
        write!(f, "<polyline fill=\"none\" stroke-linejoin=\"round\" points=\"")?;
        points.iter().try_for_each(|(x, y)| write!(f, "{x:.1},{y:.1} "))?;
        write!(f, "\"")?;
    }
    write!(f, " class=\"{class}\" stroke-width=\"{}\"", pen.width)?;
    if let Some((dash, gap)) = pen.dashes {
        write!(f, " stroke-dasharray=\"{dash} {gap}\"")?;
    }
    if pen.opacity < 1.0 {
        write!(f, " stroke-opacity=\"{}\"", pen.opacity)?;
    }
    write!(f, "/>")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{curve_chart, report};
    use super::*;
    use crate::plot::ALONE;
    use crate::sampling::Sampling;

    fn picture(trace: &str, sampling: Sampling) -> String {
        let mut out = String::new();
        draw(&curve_chart(&report(trace, sampling)), ALONE, true, &mut out).unwrap();
        out
    }

    #[test]
    fn picture_has_a_line_and_where_it_is_an_estimate_a_band() {
        let exact = picture("a.log", Sampling::Whole);
        assert!(exact.contains("<polyline") && !exact.contains("<polygon"), "{exact}");
        assert!(picture("a.log", Sampling::Objects(600)).contains("<polygon"));
        assert!(exact.contains("prefers-color-scheme:dark"));
        assert!(!exact.contains("NaN") && !exact.contains("inf"), "{exact}");
    }

    #[test]
    fn names_of_files_are_no_markup() {
        let picture = picture("<script>&.log", Sampling::Whole);
        assert!(picture.contains("&lt;script&gt;&amp;.log") && !picture.contains("<script"));
    }

    #[test]
    fn colours_are_written_as_svg_reads_them() {
        assert_eq!(Rgb(0, 0x72, 0xb2).to_string(), "#0072b2");
    }
}
