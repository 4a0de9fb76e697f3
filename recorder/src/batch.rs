//! The batch of a step, as the loop describes it.

use hindcast_format::meta::{BatchWeights, StepMeta};

/// The batch of a step: its examples and their weights.
///
/// ```
/// use hindcast_recorder::BatchInfo;
/// let indices = [17, 4, 4, 9];
/// // Two micro-batches of two, whose gradients are added before the optimizer steps.
/// let batch = BatchInfo::new(0, &indices).micro_batches(&[2, 2]).clip_norm(1.0).scalar("temperature", 0.5);
/// # let _ = batch;
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct BatchInfo<'a> {
    pub(crate) epoch: u64,
    pub(crate) indices: &'a [u64],
    pub(crate) weights: Weights<'a>,
    pub(crate) micro_batches: &'a [u32],
    pub(crate) clip_norm: Option<f64>,
    pub(crate) scalars: [Option<(&'a str, f64)>; MAX_SCALARS],
}

/// Largest number of scalars of a step.
pub(crate) const MAX_SCALARS: usize = 16;

/// Borrowed form of [`BatchWeights`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights<'a> {
    Mean,
    Sum,
    Each(&'a [f64]),
    SumOfEach(&'a [f64]),
}

impl<'a> BatchInfo<'a> {
    /// A batch of the training examples `indices` in order. An index may occur twice. The batch loss is the mean of the
    /// examples' losses, unless [`summed`](Self::summed) or [`weights`](Self::weights) says otherwise.
    pub fn new(epoch: u64, indices: &'a [u64]) -> Self {
        Self {
            epoch,
            indices,
            weights: Weights::Mean,
            micro_batches: &[],
            clip_norm: None,
            scalars: [None; MAX_SCALARS],
        }
    }

    /// The batch loss is the sum of the examples' losses, not their mean.
    pub fn summed(mut self) -> Self {
        self.weights = Weights::Sum;
        self
    }

    /// The weight of each example in the batch loss `Σ_j w_j ℓ_j`, in the order of the indices. The loss is a weighted
    /// mean: the weights have been divided by their total. For a weighted sum use
    /// [`summed_weights`](Self::summed_weights).
    pub fn weights(mut self, weights: &'a [f64]) -> Self {
        self.weights = Weights::Each(weights);
        self
    }

    /// The weight of each example in the batch loss `Σ_j w_j ℓ_j`, in the order of the indices. The loss is a weighted
    /// sum, which has no denominator: without one example, the others keep their weights.
    pub fn summed_weights(mut self, weights: &'a [f64]) -> Self {
        self.weights = Weights::SumOfEach(weights);
        self
    }

    /// Lengths of the micro-batches that the indices are split into, for loops that add up gradients before a step.
    pub fn micro_batches(mut self, lengths: &'a [u32]) -> Self {
        self.micro_batches = lengths;
        self
    }

    /// Threshold of global-norm gradient clipping in this step.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.clip_norm = Some(threshold);
        self
    }

    /// A number to store with the step. A step with more than 16 is refused.
    pub fn scalar(mut self, name: &'a str, value: f64) -> Self {
        match self.scalars.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => *slot = Some((name, value)),
            // A setter has no error to return. The mark makes the recording call fail.
            None => self.scalars = [Some(("", f64::NAN)); MAX_SCALARS],
        }
        self
    }
}

impl BatchInfo<'_> {
    /// Checks the batch against the number of training examples. The error text says what is wrong.
    pub(crate) fn check(&self, examples: Option<u64>) -> Result<(), String> {
        let batch = self.indices.len();
        if batch == 0 {
            return Err(
                "the batch is empty: a step needs at least one training example".to_owned(),
            );
        }
        if let Some(examples) = examples
            && let Some(at) = self.indices.iter().position(|index| *index >= examples)
        {
            let index = self.indices.get(at).copied().unwrap_or_default();
            return Err(format!(
                "index {index} (at position {at} of the batch, counted from 0) is outside of the training data, which has {examples} examples"
            ));
        }
        if let Weights::Each(weights) | Weights::SumOfEach(weights) = self.weights {
            if weights.len() != batch {
                return Err(format!(
                    "expected {batch} weights, one per index, got {}",
                    weights.len()
                ));
            }
            if let Some(bad) = weights.iter().find(|weight| !weight.is_finite()) {
                return Err(format!(
                    "a weight of {bad} cannot be replayed: weights must be finite"
                ));
            }
        }
        let lengths: u64 = self
            .micro_batches
            .iter()
            .map(|length| u64::from(*length))
            .sum();
        if !self.micro_batches.is_empty() && lengths != batch as u64 {
            return Err(format!(
                "the lengths of the micro-batches add up to {lengths}, but the batch has {batch} indices"
            ));
        }
        if self
            .scalars
            .iter()
            .flatten()
            .any(|(name, _)| name.is_empty())
        {
            return Err(format!(
                "a scalar needs a name, and a step has at most {MAX_SCALARS} scalars"
            ));
        }
        Ok(())
    }

    /// Writes the batch into metadata whose lists are empty.
    pub(crate) fn write(&self, meta: &mut StepMeta) {
        meta.epoch = self.epoch;
        meta.indices.extend_from_slice(self.indices);
        meta.weights = match self.weights {
            Weights::Mean => BatchWeights::Mean,
            Weights::Sum => BatchWeights::Sum,
            Weights::Each(weights) => BatchWeights::Each(weights.to_vec()),
            Weights::SumOfEach(weights) => BatchWeights::SumOfEach(weights.to_vec()),
        };
        meta.micro_batches.extend_from_slice(self.micro_batches);
        meta.clip_norm = self.clip_norm;
        meta.scalars.extend(
            self.scalars
                .iter()
                .flatten()
                .map(|(name, value)| ((*name).to_owned(), *value)),
        );
    }
}
