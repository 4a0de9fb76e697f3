//! Rebuilds the optimizer's state before each step, which the reverse of Adam requires.
//!
//! A keyframe contains Adam's moments. Between keyframes they are recomputed from the gradients at the recorded
//! parameters. They can't be computed backwards: dividing by β a few hundred times magnifies rounding errors until the
//! result is useless. So a segment of L steps is walked forward twice. The first walk keeps the state at every √L-th
//! step. The second goes block by block, newest block first, and keeps every step of one block. This costs memory for 2√L
//! steps and two gradients per step, or one for the newest steps, whose gradients are kept ([`Gradients`]).

use std::ops::Range;
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::ahead::{Ahead, Reading};
use super::feed::Feed;
use super::gradients::Gradients;
use super::step::ReplayStep;
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Missing, Result};
use crate::run::anchor::known_state;
use crate::run::recorded::RecordedRun;
use crate::run::walk::Order;

/// Steps newest first with the optimizer's state before each.
pub(crate) struct Rebuilt<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    run: &'env RecordedRun<'env>,
    /// Steps still to be fed are [oldest, newest).
    oldest: u64,
    newest: u64,
    /// First step of each block of the segment with the state before it, ascending.
    starts: Vec<(u64, Vec<f64>)>,
    /// Gradients of the segment's first walk.
    gradients: Gradients,
    /// The steps of the current block that haven't been fed, ascending.
    block: Vec<ReplayStep>,
}

impl<'scope, 'env> Rebuilt<'scope, 'env> {
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env RecordedRun<'env>,
        range: Range<u64>,
    ) -> Result<Self> {
        Ok(Rebuilt {
            scope,
            run,
            oldest: range.start,
            newest: range.end,
            starts: Vec::new(),
            gradients: Gradients::new(),
            block: Vec::new(),
        })
    }

    /// Walks forward over the segment that ends at `self.newest`, and keeps the state at the start of each block.
    fn open_segment(&mut self, engine: &mut dyn ReplayEngine, waited: &mut Duration) -> Result<()> {
        let (start, mut state) = known_state(self.run, self.newest - 1)?;
        let length = self.newest - start;
        let block = length.isqrt().max(1);
        // The second walk computes the last block's states, so the first walk stops at that block.
        let last = start + (length - 1) / block * block;
        self.starts = vec![(start, state.clone())];
        self.gradients = Gradients::new();
        if last == start {
            return Ok(());
        }
        let mut walk = StateWalk::new(self.scope, self.run, start..last, engine)?;
        while let Some(step) = walk.next(engine, &mut state, (waited, &mut self.gradients))? {
            self.gradients.keep(&step);
            let next = step.meta.step + 1;
            if (next - start).is_multiple_of(block) {
                self.starts.push((next, state.clone()));
            }
        }
        Ok(())
    }

    /// Walks forward over the newest remaining block of the segment, and keeps every step.
    fn open_block(&mut self, engine: &mut dyn ReplayEngine, waited: &mut Duration) -> Result<()> {
        let Some((start, mut state)) = self.starts.pop() else {
            return Ok(());
        };
        let mut walk = StateWalk::new(self.scope, self.run, start..self.newest, engine)?;
        while let Some(mut step) = walk.next(engine, &mut state, (waited, &mut self.gradients))? {
            // Those of a whole block would stay in memory.
            step.batches = Vec::new();
            if step.meta.step >= self.oldest {
                self.block.push(step);
            }
        }
        Ok(())
    }
}

impl Feed for Rebuilt<'_, '_> {
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        waited: &mut Duration,
    ) -> Result<Option<ReplayStep>> {
        if self.newest <= self.oldest {
            return Ok(None);
        }
        if self.block.is_empty() {
            if self.starts.is_empty() {
                self.open_segment(engine, waited)?;
            }
            self.open_block(engine, waited)?;
        }
        let mut step = self.block.pop().ok_or_else(|| Missing::Step {
            step: self.newest - 1,
        })?;
        self.newest = step.meta.step;
        let begun = Instant::now();
        step.batches = self
            .run
            .batches(&step.meta, engine.dtype(), engine.device())?;
        *waited += begun.elapsed();
        Ok(Some(step))
    }
}

/// Walks steps oldest first and computes the optimizer's state before each.
struct StateWalk<'scope, 'env> {
    run: &'env RecordedRun<'env>,
    steps: Ahead<'scope>,
}

impl<'scope, 'env> StateWalk<'scope, 'env> {
    fn new(
        scope: &'scope Scope<'scope, 'env>,
        run: &'env RecordedRun<'env>,
        range: Range<u64>,
        engine: &dyn ReplayEngine,
    ) -> Result<Self> {
        let reading = Reading::new(range, Order::OldestFirst, engine);
        Ok(StateWalk {
            run,
            steps: Ahead::spawn(scope, run, reading)?,
        })
    }

    /// The next step, with its gradient and the optimizer's state before it. `state` is that state; the call advances it
    /// past the step. A gradient that is kept isn't computed.
    ///
    /// In a step that an optimizer counts as its first, the update rule and its derivatives start from the initial state
    /// themselves, for the trained tensors only. Other tensors may belong to another optimizer, which keeps its state.
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        state: &mut [f64],
        (waited, gradients): (&mut Duration, &mut Gradients),
    ) -> Result<Option<ReplayStep>> {
        let Some(mut step) = self.steps.next(waited)? else {
            return Ok(None);
        };
        step.gradient = match gradients.take(step.meta.step) {
            Some(gradient) => gradient,
            None => engine.gradient(&step.input())?.parameters,
        };
        step.state = state.to_vec();
        // Only `state` is used: the next step's parameters are recorded.
        let mut moved = step.parameters.to_vec::<f64>();
        self.run
            .rule()
            .step(
                self.run.blocks(),
                &self.run.settings(&step.meta),
                &mut moved,
                &step.gradient,
                state,
            )
            .map_err(|source| AnalysisError::Update {
                step: step.meta.step,
                source,
            })?;
        Ok(Some(step))
    }
}
