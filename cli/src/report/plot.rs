//! Plots as SVG: axes, and marks on them. Colours are tokens that a page's style sheet may replace, so that one drawing serves a light and a dark page.

use plotters::coord::types::RangedCoordf64;
use plotters::element::PathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use hindcast_analyzer::{AnalysisError, Result};

/// A colour of a plot, the same wherever the same thing is meant. The six of series are told apart without red and
/// green (Okabe and Ito); whoever sees no colours has marks of six shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// What harms.
    Harm,
    /// What helps.
    Help,
    /// A line without a judgement.
    Plain,
    /// What is behind the data.
    Quiet,
    /// The n-th of several series.
    #[cfg_attr(
        not(feature = "record"),
        allow(dead_code, reason = "figures of experiments have series")
    )]
    Series(usize),
}

const TEXT: RGBColor = RGBColor(0x5b, 0x5d, 0x63);
const GRID: RGBColor = RGBColor(0xe6, 0xe4, 0xdd);
const SERIES: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

impl Ink {
    fn rgb(self) -> RGBColor {
        match self {
            Ink::Harm => RGBColor(0xc2, 0x4a, 0x00),
            Ink::Help => RGBColor(0x00, 0x67, 0xa3),
            Ink::Plain => RGBColor(0x2b, 0x2d, 0x33),
            Ink::Quiet => RGBColor(0xb4, 0xb2, 0xaa),
            Ink::Series(n) => SERIES[n % SERIES.len()],
        }
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
    /// A mark at each point, its shape by the number.
    Dots {
        points: Vec<(f64, f64)>,
        ink: Ink,
        shape: usize,
        size: i32,
    },
    /// Rectangles: left, right, lower, upper.
    Bars { bars: Vec<[f64; 4]>, ink: Ink },
}

/// One of two axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// What it shows.
    pub label: String,
    /// Least and largest value that fit.
    pub range: (f64, f64),
    /// Logarithmic: then both ends are above 0.
    pub log: bool,
    /// Written instead of numbers, at these places.
    pub words: Vec<(f64, String)>,
}

impl Axis {
    /// An axis that fits all values, with some room at both ends.
    pub fn around(label: &str, values: impl IntoIterator<Item = f64>) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|v| v.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = if high > low {
            0.04 * (high - low)
        } else {
            0.5 * low.abs().max(1e-12)
        };
        Axis {
            label: label.to_owned(),
            range: (low - room, high + room),
            log: false,
            words: Vec::new(),
        }
    }

    /// The same axis with exactly these ends.
    pub fn ends(mut self, low: f64, high: f64) -> Axis {
        self.range = (low, high);
        self
    }

    /// A logarithmic axis that fits all values above 0.
    pub fn decades(label: &str, values: impl IntoIterator<Item = f64>) -> Axis {
        let above = values.into_iter().filter(|v| *v > 0.0);
        let axis = Axis::around(label, above.map(f64::log10));
        let (low, high) = axis.range;
        let (low, high) = if high - low < 0.3 {
            (low - 0.15, high + 0.15)
        } else {
            (low, high)
        };
        Axis {
            range: (10f64.powf(low), 10f64.powf(high)),
            log: true,
            ..axis
        }
    }
}

/// A plot's size in pixels, and whether it stands alone (with a background of its own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub width: u32,
    pub height: u32,
    pub alone: bool,
}

/// Axes with marks, the first mark at the bottom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    pub x: Axis,
    pub y: Axis,
    pub marks: Vec<Mark>,
    /// Above the axes; empty for none.
    pub title: String,
    /// Names of series, for a plot that stands alone: ink, shape, name.
    pub legend: Vec<(Ink, usize, String)>,
}

impl Plot {
    pub fn new(x: Axis, y: Axis, marks: Vec<Mark>) -> Plot {
        Plot {
            x,
            y,
            marks,
            title: String::new(),
            legend: Vec::new(),
        }
    }

