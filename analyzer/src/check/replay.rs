//! Checks that recomputed steps lead to the next recorded state.
//!
//! θ_{t+1} is recomputed from θ_t, the batch, the learning rate and the random draws, with the code that training
//! uses, and compared with the recorded one. A trace that passes was produced by this rule on this data, and not
//! written by hand.

use candle_core::{DType, Device};
use hindcast_format::DataIdentity;
use hindcast_format::meta::StepMeta;
use hindcast_model::data::{DataSet, SplitFingerprint, differences};
use hindcast_model::real::Real;
use serde::Serialize;

use crate::counterfactual::{parts, start_state, stepper};
use crate::error::{AnalysisError, Missing, Result};
use crate::measures::compare::Comparison;
use crate::run::recorded::RecordedRun;
use crate::run::source::RecordedStep;

/// Options of a replay check.
#[derive(Debug, Clone)]
pub struct ReplayCheckOptions {
    /// Largest number of steps to recompute, spread evenly over the recorded ones; 0 for all of them.
    pub samples: usize,
    /// Largest relative error (max-norm, per tensor) that passes if the bits differ, as they do on another machine or
    /// if the loop used another implementation of the rule.
    pub tolerance: f64,
    /// Device that recomputes the steps.
    pub device: Device,
}

impl ReplayCheckOptions {
    /// 16 steps, and the tolerance of the run's own float type: 1e-4 in f32, 1e-10 in f64.
    pub fn new(run: &RecordedRun<'_>) -> Self {
        ReplayCheckOptions {
            samples: 16,
            tolerance: match run.dtype() {
                DType::F64 => 1e-10,
                _ => 1e-4,
            },
            device: Device::Cpu,
        }
    }
}

/// One recomputed step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCheck {
    /// t.
    pub step: u64,
    /// Recomputed θ_{t+1} and r_{t+1}, compared with the recorded ones.
    pub comparison: Comparison,
    /// Computed and recorded batch loss, if it was recorded.
    pub loss: Option<(f64, f64)>,
    /// Tensors whose recorded flag "had a gradient" differs from the recomputed one. That isn't a failure: the loop
    /// may have left a tensor out on purpose, and the comparison uses the recorded flags.
    pub trained_differs: Vec<String>,
    /// Whether it has the same bits or is within the tolerance.
    pub passed: bool,
}

/// Result of a replay check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayCheckReport {
    /// The tolerance.
    pub tolerance: f64,
    /// The recomputed steps, ascending.
    pub steps: Vec<StepCheck>,
    /// How the check deviated from the options, and why; empty if it didn't.
    pub note: String,
}

impl ReplayCheckReport {
    /// Whether at least one step was checked and all passed.
    pub fn passed(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|s| s.passed)
    }

    /// Whether all steps have the recorded bits.
    pub fn bit_identical(&self) -> bool {
        self.steps.iter().all(|s| s.comparison.bit_identical)
    }

    /// Step, computed and recorded loss, if most recorded losses differ from the computed ones by more than 1 %.
    pub fn other_loss(&self) -> Option<(u64, f64, f64)> {
        crate::check::rule::other_loss(self.steps.iter().map(|s| (s.step, s.loss)))
    }

    /// The step with the largest error.
    pub fn worst(&self) -> Option<&StepCheck> {
        self.steps.iter().max_by(|a, b| {
            a.comparison
                .max_relative_error
                .total_cmp(&b.comparison.max_relative_error)
        })
    }
}

