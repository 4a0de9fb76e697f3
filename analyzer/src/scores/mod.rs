//! The table of scores: one row per example, one influence per query.

#[cfg(feature = "parquet")]
mod columnar;
mod columns;
mod explanation;
mod files;
pub(crate) mod fits;
mod layout;
mod names;
mod order;
mod over_queries;
mod over_runs;
mod select;
mod selection;
mod sorter;
pub(crate) mod spreadsheet;
mod stored;
mod text;
mod tokens;

pub use explanation::{Explanation, Share, Side};
pub use files::write_rows;
pub use fits::same_run;
pub use layout::{Layout, SortKey};
pub use names::{NameKey, Names, Place};
pub use over_queries::{OverQueries, over_queries};
pub use over_runs::over_runs;
pub use select::Condition;
pub use selection::{Choice, Cut, Selection};
pub use stored::{TableFile, TableRows};
pub use tokens::{TokenRow, TokenScores, TokenTable};

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Version of a table's metadata.
pub const METADATA_VERSION: u32 = 1;

/// The origin of a table's numbers, without which a score means nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ScoreMetadata {
    /// 1; 0 if the table was read without its metadata.
    pub version: u32,
    /// Program and version that wrote it.
    pub writer: String,
    /// Head digest of the run (BLAKE3, hexadecimal); empty if the table is about several runs.
    pub run_digest: String,
    /// The runs whose scores the table joins ([`over_runs`]); empty if it is about one run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<JoinedRun>,
    /// Steps [A, B) that were scored.
    pub window: Range<u64>,
    /// T, the number of steps of the run: the queries are evaluated after them.
    pub run_steps: u64,
    /// The model that the queries are asked about: `final`, `mean:last-epoch`, … Empty, which means `final`, in tables of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// The method's name (`sgd`; `reverse-sweep` in tables of earlier versions).
    pub method: String,
    /// The method's options and their values; empty if it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The method's remarks on its computation, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Element type and device of the replay, such as `f64 cpu`.
    pub engine: String,
    /// Update rule as text; empty if the run doesn't state it.
    pub rule: String,
    /// Queries in the order of the influence columns.
    pub queries: Vec<QueryMetadata>,
    /// Epochs in the order of the per-epoch columns, newest last; empty if there are no such columns.
    pub epochs: Vec<u64>,
    /// How a shortlist was refined, in the order of the columns; empty if it wasn't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refined: Vec<RefinedBy>,
    /// Lists of the files from which the training split's rows come. The column `row` counts through the files of one
    /// list and restarts at 0 in the next. Empty in tables of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Vec<String>>,
}

impl ScoreMetadata {
    /// The model that the queries are asked about, as [`QueryPoint`](crate::QueryPoint) writes it.
    pub fn point(&self) -> &str {
        if self.at.is_empty() {
            "final"
        } else {
            &self.at
        }
    }
}

/// One of the runs whose scores a table joins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct JoinedRun {
    /// Head digest of the run (BLAKE3, hexadecimal).
    pub digest: String,
    /// Value of each query in this run. `None` if it isn't finite.
    pub values: Vec<Option<f64>>,
}

/// A query as it was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryMetadata {
    /// The user's text.
    pub name: String,
    /// Its value at the model that it is asked about; the mean over the runs if the table joins several.
    pub value: f64,
    /// BLAKE3 of the query's file (`vector:FILE`), hexadecimal: another file of the same name is another query.
    /// `None` for other queries, and in tables of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Growth of its sensitivity over the sweep. `None` if the method walks no steps, and in tables of earlier
    /// versions. Of several runs, that of the run with the largest growth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<AdjointGrowth>,
}

/// Norm of a query's sensitivity u during the backward sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdjointGrowth {
    /// `(t, ‖u_t‖)`, newest first, from the end of training to the state after the window's first step. The first is the
    /// norm of the query's gradient. In a long sweep, some steps are left out. `None` for a norm that isn't finite.
    pub norms: Vec<(u64, Option<f64>)>,
}

impl AdjointGrowth {
    /// Largest number of points.
    const POINTS: usize = 100;

    /// Thins the norms of a sweep to at most 100, which is enough for a plot.
    pub fn of(growth: &[(u64, f64)]) -> AdjointGrowth {
        let last = growth.len().saturating_sub(1);
        let points = growth.len().min(Self::POINTS);
        let norms = (0..points)
            .map(|i| growth[i * last / points.saturating_sub(1).max(1)])
            .map(|(step, norm)| (step, norm.is_finite().then_some(norm)))
            .collect();
        AdjointGrowth { norms }
    }

    /// The last norm divided by the first; `None` if either is unknown or not finite.
    pub fn factor(&self) -> Option<f64> {
        let (first, last) = (self.norms.first()?.1?, self.norms.last()?.1?);
        Some(last / first).filter(|factor| factor.is_finite())
    }
}

/// A stage that refines a shortlist after the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefinedBy {
    /// The accumulative estimate.
    Accumulative,
    /// The measured change of the query, by retraining without the example.
    Counterfactual,
}

impl RefinedBy {
    /// The name of its column.
    pub fn name(self) -> &'static str {
        match self {
            RefinedBy::Accumulative => "accumulative",
            RefinedBy::Counterfactual => "counterfactual",
        }
    }
}

/// One query's values of a shortlisted example; `None` where it isn't in the shortlist.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Refined {
    /// The accumulative estimate of the query's change.
    pub accumulative: Option<f64>,
    /// The measured change.
    pub counterfactual: Option<f64>,
}

