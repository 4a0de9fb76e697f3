//! The errors of the recorder. Each names the run, the step and what to do.

use std::sync::Arc;

use hindcast_format::FormatError;

/// Why a run could not be created, or a step could not be recorded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RecorderError {
    /// A text that isn't a [`Keep`](crate::Keep).
    #[error("{text:?} is not a valid choice of steps to keep: {why}")]
    Keep {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },

    /// The variables, groups or options of a run don't fit together.
    #[error("cannot start recording the run {run}: {why}")]
    Setup {
        /// The run's path.
        run: String,
        /// What doesn't fit, and what to do.
        why: String,
    },

    /// The run to be continued is finished. A program that is started again after its end can test for it.
    #[error(
        "cannot start recording the run {run}: it is finished, after {end} steps; to continue training anyway, resume it at step {end} (Builder::resume with \
         candle, Builder::resume_of without)"
    )]
    Finished {
        /// The run's path.
        run: String,
        /// Number of steps.
        end: u64,
    },

    /// The run could not be created or resumed.
    #[error("cannot open the run {run}{}: {source}{}", at_step(*.step), what_to_do(.source))]
    Open {
        /// The run's path.
        run: String,
        /// The step at which it should have been opened.
        step: u64,
        /// The format crate's error.
        source: Arc<FormatError>,
    },

    /// A step of a trace can't be loaded into variables. No variable has changed.
    #[error("cannot load step {step} of {run}: {why}")]
    Load {
        /// The run's path.
        run: String,
        /// The requested step.
        step: u64,
        /// What doesn't fit, or which steps the trace has.
        why: String,
    },

    /// A step was taken without a batch.
    #[error(
        "step {step} of {run} has no batch: call batch(epoch, &indices), or batch_of with the batch's tensors, on the run before the step"
    )]
    NoBatch {
        /// The run's path.
        run: String,
        /// The step that was about to be recorded.
        step: u64,
    },

    /// A second batch was announced before a step was taken for the first.
    #[error(
        "step {step} of {run} already has a batch of {announced} examples: announce the micro-batches of one step together, with BatchInfo::micro_batches; \
         if the loop left out the step of that batch, call skip_batch() first"
    )]
    BatchPending {
        /// The run's path.
        run: String,
        /// The step that is waiting.
        step: u64,
        /// Number of examples announced for it.
        announced: usize,
    },

    /// The loop's description of a step is wrong. Nothing was recorded. The call may be repeated with the right values.
    #[error("step {step} of {run}: {why}")]
    Step {
        /// The run's path.
        run: String,
        /// The step that was about to be recorded.
        step: u64,
        /// What was expected, what was given, and what to do.
        why: String,
    },

    /// The queue was full, and [`WhenFull::Stop`](crate::WhenFull::Stop) was chosen.
    #[error(
        "step {step} of {run}: the queue is full ({held} of {limit} bytes), because storage is slower than training; give the run more queue_bytes or \
         encoders, or choose WhenFull::Block or WhenFull::Skip"
    )]
    QueueFull {
        /// The run's path.
        run: String,
        /// The first step that was not recorded.
        step: u64,
        /// Bytes waiting in the queue.
        held: u64,
        /// The queue's limit in bytes.
        limit: u64,
    },

    /// Copying a tensor, computing the gradients or updating the variables failed.
    #[cfg(feature = "candle")]
    #[error("step {step} of {run}: {what}: {source}")]
    Candle {
        /// The run's path.
        run: String,
        /// The step being recorded.
        step: u64,
        /// What failed.
        what: String,
        /// candle's error.
        source: Arc<candle_core::Error>,
    },

    /// Writing the trace failed. What was written before stays readable. Every later call returns the same error.
    #[error("recording {run} failed at step {step}: {source}; {}", before(*.step))]
    Storage {
        /// The run's path.
        run: String,
        /// The first step that is not in the trace.
        step: u64,
        /// The format crate's error, which names the file.
        source: Arc<FormatError>,
    },

    /// Copying the variables of a recorded step from a device failed. The steps before it stay readable. Every later call
    /// returns the same error, unless [`OnError::TrainOn`](crate::OnError::TrainOn) was chosen.
    #[error("recording {run} failed at step {step}: the variables could not be copied from the device: {source}; {}", before(*.step))]
    Device {
        /// The run's path.
        run: String,
        /// The first step that is not in the trace.
        step: u64,
        /// The device's error.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },

    /// A thread of the recorder panicked.
    #[error("recording {run} failed at step {step}: the {thread} thread panicked: {message}")]
    Thread {
        /// The run's path.
        run: String,
        /// The step it was working on.
        step: u64,
        /// Which thread.
        thread: &'static str,
        /// The panic's message.
        message: String,
    },

    /// Storage, or a copy from a GPU, has not answered for a long time. The run was left as it is.
    #[error(
        "recording {run}: storage (or a copy from the GPU) has not answered for {seconds} s; the run was left as it is on disk"
    )]
    Stuck {
        /// The run's path.
        run: String,
        /// Time without an answer, in seconds.
        seconds: u64,
    },

    /// The run is complete and sealed, with its final state. Only its validation or test rows are missing, because they are
    /// stored with a step and none came after them. They are not a reason to give up the final state, which can't be made
    /// again: an analysis can take such examples from its program.
    #[error(
        "the run {run} is complete{}, but its {rows} {split} rows are not in it, because no step followed {split}_of: call {split}_of before the first \
         batch_of; an analysis of this run needs a program that loads {split} examples", match .head {
            Some(head) => format!(" (head {})", hindcast_format::hex(head)),
            None => String::new(),
        }
    )]
    HeldOut {
        /// The run's path.
        run: String,
        /// `validation` or `test`.
        split: &'static str,
        /// Number of its rows.
        rows: u64,
        /// The trace's head digest.
        head: Option<[u8; 32]>,
    },

    /// The run was finished or dropped before its wrapped optimizer.
    #[error(
        "the run {run} is over: it was finished or dropped before step {step}; keep the Recorder alive for as long as its optimizer steps"
    )]
    Over {
        /// The run's path.
        run: String,
        /// The step that was about to be recorded.
        step: u64,
    },
}

