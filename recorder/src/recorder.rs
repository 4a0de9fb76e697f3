//! The run as its user holds it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use candle_nn::Optimizer;
use hindcast_format::layout::Layout;

use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::handle::Handle;
use crate::signal::Signal;
use crate::statistics::Statistics;
use crate::step::{BatchInfo, OptimizerState, StepInfo};
use crate::step_recorder::StepRecorder;
use crate::work::{Flush, Work};
use crate::wrap::Recorded;

/// How long a dropped run waits for storage that does not move at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run being recorded.
///
/// Made by [`Recorder::builder`]; ended by [`finish`](Self::finish). Dropped without it (an early `?`, a panic), the run is sealed
/// as *unfinished*: it reads up to its last step, and says that it has no end.
#[must_use = "a recorder that is dropped seals its run as unfinished"]
pub struct Recorder {
    handle: Handle,
    layout: Layout,
    estimate: Estimate,
    threads: Vec<JoinHandle<()>>,
}

/// How a run ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// The run's place.
    pub run: String,
    /// The trace's head digest: whoever notes it elsewhere can prove later that the trace was not altered. `None` if the run could not
    /// be finished.
    pub head: Option<[u8; 32]>,
    /// Steps of the run, those before a resume included.
    pub steps: u64,
    /// What recording did and cost.
    pub statistics: Statistics,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.run, self.statistics)?;
        match &self.head {
            Some(head) => write!(f, "; head {}", hindcast_format::hex(head)),
            None => write!(f, "; unfinished"),
        }
    }
}

impl Recorder {
    pub(crate) fn start(
        steps: StepRecorder,
        layout: Layout,
        estimate: Estimate,
        threads: Vec<JoinHandle<()>>,
    ) -> Self {
        Self {
            handle: Handle::new(steps),
            layout,
            estimate,
            threads,
        }
    }

    /// Announces what the next step is about: training examples `indices`, in order, their losses averaged.
    ///
    /// # Errors
    /// A batch is waiting already, an index lies outside of the data, or recording has failed.
    pub fn batch(&self, epoch: u64, indices: &[u64]) -> Result<(), RecorderError> {
        self.batch_with(BatchInfo::new(epoch, indices))
    }

    /// Announces what the next step is about, with everything that can be said of a batch.
    ///
    /// # Errors
    /// As [`batch`](Self::batch); also weights or micro-batches that don't fit the indices.
    pub fn batch_with(&self, batch: BatchInfo<'_>) -> Result<(), RecorderError> {
        self.handle.lock().announce(&batch)
    }

    /// Withdraws the announced batch, for loops that leave a step out (a loss that is not finite, say).
    pub fn skip_batch(&self) {
        self.handle.lock().withdraw();
    }

    /// Wraps a candle optimizer, so that every step it takes is recorded.
    ///
    /// candle gives gradients to all variables that the loss depends on, also to those that the optimizer doesn't hold. The wrapper finds
    /// out which parameters are really updated: candle's `SGD` is asked for its variables, and with other optimizers each parameter is
    /// looked at until it has changed. [`Recorded::updates`] says it instead.
    pub fn wrap<O: Optimizer + 'static>(&self, optimizer: O) -> Recorded<O> {
        Recorded::new(optimizer, self.handle.clone(), None)
    }

    /// Wraps an optimizer whose state is to be recorded with every keyframe; it must have been given to
    /// [`Builder::optimizer_state`](crate::Builder::optimizer_state), too.
    pub fn wrap_with_state<O: Optimizer + OptimizerState + 'static>(
        &self,
        optimizer: O,
    ) -> Recorded<O> {
        Recorded::new(optimizer, self.handle.clone(), Some(|optimizer| optimizer))
    }

    /// Records a step of a loop that owns its update. Call it when the forward pass is done and before the variables change.
    ///
    /// # Errors
    /// Nothing was recorded then, and the call may be repeated with the right values; unless storage failed, which every later call
    /// says again.
    pub fn step(&self, info: &StepInfo<'_>) -> Result<(), RecorderError> {
        self.handle.lock().record(info, None)
    }

    /// What the run is expected to take on disk.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// The tensors recorded, in their order.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of the step that is recorded next.
    pub fn next_step(&self) -> u64 {
        self.handle.lock().next_step()
    }

    /// The newest step up to which nothing is lost by whatever the run's [`Durability`](hindcast_format::Durability) guards against; `None`
    /// if there is none yet.
    pub fn durable_step(&self) -> Option<u64> {
        self.handle.shared().durable()
    }

    /// Waits until everything recorded so far has been handed to storage and synced; then [`durable_step`](Self::durable_step) is
    /// the newest step, whatever the durability.
    ///
    /// # Errors
    /// Recording has failed.
    pub fn flush(&self) -> Result<(), RecorderError> {
        self.wait_for(true)
    }

    /// Waits until everything recorded so far has been encoded and handed to storage, without syncing it: a reader, or whoever
    /// comes after a `kill -9`, finds all of it from then on.
    ///
    /// # Errors
    /// Recording has failed.
    pub fn drain(&self) -> Result<(), RecorderError> {
        self.wait_for(false)
    }

    fn wait_for(&self, sync: bool) -> Result<(), RecorderError> {
        let shared = self.handle.shared();
        let done = Arc::new(Signal::default());
        self.handle.lock().send(Work::Flush(Flush {
            done: Arc::clone(&done),
            sync,
        }));
        shared.hurry();
        done.wait();
        shared.relax();
        match shared.failure() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// What recording has done so far.
    pub fn statistics(&self) -> Statistics {
        self.handle.shared().statistics()
    }

    /// Records the final state, seals the run and waits until it is on disk.
    ///
    /// # Errors
    /// Recording has failed, now or before (under [`OnError::TrainOn`](crate::OnError::TrainOn) that is no error: the summary tells).
    /// The run has an [`OptimizerState`]: use [`finish_with`](Self::finish_with).
    pub fn finish(self) -> Result<Summary, RecorderError> {
        self.end(None)
    }

    /// [`finish`](Self::finish) for runs that were created with an [`OptimizerState`].
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_with(self, optimizer: &dyn OptimizerState) -> Result<Summary, RecorderError> {
        self.end(Some(optimizer))
    }

    fn end(mut self, optimizer: Option<&dyn OptimizerState>) -> Result<Summary, RecorderError> {
        let shared = self.handle.shared();
        let sent = self.handle.lock().finish(optimizer);
        let failure = match sent {
            Ok(()) => {
                shared.over.wait();
                self.join();
                None
            }
            Err(error) => {
                self.abandon();
                Some(error)
            }
        };
        let failure = failure.or_else(|| shared.failure());
        let steps = self.handle.lock();
        match failure {
            Some(error) if !steps.choices().trains_on(&error) => Err(error),
            _ => Ok(Summary {
                run: shared.run.clone(),
                head: shared.head(),
                steps: steps.next_step(),
                statistics: shared.statistics(),
            }),
        }
    }

    /// Seals the run as unfinished and waits for that, but not for ever.
    fn abandon(&mut self) {
        let shared = self.handle.shared();
        self.handle.lock().abandon();
        if shared.wait_while_moving(PATIENCE) {
            self.join();
        } else {
            // A disk that does not answer: leave the threads to it, rather than the user's program.
            shared.fail(RecorderError::Stuck {
                run: shared.run.clone(),
                seconds: PATIENCE.as_secs(),
            });
            self.threads.clear();
        }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // Panics inside have been caught and reported.
            let _ = thread.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.abandon();
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
