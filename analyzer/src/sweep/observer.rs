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

/// A part of a longer computation, as an observer of its own: it shows the progress of the whole. That the caller stops the
/// whole is remembered, because the part itself doesn't fail if that happens at its last piece.
pub(crate) struct Part<'a> {
    whole: &'a mut dyn Observer,
    /// `done` counts the pieces of the parts that have ended.
    stage: Stage,
    stopped: bool,
}

impl<'a> Part<'a> {
    /// Before the first part of a computation of `stage.total` pieces.
    pub(crate) fn first(whole: &'a mut dyn Observer, stage: Stage) -> Self {
        whole.begin(stage);
        Part {
            whole,
            stage,
            stopped: false,
        }
    }

    /// Ends a part of this number of pieces. The next part follows.
    ///
    /// # Errors
    /// The caller has stopped the whole before its end.
    pub(crate) fn end(&mut self, pieces: u64) -> Result<()> {
        self.stage.done += pieces;
        if self.stopped && self.stage.done < self.stage.total {
            return Err(AnalysisError::Cancelled {
                step: self.stage.done,
            });
        }
        Ok(())
    }
}

impl Observer for Part<'_> {
    fn step(&mut self, stage: Stage) -> ControlFlow<()> {
        let flow = self.whole.step(Stage {
            done: self.stage.done + stage.done,
            ..self.stage
        });
        self.stopped |= flow.is_break();
        flow
    }

    fn saved(&mut self, path: &Path, outcome: Result<()>) {
        self.whole.saved(path, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work on pieces that are parts of a whole. Returns the progress that the caller sees.
    fn seen(parts: &[u64], stop_at: u64) -> (Vec<u64>, Result<()>) {
        let mut shown = Vec::new();
        let mut observer = |stage: Stage| {
            shown.push(stage.done);
            assert_eq!((stage.doing, stage.total), ("measuring", 6));
            if stage.done >= stop_at {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let whole = Stage {
            doing: "measuring",
            unit: "examples",
            done: 0,
            total: 6,
        };
        let mut part = Part::first(&mut observer, whole);
        let mut all = || {
            for &pieces in parts {
                for done in 1..=pieces {
                    let stage = Stage {
                        doing: "predicting",
                        unit: "examples",
                        done,
                        total: pieces,
                    };
                    tell(&mut part, stage)?;
                }
                part.end(pieces)?;
            }
            Ok(())
        };
        let done = all();
        (shown, done)
    }

    #[test]
    fn a_stop_at_the_last_piece_of_a_part_stops_the_whole() {
        for parts in [&[2, 4][..], &[1, 1, 4], &[2, 2, 2]] {
            let (shown, done) = seen(parts, 2);
            assert_eq!(shown, [1, 2], "{parts:?}");
            assert!(matches!(done, Err(AnalysisError::Cancelled { step: 2 })));
            // After the last piece there is nothing to stop.
            let (shown, done) = seen(parts, 6);
            assert_eq!(shown, [1, 2, 3, 4, 5, 6]);
            done.unwrap();
        }
    }
}
