//! Plots as SVG: axes, and marks on them. A page's style sheet can replace the colours, so that one drawing fits a light and a
//! dark page.

mod axis;
mod marks;

use std::path::Path;

use anyhow::Context as _;
use plotters::coord::types::RangedCoordf64;
use plotters::element::PathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use axis::{scaled, scaled_range, ticks, x_ticks};
use hindcast_analyzer::output::{self, FIGURE, Kind};
use hindcast_analyzer::{AnalysisError, Result};
use marks::{key, shapes};

pub(crate) use axis::Axis;
pub(crate) use marks::{Ink, Key, Mark};

const TEXT: RGBColor = RGBColor(0x5b, 0x5d, 0x63);
const GRID: RGBColor = RGBColor(0xe6, 0xe4, 0xdd);

/// A plot's size in pixels, and whether it is a separate file, which needs a background. On a page, a legend of several lines
/// makes the plot higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub width: u32,
    pub height: u32,
    pub alone: bool,
}

/// Height of a line of the legend in pixels.
const KEY_LINE: u32 = 20;

/// Size of a figure in a file of its own.
pub(crate) const FIGURE_SIZE: Size = Size {
    width: 760,
    height: 460,
    alone: true,
};

/// Axes with marks. Later marks are drawn over earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    pub x: Axis,
    pub y: Axis,
    pub marks: Vec<Mark>,
    /// Title above the axes; may be empty.
    pub title: String,
    /// Names of the series: ink, how they are drawn, name.
    pub legend: Vec<(Ink, Key, String)>,
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
    /// If an axis has no extent.
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

    /// Draws the plot into a file, which may replace an earlier one.
    ///
    /// # Errors
    /// If an axis has no extent or the file can't be written.
    pub fn save(&self, size: Size, path: &Path) -> anyhow::Result<()> {
        let svg = self.svg(size)?;
        // Marks the file as ours, so that a later figure may replace it.
        let text = svg.replacen('>', &format!(">\n{FIGURE}"), 1);
        output::replace(path, Kind::Figure, |to| std::fs::write(to, &text))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn draw(&self, svg: &mut String, size: Size) -> std::result::Result<(), Problem> {
        let key_lines = if self.legend.is_empty() {
            0
        } else {
            self.key_rows(size).len() as u32
        };
        let height = if size.alone {
            size.height
        } else {
            size.height + KEY_LINE * key_lines.saturating_sub(1)
        };
        let root = SVGBackend::with_string(svg, (size.width, height)).into_drawing_area();
        if size.alone {
            root.fill(&RGBColor(0xff, 0xff, 0xff))?;
        }
        let head = 18 * i32::from(!self.title.is_empty()) + (KEY_LINE * key_lines) as i32;
        let (top, area) = root.split_vertically(head + 8);
        self.heading(&top, size)?;
        let x = scaled_range(&self.x);
        let y = scaled_range(&self.y);
        let mut builder = ChartBuilder::on(&area);
        builder
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(44)
            .y_label_area_size(self.y_area(size));
        let mut chart = builder.build_cartesian_2d(x, y)?;
        self.axes(&area, &mut chart, size)?;
        for mark in &self.marks {
            self.mark(&area, &mut chart, mark)?;
        }
        root.present()?;
        Ok(())
    }

    /// Width of the area left of the axes: the label, turned, and the widest tick beside it.
    fn y_area(&self, size: Size) -> u32 {
        let ticks = ticks(&self.y, (size.height / 50) as usize);
        let widest = ticks.iter().map(|(_, text)| text.chars().count()).max();
        (32 + 9 * widest.unwrap_or(0) as u32).max(62)
    }

    /// A point's position on the axes.
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

    /// Draws grid lines, ticks and labels.
    fn axes(
        &self,
        area: &Area<'_>,
        chart: &mut Chart<'_>,
        size: Size,
    ) -> std::result::Result<(), Problem> {
        let font = |height: f64| ("sans-serif", height).into_font().color(&TEXT);
        let (xs, ys) = (
            x_ticks(&self.x, size.width - self.y_area(size)),
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
            self.x.caption(),
            (middle, bottom + 25),
            centre.clone(),
        ))?;
        let (_, half) = place(x0, (y0 + y1) / 2.0);
        let turned = centre.transform(FontTransform::Rotate270);
        area.draw(&Text::new(self.y.caption(), (3, half), turned))?;
        Ok(())
    }

    /// The entries of the legend, broken into lines that fit.
    fn key_rows(&self, size: Size) -> Vec<Vec<&(Ink, Key, String)>> {
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

    /// Draws the title and the legend.
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
            for (ink, of, name) in row {
                for element in key((x, y + 7), *ink, *of) {
                    top.draw(&element)?;
                }
                let style = ("sans-serif", 15.0).into_font().color(&TEXT);
                top.draw(&Text::new(name.clone(), (x + 13, y + 1), style))?;
                x += key_width(name);
            }
            y += KEY_LINE as i32;
        }
        Ok(())
    }
}

type Problem = DrawingAreaErrorKind<std::io::Error>;
type Backend<'a> = SVGBackend<'a>;
type Area<'a> = DrawingArea<Backend<'a>, plotters::coord::Shift>;
type Chart<'a> = ChartContext<'a, Backend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Approximate width of a legend entry in pixels.
fn key_width(name: &str) -> i32 {
    37 + 7 * name.chars().count() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_drawn_in_their_colours() {
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
    fn a_key_looks_as_the_mark_that_it_names() {
        let drawn = |of: Key| {
            let axis = || Axis::around("x", [0.0, 1.0]);
            let mut plot = Plot::new(axis(), axis(), Vec::new());
            plot.legend = vec![(Ink::Harm, of, "name".to_owned())];
            let svg = plot.svg(FIGURE_SIZE).unwrap();
            let count = |tag: &str| svg.matches(tag).count();
            (count("<circle"), count("<polyline"), count("#C24A00"))
        };
        let (none, lines, _) = drawn(Key::Band);
        assert_eq!(none, 0);
        assert_eq!(drawn(Key::Line), (0, lines + 1, 1));
        assert_eq!(drawn(Key::Dot(0)), (1, lines, 1));
    }

    #[test]
    fn a_long_legend_makes_a_plot_of_a_page_higher() {
        let height = |entries: usize, alone: bool| {
            let axis = || Axis::around("x", [0.0, 1.0]);
            let mut plot = Plot::new(axis(), axis(), Vec::new());
            plot.legend = vec![
                (
                    Ink::Help,
                    Key::Dot(0),
                    "a name of thirty characters...".to_owned()
                );
                entries
            ];
            let (width, height) = (300, 200);
            let svg = plot
                .svg(Size {
                    width,
                    height,
                    alone,
                })
                .unwrap();
            let height = svg.split("height=\"").nth(1).unwrap();
            height.split('"').next().unwrap().parse::<u32>().unwrap()
        };
        assert_eq!((height(1, false), height(3, false)), (200, 240));
        assert_eq!(height(3, true), 200);
    }

    #[test]
    fn an_axis_without_extent_is_refused_and_a_single_value_gets_one() {
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