/// How one query's scores of an example differ between runs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Standard deviation s of the n scores, with n − 1 in its denominator. `None` if n < 2.
    pub sd: Option<f64>,
    /// Student's t = mean/(s/√n). `None` if n < 2 or s = 0.
    pub t: Option<f64>,
}

/// What the model that the queries are asked about predicts for a training example, as a table of predictions
/// ([`PredictionRow`](crate::predictions::PredictionRow)) has it. Empty for an example without a score.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RowPrediction {
    /// Predicted class or values, as text.
    pub predicted: String,
    /// Probability of the predicted class.
    pub probability: Option<f64>,
    /// Probability of the label.
    pub label_probability: Option<f64>,
    /// Loss in evaluation mode, without penalty.
    pub loss: Option<f64>,
}

/// One training example.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ScoreRow {
    /// Its index in the training split.
    pub index: u64,
    /// Its row in the original data, counted from 0 through the files of a list ([`ScoreMetadata::files`]).
    pub row: u64,
    /// The file that the row comes from, or the split's name if examples don't come from a file. Empty in tables of
    /// earlier versions.
    pub file: String,
    /// The user's name for it ([`ScoreTable::join`]); `None` if no names were joined.
    pub name: Option<String>,
    /// Its label as text.
    pub label: String,
    /// How often it occurs in the window's batches; the sum over the runs if the table joins several.
    pub occurrences: u64,
    /// n, the number of runs in which it has a score; 0 in a table of one run.
    pub runs: u64,
    /// L_j per query, with fixed denominators; `None` if the example never occurs. A positive value means that
    /// leaving the example out of the window raises the query: if the query is a loss, the example helps. In a table of
    /// several runs, the mean over the n runs.
    pub influence: Vec<Option<f64>>,
    /// The same with the batches' weights renormalised after the removal.
    pub renormalised: Vec<Option<f64>>,
    /// Each epoch's share of the influence, one inner list per query; empty if there are no per-epoch columns.
    pub epochs: Vec<Vec<Option<f64>>>,
    /// Refined values, one entry per query; empty if the table wasn't refined.
    pub refined: Vec<Refined>,
    /// The spread over the runs, one entry per query; empty in a table of one run.
    pub spread: Vec<Spread>,
    /// The prediction for the example; `None` in a table without predictions, such as one of several runs.
    pub prediction: Option<RowPrediction>,
    /// Its true label as text, from a file of the user's; empty if the file doesn't name it. `None` if there is no such file.
    pub true_label: Option<String>,
}

/// Scores of all the training examples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreTable {
    /// Where the numbers come from.
    pub metadata: ScoreMetadata,
    /// One row per example, in any order.
    pub rows: Vec<ScoreRow>,
}

impl ScoreTable {
    /// Sorts by a query's influence, ascending: for a loss, the most harmful example first. Examples that never
    /// occurred come last, in the order of their indices.
    pub fn sort_by_influence(&mut self, query: usize) {
        self.rows.sort_by(|a, b| {
            let of = |r: &ScoreRow| r.influence.get(query).copied().flatten();
            match (of(a), of(b)) {
                (Some(x), Some(y)) => x.total_cmp(&y).then(a.index.cmp(&b.index)),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => a.index.cmp(&b.index),
            }
        });
    }

    /// The `k` rows with the smallest influence on a query (for a loss: the most harmful), the smallest first.
    pub fn worst(&self, query: usize, k: usize) -> Vec<&ScoreRow> {
        let mut scored = self.scored(query);
        scored.truncate(k);
        scored
    }

    /// The `k` rows with the largest influence on a query (for a loss: the most helpful), the largest first.
    pub fn best(&self, query: usize, k: usize) -> Vec<&ScoreRow> {
        let mut scored = self.scored(query);
        scored.reverse();
        scored.truncate(k);
        scored
    }

    /// Rows that have a score, ascending. NaN has no place in the order and is left out.
    fn scored(&self, query: usize) -> Vec<&ScoreRow> {
        let of = |r: &ScoreRow| {
            let score = r.influence.get(query).copied().flatten();
            score.filter(|score| !score.is_nan())
        };
        let mut rows: Vec<&ScoreRow> = self.rows.iter().filter(|r| of(r).is_some()).collect();
        rows.sort_by(|a, b| {
            of(a)
                .unwrap_or(f64::NAN)
                .total_cmp(&of(b).unwrap_or(f64::NAN))
                .then(a.index.cmp(&b.index))
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::AdjointGrowth;

    #[test]
    fn a_long_sweep_keeps_both_ends_and_some_steps_between() {
        let long: Vec<(u64, f64)> = (0..=15_640).rev().map(|t| (t, 1.0 + t as f64)).collect();
        let kept = AdjointGrowth::of(&long);
        assert_eq!(kept.norms.len(), 100);
        assert_eq!(kept.norms.first(), Some(&(15_640, Some(15_641.0))));
        assert_eq!(kept.norms.last(), Some(&(0, Some(1.0))));
        assert!(kept.norms.windows(2).all(|pair| pair[0].0 > pair[1].0));
        assert_eq!(kept.factor(), Some(1.0 / 15_641.0));
    }

    #[test]
    fn a_growth_that_is_not_finite_has_no_factor() {
        let factor = |growth: &[(u64, f64)]| AdjointGrowth::of(growth).factor();
        assert_eq!(factor(&[(2, 0.5), (1, 1.0), (0, 2.0)]), Some(4.0));
        assert_eq!(factor(&[(2, 0.5)]), Some(1.0), "no step was walked");
        assert_eq!(factor(&[(2, 0.5), (0, f64::INFINITY)]), None);
        assert_eq!(factor(&[(2, 0.0), (0, 0.0)]), None);
        assert_eq!(factor(&[]), None);
    }
}
