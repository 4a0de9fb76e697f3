//! The training thread's side of a run that candle computes.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Deref, DerefMut};

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId, Var};
use hindcast_format::KeyState;
use hindcast_format::meta::StepMeta;

use super::clip::clip;
use super::describe::StateVariable;
use super::frozen::Frozen;
use super::loss::loss_value;
use super::step::{OptimizerState, StepInfo, Trained};
use super::tensors::Tensors;
use super::turns::Turns;
use super::updates::{OwnUpdates, WithoutGradient, compare};
use crate::error::{AtStep, RecorderError};
use crate::late_state::Arrival;
use crate::metadata::{Said, set_trained};
use crate::recording::Recording;
use crate::values::Values;

/// Where a recording begins.
pub(crate) struct Begin {
    pub(crate) step: u64,
    /// The optimizer's counter before the step.
    pub(crate) update: u64,
    /// The recorded state of the optimizer before the step, by name.
    pub(crate) optimizer: Option<BTreeMap<String, Tensor>>,
    /// The counter of the optimizer of each parameter before the step, where the trace tells it.
    pub(crate) counters: Vec<Option<u64>>,
}

/// The training thread's side of a run that candle computes.
pub(crate) struct StepRecorder {
    recording: Recording,
    tensors: Tensors,
    own_updates: OwnUpdates,
    without_gradient: WithoutGradient,
    frozen: Frozen,
    /// Which optimizer trains each parameter.
    turns: Turns,
    /// Where this recording begins.
    begin: Begin,
}

impl Deref for StepRecorder {
    type Target = Recording;

    fn deref(&self) -> &Recording {
        &self.recording
    }
}

impl DerefMut for StepRecorder {
    fn deref_mut(&mut self) -> &mut Recording {
        &mut self.recording
    }
}

impl AsMut<Recording> for StepRecorder {
    fn as_mut(&mut self) -> &mut Recording {
        &mut self.recording
    }
}

/// The variables' present values, and the optimizer that gives its state by name.
struct Present<'a> {
    tensors: &'a Tensors,
    optimizer: Option<&'a dyn OptimizerState>,
    /// Whether they are the final values.
    last: bool,
}

impl Values for Present<'_> {
    fn state(
        &self,
        what: &str,
        at: AtStep<'_>,
        out: &mut [u8],
    ) -> Result<Option<Box<dyn Arrival>>, RecorderError> {
        let copied = self.tensors.copier.begin(out);
        copied.map_err(|error| at.candle(what, error))
    }

    fn optimizer(&self, key: &mut KeyState) -> Result<(), String> {
        let copied = self.tensors.copy_optimizer(self.optimizer, key);
        copied.map_err(|why| {
            if self.last {
                format!("{why} (finish_with(&optimizer) ends such a run)")
            } else {
                why
            }
        })
    }
}

impl StepRecorder {
    pub(crate) fn new(
        mut recording: Recording,
        tensors: Tensors,
        frozen: Frozen,
        begin: Begin,
    ) -> Self {
        recording.set_staged(tensors.copier.staged(), tensors.copier.refused());
        let turns = Turns::new(tensors.parameters.len(), &begin.counters);
        Self {
            recording,
            tensors,
            own_updates: OwnUpdates::default(),
            without_gradient: WithoutGradient::default(),
            frozen,
            turns,
            begin,
        }
    }

    /// Where this recording begins.
    pub(crate) fn begin(&self) -> &Begin {
        &self.begin
    }

