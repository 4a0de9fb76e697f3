//! First derivatives of the loss, in all tensors at once; in single tensors only if something is wrong.

use hindcast_model::objective::Mode;
use hindcast_model::vectors::norm;

use super::differences::{Agreement, Limits, Noise, Quantity, agreements, moved};
use super::directions::{Part, balanced, natural, parts, slopes};
use super::evaluate::Evaluator;
use super::messages::{doing_derivatives, explained};
use super::report::Rows;
use crate::engine::StepGradient;
use crate::error::{AnalysisError, Result};

/// A gradient that was checked.
pub(super) struct Checked {
    pub gradient: StepGradient,
    /// How much larger the rounding of the loss is than that of a value of its size; at least 1.
    pub blur: f64,
}

/// Compares the gradient of the loss in one mode with differences of the loss in `directions` random directions. Returns
/// the gradient, or `None` if there is none.
pub(super) fn first(
    evaluator: &mut Evaluator<'_>,
    mode: Mode,
    directions: usize,
    noise: &mut Noise,
    rows: &mut Rows,
) -> Result<Option<Checked>> {
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
    let precision = evaluator.precision;
    let all_parts = parts(evaluator.objective);
    let values = [point.parameters, point.buffers].concat();
    let scale = size_of_rounding(evaluator, mode, got.loss, &values, &all_parts)?;
    let search = Search {
        evaluator,
        mode,
        name,
        parts: &all_parts,
        values,
        gradient: [got.parameters.as_slice(), &got.buffers].concat(),
        scale,
        limits: rows.of_losses(precision),
    };
    for k in 0..directions + precision.more_directions {
        // In the first direction, every tensor moves by its own size; in the others, all count.
        let direction = if k == 0 {
            natural(noise, &search.values, search.parts)
        } else {
            let slope = precision.slope * search.scale;
            balanced(noise, &search.values, &search.gradient, search.parts, slope)
        };
        let all = slopes(&search.gradient, &direction, search.parts);
        let what = format!("gradient of the {name} loss, direction {}", k + 1);
        let found = search.agreement(&direction, &all, search.parts)?;
        if search.passes(found) {
            rows.row(what, found);
            continue;
        }
        let before = rows.failures();
        search.narrow(&direction, &all, search.parts, found, rows)?;
        if rows.failures() == before {
            if precision.retries > 0 {
                // Every tensor agrees for itself, so a kink in the sum is off, and not a gradient.
                continue;
            }
            // Only the sum over all tensors is off.
            rows.row(what, found);
        }
        break;
    }
    let blur = if got.loss == 0.0 {
        1.0
    } else {
        scale / got.loss.abs()
    };
    Ok(Some(Checked {
        gradient: got,
        blur,
    }))
}

/// The size of a value that has the rounding of the loss. That is |f|, or more: a cross entropy near 0 has the rounding of
/// the logits. Measured with third differences of the losses of single examples, which are zero for smooth losses.
fn size_of_rounding(
    evaluator: &Evaluator<'_>,
    mode: Mode,
    loss: f64,
    values: &[f64],
    parts: &[Part],
) -> Result<f64> {
    /// Standard deviation of a third difference of values with independent errors of 1: √(1 + 9 + 9 + 1).
    const SPREAD: f64 = 4.472_135_954_999_58;
    /// Standard deviation of the rounding of a typical loss, in units of ε |f|. The bounds are larger.
    const TYPICAL: f64 = 8.0;
    /// Logits and other values that a small loss comes from are seldom larger. More rounding than theirs is that of a part
    /// that computes in another float type, and must not pass for rounding in this one.
    const LARGEST: f64 = 16.0;
    let precision = evaluator.precision;
    // Noise of its own, so that the directions of the check don't depend on this.
    let direction = natural(&mut Noise::new(15), values, parts);
    let p = evaluator.point.parameters.len();
    let at = |steps: f64| {
        let at = moved(values, &direction, steps * precision.near);
        let (theta, r) = at.split_at(p);
        Ok::<_, AnalysisError>(evaluator.values(theta, r, mode)?.per_example)
    };
    let (a, b, c, d) = (at(-3.0)?, at(-1.0)?, at(1.0)?, at(3.0)?);
    let mut rounding: Vec<f64> = (0..a.len())
        .map(|j| (d[j] - 3.0 * c[j] + 3.0 * b[j] - a[j]).abs() / SPREAD)
        .collect();
    // A quarter of the examples may have crossed a kink.
    rounding.sort_by(f64::total_cmp);
    let index = (3 * rounding.len() / 4).min(rounding.len().saturating_sub(1));
    let measured = rounding.get(index).copied().filter(|x| x.is_finite());
    let measured = measured.unwrap_or(0.0) / (TYPICAL * precision.epsilon);
    Ok(loss.abs().max(measured.min(LARGEST)))
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
    /// Size of the loss, as far as rounding is concerned.
    scale: f64,
    limits: Limits,
}

impl Search<'_> {
    /// Whether a quantity is right. A NaN is wrong.
    fn passes(&self, found: Agreement) -> bool {
        found.error <= self.limits.tolerance
    }

    /// Agreement of the slope along a direction in some of the parts.
    fn agreement(&self, direction: &[f64], slopes: &[f64], parts: &[Part]) -> Result<Agreement> {
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
        let found = agreements(&[quantity], self.limits, distances, |h| {
            let at = moved(&self.values, &along, h);
            let (theta, r) = at.split_at(p);
            Ok(vec![self.evaluator.values(theta, r, self.mode)?.loss])
        })?;
        Ok(found[0])
    }

    /// Whether one part is wrong in other directions, too.
    fn fails_again(&self, part: &Part) -> Result<bool> {
        let mut noise = Noise::new(19);
        for _ in 0..self.evaluator.precision.retries {
            let direction = natural(&mut noise, &self.values, self.parts);
            let parts = std::slice::from_ref(part);
            let slopes = slopes(&self.gradient, &direction, parts);
            if self.passes(self.agreement(&direction, &slopes, parts)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds the tensors with a wrong gradient by halving the parts, whose slope is wrong as `found`.
    fn narrow(
        &self,
        direction: &[f64],
        slopes: &[f64],
        parts: &[Part],
        found: Agreement,
        rows: &mut Rows,
    ) -> Result<()> {
        if let [part] = parts {
            if self.fails_again(part)? {
                let what = format!("gradient of the {} loss in {}", self.name, part.name);
                rows.row(what, found);
            }
            return Ok(());
        }
        let middle = parts.len() / 2;
        let halves = [
            (&parts[..middle], &slopes[..middle]),
            (&parts[middle..], &slopes[middle..]),
        ];
        for (parts, slopes) in halves {
            let found = self.agreement(direction, slopes, parts)?;
            if !self.passes(found) {
                self.narrow(direction, slopes, parts, found, rows)?;
            }
        }
        Ok(())
    }
}
