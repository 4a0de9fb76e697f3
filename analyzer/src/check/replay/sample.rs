//! Chooses the steps that a replay check recomputes.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use super::super::draw::draw;
use crate::error::{AnalysisError, Result};
use crate::run::anchor::{anchor, known_state, steps_of_state};
use crate::run::recorded::RecordedRun;

/// The steps to recompute.
pub(super) struct Sample {
    pub stretches: Vec<Stretch>,
    /// Steps whose next state is recorded and before which the optimizer's state isn't known, ascending.
    pub unknown: Vec<u64>,
    /// Why the first of them isn't known.
    pub why_unknown: Option<AnalysisError>,
    /// The number of steps from which the others are drawn: those whose next state is recorded, without the unknown ones.
    pub replayable: u64,
    /// The steps that were drawn at random; `None` if all were chosen, or the choice isn't random.
    pub drawn: Option<Vec<u64>>,
    /// How the choice deviates from random steps of the whole run; empty if it doesn't.
    pub note: String,
}

/// Consecutive steps from one at which the state is known.
pub(super) struct Stretch {
    /// The steps to walk over.
    pub range: Range<u64>,
    /// Those that are judged, ascending.
    pub chosen: VecDeque<u64>,
}

/// Chooses `samples` random steps whose successor is recorded, or all of them if `samples` is 0. A rule with a state adds all
/// steps from the last recorded state to a chosen step, because they are computed anyway. `ranges` are the recorded steps, and `end`
/// the run's end.
pub(super) fn choose(
    run: &RecordedRun<'_>,
    ranges: &[Range<u64>],
    end: u64,
    samples: usize,
    seed: u64,
) -> Result<Sample> {
    let stateful = run.rule().state_values(1) > 0;
    let recorded = !run.source().optimizer_state().is_empty();
    let replayable = replayable(ranges, end);
    let States {
        known: ranges,
        unknown,
        why,
    } = if stateful && recorded {
        states(run, replayable)?
    } else {
        States {
            known: replayable,
            ..States::default()
        }
    };
    let replayable: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    let samples = samples as u64;
    let mut note = String::new();
    let (chosen, drawn) = if samples == 0 || samples >= replayable {
        (ranges.into_iter().flatten().collect(), None)
    } else if stateful && !recorded {
        note = format!(
            "{} has a state that the trace doesn't contain. It is rebuilt from the optimizer's first step, so the first steps were chosen; a check of all steps rebuilds it to the end",
            run.rule().describe()
        );
        (first(run, ranges, samples as usize)?, None)
    } else {
        let drawn = draw(&ranges, samples, seed);
        let chosen = if stateful {
            from_known_states(run, &drawn)?
        } else {
            drawn.clone()
        };
        (chosen, Some(drawn))
    };
    let mut sample = stretches(run, chosen)?;
    sample.unknown.extend(unknown);
    sample.why_unknown = why.or(sample.why_unknown);
    sample.note = if sample.stretches.is_empty() && sample.unknown.is_empty() {
        "no two consecutive steps are recorded: nothing can be recomputed".to_owned()
    } else {
        note
    };
    (sample.replayable, sample.drawn) = (replayable, drawn);
    Ok(sample)
}

/// Ranges of steps whose successor is recorded, ascending.
fn replayable(ranges: &[Range<u64>], end: u64) -> Vec<Range<u64>> {
    let known_next = ranges
        .iter()
        .map(|r| r.start..if r.end == end { r.end } else { r.end - 1 });
    known_next.filter(|r| !r.is_empty()).collect()
}

/// Steps by what is known of the optimizer's state.
#[derive(Default)]
struct States {
    /// Ranges that begin with a known state.
    known: Vec<Range<u64>>,
    /// Steps after a hole and before the next recorded state.
    unknown: Vec<u64>,
    /// Why the first of them isn't known.
    why: Option<AnalysisError>,
}

fn states(run: &RecordedRun<'_>, ranges: Vec<Range<u64>>) -> Result<States> {
    let mut found = States::default();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            match known_state(run, at) {
                Ok(_) => break,
                Err(error @ AnalysisError::Missing(_)) => {
                    found.why.get_or_insert(error);
                    let next = steps_of_state(run, at)?.end.min(range.end);
                    found.unknown.extend(at..next);
                    at = next;
                }
                Err(other) => return Err(other),
            }
        }
        if at < range.end {
            found.known.push(at..range.end);
        }
    }
    Ok(found)
}

/// The steps, and all steps between each of them and the last state that the trace can contain before it. Ascending.
fn from_known_states(run: &RecordedRun<'_>, steps: &[u64]) -> Result<Vec<u64>> {
    let mut all = BTreeSet::new();
    for &step in steps {
        all.extend(anchor(run, step)?..step + 1);
    }
    Ok(all.into_iter().collect())
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

/// Groups the steps by the step from which the state is known.
fn stretches(run: &RecordedRun<'_>, chosen: Vec<u64>) -> Result<Sample> {
    let stateful = run.rule().state_values(1) > 0;
    let mut sample = Sample {
        stretches: Vec::new(),
        unknown: Vec::new(),
        why_unknown: None,
        replayable: 0,
        drawn: None,
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
