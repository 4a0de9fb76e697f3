//! The batches of a run: the examples of each step and their weights.

use std::collections::BTreeSet;

use crate::objective::Batch;
use crate::random::{Purpose, Stream};
use crate::schedule::Position;
use crate::task::{Cut, LossSpec, Order, Reduction, TrainSpec};

/// The batches of a run: a function of the `[train]` table and the number of training examples.
///
/// The order of epoch e is a permutation that is drawn from the run's stream [`Purpose::Order`]`(e)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    examples: u64,
    train: TrainSpec,
}

impl Batches {
    /// Batches of `examples` training examples.
    pub fn new(train: &TrainSpec, examples: u64) -> Self {
        Self {
            examples,
            train: train.clone(),
        }
    }

    /// Number of steps per epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        let batch = self.train.batch.max(1) as u64;
        if self.train.drop_last && self.train.batches == Cut::Fixed {
            self.examples / batch
        } else {
            self.examples.div_ceil(batch)
        }
    }

    /// Number of steps of the run.
    pub fn steps(&self) -> u64 {
        self.steps_per_epoch().saturating_mul(self.train.epochs)
    }

    /// The position of a step in the run.
    pub fn position(&self, step: u64) -> Position {
        Position {
            step,
            epoch: step / self.steps_per_epoch().max(1),
            steps: self.steps(),
        }
    }

    /// The batches of one epoch, in order.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<u64>> {
        let n = self.examples as usize;
        let order = match self.train.order {
            Order::Sequential => (0..self.examples).collect(),
            Order::Shuffle => order(self.train.seed, epoch, n),
        };
        let steps = self.steps_per_epoch() as usize;
        match self.train.batches {
            Cut::Fixed => order
                .chunks(self.train.batch.max(1))
                .take(steps)
                .map(<[u64]>::to_vec)
                .collect(),
            Cut::Even => {
                let mut rest = order.as_slice();
                (0..steps)
                    .map(|part| {
                        let longer = usize::from(part < n % steps);
                        let (batch, after) = rest.split_at(n / steps + longer);
                        rest = after;
                        batch.to_vec()
                    })
                    .collect()
            }
        }
    }

    /// The distinct numbers of examples that the steps of an epoch run at once: the sizes of the batches, or of their
    /// micro-batches.
    pub fn sizes(&self) -> BTreeSet<usize> {
        let n = usize::try_from(self.examples).unwrap_or(usize::MAX);
        let batch = self.train.batch.max(1);
        let steps = usize::try_from(self.steps_per_epoch()).unwrap_or(usize::MAX);
        let batches = match self.train.batches {
            _ if steps == 0 => [0, 0],
            Cut::Fixed if self.train.drop_last => [batch, 0],
            Cut::Fixed if n < batch => [0, n],
            Cut::Fixed => [batch, n % batch],
            Cut::Even => [n / steps, n.div_ceil(steps)],
        };
        let mut sizes = BTreeSet::new();
        for batch in batches.into_iter().filter(|&size| size > 0) {
            let parts = match self.train.micro_batch {
                Some(most) if most > 0 && most < batch => [most, batch % most],
                _ => [batch, 0],
            };
            sizes.extend(parts.into_iter().filter(|&size| size > 0));
        }
        sizes
    }

    /// Lengths of the micro-batches of a batch of this size. The list is empty if the batch is run at once.
    pub fn micro_batches(&self, batch: usize) -> Vec<usize> {
        match self.train.micro_batch {
            Some(most) if most > 0 && most < batch => {
                let full = vec![most; batch / most];
                let last = Some(batch % most).filter(|&rest| rest > 0);
                full.into_iter().chain(last).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The examples of a step of an own training loop: each epoch is shuffled, and an incomplete last batch is dropped. Only the
/// arguments decide, so a resumed run continues with the same batches. They are those of [`Batches`] with this seed and
/// `drop_last`. Empty if no batch is complete.
pub fn shuffled(seed: u64, examples: u64, batch: usize, step: u64) -> Vec<u64> {
    let Some(per_epoch) = examples.checked_div(batch as u64).filter(|&n| n > 0) else {
        return Vec::new();
    };
    let mut order = order(seed, step / per_epoch, examples as usize);
    let start = (step % per_epoch) as usize * batch;
    order.drain(start..start + batch).collect()
}

/// The order of an epoch. A run has at most 2³² − 1 epochs.
fn order(seed: u64, epoch: u64, examples: usize) -> Vec<u64> {
    Stream::of_run(seed, Purpose::Order(epoch as u32)).permutation(examples)
}

/// Weights w_j of the examples in the batch loss `Σ_j w_j ℓ_j`.
#[derive(Debug, Clone, PartialEq)]
pub enum LossWeights {
    /// `1/|S|` for each example.
    Mean,
    /// 1 for each example.
    Sum,
    /// One weight per example, in the order of the batch: a weighted mean.
    Each(Vec<f64>),
    /// One weight per example, in the order of the batch: a weighted sum, which has no denominator.
    SumOfEach(Vec<f64>),
}

impl LossWeights {
    /// The weights of a batch. With class weights c, they are `w_j = c_{y_j} / Σ_i c_{y_i}` for a mean and
    /// `w_j = c_{y_j}` for a sum.
    ///
    /// # Errors
    /// With class weights, if the targets aren't classes or a class has no weight.
    pub fn of(loss: &LossSpec, batch: &Batch) -> candle_core::Result<Self> {
        Self::of_parts(loss, std::slice::from_ref(batch))
    }

    /// The weights of a batch that is split into micro-batches. A mean is taken over the whole batch.
    ///
    /// # Errors
    /// As [`LossWeights::of`].
    pub fn of_parts(loss: &LossSpec, parts: &[Batch]) -> candle_core::Result<Self> {
        if loss.class_weights.is_empty() {
            return Ok(match loss.reduction {
                Reduction::Mean => Self::Mean,
                Reduction::Sum => Self::Sum,
            });
        }
        let mut each = Vec::new();
        for batch in parts {
            if batch.targets.dtype() != candle_core::DType::U32 {
                candle_core::bail!(
                    "class weights: expected targets that are classes (u32), got {:?}",
                    batch.targets.dtype()
                );
            }
            for class in batch.targets.flatten_all()?.to_vec1::<u32>()? {
                match loss.class_weights.get(class as usize) {
                    Some(&w) => each.push(w),
                    None => candle_core::bail!(
                        "class {class} has no weight: loss.class_weights has {} entries",
                        loss.class_weights.len()
                    ),
                }
            }
        }
        match loss.reduction {
            Reduction::Sum => Ok(Self::SumOfEach(each)),
            Reduction::Mean => {
                let sum: f64 = each.iter().sum();
                each.iter_mut().for_each(|w| *w /= sum);
                Ok(Self::Each(each))
            }
        }
    }

    /// One number per row, for a batch of n rows.
    pub fn values(&self, n: usize) -> Vec<f64> {
        match self {
            Self::Mean => vec![1.0 / n as f64; n],
            Self::Sum => vec![1.0; n],
            Self::Each(each) | Self::SumOfEach(each) => each.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{LossKind, Precision};
    use candle_core::{Device, Tensor};

    #[test]
    fn batches_of_a_step_are_those_of_its_epoch() {
        let spec = TrainSpec {
            drop_last: true,
            ..train(4)
        };
        let (steps, batches) = (5, Batches::new(&spec, 22));
        for step in 0..3 * steps {
            let epoch = batches.epoch(step / steps);
            let at = (step % steps) as usize;
            assert_eq!(shuffled(spec.seed, 22, 4, step), epoch[at], "step {step}");
        }
        assert!(shuffled(5, 3, 4, 0).is_empty() && shuffled(5, 3, 0, 0).is_empty());
    }

    fn train(batch: usize) -> TrainSpec {
        TrainSpec {
            epochs: 3,
            batch,
            seed: 5,
            dtype: Precision::F32,
            order: Order::Shuffle,
            batches: Cut::Fixed,
            drop_last: false,
            micro_batch: None,
        }
    }

    fn sizes(batches: &Batches) -> Vec<usize> {
        let epoch = batches.epoch(0);
        assert_eq!(epoch.len() as u64, batches.steps_per_epoch());
        epoch.iter().map(Vec::len).collect()
    }

    #[test]
    fn an_epoch_contains_each_example_once_and_epochs_differ() {
        let batches = Batches::new(&train(4), 10);
        assert_eq!(sizes(&batches), [4, 4, 2]);
        let (first, second) = (batches.epoch(0), batches.epoch(1));
        assert_ne!(first, second);
        for epoch in [first, second] {
            let mut all = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(batches.steps(), 9);
        let at = batches.position(7);
        assert_eq!((at.step, at.epoch, at.steps), (7, 2, 9));
    }

    #[test]
    fn an_epoch_is_cut_as_the_task_says() {
        let mut spec = train(4);
        spec.drop_last = true;
        assert_eq!(sizes(&Batches::new(&spec, 10)), [4, 4]);
        spec.drop_last = false;
        spec.batches = Cut::Even;
        // numpy.array_split(range(10), 3).
        assert_eq!(sizes(&Batches::new(&spec, 10)), [4, 3, 3]);
        assert_eq!(sizes(&Batches::new(&spec, 8)), [4, 4]);
        assert_eq!(sizes(&Batches::new(&spec, 3)), [3]);
        assert!(Batches::new(&spec, 0).epoch(0).is_empty());
        spec.order = Order::Sequential;
        assert_eq!(Batches::new(&spec, 3).epoch(1), [vec![0, 1, 2]]);
        spec.micro_batch = Some(2);
        let batches = Batches::new(&spec, 10);
        assert_eq!(batches.micro_batches(5), [2, 2, 1]);
        assert_eq!(batches.micro_batches(4), [2, 2]);
        assert!(batches.micro_batches(2).is_empty());
    }

    #[test]
    fn sizes_are_those_of_all_micro_batches_of_all_batches() {
        for examples in 1..40 {
            for batch in 1..12 {
                for cut in [Cut::Fixed, Cut::Even] {
                    for drop_last in [false, cut == Cut::Fixed] {
                        for micro_batch in [None, Some(1), Some(3), Some(20)] {
                            let spec = TrainSpec {
                                batches: cut,
                                drop_last,
                                micro_batch,
                                ..train(batch)
                            };
                            let batches = Batches::new(&spec, examples);
                            let parts = |batch: &Vec<u64>| match batches.micro_batches(batch.len())
                            {
                                parts if parts.is_empty() => vec![batch.len()],
                                parts => parts,
                            };
                            let all: BTreeSet<usize> =
                                batches.epoch(0).iter().flat_map(parts).collect();
                            assert_eq!(batches.sizes(), all, "{examples} {spec:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn class_weights_are_divided_by_their_sum_in_a_mean() {
        let batch = Batch {
            indices: vec![0, 1, 2],
            inputs: Tensor::zeros((3, 1), candle_core::DType::F32, &Device::Cpu).unwrap(),
            targets: Tensor::new(&[0u32, 1, 1], &Device::Cpu).unwrap(),
        };
        let mut loss = LossSpec::new(LossKind::CrossEntropy);
        assert_eq!(LossWeights::of(&loss, &batch).unwrap(), LossWeights::Mean);
        loss.class_weights = vec![1.0, 3.0];
        let mean = LossWeights::of(&loss, &batch).unwrap().values(3);
        assert_eq!(mean, [1.0 / 7.0, 3.0 / 7.0, 3.0 / 7.0]);
        loss.reduction = Reduction::Sum;
        let sum = LossWeights::of(&loss, &batch).unwrap();
        assert_eq!(sum, LossWeights::SumOfEach(vec![1.0, 3.0, 3.0]));
        loss.class_weights = vec![1.0];
        let error = LossWeights::of(&loss, &batch).unwrap_err().to_string();
        assert!(error.contains("class 1 has no weight"), "{error}");
    }
}
