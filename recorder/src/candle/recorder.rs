//! [`Recorder`], the user's handle on a run that is being recorded.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::Optimizer;
use hindcast_format::RowSplit;
use hindcast_format::layout::Layout;

use super::describe::Describe;
use super::handle::Handle;
use super::known::Describing;
use super::row_tensors::{RowBatch, block};
use super::step::{OptimizerState, StepInfo};
use super::step_recorder::StepRecorder;
use super::together::{WrappedOptimizer, step_together};
use super::wrap::Recorded;
use crate::batch::BatchInfo;
use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::statistics::Statistics;
use crate::threads::{Summary, Threads};

/// A run being recorded.
///
/// [`Recorder::builder`] makes it, [`finish`](Self::finish) ends it. If it is dropped without `finish` (an early `?`, a
/// panic), the run is sealed as *unfinished*: it has all steps, but not the final state.
#[must_use = "a recorder that is dropped seals its run as unfinished"]
pub struct Recorder {
    handle: Handle,
    threads: Threads,
}

impl Recorder {
    pub(crate) fn start(steps: StepRecorder, threads: Threads) -> Self {
        Self {
            handle: Handle::new(steps),
            threads,
        }
    }

    /// Announces the batch of the next step: the training examples `indices` in order, whose losses are averaged.
    ///
    /// # Errors
    /// An announced batch is still waiting for its step, an index lies outside of the data, or recording has failed.
    pub fn batch(&self, epoch: u64, indices: &[u64]) -> Result<(), RecorderError> {
        self.batch_with(BatchInfo::new(epoch, indices))
    }

    /// Announces the batch of the next step with everything that [`BatchInfo`] can say.
    ///
    /// # Errors
    /// As [`batch`](Self::batch). Also if weights or micro-batches don't fit the indices.
    pub fn batch_with(&self, batch: BatchInfo<'_>) -> Result<(), RecorderError> {
        self.handle.lock().announce(&batch)
    }

    /// Announces the batch of the next step by its tensors, for loaders that give no indices: candle_datasets' `Batcher`,
    /// random windows over a text, generated data, a replay memory. Give all tensors on which the loss of an example
    /// depends, usually inputs and targets; the first axis of each counts the examples. Returns the examples' indices.
    ///
    /// Each row is identified by a digest of its bytes, and its index is the order of its first appearance in the run. By
    /// default the run stores each distinct row once ([`StoreRows`](crate::StoreRows)), so an analysis needs no data.
    /// Equal rows are one example. A run uses either this call or [`batch`](Self::batch).
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::{Module, Optimizer, SGD, VarBuilder, VarMap, linear, loss::mse};
    /// # use hindcast_recorder::Recorder;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("run");
    /// # let variables = VarMap::new();
    /// # let model = linear(3, 1, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// let run = Recorder::builder(&path).create(&variables)?;
    /// # let held_x = Tensor::randn(0f32, 1., (4, 3), &Device::Cpu)?;
    /// # let held_y = held_x.sum_keepdim(1)?;
    /// run.validation_of(&[&held_x, &held_y])?; // what the analysis will ask about
    /// # let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1)?);
    /// for _ in 0..4 {
    ///     let x = Tensor::randn(0f32, 1., (8, 3), &Device::Cpu)?;
    ///     let y = x.sum_keepdim(1)?;
    ///     run.batch_of(0, &[&x, &y])?;
    ///     sgd.backward_step(&mse(&model.forward(&x)?, &y)?)?;
    /// }
    /// assert_eq!(run.finish()?.statistics.rows, 32);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`batch`](Self::batch). Also if the tensors don't fit together, or the distinct rows exceed their limit.
    pub fn batch_of(&self, epoch: u64, tensors: &[&Tensor]) -> Result<Vec<u64>, RecorderError> {
        self.batch_of_with(&RowBatch::new(epoch, tensors))
    }

    /// Announces the batch of the next step by its tensors, with everything that [`RowBatch`] can say. Returns the
    /// examples' indices.
    ///
    /// # Errors
    /// As [`batch_of`](Self::batch_of).
    pub fn batch_of_with(&self, batch: &RowBatch<'_>) -> Result<Vec<u64>, RecorderError> {
        self.handle.lock().announce_rows(batch.info, batch.blocks())
    }

    /// Stores validation examples with the run, as [`batch_of`](Self::batch_of) stores training examples. An analysis of
    /// the run then needs no data. Call it before the first step, with the same tensors when a run is resumed: they are
    /// stored with the next step, and [`finish`](Self::finish) returns an error if there is none.
    ///
    /// # Errors
    /// The tensors don't fit together, there are too many rows, or the run already has other validation rows.
    pub fn validation_of(&self, tensors: &[&Tensor]) -> Result<(), RecorderError> {
        let rows = block(tensors);
        self.handle.lock().hold_out(RowSplit::Validation, rows)
    }

