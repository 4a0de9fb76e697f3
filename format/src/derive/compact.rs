//! Packs a run harder: a higher level of zstd, the shorter form of each chunk, and longer segments.

use crate::FormatError;
use crate::recover::Target;

/// Longest segment that is made where the original's segments don't apply, in steps.
pub(super) const SEGMENT: u64 = 256;

/// How hard a run is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// Level of zstd, from 1 to 22.
    pub level: i32,
    /// Longest segment, in steps. Short segments become one, also where that loses the optimizer's state with which the second began, so that a
    /// replay has to rebuild it. `None`: 256 steps, and nothing is lost.
    pub segment_steps: Option<u64>,
}

impl Compaction {
    /// The level that gains most for its time; see docs/benchmarks.md.
    pub const LEVEL: i32 = 19;

    /// What is asked for, as a note says it.
    pub(super) fn options(&self) -> String {
        match self.segment_steps {
            Some(steps) => format!("level {}, segments of {steps} steps", self.level),
            None => format!("level {}", self.level),
        }
    }

    /// What is left out, as a note says it.
    pub(super) fn left_out(&self) -> String {
        match self.segment_steps {
            Some(_) => "states of the optimizer with which segments began".to_owned(),
            None => "nothing".to_owned(),
        }
    }

    pub(super) fn apply(&self, write: &mut Target) -> Result<(), FormatError> {
        write.compress_harder(self.level)
    }

    /// Longest segment, in steps.
    pub(super) fn longest(&self) -> u64 {
        self.segment_steps.unwrap_or(SEGMENT).max(1)
    }

    /// Whether a segment of the original with `steps` steps becomes part of the one before, which has `frames` steps. `follows` says whether the
    /// state with which it begins follows from the step before.
    pub(super) fn joins(&self, frames: u64, steps: u64, follows: bool) -> bool {
        let fits = frames.saturating_add(steps) <= self.longest();
        fits && (follows || self.segment_steps.is_some())
    }
}
