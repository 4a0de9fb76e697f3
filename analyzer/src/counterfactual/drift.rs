//! Whether retraining with all examples leads to the recorded parameters.

use hindcast_model::vectors::norm_of;
use serde::Serialize;

/// Largest distance, relative to the movement of training, that is accepted without measuring the effect of rounding.
/// Rounding of another processor moved the end of the runs that were tried by less than a thousandth.
const ACCEPTED: f64 = 1e-2;

/// Largest distance in multiples of the distance that a change of the last digits of the start causes. A different
/// processor rounds in every step and not only at the start, so its distance is larger by some multiple. In a training
/// that is so chaotic that a last digit changes the end altogether, no distance is beyond rounding.
const MULTIPLE: f64 = 100.0;

/// Distance of the retraining with all examples from the recorded run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drift {
    /// `‖θ − θ_T‖ / ‖θ_T − θ_A‖` for the retrained parameters θ: the distance relative to the way that the recorded
    /// training went. 0 if the bits agree.
    pub of_movement: f64,
    /// The same for two retrainings with all examples whose starts differ in their last digits. `None` if it wasn't
    /// measured, because the distance is small or the starts were changed anyway.
    pub by_rounding: Option<f64>,
}

impl Drift {
    /// Whether the retraining leads to the recorded parameters, as far as rounding allows. If not, what was recorded isn't
    /// what trained, and changes relative to the retraining say nothing about the recorded run.
    pub fn is_reproduced(&self) -> bool {
        match self.by_rounding {
            // Written so that NaN is not reproduced.
            Some(rounding) => {
                self.of_movement <= ACCEPTED || self.of_movement <= MULTIPLE * rounding
            }
            None => true,
        }
    }

    /// Whether the effect of rounding has to be measured.
    pub(super) fn is_suspicious(&self) -> bool {
        self.of_movement.is_nan() || self.of_movement > ACCEPTED
    }
}

/// `‖a − b‖ / ‖end − start‖`; 0 if a and b are equal.
pub(super) fn of_movement(a: &[f64], b: &[f64], start: &[f64], end: &[f64]) -> f64 {
    let distance = |x: &[f64], y: &[f64]| norm_of(x.iter().zip(y).map(|(x, y)| x - y));
    let gap = distance(a, b);
    if gap == 0.0 {
        return 0.0;
    }
    gap / distance(end, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_relative_to_the_movement_and_to_rounding() {
        let start = [1.0, 1.0];
        let end = [4.0, 5.0];
        assert_eq!(of_movement(&end, &end, &start, &end), 0.0);
        assert_eq!(of_movement(&[4.0, 6.0], &end, &start, &end), 0.2);
        let drift = |of_movement, by_rounding| Drift {
            of_movement,
            by_rounding,
        };
        assert!(!drift(0.001, None).is_suspicious() && drift(0.001, None).is_reproduced());
        assert!(drift(0.2, None).is_suspicious() && drift(f64::NAN, None).is_suspicious());
        assert!(!drift(0.2, Some(1e-6)).is_reproduced());
        assert!(drift(0.2, Some(0.1)).is_reproduced());
        assert!(!drift(f64::NAN, Some(0.1)).is_reproduced());
    }
}
