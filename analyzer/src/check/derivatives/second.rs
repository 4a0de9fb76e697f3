//! The derivatives that a sweep needs: products with per-example gradients and with the Hessian, and the buffers'
//! adjoints.

use hindcast_model::objective::Mode;
use hindcast_model::vectors::{dot, norm};

use super::differences::{Agreement, Limits, Noise, Quantity, agreements, moved};
use super::directions::{Part, balanced, natural, parts, slopes};
use super::evaluate::Evaluator;
use super::first::Checked;
use super::report::Rows;
use crate::engine::{Products, StepGradient};
use crate::error::Result;

/// Compares the engine's products with differences of the gradient, in `directions` random directions.
pub(super) fn second(
    evaluator: &mut Evaluator<'_>,
    checked: &Checked,
    directions: usize,
    noise: &mut Noise,
    rows: &mut Rows,
) -> Result<()> {
    let point = *evaluator.point;
    let gradient = &checked.gradient;
    let mut parts = parts(evaluator.objective);
    parts.truncate(evaluator.objective.parameters().len());
    let mut check = Second {
        losses: rows.of_losses(evaluator.precision),
        gradients: rows.of_gradients(evaluator.precision),
        evaluator,
        gradient,
        blur: checked.blur,
        parts: &parts,
        rows,
    };
    for k in 0..directions.max(1) {
        let s = if k == 0 {
            natural(noise, point.parameters, &parts)
        } else {
            let slope = check.evaluator.precision.slope * gradient.loss.abs();
            let g = &gradient.parameters;
            balanced(noise, point.parameters, g, &parts, slope)
        };
        // ρ = 0 gives the Hessian alone, which is compared tensor by tensor.
        let rho = noise.vector(point.buffers.len(), 1.0);
        let zero = vec![0.0; rho.len()];
        let got = if rho.is_empty() {
            check.evaluator.products(&[&s], &[zero])
        } else {
            check.evaluator.products(&[&s, &s], &[zero, rho.clone()])
        };
        let got = match got {
            Ok(got) => got,
            Err(e) => {
                check.rows.problem("second derivatives".to_owned(), &e);
                return Ok(());
            }
        };
        if got.stopped {
            check.examples(&got, &s, k)?;
        } else {
            check.along_itself(&got, &s, k)?;
        }
        // The Jacobian of a gradient with constants isn't symmetric, so its product with s isn't a difference along s.
        if got.stopped || !rho.is_empty() {
            check.across(&got, &s, &rho, noise, k)?;
        }
    }
    Ok(())
}

/// Share of the largest element of the whole gradient that the rounding of a tensor's gradient may have as its size: terms
/// may cancel. The key biases of softmax attention have no gradient, but its rounding.
const CANCELLING: f64 = 1.0 / 16.0;

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// All values as one part.
fn whole(values: &[f64]) -> Part {
    Part {
        name: String::new(),
        range: 0..values.len(),
    }
}

struct Second<'a, 'b> {
    evaluator: &'a mut Evaluator<'b>,
    gradient: &'a StepGradient,
    /// How much larger roundings are than those of values of the same size.
    blur: f64,
    parts: &'a [Part],
    losses: Limits,
    gradients: Limits,
    rows: &'a mut Rows,
}

