//! The outlines of letters, from the TrueType font that is part of the program: Ubuntu Light, which has Latin,
//! Greek and Cyrillic letters; what it lacks is its box.
//!
//! ```text
//! table    | what of it is read
//! head     | units of an em; whether loca counts in 2 or 4 bytes
//! cmap     | letter to glyph, format 4
//! hmtx     | how far the pen moves on (of the first hhea.numberOfHMetrics glyphs; the rest as the last)
//! loca     | glyph to its bytes in glyf
//! glyf     | contours of quadratic curves, or glyphs put together
//! ```
//!
//! The names are those of the `OpenType` specification 1.9.1. No hints, no kerning: at two pixels a unit neither
//! is seen. That is little enough to be read here; a crate for all fonts there are takes longer to build than
//! the rest of the pictures. The font is known, so a read past an end is a glyph that is not drawn, no error.

use epaint_default_fonts::UBUNTU_LIGHT;

/// A glyph's number in its font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glyph(u16);

/// The box that stands for what a font lacks.
const LACKING: Glyph = Glyph(0);

/// Glyphs are put together of glyphs, which are put together of glyphs at most so deep.
const DEPTH_MAX: u32 = 4;

/// A piece of an outline, in units of the em, y growing upwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Piece {
    /// A contour begins.
    Start(f32, f32),
    /// A line to a point.
    Line(f32, f32),
    /// A curve, by way of its control point, to a point.
    Curve(f32, f32, f32, f32),
    /// The contour ends where it began.
    Close,
}

/// A TrueType font.
pub(super) struct Font {
    /// What glyphs are measured in.
    em: f32,
    has_long_offsets: bool,
    advances: usize,
    letters: Bytes,
    metrics: Bytes,
    offsets: Bytes,
    outlines: Bytes,
}

impl Font {
    /// The font that is part of the program.
    pub(super) fn embedded() -> Self {
        Self::read(Bytes(UBUNTU_LIGHT)).expect("the font in the program is one")
    }

    fn read(font: Bytes) -> Option<Self> {
        let head = font.table(b"head")?;
        let cmap = font.table(b"cmap")?;
        let maps =
            (0..usize::from(cmap.u16(2)?)).filter_map(|n| cmap.from(cmap.offset(8 + 8 * n)?));
        Some(Self {
            em: f32::from(head.u16(18)?),
            has_long_offsets: head.u16(50)? == 1,
            advances: font.table(b"hhea")?.u16(34)?.into(),
            letters: maps.into_iter().find(|map| map.u16(0) == Some(4))?,
            metrics: font.table(b"hmtx")?,
            offsets: font.table(b"loca")?,
            outlines: font.table(b"glyf")?,
        })
    }

    /// The glyph of a letter.
    pub(super) fn glyph(&self, letter: char) -> Glyph {
        let code = u16::try_from(u32::from(letter)).ok();
        code.and_then(|code| self.mapped(code)).map_or(LACKING, Glyph)
    }

    /// Four columns, one after the other: end, start, delta and offset of each run of letters.
    fn mapped(&self, code: u16) -> Option<u16> {
        let map = self.letters;
        let column = usize::from(map.u16(6)?);
        let run =
            (0..column).step_by(2).find(|run| map.u16(14 + run).is_some_and(|end| end >= code))?;
        let (starts, deltas, offsets) = (16 + column, 16 + 2 * column, 16 + 3 * column);
        let past_start = code.checked_sub(map.u16(starts + run)?)?;
        let delta = map.u16(deltas + run)?;
        match map.u16(offsets + run)? {
            0 => Some(code.wrapping_add(delta)),
            // Counted from where it stands itself.
            offset => {
                let at = offsets + run + usize::from(offset) + 2 * usize::from(past_start);
                map.u16(at).filter(|&glyph| glyph != 0).map(|glyph| glyph.wrapping_add(delta))
            }
        }
    }

    /// How far the pen moves on after a glyph, in ems.
    pub(super) fn advance(&self, glyph: Glyph) -> f32 {
        let row = usize::from(glyph.0).min(self.advances.saturating_sub(1));
        self.metrics.u16(4 * row).map_or(0.0, |units| f32::from(units) / self.em)
    }