    /// Draws the plot.
    ///
    /// # Errors
    /// Where an axis has no extent.
    pub fn svg(&self, size: Size) -> Result<String> {
        for axis in [&self.x, &self.y] {
            let (low, high) = axis.range;
            let usable = low.is_finite() && high.is_finite() && low < high;
            if !usable || (axis.log && low <= 0.0) {
                return Err(AnalysisError::other(format!(
                    "a plot's axis `{}` can't run from {low} to {high}",
                    axis.label
                )));
            }
        }
        let mut svg = String::new();
        self.draw(&mut svg, size)
            .map_err(|e| AnalysisError::other(format!("drawing a plot: {e}")))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String, size: Size) -> std::result::Result<(), Problem> {
        let root = SVGBackend::with_string(svg, (size.width, size.height)).into_drawing_area();
        if size.alone {
            root.fill(&RGBColor(0xff, 0xff, 0xff))?;
        }
        let key_lines = if self.legend.is_empty() {
            0
        } else {
            self.key_rows(size).len() as i32
        };
        let head = 18 * i32::from(!self.title.is_empty()) + 20 * key_lines;
        let (top, area) = root.split_vertically(head + 8);
        self.heading(&top, size)?;
        let x = plain(&self.x);
        let y = plain(&self.y);
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(44)
            .y_label_area_size(62);
        let mut chart = builder.build_cartesian_2d(x, y)?;
        self.axes(&area, &mut chart, size)?;
        for mark in &self.marks {
            self.mark(&area, &mut chart, mark)?;
        }
        root.present()?;
        Ok(())
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (scaled(&self.x, x), scaled(&self.y, y))
    }

    fn mark<'a>(
        &self,
        area: &Area<'a>,
        chart: &mut Chart<'a>,
        mark: &Mark,
    ) -> std::result::Result<(), Problem> {
        match mark {
            Mark::Line { points, ink } => {
                let line = points.iter().map(|&p| self.at(p));
                chart.draw_series(LineSeries::new(line, ink.rgb().stroke_width(2)))?;
            }
            Mark::Band { points, ink } => {
                let lower = points.iter().map(|&(x, low, _)| self.at((x, low)));
                let upper = points.iter().rev().map(|&(x, _, high)| self.at((x, high)));
                let outline: Vec<_> = lower.chain(upper).collect();
                let style = ink.rgb().mix(0.18).filled();
                chart.draw_series([Polygon::new(outline, style)])?;
            }
            Mark::Dots {
                points,
                ink,
                shape,
                size,
            } => {
                let base = area.get_base_pixel();
                for &point in points {
                    let (x, y) = chart.backend_coord(&self.at(point));
                    for part in shapes((x - base.0, y - base.1), *ink, *shape, *size) {
                        area.draw(&part)?;
                    }
                }
            }
            Mark::Bars { bars, ink } => {
                let style = ink.rgb().filled();
                chart.draw_series(bars.iter().map(|&[left, right, low, high]| {
                    Rectangle::new([self.at((left, low)), self.at((right, high))], style)
                }))?;
            }
        }
        Ok(())
    }

    /// Grid lines, ticks and labels: thin, few, and in words that fit.
    fn axes(
        &self,
        area: &Area<'_>,
        chart: &mut Chart<'_>,
        size: Size,
    ) -> std::result::Result<(), Problem> {
        let font = |height: f64| ("sans-serif", height).into_font().color(&TEXT);
        let (xs, ys) = (
            ticks(&self.x, (size.width / 90) as usize),
            ticks(&self.y, (size.height / 50) as usize),
        );
        let (x0, x1) = (
            scaled(&self.x, self.x.range.0),
            scaled(&self.x, self.x.range.1),
        );
        let (y0, y1) = (
            scaled(&self.y, self.y.range.0),
            scaled(&self.y, self.y.range.1),
        );
        for (y, _) in &ys {
            chart.draw_series([PathElement::new([(x0, *y), (x1, *y)], GRID.stroke_width(1))])?;
        }
        chart.draw_series([PathElement::new([(x0, y0), (x1, y0)], TEXT.stroke_width(1))])?;
        if self.y.range.0 < 0.0 && self.y.range.1 > 0.0 && !self.y.log {
            chart.draw_series([PathElement::new(
                [(x0, 0.0), (x1, 0.0)],
                TEXT.stroke_width(1),
            )])?;
        }
        let base = area.get_base_pixel();
        let place = |x: f64, y: f64| {
            let (px, py) = chart.backend_coord(&(x, y));
            (px - base.0, py - base.1)
        };
        let style = font(15.0);
        for (x, text) in &xs {
            let (px, py) = place(*x, y0);
            let style = style.clone().pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(text.clone(), (px, py + 6), style))?;
        }
        for (y, text) in &ys {
            let (px, py) = place(x0, *y);
            let style = style.clone().pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(text.clone(), (px - 7, py), style))?;
        }
        let (middle, bottom) = place((x0 + x1) / 2.0, y0);
        let centre = font(15.0).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(
            self.x.label.clone(),
            (middle, bottom + 25),
            centre.clone(),
        ))?;
        let (_, half) = place(x0, (y0 + y1) / 2.0);
        let turned = centre.transform(FontTransform::Rotate270);
        area.draw(&Text::new(self.y.label.clone(), (3, half), turned))?;
        Ok(())
    }

    /// Entries of the key, broken into lines that fit.
    fn key_rows(&self, size: Size) -> Vec<Vec<&(Ink, usize, String)>> {
        let mut rows: Vec<Vec<_>> = vec![Vec::new()];
        let mut used = 0;
        for entry in &self.legend {
            let wide = key_width(&entry.2);
            if used > 0 && used + wide > size.width as i32 - 70 {
                rows.push(Vec::new());
                used = 0;
            }
            used += wide;
            if let Some(row) = rows.last_mut() {
                row.push(entry);
            }
        }
        rows
    }

    fn heading(&self, top: &Area<'_>, size: Size) -> std::result::Result<(), Problem> {
        let mut y = 8;
        if !self.title.is_empty() {
            let bold = ("sans-serif", 17.0).into_font().style(FontStyle::Bold);
            let style = bold.color(&Ink::Plain.rgb());
            top.draw(&Text::new(self.title.clone(), (12, y), style))?;
            y += 20;
        }
        if self.legend.is_empty() {
            return Ok(());
        }
        for row in self.key_rows(size) {
            let mut x = 62;
            for (ink, shape, name) in row {
                for element in shapes((x, y + 7), *ink, *shape, 4) {
                    top.draw(&element)?;
                }
                let style = ("sans-serif", 15.0).into_font().color(&TEXT);
                top.draw(&Text::new(name.clone(), (x + 10, y + 1), style))?;
                x += key_width(name);
            }
            y += 20;
        }
        Ok(())
    }
}

