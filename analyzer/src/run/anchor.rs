//! The newest recorded optimizer state at or before a step.

use std::ops::Range;

use hindcast_format::meta::StepMeta;

use crate::error::{AnalysisError, Missing, Result};
use crate::run::recorded::RecordedRun;

/// Returns the newest step at or before `step` whose optimizer state is known, and that state (f64, flat).
///
/// The state is known at a keyframe that contains it. Without such a keyframe, it is known at the first step of the run
/// if the optimizer counts from 0 there. It is also known at a later step with the counter 0, but only for the tensors
/// that this step trains: the others may belong to an optimizer that takes turns with this one. So all tensors that the
/// following steps train must be among them.
pub(crate) fn known_state(run: &RecordedRun<'_>, step: u64) -> Result<(u64, Vec<f64>)> {
    let source = run.source();
    let initial: Vec<f64> = run.rule().initial_state(run.blocks().values());
    if initial.is_empty() {
        return Ok((step, initial));
    }
    let at = anchor(run, step)?;
    let first = source
        .forward(at..at + 1)?
        .next()
        .transpose()?
        .ok_or(Missing::Step { step: at })?;
    match first.key {
        Some(key) if key.optimizer.len() == initial.len() => Ok((at, key.optimizer)),
        _ if first.meta.optimizer_step == 0 && begins_all(run, &first.meta)? => Ok((at, initial)),
        _ => Err(AnalysisError::Missing(unknown_state(run, at)?)),
    }
}

/// The steps for which [`anchor`] returns the same step as for `step`: no later state than that is known for them.
pub(crate) fn steps_of_state(run: &RecordedRun<'_>, step: u64) -> Result<Range<u64>> {
    let start = anchor(run, step)?;
    let stretch = run
        .source()
        .ranges()?
        .into_iter()
        .find(|r| r.contains(&step));
    let (mut low, mut high) = (step + 1, stretch.map_or(step + 1, |r| r.end));
    // Binary search for the first step with another anchor.
    while low < high {
        let middle = low + (high - low) / 2;
        if anchor(run, middle)? > start {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(start..low)
}

/// Whether all tensors that are trained without a gap after the step `first` begin with it.
fn begins_all(run: &RecordedRun<'_>, first: &StepMeta) -> Result<bool> {
    if first.step == 0 || first.trained.iter().all(|trained| *trained) {
        return Ok(true);
    }
    let source = run.source();
    let ranges = source.ranges()?;
    let Some(range) = ranges.into_iter().find(|r| r.contains(&first.step)) else {
        return Ok(true);
    };
    let mut all = true;
    source.each_meta(first.step + 1..range.end, &mut |later| {
        let mut pairs = later.trained.iter().zip(&first.trained);
        all &= !pairs.any(|(later, first)| *later && !*first);
        Ok(())
    })?;
    Ok(all)
}

/// The newest step at or before `step` at which the trace can contain the optimizer's state.
pub(crate) fn anchor(run: &RecordedRun<'_>, step: u64) -> Result<u64> {
    let source = run.source();
    // A range without gaps starts with a keyframe, so no step before the range is needed.
    let stretch = source.ranges()?.into_iter().find(|r| r.contains(&step));
    let stretch = stretch.map_or(step, |r| r.start);
    if source.optimizer_state().is_empty() {
        return Ok(stretch);
    }
    Ok(source.keyframe(step)?.max(stretch))
}

/// Describes why step `at` has no optimizer state: it was never recorded, or it was lost. For a lost state, the
/// result includes the later steps in which a window can begin.
fn unknown_state(run: &RecordedRun<'_>, at: u64) -> Result<Missing> {
    let (source, rule) = (run.source(), run.rule().describe());
    if source.optimizer_state().is_empty() {
        return Ok(Missing::NeverRecordedState { rule, step: at });
    }
    let mut later = None;
    for range in source.ranges()? {
        // Binary search for the first step whose newest keyframe is after `at`.
        let (mut low, mut high) = (range.start.max(at + 1), range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if source.keyframe(middle)? > at {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if low < range.end {
            later = Some(low..source.end()?.step);
            break;
        }
    }
    Ok(Missing::LostState {
        rule,
        step: at,
        later,
    })
}
