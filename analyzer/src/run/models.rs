//! The models of a run: which it contains, and one after another, from one walk where they are close together.

use crate::error::{AnalysisError, Missing, Result};
use crate::query::QueryState;
use crate::run::floats::FloatVec;
use crate::run::source::{RecordedStep, StepSource};
use crate::run::walk::{Order, WithBuffers};

/// If the next model is further away than this number of steps, reading starts again at its segment instead of decoding the
/// steps between.
const FAR: u64 = 128;

/// Calls `see` with the model before each step of `models`, which are ascending: recorded steps, or T at the end.
///
/// # Errors
/// A model isn't recorded or can't be read; the errors of `see`.
pub(crate) fn each_model(
    source: &dyn StepSource,
    models: &[u64],
    see: &mut dyn FnMut(u64, &QueryState) -> Result<()>,
) -> Result<()> {
    let ranges = source.ranges()?;
    // A walk, the step that it yields next, and the end of its range.
    let mut walk: Option<(WithBuffers<'_>, u64, u64)> = None;
    for &model in models {
        let Some(range) = ranges.iter().find(|range| range.contains(&model)) else {
            let end = source.end()?;
            if end.step != model {
                return Err(AnalysisError::Missing(Missing::Step { step: model }));
            }
            see(
                model,
                &QueryState {
                    parameters: end.parameters,
                    buffers: end.buffers,
                },
            )?;
            continue;
        };
        let near = walk
            .take()
            .filter(|(_, next, end)| *next <= model && model < *end && model - next <= FAR);
        // If a step between is damaged, the model may still be reached from elsewhere.
        let reached = near.and_then(|(mut steps, _, end)| {
            let found = advance(&mut steps, model).ok()?;
            Some((found, steps, end))
        });
        let (found, steps, end) = match reached {
            Some(reached) => reached,
            None => {
                let mut steps = WithBuffers::new(source, model..range.end, Order::OldestFirst)?;
                (advance(&mut steps, model)?, steps, range.end)
            }
        };
        let (step, buffers) = found.ok_or(AnalysisError::Missing(Missing::Step { step: model }))?;
        see(
            model,
            &QueryState {
                parameters: step.parameters.to_vec(),
                buffers: buffers.to_vec(),
            },
        )?;
        walk = Some((steps, model + 1, end));
    }
    Ok(())
}

/// Whether a run contains the model before a step, or, for T, the one at the end.
///
/// # Errors
/// The run's end can't be read.
pub(crate) fn contains_model(source: &dyn StepSource) -> Result<impl Fn(u64) -> bool + use<>> {
    let (ranges, end) = (source.ranges()?, source.end()?.step);
    Ok(move |model| model == end || ranges.iter().any(|range| range.contains(&model)))
}

/// At most `most` of the values, at equal distances, with the last one.
pub(crate) fn spread(values: &[u64], most: usize) -> Vec<u64> {
    let most = most.min(values.len());
    (1..=most)
        .map(|k| values[(k * values.len()).div_ceil(most) - 1])
        .collect()
}

/// The step `model` of a walk, with the buffers before it.
fn advance(steps: &mut WithBuffers<'_>, model: u64) -> Result<Option<(RecordedStep, FloatVec)>> {
    for found in steps {
        let (step, buffers) = found?;
        if step.meta.step == model {
            return Ok(Some((step, buffers)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spread_evenly_and_end_with_the_last() {
        let all: Vec<u64> = (0..10).collect();
        assert_eq!(spread(&all, usize::MAX), all);
        assert_eq!(spread(&all, 20), all);
        assert_eq!(spread(&all, 5), [1, 3, 5, 7, 9]);
        assert_eq!(spread(&all, 3), [3, 6, 9]);
        assert_eq!(spread(&all, 1), [9]);
        assert!(spread(&all, 0).is_empty() && spread(&[], 3).is_empty());
    }
}
