//! The recorder and the wrapped optimizers share the training thread's side of a run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shared::Shared;
use crate::step_recorder::StepRecorder;

/// A shared handle on the training thread's side of a run.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<StepRecorder>>);

impl Handle {
    pub(crate) fn new(steps: StepRecorder) -> Self {
        Self(Arc::new(Mutex::new(steps)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StepRecorder> {
        // A panic under the lock leaves at worst an announced batch behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other run of the process has.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(self.lock().shared())
    }
}
