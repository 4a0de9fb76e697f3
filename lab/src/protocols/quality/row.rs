//! The measures, and a row of the experiment's table.

use serde::{Deserialize, Serialize};

use crate::protocols::ranking::Ranking;
use crate::protocols::rows::{Origin, Row};
use hindcast_analyzer::{QueryPoint, Window};

/// The method in rows that compare the truth with itself: the same retrainings, from starting values perturbed in their
/// last digits.
pub const NOISE_FLOOR: &str = "truth-again";

/// A measure of a ranking's quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Linear datamodeling score: correlation of predicted and real changes of each query over random subsets left out
    /// (Spearman).
    Lds,
    /// Correlation of predicted and real changes of the validation loss over examples left out one at a time (Kendall,
    /// Spearman).
    LeaveOneOut,
    /// How well the scores find labels that were flipped on purpose or are known to be wrong (area under the ROC curve, precision).
    Mislabels,
    /// Share of test predictions that flip when the most helpful examples are left out.
    Brittleness,
}

/// One row: one measure of one ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QualityRow {
    /// Name of the task.
    pub task: String,
    /// Seed of the run and of everything that is drawn.
    pub seed: u64,
    /// The measure, for example `lds`, `auc` or `flipped-by-30`.
    pub measure: String,
    /// The ranking, or `truth-again`.
    pub method: String,
    /// How the value was measured. Values of different protocols can't be compared.
    pub protocol: String,
    /// The value of the measure; for several queries, the mean.
    pub value: f64,
    /// Standard deviation over the queries; empty if there is only one value.
    pub sd: Option<f64>,
    /// Number of queries (leave-one-out: examples; mislabels: flipped labels).
    pub count: u64,
    /// Digest of the task's settings that the row was computed with.
    pub settings: String,
    /// Digest of the examples that the row was computed from.
    pub fingerprint: String,
    /// Seconds that the scores took; 0 if they were read from a file.
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

/// What to measure, and how.
#[derive(Debug, Clone)]
pub struct QualityPlan {
    /// The measure.
    pub measure: Measure,
    /// The rankings.
    pub rankings: Vec<Ranking>,
    /// The model at which the real changes are measured, and about which rankings ask that name no other one.
    pub at: QueryPoint,
    /// Steps that examples are left out of.
    pub window: Window,
    /// LDS: share of the training examples that each subset leaves out.
    pub share: f64,
    /// LDS: number of subsets; leave-one-out: number of examples.
    pub runs: u64,
    /// LDS and brittleness: number of test examples, each of which is one query.
    pub queries: u64,
    /// Brittleness: numbers of most helpful examples to leave out.
    pub removed: Vec<u64>,
}
