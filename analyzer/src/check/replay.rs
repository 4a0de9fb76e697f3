//! Checks that recomputed steps lead to the next recorded state.
//!
//! θ_{t+1} is recomputed from θ_t, the batch, the learning rate and the random draws, with the code that training
//! uses, and compared with the recorded one. A trace that passes was produced by this rule on this data, and not
//! written by hand.
//!
//! Each step starts from the recorded θ_t. A rule with a state also needs the state before the step. It is rebuilt
//! forward, from a keyframe that contains it or from the optimizer's first step, with the gradients at the recorded
//! parameters. So an error in one step doesn't spread to the parameters of the next.

mod agree;
mod passes;
mod sample;
mod stated;

use std::ops::{ControlFlow, Range};

use candle_core::{DType, Device};
use hindcast_format::DataIdentity;
use hindcast_model::data::{DataSet, SplitFingerprint, differences};
use hindcast_model::real::{Real as _, bf16, f16};
use serde::Serialize;

pub use agree::StepCheck;
pub use passes::PassCheck;
pub use stated::Contradiction;

use super::rule::{Recomputed, median, tolerances, walk};

use crate::error::{AnalysisError, Result};
use crate::run::machine::{Processors, bits_are_known, recorded_like_here};
use crate::run::recorded::RecordedRun;

/// Options of a replay check.
#[derive(Debug, Clone)]
pub struct ReplayCheckOptions {
    /// Number of steps to draw at random and recompute; 0 for all of them. A rule with a state adds the steps between the last
    /// recorded state and each of them.
    pub samples: usize,
    /// Seed of the random choice.
    pub seed: u64,
    /// Largest relative error (max-norm, per tensor) that passes if the bits differ although this kind of processor recorded
    /// the run, as they do if the loop used another implementation of the rule.
    pub tolerance: f64,
    /// Device that recomputes the steps.
    pub device: Device,
}

impl ReplayCheckOptions {
    /// 16 steps by the seed 0, and the tolerance of the run's own float type: 1e-4 in f32, 1e-10 in f64, and sixteen units in the last place of
    /// a tensor's largest element in f16 (2⁻⁶) and bf16 (2⁻³), whose gradients round so much that a small bias may differ by as
    /// much.
    pub fn new(run: &RecordedRun<'_>) -> Self {
        ReplayCheckOptions {
            samples: 16,
            seed: 0,
            tolerance: match run.trained_dtype() {
                DType::F64 => 1e-10,
                DType::F16 => 16.0 * f16::SPACING,
                DType::BF16 => 16.0 * bf16::SPACING,
                _ => 1e-4,
            },
            device: Device::Cpu,
        }
    }
}

/// Result of a replay check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayCheckReport {
    /// Largest error relative to the parameters that passes. `None` if the run was recorded on another kind of processor or a GPU, or
    /// doesn't say where: then only errors relative to the updates count.
    pub tolerance: Option<f64>,
    /// Largest error of a single step relative to its update that passes.
    pub update_tolerance: f64,
    /// Largest such error that more than a tenth of the steps may have.
    pub most_tolerance: f64,
    /// Largest median of those errors that passes.
    pub median_tolerance: f64,
    /// Whether a step passes only with the recorded bits: the steps are those of a task, which this version recorded on this kind of
    /// processor.
    pub same_bits: bool,
    /// The recording processor, if it is of another kind than this one; `None` if it isn't known or is the same.
    pub other_processor: Option<String>,
    /// Seed of the random choice.
    pub seed: u64,
    /// The number of steps that can be recomputed: their next state is recorded, and the state before them is known.
    pub replayable: u64,
    /// The number of steps from the first recorded one to the end of the run, with those that have no tensors.
    pub span: u64,
    /// The number of steps that were drawn at random and recomputed; `None` if all steps or the first ones were chosen.
    pub drawn: Option<u64>,
    /// Ranges of recorded steps without a gap, ascending. Nothing shows that a range follows from the one before it.
    pub pieces: Vec<Range<u64>>,
    /// What the run's task says and the recorded steps contradict.
    pub contradictions: Vec<Contradiction>,
    /// The recomputed steps, ascending.
    pub steps: Vec<StepCheck>,
    /// The number of other steps whose pass can be recomputed, and so their loss: their parameters are recorded, but not the next
    /// state or the optimizer's state before them.
    pub passable: u64,
    /// Those of them that were recomputed, ascending: all, or as many as were to be drawn.
    pub passes: Vec<PassCheck>,
    /// How the check deviated from the options, and why; empty if it didn't.
    pub note: String,
}

