//! What to do about a full queue, a storage failure, and a loss on a device.

/// What a recording call does when the queue is full because storage is slower than training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Wait until there is room. [`Statistics`](crate::Statistics) has the time waited.
    #[default]
    Block,
    /// Return [`RecorderError::QueueFull`](crate::RecorderError::QueueFull) and record nothing more.
    Stop,
    /// Record the step's metadata and the digest of its tensors, but not the tensors, and count the step as skipped.
    Skip,
}

/// What happens after storage has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnError {
    /// The next call returns the error, and so does every later call. The trace stays as the failure left it. The run
    /// can be resumed.
    #[default]
    Fail,
    /// Training continues. What was written before the failure is closed at once. Storage is tried again after one
    /// second, then after growing times of up to five minutes, and at the end of the run. When it works again,
    /// recording resumes. The steps in between are missing from the trace, and a sweep that needs them is refused.
    /// [`Statistics`](crate::Statistics), the [`Summary`](crate::Summary) and the trace's manifest give the number and
    /// the range of the lost steps.
    TrainOn,
}

/// Whether a wrapped optimizer records the value of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LossValues {
    /// If the loss is on the CPU, where reading it costs nothing.
    #[default]
    OnCpu,
    /// Always. On a GPU, every step then waits for the device.
    Always,
    /// Never.
    Never,
}
