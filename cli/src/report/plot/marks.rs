//! Marks on a plot's axes, and their colours.

use plotters::element::PathElement;
use plotters::prelude::*;

/// A colour by its meaning. The six colours of series can be distinguished without red and green (Okabe and Ito); marks also
/// have six shapes, for readers who see no colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Harmful influence.
    Harm,
    /// Helpful influence.
    Help,
    /// Neutral.
    Plain,
    /// Lines and areas behind the data.
    Quiet,
    /// The n-th of several series.
    Series(usize),
}

const SERIES: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

impl Ink {
    pub(super) fn rgb(self) -> RGBColor {
        match self {
            Ink::Harm => RGBColor(0xc2, 0x4a, 0x00),
            Ink::Help => RGBColor(0x00, 0x67, 0xa3),
            Ink::Plain => RGBColor(0x2b, 0x2d, 0x33),
            Ink::Quiet => RGBColor(0x8c, 0x8a, 0x82),
            Ink::Series(n) => SERIES[n % SERIES.len()],
        }
    }
}

/// How an entry of a legend looks: as the mark that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Line,
    Band,
    /// A dot of this shape.
    Dot(usize),
}

/// The key of a legend's entry around a pixel.
pub(super) fn key<'a>(
    (x, y): (i32, i32),
    ink: Ink,
    key: Key,
) -> Vec<DynElement<'a, SVGBackend<'a>, (i32, i32)>> {
    /// Half of the width of a line or of an area.
    const HALF: i32 = 8;
    match key {
        Key::Line => {
            vec![
                PathElement::new([(x - HALF, y), (x + HALF, y)], ink.rgb().stroke_width(2))
                    .into_dyn(),
            ]
        }
        Key::Band => {
            let style = ink.rgb().mix(0.4).filled();
            vec![Rectangle::new([(x - HALF, y - 5), (x + HALF, y + 5)], style).into_dyn()]
        }
        Key::Dot(shape) => shapes((x, y), ink, shape, 4),
    }
}

/// Something drawn on a plot's axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mark {
    /// A line through points.
    Line { points: Vec<(f64, f64)>, ink: Ink },
    /// The area between two lines: x, lower, upper.
    Band {
        points: Vec<(f64, f64, f64)>,
        ink: Ink,
    },
    /// A mark at each point; `shape` selects its shape.
    Dots {
        points: Vec<(f64, f64)>,
        ink: Ink,
        shape: usize,
        size: i32,
    },
    /// Rectangles: left, right, lower, upper.
    Bars { bars: Vec<[f64; 4]>, ink: Ink },
}

/// A mark around a pixel. The six shapes can be distinguished without colours.
pub(super) fn shapes<'a>(
    (x, y): (i32, i32),
    ink: Ink,
    shape: usize,
    r: i32,
) -> Vec<DynElement<'a, SVGBackend<'a>, (i32, i32)>> {
    let (full, line) = (ink.rgb().filled(), ink.rgb().stroke_width(2));
    let polygon = |corners: &[(i32, i32)]| {
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        vec![Polygon::new(corners, full).into_dyn()]
    };
    let stroke = |a: (i32, i32), b: (i32, i32)| {
        PathElement::new([(x + a.0, y + a.1), (x + b.0, y + b.1)], line).into_dyn()
    };
    match shape % 6 {
        0 => vec![Circle::new((x, y), r, full).into_dyn()],
        1 => polygon(&[(-r, -r), (r, -r), (r, r), (-r, r)]),
        2 => polygon(&[(0, -r - 1), (r + 1, r), (-r - 1, r)]),
        3 => polygon(&[(0, -r - 2), (r + 1, 0), (0, r + 2), (-r - 1, 0)]),
        4 => vec![stroke((-r, -r), (r, r)), stroke((-r, r), (r, -r))],
        _ => vec![
            stroke((-r - 1, 0), (r + 1, 0)),
            stroke((0, -r - 1), (0, r + 1)),
        ],
    }
}
