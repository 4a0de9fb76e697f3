//! The weights of a run's models, and the average that they make.

use std::ops::Range;

use hindcast_model::real::Real;
use serde::{Deserialize, Serialize};

use crate::error::{AnalysisError, Missing, Result};
use crate::run::floats::FloatVec;
use crate::run::source::StepSource;
use crate::run::walk::{Order, WithBuffers};

/// BLAKE3 of weights, hexadecimal.
pub(super) fn digest(weights: &[(u64, f64)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (step, weight) in weights {
        hasher.update(&step.to_le_bytes());
        hasher.update(&weight.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The weight a_k of each model of a run at which queries are evaluated: [`QueryPoint::resolve`](super::QueryPoint::resolve) makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateWeights {
    pub(super) point: String,
    /// (k, a_k), ascending, at least one.
    pub(super) weights: Vec<(u64, f64)>,
    pub(super) end: u64,
}

/// Parameters and running statistics at which queries are evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryState {
    /// θ̄, length p.
    pub parameters: Vec<f64>,
    /// r̄, length b.
    pub buffers: Vec<f64>,
}

impl StateWeights {
    /// All weight on the model after the last step, T.
    pub fn at_end(end: u64) -> Self {
        StateWeights {
            point: "final".to_owned(),
            weights: vec![(end, 1.0)],
            end,
        }
    }

    /// Weights as a checkpoint stores them; without a name they are those of the end.
    pub(crate) fn saved(point: &str, weights: Vec<(u64, f64)>, end: u64) -> Self {
        match point {
            "" => Self::at_end(end),
            point => StateWeights {
                point: point.to_owned(),
                weights,
                end,
            },
        }
    }

    /// The point in words, such as `mean:last-epoch`.
    pub fn point(&self) -> &str {
        &self.point
    }

    /// Pairs (k, a_k) with ascending k.
    pub fn weights(&self) -> &[(u64, f64)] {
        &self.weights
    }

    /// Whether queries are evaluated after the last step, without an average.
    pub fn is_final(&self) -> bool {
        self.weights == [(self.end, 1.0)]
    }

    /// The first k with a weight.
    pub fn first(&self) -> u64 {
        self.weights.first().map_or(self.end, |(k, _)| *k)
    }

    /// a_k, the weight of the parameters before step k; of T, those after the last step.
    pub fn of(&self, k: u64) -> f64 {
        let at = self.weights.binary_search_by_key(&k, |(k, _)| *k);
        at.map_or(0.0, |at| self.weights[at].1)
    }

    /// Number of models with a weight.
    pub fn models(&self) -> usize {
        self.weights.len()
    }

    /// BLAKE3 of all pairs (k, a_k), hexadecimal.
    pub fn digest(&self) -> String {
        digest(&self.weights)
    }

    /// θ̄ and r̄. An average reads all its steps once.
    ///
    /// # Errors
    /// If a step can't be read.
    pub fn state(&self, source: &dyn StepSource) -> Result<QueryState> {
        let end = source.end()?;
        if self.is_final() {
            return Ok(QueryState {
                parameters: end.parameters,
                buffers: end.buffers,
            });
        }
        let mut mean = Averaging::new(self, end.parameters.len(), end.buffers.len());
        mean.add_recorded(source, self.end)?;
        mean.add(self.end, &end.parameters, &end.buffers);
        Ok(mean.state)
    }

    /// Checks that the trace contains every model with a weight.
    pub(super) fn check_recorded(&self, source: &dyn StepSource) -> Result<()> {
        let ranges = source.ranges()?;
        let recorded = |k: u64| k == self.end || ranges.iter().any(|r| r.contains(&k));
        let mut missing = self.weights.iter().filter(|(k, _)| !recorded(*k));
        let Some(&(first_missing, _)) = missing.next() else {
            return Ok(());
        };
        if self.models() == 1 {
            return Err(AnalysisError::Missing(Missing::Model {
                point: self.point.clone(),
                recorded: with_end(ranges, self.end),
            }));
        }
        Err(AnalysisError::Missing(Missing::Averaged {
            point: self.point.clone(),
            averaged: self.first()..self.end,
            first_missing,
            missing: 1 + missing.count() as u64,
            newest: ranges.last().filter(|r| r.end >= self.end).cloned(),
        }))
    }
}

/// Sums `a_k θ_k` and `a_k r_k` while a run passes by.
#[derive(Debug, Clone)]
pub(crate) struct Averaging<'a> {
    weights: &'a StateWeights,
    pub state: QueryState,
}

impl<'a> Averaging<'a> {
    pub fn new(weights: &'a StateWeights, parameters: usize, buffers: usize) -> Self {
        Averaging {
            weights,
            state: QueryState {
                parameters: vec![0.0; parameters],
                buffers: vec![0.0; buffers],
            },
        }
    }

    /// Adds the model before step k, if it has a weight.
    pub fn add<T: Real>(&mut self, k: u64, parameters: &[T], buffers: &[T]) {
        let weight = self.weights.of(k);
        if weight == 0.0 {
            return;
        }
        let pairs = [
            (&mut self.state.parameters, parameters),
            (&mut self.state.buffers, buffers),
        ];
        for (sum, values) in pairs {
            for (sum, x) in sum.iter_mut().zip(values) {
                *sum += weight * x.wide();
            }
        }
    }

    /// Whether only the model after the last step has a weight.
    pub fn is_final(&self) -> bool {
        self.weights.is_final()
    }

    /// T.
    pub fn end(&self) -> u64 {
        self.weights.end
    }

    /// Adds the recorded models before the steps below `end`.
    ///
    /// # Errors
    /// If a step can't be read.
    pub fn add_recorded(&mut self, source: &dyn StepSource, end: u64) -> Result<()> {
        let weighted = self.weights.weights.iter().map(|(k, _)| *k);
        for range in runs(weighted.filter(|&k| k < end)) {
            for found in WithBuffers::new(source, range, Order::OldestFirst)? {
                let (step, buffers) = found?;
                let k = step.meta.step;
                match (&step.parameters, &buffers) {
                    (FloatVec::F32(theta), FloatVec::F32(r)) => self.add(k, theta, r),
                    (theta, r) => self.add(k, &theta.to_vec::<f64>(), &r.to_vec::<f64>()),
                }
            }
        }
        Ok(())
    }
}

/// The steps before which a trace has a model: its recorded steps and the end of training.
fn with_end(mut ranges: Vec<Range<u64>>, end: u64) -> Vec<Range<u64>> {
    match ranges.last_mut() {
        Some(last) if last.end == end => last.end += 1,
        _ => ranges.push(end..end + 1),
    }
    ranges
}

/// Ascending numbers as ranges without gaps.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for n in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == n => last.end = n + 1,
            _ => ranges.push(n..n + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_ranges_without_gaps() {
        assert_eq!(runs([1, 2, 3, 7, 9, 10].into_iter()), [1..4, 7..8, 9..11]);
        assert!(runs(std::iter::empty()).is_empty());
    }

    #[test]
    fn a_model_has_the_weight_that_it_was_given() {
        let weights = StateWeights::saved("weighted:0", vec![(1, 0.25), (4, 0.75)], 6);
        let of: Vec<f64> = (0..=6).map(|k| weights.of(k)).collect();
        assert_eq!(of, [0.0, 0.25, 0.0, 0.0, 0.75, 0.0, 0.0]);
        assert_eq!((weights.first(), weights.is_final()), (1, false));
        assert!(StateWeights::saved("", Vec::new(), 6).is_final());
        assert_ne!(weights.digest(), StateWeights::at_end(6).digest());
    }
}
