//! The hyperparameters of a step, and the ranges of the flat vectors to which they apply.

use std::ops::Range;

use super::error::UpdateError;
use super::rule::UpdateRule;
use crate::objective::TensorDef;

/// Hyperparameters of one parameter group in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupHyper {
    /// Learning rate η.
    pub learning_rate: f64,
    /// The optimizer's own decay λ: coupled (SGD, Adam) or decoupled (AdamW), as the rule says.
    pub weight_decay: f64,
}

/// One parameter tensor in the flat vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The range of its values.
    pub range: Range<usize>,
    /// Its parameter group.
    pub group: usize,
}

/// The parameter tensors, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocks {
    blocks: Vec<Block>,
}

impl Blocks {
    /// Blocks from the number of values and the group of each tensor, in order.
    pub fn new(tensors: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut start = 0;
        let blocks = tensors
            .into_iter()
            .map(|(len, group)| {
                let range = start..start + len;
                start = range.end;
                Block { range, group }
            })
            .collect();
        Self { blocks }
    }

    /// Blocks with all tensors in group 0.
    pub fn of(parameters: &[TensorDef]) -> Self {
        Self::new(parameters.iter().map(|def| (def.shape.iter().product(), 0)))
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

    /// The trained tensors, with their ranges and hyperparameters.
    pub(super) fn active<'a>(
        &'a self,
        blocks: &'a Blocks,
    ) -> Result<Vec<(Range<usize>, GroupHyper)>, UpdateError> {
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
            active.push((block.range.clone(), self.hyper(tensor, block)?));
        }
        Ok(active)
    }
}
