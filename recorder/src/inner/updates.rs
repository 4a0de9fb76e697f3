//! Finds out which of the parameters with a gradient a step updated.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use hindcast_format::State;
use hindcast_format::meta::StepMeta;

use super::Inner;
use crate::error::RecorderError;
use crate::shared::{Job, Kind};
use crate::watch::{has_changed, must_change};

/// What the loop's own update is expected to do to parameters that were recorded as trained and have not been seen to change.
pub(super) struct Claim {
    step: u64,
    /// Positions of the parameters, and whether their gradient must change them.
    parameters: Vec<(usize, bool)>,
}

impl Inner {
    pub(crate) fn parameters(&self) -> usize {
        self.tensors.parameters.len()
    }

    /// The bytes of one parameter in a recorded state.
    fn bytes_of<'a>(&self, state: &'a State, parameter: usize) -> Option<&'a [u8]> {
        // Parameters are the first tensors of a layout.
        let layout = &self.tensors.layout;
        layout.parameters().get(parameter)?;
        state.bytes().get(layout.range(parameter))
    }

    fn changed_since(&self, state: &State, parameter: usize) -> candle_core::Result<bool> {
        let var = self.tensors.parameters.get(parameter);
        match (var, self.bytes_of(state, parameter)) {
            (Some(var), Some(before)) => has_changed(var, before),
            _ => Ok(true),
        }
    }

    fn must_change(
        &self,
        parameter: usize,
        gradients: &GradStore,
        meta: &StepMeta,
    ) -> candle_core::Result<bool> {
        let Some(var) = self.tensors.parameters.get(parameter) else {
            return Ok(false);
        };
        let spec = self.tensors.layout.parameters().get(parameter);
        let group = spec.and_then(|spec| meta.groups.get(usize::from(spec.group)));
        match (gradients.get(var), group) {
            (Some(gradient), Some(group)) => must_change(var, gradient, group.learning_rate),
            _ => Ok(false),
        }
    }

    /// After the optimizer's update, and before the step is handed over: a parameter whose gradient must have changed it and that holds
    /// the same bits is recorded as not trained. `unseen` are the parameters that have not been seen to change.
    pub(crate) fn settle(
        &mut self,
        gradients: &GradStore,
        unseen: &mut Vec<usize>,
    ) -> Result<(), RecorderError> {
        let Some(mut job) = self.prepared.take() else {
            return Ok(());
        };
        let compared = self.compare(&mut job, gradients, unseen);
        self.prepared = Some(job);
        self.hand_over();
        compared.map_err(|error| self.candle("comparing the updated variables", error))
    }

    fn compare(
        &self,
        job: &mut Job,
        gradients: &GradStore,
        unseen: &mut Vec<usize>,
    ) -> candle_core::Result<()> {
        let Some(state) = state_of(&job.kind) else {
            return Ok(());
        };
        let mut still = Vec::with_capacity(unseen.len());
        for &parameter in unseen.iter() {
            if job.meta.trained.get(parameter) != Some(&true) {
                still.push(parameter);
            } else if !self.changed_since(&state, parameter)? {
                still.push(parameter);
                if self.must_change(parameter, gradients, &job.meta)? {
                    if let Some(trained) = job.meta.trained.get_mut(parameter) {
                        *trained = false;
                    }
                    let spec = self.tensors.layout.parameters().get(parameter);
                    let name = spec.map_or_else(String::new, |spec| spec.name.clone());
                    self.shared.counters.not_updated(name);
                }
            }
        }
        *unseen = still;
        Ok(())
    }

    /// Notes what a step of the loop's own update must do, before it is done.
    pub(super) fn claim(
        &mut self,
        meta: &StepMeta,
        gradients: &GradStore,
    ) -> candle_core::Result<()> {
        let unseen = self
            .unseen
            .get_or_insert_with(|| (0..self.tensors.parameters.len()).collect());
        let trained = |at: &usize| meta.trained.get(*at) == Some(&true);
        let trained: Vec<usize> = unseen.iter().copied().filter(trained).collect();
        let mut parameters = Vec::with_capacity(trained.len());
        for at in trained {
            parameters.push((at, self.must_change(at, gradients, meta)?));
        }
        self.claim = (!parameters.is_empty()).then_some(Claim {
            step: meta.step,
            parameters,
        });
        Ok(())
    }

    /// Compares the variables with the expectations of the preceding step.
    pub(super) fn check_claim(&mut self) -> Result<(), RecorderError> {
        let Some(claim) = self.claim.take() else {
            return Ok(());
        };
        let state = match &self.last {
            Some(base) if base.step == claim.step => Arc::clone(&base.state),
            _ => return Ok(()),
        };
        for &(parameter, sure) in &claim.parameters {
            let changed = self
                .changed_since(&state, parameter)
                .map_err(|error| self.candle("comparing the updated variables", error))?;
            if changed {
                if let Some(unseen) = &mut self.unseen {
                    unseen.retain(|at| *at != parameter);
                }
            } else if sure {
                let spec = self.tensors.layout.parameters().get(parameter);
                let name = spec.map_or("", |spec| spec.name.as_str());
                let error = self.wrong(format!(
                    "step {} was recorded as one that trains {name:?}, since it had a gradient; but the update left it as it was. candle gives \
                     gradients to frozen variables, too: say which parameters are trained with StepInfo::trained(&flags) from the first step \
                     on, and record the run anew",
                    claim.step
                ));
                // The step before can't be mended, so that every later call says the same.
                self.claim = Some(claim);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The recorded state of a step, where it is at hand.
fn state_of(kind: &Kind) -> Option<Arc<State>> {
    match kind {
        Kind::Keyframe { state, .. } | Kind::Difference { state, .. } | Kind::Thinned { state } => {
            Some(Arc::clone(state))
        }
        Kind::Skipped { .. } => None,
    }
}
