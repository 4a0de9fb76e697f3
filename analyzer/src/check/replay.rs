//! Does a step's arithmetic give the next recorded step? What `verify --replay` asks.
//!
//! θ_{t+1} is computed again from θ_t, the batch, the learning rate and the random draws, by the code that training uses,
//! and compared with the recorded one. A trace that passes was made by this rule on this data, and not written by hand.

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

/// How a replay check is done.
#[derive(Debug, Clone)]
pub struct ReplayCheckOptions {
    /// About how many steps are computed again, spread evenly over what is recorded; 0 is all of them.
    pub samples: usize,
    /// Largest relative error (max-norm, by tensor) that passes where the bits differ, as they do on another machine or
    /// where the loop used another implementation of the rule.
    pub tolerance: f64,
    /// Where the steps are computed.
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

/// One step, computed again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCheck {
    /// t.
    pub step: u64,
    /// Computed θ_{t+1} and r_{t+1} against the recorded ones.
    pub comparison: Comparison,
    /// Computed and recorded batch loss, where it was recorded.
    pub loss: Option<(f64, f64)>,
    /// Tensors whose flag "had a gradient" is recorded otherwise than it comes out. That is no failure: the loop may
    /// have left a tensor out on purpose, and the comparison is made with the recorded flags.
    pub trained_differs: Vec<String>,
    /// Bit-identical, or within the tolerance.
    pub passed: bool,
}

/// What a replay check found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayCheckReport {
    /// The tolerance.
    pub tolerance: f64,
    /// The steps that were computed again, ascending.
    pub steps: Vec<StepCheck>,
    /// What was looked at otherwise than asked for, and why; empty if nothing.
    pub note: String,
}

impl ReplayCheckReport {
    /// Did every step pass, and was there one?
    pub fn passed(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|s| s.passed)
    }

    /// Did every step come out with the recorded bits?
    pub fn bit_identical(&self) -> bool {
        self.steps.iter().all(|s| s.comparison.bit_identical)
    }

    /// Step, computed and recorded loss, where most recorded losses differ from the computed ones by over a hundredth.
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

/// Computes sampled steps again.
///
/// # Errors
/// Where a step can't be read, the data doesn't have an example, or the model fails; a step that comes out otherwise is
/// a finding, not an error.
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
                "{} of the sampled steps can't be computed again, because the buffers or optimizer state before them are not in the trace (a hole is before them): {left_out:?}",
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

/// Steps whose successor is recorded, too; for rules with a state, steps at which that state is known.
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
            // Each keyframe and the step after it: the second one rests on a state that was rebuilt.
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
        (true, _) => {
            "no two consecutive steps are recorded: nothing can be computed again".to_owned()
        }
        (false, true) => format!(
            "{} has a state, which is recorded at keyframes: steps were chosen there",
            run.rule().describe()
        ),
        (false, false) => String::new(),
    };
    Ok((candidates, note))
}

/// The inner error says that the trace doesn't hold what the step starts from: behind a hole it is no fault of the step.
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
        .next()?
        .filter(|s| s.meta.step == step)
        .ok_or_else(|| missing(step))?;
    let after = if last {
        end.parameters
    } else {
        walk.next()?
            .filter(|s| s.meta.step == step + 1)
            .ok_or_else(|| missing(step + 1))?
            .parameters
    };
    Ok((meta, buffers_after, after))
}

/// A split of the data that isn't the recorded one.
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
