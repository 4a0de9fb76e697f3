//! Axes: ends, scale and ticks.

use crate::words::minus;

/// One of two axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// What the axis shows.
    pub label: String,
    /// Smallest and largest value that fit.
    pub range: (f64, f64),
    /// Whether it is logarithmic; then both ends are above 0.
    pub log: bool,
    /// Labels at these positions, instead of numbers. On a logarithmic axis, the positions are logarithms to base 10.
    pub words: Vec<(f64, String)>,
}

/// The least distance of labels at given values, as a share of a logarithmic axis.
const APART: f64 = 0.07;

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

    /// The label, with the kind of scale unless it is linear.
    pub fn caption(&self) -> String {
        if self.log {
            format!("{} (log scale)", self.label)
        } else {
            self.label.clone()
        }
    }

    /// The same axis with exactly these ends.
    pub fn ends(mut self, low: f64, high: f64) -> Axis {
        self.range = (low, high);
        self
    }

    /// A logarithmic axis with labels at these whole numbers, as far as they have room.
    pub fn at_sizes(label: &str, sizes: &[usize]) -> Axis {
        let mut sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size > 0).collect();
        sizes.sort_unstable();
        let mut axis = Axis::decades(label, sizes.iter().map(|size| *size as f64));
        let range = scaled_range(&axis);
        let mut last = f64::NEG_INFINITY;
        for size in sizes {
            let at = (size as f64).log10();
            if at - last >= APART * (range.end - range.start) {
                axis.words.push((at, size.to_string()));
                last = at;
            }
        }
        axis
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

/// A value's position on the axis. Logarithms are taken here, so that all plots have the same type.
pub(super) fn scaled(axis: &Axis, value: f64) -> f64 {
    if axis.log {
        value.max(axis.range.0).log10()
    } else {
        value
    }
}

/// The positions of the axis's ends.
pub(super) fn scaled_range(axis: &Axis) -> std::ops::Range<f64> {
    scaled(axis, axis.range.0)..scaled(axis, axis.range.1)
}

/// Positions and labels of about `wanted` ticks.
pub(super) fn ticks(axis: &Axis, wanted: usize) -> Vec<(f64, String)> {
    let (low, high) = axis.range;
    if !axis.words.is_empty() {
        return axis.words.clone();
    }
    if axis.log {
        let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
        let decades = usize::try_from(last - first + 1).unwrap_or(0);
        let round = one_two_five(low, high);
        if decades > 2 || (decades == 2 && round.len() > 2 * wanted) {
            let every = decades.div_ceil(wanted.max(2));
            return (first..=last)
                .step_by(every)
                .map(|e| (f64::from(e), power(e)))
                .collect();
        }
        // Few decades: 1, 2 and 5 times powers of ten, or if these are too few, round numbers with equal steps. Both
        // are at their logarithmic positions.
        if round.len() > 2 {
            return round;
        }
        return linear(low, high, wanted)
            .into_iter()
            .filter(|(value, _)| *value > 0.0)
            .map(|(value, text)| (value.log10(), text))
            .collect();
    }
    linear(low, high, wanted)
}

/// Ticks of a horizontal axis of `width` pixels: about one per 90 pixels, or more if these would be only two and there is room.
pub(super) fn x_ticks(axis: &Axis, width: u32) -> Vec<(f64, String)> {
    /// Width of a character of a label, and the least gap between two labels.
    const CHARACTER: usize = 9;
    const GAP: usize = 12;
    let usual = (width / 80) as usize;
    let few = ticks(axis, usual);
    if few.len() > 2 {
        return few;
    }
    let fits = |ticks: &Vec<(f64, String)>| {
        let widths = ticks
            .iter()
            .map(|(_, text)| CHARACTER * text.chars().count() + GAP);
        widths.sum::<usize>() <= width as usize
    };
    let more = (1..4).map(|more| ticks(axis, usual.max(2) + more));
    let mut more = more.filter(|ticks| ticks.len() > 2 && fits(ticks));
    more.next().unwrap_or(few)
}

