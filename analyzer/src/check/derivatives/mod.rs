//! Checks an objective's mathematics: every derivative that a sweep needs, against differences in float64.
//!
//! Some of candle's operations have a wrong gradient, some have none, and some have no second derivative. Scores from
//! a wrong derivative look like any others, so an own model is checked once before it is analysed: at the end of the
//! run, on a few of its examples, in a few random directions. If a derivative is wrong, the model's
//! graph is searched for the operation that causes it ([`Fault`]).
//!
//! Kinks raise no false alarm. If a ReLU switches between the two points of a difference, the difference is wrong at
//! some step sizes; if the derivative is wrong, they disagree at all step sizes. So a quantity passes if it agrees at
//! one of several step sizes.

mod differences;
mod fault;
mod known;
mod locate;
mod point;
mod report;

pub use fault::Fault;
pub use known::KnownOperation;
pub use point::CheckPoint;
pub use report::{CheckOptions, CheckReport, CheckRow};

use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_model::objective::{Mode, Objective};
use hindcast_model::vectors::dot;

use crate::engine::{AutodiffEngine, ReplayEngine, StepInput, flat};
use crate::error::{AnalysisError, Missing, Result, Unsupported, without_backtrace};
use crate::run::recorded::RecordedRun;
use differences::{Noise, agreement, moved};

/// Checks a recorded run's objective at the end of the run, on examples of its last recorded batch.
///
/// # Errors
/// The run has no steps, the data lacks an example, or the model can't be run in float64.
pub fn check_run(run: &RecordedRun<'_>, options: &CheckOptions) -> Result<CheckReport> {
    let end = run.source().end()?;
    let last = run
        .source()
        .ranges()?
        .last()
        .map(|range| range.end - 1)
        .ok_or(Missing::Steps)?;
    let meta = run.source().metas(last..last + 1)?.pop();
    let indices: Vec<u64> = meta.map(|m| m.indices).unwrap_or_default();
    let indices = &indices[..indices.len().min(options.examples.max(1))];
    let batch = run.train_batch(indices, last, DType::F64, &Device::Cpu)?;
    let point = CheckPoint {
        parameters: &end.parameters,
        buffers: &end.buffers,
        batch: &batch,
        draws: run.draws(last),
    };
    check_objective(Arc::clone(run.objective()), &point, options)
}

/// Checks an objective at a point, in training and in evaluation mode: gradients in every parameter tensor,
/// per-example gradients, Hessian-vector products, and the adjoints of the buffers.
///
/// # Errors
/// The model can't be run in float64, or sizes don't fit. A derivative that is wrong or missing is a finding, not an
/// error.
pub fn check_objective(
    objective: Arc<dyn Objective>,
    point: &CheckPoint<'_>,
    options: &CheckOptions,
) -> Result<CheckReport> {
    let engine = AutodiffEngine::new(Arc::clone(&objective), DType::F64, &Device::Cpu)?;
    let mut check = Check {
        objective: objective.as_ref(),
        engine,
        point,
        options,
        noise: Noise::new(11),
        rows: Vec::new(),
        weights: vec![1.0 / point.batch.indices.len() as f64; point.batch.indices.len()],
    };
    check.repeats()?;
    let mut fault = None;
    for mode in [Mode::Train, Mode::Evaluate] {
        let before = check.rows.len();
        check.first(mode)?;
        if fault.is_none() && check.failed_since(before) {
            fault = locate::first(objective.as_ref(), point, mode)?;
        }
    }
    let before = check.rows.len();
    check.second()?;
    if fault.is_none() && check.failed_since(before) {
        fault = locate::second(objective.as_ref(), point)?;
    }
    Ok(CheckReport {
        tolerance: options.tolerance,
        rows: check.rows,
        fault,
    })
}

struct Check<'a> {
    objective: &'a dyn Objective,
    engine: AutodiffEngine,
    point: &'a CheckPoint<'a>,
    options: &'a CheckOptions,
    noise: Noise,
    rows: Vec<CheckRow>,
    weights: Vec<f64>,
}