type Problem = DrawingAreaErrorKind<std::io::Error>;
type Backend<'a> = SVGBackend<'a>;
type Area<'a> = DrawingArea<Backend<'a>, plotters::coord::Shift>;
type Chart<'a> = ChartContext<'a, Backend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Pixels that an entry of the key takes, about.
fn key_width(name: &str) -> i32 {
    34 + 7 * name.chars().count() as i32
}

/// Logarithms are taken here, so that every plot has the same type.
fn scaled(axis: &Axis, value: f64) -> f64 {
    if axis.log {
        value.max(axis.range.0).log10()
    } else {
        value
    }
}

fn plain(axis: &Axis) -> std::ops::Range<f64> {
    scaled(axis, axis.range.0)..scaled(axis, axis.range.1)
}

/// Where an axis has its ticks, about `wanted` of them, and what stands there.
fn ticks(axis: &Axis, wanted: usize) -> Vec<(f64, String)> {
    let (low, high) = axis.range;
    if !axis.words.is_empty() {
        return axis.words.clone();
    }
    if axis.log {
        let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
        let decades = usize::try_from(last - first + 1).unwrap_or(0);
        if decades >= 2 {
            let every = decades.div_ceil(wanted.max(2));
            return (first..=last)
                .step_by(every)
                .map(|e| (f64::from(e), power(e)))
                .collect();
        }
        // Less than two decades: plain numbers, at the places that a logarithm gives them.
        let plain = Axis {
            log: false,
            ..axis.clone()
        };
        return ticks(&plain, wanted)
            .into_iter()
            .filter(|(value, _)| *value > 0.0)
            .map(|(value, text)| (value.log10(), text))
            .collect();
    }
    let step = nice_step((high - low) / wanted.clamp(2, 10) as f64);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last)
        .map(|i| (i as f64 * step, number(i as f64 * step, step)))
        .collect()
}

/// The least of 1, 2, 5, 10 … that isn't below.
fn nice_step(at_least: f64) -> f64 {
    let decade = 10f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * decade)
        .find(|step| *step >= 0.999_999 * at_least)
        .unwrap_or(10.0 * decade)
}

