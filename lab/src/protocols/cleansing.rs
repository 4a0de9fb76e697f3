//! Measures whether removing the worst examples improves the model (paper, section 7.2).

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use anyhow::ensure;
use candle_core::Device;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::{Deserialize, Serialize};

use super::kept::Watcher;
use super::ranking::{NONE, Ranking, order};
use super::rows::{Origin, Row};
use super::seed::Seed;
use hindcast_analyzer::counterfactual::{Outcome, SplitLoss};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{
    AnalysisError, CounterfactualOptions, Query, QueryPoint, Removal, Window, counterfactuals,
};

/// Numbers of examples that the paper removes.
pub const REMOVED: [u64; 13] = [1, 3, 6, 10, 30, 60, 100, 300, 600, 1000, 3000, 6000, 10_000];

/// Retrainings that run together and share their batches.
const TOGETHER: usize = 16;

/// Which steps are retrained without the removed examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retrain {
    /// The last epoch, from the recorded state before it.
    LastEpoch,
    /// All steps, from the first one.
    All,
}

impl Retrain {
    fn window(self) -> Window {
        match self {
            Retrain::LastEpoch => Window::LastEpoch,
            Retrain::All => Window::All,
        }
    }
}

impl fmt::Display for Retrain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window().fmt(f)
    }
}

impl FromStr for Retrain {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, AnalysisError> {
        match text.trim() {
            "last-epoch" => Ok(Retrain::LastEpoch),
            "all" => Ok(Retrain::All),
            other => Err(AnalysisError::other(format!(
                "`{other}` is not a choice of steps to retrain: expected last-epoch or all"
            ))),
        }
    }
}

/// One row: one ranking of one seed with `k` examples removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CleansingRow {
    /// Name of the task.
    pub task: String,
    /// Seed of the split, the initial weights, the batches and the method's random choices.
    pub seed: u64,
    /// The ranking, or `none`.
    pub method: String,
    /// Number of worst examples that were removed.
    pub k: u64,
    /// Which steps were retrained: `last-epoch` or `all`.
    pub retrain: Retrain,
    /// The model of the retrained run that errors and losses belong to: `final`, or an average.
    pub at: String,
    /// Share of wrongly classified test examples, retrained on all examples.
    pub test_error_before: f64,
    /// The same, retrained without the `k` examples.
    pub test_error_after: f64,
    /// Mean test loss, retrained on all examples.
    pub test_loss_before: f64,
    /// The same, retrained without the `k` examples.
    pub test_loss_after: f64,
    /// Mean validation loss, the query of the rankings, retrained on all examples.
    pub validation_loss_before: f64,
    /// The same, retrained without the `k` examples.
    pub validation_loss_after: f64,
    /// Digest of the task's settings that the row was computed with.
    pub settings: String,
    /// Digest of the examples that the row was computed from.
    pub fingerprint: String,
    /// Seconds of all retrainings that ran together with this one, divided by their number.
    pub seconds: f64,
}

fn end() -> String {
    QueryPoint::Final.to_string()
}

impl Row for CleansingRow {
    fn key(&self) -> String {
        format!(
            "task {}, seed {}, method {}, k {}, retrained {}, at {}",
            self.task, self.seed, self.method, self.k, self.retrain, self.at
        )
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            task: self.task.clone(),
            seed: self.seed,
            settings: &self.settings,
            fingerprint: &self.fingerprint,
        }
    }
}

/// What to compare.
#[derive(Debug, Clone)]
pub struct CleansingPlan {
    /// The rankings.
    pub rankings: Vec<Ranking>,
    /// Numbers of examples to remove; numbers that leave no example are skipped.
    pub removed: Vec<u64>,
    /// Which steps are retrained.
    pub retrain: Retrain,
    /// An average at which the retrained runs are evaluated in addition to their end; [`QueryPoint::Final`] for none.
    pub at: QueryPoint,
}

impl CleansingPlan {
    /// Whether there is a row for each model at which this removal is evaluated.
    fn is_done(&self, done: &dyn Fn(&str, u64, &str) -> bool, method: &str, k: u64) -> bool {
        done(method, k, &end()) && done(method, k, &self.at.to_string())
    }
}

