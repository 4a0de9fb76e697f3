//! First derivatives of the loss, in all tensors at once; in single tensors only if something is wrong.

use hindcast_model::objective::Mode;
use hindcast_model::vectors::norm;

use super::differences::{Limits, Noise, Quantity, agreements, moved};
use super::directions::{Part, balanced, natural, parts, slopes};
use super::evaluate::Evaluator;
use super::messages::{doing_derivatives, explained};
use super::report::Rows;
use crate::engine::StepGradient;
use crate::error::{AnalysisError, Result};

/// Compares the gradient of the loss in one mode with differences of the loss in `directions` random directions. Returns
/// the gradient, or `None` if there is none.
pub(super) fn first(
    evaluator: &mut Evaluator<'_>,
    mode: Mode,
    directions: usize,
    noise: &mut Noise,
    rows: &mut Rows,
) -> Result<Option<StepGradient>> {
    let name = match mode {
        Mode::Train => "training",
        Mode::Evaluate => "evaluation",
    };
    let point = *evaluator.point;
    let got = match evaluator.gradient(point.parameters, point.buffers, mode) {
        Ok(got) => got,
        Err(e) if is_finding(&e) => {
            rows.problem(format!("gradient of the {name} loss"), &e);
            return Ok(None);
        }
        Err(e) => return Err(explained(e)),
    };
    let search = Search {
        evaluator,
        mode,
        name,
        parts: &parts(evaluator.objective),
        values: [point.parameters, point.buffers].concat(),
        gradient: [got.parameters.as_slice(), &got.buffers].concat(),
        scale: got.loss.abs(),
        limits: rows.limits(evaluator.precision),
    };
    for k in 0..directions {
        // In the first direction, every tensor moves by its own size; in the others, all count.
        let direction = if k == 0 {
            natural(noise, &search.values, search.parts)
        } else {
            let slope = evaluator.precision.slope * search.scale;
            balanced(noise, &search.values, &search.gradient, search.parts, slope)
        };
        let all = slopes(&search.gradient, &direction, search.parts);
        let error = search.error(&direction, &all, search.parts)?;
        if error <= search.limits.tolerance {
            rows.row(
                format!("gradient of the {name} loss, direction {}", k + 1),
                error,
            );
            continue;
        }
        let before = rows.failures();
        search.narrow(&direction, &all, search.parts, error, rows)?;
        if rows.failures() == before {
            // Only the sum over all tensors is off.
            rows.row(
                format!("gradient of the {name} loss, direction {}", k + 1),
                error,
            );
        }
        break;
    }
    Ok(Some(got))
}

/// Whether an error is a derivative that is missing, and not one of the forward pass.
fn is_finding(error: &AnalysisError) -> bool {
    matches!(error, AnalysisError::EnginePanicked { .. }) || doing_derivatives(error)
}

struct Search<'a> {
    evaluator: &'a Evaluator<'a>,
    mode: Mode,
    name: &'static str,
    parts: &'a [Part],
    /// θ and then r.
    values: Vec<f64>,
    /// The gradient in θ and then in r.
    gradient: Vec<f64>,
    /// Size of the loss.
    scale: f64,
    limits: Limits,
}

impl Search<'_> {
    /// Relative error of the slope along a direction in some of the parts.
    fn error(&self, direction: &[f64], slopes: &[f64], parts: &[Part]) -> Result<f64> {
        let exact = [slopes.iter().sum()];
        let quantity = Quantity {
            exact: &exact,
            of: 0..1,
            scale: self.scale,
            // Slopes of different parts may cancel.
            size: norm(slopes),
        };
        let p = self.evaluator.point.parameters.len();
        let mut along = vec![0.0; direction.len()];
        for part in parts {
            let range = part.range.clone();
            along[range.clone()].copy_from_slice(&direction[range]);
        }
        let distances = self.evaluator.precision.of_losses;
        let errors = agreements(&[quantity], self.limits, distances, |h| {
            let at = moved(&self.values, &along, h);
            let (theta, r) = at.split_at(p);
            Ok(vec![self.evaluator.values(theta, r, self.mode)?.loss])
        })?;
        Ok(errors[0])
    }

    /// Finds the tensors with a wrong gradient by halving the parts, whose slope is wrong by `error`.
    fn narrow(
        &self,
        direction: &[f64],
        slopes: &[f64],
        parts: &[Part],
        error: f64,
        rows: &mut Rows,
    ) -> Result<()> {
        if let [part] = parts {
            rows.row(
                format!("gradient of the {} loss in {}", self.name, part.name),
                error,
            );
            return Ok(());
        }
        let middle = parts.len() / 2;
        let halves = [
            (&parts[..middle], &slopes[..middle]),
            (&parts[middle..], &slopes[middle..]),
        ];
        for (parts, slopes) in halves {
            let error = self.error(direction, slopes, parts)?;
            // A NaN is wrong, too.
            if error > self.limits.tolerance || error.is_nan() {
                self.narrow(direction, slopes, parts, error, rows)?;
            }
        }
        Ok(())
    }
}
