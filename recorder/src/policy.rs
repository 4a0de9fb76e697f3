//! What the user chooses once for a run: how to meet a full queue, a failing disk, a loss on a device.

/// What a recording call does when storage cannot keep up and the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Wait until there is room. The time waited is in [`Statistics`](crate::Statistics).
    #[default]
    Block,
    /// Return [`RecorderError::QueueFull`](crate::RecorderError::QueueFull) and record no more.
    Stop,
    /// Record the step's metadata and the digest of its tensors, without the tensors, and count it as skipped.
    Skip,
}

/// What happens after storage has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnError {
    /// The next call returns the error, and so does every call after it. The trace stays as the failure left it, and can be resumed.
    #[default]
    Fail,
    /// Training goes on. What was written before the failure is closed at once, and storage is tried again after a second, then after
    /// growing times up to five minutes, and when the run is finished. Where it works again, recording resumes behind a gap: the steps
    /// between are not in the trace, and every sweep that needs them is refused. [`Statistics`](crate::Statistics), the
    /// [`Summary`](crate::Summary) and the trace's manifest say how many steps are lost, and which.
    TrainOn,
}

/// Whether a wrapped optimizer reads the value of the loss into the step's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LossValues {
    /// Where the loss lies on the CPU, and reading it costs nothing.
    #[default]
    OnCpu,
    /// Always: on a GPU this waits for the device in every step.
    Always,
    /// Never.
    Never,
}