    /// A glyph's outline, in ems; none of a blank.
    pub(super) fn outline(&self, glyph: Glyph) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let _complete = self.add(glyph, (0.0, 0.0), DEPTH_MAX, &mut pieces);
        pieces
    }

    fn add(&self, glyph: Glyph, by: (f32, f32), depth: u32, pieces: &mut Vec<Piece>) -> Option<()> {
        let outline = self.outline_bytes(glyph)?;
        match usize::try_from(outline.i16(0)?) {
            Ok(contours) => self.add_contours(outline, contours, by, pieces),
            Err(_) => self.add_parts(outline, by, depth.checked_sub(1)?, pieces),
        }
    }

    fn outline_bytes(&self, glyph: Glyph) -> Option<Bytes> {
        let number = usize::from(glyph.0);
        let at = |number: usize| match self.has_long_offsets {
            true => self.offsets.offset(4 * number),
            false => Some(2 * usize::from(self.offsets.u16(2 * number)?)),
        };
        let (start, end) = (at(number)?, at(number + 1)?);
        (start < end).then(|| self.outlines.from(start)).flatten()
    }

    /// Glyphs that are put together of others, such as a letter and its accent.
    fn add_parts(
        &self,
        outline: Bytes,
        by: (f32, f32),
        depth: u32,
        pieces: &mut Vec<Piece>,
    ) -> Option<()> {
        const IS_IN_WORDS: u16 = 1;
        const HAS_MORE: u16 = 0x20;
        // Of those with a scale or a matrix, none of which this font has, the scale is passed over.
        const SCALE_BYTES: [(u16, usize); 3] = [(0x08, 2), (0x40, 4), (0x80, 8)];
        let mut at = 10;
        loop {
            let (flags, part) = (outline.u16(at)?, Glyph(outline.u16(at + 2)?));
            let (right, up, bytes) = match flags & IS_IN_WORDS != 0 {
                true => (outline.i16(at + 4)?, outline.i16(at + 6)?, 8),
                false => (outline.i8(at + 4)?, outline.i8(at + 5)?, 6),
            };
            let by = (by.0 + f32::from(right) / self.em, by.1 + f32::from(up) / self.em);
            self.add(part, by, depth, pieces);
            if flags & HAS_MORE == 0 {
                return Some(());
            }
            let scales = SCALE_BYTES.iter().filter(|(flag, _)| flags & flag != 0);
            at += bytes + scales.map(|(_, bytes)| bytes).sum::<usize>();
        }
    }

    fn add_contours(
        &self,
        outline: Bytes,
        contours: usize,
        by: (f32, f32),
        pieces: &mut Vec<Piece>,
    ) -> Option<()> {
        let ends = (0..contours).map(|n| outline.u16(10 + 2 * n).map(usize::from));
        let ends: Vec<usize> = ends.collect::<Option<_>>()?;
        let hints = usize::from(outline.u16(10 + 2 * contours)?);
        let points = points(outline, 12 + 2 * contours + hints, ends.last()? + 1)?;
        let mut start = 0;
        for end in ends {
            let contour = points.get(start..=end)?.iter().map(|point| Point {
                x: by.0 + point.x / self.em,
                y: by.1 + point.y / self.em,
                ..*point
            });
            trace(&contour.collect::<Vec<_>>(), pieces);
            start = end + 1;
        }
        Some(())
    }
}

/// A point of a contour: on it, or one that a curve leans towards.
#[derive(Clone, Copy)]
struct Point {
    x: f32,
    y: f32,
    is_on: bool,
}

/// The points of a glyph: first the flags of all, then all x, then all y, each as far from the one before.
fn points(outline: Bytes, mut at: usize, count: usize) -> Option<Vec<Point>> {
    const IS_ON: u8 = 1;
    const REPEATS: u8 = 8;
    // Of x and of y: whether it is one byte, and then whether it is positive, or else whether it is 0.
    const X: (u8, u8) = (0x02, 0x10);
    const Y: (u8, u8) = (0x04, 0x20);
    let mut flags = Vec::with_capacity(count);
    while flags.len() < count {
        let flag = outline.u8(at)?;
        at += 1;
        flags.push(flag);
        if flag & REPEATS != 0 {
            let further = usize::from(outline.u8(at)?).min(count - flags.len());
            flags.resize(flags.len() + further, flag);
            at += 1;
        }
    }
    let mut along = |(is_byte, is_same): (u8, u8)| {
        let mut value = 0;
        let next = |flag: &u8| {
            let step = match (flag & is_byte != 0, flag & is_same != 0) {
                (true, is_positive) => {
                    let step = i16::from(outline.u8(at)?);
                    at += 1;
                    if is_positive { step } else { -step }
                }
                (false, true) => 0,
                (false, false) => {
                    at += 2;
                    outline.i16(at - 2)?
                }
            };
            value += i32::from(step);
            Some(i16::try_from(value).ok()?.into())
        };
        flags.iter().map(next).collect::<Option<Vec<f32>>>()
    };
    let (x, y) = (along(X)?, along(Y)?);
    let point = |((flag, x), y): ((&u8, f32), f32)| Point { x, y, is_on: flag & IS_ON != 0 };
    Some(flags.iter().zip(x).zip(y).map(point).collect())
}