/// Recomputes sampled steps.
///
/// # Errors
/// A step can't be read, the data doesn't have an example, or the model fails. A step with another result is a
/// finding, not an error.
pub fn replay_check(
    run: &RecordedRun<'_>,
    options: &ReplayCheckOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<ReplayCheckReport> {
    let (steps, mut note) = sample(run, options.samples)?;
    let mut checks = Vec::with_capacity(steps.len());
    let mut unknown: Option<(AnalysisError, Vec<u64>)> = None;
    for (i, &step) in steps.iter().enumerate() {
        let check = match run.dtype() {
            DType::F64 => check::<f64>(run, step, options)?,
            _ => check::<f32>(run, step, options)?,
        };
        match (check, &mut unknown) {
            (Ok(check), _) => checks.push(check),
            (Err(_), Some((_, left_out))) => left_out.push(step),
            (Err(e), none) => *none = Some((e, vec![step])),
        }
        progress(i + 1, steps.len());
    }
    match unknown {
        Some((first, _)) if checks.is_empty() => return Err(first),
        Some((_, left_out)) => {
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(&format!(
                "{} of the sampled steps can't be recomputed, because they follow a hole in the trace, which doesn't contain the buffers or optimizer state before them: {left_out:?}",
                left_out.len()
            ));
        }
        None => {}
    }
    Ok(ReplayCheckReport {
        tolerance: options.tolerance,
        steps: checks,
        note,
    })
}

/// Steps whose successor is recorded. For rules with a state, steps at which the state is known.
fn sample(run: &RecordedRun<'_>, samples: usize) -> Result<(Vec<u64>, String)> {
    let source = run.source();
    let end = source.end()?;
    let mut candidates: Vec<u64> = Vec::new();
    let stateful = run.rule().state_values(1) > 0;
    for range in source.ranges()? {
        let last = if range.end == end.step {
            range.end
        } else {
            range.end - 1
        };
        if stateful {
            // Each keyframe and the step after it, which uses a rebuilt state.
            let mut at = last;
            while at > range.start {
                let key = if source.optimizer_state().is_empty() {
                    range.start
                } else {
                    source.keyframe(at - 1)?.max(range.start)
                };
                candidates.extend((key..last.min(key + 2)).rev());
                at = key;
            }
        } else {
            candidates.extend(range.start..last)
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    let all = candidates.len();
    if samples > 0 && all > samples {
        candidates = (0..samples)
            .map(|i| candidates[i * (all - 1) / (samples - 1).max(1)])
            .collect();
        candidates.dedup();
    }
    let note = match (candidates.is_empty(), stateful) {
        (true, _) => "no two consecutive steps are recorded: nothing can be recomputed".to_owned(),
        (false, true) => format!(
            "{} has a state, which is recorded at keyframes: only steps there were chosen",
            run.rule().describe()
        ),
        (false, false) => String::new(),
    };
    Ok((candidates, note))
}

/// The inner error says that the trace doesn't contain the state from which the step starts. After a hole, the
/// step is not to blame.
fn check<T: Real>(
    run: &RecordedRun<'_>,
    step: u64,
    options: &ReplayCheckOptions,
) -> Result<Result<StepCheck>> {
    let source = run.source();
    let (meta, buffers_after, after) = recorded(run, step)?;
    let mut state = match start_state::<T>(run, step, &options.device) {
        Err(e @ AnalysisError::Missing(_)) => return Ok(Err(e)),
        other => other?,
    };
    let parts = parts::<T>(run, &meta, &options.device)?;
    let stepper = stepper(run);
    let gradient = stepper.gradient(&state, &parts, run.draws(step))?;
    let loss = meta.loss.map(|recorded| (gradient.loss, recorded));
    let trained_differs: Vec<String> = source
        .parameters()
        .iter()
        .zip(gradient.trained.iter().zip(&meta.trained))
        .filter(|(_, (got, recorded))| got != recorded)
        .map(|(spec, _)| spec.name.clone())
        .collect();
    stepper.update(&run.settings(&meta), gradient, &mut state)?;
    let wide = |x: &[T]| x.iter().map(|x| x.wide()).collect::<Vec<f64>>();
    let comparison = Comparison::of(&wide(&state.parameters), &after, source.parameters()).worse(
        Comparison::of(&wide(&state.buffers), &buffers_after, source.buffers()),
    );
    let passed = comparison.bit_identical || comparison.max_relative_error <= options.tolerance;
    Ok(Ok(StepCheck {
        step,
        comparison,
        loss,
        trained_differs,
        passed,
    }))
}

/// Metadata and r_{t+1} of step t, and θ_{t+1}.
fn recorded(run: &RecordedRun<'_>, step: u64) -> Result<(StepMeta, Vec<f64>, Vec<f64>)> {
    let missing = |step: u64| Missing::Step { step };
    let end = run.source().end()?;
    let last = step + 1 == end.step;
    let mut walk = run
        .source()
        .forward(step..if last { step + 1 } else { step + 2 })?;
    let RecordedStep {
        meta,
        buffers_after,
        ..
    } = walk
        .next()
        .transpose()?
        .filter(|s| s.meta.step == step)
        .ok_or_else(|| missing(step))?;
    let after = if last {
        end.parameters
    } else {
        walk.next()
            .transpose()?
            .filter(|s| s.meta.step == step + 1)
            .ok_or_else(|| missing(step + 1))?
            .parameters
            .to_vec()
    };
    Ok((meta, buffers_after.to_vec(), after))
}

/// A split of the data that differs from the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataDifference {
    /// `train`, `validation` or `test`.
    pub split: String,
    /// How it differs.
    pub problem: String,
}

/// Compares the fingerprints of all splits, computed over every decoded example, with the recorded ones. `None` where
/// the run recorded no fingerprint or the data set has none to compare.
pub fn check_data(recorded: &DataIdentity, data: &dyn DataSet) -> Option<Vec<DataDifference>> {
    let DataIdentity::Fingerprint { splits } = recorded else {
        return None;
    };
    let here = data.fingerprint();
    if here.is_empty() {
        return None;
    }
    let recorded: Vec<SplitFingerprint> = splits
        .iter()
        .map(|split| SplitFingerprint {
            name: split.name.clone(),
            examples: split.examples,
            root: split.root,
        })
        .collect();
    let found = differences(&recorded, &here).into_iter();
    Some(
        found
            .map(|difference| DataDifference {
                split: difference.split,
                problem: difference.kind.to_string(),
            })
            .collect(),
    )
}
