//! The recorder and the wrapped optimizers share the training thread's side of a run.

use std::sync::{Arc, Mutex, MutexGuard};

use super::step_recorder::StepRecorder;
use crate::shared::Shared;
use crate::threads::lock;

/// A shared handle on the training thread's side of a run.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<StepRecorder>>);

impl Handle {
    pub(crate) fn new(steps: StepRecorder) -> Self {
        Self(Arc::new(Mutex::new(steps)))
    }

    pub(crate) fn steps(&self) -> &Mutex<StepRecorder> {
        &self.0
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StepRecorder> {
        lock(&self.0)
    }

    /// A number that no other run of the process has.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(self.lock().shared())
    }
}
