//! Steps newest first, with everything that the reverse of a step reads.

use std::ops::Range;

use hindcast_format::meta::StepMeta;
use hindcast_model::objective::Mode;

use crate::anchor::{no_buffers, with_buffers_before};
use crate::engine::{Gradient, ReplayEngine, StepInput};
use crate::error::Result;
use crate::run::RecordedRun;
use crate::source::{RecordedStep, StepWalk, weights_of};

/// One step, ready to be reversed.
#[derive(Debug, Clone)]
pub(crate) struct FedStep {
    pub meta: StepMeta,
    /// θ_t.
    pub parameters: Vec<f64>,
    /// r_t, before the forward pass.
    pub buffers: Vec<f64>,
    /// G_t where the rule's reverse needs it, else empty.
    pub gradient: Vec<f64>,
    /// Optimizer state before the step where the rule's reverse needs it, else empty.
    pub state: Vec<f64>,
}

/// A source of [`FedStep`]s.
pub(crate) trait Feed {
    /// The next older step; `None` before the oldest.
    fn next(&mut self, engine: &mut dyn ReplayEngine) -> Result<Option<FedStep>>;
}

/// The gradient of a recorded step's batch loss.
pub(crate) fn gradient_of(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    meta: &StepMeta,
    parameters: &[f64],
    buffers: &[f64],
) -> Result<Gradient> {
    let batches = run.batches(meta, engine.dtype(), engine.device())?;
    engine.gradient(&StepInput {
        parameters,
        buffers,
        micro_batches: &batches,
        weights: &weights_of(meta)?,
        mode: Mode::Train,
        draws: run.draws(meta.step),
    })
}

/// Recorded steps as they are, for rules whose reverse needs no optimizer state.
pub(crate) struct Stream<'a> {
    run: &'a RecordedRun<'a>,
    walk: Box<dyn StepWalk + 'a>,
    oldest: u64,
    pending: Option<RecordedStep>,
}

impl<'a> Stream<'a> {
    /// Walks `range` newest first.
    pub fn new(run: &'a RecordedRun<'a>, range: Range<u64>) -> Result<Self> {
        Ok(Stream {
            run,
            walk: run
                .source()
                .reverse(with_buffers_before(run, range.clone())?)?,
            oldest: range.start,
            pending: None,
        })
    }
}

impl Feed for Stream<'_> {
    fn next(&mut self, engine: &mut dyn ReplayEngine) -> Result<Option<FedStep>> {
        let here = match self.pending.take() {
            Some(step) => Some(step),
            None => self.walk.next()?,
        };
        let Some(here) = here.filter(|s| s.meta.step >= self.oldest) else {
            return Ok(None);
        };
        let buffers = match (&here.key, self.run.source().buffers().is_empty()) {
            (_, true) => Vec::new(),
            (Some(key), false) => key.buffers_before.clone(),
            (None, false) => {
                let older = self
                    .walk
                    .next()?
                    .ok_or_else(|| no_buffers(here.meta.step))?;
                let before = older.buffers_after.clone();
                self.pending = Some(older);
                before
            }
        };
        let clip = self.run.settings(&here.meta).clip_norm;
        let gradient = match self.run.rule().reverse_needs_gradient(clip) {
            true => {
                gradient_of(self.run, engine, &here.meta, &here.parameters, &buffers)?.parameters
            }
            false => Vec::new(),
        };
        Ok(Some(FedStep {
            meta: here.meta,
            parameters: here.parameters,
            buffers,
            gradient,
            state: Vec::new(),
        }))
    }
}