/// A tick's number, with the digits that the step between ticks needs.
fn number(value: f64, step: f64) -> String {
    let size = value.abs();
    if value == 0.0 || size < 1e-9 * step {
        return "0".to_owned();
    }
    if size >= 1e6 || step < 1e-3 {
        let exponent = size.log10().floor();
        let digits = (exponent - step.log10().floor()).max(0.0) as usize;
        let text = format!("{value:.digits$e}");
        return minus(&text);
    }
    let digits = (-step.log10().floor()).max(0.0) as usize;
    minus(&format!("{value:.digits$}"))
}

fn power(exponent: i32) -> String {
    match exponent {
        0..=4 => 10u64.pow(exponent.unsigned_abs()).to_string(),
        -2..=-1 => minus(&format!("{}", 10f64.powi(exponent))),
        _ => minus(&format!("1e{exponent}")),
    }
}

/// A real minus sign, which is as wide as a plus.
pub(crate) fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

/// A mark of the `shape`-th kind around a pixel; six kinds are told apart without colours.
fn shapes<'a>(
    (x, y): (i32, i32),
    ink: Ink,
    shape: usize,
    r: i32,
) -> Vec<DynElement<'a, Backend<'a>, (i32, i32)>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis, wanted: usize) -> Vec<String> {
        ticks(axis, wanted).into_iter().map(|(_, t)| t).collect()
    }

    #[test]
    fn ticks_stand_at_round_numbers() {
        let axis = Axis::around("x", []);
        assert_eq!(texts(&axis.clone().ends(0.0, 3.0), 4), ["0", "1", "2", "3"]);
        assert_eq!(
            texts(&axis.clone().ends(-0.01, 0.01), 4),
            ["\u{2212}0.010", "\u{2212}0.005", "0", "0.005", "0.010"]
        );
        assert_eq!(
            texts(&axis.clone().ends(-2.5e-6, 1.2e-6), 4),
            [
                "\u{2212}2e\u{2212}6",
                "\u{2212}1e\u{2212}6",
                "0",
                "1e\u{2212}6"
            ]
        );
        assert_eq!(
            texts(&axis.ends(0.0, 15_640.0), 5),
            ["0", "5000", "10000", "15000"]
        );
    }

    #[test]
    fn a_logarithmic_axis_has_powers_of_ten_or_round_numbers_where_those_are_few() {
        let axis = Axis::decades("n", [0.0, 1.0, 10_000.0]);
        assert_eq!(texts(&axis, 6), ["1", "10", "100", "1000", "10000"]);
        let narrow = Axis::decades("n", [2.0, 9.0]);
        assert!(texts(&narrow, 4).contains(&"4".to_owned()), "{narrow:?}");
    }

    #[test]
    fn marks_come_out_in_their_inks_and_within_the_picture() {
        let x = Axis::around("step", [0.0, 10.0]);
        let y = Axis::around("loss", [0.0, 2.0]);
        let points = vec![(0.0, 2.0), (5.0, 1.0), (10.0, 0.0)];
        let marks = vec![
            Mark::Band {
                points: vec![(0.0, 0.5, 2.0), (10.0, 0.0, 1.0)],
                ink: Ink::Help,
            },
            Mark::Line {
                points: points.clone(),
                ink: Ink::Harm,
            },
            Mark::Dots {
                points,
                ink: Ink::Series(3),
                shape: 0,
                size: 3,
            },
        ];
        let size = Size {
            width: 300,
            height: 200,
            alone: false,
        };
        let svg = Plot::new(x, y, marks).svg(size).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("#C24A00") && svg.contains("#0067A3") && svg.contains("#CC79A7"));
        assert!(svg.contains("step") && svg.contains("loss"));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn an_axis_without_extent_is_refused_and_one_value_gets_room() {
        let good = Axis::around("x", [3.0]);
        assert!(good.range.0 < 3.0 && good.range.1 > 3.0);
        let bad = good.clone().ends(1.0, 1.0);
        let size = Size {
            width: 300,
            height: 200,
            alone: true,
        };
        let error = Plot::new(good, bad, Vec::new()).svg(size).unwrap_err();
        assert!(error.to_string().contains("`x`"), "{error}");
    }
}
