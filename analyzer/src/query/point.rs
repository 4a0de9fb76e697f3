//! The model that a query is asked about: the one after the last step, or an average of the last ones.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::average::{StateWeights, digest};
use crate::error::{AnalysisError, Missing, Result};
use crate::run::source::StepSource;

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
    /// The model before step N, which is the one after N steps: `a_N = 1`. Steps from N on have no influence on it.
    Step(u64),
    /// The default: the mean of the models after each step of the newest quarter of the epochs, rounded up. The average of a
    /// single epoch would contain its first models, so it covers the newer half of the steps. It doesn't begin before the
    /// scored window, because no scored step can change a model that came before it. If the trace contains fewer of these
    /// steps, the mean is over those that it contains.
    #[default]
    Mean,
    /// The mean of the models after each step of the newest epoch. As for [`Window::LastEpoch`](crate::Window::LastEpoch), of
    /// an epoch whose first steps aren't recorded, these are the recorded ones.
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
            QueryPoint::Step(n) => write!(f, "step:{n}"),
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
            ("step", n) => n.parse().map(QueryPoint::Step).map_err(|_| bad()),
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
    /// The same point, with [`QueryPoint::Mean`] replaced by what it stands for in this run, if the scored window begins at
    /// step `from`.
    ///
    /// # Errors
    /// If the trace's index can't be read.
    pub fn in_run(&self, source: &dyn StepSource, from: u64) -> Result<QueryPoint> {
        match self {
            QueryPoint::Mean => default_mean(source, from),
            point => Ok(point.clone()),
        }
    }

    /// The weight of each recorded model, after checking that the trace contains all of them. [`QueryPoint::Mean`] becomes
    /// the point that it stands for in this trace, if the scored window begins at step `from`. The other points don't
    /// depend on the window.
    ///
    /// # Errors
    /// [`Missing::Averaged`] with the missing steps, [`Missing::Epochs`], or [`AnalysisError::QueryPoint`] if the run
    /// has fewer steps or epochs than asked for, or weights of your own aren't weights.
    pub fn resolve(&self, source: &dyn StepSource, from: u64) -> Result<StateWeights> {
        let end = source.end()?.step;
        let problem = |problem: String| AnalysisError::QueryPoint {
            point: self.to_string(),
            problem,
        };
        let weights = match self {
            QueryPoint::Final => vec![(end, 1.0)],
            QueryPoint::Step(n) if *n > end => {
                return Err(problem(format!(
                    "the run has only {end} steps, so its last model is step:{end}"
                )));
            }
            QueryPoint::Step(n) => vec![(*n, 1.0)],
            QueryPoint::Mean => return self.in_run(source, from)?.resolve(source, from),
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

/// The share of the epochs that [`QueryPoint::Mean`] averages is one in this number.
const EPOCHS_PER_AVERAGED: u64 = 4;

/// What [`QueryPoint::Mean`] stands for if the scored window begins at step `from`.
fn default_mean(source: &dyn StepSource, from: u64) -> Result<QueryPoint> {
    let end = source.end()?.step;
    let ranges = source.ranges()?;
    let recorded = ranges.last().filter(|r| r.end >= end);
    let from = recorded.map_or(end, |r| from.max(r.start)).min(end);
    let epochs = source.epochs()?;
    let begun: Vec<&(u64, Range<u64>)> = epochs.iter().filter(|e| e.1.start < end).collect();
    let wanted = match begun.last() {
        Some((newest, _)) if *newest > 0 => (newest + 1).div_ceil(EPOCHS_PER_AVERAGED),
        _ => 0,
    };
    let starts = begun.iter().rev().map(|(_, steps)| steps.start);
    let starts: Vec<u64> = starts.take(wanted as usize).collect();
    let first = starts.last().map_or(end - end / 2, |&start| start);
    let first = first.max(from);
    let whole = starts.iter().position(|&start| start == first);
    Ok(match (end - first, whole) {
        (0 | 1, _) => QueryPoint::Final,
        (_, Some(0)) => QueryPoint::MeanOfLastEpoch,
        (_, Some(older)) => QueryPoint::MeanOfEpochs(older as u64 + 1),
        (n, None) => QueryPoint::MeanOfSteps(n),
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
                "the trace contains steps of only {} epochs: ask for this number or fewer",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::floats::FloatVec;
    use crate::run::in_memory::MemoryRun;
    use crate::run::source::{RecordedEnd, RecordedStep};
    use hindcast_format::meta::{BatchWeights, StepMeta};

    /// A run of `steps` steps with `per_epoch` steps per epoch, of which those from `first` on are recorded. θ_k = k².
    fn run(steps: u64, per_epoch: u64, first: u64) -> MemoryRun {
        let step = |t: u64| RecordedStep {
            meta: StepMeta {
                step: t,
                epoch: t / per_epoch,
                groups: Vec::new(),
                indices: Vec::new(),
                weights: BatchWeights::Mean,
                micro_batches: Vec::new(),
                loss: None,
                clip_norm: None,
                optimizer_step: t,
                trained: Vec::new(),
                scalars: Vec::new(),
                extensions: Vec::new(),
            },
            parameters: vec![(t * t) as f64].into(),
            buffers_after: FloatVec::default(),
            key: None,
        };
        MemoryRun {
            steps: (first..steps).map(step).collect(),
            end: Some(RecordedEnd {
                step: steps,
                parameters: vec![(steps * steps) as f64],
                buffers: Vec::new(),
                optimizer: None,
            }),
            ..MemoryRun::default()
        }
    }

    #[test]
    fn the_default_is_the_last_quarter_of_the_epochs() {
        for (run, point) in [
            (run(200, 10, 0), "mean:5-epochs"),
            (run(50, 10, 0), "mean:2-epochs"),
            (run(30, 10, 0), "mean:last-epoch"),
            // A run that was stopped in its third epoch.
            (run(25, 10, 0), "mean:last-epoch"),
            // A single epoch, and one that has hardly begun.
            (run(30, 30, 0), "mean:15-steps"),
            (run(3, 30, 0), "final"),
            // Only the last epoch is recorded, only a part of it (nothing says how long it was), and only the end.
            (run(200, 10, 190), "mean:last-epoch"),
            (run(200, 10, 195), "mean:last-epoch"),
            (run(200, 10, 200), "final"),
        ] {
            let found = QueryPoint::Mean.in_run(&run, 0).unwrap();
            assert_eq!(found.to_string(), point);
            let weights = QueryPoint::Mean.resolve(&run, 0).unwrap();
            assert_eq!(weights.point(), point);
        }
    }

    #[test]
    fn the_default_begins_no_earlier_than_the_window() {
        // Twenty epochs of ten steps: without a window, the mean is over the newest five.
        let twenty = run(200, 10, 0);
        for (from, point) in [
            (0, "mean:5-epochs"),
            (149, "mean:5-epochs"),
            (160, "mean:4-epochs"),
            (163, "mean:37-steps"),
            (190, "mean:last-epoch"),
            (195, "mean:5-steps"),
            (199, "final"),
        ] {
            let found = QueryPoint::Mean.in_run(&twenty, from).unwrap();
            assert_eq!(found.to_string(), point, "a window from step {from}");
        }
        // A single epoch, whose newer half begins at step 15.
        for (from, point) in [(10, "mean:15-steps"), (20, "mean:10-steps")] {
            let found = QueryPoint::Mean.in_run(&run(30, 30, 0), from).unwrap();
            assert_eq!(found.to_string(), point, "a window from step {from}");
        }
        // A point that was named is what it says.
        let named = QueryPoint::MeanOfEpochs(5);
        assert_eq!(named.in_run(&twenty, 190).unwrap(), named);
    }

    #[test]
    fn an_average_is_the_weighted_sum_of_the_recorded_models() {
        let run = run(6, 3, 0);
        for (point, sum) in [
            ("final", 36.0),
            ("step:6", 36.0),
            ("step:4", 16.0),
            ("step:0", 0.0),
            ("mean:last-epoch", (16.0 + 25.0 + 36.0) / 3.0),
            ("mean:2-steps", (25.0 + 36.0) / 2.0),
            (
                "mean:2-epochs",
                (1.0 + 4.0 + 9.0 + 16.0 + 25.0 + 36.0) / 6.0,
            ),
        ] {
            let point: QueryPoint = point.parse().unwrap();
            let state = point.resolve(&run, 0).unwrap().state(&run).unwrap();
            assert!((state.parameters[0] - sum).abs() < 1e-12, "{point}");
        }
        let own = QueryPoint::Weighted(vec![(1, 0.5), (4, -0.5), (6, 1.0)]);
        let state = own.resolve(&run, 0).unwrap().state(&run).unwrap();
        assert!((state.parameters[0] - (0.5 - 8.0 + 36.0)).abs() < 1e-12);
    }

    #[test]
    fn steps_and_epochs_that_are_not_there_are_named() {
        for (run, point, hint) in [
            (
                run(200, 10, 190),
                "mean:2-epochs",
                "contains steps of only 1 epochs",
            ),
            (run(20, 10, 0), "mean:21-steps", "the run has only 20 steps"),
            (run(20, 10, 0), "step:21", "the run has only 20 steps"),
            (
                run(200, 10, 190),
                "step:50",
                "no model before this step; it has those before steps 190 to 200",
            ),
            (
                run(200, 10, 190),
                "mean:50-steps",
                "39 of them are not in the trace (the first is step 151)",
            ),
            (run(200, 10, 190), "mean:50-steps", "mean:10-steps or less"),
        ] {
            let point: QueryPoint = point.parse().unwrap();
            let message = point.resolve(&run, 0).unwrap_err().to_string();
            assert!(message.contains(hint), "{message}");
        }
    }

    #[test]
    fn points_are_read_and_written() {
        for text in [
            "final",
            "step:0",
            "step:1500",
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
            "step",
            "step:",
            "step:-1",
            "step:last",
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