    /// Stores test examples with the run. Otherwise like [`validation_of`](Self::validation_of).
    ///
    /// # Errors
    /// As [`validation_of`](Self::validation_of).
    pub fn test_of(&self, tensors: &[&Tensor]) -> Result<(), RecorderError> {
        let rows = block(tensors);
        self.handle.lock().hold_out(RowSplit::Test, rows)
    }

    /// Clips gradients as PyTorch's `clip_grad_norm_`, and records it with the announced batch: it multiplies them by
    /// `max_norm / (norm + 1e-6)` if that is below 1. `variables` are the parameters that the step trains, in any order. Returns their
    /// joint norm before.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::{Module, VarBuilder, VarMap, linear, loss::mse};
    /// # use hindcast_recorder::{AdamW, Recorder};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("run");
    /// # let variables = VarMap::new();
    /// # let model = linear(3, 1, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    /// # let (x, y) = (Tensor::ones((2, 3), DType::F32, &Device::Cpu)?, Tensor::ones((2, 1), DType::F32, &Device::Cpu)?);
    /// let run = Recorder::builder(&path).create(&variables)?;
    /// let mut adam = run.wrap(AdamW::new_lr(variables.all_vars(), 1e-3)?);
    /// run.batch(0, &[0, 1])?;
    /// let loss = mse(&model.forward(&x)?, &y)?;
    /// let mut gradients = loss.backward()?;
    /// run.clip_grad_norm(&mut gradients, &variables.all_vars(), 1.0)?;
    /// adam.step_with(&gradients, Some(&loss))?;
    /// run.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No batch is announced, its gradients are clipped already, `max_norm` isn't positive and finite, or a variable isn't a
    /// parameter of the run. The gradients are unchanged then.
    pub fn clip_grad_norm(
        &self,
        gradients: &mut GradStore,
        variables: &[Var],
        max_norm: f64,
    ) -> Result<f64, RecorderError> {
        self.handle.lock().clip(gradients, variables, max_norm)
    }

    /// Withdraws the announced batch. For loops that leave out a step, for example because its loss is not finite.
    pub fn skip_batch(&self) {
        self.handle.lock().withdraw();
    }

