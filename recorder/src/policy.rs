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

/// What happens after storage has failed. Either way the run records nothing more: a failed write leaves no certainty
/// about what reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnError {
    /// The next call returns the error, and so does every call after it.
    #[default]
    Fail,
    /// Training goes on unrecorded. The steps lost are counted, and the error stands in
    /// [`Statistics`](crate::Statistics) and in the [`Summary`](crate::Summary).
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
