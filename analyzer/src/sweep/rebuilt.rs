//! Optimizer state for the reverse of Adam: not recorded step by step, but rebuilt forward.
//!
//! A keyframe holds the moments; between keyframes they follow from the gradients at the recorded parameters. They
//! can't be run backwards (dividing by β a few hundred times magnifies rounding beyond use), so a segment of L steps
//! is walked forward once keeping the state at every √L-th step, and then block by block, newest first, keeping each
//! step of one block. That is two gradients a step and memory for 2√L steps.

use std::ops::Range;

use super::feed::{FedStep, Feed, gradient_of};
use crate::anchor::{known_state, no_buffers, with_buffers_before};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::run::RecordedRun;
use crate::source::{RecordedStep, StepWalk};

/// Steps newest first with the optimizer's state before each.
pub(crate) struct Rebuilt<'a> {
    run: &'a RecordedRun<'a>,
    /// Steps still to be fed are [oldest, newest).
    oldest: u64,
    newest: u64,
    /// First step of each block of the segment with the state before it, ascending.
    starts: Vec<(u64, Vec<f64>)>,
    /// The steps of the present block that haven't been fed, ascending.
    block: Vec<FedStep>,
}

impl<'a> Rebuilt<'a> {
    pub fn new(run: &'a RecordedRun<'a>, range: Range<u64>) -> Result<Self> {
        Ok(Rebuilt {
            run,
            oldest: range.start,
            newest: range.end,
            starts: Vec::new(),
            block: Vec::new(),
        })
    }

    /// Opens the segment that ends at `self.newest`: one walk forward, keeping the state at block starts.
    fn open_segment(&mut self, engine: &mut dyn ReplayEngine) -> Result<()> {
        let (start, mut state) = known_state(self.run, self.newest - 1)?;
        let length = self.newest - start;
        let block = length.isqrt().max(1);
        // The last block is walked again anyway, so the first walk ends where it starts.
        let last = start + (length - 1) / block * block;
        self.starts = vec![(start, state.clone())];
        if last == start {
            return Ok(());
        }
        let mut walk = Forward::new(self.run, start..last)?;
        while let Some(step) = walk.next(engine, &mut state)? {
            let next = step.meta.step + 1;
            if (next - start).is_multiple_of(block) {
                self.starts.push((next, state.clone()));
            }
        }
        Ok(())
    }

    /// Walks the newest remaining block of the segment, keeping every step.
    fn open_block(&mut self, engine: &mut dyn ReplayEngine) -> Result<()> {
        let Some((start, mut state)) = self.starts.pop() else {
            return Ok(());
        };
        let mut walk = Forward::new(self.run, start..self.newest)?;
        while let Some(step) = walk.next(engine, &mut state)? {
            if step.meta.step >= self.oldest {
                self.block.push(step);
            }
        }
        Ok(())
    }
}

impl Feed for Rebuilt<'_> {
    fn next(&mut self, engine: &mut dyn ReplayEngine) -> Result<Option<FedStep>> {
        if self.newest <= self.oldest {
            return Ok(None);
        }
        if self.block.is_empty() {
            if self.starts.is_empty() {
                self.open_segment(engine)?;
            }
            self.open_block(engine)?;
        }
        let step = self.block.pop().ok_or_else(|| {
            AnalysisError::Window(format!("step {} is not in the trace", self.newest - 1))
        })?;
        self.newest = step.meta.step;
        Ok(Some(step))
    }
}

/// A walk oldest first that carries the optimizer's state along.
struct Forward<'a> {
    run: &'a RecordedRun<'a>,
    walk: Box<dyn StepWalk + 'a>,
    oldest: u64,
    buffers: Option<Vec<f64>>,
}

impl<'a> Forward<'a> {
    fn new(run: &'a RecordedRun<'a>, range: Range<u64>) -> Result<Self> {
        Ok(Forward {
            run,
            oldest: range.start,
            walk: run.source().forward(with_buffers_before(run, range)?)?,
            buffers: None,
        })
    }

    /// The next step with `state` as it is before it; `state` is taken one step on.
    fn next(
        &mut self,
        engine: &mut dyn ReplayEngine,
        state: &mut Vec<f64>,
    ) -> Result<Option<FedStep>> {
        let Some(RecordedStep {
            meta,
            parameters,
            buffers_after,
            key,
        }) = self.walk.next()?
        else {
            return Ok(None);
        };
        let before = match key {
            Some(key) => Some(key.buffers_before),
            None => self.buffers.take(),
        };
        self.buffers = Some(buffers_after);
        if meta.step < self.oldest {
            return self.next(engine, state);
        }
        let buffers = match self.run.source().buffers().is_empty() {
            true => Vec::new(),
            false => before.ok_or_else(|| no_buffers(meta.step))?,
        };
        let gradient = gradient_of(self.run, engine, &meta, &parameters, &buffers)?.parameters;
        let fed_state = state.clone();
        // The parameters that come out are thrown away: the recorded ones are the truth.
        let mut moved = parameters.clone();
        self.run
            .rule()
            .step(
                self.run.blocks(),
                &self.run.settings(&meta),
                &mut moved,
                &gradient,
                state,
            )
            .map_err(|e| AnalysisError::Invalid(format!("step {}: {e}", meta.step)))?;
        Ok(Some(FedStep {
            meta,
            parameters,
            buffers,
            gradient,
            state: fed_state,
        }))
    }
}
