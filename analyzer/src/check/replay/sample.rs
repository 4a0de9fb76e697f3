//! Chooses the steps that a replay check recomputes.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{AnalysisError, Result};
use crate::run::anchor::{anchor, known_state};
use crate::run::recorded::RecordedRun;

/// The steps to recompute.
pub(super) struct Sample {
    pub stretches: Vec<Stretch>,
    /// Chosen steps before which the state isn't known, ascending.
    pub unknown: Vec<u64>,
    /// Why the first of them isn't known.
    pub why_unknown: Option<AnalysisError>,
    /// How the choice deviates from steps spread evenly over the recorded ones; empty if it doesn't.
    pub note: String,
}

/// Consecutive steps from one at which the state is known.
pub(super) struct Stretch {
    /// The steps to walk over.
    pub range: Range<u64>,
    /// The chosen ones, ascending.
    pub chosen: VecDeque<u64>,
}

/// Chooses at most `samples` steps whose successor is recorded, or all of them if `samples` is 0.
pub(super) fn choose(run: &RecordedRun<'_>, samples: usize) -> Result<Sample> {
    let stateful = run.rule().state_values(1) > 0;
    let ranges = replayable(run)?;
    let rule = run.rule().describe();
    let (chosen, note) = if !stateful || samples == 0 {
        (
            spread(ranges.into_iter().flatten().collect(), samples),
            String::new(),
        )
    } else if run.source().optimizer_state().is_empty() {
        let first = first(run, ranges, samples)?;
        let note = format!(
            "{rule} has a state that the trace doesn't contain. It is rebuilt from the optimizer's first step, so the first steps were chosen; a check of all steps rebuilds it to the end"
        );
        (first, note)
    } else {
        let near = near_keyframes(run, ranges)?;
        let note = format!(
            "{rule} has a state, which is recorded at keyframes: only steps there were chosen"
        );
        (spread(near, samples), note)
    };
    let mut sample = stretches(run, chosen)?;
    sample.note = if sample.stretches.is_empty() && sample.unknown.is_empty() {
        "no two consecutive steps are recorded: nothing can be recomputed".to_owned()
    } else {
        note
    };
    Ok(sample)
}

/// Ranges of steps whose successor is recorded, ascending.
fn replayable(run: &RecordedRun<'_>) -> Result<Vec<Range<u64>>> {
    let end = run.source().end()?.step;
    let ranges = run.source().ranges()?.into_iter();
    Ok(ranges
        .map(|r| r.start..if r.end == end { r.end } else { r.end - 1 })
        .collect())
}

/// Each keyframe and the step after it, which uses a rebuilt state, ascending.
fn near_keyframes(run: &RecordedRun<'_>, ranges: Vec<Range<u64>>) -> Result<Vec<u64>> {
    let mut near = Vec::new();
    for range in ranges {
        let mut at = range.end;
        while at > range.start {
            let key = run.source().keyframe(at - 1)?.max(range.start);
            near.extend((key..range.end.min(key + 2)).rev());
            at = key;
        }
    }
    near.sort_unstable();
    near.dedup();
    Ok(near)
}

/// The first steps of the ranges whose first state is known. If none is known, the first steps of all.
fn first(run: &RecordedRun<'_>, ranges: Vec<Range<u64>>, samples: usize) -> Result<Vec<u64>> {
    let mut known = Vec::new();
    for range in ranges.iter().filter(|r| !r.is_empty()) {
        match known_state(run, range.start) {
            Ok(_) => known.push(range.clone()),
            Err(AnalysisError::Missing(_)) => {}
            Err(other) => return Err(other),
        }
    }
    let from = if known.is_empty() { ranges } else { known };
    Ok(from.into_iter().flatten().take(samples).collect())
}

/// At most `samples` of the steps, evenly spread; 0 for all.
fn spread(steps: Vec<u64>, samples: usize) -> Vec<u64> {
    let all = steps.len();
    if samples == 0 || all <= samples {
        return steps;
    }
    let mut chosen: Vec<u64> = (0..samples)
        .map(|i| steps[i * (all - 1) / (samples - 1).max(1)])
        .collect();
    chosen.dedup();
    chosen
}

/// Groups the steps by the step from which the state is known.
fn stretches(run: &RecordedRun<'_>, chosen: Vec<u64>) -> Result<Sample> {
    let stateful = run.rule().state_values(1) > 0;
    let mut sample = Sample {
        stretches: Vec::new(),
        unknown: Vec::new(),
        why_unknown: None,
        note: String::new(),
    };
    // The start of the newest group, and whether the state is known there.
    let mut group: Option<(u64, bool)> = None;
    for step in chosen {
        let consecutive = || sample.stretches.last().is_some_and(|s| s.range.end == step);
        let start = match (stateful, group) {
            (true, _) => anchor(run, step)?,
            (false, Some((start, true))) if consecutive() => start,
            (false, _) => step,
        };
        if group.map(|(start, _)| start) != Some(start) {
            let known = match known_state(run, start) {
                Ok(_) => true,
                Err(e @ AnalysisError::Missing(_)) => {
                    sample.why_unknown.get_or_insert(e);
                    false
                }
                Err(other) => return Err(other),
            };
            group = Some((start, known));
            if known {
                sample.stretches.push(Stretch {
                    range: start..start,
                    chosen: VecDeque::new(),
                });
            }
        }
        match (group, sample.stretches.last_mut()) {
            (Some((_, true)), Some(stretch)) => {
                stretch.range.end = step + 1;
                stretch.chosen.push_back(step);
            }
            _ => sample.unknown.push(step),
        }
    }
    Ok(sample)
}
