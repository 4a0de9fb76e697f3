//! Random directions over all parameters and buffers at once, in which every tensor counts.

use std::ops::Range;

use hindcast_model::objective::Objective;
use hindcast_model::vectors::{dot, norm};

use super::differences::Noise;
use crate::engine::flat;

/// Smallest size of a tensor's values that its part of a direction is scaled to; new biases are zero.
const SMALLEST: f64 = 0.05;

/// A parameter or a buffer, as a part of the flat vector of all parameters and then all buffers.
pub(super) struct Part {
    pub name: String,
    pub range: Range<usize>,
}

/// The parts of an objective's flat vectors, parameters first.
pub(super) fn parts(objective: &dyn Objective) -> Vec<Part> {
    let mut start = 0;
    let defs = objective.parameters().iter().chain(objective.buffers());
    defs.map(|def| {
        let range = start..start + flat::elements(def);
        start = range.end;
        Part {
            name: def.name.clone(),
            range,
        }
    })
    .collect()
}

/// A direction with noise in all parts, scaled to the size of each part's values.
pub(super) fn natural(noise: &mut Noise, values: &[f64], parts: &[Part]) -> Vec<f64> {
    let mut direction = Vec::with_capacity(values.len());
    for part in parts {
        let here = &values[part.range.clone()];
        direction.extend(noise.vector(here.len(), size(here)));
    }
    direction
}

/// A natural direction whose parts are scaled down so that they change the loss by about as much as the part that changes
/// it least, but by no less than `slope` per unit. So an error in one tensor is as large as in another.
pub(super) fn balanced(
    noise: &mut Noise,
    values: &[f64],
    gradient: &[f64],
    parts: &[Part],
    slope: f64,
) -> Vec<f64> {
    let mut direction = natural(noise, values, parts);
    // Expected slope of noise uniform in ±size.
    let expected = |part: &Part| {
        let range = part.range.clone();
        size(&values[range.clone()]) * norm(&gradient[range]) / 3.0_f64.sqrt()
    };
    let slopes: Vec<f64> = parts.iter().map(expected).collect();
    let measurable = slopes.iter().copied().filter(|&s| s >= slope);
    let least = measurable.fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { slope };
    for (part, expected) in parts.iter().zip(slopes) {
        if expected > least {
            direction[part.range.clone()]
                .iter_mut()
                .for_each(|v| *v *= least / expected);
        }
    }
    direction
}

/// The direction's slope in each part.
pub(super) fn slopes(gradient: &[f64], direction: &[f64], parts: &[Part]) -> Vec<f64> {
    parts
        .iter()
        .map(|part| {
            dot(
                &gradient[part.range.clone()],
                &direction[part.range.clone()],
            )
        })
        .collect()
}

/// Root mean square of a tensor's values, or the smallest size.
fn size(values: &[f64]) -> f64 {
    (norm(values) / (values.len().max(1) as f64).sqrt()).max(SMALLEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_balanced_direction_has_about_the_same_slope() {
        let ranges = [0..400, 400..800, 800..1200];
        let parts: Vec<Part> = ranges
            .map(|range| Part {
                name: String::new(),
                range,
            })
            .into();
        let values = vec![1.0; 1200];
        let mut gradient = vec![1.0; 400];
        gradient.extend(vec![1e-3; 400]);
        gradient.extend(vec![0.0; 400]);
        let v = balanced(&mut Noise::new(1), &values, &gradient, &parts, 1e-4);
        let size = |range: Range<usize>| norm(&v[range]) / 20.0 * 3.0_f64.sqrt();
        // The second part has the smallest slope, and the third has none.
        let (first, second, third) = (size(0..400), size(400..800), size(800..1200));
        assert!((first / second * 1e3 - 1.0).abs() < 0.2, "{first} {second}");
        assert!((second - 1.0).abs() < 0.1 && (third - 1.0).abs() < 0.1);
        let slopes = slopes(&gradient, &v, &parts);
        assert_eq!(slopes.len(), 3);
        assert_eq!(slopes[2], 0.0);
    }
}
