//! One seed of an experiment.

use hindcast_model::task::Task;

use super::kept::Kept;
use super::rows::Digests;

/// A task with its seed, the folder that keeps its results, and the digests that its rows carry.
#[derive(Clone, Copy)]
pub struct Seed<'a> {
    /// Where the run, the scores and the retrained numbers are kept.
    pub kept: &'a Kept,
    /// The task, with this seed in it.
    pub task: &'a Task,
    /// Digests of the settings and the data.
    pub origin: &'a Digests,
}
