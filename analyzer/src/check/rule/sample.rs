//! Chooses the steps to recompute.

use std::collections::BTreeMap;
use std::ops::Range;

use hindcast_model::random::Stream;

use super::super::draw::{CHOICE, draw};
use super::options::RuleCheckOptions;
use crate::error::{AnalysisError, Result};
use crate::run::anchor::known_state;
use crate::run::recorded::RecordedRun;

/// Largest number of steps from a known state to a chosen step, for a rule with a state. Each step in between costs a
/// gradient.
const REACH: u64 = 16;

/// The steps to recompute.
pub(super) struct Sample {
    /// Ranges of steps, ascending. The optimizer state before the first step of each is known, and all its steps are
    /// computed.
    pub stretches: Vec<Range<u64>>,
    /// Chosen steps whose preceding state isn't known.
    pub unknown: Vec<u64>,
    /// The last step that can be chosen, if later ones are too far from a known state because none is recorded.
    pub limit: Option<u64>,
}

/// Chooses random steps of the window whose next state is also recorded.
pub(super) fn choose(run: &RecordedRun<'_>, options: &RuleCheckOptions) -> Result<Sample> {
    let candidates = candidates(run, &options.window)?;
    let chosen = draw(&candidates, options.samples as u64, options.seed);
    if run.rule().state_values(1) == 0 {
        return Ok(Sample {
            stretches: chosen.into_iter().map(|step| step..step + 1).collect(),
            unknown: Vec::new(),
            limit: None,
        });
    }
    let mut stream = Stream::of_run(options.seed, CHOICE);
    let (mut ends, mut unknown) = (BTreeMap::<u64, u64>::new(), Vec::new());
    let recorded = !run.source().optimizer_state().is_empty();
    let mut limit = None;
    for step in chosen {
        let known = match known_state(run, step) {
            Ok((known, _)) => known,
            Err(AnalysisError::Missing(_)) => {
                unknown.push(step);
                continue;
            }
            Err(other) => return Err(other),
        };
        let step = if step - known > REACH {
            if !recorded {
                limit = limit.max(Some(known + REACH));
            }
            known + stream.below(REACH + 1)
        } else {
            step
        };
        let end = ends.entry(known).or_default();
        *end = (*end).max(step + 1);
    }
    Ok(Sample {
        stretches: ends.into_iter().map(|(start, end)| start..end).collect(),
        unknown,
        limit,
    })
}

/// Steps of the window whose next state is recorded: ranges, ascending.
fn candidates(run: &RecordedRun<'_>, window: &Range<u64>) -> Result<Vec<Range<u64>>> {
    let end = run.source().end()?.step;
    let ranges = run.source().ranges()?.into_iter().map(|r| {
        let last = if r.end == end { r.end } else { r.end - 1 };
        r.start.max(window.start)..last.min(window.end)
    });
    Ok(ranges.filter(|r| !r.is_empty()).collect())
}
