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
    /// Labels at these positions, instead of numbers.
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
        if decades >= 2 {
            let every = decades.div_ceil(wanted.max(2));
            return (first..=last)
                .step_by(every)
                .map(|e| (f64::from(e), power(e)))
                .collect();
        }
        // Less than two decades: round numbers, at their logarithmic positions.
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
    }
}
