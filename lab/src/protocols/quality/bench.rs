//! Shared by the measures: the run, its retrainings, its scores and the output of rows.

use std::fmt;

use candle_core::{DType, Device};
use hindcast_model::objective::Split;
use hindcast_model::random::{Purpose, Stream};
use hindcast_model::task::Task;

use super::row::{QualityPlan, QualityRow};
use crate::protocols::kept::{Kept, Watcher, estimate};
use crate::protocols::ranking::Ranking;
use crate::protocols::rows::Digests;
use hindcast_analyzer::counterfactual::Outcome;
use hindcast_analyzer::measures::{mean, sample_sd};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{
    AnalysisError, CounterfactualOptions, Query, QueryPoint, RecordedRun, counterfactuals,
};

/// One run that is measured.
pub(super) struct Bench<'a> {
    pub kept: &'a Kept,
    pub task: &'a Task,
    pub origin: &'a Digests,
    pub run: &'a RecordedRun<'a>,
    pub plan: &'a QualityPlan,
    pub done: &'a dyn Fn(&str, &str, &str) -> bool,
    pub emit: &'a mut dyn FnMut(QualityRow) -> anyhow::Result<()>,
    pub watcher: &'a Watcher<'a>,
}

/// Identifies this crate's random streams: subsets, examples, queries, and the perturbation of the second truth.
pub(super) const SUBSETS: u32 = (1 << 31) + 1;
pub(super) const EXAMPLES: u32 = (1 << 31) + 2;
const QUERIES: u32 = (1 << 31) + 3;
const NOISE: u64 = 0x5eed;

impl Bench<'_> {
    /// Draws `wanted` of `0..n` by the run's seed, for `purpose` and `at`. In ascending order.
    pub fn draw(&self, purpose: u32, at: u64, n: u64, wanted: u64) -> Vec<u64> {
        let mut stream = Stream::of_example(self.task.train.seed, at, Purpose::Other(purpose, 0));
        let mut drawn = stream.permutation(n as usize);
        drawn.truncate(wanted as usize);
        drawn.sort_unstable();
        drawn
    }

    /// The number of examples, the window and the float type, for a protocol.
    pub fn setting(&self, run: &RecordedRun<'_>) -> anyhow::Result<String> {
        let dtype = match run.dtype() {
            DType::F64 => "f64",
            _ => "f32",
        };
        let steps = self.plan.window.resolve(run.source())?;
        let at = match &self.plan.at {
            QueryPoint::Final => String::new(),
            at => format!(" at={at}"),
        };
        Ok(format!(
            "train={} steps={}..{} {dtype}{at}",
            run.examples(),
            steps.start,
            steps.end
        ))
    }

    /// The window and the model, for the names of files.
    pub fn place(&self) -> String {
        match &self.plan.at {
            QueryPoint::Final => self.plan.window.to_string(),
            at => format!("{}@{at}", self.plan.window).replace(':', "_"),
        }
    }

    /// Retrains on all examples, and without each of these sets in the plan's window. `of` computes numbers from the
    /// end of a training. The first inner list is that of the training on all examples. `noise` perturbs the starting
    /// values in their last digits.
    pub fn retrained(
        &self,
        run: &RecordedRun<'_>,
        sets: &[Vec<u64>],
        noise: bool,
        of: &dyn Fn(&Outcome) -> anyhow::Result<Vec<f64>>,
    ) -> anyhow::Result<Vec<Vec<f64>>> {
        let options = CounterfactualOptions {
            arithmetic: self.run.arithmetic(None, &Device::Cpu)?,
            evaluate: Vec::new(),
            start_noise: noise.then_some(self.task.train.seed ^ NOISE),
            at: self.plan.at.clone(),
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

    /// The scores of a ranking for these queries, with its sign, one inner list per query, and the seconds that they
    /// took. An example without a score, which is in no batch of the window, gets 0, because it changes nothing.
    pub fn scores(
        &self,
        ranking: &Ranking,
        queries: &[Query],
        protocol: &str,
    ) -> anyhow::Result<(Vec<Vec<f64>>, f64)> {
        let begun = std::time::Instant::now();
        let mut fresh = false;
        let scores = self.kept.numbers(
            self.run,
            &format!("scores/{}-queries", ranking.scores_name()),
            protocol,
            || {
                fresh = true;
                // All rankings ask about the model at which the truth is measured, which depends on the plan's window.
                let from = self.plan.window.resolve(self.run.source())?.start;
                let at = ranking.at().in_run(self.run.source(), from)?;
                let table = estimate(self.run, ranking, &at, queries, self.watcher)?;
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

    /// Draws test examples, and makes a query of each one's loss.
    pub fn test_queries(&self, run: &RecordedRun<'_>) -> anyhow::Result<(Vec<u64>, Vec<Query>)> {
        let there = run.data().len(Split::Test);
        if there == 0 {
            return Err(AnalysisError::other(format!(
                "task {}: this measure needs test examples, and there are none",
                self.task.name
            ))
            .into());
        }
        let chosen = self.draw(QUERIES, 0, there, self.plan.queries);
        let queries = chosen.iter().map(|&i| test_query(i)).collect();
        Ok((chosen, queries))
    }

    /// Emits a row whose value is the mean of these values.
    pub fn emit(
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
            settings: self.origin.settings.clone(),
            fingerprint: self.origin.fingerprint.clone(),
            seconds,
        })
    }

    pub fn is_done(&self, measure: &str, method: &dyn fmt::Display, protocol: &str) -> bool {
        (self.done)(measure, &method.to_string(), protocol)
    }
}

/// The loss of one test example.
pub(super) fn test_query(example: u64) -> Query {
    Query::Loss {
        split: Split::Test,
        examples: Some(vec![example]),
        text: format!("test:{example}"),
    }
}