/// A contour as lines and curves. Between two points off it one on it is left out: the middle.
fn trace(contour: &[Point], pieces: &mut Vec<Piece>) {
    let middle =
        |a: Point, b: Point| Point { x: a.x.midpoint(b.x), y: a.y.midpoint(b.y), is_on: true };
    let (Some(&first), Some(&last)) = (contour.first(), contour.last()) else { return };
    let start = match (first.is_on, last.is_on) {
        (true, _) => first,
        (false, true) => last,
        (false, false) => middle(first, last),
    };
    pieces.push(Piece::Start(start.x, start.y));
    let mut control: Option<Point> = None;
    for &point in contour.iter().chain([&start]) {
        match (control, point.is_on) {
            (None, true) => pieces.push(Piece::Line(point.x, point.y)),
            (Some(by), true) => pieces.push(Piece::Curve(by.x, by.y, point.x, point.y)),
            (None, false) => {}
            (Some(by), false) => {
                let to = middle(by, point);
                pieces.push(Piece::Curve(by.x, by.y, to.x, to.y));
            }
        }
        control = Some(point).filter(|point| !point.is_on);
    }
    pieces.push(Piece::Close);
}

/// Bytes of a font, most significant first.
#[derive(Clone, Copy)]
struct Bytes(&'static [u8]);

impl Bytes {
    fn from(self, at: usize) -> Option<Self> {
        self.0.get(at..).map(Self)
    }

    /// A table, and whatever stands behind it.
    fn table(self, tag: &[u8; 4]) -> Option<Self> {
        let entries = (0..usize::from(self.u16(4)?)).map(|n| 12 + 16 * n);
        let of_tag = |entry: &usize| self.0.get(*entry..entry + 4) == Some(tag);
        self.from(self.offset(entries.into_iter().find(of_tag)? + 8)?)
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn i8(self, at: usize) -> Option<i16> {
        Some(i8::from_be_bytes(self.array(at)?).into())
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    fn i16(self, at: usize) -> Option<i16> {
        self.array(at).map(i16::from_be_bytes)
    }

    fn offset(self, at: usize) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.array(at)?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letters a picture is written in, and a few of a log's name.
    const LETTERS: &str =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%:.,-_()…éßøЖλ";

    #[test]
    fn every_letter_has_an_outline_within_its_em_and_ends_where_it_began() {
        let font = Font::embedded();
        for letter in LETTERS.chars() {
            let glyph = font.glyph(letter);
            assert_ne!(glyph, LACKING, "{letter}");
            assert!((0.1..1.2).contains(&font.advance(glyph)), "{letter}");
            let pieces = font.outline(glyph);
            let mut start = None;
            for piece in &pieces {
                match *piece {
                    Piece::Start(x, y) => start = Some((x, y)),
                    Piece::Line(x, y) | Piece::Curve(_, _, x, y) => {
                        assert!((-0.3..1.2).contains(&x) && (-0.3..1.1).contains(&y), "{letter}");
                    }
                    Piece::Close => assert!(start.take().is_some(), "{letter}"),
                }
            }
            assert!(pieces.len() >= 5 && start.is_none(), "{letter}: {pieces:?}");
        }
    }

    #[test]
    fn a_stem_is_a_box_and_an_o_two_rounds() {
        let font = Font::embedded();
        let contours = |letter| {
            let pieces = font.outline(font.glyph(letter));
            pieces.iter().filter(|piece| matches!(piece, Piece::Start(..))).count()
        };
        let stem = font.outline(font.glyph('l'));
        assert_eq!((contours('o'), contours('-'), contours('%')), (2, 1, 5), "{stem:?}");
        assert_eq!(contours('é'), contours('e') + 1, "a letter and its accent are put together");
    }

    #[test]
    fn digits_are_equally_wide_so_that_figures_stand_below_each_other() {
        let font = Font::embedded();
        let widths = ('0'..='9').map(|digit| font.advance(font.glyph(digit)));
        assert!(widths.into_iter().all(|width| width == font.advance(font.glyph('0'))));
    }

    #[test]
    fn a_blank_has_a_width_and_no_outline_and_what_lacks_is_a_box() {
        let font = Font::embedded();
        let blank = font.glyph(' ');
        assert!(font.outline(blank).is_empty() && font.advance(blank) > 0.1);
        for lacking in ['山', '🙂'] {
            assert_eq!(font.glyph(lacking), LACKING);
        }
        assert!(!font.outline(LACKING).is_empty());
    }

    #[test]
    fn a_font_cut_short_anywhere_is_none_or_lacks_glyphs() {
        for len in (0..UBUNTU_LIGHT.len()).step_by(997) {
            let Some(font) = Font::read(Bytes(&UBUNTU_LIGHT[..len])) else { continue };
            for letter in LETTERS.chars() {
                let _outline = font.outline(font.glyph(letter));
            }
        }
    }
}
