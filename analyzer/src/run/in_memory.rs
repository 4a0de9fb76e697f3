//! A run in memory.

use std::ops::Range;

use hindcast_format::layout::TensorSpec;
use hindcast_format::meta::StepMeta;

use crate::error::{AnalysisError, Missing, Result};
use crate::run::source::{RecordedEnd, RecordedStep, StepSource, StepWalk};

/// Recorded steps in memory, for analysing a run that was never written to disk. Steps may be missing.
#[derive(Debug, Clone, Default)]
pub struct MemoryRun {
    /// Parameters, in order of their names.
    pub parameters: Vec<TensorSpec>,
    /// Buffers, in order of their names.
    pub buffers: Vec<TensorSpec>,
    /// Tensors of the optimizer's state, in order of their names.
    pub optimizer_state: Vec<TensorSpec>,
    /// The steps, ascending. The first step, and each step after a gap, has a key.
    pub steps: Vec<RecordedStep>,
    /// The state at the end of training.
    pub end: Option<RecordedEnd>,
}

impl MemoryRun {
    fn at(&self, step: u64) -> Result<usize> {
        self.steps
            .binary_search_by_key(&step, |s| s.meta.step)
            .map_err(|_| AnalysisError::Missing(Missing::Step { step }))
    }

    fn slice(&self, range: &Range<u64>) -> Result<&[RecordedStep]> {
        if range.is_empty() {
            return Ok(&[]);
        }
        let (first, last) = (self.at(range.start)?, self.at(range.end - 1)?);
        if (last - first) as u64 != range.end - 1 - range.start {
            let steps = range.clone();
            return Err(AnalysisError::Missing(Missing::Range { steps }));
        }
        Ok(&self.steps[first..=last])
    }
}

impl StepSource for MemoryRun {
    fn parameters(&self) -> &[TensorSpec] {
        &self.parameters
    }

    fn buffers(&self) -> &[TensorSpec] {
        &self.buffers
    }

    fn optimizer_state(&self) -> &[TensorSpec] {
        &self.optimizer_state
    }

    fn ranges(&self) -> Result<Vec<Range<u64>>> {
        let mut out: Vec<Range<u64>> = Vec::new();
        for step in &self.steps {
            let t = step.meta.step;
            match out.last_mut() {
                Some(r) if r.end == t => r.end = t + 1,
                _ => out.push(t..t + 1),
            }
        }
        Ok(out)
    }

    fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>> {
        let mut out: Vec<(u64, Range<u64>)> = Vec::new();
        for step in &self.steps {
            let (t, epoch) = (step.meta.step, step.meta.epoch);
            match out.last_mut() {
                Some((e, r)) if *e == epoch => r.end = t + 1,
                _ => out.push((epoch, t..t + 1)),
            }
        }
        Ok(out)
    }

    fn forward(&self, range: Range<u64>) -> Result<StepWalk<'_>> {
        Ok(Box::new(self.slice(&range)?.iter().cloned().map(Ok)))
    }

    fn reverse(&self, range: Range<u64>) -> Result<StepWalk<'_>> {
        Ok(Box::new(self.slice(&range)?.iter().rev().cloned().map(Ok)))
    }

    fn keyframe(&self, step: u64) -> Result<u64> {
        let at = self.at(step)?;
        self.steps[..=at]
            .iter()
            .rev()
            .find(|s| s.key.is_some())
            .map(|s| s.meta.step)
            .ok_or(AnalysisError::Missing(Missing::Keyframe { step }))
    }

    fn metas(&self, range: Range<u64>) -> Result<Vec<StepMeta>> {
        Ok(self.slice(&range)?.iter().map(|s| s.meta.clone()).collect())
    }

    fn end(&self) -> Result<RecordedEnd> {
        self.end.clone().ok_or(AnalysisError::Missing(Missing::End))
    }
}
