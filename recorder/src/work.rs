//! The messages from the training thread to the encoders, and from the encoders to the writer.

use std::sync::Arc;

use hindcast_format::meta::StepMeta;
use hindcast_format::{EncodedFrame, KeyState, RowRecord, State};

use crate::error::RecorderError;
use crate::late_state::LateState;
use crate::signal::Signal;

/// One step on its way from the training thread to an encoder.
pub(crate) struct Job {
    pub(crate) meta: StepMeta,
    pub(crate) captured: Captured,
    /// The rows that the step's metadata gets when it is encoded.
    pub(crate) rows: Vec<RowRecord>,
    /// Bytes that it holds of the queue's budget.
    pub(crate) held: u64,
}

/// A recorded state that the next difference is computed against.
pub(crate) struct Base {
    pub(crate) step: u64,
    pub(crate) state: Arc<LateState>,
}

/// What was captured of a step.
pub(crate) enum Captured {
    /// The step opens a segment. `before` is the last state of the segment that ends here.
    Keyframe {
        state: Arc<LateState>,
        key: KeyState,
        /// The state whose buffers belong into the key, while they were on their way when the key was made.
        buffers: Option<Arc<LateState>>,
        before: Option<Base>,
    },
    /// The step follows `before` in the same segment.
    Difference { state: Arc<LateState>, before: Base },
    /// The run keeps every n-th step, and this is not one of them. Only its metadata and digest are recorded.
    Thinned { state: Arc<LateState> },
    /// The queue had no room. Only the metadata and the digest, computed on the training thread, are recorded.
    Skipped { digest: [u8; 32] },
}

/// What the training thread asks for.
pub(crate) enum Work {
    Step(Box<Job>),
    Finish(Box<FinalState>),
    Flush(Flush),
    /// Storage failed a while ago. Try to reopen the run before the next step.
    Retry,
    Abandon,
}

/// A thread waits until all earlier work has been written.
pub(crate) struct Flush {
    /// Raised when that is done.
    pub(crate) done: Arc<Signal>,
    /// Whether to sync as well.
    pub(crate) sync: bool,
}

/// The state at the end of a run.
pub(crate) struct FinalState {
    /// The first step that was not taken.
    pub(crate) step: u64,
    pub(crate) state: LateState,
    /// It lacks its buffers, which are those of the state.
    pub(crate) key: KeyState,
    /// The state recorded last.
    pub(crate) before: Option<Base>,
}

/// What an encoder gives to the writer.
pub(crate) enum Product {
    Frames(Box<Frames>),
    Finish(Box<FinalFrames>),
    Flush(Flush),
    Retry,
    Abandon,
    /// Encoding a step failed.
    Failed {
        step: u64,
        held: u64,
        error: RecorderError,
    },
}

/// The encoded frames of one step.
pub(crate) struct Frames {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    /// `Some` if the step opens a segment. Holds the link that ends the segment before, if there is one.
    pub(crate) cut: Option<Option<EncodedFrame>>,
    pub(crate) frame: EncodedFrame,
    pub(crate) raw_bytes: u64,
    pub(crate) held: u64,
}

/// The final state of a run, and the link to it from the state before, if there is one.
pub(crate) struct FinalFrames {
    pub(crate) step: u64,
    pub(crate) link: Option<EncodedFrame>,
    pub(crate) state: State,
    pub(crate) key: KeyState,
}
