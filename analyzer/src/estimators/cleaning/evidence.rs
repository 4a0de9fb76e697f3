//! What the recorded steps say about the label of each training example.

use std::ops::Range;

use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Diverged, Result, Unsupported};
use crate::estimators::dynamics::{Squares, StepDynamics, probabilities, walk};
use crate::run::memory::MemoryNeed;
use crate::run::recorded::RecordedRun;
use crate::sweep::Observer;

/// Each example's class probabilities and margin, averaged over the steps that used it. A step's forward pass comes before
/// its update, so each number is of a model that had seen the example only in earlier epochs.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelEvidence {
    classes: usize,
    examples: Vec<Seen>,
    /// Sums of probabilities, a row of `classes` per example.
    sums: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Seen {
    uses: u64,
    given: u32,
    margin: f64,
}

impl LabelEvidence {
    /// Walks the steps once, with a forward pass each.
    ///
    /// # Errors
    /// As [`walk`]. The labels aren't classes with an output each, or an output isn't finite.
    pub fn of(
        run: &RecordedRun<'_>,
        engine: &mut dyn ReplayEngine,
        steps: &Range<u64>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let mut evidence = LabelEvidence {
            classes: 0,
            examples: vec![Seen::default(); run.examples()],
            sums: Vec::new(),
        };
        let mut see = |step: &StepDynamics<'_>| evidence.see(step);
        walk(run, engine, steps, Squares::None, &mut see, observer)?;
        match evidence.examples.iter().position(|e| !e.margin.is_finite()) {
            None => Ok(evidence),
            Some(example) => Err(AnalysisError::Diverged(Diverged::Score {
                example,
                query: "margin".to_owned(),
            })),
        }
    }

    /// Bytes of the evidence about `examples` examples of `classes` classes.
    pub fn memory(examples: u64, classes: u64) -> MemoryNeed {
        let need = examples * (classes * 8 + size_of::<Seen>() as u64);
        MemoryNeed {
            certain: need,
            about: need,
        }
    }

    fn see(&mut self, step: &StepDynamics<'_>) -> Result<()> {
        let (Some(classes), Some(labels)) = (&step.classes, &step.labels) else {
            return Err(AnalysisError::Unsupported(Unsupported::Labels {
                step: step.meta.step,
            }));
        };
        let width = step.outputs.len() / step.meta.indices.len().max(1);
        if self.sums.is_empty() {
            // A single output is the logit of class 1 of two.
            self.classes = width.max(2);
            self.sums = vec![0.0; self.classes * self.examples.len()];
        }
        let all = self.examples.len();
        let rows = step.outputs.chunks_exact(width.max(1));
        for (row, (outputs, example)) in rows.zip(&step.meta.indices).enumerate() {
            let slot = usize::try_from(*example).unwrap_or(usize::MAX);
            let seen = self.examples.get_mut(slot);
            let seen = seen.ok_or_else(|| AnalysisError::ForeignExample {
                step: step.meta.step,
                example: *example,
                examples: all,
            })?;
            seen.uses += 1;
            seen.given = classes[row];
            seen.margin += labels[row].margin;
            let sums = &mut self.sums[slot * self.classes..][..self.classes];
            for (sum, p) in sums.iter_mut().zip(probabilities(outputs)) {
                *sum += p;
            }
        }
        Ok(())
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of training examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// How often the steps used an example.
    pub fn uses(&self, example: usize) -> u64 {
        self.examples.get(example).map_or(0, |seen| seen.uses)
    }

    /// The class of an example's label. `None` if no step used it.
    pub fn given(&self, example: usize) -> Option<usize> {
        let seen = self.examples.get(example).filter(|seen| seen.uses > 0);
        seen.map(|seen| seen.given as usize)
    }

    /// Its mean margin (the area under the margin). `None` if no step used it.
    pub fn margin(&self, example: usize) -> Option<f64> {
        let seen = self.examples.get(example).filter(|seen| seen.uses > 0);
        seen.map(|seen| seen.margin / seen.uses as f64)
    }

    /// Its mean probability of each class; they add up to 1. `None` if no step used it.
    pub fn probabilities(&self, example: usize) -> Option<Vec<f64>> {
        let seen = self.examples.get(example).filter(|seen| seen.uses > 0)?;
        let sums = self.sums.get(example * self.classes..)?;
        let mean = sums.iter().take(self.classes);
        Some(mean.map(|sum| sum / seen.uses as f64).collect())
    }

    /// The class with the largest mean probability. `None` if no step used the example.
    pub fn predicted(&self, example: usize) -> Option<usize> {
        self.probabilities(example)
            .and_then(|p| Some(largest(&p)?.0))
    }

    #[cfg(test)]
    pub(super) fn made(rows: &[(u32, &[f64])]) -> Self {
        let seen = |&(given, p): &(u32, &[f64])| Seen {
            uses: 1,
            given,
            margin: 2.0 * p[given as usize] - 1.0,
        };
        LabelEvidence {
            classes: rows.first().map_or(0, |(_, p)| p.len()),
            examples: rows.iter().map(seen).collect(),
            sums: rows.iter().flat_map(|(_, p)| p.to_vec()).collect(),
        }
    }
}

/// The first of the largest values, with its position.
pub(super) fn largest(values: &[f64]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for (at, &value) in values.iter().enumerate() {
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((at, value));
        }
    }
    best
}
