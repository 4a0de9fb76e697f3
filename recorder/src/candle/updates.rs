//! Finds out which of the parameters with a gradient a step updated.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use hindcast_format::meta::StepMeta;

use super::step::Trained;
use super::tensors::Tensors;
use crate::error::RecorderError;
use crate::late_state::LateState;
use crate::shared::Shared;
use crate::work::{Base, Captured, Job};

/// Compares the parameters with their recorded values after a wrapped optimizer's update. A parameter that kept its
/// bits although its gradient must have changed them is recorded as not trained. `unseen` holds the parameters that
/// have not been seen to change.
pub(crate) fn compare(
    shared: &Shared,
    tensors: &Tensors,
    job: &mut Job,
    gradients: &GradStore,
    unseen: &mut Vec<usize>,
) -> candle_core::Result<()> {
    let waits = |at: &usize| job.meta.trained.get(*at) == Some(&true);
    if !unseen.iter().any(waits) {
        return Ok(());
    }
    let Some(late) = state_of(&job.captured) else {
        return Ok(());
    };
    // If the copy failed, the encoder reports it.
    let Ok(state) = late.wait() else {
        return Ok(());
    };
    let mut still = Vec::with_capacity(unseen.len());
    for &parameter in unseen.iter() {
        if job.meta.trained.get(parameter) != Some(&true) {
            still.push(parameter);
        } else if !tensors.changed_since(state, parameter)? {
            still.push(parameter);
            if tensors.must_change(parameter, gradients, &job.meta)? {
                if let Some(trained) = job.meta.trained.get_mut(parameter) {
                    *trained = false;
                }
                let name = tensors.name(parameter).to_owned();
                shared.counters.not_updated(name);
            }
        }
    }
    *unseen = still;
    Ok(())
}

/// Finds the parameters that have no gradient in any step of the optimizer that holds them.
#[derive(Default)]
pub(crate) struct WithoutGradient {
    /// The parameters that had none so far. `None` before the first step.
    left: Option<Vec<Missed>>,
}

/// A parameter without a gradient.
struct Missed {
    parameter: usize,
    /// Whether an optimizer that holds it has taken a step. Until then it isn't missed.
    held: bool,
}

impl WithoutGradient {
    /// Looks at the gradients of a step. A step says nothing about parameters that its optimizer is known not to hold:
    /// they may belong to an optimizer whose turn comes later, or to none.
    pub(crate) fn see(&mut self, shared: &Shared, tensors: &Tensors, trained: Trained<'_>) {
        let all = || {
            let missed = |parameter| Missed {
                parameter,
                held: false,
            };
            (0..tensors.parameters.len()).map(missed).collect()
        };
        let mut changed = false;
        let left = self.left.get_or_insert_with(all);
        left.retain_mut(|missed| {
            let (held, has_gradient) = match (trained, tensors.parameters.get(missed.parameter)) {
                (Trained::Gradients(gradients) | Trained::Watched(gradients), Some(var)) => {
                    (true, gradients.get(var).is_some())
                }
                (Trained::Updated(gradients, held), Some(var)) => {
                    (held.contains(&var.id()), gradients.get(var).is_some())
                }
                // The loop says which parameters it trains.
                _ => (true, true),
            };
            changed |= held && (has_gradient || !missed.held);
            missed.held |= held;
            !(held && has_gradient)
        });
        if changed {
            let missed = left.iter().filter(|missed| missed.held);
            let names = missed.map(|missed| tensors.name(missed.parameter).to_owned());
            shared.counters.without_gradient(names.collect());
        }
    }
}

/// The recorded state of a step, unless the queue had no room for it.
fn state_of(captured: &Captured) -> Option<Arc<LateState>> {
    match captured {
        Captured::Keyframe { state, .. }
        | Captured::Difference { state, .. }
        | Captured::Thinned { state } => Some(Arc::clone(state)),
        Captured::Skipped { .. } => None,
    }
}

/// Checks the updates that a loop computes itself against its [`StepInfo::gradients`](crate::StepInfo::gradients).
#[derive(Default)]
pub(crate) struct OwnUpdates {
    /// Parameters that have not been seen to change. `None` before the first step.
    unseen: Option<Vec<usize>>,
    /// What the last step's update is expected to do.
    expected: Option<ExpectedUpdate>,
}

/// What a step's update is expected to do to parameters that were recorded as trained and have not been seen to change.
struct ExpectedUpdate {
    step: u64,
    /// Positions of the parameters, and whether their gradient must change them.
    parameters: Vec<(usize, bool)>,
}

impl OwnUpdates {
    /// Notes, before the update, which parameters it is expected to change.
    pub(crate) fn expect(
        &mut self,
        tensors: &Tensors,
        meta: &StepMeta,
        gradients: &GradStore,
    ) -> candle_core::Result<()> {
        let unseen = self
            .unseen
            .get_or_insert_with(|| (0..tensors.parameters.len()).collect());
        let trained = |at: &usize| meta.trained.get(*at) == Some(&true);
        let trained: Vec<usize> = unseen.iter().copied().filter(trained).collect();
        let mut parameters = Vec::with_capacity(trained.len());
        for at in trained {
            parameters.push((at, tensors.must_change(at, gradients, meta)?));
        }
        self.expected = (!parameters.is_empty()).then_some(ExpectedUpdate {
            step: meta.step,
            parameters,
        });
        Ok(())
    }

    /// Compares the variables with the expected update of the preceding step, whose state is `last`. The next step is
    /// `next`.
    pub(crate) fn check(
        &mut self,
        shared: &Shared,
        tensors: &Tensors,
        last: Option<&Base>,
        next: u64,
    ) -> Result<(), RecorderError> {
        let Some(expected) = self.expected.take() else {
            return Ok(());
        };
        let late = match last {
            Some(base) if base.step == expected.step => Arc::clone(&base.state),
            _ => return Ok(()),
        };
        // If the copy failed, the encoder reports it.
        let Ok(state) = late.wait() else {
            return Ok(());
        };
        let at = shared.at(next);
        for &(parameter, sure) in &expected.parameters {
            let changed = tensors
                .changed_since(state, parameter)
                .map_err(|error| at.candle("comparing the updated variables", error))?;
            if changed {
                if let Some(unseen) = &mut self.unseen {
                    unseen.retain(|at| *at != parameter);
                }
            } else if sure {
                let name = tensors.name(parameter);
                let error = at.wrong(format!(
                    "step {} was recorded as one that trains {name:?}, because it had a gradient, but the update did not change it. candle gives \
                     gradients to frozen variables, too: list the trained parameters with StepInfo::trained(&flags) from the first step on, \
                     and record the run again",
                    expected.step
                ));
                // The recorded step can't be corrected, so every later call must fail in the same way.
                self.expected = Some(expected);
                return Err(error);
            }
        }
        Ok(())
    }
}
