//! Sources of a sweep's steps: newest first, each with everything that its reverse reads.

use std::ops::Range;
use std::thread::Scope;
use std::time::Duration;

use super::ahead::{Ahead, Reading};
use super::step::ReplayStep;
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::run::walk::Order;

/// Supplies a sweep's steps, newest first.
pub(crate) trait Feed {
    /// The next older step, or `None` before the oldest one. Adds the time spent waiting for the trace and the data to
    /// `waited`.
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        waited: &mut Duration,
    ) -> Result<Option<ReplayStep>>;
}

/// The recorded steps, for update rules whose reverse needs no optimizer state.
pub(crate) struct Stream<'scope, 'env> {
    run: &'env RecordedRun<'env>,
    steps: Ahead<'scope>,
}

impl<'scope, 'env> Stream<'scope, 'env> {
    /// Starts reading `range`.
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env RecordedRun<'env>,
        range: Range<u64>,
        engine: &dyn ReplayEngine,
    ) -> Result<Self> {
        let reading = Reading::new(range, Order::NewestFirst, engine);
        Ok(Stream {
            run,
            steps: Ahead::spawn(scope, run, reading)?,
        })
    }
}

impl Feed for Stream<'_, '_> {
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        waited: &mut Duration,
    ) -> Result<Option<ReplayStep>> {
        let Some(mut step) = self.steps.next(waited)? else {
            return Ok(None);
        };
        let clip = self.run.settings(&step.meta).clip_norm;
        if self.run.rule().reverse_needs_gradient(clip) {
            step.gradient = engine.gradient(&step.input())?.parameters;
        }
        Ok(Some(step))
    }
}
