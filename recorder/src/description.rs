//! The description of a run, which can be changed until its first step is queued.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hindcast_format::RunInfo;

/// The description of a run. A trace repeats it in every segment, so that it is fixed from the first step on. Until then,
/// wrapped optimizers add what they tell.
pub(crate) struct Description {
    held: Mutex<Held>,
}

struct Held {
    info: Arc<RunInfo>,
    fixed: bool,
}

impl Description {
    /// The description that the writer has. `fixed` says whether a segment repeats it.
    pub(crate) fn new(info: Arc<RunInfo>, fixed: bool) -> Self {
        Self {
            held: Mutex::new(Held { info, fixed }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn info(&self) -> Arc<RunInfo> {
        Arc::clone(&self.lock().info)
    }

    /// Changes the description, unless it is fixed. Returns whether it was changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut RunInfo)) -> bool {
        let mut held = self.lock();
        if !held.fixed {
            change(Arc::make_mut(&mut held.info));
        }
        !held.fixed
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.lock().fixed
    }

    /// The first step is queued.
    pub(crate) fn fix(&self) {
        self.lock().fixed = true;
    }
}
