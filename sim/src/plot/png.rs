//! Shapes as pixels: a PNG for where neither an SVG nor a page is taken, such as a chat or a wiki.
//!
//! On light ground, with two pixels for each unit of the frame, as screens have them. Nothing of the machine
//! goes into it, so the same chart is the same file everywhere: letters come from a font that is part of the
//! program, not from those installed, and pixels are reckoned one by one rather than by whatever vector
//! instructions there are (tiny-skia's `simd` is left out).

use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash,
    Transform,
};

use super::letters::{Font, Glyph, Piece};
use super::shape::{Anchor, Colour, HALO, LETTERS, Pen, Rgb, Shape};
use super::{Chart, Frame, layout};

/// Pixels of each unit, across and down.
const SCALE: f64 = 2.0;

/// Why no PNG is drawn.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// There is no room for it.
    #[error("a picture of {width} × {height} pixels is too large to be drawn")]
    TooLarge {
        /// How wide it would be.
        width: u32,
        /// How high it would be.
        height: u32,
    },
    /// Its pixels could not be packed.
    #[error("the picture cannot be packed as a PNG")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Draws a chart as a PNG.
///
/// # Errors
///
/// There is no room for its pixels.
pub(crate) fn draw(chart: &Chart, frame: Frame) -> Result<Vec<u8>, PngError> {
    let mut canvas = Canvas::new(pixels(frame.width), pixels(frame.height))?;
    layout::shapes(chart, frame).iter().for_each(|shape| canvas.draw(shape));
    canvas.pixmap.encode_png().map_err(|error| PngError::Encode(error.into()))
}

/// What shapes are drawn upon.
struct Canvas {
    pixmap: Pixmap,
    font: Font,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Result<Self, PngError> {
        let mut pixmap = Pixmap::new(width, height).ok_or(PngError::TooLarge { width, height })?;
        pixmap.fill(color(Colour::Ground, 1.0));
        Ok(Self { pixmap, font: Font::embedded() })
    }

    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Path { points, pen } => self.stroke(lines(points).finish(), *pen),
            Shape::Area { points, colour, opacity } => {
                let mut outline = lines(points);
                outline.close();
                self.fill(outline.finish(), *colour, *opacity);
            }
            Shape::Text { x, y, anchor, colour, has_halo, text } => {
                let outline = self.letters(*x, *y, *anchor, text);
                if *has_halo {
                    let rim = Pen { width: HALO, ..Pen::of(Colour::Ground) };
                    self.stroke(outline.clone(), rim);
                }
                self.fill(outline, *colour, 1.0);
            }
            Shape::Ring { x, y, radius, edge } => {
                let disc = PathBuilder::from_circle(single(*x), single(*y), single(*radius));
                self.fill(disc.clone(), Colour::Ground, 1.0);
                self.stroke(disc, Pen { width: *edge, ..Pen::of(Colour::Ink) });
            }
            Shape::Hint { .. } => {}
        }
    }

    /// Fills an outline. One without an extent, of a blank, is no path and fills nothing.
    fn fill(&mut self, outline: Option<Path>, colour: Colour, opacity: f64) {
        let Some(outline) = outline else { return };
        let paint = paint(colour, opacity);
        self.pixmap.fill_path(&outline, &paint, FillRule::Winding, to_pixels(), None);
    }

    fn stroke(&mut self, outline: Option<Path>, pen: Pen) {
        let Some(outline) = outline else { return };
        let dash = pen
            .dashes
            .and_then(|(dash, gap)| StrokeDash::new(vec![single(dash), single(gap)], 0.0));
        let stroke = Stroke {
            width: single(pen.width),
            line_cap: LineCap::Butt,
            line_join: LineJoin::Round,
            dash,
            ..Stroke::default()
        };
        let paint = paint(pen.colour, pen.opacity);
        self.pixmap.stroke_path(&outline, &paint, &stroke, to_pixels(), None);
    }

    /// The outlines of a text's letters.
    fn letters(&self, x: f64, y: f64, anchor: Anchor, text: &str) -> Option<Path> {
        let size = single(LETTERS);
        let glyphs: Vec<Glyph> = text.chars().map(|letter| self.font.glyph(letter)).collect();
        let width: f32 = glyphs.iter().map(|&glyph| self.font.advance(glyph) * size).sum();
        let mut left = match anchor {
            Anchor::Start => single(x),
            Anchor::Middle => single(x) - width / 2.0,
            Anchor::End => single(x) - width,
        };
        let base = single(y);
        let mut path = PathBuilder::new();
        for glyph in glyphs {
            let at = |x: f32, y: f32| (left + x * size, base - y * size);
            for piece in self.font.outline(glyph) {
                match piece {
                    Piece::Start(x, y) => {
                        let (x, y) = at(x, y);
                        path.move_to(x, y);
                    }
                    Piece::Line(x, y) => {
                        let (x, y) = at(x, y);
                        path.line_to(x, y);
                    }
                    Piece::Curve(x1, y1, x, y) => {
                        let ((x1, y1), (x, y)) = (at(x1, y1), at(x, y));
                        path.quad_to(x1, y1, x, y);
                    }
                    Piece::Close => path.close(),
                }
            }
            left += self.font.advance(glyph) * size;
        }
        path.finish()
    }
}

