//! Checks the passes of steps whose update can't be recomputed.
//!
//! Next to a hole in the trace, the next state or the optimizer's state before a step is missing. The loss, the weights of the
//! examples and the running statistics after the forward pass only need the parameters before the step and its batch.

use std::ops::{ControlFlow, Range};

use candle_core::{DType, Device};
use hindcast_format::meta::StepMeta;
use hindcast_model::real::{Real, bf16, f16};
use hindcast_model::train::ModelState;
use serde::Serialize;

use super::super::draw::draw;
use super::agree::{Tolerances, same_loss};
use crate::check::rule::{Compared, compare, pass};
use crate::error::{AnalysisError, Result};
use crate::measures::compare::Comparison;
use crate::run::floats::FloatVec;
use crate::run::recorded::RecordedRun;

/// A step whose update can't be recomputed, and whose forward and backward pass was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassCheck {
    /// t.
    pub step: u64,
    /// Computed and recorded batch loss, if it was recorded.
    pub loss: Option<(f64, f64)>,
    /// As for a whole step: [`StepCheck::loss_agrees`](super::StepCheck::loss_agrees).
    pub loss_agrees: bool,
    /// As for a whole step: [`StepCheck::weights_agree`](super::StepCheck::weights_agree).
    pub weights_agree: bool,
    /// As for a whole step: [`StepCheck::trained_differs`](super::StepCheck::trained_differs).
    pub trained_differs: Vec<String>,
    /// Whether the running statistics after the pass are the recorded ones. `None` if the model has none, or those before the
    /// pass aren't recorded.
    pub statistics_agree: Option<bool>,
    /// Whether nothing differs. Tensors that had a gradient count for a task only.
    pub passed: bool,
}

/// The choice of passes, and how they are computed.
pub(super) struct PassOptions<'a> {
    /// Number of steps to draw at random; 0 for all.
    pub samples: usize,
    pub seed: u64,
    pub device: &'a Device,
    pub tolerances: &'a Tolerances,
}

/// The steps with tensors that aren't whole: the last ones before a hole, and `unknown` ones, before which the optimizer's state
/// isn't known. Ascending. Empty if nothing about a pass can be wrong: the loop of a model without buffers may record
/// any loss.
pub(super) fn candidates(
    run: &RecordedRun<'_>,
    ranges: &[Range<u64>],
    end: u64,
    unknown: &[u64],
) -> Vec<u64> {
    if run.task().is_none() && run.source().buffers().is_empty() {
        return Vec::new();
    }
    let before_holes = ranges.iter().filter(|r| r.end != end).map(|r| r.end - 1);
    let mut steps: Vec<u64> = before_holes.chain(unknown.iter().copied()).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// Checks these steps, or as many of them as the options say. `progress` is called after each of them.
pub(super) fn check(
    run: &RecordedRun<'_>,
    ranges: &[Range<u64>],
    steps: &[u64],
    options: &PassOptions<'_>,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<PassCheck>> {
    let steps = match options.samples {
        0 => steps.to_vec(),
        samples => draw(&consecutive(steps), samples as u64, options.seed),
    };
    let mut checks = Vec::with_capacity(steps.len());
    let mut see = |check: PassCheck| {
        let step = check.step + 1;
        checks.push(check);
        match progress(checks.len(), steps.len()) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(AnalysisError::Cancelled { step }),
        }
    };
    for range in consecutive(&steps) {
        let older = range.start.checked_sub(1);
        let older = older.filter(|older| ranges.iter().any(|r| r.contains(older)));
        let read = older.unwrap_or(range.start)..range.end;
        match run.trained_dtype() {
            DType::F64 => walk::<f64>(run, read, range.start, options, &mut see),
            DType::F16 => walk::<f16>(run, read, range.start, options, &mut see),
            DType::BF16 => walk::<bf16>(run, read, range.start, options, &mut see),
            _ => walk::<f32>(run, read, range.start, options, &mut see),
        }?;
    }
    Ok(checks)
}

/// Ascending steps as ranges.
fn consecutive(steps: &[u64]) -> Vec<Range<u64>> {
    let runs = steps.chunk_by(|a, b| a + 1 == *b);
    let ranges = runs.filter_map(|run| Some(*run.first()?..run.last()? + 1));
    ranges.collect()
}

/// Checks the steps of a range from `first` on. Those before it are read for the buffers that they leave.
fn walk<T: Real>(
    run: &RecordedRun<'_>,
    range: Range<u64>,
    first: u64,
    options: &PassOptions<'_>,
    see: &mut dyn FnMut(PassCheck) -> Result<()>,
) -> Result<()> {
    let mut left: Option<FloatVec> = None;
    for step in run.source().forward(range)? {
        let step = step?;
        let older = left.replace(step.buffers_after.clone());
        if step.meta.step < first {
            continue;
        }
        let before = step.key.map(|key| key.buffers_before).or(older);
        let known = before.as_ref().map(FloatVec::to_vec);
        let state = ModelState {
            parameters: step.parameters.to_vec(),
            // A training pass writes running statistics and doesn't read them, so any will do for the loss.
            buffers: known.unwrap_or_else(|| stand_in::<T>(run)),
            optimizer: Vec::new(),
        };
        let known = before.is_some() && !state.buffers.is_empty();
        if run.task().is_none() && !known {
            continue;
        }
        let after = step.buffers_after.as_slice().to_f64();
        see(judge(
            run,
            &step.meta,
            &state,
            known.then_some(&after),
            options,
        )?)?;
    }
    Ok(())
}

/// Buffers of the right number, where the recorded ones are missing.
fn stand_in<T: Real>(run: &RecordedRun<'_>) -> Vec<T> {
    run.net().map_or(Vec::new(), |net| net.initial_buffers())
}

/// Checks one step. `after` are the recorded buffers after it, if those before it are known.
fn judge<T: Real>(
    run: &RecordedRun<'_>,
    meta: &StepMeta,
    before: &ModelState<T>,
    after: Option<&[f64]>,
    options: &PassOptions<'_>,
) -> Result<PassCheck> {
    let pass = pass(run, meta, before, options.device)?;
    let tolerances = options.tolerances;
    let wide = |x: &[T]| -> Vec<f64> { x.iter().map(|x| x.wide()).collect() };
    let statistics_agree = after.map(|want| {
        let (before, got) = (wide(&before.buffers), wide(&pass.gradient.buffers));
        let specs = run.source().buffers();
        let found = Comparison::without(&got, want, specs, &[]);
        let update = compare(&Compared {
            before: &before,
            got: &got,
            want,
            left_out: &[],
            specs,
        });
        tolerances.allow(&found, update.error)
    });
    let loss = meta.loss.map(|recorded| (pass.gradient.loss, recorded));
    let task = run.task().is_some();
    let loss_agrees = !task || loss.is_none_or(|pair| same_loss(run, pair, tolerances.same_bits));
    let trained_agrees = !task || pass.trained_differs.is_empty();
    Ok(PassCheck {
        step: meta.step,
        loss,
        loss_agrees,
        weights_agree: pass.weights_agree,
        trained_differs: pass.trained_differs,
        statistics_agree,
        passed: loss_agrees
            && pass.weights_agree
            && trained_agrees
            && statistics_agree != Some(false),
    })
}