    /// Whether this recording has no step yet.
    pub(crate) fn at_beginning(&self) -> bool {
        self.next_step() == self.begin.step
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn turns_mut(&mut self) -> &mut Turns {
        &mut self.turns
    }

    /// The positions of the recorded parameters among these variables.
    pub(crate) fn positions(&self, held: impl IntoIterator<Item = TensorId>) -> Vec<usize> {
        let positions = held.into_iter().map(|id| self.tensors.position(id));
        positions.flatten().collect()
    }

    pub(crate) fn tensors_mut(&mut self) -> &mut Tensors {
        &mut self.tensors
    }

    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Whether the run's description can't change any more.
    pub(crate) fn is_fixed(&self) -> bool {
        self.shared().description.is_fixed()
    }

    /// Adds the state of a wrapped optimizer to what the run records. Nothing happens if the run's layout is that of a
    /// state of the user's own choice.
    pub(crate) fn add_state(&mut self, state: &[StateVariable]) -> Result<(), String> {
        if self.tensors.add_state(state)? {
            self.recording.set_layout(self.tensors.layout.clone());
        }
        Ok(())
    }

    /// Gives the variables of a wrapped optimizer a parameter group of their own, so that its rate and decay can differ
    /// from those of others in the same step. Nothing happens if the layout is fixed or the builder named groups.
    pub(crate) fn claim_group(&mut self, held: &HashSet<TensorId>) -> Result<(), String> {
        if let Some(name) = self.frozen.held(held) {
            return Err(format!(
                "the optimizer holds {name:?}, which is frozen: create it without that variable, or leave the variable out of the test of Builder::frozen"
            ));
        }
        let named = self.tensors.claims <= 1 && self.tensors.layout.groups() > 1;
        if !self.shared().description.is_fixed() && !named && self.tensors.claim(held)? {
            self.recording.set_layout(self.tensors.layout.clone());
        }
        Ok(())
    }

    /// Number of parameter groups.
    pub(crate) fn groups(&self) -> usize {
        self.tensors.layout.groups()
    }

    /// Number of parameters.
    pub(crate) fn parameters(&self) -> usize {
        self.tensors.parameters.len()
    }

    /// The optimizer failed in a step that is already recorded. The variables may be partly updated, so no step may
    /// follow.
    pub(crate) fn update_failed(&mut self, error: candle_core::Error) -> RecorderError {
        let failed = self.next_step().saturating_sub(1);
        let error = self
            .shared()
            .at(failed)
            .candle("the optimizer's step failed, and the run ends here", error);
        self.stop(&error);
        error
    }

    /// Records the next step: the variables as they are now, and what the loop says about the step.
    pub(crate) fn record(
        &mut self,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        self.prepare(info, loss)?;
        self.hand_over();
        Ok(())
    }

    /// Captures the next step and keeps it back until its update is done. [`settle`](Self::settle) or
    /// [`hand_over`](Self::hand_over) queues it.
    pub(crate) fn prepare(
        &mut self,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        self.hand_over();
        let recorded = self.ready()?;
        let Self {
            recording,
            tensors,
            own_updates,
            without_gradient,
            frozen,
            turns,
            begin,
        } = self;
        let (shared, next) = (
            std::sync::Arc::clone(recording.shared()),
            recording.next_step(),
        );
        own_updates.check(&shared, tensors, recording.last(), next)?;
        if next == begin.step + 1 {
            // An optimizer that doesn't tell what it holds may have updated a frozen variable.
            frozen.check().map_err(|why| recording.at().wrong(why))?;
        }
        let next_update = recording.next_update();
        let said = Said {
            hyper: info.hyper,
            optimizer_step: info.optimizer_step,
        };
        let wanted = recording.choices().loss_values;
        let present = Present {
            tensors,
            optimizer: info.optimizer,
            last: false,
        };
        recording.prepare(
            info.batch.as_ref(),
            &said,
            &mut |meta, shared, at| {
                trained(tensors, meta, info.trained).map_err(|why| at.wrong(why))?;
                meta.loss = info.loss;
                if let (None, Some(loss)) = (meta.loss, loss) {
                    meta.loss = loss_value(loss, wanted)
                        .map_err(|error| at.candle("reading the loss", error))?;
                }
                without_gradient.see(shared, tensors, info.trained);
                if let Trained::Gradients(gradients) = info.trained {
                    own_updates
                        .expect(tensors, meta, gradients)
                        .map_err(|error| at.candle("reading the gradients", error))?;
                }
                Ok(())
            },
            &present,
        )?;
        if !recorded {
            // Training continues without a trace, and the optimizer's counter with it.
            let mut meta = shared.pool.meta();
            meta.trained.clear();
            let flags = trained(tensors, &mut meta, info.trained);
            flags.map_err(|why| shared.at(next).wrong(why))?;
            turns.take(&meta.trained, info.optimizer_step.unwrap_or(next_update));
            shared.pool.give_back_meta(meta);
        }
        Ok(())
    }

    /// Queues the captured step. Its update is known now.
    pub(crate) fn hand_over(&mut self) {
        if let Some(job) = self.recording.prepared() {
            self.turns.take(&job.meta.trained, job.meta.optimizer_step);
        }
        self.recording.hand_over();
    }

    /// Clips the gradients of these variables, and records at which norm. Returns their norm before.
    pub(crate) fn clip(
        &mut self,
        gradients: &mut GradStore,
        variables: &[Var],
        most: f64,
    ) -> Result<f64, RecorderError> {
        self.expect_clipping(most)?;
        // In the order of the layout, in which a replay adds.
        let mut ordered = BTreeMap::new();
        for var in variables {
            let Some(position) = self.tensors.position(var.id()) else {
                let why = format!(
                    "a variable of shape {:?} isn't a parameter of the run",
                    var.dims()
                );
                return Err(self.at().wrong(why));
            };
            ordered.insert(position, var);
        }
        let ordered: Vec<&Var> = ordered.into_values().collect();
        let norm = clip(gradients, &ordered, most)
            .map_err(|error| self.at().candle("clipping the gradients", error))?;
        self.clipped(most);
        Ok(norm)
    }

    /// Compares the parameters with their recorded values after the optimizer's update, then queues the step. `unseen`
    /// holds the parameters that have not been seen to change.
    pub(crate) fn settle(
        &mut self,
        gradients: &GradStore,
        unseen: &mut Vec<usize>,
    ) -> Result<(), RecorderError> {
        let shared = std::sync::Arc::clone(self.shared());
        let Some(job) = self.recording.prepared() else {
            return Ok(());
        };
        let compared = compare(&shared, &self.tensors, job, gradients, unseen);
        self.hand_over();
        compared.map_err(|error| self.at().candle("comparing the updated variables", error))
    }

    /// Queues the final state and closes the queue.
    pub(crate) fn finish(
        &mut self,
        optimizer: Option<&dyn OptimizerState>,
    ) -> Result<(), RecorderError> {
        if let Err(why) = self.frozen.check() {
            return Err(self.at().wrong(why));
        }
        let present = Present {
            tensors: &self.tensors,
            optimizer,
            last: true,
        };
        self.recording.finish(&present)
    }
}

/// Sets the flags of the parameters that a step trains. The error text says what is wrong.
fn trained(tensors: &Tensors, meta: &mut StepMeta, trained: Trained<'_>) -> Result<(), String> {
    let parameters = &tensors.parameters;
    match trained {
        Trained::All => meta.trained.resize(parameters.len(), true),
        Trained::Gradients(gradients) | Trained::Watched(gradients) => {
            let flags = parameters.iter().map(|var| gradients.get(var).is_some());
            meta.trained.extend(flags);
        }
        Trained::Updated(gradients, updated) => meta.trained.extend(
            parameters
                .iter()
                .map(|var| updated.contains(&var.id()) && gradients.get(var).is_some()),
        ),
        Trained::Flags(flags) => return set_trained(meta, flags, parameters.len()),
    }
    Ok(())
}
