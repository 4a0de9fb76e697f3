//! The model that a query is asked about: the one after the last step, or an average of the last ones.

use std::fmt;
use std::str::FromStr;

use hindcast_model::real::Real;
use serde::{Deserialize, Serialize};

use crate::error::{AnalysisError, Missing, Result};
use crate::run::floats::FloatVec;
use crate::run::source::StepSource;
use crate::run::walk::{Order, WithBuffers};

/// The model that a query is asked about.
///
/// With θ_k the parameters before step k and θ_T those after the last step, a query Q is asked about
/// `θ̄ = Σ a_k θ_k`. Running statistics are averaged with the same weights. The average of the last iterates is a
/// better and a steadier model than the last iterate, which at a constant learning rate is wherever the last batches
/// moved it (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).
#[derive(Debug, Clone, PartialEq, Default)]
pub enum QueryPoint {
    /// The model after the last step: `a_T = 1`.
    Final,
    /// The default: the mean of the models after each step of the newest epoch, but at most of the newer half of all steps, so
    /// that the average of a single epoch doesn't contain its first models. If the trace contains fewer of these steps, the
    /// mean is over those that it contains.
    #[default]
    Mean,
    /// The mean of the models after each step of the newest epoch.
    MeanOfLastEpoch,
    /// The mean of the models after each step of the newest N epochs.
    MeanOfEpochs(u64),
    /// The mean of the models after each of the newest N steps.
    MeanOfSteps(u64),
    /// The exponential moving average `θ̄ ← β θ̄ + (1 − β) θ` after each step, with 0 < β < 1. It begins with the run's
    /// first parameters. Where the weights of all older models add up to less than one millionth, it begins there
    /// instead, and the weights are scaled to add up to 1.
    Ema(f64),
    /// Weights of your own: pairs (k, a_k) with ascending k ≤ T. They must add up to 1.
    Weighted(Vec<(u64, f64)>),
}

/// What an exponential moving average may leave out: the sum of the omitted weights.
const EMA_REST: f64 = 1e-6;

/// How far the sum of a caller's weights may differ from 1.
const SUM_TOLERANCE: f64 = 1e-9;

impl fmt::Display for QueryPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryPoint::Final => f.write_str("final"),
            QueryPoint::Mean => f.write_str("mean"),
            QueryPoint::MeanOfLastEpoch => f.write_str("mean:last-epoch"),
            QueryPoint::MeanOfEpochs(n) => write!(f, "mean:{n}-epochs"),
            QueryPoint::MeanOfSteps(n) => write!(f, "mean:{n}-steps"),
            QueryPoint::Ema(beta) => write!(f, "ema:{beta}"),
            QueryPoint::Weighted(weights) => {
                write!(f, "weighted:{}", &digest(weights)[..16])
            }
        }
    }
}

impl FromStr for QueryPoint {
    type Err = AnalysisError;

    /// Parses `final`, `mean`, `mean:last-epoch`, `mean:5-epochs`, `mean:1000-steps` or `ema:0.999`.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = || AnalysisError::QueryPointText {
            text: text.to_owned(),
        };
        let count = |n: &str| n.parse().ok().filter(|&n: &u64| n > 0).ok_or_else(bad);
        let (head, tail) = text.split_once(':').unwrap_or((text, ""));
        match (head.trim(), tail.trim()) {
            ("final", "") => Ok(QueryPoint::Final),
            ("mean", "") if !text.ends_with(':') => Ok(QueryPoint::Mean),
            ("mean", "last-epoch") => Ok(QueryPoint::MeanOfLastEpoch),
            ("mean", tail) => {
                let (n, unit) = tail.split_once('-').ok_or_else(bad)?;
                match unit {
                    "epochs" | "epoch" => Ok(QueryPoint::MeanOfEpochs(count(n)?)),
                    "steps" | "step" => Ok(QueryPoint::MeanOfSteps(count(n)?)),
                    _ => Err(bad()),
                }
            }
            ("ema", beta) => {
                let beta: f64 = beta.parse().map_err(|_| bad())?;
                if beta > 0.0 && beta < 1.0 {
                    Ok(QueryPoint::Ema(beta))
                } else {
                    Err(bad())
                }
            }
            _ => Err(bad()),
        }
    }
}

impl QueryPoint {
    /// The same point, with [`QueryPoint::Mean`] replaced by what it stands for in this run.
    ///
    /// # Errors
    /// If the trace's index can't be read.
    pub fn in_run(&self, source: &dyn StepSource) -> Result<QueryPoint> {
        match self {
            QueryPoint::Mean => default_mean(source),
            point => Ok(point.clone()),
        }
    }

