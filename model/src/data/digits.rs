//! Generated digits: ten stroke glyphs under random affine maps, with a pen of random width and noise.
//!
//! They look like handwritten digits and need no file and no network. Each digit can be generated separately, because
//! example i of a split depends only on the seed, the split and i. The code uses only additions, products, quotients and
//! square roots. IEEE 754 defines their rounding, so the bytes are the same on all machines.

use super::DataError;
use super::glyphs::{GLYPHS, Glyph, Point};
use super::store::{Labels, Rows, Values};
use crate::objective::Split;
use crate::random::{Purpose, Stream};
use rayon::prelude::*;
use std::path::Path;

/// Width and height in pixels.
pub(super) const SIDE: usize = 28;
/// Default number of examples of a split.
pub(super) const fn size(split: Split) -> u64 {
    match split {
        Split::Train => 5000,
        Split::Validation | Split::Test => 1000,
    }
}

/// Default share of wrong training labels.
pub(super) const FLIPPED: f64 = 0.08;
/// Largest number of examples of a split, which needs 8 GB of memory.
const MAX_EXAMPLES: u64 = 10_000_000;
/// Number of straight segments of a curve between two points.
const PIECES: usize = 6;

/// Generates `count` examples of a split.
pub(super) fn draw(count: u64, split: Split, seed: u64) -> Result<Rows, DataError> {
    // The number of the split in its random stream.
    let number = match split {
        Split::Train => 0,
        Split::Validation => 1,
        Split::Test => 2,
    };
    let rows = usize::try_from(count)
        .ok()
        .filter(|_| count <= MAX_EXAMPLES)
        .ok_or_else(|| {
            DataError::spec(
                split.name(),
                format!("expected at most {MAX_EXAMPLES} generated digits, got {count}"),
            )
        })?;
    let mut pixels = vec![0u8; rows * SIDE * SIDE];
    let mut classes = vec![0u32; rows];
    pixels
        .par_chunks_exact_mut(SIDE * SIDE)
        .zip(classes.par_iter_mut())
        .enumerate()
        .for_each(|(i, (image, class))| {
            let mut stream = Stream::of_example(seed, i as u64, Purpose::Synthetic(number));
            *class = stream.below(10) as u32;
            draw_one(&mut stream, *class, image);
        });
    let name = format!("digits/{}", split.name());
    let name = Path::new(&name);
    Rows::new(
        name,
        name,
        vec![1, SIDE, SIDE],
        rows,
        Values::U8(pixels),
        Labels::Classes(classes),
    )
}

/// Generates one digit of this class.
fn draw_one(stream: &mut Stream, class: u32, image: &mut [u8]) {
    let variants = GLYPHS.get(class as usize).copied().unwrap_or_default();
    let chosen = stream.below(variants.len() as u64) as usize;
    let glyph = variants.get(chosen).copied().unwrap_or_default();
    let pose = Pose::random(stream);
    let half_width = stream.uniform_in(0.75, 1.6);
    let ink = stream.uniform_in(190.0, 255.0);
    let wobble = stream.uniform_in(0.01, 0.045);
    let grain = stream.uniform_in(4.0, 22.0);

    let mut nearest = [f64::INFINITY; SIDE * SIDE];
    for line in strokes(glyph, stream, wobble) {
        let line: Vec<Point> = line.iter().map(|p| pose.apply(*p)).collect();
        for pair in line.windows(2) {
            if let [a, b] = pair {
                approach(&mut nearest, *a, *b, half_width + 1.0);
            }
        }
    }
    for (pixel, square) in image.iter_mut().zip(nearest) {
        // The share of the pixel that the pen covers.
        let cover = (half_width + 0.5 - square.sqrt()).clamp(0.0, 1.0);
        // A sum of five uniforms of twelve bits each, which is nearly normal and needs no logarithm.
        let bits = stream.next_u64();
        let sum: u64 = (0..5).map(|k| bits >> (12 * k) & 0xfff).sum();
        let noise = (sum as f64 / 4096.0 - 2.5) * 1.55;
        *pixel = (cover * ink + grain * noise).clamp(0.0, 255.0) as u8;
    }
}

