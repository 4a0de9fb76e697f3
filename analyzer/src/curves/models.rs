//! The models of a run, one after another, from one walk where they are close together.

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