    /// Wraps a candle optimizer, so that every step it takes is recorded.
    ///
    /// candle gives gradients to all variables that the loss depends on, including those that the optimizer doesn't
    /// hold. The wrapper finds out which parameters the optimizer updates: it asks candle's `SGD` for its variables,
    /// and with other optimizers it compares each parameter before and after the updates until it has changed once.
    /// [`Recorded::updates`] lists the variables instead.
    ///
    /// candle's `SGD` and `AdamW` tell their update rule, so the run needs no [`rule`](crate::Builder::rule). For an
    /// optimizer of another type, the first step fails if the run has no rule.
    /// [`wrap_described`](Self::wrap_described) wraps one that tells its own.
    ///
    /// Keyframes hold the state of an optimizer that tells it, such as [`AdamW`](crate::AdamW). In a run that was
    /// resumed, that state is put back into the optimizer.
    pub fn wrap<O: Optimizer + 'static>(&self, optimizer: O) -> Recorded<O> {
        Recorded::new(optimizer, self.handle.clone(), Describing::KNOWN, None)
    }

    /// Wraps an optimizer of your own that tells what it does.
    pub fn wrap_described<O: Optimizer + Describe + 'static>(&self, optimizer: O) -> Recorded<O> {
        Recorded::new(optimizer, self.handle.clone(), Describing::OWN, None)
    }

    /// Wraps an optimizer whose state is recorded with every keyframe. The optimizer must also have been given to
    /// [`Builder::optimizer_state`](crate::Builder::optimizer_state).
    pub fn wrap_with_state<O: Optimizer + OptimizerState + 'static>(
        &self,
        optimizer: O,
    ) -> Recorded<O> {
        Recorded::new(
            optimizer,
            self.handle.clone(),
            Describing::KNOWN,
            Some(|optimizer| optimizer),
        )
    }

    /// Computes the gradients of `loss`, records the step, and lets several wrapped optimizers take it: of actor and
    /// critic, of head and backbone, or with and without decay. Each parameter must have one optimizer. All have the
    /// run's update rule. Learning rate and decay may differ: each optimizer that is wrapped before the first step gets
    /// a parameter group of its own, unless [`Builder::groups`](crate::Builder::groups) named groups.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::{Module, VarBuilder, VarMap, linear};
    /// use hindcast_recorder::{AdamW, Recorder};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("run");
    /// # let x = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let (backbone, head) = (linear(3, 4, vb.pp("backbone"))?, linear(4, 1, vb.pp("head"))?);
    /// # let parts = |prefix: &str| -> Vec<candle_core::Var> {
    /// #     let data = variables.data().lock().unwrap();
    /// #     data.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, var)| var.clone()).collect()
    /// # };
    ///
    /// let run = Recorder::builder(&path).create(&variables)?;
    /// let mut slow = run.wrap(AdamW::new_lr(parts("backbone"), 1e-4)?);
    /// let mut fast = run.wrap(AdamW::new_lr(parts("head"), 1e-2)?);
    /// for _ in 0..3 {
    ///     let loss = head.forward(&backbone.forward(&x)?)?.sqr()?.mean_all()?;
    ///     run.batch(0, &[0, 1])?;
    ///     run.backward_step(&loss, &mut [&mut slow, &mut fast])?;
    /// }
    /// run.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Optimizers that take turns don't need it: call [`Recorded::backward_step`] of the one whose turn it is.
    ///
    /// # Errors
    /// As [`Recorded::backward_step`]. Also if the optimizers don't fit together; nothing is recorded then.
    pub fn backward_step(
        &self,
        loss: &Tensor,
        optimizers: &mut [&mut dyn WrappedOptimizer],
    ) -> Result<(), RecorderError> {
        let gradients = loss.backward();
        let gradients = gradients.map_err(|error| {
            self.handle
                .lock()
                .at()
                .candle("computing the gradients", error)
        })?;
        self.step_with(&gradients, Some(loss), optimizers)
    }

    /// [`backward_step`](Self::backward_step) with gradients that the loop has computed (and may have clipped or
    /// accumulated). `loss` is the batch loss, if it is to be recorded.
    ///
    /// # Errors
    /// As [`backward_step`](Self::backward_step).
    pub fn step_with(
        &self,
        gradients: &GradStore,
        loss: Option<&Tensor>,
        optimizers: &mut [&mut dyn WrappedOptimizer],
    ) -> Result<(), RecorderError> {
        step_together(&self.handle, gradients, loss, optimizers)
    }

    /// Records a step of a loop that computes its own update. Call it after the forward pass and before the variables
    /// change.
    ///
    /// # Errors
    /// Nothing was recorded. The call may be repeated with the right values, unless storage failed: then every later
    /// call returns the same error.
    pub fn step(&self, info: &StepInfo<'_>) -> Result<(), RecorderError> {
        self.handle.lock().record(info, None)
    }

    /// The disk space and memory that the run is expected to take.
    pub fn estimate(&self) -> Estimate {
        self.handle.lock().estimate()
    }

    /// The recorded tensors in their order.
    pub fn layout(&self) -> Layout {
        self.handle.lock().layout().clone()
    }

    /// Number of the next step to be recorded.
    pub fn next_step(&self) -> u64 {
        self.handle.lock().next_step()
    }

    /// The newest step that the run's [`Durability`](hindcast_format::Durability) already protects, together with all
    /// steps before it. `None` if there is none yet.
    pub fn durable_step(&self) -> Option<u64> {
        self.handle.shared().durable()
    }

    /// Waits until everything recorded so far has been written and synced. [`durable_step`](Self::durable_step) is then
    /// the newest step, whatever the durability.
    ///
    /// # Errors
    /// Recording has failed.
    pub fn flush(&self) -> Result<(), RecorderError> {
        self.wait_for(true)
    }

    /// Waits until everything recorded so far has been encoded and written, but not synced. A reader finds all of it
    /// from then on, even after a `kill -9`.
    ///
    /// # Errors
    /// Recording has failed.
    pub fn drain(&self) -> Result<(), RecorderError> {
        self.wait_for(false)
    }

    fn wait_for(&self, sync: bool) -> Result<(), RecorderError> {
        self.threads.wait_for(self.handle.steps(), sync)
    }

    /// Counts and times of the recording so far.
    pub fn statistics(&self) -> Statistics {
        self.handle.shared().statistics()
    }

    /// Records the final state, seals the run, and waits until it is on disk.
    ///
    /// # Errors
    /// Recording has failed, now or before. Under [`OnError::TrainOn`](crate::OnError::TrainOn) that is not an error,
    /// and the summary tells what was lost. A run with an [`OptimizerState`] must be ended with
    /// [`finish_with`](Self::finish_with). [`RecorderError::HeldOut`]: the run is complete, except for validation or test
    /// rows that no step could store.
    pub fn finish(self) -> Result<Summary, RecorderError> {
        self.end(None)
    }

    /// [`finish`](Self::finish) for a run that records an [`OptimizerState`].
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_with(self, optimizer: &dyn OptimizerState) -> Result<Summary, RecorderError> {
        self.end(Some(optimizer))
    }

    fn end(mut self, optimizer: Option<&dyn OptimizerState>) -> Result<Summary, RecorderError> {
        let sent = self.handle.lock().finish(optimizer);
        self.threads.end(self.handle.steps(), sent)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.threads.are_running() {
            self.threads.abandon(self.handle.steps());
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("run", &self.handle.shared().run)
            .field("next_step", &self.next_step())
            .finish_non_exhaustive()
    }
}