/// The points of each stroke, randomly displaced and joined by curves.
fn strokes(glyph: Glyph, stream: &mut Stream, wobble: f64) -> Vec<Vec<Point>> {
    let mut lines = Vec::with_capacity(glyph.len());
    // A point that several strokes share is displaced once, so that the strokes still meet.
    let mut moved: Vec<(Point, Point)> = Vec::new();
    for stroke in glyph {
        let mut points = Vec::with_capacity(stroke.points.len());
        for &p in stroke.points {
            let known = moved.iter().find(|(from, _)| *from == p).map(|(_, to)| *to);
            let to = known.unwrap_or_else(|| {
                let to = (
                    p.0 + stream.uniform_in(-wobble, wobble),
                    p.1 + stream.uniform_in(-wobble, wobble),
                );
                moved.push((p, to));
                to
            });
            points.push(to);
        }
        lines.push(if stroke.curved {
            curve(&points)
        } else {
            points
        });
    }
    lines
}

/// A Catmull-Rom curve through the points. It is closed if the first and the last point are equal.
fn curve(points: &[Point]) -> Vec<Point> {
    let n = points.len();
    if n < 3 {
        return points.to_vec();
    }
    let closed = points.first() == points.last();
    let at = |i: i64| -> Point {
        let last = n as i64 - 1;
        let i = match (closed, i) {
            (true, -1) => last - 1,
            (true, i) if i > last => 1,
            (_, i) => i.clamp(0, last),
        };
        points.get(i as usize).copied().unwrap_or_default()
    };
    let mut out = Vec::with_capacity(n * PIECES);
    for i in 0..n as i64 - 1 {
        let (a, b, c, d) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for k in 0..PIECES {
            let t = k as f64 / PIECES as f64;
            let axis = |a: f64, b: f64, c: f64, d: f64| {
                0.5 * (2.0 * b
                    + (c - a) * t
                    + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
                    + (3.0 * b - a - 3.0 * c + d) * t * t * t)
            };
            out.push((axis(a.0, b.0, c.0, d.0), axis(a.1, b.1, c.1, d.1)));
        }
    }
    out.push(at(n as i64 - 1));
    out
}

/// The map from a glyph's unit square to pixels.
struct Pose {
    row: [(f64, f64); 2],
    centre: Point,
}

impl Pose {
    fn random(stream: &mut Stream) -> Self {
        // The tangent of half the angle, about ±17 degrees. It gives sine and cosine by rational functions.
        let t = stream.uniform_in(-0.15, 0.15);
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let height = stream.uniform_in(15.5, 21.0);
        let width = height * stream.uniform_in(0.55, 0.9);
        let shear = stream.uniform_in(-0.25, 0.25);
        let centre = (
            13.5 + stream.uniform_in(-2.0, 2.0),
            13.5 + stream.uniform_in(-2.0, 2.0),
        );
        // Scale, then shear along x, then rotate.
        let row = [
            (cos * width, (cos * shear - sin) * height),
            (sin * width, (sin * shear + cos) * height),
        ];
        Self { row, centre }
    }

    fn apply(&self, p: Point) -> Point {
        let (x, y) = (p.0 - 0.5, p.1 - 0.5);
        let [a, b] = self.row;
        (
            self.centre.0 + a.0 * x + a.1 * y,
            self.centre.1 + b.0 * x + b.1 * y,
        )
    }
}

/// Updates each pixel's squared distance to the nearest line with the line from a to b. Pixels farther than `reach`
/// from it may be left out.
fn approach(nearest: &mut [f64], a: Point, b: Point, reach: f64) {
    let span = |a: f64, b: f64| {
        let low = (a.min(b) - reach).max(0.0) as usize;
        let high = ((a.max(b) + reach).max(0.0) as usize + 1).min(SIDE);
        low.min(high)..high
    };
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = dx * dx + dy * dy;
    for y in span(a.1, b.1) {
        for x in span(a.0, b.0) {
            let (px, py) = (x as f64 - a.0, y as f64 - a.1);
            let along = if length > 0.0 {
                ((px * dx + py * dy) / length).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let (ex, ey) = (px - along * dx, py - along * dy);
            if let Some(square) = nearest.get_mut(y * SIDE + x) {
                *square = square.min(ex * ex + ey * ey);
            }
        }
    }
}
