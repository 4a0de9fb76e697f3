//! The recorder and the wrapped optimizers share the training thread's side of a run.

use std::sync::{Arc, Mutex, MutexGuard};

use super::step_recorder::StepRecorder;
use crate::shared::Shared;
use crate::threads::lock;

/// A shared handle on the training thread's side of a run.
#[derive(Clone)]
pub(crate) struct Handle {
    steps: Arc<Mutex<StepRecorder>>,
    /// Beside the lock, which the training thread holds while it waits for room in the queue or for a copy.
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(steps: StepRecorder) -> Self {
        let shared = Arc::clone(steps.shared());
        Self {
            steps: Arc::new(Mutex::new(steps)),
            shared,
        }
    }

    pub(crate) fn steps(&self) -> &Mutex<StepRecorder> {
        &self.steps
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StepRecorder> {
        lock(&self.steps)
    }

    /// A number that no other run of the process has.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.steps) as usize
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}