impl Second<'_, '_> {
    /// `H s` and `<s, g_j>` are the slopes of the gradient and of the losses along s.
    fn along_itself(&mut self, got: &Products, s: &[f64], k: usize) -> Result<()> {
        let p = s.len();
        let all = largest(&self.gradient.parameters);
        let mut quantities: Vec<Quantity<'_>> = self
            .parts
            .iter()
            .map(|part| Quantity {
                exact: &got.hessian[0][part.range.clone()],
                of: part.range.clone(),
                scale: self.blur
                    * largest(&self.gradient.parameters[part.range.clone()]).max(CANCELLING * all),
                size: 0.0,
            })
            .collect();
        quantities.push(Quantity {
            exact: &got.products[0],
            of: p..p + got.products[0].len(),
            scale: self.blur * largest(&self.gradient.per_example),
            size: 0.0,
        });
        let point = *self.evaluator.point;
        let distances = self.evaluator.precision.of_gradients;
        let mut found = agreements(&quantities, self.gradients, distances, |h| {
            let at = moved(point.parameters, s, h);
            let mut g = self.evaluator.gradient(&at, point.buffers, Mode::Train)?;
            g.parameters.append(&mut g.per_example);
            Ok(g.parameters)
        })?;
        let examples = found.split_off(found.len() - 1);
        let direction = k + 1;
        self.rows.row(
            format!("gradients of single examples, direction {direction}"),
            examples[0],
        );
        // A NaN is wrong.
        let right = |found: &Agreement| found.error <= self.gradients.tolerance;
        if found.iter().all(right) {
            let worst = Agreement::worst(&found);
            self.rows
                .row(format!("Hessian-vector product {direction}"), worst);
        }
        for (part, found) in self.parts.iter().zip(found).filter(|(_, a)| !right(a)) {
            let what = format!("Hessian-vector product {direction} in {}", part.name);
            self.rows.row(what, found);
        }
        Ok(())
    }

    /// `<s, g_j>` are the slopes of the losses along s if the constants of the gradient are held.
    fn examples(&mut self, got: &Products, s: &[f64], k: usize) -> Result<()> {
        let quantity = Quantity {
            exact: &got.products[0],
            of: 0..got.products[0].len(),
            scale: self.blur * largest(&self.gradient.per_example),
            size: 0.0,
        };
        let point = *self.evaluator.point;
        let distances = self.evaluator.precision.of_losses;
        let found = agreements(&[quantity], self.losses, distances, |h| {
            let at = moved(point.parameters, s, h);
            let values = self.evaluator.values(&at, point.buffers, Mode::Train)?;
            Ok(values.per_example)
        })?;
        self.rows.row(
            format!("gradients of single examples, direction {}", k + 1),
            found[0],
        );
        Ok(())
    }

    /// The engine computed the derivatives of `<s, g> + <ρ, r_out>` in θ and r, where g is the step's gradient. They are
    /// compared along another direction in θ, and along one in r.
    fn across(
        &mut self,
        got: &Products,
        s: &[f64],
        rho: &[f64],
        noise: &mut Noise,
        k: usize,
    ) -> Result<()> {
        let point = *self.evaluator.point;
        let (hessian, adjoint) = match got.hessian.len() {
            1 => (&got.hessian[0], &got.buffer_adjoints[0]),
            _ => (&got.hessian[1], &got.buffer_adjoints[1]),
        };
        let terms = s.iter().zip(&self.gradient.parameters);
        let scale = self.blur * terms.map(|(s, g)| (s * g).abs()).sum::<f64>();
        let floor = self.evaluator.precision.slope * scale;
        let w = balanced(noise, point.parameters, hessian, self.parts, floor);
        let wr = natural(noise, point.buffers, &[whole(point.buffers)]);
        let of_parts = slopes(hessian, &w, self.parts);
        let still = (vec![0.0; w.len()], vec![0.0; wr.len()]);
        let what = if got.stopped {
            "Jacobian of the gradient"
        } else {
            "statistics and Hessian"
        };
        let mut both = vec![(what, of_parts.iter().sum(), norm(&of_parts), (&w, &still.1))];
        if !wr.is_empty() {
            let slope = dot(adjoint, &wr);
            both.push(("adjoint of the buffers", slope, 0.0, (&still.0, &wr)));
        }
        let distances = self.evaluator.precision.of_gradients;
        for (what, exact, size, (w, wr)) in both {
            let exact = [exact];
            let quantity = Quantity {
                exact: &exact,
                of: 0..1,
                scale,
                size,
            };
            let found = agreements(&[quantity], self.gradients, distances, |h| {
                let theta = moved(point.parameters, w, h);
                let r = moved(point.buffers, wr, h);
                let g = self.evaluator.gradient(&theta, &r, Mode::Train)?;
                Ok(vec![dot(&g.parameters, s) + dot(&g.buffers_after, rho)])
            })?;
            self.rows.row(format!("{what} {}", k + 1), found[0]);
        }
        Ok(())
    }
}
