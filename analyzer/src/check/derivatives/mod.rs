//! Checks an objective's mathematics: every derivative that a sweep needs, against differences in float64.
//!
//! Some of candle's operations have a wrong gradient, some have none, and some have no second derivative. Scores from
//! a wrong derivative look like any others, so an own model is checked once before it is analysed: at the end of the
//! run, on a few of its examples, in a few random directions over all its tensors at once. If a derivative is wrong, the
//! tensors are searched for those whose gradient is wrong, and the model's graph for the operation that causes it
//! ([`Fault`]).
//!
//! Kinks raise no false alarm. If a ReLU switches between the two points of a difference, the difference is wrong at
//! some step sizes; if the derivative is wrong, they disagree at all step sizes. So a quantity passes if it agrees at
//! one of several step sizes.
//!
//! A model that contains float32 constants doesn't run in float64. It is checked in float32, with larger steps and a
//! larger tolerance.

mod differences;
mod directions;
mod evaluate;
mod fault;
mod first;
mod known;
mod locate;
mod messages;
mod point;
mod precision;
mod report;
mod second;
mod signature;

pub use fault::Fault;
pub use known::KnownOperation;
pub use point::CheckPoint;
pub use report::{CheckOptions, CheckPlan, CheckReport, CheckRow};
pub use signature::signature;

use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::DType;
use hindcast_model::objective::{Mode, Objective};

use crate::engine::flat;
use crate::error::{Result, Unsupported};
use crate::run::recorded::RecordedRun;
use differences::{Noise, moved};
use directions::{natural, parts};
use evaluate::Evaluator;
use known::KnownOperation as Constant;
use point::End;
use precision::{F32, F64, Precision};
use report::Rows;

/// Checks a recorded run's objective at the end of the run, on examples of its last recorded batch. Calls `announce` before
/// the work that takes time.
///
/// # Errors
/// The run has no steps, the data lacks an example, or the model can't be run.
pub fn check_run(
    run: &RecordedRun<'_>,
    options: &CheckOptions,
    announce: &mut dyn FnMut(CheckPlan),
) -> Result<CheckReport> {
    let end = End::of(run, options, DType::F64)?;
    check(run.objective(), &end.point(), options, announce)
}

/// Checks an objective at a point, in training and in evaluation mode: gradients in all tensors, per-example gradients,
/// Hessian-vector products, and the adjoints of the buffers. If the model contains float32 constants, in float32.
///
/// # Errors
/// The model can't be run, or sizes don't fit. A derivative that is wrong or missing is a finding, not an error.
pub fn check_objective(
    objective: Arc<dyn Objective>,
    point: &CheckPoint<'_>,
    options: &CheckOptions,
) -> Result<CheckReport> {
    check(&objective, point, options, &mut |_| {})
}

fn check(
    objective: &Arc<dyn Objective>,
    point: &CheckPoint<'_>,
    options: &CheckOptions,
    announce: &mut dyn FnMut(CheckPlan),
) -> Result<CheckReport> {
    let in_type = |precision, constant, announce: &mut dyn FnMut(CheckPlan)| {
        check_in(precision, constant, objective, point, options, announce)
    };
    let report = match in_type(&F64, None, announce) {
        Ok(report) => report,
        Err(error) => {
            let Some(constant) = messages::constant(&error) else {
                return Err(error);
            };
            // If float32 doesn't work either, the first error is the one to mend.
            return in_type(&F32, Some(constant), announce).map_err(|_| error);
        }
    };
    let numbers_only = report.rows.iter().all(|row| row.problem.is_none());
    if report.passed() || !numbers_only || !rounds_inside(objective, point)? {
        return Ok(report);
    }
    // A part of the model computes in float32, so differences in float64 only show its rounding.
    let in_float32 = in_type(&F32, Some(known::ROUNDED), announce)?;
    // A check that can't see anything decides nothing.
    Ok(if in_float32.passed() && in_float32.visible() < 1.0 {
        in_float32
    } else {
        report
    })
}