    /// The weight of each recorded model, after checking that the trace contains all of them. [`QueryPoint::Mean`] becomes
    /// the point that it stands for in this trace.
    ///
    /// # Errors
    /// [`Missing::Averaged`] with the missing steps, [`Missing::Epochs`], or [`AnalysisError::QueryPoint`] if the run
    /// has fewer steps or epochs than asked for, or weights of your own aren't weights.
    pub fn resolve(&self, source: &dyn StepSource) -> Result<StateWeights> {
        let end = source.end()?.step;
        let problem = |problem: String| AnalysisError::QueryPoint {
            point: self.to_string(),
            problem,
        };
        let weights = match self {
            QueryPoint::Final => vec![(end, 1.0)],
            QueryPoint::Mean => return self.in_run(source)?.resolve(source),
            QueryPoint::MeanOfLastEpoch => mean(last_epochs(source, end, 1, &problem)?, end),
            QueryPoint::MeanOfEpochs(n) => mean(last_epochs(source, end, *n, &problem)?, end),
            QueryPoint::MeanOfSteps(n) => mean(
                end.checked_sub(*n)
                    .ok_or_else(|| problem(format!("the run has only {end} steps")))?,
                end,
            ),
            QueryPoint::Ema(beta) => ema(*beta, end),
            QueryPoint::Weighted(weights) => {
                check(weights, end).map_err(problem)?;
                weights.clone()
            }
        };
        let weights = StateWeights {
            point: self.to_string(),
            weights,
            end,
        };
        weights.check_recorded(source)?;
        Ok(weights)
    }
}

/// Equal weights for the models after each of the steps [first, end).
fn mean(first: u64, end: u64) -> Vec<(u64, f64)> {
    let weight = 1.0 / (end - first) as f64;
    (first + 1..=end).map(|k| (k, weight)).collect()
}

fn ema(beta: f64, end: u64) -> Vec<(u64, f64)> {
    let enough = (EMA_REST.ln() / beta.ln()).ceil();
    let steps = if enough < end as f64 {
        enough as u64
    } else {
        end
    };
    let power = |n: u64| beta.powf(n as f64);
    let mut weights: Vec<(u64, f64)> = (0..steps)
        .rev()
        .map(|age| (end - age, (1.0 - beta) * power(age)))
        .collect();
    if steps == end {
        weights.insert(0, (0, power(end)));
    } else {
        let sum = 1.0 - power(steps);
        weights.iter_mut().for_each(|(_, a)| *a /= sum);
    }
    weights
}

/// What [`QueryPoint::Mean`] stands for.
fn default_mean(source: &dyn StepSource) -> Result<QueryPoint> {
    let end = source.end()?.step;
    let epochs = source.epochs()?;
    let newest = epochs.iter().rev().find(|(_, steps)| steps.start < end);
    let of_epoch = newest.map_or(end, |(_, steps)| end - steps.start);
    let ranges = source.ranges()?;
    let recorded = ranges.last().filter(|r| r.end >= end);
    // The mean over W steps has the models before the newest W − 1 steps and the one after the last step.
    let possible = 1 + recorded.map_or(0, |r| end - r.start);
    let wanted = of_epoch.min(end / 2).min(possible);
    Ok(match wanted {
        0 | 1 => QueryPoint::Final,
        n if n == of_epoch => QueryPoint::MeanOfLastEpoch,
        n => QueryPoint::MeanOfSteps(n),
    })
}

/// The first step of the newest `n` epochs. An epoch counts from its first complete step.
fn last_epochs(
    source: &dyn StepSource,
    end: u64,
    n: u64,
    problem: &impl Fn(String) -> AnalysisError,
) -> Result<u64> {
    let epochs = source.epochs()?;
    // If the recorder was killed at the start of an epoch, that epoch may have no complete step.
    let begun: Vec<u64> = epochs
        .iter()
        .map(|(_, steps)| steps.start)
        .filter(|&start| start < end)
        .collect();
    if begun.is_empty() {
        return Err(AnalysisError::Missing(Missing::Epochs));
    }
    usize::try_from(n)
        .ok()
        .and_then(|n| begun.len().checked_sub(n))
        .and_then(|at| begun.get(at).copied())
        .ok_or_else(|| {
            problem(format!(
                "the trace contains steps of only {} epochs",
                begun.len()
            ))
        })
}

