//! How good a ranking is, by the measures that the field uses beside the paper's.

mod brittleness;
mod evaluated;
mod leave_one_out;
mod mislabels;
mod subsets;

use std::fmt;

use candle_core::{DType, Device};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use hindcast_model::random::{Purpose, Stream};
use hindcast_model::task::Task;
use serde::{Deserialize, Serialize};

use super::kept::{Kept, Watcher, estimate};
use super::ranking::Ranking;
use super::rows::{Origin, Row, data_digest, settings_digest};
use hindcast_analyzer::estimators::Stage;
use hindcast_analyzer::measures::{mean, sample_sd};
use hindcast_analyzer::{
    AnalysisError, CounterfactualOptions, Outcome, Query, RecordedRun, Window, counterfactuals,
};

/// The method in rows that say how well the truth agrees with itself: the same runs, from starts moved in their last digits.
pub const NOISE_FLOOR: &str = "truth-again";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Linear datamodeling score: predicted against real change of each query over random subsets left out (Spearman)
    Lds,
    /// Predicted against real change of the validation loss over examples left out one at a time (Kendall, Spearman)
    LeaveOneOut,
    /// How well the most harmful examples find labels that were flipped on purpose (area under the ROC curve, precision)
    Mislabels,
    /// How many of the most helpful examples must go before a prediction flips (share of test examples)
    Brittleness,
}

/// One row: one measure of one ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualityRow {
    /// Name of the task.
    pub task: String,
    /// Seed of the run and of whatever is drawn.
    pub seed: u64,
    /// What was measured, as `lds`, `auc` or `flipped-by-30`.
    pub measure: String,
    /// The ranking, or `truth-again`.
    pub method: String,
    /// How it was measured: without it the number means nothing.
    pub protocol: String,
    /// The measure; over several queries their mean.
    pub value: f64,
    /// Standard deviation over the queries; empty where there is only one number.
    pub sd: Option<f64>,
    /// Queries (examples for leave-one-out, labels for mislabels) that it was measured on.
    pub count: u64,
    /// Digest of the task's settings that the row was computed with.
    pub settings: String,
    /// Digest of the examples that it was computed on.
    pub fingerprint: String,
    /// Seconds that the scores took; 0 where they were kept from before.
    pub seconds: f64,
}

