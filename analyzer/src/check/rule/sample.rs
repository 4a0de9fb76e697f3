//! Chooses the steps to recompute.

use std::collections::BTreeMap;
use std::ops::Range;

use hindcast_model::random::{Purpose, Stream};

use super::options::RuleCheckOptions;
use crate::error::{AnalysisError, Result};
use crate::run::anchor::known_state;
use crate::run::recorded::RecordedRun;

/// Number of the random stream, which no other crate or method uses. Training draws from numbers below 2³¹.
const CHOICE: Purpose = Purpose::Other((1 << 31) + 2001, 0);

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
    let chosen = draw(&candidates, options);
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

/// Distinct steps, ascending. All of them if there are fewer than the requested number.
fn draw(candidates: &[Range<u64>], options: &RuleCheckOptions) -> Vec<u64> {
    let total: u64 = candidates.iter().map(|r| r.end - r.start).sum();
    let nth = |mut n: u64| {
        candidates.iter().find_map(|r| {
            let length = r.end - r.start;
            if n < length {
                return Some(r.start + n);
            }
            n -= length;
            None
        })
    };
    let wanted = options.samples as u64;
    if total <= wanted {
        return (0..total).filter_map(nth).collect();
    }
    // One step from each of `wanted` equal parts, so that the steps are spread over the window.
    let mut stream = Stream::of_run(options.seed, CHOICE);
    let part = |i: u64| (u128::from(total) * u128::from(i) / u128::from(wanted)) as u64;
    (0..wanted)
        .filter_map(|i| {
            let (from, to) = (part(i), part(i + 1));
            nth(from + stream.below(to - from))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(candidates: &[Range<u64>], samples: usize, seed: u64) -> Vec<u64> {
        let mut options = RuleCheckOptions::new(0..1_000, seed);
        options.samples = samples;
        draw(candidates, &options)
    }

    #[test]
    fn steps_are_spread_and_differ_between_seeds() {
        let candidates = [0..40, 100..160];
        let one = drawn(&candidates, 10, 1);
        assert_eq!(one.len(), 10);
        assert!(one.windows(2).all(|w| w[0] < w[1]), "{one:?}");
        assert!(one.iter().all(|s| candidates.iter().any(|r| r.contains(s))));
        assert_eq!(one.iter().filter(|s| **s < 40).count(), 4);
        assert_ne!(one, drawn(&candidates, 10, 2));
        assert_eq!(one, drawn(&candidates, 10, 1));
    }

    #[test]
    fn a_short_run_is_checked_whole() {
        assert_eq!(drawn(&[3..6, 9..10], 8, 5), [3, 4, 5, 9]);
        assert!(drawn(&[], 8, 5).is_empty());
    }

    #[test]
    fn every_step_can_be_chosen() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            seen.extend(drawn(&[0..20, 20..25], 3, seed));
        }
        assert_eq!(seen.len(), 25, "{seen:?}");
    }
}
