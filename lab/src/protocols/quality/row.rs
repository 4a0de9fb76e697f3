//! What is measured, and a row of the experiment's table.

use serde::{Deserialize, Serialize};

use crate::protocols::ranking::Ranking;
use crate::protocols::rows::{Origin, Row};
use hindcast_analyzer::Window;

/// The method in rows that say how well the truth agrees with itself: the same runs, from starts moved in their last digits.
pub const NOISE_FLOOR: &str = "truth-again";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