/// Runs one seed: trains and records `task` (or opens the kept run), ranks by every method, and retrains without the
/// worst examples. Rows for which `done(method, k, at)` returns true are not computed. Each new row is passed to `emit` as soon as it
/// is computed.
///
/// # Errors
/// If training or analysis fails, or `watcher` asks to stop.
pub fn cleansing(
    seed: &Seed<'_>,
    data: Box<dyn DataSet>,
    plan: &CleansingPlan,
    done: &dyn Fn(&str, u64, &str) -> bool,
    emit: &mut dyn FnMut(CleansingRow) -> anyhow::Result<()>,
    watcher: &Watcher<'_>,
) -> anyhow::Result<()> {
    let Seed { kept, task, origin } = *seed;
    let missing = missing(plan, data.len(Split::Train), done);
    if missing.is_empty() && plan.is_done(done, NONE, 0) {
        return Ok(());
    }
    let subject = kept.run(task, data, watcher)?;
    let run = &subject;
    let query = Query::default();
    let options = CounterfactualOptions {
        // The paper's retraining removes examples from the batch, which makes a difference only for batch statistics.
        removal: Removal::Absent,
        at: plan.at.clone(),
        evaluate: vec![Split::Validation, Split::Test],
        arithmetic: subject.arithmetic(None, &Device::Cpu)?,
        ..CounterfactualOptions::new(plan.retrain.window().resolve(run.source())?)
    };

    let mut jobs: Vec<(String, Vec<u64>)> = Vec::new();
    for (ranking, sizes) in missing {
        let scores = kept.scores(&subject, ranking, &query, watcher)?;
        let order = order(&scores, ranking.sign());
        for k in sizes {
            jobs.push((ranking.to_string(), order[..k as usize].to_vec()));
        }
    }
    // Even without rankings, there is one row with nothing removed.
    let groups: Vec<&[(String, Vec<u64>)]> = if jobs.is_empty() {
        vec![&[]]
    } else {
        jobs.chunks(TOGETHER).collect()
    };
    let mut baseline_done = plan.is_done(done, NONE, 0);
    for group in groups {
        let begun = Instant::now();
        let sets: Vec<Vec<u64>> = group.iter().map(|(_, set)| set.clone()).collect();
        let report = counterfactuals(run, &options, &[], &sets, &|done, total| {
            watcher(Stage {
                doing: "retraining",
                unit: "steps",
                done,
                total,
            })
        })?;
        ensure!(
            report.outcomes.len() == group.len(),
            "a retraining is missing"
        );
        let seconds = begun.elapsed().as_secs_f64() / (group.len() + 1) as f64;
        let before = ends(plan, &report.everyone)?;
        let mut rows = |method: &str, k: u64, after: &[(String, Ended)]| -> anyhow::Result<()> {
            for ((at, before), (_, after)) in before.iter().zip(after) {
                if !done(method, k, at) {
                    emit(CleansingRow {
                        task: task.name.clone(),
                        seed: task.train.seed,
                        method: method.to_owned(),
                        k,
                        retrain: plan.retrain,
                        at: at.clone(),
                        test_error_before: before.test_error,
                        test_error_after: after.test_error,
                        test_loss_before: before.test_loss,
                        test_loss_after: after.test_loss,
                        validation_loss_before: before.validation_loss,
                        validation_loss_after: after.validation_loss,
                        settings: origin.settings.clone(),
                        fingerprint: origin.fingerprint.clone(),
                        seconds,
                    })?;
                }
            }
            Ok(())
        };
        if !std::mem::replace(&mut baseline_done, true) {
            rows(NONE, 0, &before)?;
        }
        for ((method, set), outcome) in group.iter().zip(&report.outcomes) {
            rows(method, set.len() as u64, &ends(plan, outcome)?)?;
        }
    }
    Ok(())
}

/// A retrained run's end and, if the plan has one, its average, each with its name.
fn ends(plan: &CleansingPlan, outcome: &Outcome) -> anyhow::Result<Vec<(String, Ended)>> {
    let at_point = (plan.at.to_string(), Ended::of(&outcome.losses)?);
    Ok(match &outcome.at_end {
        None => vec![at_point],
        Some(end_values) => vec![(end(), Ended::of(&end_values.losses)?), at_point],
    })
}

/// The rankings and numbers of removed examples that have no row yet.
fn missing<'a>(
    plan: &'a CleansingPlan,
    examples: u64,
    done: &dyn Fn(&str, u64, &str) -> bool,
) -> Vec<(&'a Ranking, Vec<u64>)> {
    let sizes: Vec<u64> = plan
        .removed
        .iter()
        .copied()
        .filter(|&k| k > 0 && k < examples)
        .collect();
    plan.rankings
        .iter()
        .map(|ranking| {
            let name = ranking.to_string();
            let sizes = sizes
                .iter()
                .copied()
                .filter(|&k| !plan.is_done(done, &name, k));
            (ranking, sizes.collect::<Vec<_>>())
        })
        .filter(|(_, sizes)| !sizes.is_empty())
        .collect()
}

/// Errors and losses of a retrained model.
#[derive(Debug, Clone, Copy)]
struct Ended {
    test_error: f64,
    test_loss: f64,
    validation_loss: f64,
}

impl Ended {
    fn of(losses: &[SplitLoss]) -> anyhow::Result<Self> {
        let of = |split: &str| -> anyhow::Result<&SplitLoss> {
            let found = losses.iter().find(|l| l.split == split);
            found.ok_or_else(|| {
                anyhow::anyhow!("the task has no {split} examples, which this experiment needs")
            })
        };
        let test = of("test")?;
        Ok(Ended {
            test_error: test.error_rate.ok_or_else(|| {
                anyhow::anyhow!("the task's labels are not classes, so there is no test error")
            })?,
            test_loss: test.loss,
            validation_loss: of("validation")?.loss,
        })
    }
}
