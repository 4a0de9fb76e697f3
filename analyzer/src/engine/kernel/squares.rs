//! The gradients of a batch's examples, one by one.

use std::ops::Range;

use hindcast_model::net::Net;
use hindcast_model::objective::Mode;

use super::chunk::{Examples, Goal};
use super::examples::with_examples;
use super::lanes::Cut;
use super::loss::Targets;
use super::number::Number;
use super::replay::Replay;
use crate::engine::StepInput;
use crate::error::Result;

/// Number of values of all examples' gradients that are held at once.
const VALUES: usize = 1 << 24;

/// A net in which each example of a batch is a lane of its own, with its own accumulators. It is compiled when it is first
/// needed.
pub(super) struct Alone<T> {
    compiled: Option<(Mode, Replay<T>)>,
}

impl<T> Default for Alone<T> {
    fn default() -> Self {
        Alone { compiled: None }
    }
}

impl<T: Number> Alone<T> {
    /// Calls `see` with the gradient of each example's unweighted loss, without a penalty. Only for nets in which an
    /// example's loss doesn't depend on the other examples.
    ///
    /// # Errors
    /// The batch doesn't fit the net.
    pub fn each(
        &mut self,
        net: &Net,
        input: &StepInput<'_>,
        see: &mut dyn FnMut(&mut [f64]),
    ) -> Result<()> {
        let (_, replay) = match self.compiled.take() {
            Some((mode, replay)) if mode == input.mode => self.compiled.insert((mode, replay)),
            _ => {
                let replay = Replay::cut_by(net, input.mode, |_| Cut::apart())?;
                self.compiled.insert((input.mode, replay))
            }
        };
        replay.set(input.parameters, &[], &[]);
        let buffers = input.buffers.to_f64();
        let at_once = (VALUES / replay.program.parameters.max(1)).max(1);
        for batch in input.micro_batches {
            let n = batch.indices.len();
            let weights = vec![1.0; n];
            with_examples(net, batch, &weights, input.draws, |examples| {
                for start in (0..n).step_by(at_once) {
                    let some = part(examples, start..(start + at_once).min(n));
                    replay.run(Goal::Gradient, &some, &buffers, &[])?;
                    replay.each_lane(see)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// As [`Alone::each`], for nets in which the examples of a batch depend on one another: one backward pass through the whole
/// batch per example.
///
/// # Errors
/// The batch doesn't fit the net.
pub(super) fn in_batch<T: Number>(
    replay: &mut Replay<T>,
    net: &Net,
    input: &StepInput<'_>,
    see: &mut dyn FnMut(&mut [f64]),
) -> Result<()> {
    replay.set(input.parameters, &[], &[]);
    let buffers = input.buffers.to_f64();
    let mut gradient = vec![0.0; input.parameters.len()];
    for batch in input.micro_batches {
        let mut weights = vec![0.0; batch.indices.len()];
        for j in 0..weights.len() {
            weights.fill(0.0);
            weights[j] = 1.0;
            with_examples(net, batch, &weights, input.draws, |examples| {
                replay.run(Goal::Gradient, examples, &buffers, &[])
            })?;
            gradient.fill(0.0);
            replay.add_gradients(std::slice::from_mut(&mut gradient))?;
            see(&mut gradient);
        }
    }
    Ok(())
}

/// Some of a batch's examples. Their random draws are those that they have in the batch.
fn part<'a, T>(examples: &Examples<'a, T>, range: Range<usize>) -> Examples<'a, T> {
    let n = examples.indices.len().max(1);
    let values = |all: &'a [T]| {
        let by = all.len() / n;
        &all[by * range.start..by * range.end]
    };
    Examples {
        inputs: values(examples.inputs),
        targets: match examples.targets {
            Targets::Classes(classes) => Targets::Classes(&classes[range.clone()]),
            Targets::Values(all) => Targets::Values(values(all)),
        },
        weights: &examples.weights[range.clone()],
        indices: &examples.indices[range.clone()],
        occurrences: examples.occurrences[range].to_vec(),
        draws: examples.draws,
    }
}
