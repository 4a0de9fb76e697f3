//! How a long computation reports its progress, and how its caller stops it.

use std::ops::ControlFlow;
use std::path::Path;

use crate::error::{AnalysisError, Result};

/// How much of a computation is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// What is being done, such as `sweeping`.
    pub doing: &'static str,
    /// What is counted, in the plural, such as `steps`.
    pub unit: &'static str,
    /// How many are done.
    pub done: u64,
    /// How many there are in total; 0 if that is unknown.
    pub total: u64,
}

/// Receives the progress of a computation and may stop it. A closure that takes a [`Stage`] is an observer.
pub trait Observer {
    /// Called before the first piece of work. `stage.done` pieces were done by an earlier process.
    fn begin(&mut self, stage: Stage) {
        let _ = stage;
    }

    /// Called after each piece of work. [`ControlFlow::Break`] stops the computation, unless this was the last piece.
    fn step(&mut self, stage: Stage) -> ControlFlow<()>;

    /// Called after each attempt to save the state to `path`. A failure doesn't stop the computation; only
    /// [`step`](Self::step) does.
    fn saved(&mut self, path: &Path, outcome: Result<()>) {
        let _ = (path, outcome);
    }
}

impl<F: FnMut(Stage) -> ControlFlow<()>> Observer for F {
    fn step(&mut self, stage: Stage) -> ControlFlow<()> {
        self(stage)
    }
}

/// Reports progress to the observer. Fails if it stops the work before the end.
pub(crate) fn tell(observer: &mut dyn Observer, stage: Stage) -> Result<()> {
    match observer.step(stage) {
        ControlFlow::Break(()) if stage.done < stage.total || stage.total == 0 => {
            Err(AnalysisError::Cancelled { step: stage.done })
        }
        _ => Ok(()),
    }
}
