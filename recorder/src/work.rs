//! What the training thread gives to the encoders, and the encoders to the writer.

use std::sync::Arc;

use hindcast_format::meta::StepMeta;
use hindcast_format::{EncodedFrame, KeyState, State};

use crate::error::RecorderError;
use crate::signal::Signal;

/// One recorded step on its way from the training thread to an encoder.
pub(crate) struct Job {
    pub(crate) meta: StepMeta,
    pub(crate) captured: Captured,
    /// What it holds of the queue's budget.
    pub(crate) held: u64,
}

/// A recorded state that the next one is told from.
pub(crate) struct Base {
    pub(crate) step: u64,
    pub(crate) state: Arc<State>,
}

/// What becomes of a step.
pub(crate) enum Captured {
    /// Opens a segment. `before` is the last state of the segment that ends here.
    Keyframe {
        state: Arc<State>,
        key: KeyState,
        before: Option<Base>,
    },
    /// Follows `before` in the same segment.
    Difference { state: Arc<State>, before: Base },
    /// Metadata and digest only, since the run keeps every n-th step.
    Thinned { state: Arc<State> },
    /// Metadata and digest only, since there was no room; the digest was taken on the training thread.
    Skipped { digest: [u8; 32] },
}

/// What the training thread asks for.
pub(crate) enum Work {
    Step(Box<Job>),
    Finish(Box<FinalState>),
    Flush(Flush),
    /// Storage failed a while ago: try to go on with the run, from the next step that is recorded.
    Retry,
    Abandon,
}

/// Somebody waits until everything before this has been handed to storage.
pub(crate) struct Flush {
    /// Raised then.
    pub(crate) done: Arc<Signal>,
    /// Sync it, too.
    pub(crate) sync: bool,
}

/// The state at the end of a run.
pub(crate) struct FinalState {
    /// The first step that was not taken.
    pub(crate) step: u64,
    pub(crate) state: State,
    pub(crate) key: KeyState,
    /// The state recorded last.
    pub(crate) before: Option<Base>,
}

/// What an encoder hands to the writer.
pub(crate) enum Product {
    Frames(Box<Frames>),
    Finish(Box<FinalFrames>),
    Flush(Flush),
    Retry,
    Abandon,
    /// The encoder could not; the step, what it held, and why.
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
    /// Opens a segment; the link that ends the one before, if there is one.
    pub(crate) cut: Option<Option<EncodedFrame>>,
    pub(crate) frame: EncodedFrame,
    pub(crate) raw_bytes: u64,
    pub(crate) held: u64,
}

/// The end of a run: the way to the final state, if there is a state before it, and that state.
pub(crate) struct FinalFrames {
    pub(crate) step: u64,
    pub(crate) link: Option<EncodedFrame>,
    pub(crate) state: State,
    pub(crate) key: KeyState,
}