fn at_step(step: u64) -> String {
    if step == 0 {
        String::new()
    } else {
        format!(" at step {step}")
    }
}

/// What the trace holds after a failure at this step.
fn before(step: u64) -> &'static str {
    if step == 0 {
        "nothing was recorded"
    } else {
        "the trace holds the steps before it, and the run can be resumed"
    }
}

fn what_to_do(source: &FormatError) -> &'static str {
    if source.is_damage() {
        "; `hindcast recover` writes what is left of it as a new run, which can be resumed"
    } else {
        ""
    }
}

impl RecorderError {
    pub(crate) fn open(run: &str, step: u64, error: FormatError) -> Self {
        Self::Open {
            run: run.to_owned(),
            step,
            source: Arc::new(error),
        }
    }
}

/// Makes the errors of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtStep<'a> {
    pub(crate) run: &'a str,
    pub(crate) step: u64,
}

impl AtStep<'_> {
    /// The loop's description of the step is wrong.
    pub(crate) fn wrong(self, why: impl Into<String>) -> RecorderError {
        RecorderError::Step {
            run: self.run.to_owned(),
            step: self.step,
            why: why.into(),
        }
    }

    /// candle failed while doing `what`.
    #[cfg(feature = "candle")]
    pub(crate) fn candle(self, what: &str, error: candle_core::Error) -> RecorderError {
        RecorderError::Candle {
            run: self.run.to_owned(),
            step: self.step,
            what: what.to_owned(),
            source: Arc::new(error),
        }
    }

    /// Encoding or writing the step failed.
    pub(crate) fn storage(self, error: FormatError) -> RecorderError {
        RecorderError::Storage {
            run: self.run.to_owned(),
            step: self.step,
            source: Arc::new(error),
        }
    }

    /// Copying the step's variables from a device failed.
    pub(crate) fn device(self, source: crate::late_state::Fault) -> RecorderError {
        RecorderError::Device {
            run: self.run.to_owned(),
            step: self.step,
            source,
        }
    }

    /// A thread of the recorder panicked at the step.
    pub(crate) fn panicked(
        self,
        thread: &'static str,
        panic: &(dyn std::any::Any + Send),
    ) -> RecorderError {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        RecorderError::Thread {
            run: self.run.to_owned(),
            step: self.step,
            thread,
            message,
        }
    }
}

/// Lets `?` work in loops whose functions return candle's `Result`.
#[cfg(feature = "candle")]
impl From<RecorderError> for candle_core::Error {
    fn from(error: RecorderError) -> Self {
        candle_core::Error::msg(error)
    }
}