impl Check<'_> {
    fn failed_since(&self, row: usize) -> bool {
        self.rows.iter().skip(row).any(|row| !row.passed)
    }

    /// A step's gradient at (θ, r).
    fn gradient(
        &mut self,
        theta: &[f64],
        r: &[f64],
        mode: Mode,
    ) -> Result<crate::engine::StepGradient> {
        let (batch, weights) = (self.point.batch, std::mem::take(&mut self.weights));
        let gradient = self.engine.gradient(&StepInput {
            parameters: theta.into(),
            buffers: r.into(),
            micro_batches: std::slice::from_ref(batch),
            weights: &weights,
            mode,
            draws: self.point.draws,
        });
        self.weights = weights;
        gradient
    }

    fn row(&mut self, what: String, error: f64) {
        self.rows.push(CheckRow {
            what,
            error,
            // A NaN doesn't pass.
            passed: error <= self.options.tolerance,
            problem: None,
        });
    }

    fn problem(&mut self, what: String, error: &AnalysisError) {
        let text = whole(error);
        self.rows.push(CheckRow {
            what,
            error: f64::INFINITY,
            passed: false,
            problem: Some(text),
        });
    }

    /// Checks that a second forward pass gives the same losses. Otherwise the run can't be replayed, and differences
    /// mean nothing.
    fn repeats(&mut self) -> Result<()> {
        let point = *self.point;
        let mut run = || self.gradient(point.parameters, point.buffers, Mode::Train);
        let (first, again) = match (run(), run()) {
            (Ok(a), Ok(b)) => (a, b),
            // Without a gradient there is nothing to compare. The next rows report that.
            _ => return Ok(()),
        };
        if first.per_example == again.per_example {
            return Ok(());
        }
        Err(Unsupported::RandomForwardPass.into())
    }

    /// First derivatives of the loss in one mode: in every parameter tensor and every buffer.
    fn first(&mut self, mode: Mode) -> Result<()> {
        let point = *self.point;
        let name = match mode {
            Mode::Train => "training",
            Mode::Evaluate => "evaluation",
        };
        let got = match self.gradient(point.parameters, point.buffers, mode) {
            Ok(got) => got,
            Err(e @ AnalysisError::EnginePanicked { .. }) => {
                self.problem(format!("gradient of the {name} loss"), &e);
                return Ok(());
            }
            Err(e @ AnalysisError::Candle { .. }) if doing_derivatives(&e) => {
                self.problem(format!("gradient of the {name} loss"), &e);
                return Ok(());
            }
            Err(e) => return Err(explained(e)),
        };
        let scale = got.loss.abs();
        let objective = self.objective;
        let mut start = 0;
        for def in objective.parameters() {
            let n = flat::elements(def);
            let direction = self.within(point.parameters, start, n);
            let exact = [dot(&got.parameters, &direction)];
            let error = agreement(&exact, scale, |h| {
                let at = moved(point.parameters, &direction, h);
                Ok(vec![self.gradient(&at, point.buffers, mode)?.loss])
            })?;
            self.row(
                format!("gradient of the {name} loss in {}", def.name),
                error,
            );
            start += n;
        }
        let mut start = 0;
        for def in objective.buffers() {
            let n = flat::elements(def);
            let direction = self.within(point.buffers, start, n);
            let exact = [dot(&got.buffers, &direction)];
            let error = agreement(&exact, scale, |h| {
                let at = moved(point.buffers, &direction, h);
                Ok(vec![self.gradient(point.parameters, &at, mode)?.loss])
            })?;
            self.row(
                format!("gradient of the {name} loss in {}", def.name),
                error,
            );
            start += n;
        }
        Ok(())
    }

    /// The derivatives that a sweep needs: products with per-example gradients and with the Hessian, and the buffers'
    /// adjoints.
    fn second(&mut self) -> Result<()> {
        let point = *self.point;
        let (p, b) = (point.parameters.len(), point.buffers.len());
        for k in 0..self.options.directions.max(1) {
            let s = self.within(point.parameters, 0, p);
            let rho = self.noise.vector(b, 1.0);
            let got = match self.engine_products(&s, &rho) {
                Ok(got) => got,
                Err(e) => {
                    self.problem("second derivatives".to_owned(), &e);
                    return Ok(());
                }
            };
            let largest = |x: &[f64]| x.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
            if k == 0 {
                let losses = self.gradient(point.parameters, point.buffers, Mode::Train)?;
                let scale = largest(&losses.per_example);
                let error = agreement(&got.products[0], scale, |h| {
                    let at = moved(point.parameters, &s, h);
                    Ok(self.gradient(&at, point.buffers, Mode::Train)?.per_example)
                })?;
                self.row("gradients of single examples".to_owned(), error);
            }
            // The engine computed the derivatives of <s, ∇f> + <ρ, r_out> in θ and r.
            let w = self.within(point.parameters, 0, p);
            let exact = [dot(&got.hessian[0], &w)];
            let scale = dot_abs(&s, &w);
            let error = agreement(&exact, scale, |h| {
                let at = moved(point.parameters, &w, h);
                let g = self.gradient(&at, point.buffers, Mode::Train)?;
                Ok(vec![dot(&g.parameters, &s) + dot(&g.buffers_after, &rho)])
            })?;
            self.row(format!("Hessian-vector product {}", k + 1), error);
            if b > 0 {
                let w = self.within(point.buffers, 0, b);
                let exact = [dot(&got.buffer_adjoints[0], &w)];
                let error = agreement(&exact, scale, |h| {
                    let at = moved(point.buffers, &w, h);
                    let g = self.gradient(point.parameters, &at, Mode::Train)?;
                    Ok(vec![dot(&g.parameters, &s) + dot(&g.buffers_after, &rho)])
                })?;
                self.row(format!("adjoint of the buffers {}", k + 1), error);
            }
        }
        Ok(())
    }

    fn engine_products(&mut self, s: &[f64], rho: &[f64]) -> Result<crate::engine::Products> {
        let point = *self.point;
        let weights = std::mem::take(&mut self.weights);
        let input = StepInput {
            parameters: point.parameters.into(),
            buffers: point.buffers.into(),
            micro_batches: std::slice::from_ref(point.batch),
            weights: &weights,
            mode: Mode::Train,
            draws: point.draws,
        };
        let products = self.engine.products(&input, &[s], &[rho.to_vec()]);
        self.weights = weights;
        products
    }

    /// Noise in `n` values from `start` on, scaled to the existing values; zeros elsewhere.
    fn within(&mut self, values: &[f64], start: usize, n: usize) -> Vec<f64> {
        let here = &values[start..start + n];
        let size = (here.iter().map(|x| x * x).sum::<f64>() / n.max(1) as f64).sqrt();
        let mut out = vec![0.0; values.len()];
        let noise = self.noise.vector(n, size.max(0.05));
        out[start..start + n].copy_from_slice(&noise);
        out
    }
}

/// The messages of an error and its causes, in one line.
fn whole(error: &AnalysisError) -> String {
    let one_line = |text: String| without_backtrace(&text).replace('\n', ": ");
    let mut text = one_line(error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text = format!("{text}: {}", one_line(e.to_string()));
        cause = e.source();
    }
    text
}

/// An error of the forward pass, with the operation and its cure if it is one that doesn't run in float64.
fn explained(error: AnalysisError) -> AnalysisError {
    let problem = whole(&error);
    match known::by_message(&problem) {
        Some(known) => Unsupported::NotInFloat64 {
            problem,
            operation: known.name,
            why: known.why,
            cure: known.cure,
        }
        .into(),
        None => error,
    }
}

/// Whether candle failed in a backward pass rather than in the forward pass.
fn doing_derivatives(error: &AnalysisError) -> bool {
    matches!(error, AnalysisError::Candle { doing, .. } if doing == "differentiating")
}

fn dot_abs(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum()
}