impl Row for QualityRow {
    fn key(&self) -> String {
        format!(
            "task {}, seed {}, {}, method {} ({})",
            self.task, self.seed, self.measure, self.method, self.protocol
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

/// What is to be measured, and how.
#[derive(Debug, Clone)]
pub struct QualityPlan {
    /// What.
    pub measure: Measure,
    /// The rankings.
    pub rankings: Vec<Ranking>,
    /// Steps in which examples are left out.
    pub window: Window,
    /// LDS: the share of the training examples that a subset leaves out.
    pub share: f64,
    /// LDS: how many subsets; leave-one-out: how many examples.
    pub runs: u64,
    /// LDS and brittleness: how many test examples are asked about.
    pub queries: u64,
    /// Brittleness: how many of the most helpful examples go.
    pub removed: Vec<u64>,
}

/// Measures one seed. Rows for which `done(measure, method, protocol)` says so are not computed; each new one is given to
/// `emit` as soon as it is there.
///
/// # Errors
/// Where the task has no examples to measure on, any part of the road fails, or `watcher` asks to stop.
pub fn quality(
    kept: &Kept,
    task: &Task,
    data: Box<dyn DataSet>,
    plan: &QualityPlan,
    done: &dyn Fn(&str, &str, &str) -> bool,
    emit: &mut dyn FnMut(QualityRow) -> anyhow::Result<()>,
    watcher: &Watcher<'_>,
) -> anyhow::Result<()> {
    let (settings, fingerprint) = (settings_digest(task, "")?, data_digest(data.as_ref()));
    let subject = kept.run(task, data, watcher)?;
    let mut bench = Bench {
        kept,
        task,
        settings,
        fingerprint,
        subject: &subject,
        plan,
        done,
        emit,
        watcher,
    };
    match plan.measure {
        Measure::Lds => subsets::measure(&mut bench),
        Measure::LeaveOneOut => leave_one_out::measure(&mut bench),
        Measure::Mislabels => mislabels::measure(&mut bench),
        Measure::Brittleness => brittleness::measure(&mut bench),
    }
}

/// What a measure works with.
struct Bench<'a> {
    kept: &'a Kept,
    task: &'a Task,
    settings: String,
    fingerprint: String,
    subject: &'a RecordedRun<'a>,
    plan: &'a QualityPlan,
    done: &'a dyn Fn(&str, &str, &str) -> bool,
    emit: &'a mut dyn FnMut(QualityRow) -> anyhow::Result<()>,
    watcher: &'a Watcher<'a>,
}

/// Numbers of this crate's streams: which subsets, which examples, which queries; the noise of the second truth.
const SUBSETS: u32 = (1 << 31) + 1;
const EXAMPLES: u32 = (1 << 31) + 2;
const QUERIES: u32 = (1 << 31) + 3;
const NOISE: u64 = 0x5eed;

impl Bench<'_> {
    /// `wanted` of `0..n`, drawn by the run's seed for `purpose` and `at`, in ascending order.
    fn draw(&self, purpose: u32, at: u64, n: u64, wanted: u64) -> Vec<u64> {
        let mut stream = Stream::of_example(self.task.train.seed, at, Purpose::Other(purpose, 0));
        let mut drawn = stream.permutation(n as usize);
        drawn.truncate(wanted as usize);
        drawn.sort_unstable();
        drawn
    }

    /// The run's float type and the window, for a protocol.
    fn setting(&self, run: &RecordedRun<'_>) -> anyhow::Result<String> {
        let dtype = match run.dtype() {
            DType::F64 => "f64",
            _ => "f32",
        };
        let steps = self.plan.window.resolve(run.source())?;
        Ok(format!(
            "train={} steps={}..{} {dtype}",
            run.examples(),
            steps.start,
            steps.end
        ))
    }

    /// Runs without each of these sets in the plan's window, and with everyone; `of` makes numbers of where one ended. The
    /// first inner list is everyone's. `noise` moves every start in its last digits.
    fn retrained(
        &self,
        run: &RecordedRun<'_>,
        sets: &[Vec<u64>],
        noise: bool,
        of: &dyn Fn(&Outcome) -> anyhow::Result<Vec<f64>>,
    ) -> anyhow::Result<Vec<Vec<f64>>> {
        let options = CounterfactualOptions {
            arithmetic: self.subject.arithmetic(None, &Device::Cpu)?,
            evaluate: Vec::new(),
            start_noise: noise.then_some(self.task.train.seed ^ NOISE),
            ..CounterfactualOptions::new(self.plan.window.resolve(run.source())?)
        };
        let report = counterfactuals(run, &options, &[], sets, &|done, total| {
            (self.watcher)(Stage {
                doing: "retraining",
                unit: "steps",
                done,
                total,
            })
        })?;
        std::iter::once(&report.everyone)
            .chain(&report.outcomes)
            .map(of)
            .collect()
    }

    /// Scores for these queries by a ranking, its sign turned as it says; an inner list a query, 0 where there is none: an
    /// example that no batch of the window holds changes nothing. Also the seconds that they took.
    fn scores(
        &self,
        ranking: &Ranking,
        queries: &[Query],
        protocol: &str,
    ) -> anyhow::Result<(Vec<Vec<f64>>, f64)> {
        let begun = std::time::Instant::now();
        let mut fresh = false;
        let scores = self.kept.numbers(
            self.subject,
            &format!("scores/{}-queries", ranking.scores_name()),
            protocol,
            || {
                fresh = true;
                let table = estimate(self.subject, ranking, queries, self.watcher)?;
                let mut scores = vec![vec![0.0; table.rows.len()]; queries.len()];
                for row in &table.rows {
                    for (q, scores) in scores.iter_mut().enumerate() {
                        if let (Some(slot), Some(Some(score))) =
                            (scores.get_mut(row.index as usize), row.influence.get(q))
                        {
                            *slot = *score;
                        }
                    }
                }
                Ok(scores)
            },
        )?;
        let seconds = if fresh {
            begun.elapsed().as_secs_f64()
        } else {
            0.0
        };
        let sign = ranking.sign();
        let turned = scores
            .into_iter()
            .map(|of| of.into_iter().map(|x| sign * x).collect())
            .collect();
        Ok((turned, seconds))
    }

    /// Test examples to ask about, and the queries of their losses.
    fn test_queries(&self, run: &RecordedRun<'_>) -> anyhow::Result<(Vec<u64>, Vec<Query>)> {
        let there = run.data().len(Split::Test);
        if there == 0 {
            return Err(AnalysisError::other(format!(
                "task {}: this measure asks about test examples, and there are none",
                self.task.name
            ))
            .into());
        }
        let chosen = self.draw(QUERIES, 0, there, self.plan.queries);
        let queries = chosen.iter().map(|&i| test_query(i)).collect();
        Ok((chosen, queries))
    }

    /// Gives a row whose value is the mean of these.
    fn emit(
        &mut self,
        measure: &str,
        method: &dyn fmt::Display,
        protocol: &str,
        values: &[f64],
        count: u64,
        seconds: f64,
    ) -> anyhow::Result<()> {
        (self.emit)(QualityRow {
            task: self.task.name.clone(),
            seed: self.task.train.seed,
            measure: measure.to_owned(),
            method: method.to_string(),
            protocol: protocol.to_owned(),
            value: mean(values),
            sd: (values.len() > 1).then(|| sample_sd(values)),
            count,
            settings: self.settings.clone(),
            fingerprint: self.fingerprint.clone(),
            seconds,
        })
    }

    fn is_done(&self, measure: &str, method: &dyn fmt::Display, protocol: &str) -> bool {
        (self.done)(measure, &method.to_string(), protocol)
    }
}

/// The loss of one test example.
fn test_query(example: u64) -> Query {
    Query::Loss {
        split: Split::Test,
        examples: Some(vec![example]),
        text: format!("test:{example}"),
    }
}