impl ReplayCheckReport {
    /// Whether at least one step was checked, all steps and passes passed, the updates agree on the median, and the steps don't
    /// contradict the task.
    pub fn passed(&self) -> bool {
        let steps = !self.steps.is_empty() && self.steps.iter().all(|s| s.passed);
        let passes = self.passes.iter().all(|pass| pass.passed);
        steps && passes && self.updates_agree() && self.contradictions.is_empty()
    }

    /// Whether every step that can be recomputed was recomputed.
    pub fn is_complete(&self) -> bool {
        self.steps.len() as u64 == self.replayable
    }

    /// The least probability with which this choice of steps would have caught a run in which the share `wrong` (0 to 1) of the
    /// steps that can be recomputed is no training step: 1 − (1 − wrong)^n for n steps, each drawn from another part of the
    /// run. 1 if all steps were recomputed. `None` if the steps weren't drawn at random.
    pub fn caught(&self, wrong: f64) -> Option<f64> {
        if self.is_complete() {
            return Some(1.0);
        }
        let drawn = self.drawn?;
        Some(1.0 - (1.0 - wrong).powf(drawn as f64))
    }

    /// Whether the median error relative to the updates is within its tolerance, and so are the errors of nine tenths of the
    /// steps. A wrong weight decay may change the parameters by less than [`tolerance`](Self::tolerance) in each step, and adds
    /// up over a run.
    pub fn updates_agree(&self) -> bool {
        let few = self.steps.len().div_ceil(10);
        self.median_update_error() <= self.median_tolerance && self.far_updates() <= few
    }

    /// The number of steps whose error relative to the update exceeds [`most_tolerance`](Self::most_tolerance).
    pub fn far_updates(&self) -> usize {
        let far = |s: &&StepCheck| s.update_error > self.most_tolerance;
        self.steps.iter().filter(far).count()
    }

    /// Median of the steps' errors relative to their updates.
    pub fn median_update_error(&self) -> f64 {
        median(self.steps.iter().map(|s| s.update_error))
    }

    /// Whether all steps have the recorded bits.
    pub fn bit_identical(&self) -> bool {
        self.steps.iter().all(|s| s.comparison.bit_identical)
    }

    /// Number of elements, over all steps, whose difference rounding explains.
    pub fn by_rounding(&self) -> u64 {
        self.steps.iter().map(|s| s.by_rounding).sum()
    }

    /// Step, computed and recorded loss, if most recorded losses differ from the computed ones by more than 1 %.
    pub fn other_loss(&self) -> Option<(u64, f64, f64)> {
        let steps = self.steps.iter().map(|s| (s.step, s.loss));
        let passes = self.passes.iter().map(|p| (p.step, p.loss));
        crate::check::rule::other_loss(steps.chain(passes))
    }

    /// The step with the largest error.
    pub fn worst(&self) -> Option<&StepCheck> {
        self.steps.iter().max_by(|a, b| {
            a.comparison
                .max_relative_error
                .total_cmp(&b.comparison.max_relative_error)
        })
    }

    /// The step with the largest error relative to its update.
    pub fn worst_update(&self) -> Option<&StepCheck> {
        let errors = self.steps.iter();
        errors.max_by(|a, b| a.update_error.total_cmp(&b.update_error))
    }
}