/// A line from point to point.
fn lines(points: &[(f64, f64)]) -> PathBuilder {
    let mut path = PathBuilder::new();
    for (number, (x, y)) in points.iter().enumerate() {
        match number {
            0 => path.move_to(single(*x), single(*y)),
            _ => path.line_to(single(*x), single(*y)),
        }
    }
    path
}

fn color(colour: Colour, opacity: f64) -> Color {
    let Rgb(red, green, blue) = colour.tones().on_light;
    let mut color = Color::from_rgba8(red, green, blue, u8::MAX);
    color.set_alpha(single(opacity));
    color
}

fn paint(colour: Colour, opacity: f64) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(color(colour, opacity));
    paint
}

fn to_pixels() -> Transform {
    Transform::from_scale(single(SCALE), single(SCALE))
}

#[expect(clippy::cast_possible_truncation, reason = "places in a picture need no more digits")]
fn single(length: f64) -> f32 {
    length as f32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a length is above 0, and the conversion stops at the end"
)]
fn pixels(length: f64) -> u32 {
    (length * SCALE).ceil() as u32
}

#[cfg(test)]
mod tests {
    use tiny_skia::PremultipliedColorU8;

    use super::super::tests::{curve_chart, report};
    use super::*;
    use crate::plot::ALONE;
    use crate::sampling::Sampling;

    fn chart() -> Chart {
        curve_chart(&report("a.log", Sampling::Objects(600)))
    }

    fn decoded(chart: &Chart) -> Pixmap {
        Pixmap::decode_png(&draw(chart, ALONE).unwrap()).unwrap()
    }

    /// How many pixels within a part of the frame are not of the ground.
    fn inked(picture: &Pixmap, across: (f64, f64), down: (f64, f64)) -> usize {
        let ground = PremultipliedColorU8::from_rgba(255, 255, 255, 255).unwrap();
        let rows = pixels(down.0)..pixels(down.1);
        let of_row = |y| (pixels(across.0)..pixels(across.1)).map(move |x| picture.pixel(x, y));
        rows.flat_map(of_row).filter(|pixel| *pixel != Some(ground)).count()
    }

    #[test]
    fn picture_has_two_pixels_for_each_unit() {
        let picture = decoded(&chart());
        assert_eq!((picture.width(), picture.height()), (1720, 920));
    }

    #[test]
    fn ink_stands_where_every_text_of_the_layout_does_and_none_at_the_edges() {
        let chart = chart();
        let picture = decoded(&chart);
        let mut texts = 0;
        for shape in layout::shapes(&chart, ALONE) {
            let Shape::Text { x, y, anchor, text, .. } = shape else { continue };
            let (left, right) = match anchor {
                Anchor::Start => (x, x + 9.0),
                Anchor::Middle => (x - 4.5, x + 4.5),
                Anchor::End => (x - 9.0, x),
            };
            assert!(inked(&picture, (left, right), (y - 10.0, y)) > 20, "{text} at {x}, {y}");
            texts += 1;
        }
        assert!(texts > 12, "title, percents, sizes, the axis and the policy: {texts}");
        for (across, down) in [((0.0, 8.0), (0.0, 460.0)), ((0.0, 860.0), (0.0, 8.0))] {
            assert_eq!(inked(&picture, across, down), 0);
        }
    }

    #[test]
    fn line_and_band_have_their_colour() {
        let picture = decoded(&chart());
        let Rgb(red, green, blue) = Colour::Series(0).tones().on_light;
        let line = PremultipliedColorU8::from_rgba(red, green, blue, 255).unwrap();
        let of_line = picture.pixels().iter().filter(|pixel| **pixel == line).count();
        assert!(of_line > 1_000, "{of_line}");
        let is_band =
            |it: &PremultipliedColorU8| it.red() < 225 && it.green() > 225 && it.blue() > 240;
        let of_band = picture.pixels().iter().filter(|pixel| is_band(pixel)).count();
        assert!(of_band > 1_000, "{of_band}");
    }

    #[test]
    fn the_same_chart_is_the_same_file() {
        assert_eq!(draw(&chart(), ALONE).unwrap(), draw(&chart(), ALONE).unwrap());
    }

    #[test]
    fn letters_that_the_font_lacks_are_boxes() {
        let lacking = Canvas::new(80, 40).unwrap().letters(4.0, 16.0, Anchor::Start, "山").unwrap();
        assert!(lacking.bounds().width() > 3.0);
        assert!(Canvas::new(80, 40).unwrap().letters(4.0, 16.0, Anchor::Start, " ").is_none());
    }

    #[test]
    fn a_picture_too_large_is_refused_with_its_size() {
        let error = draw(&chart(), Frame { width: 1e9, ..ALONE }).unwrap_err();
        assert!(error.to_string().contains("2000000000 × 920 pixels is too large"), "{error}");
    }
}
