//! The hyperparameters of a step, and the ranges of the flat vectors to which they apply.

use std::ops::Range;

use super::clip::Clip;
use super::error::UpdateError;
use super::rule::UpdateRule;
use crate::objective::TensorDef;
use crate::real::Real;

/// Hyperparameters of one parameter group in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupHyper {
    /// Learning rate η.
    pub learning_rate: f64,
    /// The optimizer's own decay λ. [`UpdateRule::couples_decay`] says whether it is added to the gradient.
    pub weight_decay: f64,
}

/// One parameter tensor in the flat vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The range of its values.
    pub range: Range<usize>,
    /// Its parameter group.
    pub group: usize,
    /// Number of rows of a tensor with two or more dimensions, which is the size of the first; `None` for vectors.
    pub rows: Option<usize>,
}

/// The parameter tensors, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    /// Blocks from the number of values and the group of each tensor, in order. All tensors are vectors.
    pub fn new(tensors: impl IntoIterator<Item = (usize, usize)>) -> Self {
        Self::of_shapes(tensors.into_iter().map(|(len, group)| ([len], group)))
    }

    /// Blocks from the shape and the group of each tensor, in order.
    pub fn of_shapes(tensors: impl IntoIterator<Item = (impl AsRef<[usize]>, usize)>) -> Self {
        let mut start = 0;
        let blocks = tensors
            .into_iter()
            .map(|(shape, group)| {
                let shape = shape.as_ref();
                let range = start..start + shape.iter().product::<usize>();
                start = range.end;
                Block {
                    range,
                    group,
                    rows: shape.first().copied().filter(|_| shape.len() > 1),
                }
            })
            .collect();
        Self { blocks }
    }

    /// Blocks with all tensors in group 0.
    pub fn of(parameters: &[TensorDef]) -> Self {
        Self::of_shapes(parameters.iter().map(|def| (&def.shape, 0)))
    }

    /// The tensors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Block> {
        self.blocks.iter()
    }

    /// Number of parameter tensors.
    pub fn tensors(&self) -> usize {
        self.blocks.len()
    }

    /// Number of values of all tensors, p.
    pub fn values(&self) -> usize {
        self.blocks.last().map_or(0, |b| b.range.end)
    }
}

/// The hyperparameters of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Number of earlier updates of the optimizer. This is its own counter, which can differ from the step of the run.
    pub optimizer_step: u64,
    /// Learning rate and decay of each group.
    pub groups: Vec<GroupHyper>,
    /// Threshold C of global-norm clipping.
    pub clip_norm: Option<f64>,
    /// One flag per parameter tensor: whether it has a gradient. A tensor without a gradient is skipped, including decay and
    /// moments.
    pub trained: Vec<bool>,
}

impl Settings {
    /// Settings with one group, the decay and clipping of the rule, and all tensors trained.
    pub fn uniform(
        rule: &UpdateRule,
        optimizer_step: u64,
        learning_rate: f64,
        tensors: usize,
    ) -> Self {
        Self {
            optimizer_step,
            groups: vec![GroupHyper {
                learning_rate,
                weight_decay: rule.weight_decay(),
            }],
            clip_norm: rule.clip_norm(),
            trained: vec![true; tensors],
        }
    }

    /// The hyperparameters of a tensor.
    pub(super) fn hyper(&self, tensor: usize, block: &Block) -> Result<GroupHyper, UpdateError> {
        let hyper = self.groups.get(block.group).ok_or(UpdateError::Group {
            tensor,
            group: block.group,
            groups: self.groups.len(),
        })?;
        Ok(*hyper)
    }

    /// The clipping of a gradient, (p), whose norm is taken over the trained tensors `active`.
    pub(super) fn clip<T: Real>(
        &self,
        active: &[(&Block, GroupHyper)],
        gradient: &[T],
    ) -> Option<Clip> {
        self.clip_norm?;
        let norm = Clip::norm(active.iter().map(|(b, _)| &gradient[b.range.clone()]));
        Clip::of(norm, self.clip_norm)
    }

    /// The ranges of the trained tensors, with their hyperparameters.
    pub(super) fn active(
        &self,
        blocks: &Blocks,
    ) -> Result<Vec<(Range<usize>, GroupHyper)>, UpdateError> {
        let active = self.active_blocks(blocks)?.into_iter();
        Ok(active.map(|(b, hyper)| (b.range.clone(), hyper)).collect())
    }

    /// The trained tensors, with their hyperparameters.
    pub(super) fn active_blocks<'a>(
        &self,
        blocks: &'a Blocks,
    ) -> Result<Vec<(&'a Block, GroupHyper)>, UpdateError> {
        if self.trained.len() != blocks.tensors() {
            return Err(UpdateError::Flags {
                expected: blocks.tensors(),
                got: self.trained.len(),
            });
        }
        let mut active = Vec::with_capacity(blocks.tensors());
        for (tensor, (block, &trained)) in blocks.iter().zip(&self.trained).enumerate() {
            if !trained {
                continue;
            }
            active.push((block, self.hyper(tensor, block)?));
        }
        Ok(active)
    }
}