/// Recomputes the chosen steps, and compares the run with its task.
///
/// # Errors
/// A step can't be read, the data doesn't have an example, the model fails, or `progress` asks to stop
/// ([`AnalysisError::Cancelled`]). A step with another result is a finding, not an error.
pub fn replay_check(
    run: &RecordedRun<'_>,
    options: &ReplayCheckOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<ReplayCheckReport> {
    let (ranges, end) = (run.source().ranges()?, run.source().end()?.step);
    let sample = sample::choose(run, &ranges, end, options.samples, options.seed)?;
    let (known_to_be_unknown, drawn) = (sample.unknown.len(), sample.drawn);
    let updates = tolerances(run);
    let like_here = recorded_like_here(run, &options.device);
    let allowed = agree::Tolerances {
        parameters: like_here.then_some(options.tolerance),
        update: updates.single,
        same_bits: bits_are_known(run, &options.device),
    };
    let mut found = Found {
        steps: Vec::new(),
        unknown: sample.unknown,
        why_unknown: sample.why_unknown,
    };
    recompute(
        run,
        options,
        &allowed,
        sample.stretches,
        &mut found,
        progress,
    )?;
    let Found {
        steps,
        unknown,
        why_unknown,
    } = found;
    let passable = passes::candidates(run, &ranges, end, &unknown);
    let done = steps.len();
    let passes = passes::check(
        run,
        &ranges,
        &passable,
        &passes::PassOptions {
            samples: options.samples,
            seed: options.seed,
            device: &options.device,
            tolerances: &allowed,
        },
        &mut |more, of| progress(done + more, done + of),
    )?;
    let mut note = sample.note;
    match why_unknown {
        Some(first) if steps.is_empty() => return Err(first),
        Some(_) => {
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(&format!(
                "{} steps can't be recomputed, because they follow a hole in the trace, which doesn't contain the buffers or optimizer state before them: {}",
                unknown.len(),
                in_ranges(&unknown)
            ));
        }
        None => {}
    }
    Ok(ReplayCheckReport {
        tolerance: allowed.parameters,
        update_tolerance: updates.single,
        most_tolerance: updates.most,
        median_tolerance: updates.median,
        same_bits: allowed.same_bits,
        other_processor: Processors::of(run)
            .filter(|both| !both.agree())
            .map(|both| both.recorded.to_string()),
        seed: options.seed,
        // Without the steps that turned out to be unknown during the walk.
        replayable: sample.replayable - (unknown.len() - known_to_be_unknown) as u64,
        drawn: drawn.map(|drawn| {
            let judged = drawn
                .iter()
                .filter(|step| unknown.binary_search(step).is_err());
            judged.count() as u64
        }),
        span: end.saturating_sub(ranges.first().map_or(0, |r| r.start)),
        contradictions: stated::contradictions(run, end)?,
        pieces: ranges,
        steps,
        passable: passable.len() as u64,
        passes,
        note,
    })
}

/// What the walks over the steps find.
struct Found {
    /// The judged steps, ascending.
    steps: Vec<StepCheck>,
    /// Steps before which the buffers or the optimizer's state isn't known, ascending.
    unknown: Vec<u64>,
    /// Why the first of them isn't known.
    why_unknown: Option<AnalysisError>,
}

/// Recomputes and judges the chosen steps of the stretches.
fn recompute(
    run: &RecordedRun<'_>,
    options: &ReplayCheckOptions,
    allowed: &agree::Tolerances,
    stretches: Vec<sample::Stretch>,
    found: &mut Found,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<()> {
    let total = stretches.iter().map(|s| s.chosen.len()).sum();
    for mut stretch in stretches {
        // A step whose buffers are missing is left out, and the walk continues after it.
        while let Some(&first) = stretch.chosen.front() {
            let range = stretch.range.clone();
            let mut see = |step: &Recomputed<'_>| {
                if stretch.chosen.front() == Some(&step.meta.step) {
                    stretch.chosen.pop_front();
                    found.steps.push(agree::judge(run, step, allowed));
                    if progress(found.steps.len(), total).is_break() {
                        let step = step.meta.step + 1;
                        return Err(AnalysisError::Cancelled { step });
                    }
                }
                Ok(())
            };
            match walk(run, range, &options.device, &mut see) {
                Ok(()) => break,
                Err(error @ AnalysisError::Missing(_)) => {
                    found.why_unknown.get_or_insert(error);
                    if run.rule().state_values(1) > 0 {
                        found.unknown.extend(stretch.chosen.drain(..));
                    } else {
                        let left_out = stretch.chosen.pop_front().unwrap_or(first);
                        found.unknown.push(left_out);
                        stretch.range.start = left_out + 1;
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }
    found.unknown.sort_unstable();
    Ok(())
}

/// Ascending steps as text: `3..5, 9`.
fn in_ranges(steps: &[u64]) -> String {
    let runs = steps.chunk_by(|a, b| a + 1 == *b);
    let words = runs.map(|run| match run {
        [first, .., last] => format!("{first}..{}", last + 1),
        one => one.iter().map(u64::to_string).collect(),
    });
    words.collect::<Vec<_>>().join(", ")
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
