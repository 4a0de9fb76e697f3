//! Recorded steps together with the buffers before each one's forward pass.

use std::ops::Range;

use super::floats::FloatVec;
use super::source::{RecordedStep, StepSource, StepWalk};
use crate::error::{AnalysisError, Missing, Result};

/// The order in which steps are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

/// Yields each step of a range with r_t, the buffers before its forward pass.
///
/// A keyframe contains its own r_t. For any other step, r_t is stored in the step before it, as the buffers after that
/// step's forward pass. So the walk may read one step more than the range contains.
pub(crate) struct WithBuffers<'a> {
    walk: StepWalk<'a>,
    order: Order,
    first: u64,
    has_buffers: bool,
    /// Oldest first: the buffers after the step that was yielded last.
    after: Option<FloatVec>,
    /// Newest first: the next step to yield, which was already read for its buffers.
    pending: Option<RecordedStep>,
}

impl<'a> WithBuffers<'a> {
    /// Starts a walk over `range`.
    ///
    /// # Errors
    /// If the range isn't recorded.
    pub fn new(source: &'a dyn StepSource, range: Range<u64>, order: Order) -> Result<Self> {
        let has_buffers = !source.buffers().is_empty();
        let first = range.start;
        // The first step's buffers are stored in the step before it, unless the first step is a keyframe.
        let read = if has_buffers && source.keyframe(first)? != first {
            first - 1..range.end
        } else {
            range
        };
        Ok(WithBuffers {
            walk: match order {
                Order::OldestFirst => source.forward(read)?,
                Order::NewestFirst => source.reverse(read)?,
            },
            order,
            first,
            has_buffers,
            after: None,
            pending: None,
        })
    }

    fn next_older(&mut self) -> Result<Option<(RecordedStep, FloatVec)>> {
        let here = match self.pending.take() {
            Some(step) => Some(step),
            None => self.walk.next().transpose()?,
        };
        let Some(here) = here.filter(|step| step.meta.step >= self.first) else {
            return Ok(None);
        };
        let buffers = match &here.key {
            _ if !self.has_buffers => FloatVec::default(),
            Some(key) => key.buffers_before.clone(),
            None => {
                let older = self
                    .walk
                    .next()
                    .ok_or_else(|| no_buffers(here.meta.step))??;
                self.pending.insert(older).buffers_after.clone()
            }
        };
        Ok(Some((here, buffers)))
    }

    fn next_newer(&mut self) -> Result<Option<(RecordedStep, FloatVec)>> {
        while let Some(here) = self.walk.next().transpose()? {
            let left_behind = self.after.replace(here.buffers_after.clone());
            if here.meta.step < self.first {
                continue;
            }
            let buffers = match &here.key {
                _ if !self.has_buffers => FloatVec::default(),
                Some(key) => key.buffers_before.clone(),
                None => left_behind.ok_or_else(|| no_buffers(here.meta.step))?,
            };
            return Ok(Some((here, buffers)));
        }
        Ok(None)
    }
}

impl Iterator for WithBuffers<'_> {
    type Item = Result<(RecordedStep, FloatVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.order {
            Order::OldestFirst => self.next_newer(),
            Order::NewestFirst => self.next_older(),
        }
        .transpose()
    }
}

/// The error for a step whose r_t isn't recorded.
pub(crate) fn no_buffers(step: u64) -> AnalysisError {
    AnalysisError::Missing(Missing::Buffers { step })
}
