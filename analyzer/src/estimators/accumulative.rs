//! The accumulative estimate (ACC-SGD-IE, arXiv 2510.26185) for a shortlist of examples: the effect of earlier absences
//! is carried through the batches as they would have been, without the example.

use std::ops::{ControlFlow, Range};

use super::forward::{ForwardChanges, OwnTerm, forward_changes};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::run::RecordedRun;

/// `δ_{t+1} = (I − η_t H_t^{(−j)}) δ_t + η_t Σ w g`, where `H_t^{(−j)}` leaves j's own terms out and the others' weights
/// as they are; see [`forward_changes`].
///
/// # Errors
/// As [`forward_changes`].
pub fn accumulative_changes(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    examples: &[u64],
    window: &Range<u64>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ForwardChanges> {
    forward_changes(run, engine, examples, window, OwnTerm::LeftOut, progress)
}
