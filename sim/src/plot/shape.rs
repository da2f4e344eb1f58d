//! What a chart is drawn of: shapes from back to front, in the frame's units, from its upper left corner.
//!
//! `layout.rs` says where they stand, `svg.rs` and `png.rs` what becomes of them.

/// Colours that the colour-blind tell apart, on light ground and on dark: M. Okabe, K. Ito, "Color
/// universal design", 2008, made a little darker, or lighter, where the ground asks for it. Yellow and black
/// are left out: neither is seen on both.
pub(super) const SERIES: [Tones; 6] = [
    Tones { on_light: Rgb(0x00, 0x72, 0xb2), on_dark: Rgb(0x4a, 0xa8, 0xe0) },
    Tones { on_light: Rgb(0xd5, 0x5e, 0x00), on_dark: Rgb(0xf0, 0x80, 0x3c) },
    Tones { on_light: Rgb(0x00, 0x9e, 0x73), on_dark: Rgb(0x2e, 0xc4, 0x9a) },
    Tones { on_light: Rgb(0xb5, 0x58, 0x8f), on_dark: Rgb(0xe0, 0x9c, 0xc4) },
    Tones { on_light: Rgb(0x9a, 0x7d, 0x00), on_dark: Rgb(0xf2, 0xcc, 0x3c) },
    Tones { on_light: Rgb(0x2f, 0x93, 0xc8), on_dark: Rgb(0x8f, 0xd0, 0xf7) },
];

/// The size of all letters.
pub(super) const LETTERS: f64 = 13.0;

/// How wide the rim is that keeps lines off letters.
pub(super) const HALO: f64 = 4.0;

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rgb(pub(super) u8, pub(super) u8, pub(super) u8);

/// One colour on light ground and on dark.
#[derive(Clone, Copy)]
pub(super) struct Tones {
    pub(super) on_light: Rgb,
    pub(super) on_dark: Rgb,
}

/// What something is drawn in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// The picture's own ground.
    Ground,
    /// Letters, and what is marked.
    Ink,
    /// Letters beside the picture.
    Faint,
    /// The lines of the scales.
    Rule,
    /// One of `SERIES`, which begins again at its end.
    Series(usize),
}

impl Colour {
    pub(super) fn tones(self) -> Tones {
        let (on_light, on_dark) = match self {
            Self::Ground => (Rgb(0xff, 0xff, 0xff), Rgb(0x12, 0x16, 0x1c)),
            Self::Ink => (Rgb(0x1c, 0x24, 0x30), Rgb(0xe6, 0xea, 0xf0)),
            Self::Faint => (Rgb(0x5b, 0x66, 0x75), Rgb(0x9a, 0xa6, 0xb5)),
            Self::Rule => (Rgb(0xdf, 0xe4, 0xea), Rgb(0x2b, 0x33, 0x3e)),
            Self::Series(number) => return SERIES[number % SERIES.len()],
        };
        Tones { on_light, on_dark }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy)]
pub(super) struct Pen {
    pub(super) colour: Colour,
    pub(super) width: f64,
    /// How long a dash is and the gap after it; drawn through if none.
    pub(super) dashes: Option<(f64, f64)>,
    pub(super) opacity: f64,
}

impl Pen {
    pub(super) fn of(colour: Colour) -> Self {
        Self { colour, width: 1.0, dashes: None, opacity: 1.0 }
    }
}

/// Which end of a text stands at its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Something that is drawn.
pub(super) enum Shape {
    /// A line through points.
    Path { points: Vec<(f64, f64)>, pen: Pen },
    /// An area, lightly filled.
    Area { points: Vec<(f64, f64)>, colour: Colour, opacity: f64 },
    /// Letters upon a line at `y`, with a rim of the ground if lines may pass below them.
    Text { x: f64, y: f64, anchor: Anchor, colour: Colour, has_halo: bool, text: String },
    /// A disc of the ground with an edge of ink.
    Ring { x: f64, y: f64, radius: f64, edge: f64 },
    /// What a point says to who points at it. Nothing is seen of it.
    Hint { x: f64, y: f64, radius: f64, text: String },
}