/// Ticks between `low` and `high`, at least two, with equal steps.
fn linear(low: f64, high: f64, wanted: usize) -> Vec<(f64, String)> {
    let mut step = nice_step((high - low) / wanted.clamp(2, 10) as f64);
    let places = |step: f64| (low / step).ceil() as i64..=(high / step).floor() as i64;
    if places(step).count() < 2 {
        // A tick alone doesn't give the scale.
        step = nice_step(0.4 * step);
    }
    places(step)
        .map(|i| (i as f64 * step, number(i as f64 * step, step)))
        .collect()
}

/// Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten.
fn one_two_five(low: f64, high: f64) -> Vec<(f64, String)> {
    let decades = low.log10().floor() as i32..=high.log10().floor() as i32;
    let all = decades.flat_map(|e| [1.0, 2.0, 5.0].map(|m| (e, m * 10f64.powi(e))));
    all.filter(|(_, value)| (low..=high).contains(value))
        .map(|(e, value)| (value.log10(), number(value, 10f64.powi(e))))
        .collect()
}

/// The smallest step of the form 1, 2 or 5 times a power of 10 that is at least this large.
fn nice_step(at_least: f64) -> f64 {
    let decade = 10f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * decade)
        .find(|step| *step >= 0.999_999 * at_least)
        .unwrap_or(10.0 * decade)
}

/// A tick's label, with as many digits as the step between ticks needs.
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

/// The label of a power of ten.
fn power(exponent: i32) -> String {
    match exponent {
        0..=4 => 10u64.pow(exponent.unsigned_abs()).to_string(),
        -2..=-1 => minus(&format!("{}", 10f64.powi(exponent))),
        _ => minus(&format!("1e{exponent}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis, wanted: usize) -> Vec<String> {
        ticks(axis, wanted).into_iter().map(|(_, t)| t).collect()
    }

    #[test]
    fn ticks_are_at_round_numbers() {
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
    fn a_logarithmic_axis_has_powers_of_ten_or_if_too_few_round_numbers() {
        let axis = Axis::decades("n", [0.0, 1.0, 10_000.0]);
        assert_eq!(texts(&axis, 6), ["1", "10", "100", "1000", "10000"]);
        let narrow = Axis::decades("n", [2.0, 9.0]);
        assert!(texts(&narrow, 4).contains(&"4".to_owned()), "{narrow:?}");
        let losses = Axis::decades("loss", [0.03, 2.5]);
        assert_eq!(
            texts(&losses, 5),
            ["0.05", "0.1", "0.2", "0.5", "1", "2"],
            "{losses:?}"
        );
    }

    #[test]
    fn an_axis_of_sizes_is_labelled_with_the_sizes_that_have_room() {
        let axis = Axis::at_sizes("n", &[30, 10, 100, 101, 300]);
        assert_eq!(texts(&axis, 3), ["10", "30", "100", "300"]);
        assert_eq!(ticks(&axis, 3)[2].0, 2.0);
    }

    #[test]
    fn a_narrow_axis_has_more_than_two_ticks_if_there_is_room() {
        let axis = Axis::around("step", [0.0, 705.0]);
        let texts = |width| -> Vec<String> {
            let found = x_ticks(&axis, width).into_iter();
            found.map(|(_, text)| text).collect()
        };
        assert_eq!(texts(254), ["0", "200", "400", "600"]);
        // Without room, two stay.
        assert_eq!(texts(100).len(), 2);
        assert!(texts(650).len() > 4);
    }

    #[test]
    fn a_tick_is_not_alone() {
        let axis = Axis::around("influence", []).ends(-0.9e-3, 0.9e-3);
        assert!(texts(&axis, 2).len() > 1, "{:?}", texts(&axis, 2));
    }
}