fn check_in(
    precision: &'static Precision,
    constant: Option<Constant>,
    objective: &Arc<dyn Objective>,
    point: &CheckPoint<'_>,
    options: &CheckOptions,
    announce: &mut dyn FnMut(CheckPlan),
) -> Result<CheckReport> {
    let mut evaluator = Evaluator::new(objective, point, precision)?;
    let (pass, terms) = repeats(&mut evaluator)?;
    let directions = options.directions.max(1);
    announce(CheckPlan {
        precision: precision.name,
        examples: point.batch.indices.len(),
        time: pass * passes(directions, precision.more_directions),
    });
    let mut rows = Rows::new(options.tolerance.max(precision.tolerance));
    let mut noise = Noise::new(11);
    let (mut fault, mut training) = (None, None);
    for mode in [Mode::Train, Mode::Evaluate] {
        let before = rows.failures();
        let checked = first::first(&mut evaluator, mode, directions, &mut noise, &mut rows)?;
        if fault.is_none() && rows.failures() > before {
            fault = locate::first(&evaluator, mode)?;
        }
        training = training.or(checked);
    }
    // Second derivatives are those of the first ones, so they are wrong, too, where these are.
    if let Some(checked) = &training
        && fault.is_none()
    {
        let before = rows.failures();
        second::second(&mut evaluator, checked, directions, &mut noise, &mut rows)?;
        if rows.failures() > before {
            fault = locate::second(&evaluator)?;
        }
    }
    Ok(CheckReport {
        precision: precision.name,
        tolerance: options.tolerance.max(precision.tolerance),
        tensors: objective.parameters().len() + objective.buffers().len(),
        rows: rows.rows,
        terms,
        fault,
        constant,
    })
}

/// Number of forward passes that take as long as the whole check, if the first step size of each difference suffices.
fn passes(directions: usize, more: usize) -> u32 {
    /// A pass forward and back, in forward passes without a graph.
    const GRADIENT: usize = 4;
    /// A double backward pass.
    const PRODUCTS: usize = 10;
    /// Passes that measure the rounding of the loss.
    const ROUNDING: usize = 4;
    let losses = 2 * (ROUNDING + 2 * (directions + more));
    let gradients = 2 + 2 * directions;
    (losses + GRADIENT * gradients + PRODUCTS * directions) as u32
}

/// Checks that a second forward pass gives the same losses. If not, no derivative is meaningful. Returns the time of a pass,
/// and the number of terms of an example's loss.
fn repeats(evaluator: &mut Evaluator<'_>) -> Result<(Duration, Option<usize>)> {
    let point = evaluator.point;
    let run = || {
        let begun = Instant::now();
        let values = evaluator.values(point.parameters, point.buffers, Mode::Train);
        values
            .map(|values| (values, begun.elapsed()))
            .map_err(messages::explained)
    };
    let ((first, _), (again, time)) = (run()?, run()?);
    let same = |a: &f64, b: &f64| a == b || (a.is_nan() && b.is_nan());
    let both = first.per_example.iter().zip(&again.per_example);
    if both.into_iter().all(|(a, b)| same(a, b)) {
        evaluator.hold(first.constants);
        return Ok((time, first.terms));
    }
    Err(Unsupported::RandomForwardPass.into())
}

/// Whether the loss, computed in float64, has the rounding of float32, because a part of the model converts its values.
fn rounds_inside(objective: &Arc<dyn Objective>, point: &CheckPoint<'_>) -> Result<bool> {
    /// So small that curvature can't be seen, and so large that roundings to float32 change.
    const STEP: f64 = 1e-8;
    /// Between the roundings of the two types.
    const LIMIT: f64 = 1e-11;
    let evaluator = Evaluator::new(objective, point, &F64)?;
    let values = [point.parameters, point.buffers].concat();
    let direction = natural(&mut Noise::new(13), &values, &parts(objective.as_ref()));
    let loss = |h: f64| {
        let at = moved(&values, &direction, h);
        let (theta, r) = at.split_at(flat::count(objective.parameters()));
        Ok::<_, crate::AnalysisError>(evaluator.values(theta, r, Mode::Train)?.loss)
    };
    let (minus, here, plus) = (loss(-STEP)?, loss(0.0)?, loss(STEP)?);
    Ok((plus - 2.0 * here + minus).abs() > LIMIT * here.abs())
}
