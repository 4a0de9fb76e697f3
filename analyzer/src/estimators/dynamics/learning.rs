//! Each example's training dynamics over a window.

use super::walk::StepDynamics;
use crate::error::{AnalysisError, Result};

/// Sums up the steps of a [`walk`](super::walk()) per training example.
#[derive(Debug, Clone, Default)]
pub struct Learning {
    examples: Vec<Sums>,
    /// The first and the last epoch seen.
    epochs: Option<(u64, u64)>,
}

/// One example's dynamics over the window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExampleDynamics {
    /// How often the window's batches hold it.
    pub occurrences: u64,
    /// Its mean loss over its occurrences.
    pub loss: f64,
    /// What a classifier's outputs say about its label; `None` for other models.
    pub label: Option<LabelDynamics>,
    /// `Σ w s` over its occurrences, with its weight w and the squared norm s that the walk computed. With
    /// [`Squares::ByRate`](super::Squares::ByRate) it is the self-influence `Σ_t Σ_k η_{t,k} w ‖g_k‖²`. `None` if the walk
    /// computed no norms, or it doesn't occur.
    pub self_influence: Option<f64>,
}

/// How an example's label was learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelDynamics {
    /// Its mean margin over its occurrences (the area under the margin).
    pub margin: f64,
    /// Its label's mean probability over its occurrences.
    pub probability: f64,
    /// How often it was forgotten: wrong although right at its occurrence before.
    pub forgotten: u64,
    /// Epochs from the last one in which it was wrong after it had once been right, to the window's last epoch. The
    /// window's number of epochs if it was never wrong again; −1 if it was never right.
    pub epochs_since_forgotten: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    occurrences: u64,
    loss: f64,
    margin: f64,
    probability: f64,
    labelled: bool,
    memory: Memory,
    self_influence: Option<f64>,
}

/// Which occurrences of an example were right.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    /// Whether it was right at its last occurrence.
    right: bool,
    /// Whether it was ever right.
    learned: bool,
    forgotten: u64,
    /// The last epoch in which it was wrong after it had once been right.
    last: Option<u64>,
}

impl Memory {
    fn see(&mut self, right: bool, epoch: u64) {
        self.forgotten += u64::from(self.right && !right);
        if self.learned && !right {
            self.last = Some(epoch);
        }
        self.learned |= right;
        self.right = right;
    }

    fn epochs_since(&self, (first, last): (u64, u64)) -> i64 {
        let epochs = match (self.learned, self.last) {
            (false, _) => return -1,
            (true, None) => last.saturating_sub(first) + 1,
            (true, Some(epoch)) => last.saturating_sub(epoch),
        };
        i64::try_from(epochs).unwrap_or(i64::MAX)
    }
}

impl Learning {
    /// Of `examples` training examples.
    pub fn new(examples: usize) -> Self {
        Learning {
            examples: vec![Sums::default(); examples],
            epochs: None,
        }
    }

    /// Adds a step. Steps come oldest first.
    ///
    /// # Errors
    /// The step holds an example that isn't among them.
    pub fn see(&mut self, step: &StepDynamics<'_>) -> Result<()> {
        let (meta, all) = (step.meta, self.examples.len());
        let (first, _) = self.epochs.unwrap_or((meta.epoch, meta.epoch));
        self.epochs = Some((first, meta.epoch));
        for (row, (&example, loss)) in meta.indices.iter().zip(&step.losses).enumerate() {
            let slot = usize::try_from(example).ok();
            let slot = slot.and_then(|i| self.examples.get_mut(i));
            let sums = slot.ok_or_else(|| AnalysisError::ForeignExample {
                step: meta.step,
                example,
                examples: all,
            })?;
            sums.occurrences += 1;
            sums.loss += loss;
            if let Some((w, square)) = step.weights.get(row).zip(step.squares.get(row)) {
                sums.self_influence = Some(sums.self_influence.unwrap_or(0.0) + w * square);
            }
            if let Some(label) = step.labels.as_ref().and_then(|labels| labels.get(row)) {
                sums.labelled = true;
                sums.margin += label.margin;
                sums.probability += label.probability;
                sums.memory.see(label.is_right(), meta.epoch);
            }
        }
        Ok(())
    }

    /// The dynamics of each training example, in the order of their indices.
    pub fn examples(&self) -> impl Iterator<Item = ExampleDynamics> {
        let epochs = self.epochs.unwrap_or_default();
        self.examples.iter().map(move |sums| {
            let mean = |sum: f64| match sums.occurrences {
                0 => 0.0,
                n => sum / n as f64,
            };
            ExampleDynamics {
                occurrences: sums.occurrences,
                loss: mean(sums.loss),
                label: sums.labelled.then(|| LabelDynamics {
                    margin: mean(sums.margin),
                    probability: mean(sums.probability),
                    forgotten: sums.memory.forgotten,
                    epochs_since_forgotten: sums.memory.epochs_since(epochs),
                }),
                self_influence: sums.self_influence,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(forgotten, epochs since)` of an example with these epochs and outcomes, in a window of the epochs 2 to 6.
    fn after(seen: &[(u64, bool)]) -> (u64, i64) {
        let mut memory = Memory::default();
        for &(epoch, right) in seen {
            memory.see(right, epoch);
        }
        (memory.forgotten, memory.epochs_since((2, 6)))
    }

    #[test]
    fn forgetting_is_counted_as_defined() {
        let always = |right| [2, 3, 4, 5, 6].map(|epoch| (epoch, right));
        assert_eq!(after(&always(false)), (0, -1), "never learned");
        assert_eq!(after(&always(true)), (0, 5), "never forgotten");
        let late = [(2, false), (3, false), (4, true), (5, true), (6, true)];
        assert_eq!(after(&late), (0, 5), "learned late and kept");
        let once = [(2, true), (3, false), (4, true), (5, true), (6, true)];
        assert_eq!(after(&once), (1, 3), "relearned after epoch 3");
        let at_the_end = [(2, true), (3, false), (4, true), (5, true), (6, false)];
        assert_eq!(after(&at_the_end), (2, 0));
        let for_good = [(2, true), (3, false), (4, false), (5, false), (6, false)];
        assert_eq!(after(&for_good), (1, 0), "still forgotten");
        assert_eq!(after(&[(4, true), (4, false)]), (1, 2), "twice in an epoch");
    }
}
