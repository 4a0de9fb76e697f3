//! Where a sweep's time goes.

use std::time::{Duration, Instant};

use candle_core::{DType, Device};

use crate::engine::{Gradient, Products, ReplayEngine, StepInput};
use crate::error::Result;

/// Where a sweep's time went, by the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepTimes {
    /// In the replay engine.
    pub replay: Duration,
    /// Waiting for the next step to be read from the trace and its batch from the data. Both are read ahead while the engine
    /// works, so this is what reading costs.
    pub waiting: Duration,
    /// In everything else: the update rule's reverse, adding scores up, saving the sweep.
    pub rest: Duration,
}

impl SweepTimes {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.replay + self.waiting + self.rest
    }

    pub(super) fn add(&mut self, total: Duration, replay: Duration, waiting: Duration) {
        self.replay += replay;
        self.waiting += waiting;
        self.rest += total.saturating_sub(replay + waiting);
    }
}

/// An engine whose time is taken.
pub(super) struct Timed<'a> {
    engine: &'a mut dyn ReplayEngine,
    spent: Duration,
}

impl<'a> Timed<'a> {
    pub fn new(engine: &'a mut dyn ReplayEngine) -> Self {
        Timed {
            engine,
            spent: Duration::ZERO,
        }
    }

    /// Time in gradients and products so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }
}

impl ReplayEngine for Timed<'_> {
    fn parameter_count(&self) -> usize {
        self.engine.parameter_count()
    }

    fn buffer_count(&self) -> usize {
        self.engine.buffer_count()
    }

    fn dtype(&self) -> DType {
        self.engine.dtype()
    }

    fn device(&self) -> &Device {
        self.engine.device()
    }

    fn pass_bytes(&self, examples: usize, queries: usize) -> Option<u64> {
        self.engine.pass_bytes(examples, queries)
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<Gradient> {
        let begun = Instant::now();
        let out = self.engine.gradient(input);
        self.spent += begun.elapsed();
        out
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[Vec<f64>],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let begun = Instant::now();
        let out = self.engine.products(input, directions, buffer_adjoints);
        self.spent += begun.elapsed();
        out
    }
}
