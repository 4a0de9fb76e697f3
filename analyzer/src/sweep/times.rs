//! How long the parts of a sweep took.

use std::time::Duration;

/// Where a sweep's time went, in wall-clock time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepTimes {
    /// In the replay engine.
    pub replay: Duration,
    /// Waiting for the next step to be read from the trace and its batch from the data. Both are read ahead while the
    /// engine works, so reading that the engine doesn't wait for is not counted.
    pub waiting: Duration,
    /// In everything else: the update rule's reverse, adding scores up, saving the sweep.
    pub rest: Duration,
}

impl SweepTimes {
    /// The sum of all parts.
    pub fn total(&self) -> Duration {
        self.replay + self.waiting + self.rest
    }

    pub(super) fn add(&mut self, total: Duration, replay: Duration, waiting: Duration) {
        self.replay += replay;
        self.waiting += waiting;
        self.rest += total.saturating_sub(replay + waiting);
    }
}