/// Checks a caller's weights.
fn check(weights: &[(u64, f64)], end: u64) -> Result<(), String> {
    if weights.is_empty() {
        return Err("there are no weights".to_owned());
    }
    if let Some(pair) = weights.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(format!(
            "the weights are not in ascending order of their steps: {} comes before {}",
            pair[0].0, pair[1].0
        ));
    }
    if let Some((step, _)) = weights.iter().find(|(step, _)| *step > end) {
        return Err(format!(
            "there is a weight for the parameters before step {step}, and the run has {end} steps"
        ));
    }
    let sum: f64 = weights.iter().map(|(_, a)| a).sum();
    if (sum - 1.0).abs() <= SUM_TOLERANCE {
        Ok(())
    } else {
        Err(format!("the weights add up to {sum}, expected 1"))
    }
}

/// BLAKE3 of weights, hexadecimal.
fn digest(weights: &[(u64, f64)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (step, weight) in weights {
        hasher.update(&step.to_le_bytes());
        hasher.update(&weight.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The weight a_k of each model of a run at which queries are evaluated: [`QueryPoint::resolve`] makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateWeights {
    point: String,
    /// (k, a_k), ascending, at least one.
    weights: Vec<(u64, f64)>,
    end: u64,
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
            point: QueryPoint::Final.to_string(),
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
    fn check_recorded(&self, source: &dyn StepSource) -> Result<()> {
        let ranges = source.ranges()?;
        let recorded = |k: u64| k == self.end || ranges.iter().any(|r| r.contains(&k));
        let mut missing = self.weights.iter().filter(|(k, _)| !recorded(*k));
        let Some(&(first_missing, _)) = missing.next() else {
            return Ok(());
        };
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

/// Ascending numbers as ranges without gaps.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<std::ops::Range<u64>> {
    let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
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
    fn points_are_read_and_written() {
        for text in [
            "final",
            "mean",
            "mean:last-epoch",
            "mean:5-epochs",
            "mean:1000-steps",
            "ema:0.999",
        ] {
            assert_eq!(text.parse::<QueryPoint>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "last",
            "mean:",
            "mean:0-steps",
            "mean:5",
            "mean:five-steps",
            "mean:3-weeks",
            "ema",
            "ema:1",
            "ema:0",
            "ema:-0.5",
            "final:2",
            "weighted:00",
        ] {
            let message = text.parse::<QueryPoint>().unwrap_err().to_string();
            assert!(message.contains("mean:last-epoch"), "{text}: {message}");
        }
    }

    #[test]
    fn a_moving_average_is_its_recursion() {
        // θ_k = k², so that every weight counts.
        let theta = |k: u64| (k * k) as f64;
        for (beta, end) in [(0.5f64, 6u64), (0.9, 40), (0.99, 100)] {
            let mut by_hand = theta(0);
            for k in 1..=end {
                by_hand = beta * by_hand + (1.0 - beta) * theta(k);
            }
            let weights = ema(beta, end);
            let sum: f64 = weights.iter().map(|(k, a)| a * theta(*k)).sum();
            assert!((sum - by_hand).abs() <= 1e-12 * by_hand, "{sum} {by_hand}");
        }
        // A long run: the omitted weights are below one millionth, and the rest adds up to 1.
        let weights = ema(0.9, 10_000);
        assert_eq!(weights.first().unwrap().0, 10_000 - 131);
        let sum: f64 = weights.iter().map(|(_, a)| a).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn a_mean_has_the_models_after_its_steps() {
        assert_eq!(mean(8, 10), [(9, 0.5), (10, 0.5)]);
        assert_eq!(runs([1, 2, 3, 7, 9, 10].into_iter()), [1..4, 7..8, 9..11]);
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        for (weights, hint) in [
            (vec![(3, 0.5), (2, 0.5)], "3 comes before 2"),
            (vec![(3, 0.5), (3, 0.5)], "3 comes before 3"),
            (vec![(3, 0.5), (11, 0.5)], "before step 11"),
            (vec![(3, 0.5)], "add up to 0.5"),
            (vec![(3, f64::NAN)], "add up to NaN"),
            (vec![], "there are no weights"),
        ] {
            let message = check(&weights, 10).unwrap_err();
            assert!(message.contains(hint), "{message}");
        }
        check(&[(3, 1.5), (10, -0.5)], 10).unwrap();
    }
}
