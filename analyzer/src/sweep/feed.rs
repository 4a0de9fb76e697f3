//! Steps newest first, with everything that the reverse of a step reads.

use std::ops::Range;
use std::thread::Scope;
use std::time::Duration;

use hindcast_format::meta::StepMeta;
use hindcast_model::objective::{Batch, Mode};

use super::ahead::{Ahead, Order, ReadStep, Walked};
use crate::engine::{Gradient, ReplayEngine, StepInput};
use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::run::source::weights_of;

/// One step, ready to be reversed.
#[derive(Debug)]
pub(crate) struct FedStep {
    pub meta: StepMeta,
    /// θ_t.
    pub parameters: Vec<f64>,
    /// r_t, before the forward pass.
    pub buffers: Vec<f64>,
    /// Its micro-batches.
    pub batches: Vec<Batch>,
    /// G_t where the rule's reverse needs it, else empty.
    pub gradient: Vec<f64>,
    /// Optimizer state before the step where the rule's reverse needs it, else empty.
    pub state: Vec<f64>,
}

/// A source of [`FedStep`]s.
pub(crate) trait Feed {
    /// The next older step; `None` before the oldest. `waited` grows by the time that was spent on waiting for the trace
    /// and the data.
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        waited: &mut Duration,
    ) -> Result<Option<FedStep>>;
}

/// The gradient of a recorded step's batch loss.
pub(super) fn gradient_of(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    step: &ReadStep,
) -> Result<Gradient> {
    engine.gradient(&StepInput {
        parameters: &step.parameters,
        buffers: &step.buffers,
        micro_batches: &step.batches,
        weights: &weights_of(&step.meta)?,
        mode: Mode::Train,
        draws: run.draws(step.meta.step),
    })
}

/// Recorded steps as they are, for rules whose reverse needs no optimizer state.
pub(crate) struct Stream<'scope, 'env> {
    run: &'env RecordedRun<'env>,
    steps: Ahead<'scope>,
}

impl<'scope, 'env> Stream<'scope, 'env> {
    /// Walks `range` newest first.
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env RecordedRun<'env>,
        range: Range<u64>,
        engine: &dyn ReplayEngine,
    ) -> Result<Self> {
        let walked = Walked::new(range, Order::NewestFirst, engine);
        Ok(Stream {
            run,
            steps: Ahead::spawn(scope, run, walked)?,
        })
    }
}

impl Feed for Stream<'_, '_> {
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        waited: &mut Duration,
    ) -> Result<Option<FedStep>> {
        let Some(step) = self.steps.next(waited)? else {
            return Ok(None);
        };
        let clip = self.run.settings(&step.meta).clip_norm;
        let gradient = match self.run.rule().reverse_needs_gradient(clip) {
            true => gradient_of(self.run, engine, &step)?.parameters,
            false => Vec::new(),
        };
        Ok(Some(FedStep {
            meta: step.meta,
            parameters: step.parameters,
            buffers: step.buffers,
            batches: step.batches,
            gradient,
            state: Vec::new(),
        }))
    }
}
