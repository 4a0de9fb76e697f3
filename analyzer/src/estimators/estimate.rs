//! The scores of an estimator, and the table made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hindcast_model::objective::Split;

use crate::error::{AnalysisError, Diverged, Result};
use crate::output::WRITER;
use crate::query::one::{Query, QueryGradient};
use crate::run::recorded::RecordedRun;
use crate::scores::{
    AdjointGrowth, METADATA_VERSION, QueryMetadata, ScoreMetadata, ScoreRow, ScoreTable,
    TokenScores,
};
use crate::sweep::SweepState;

/// Scores of the training examples for every query.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Steps [A, B) to which the scores belong; all steps of the run for methods without a window.
    pub window: Range<u64>,
    /// T, the number of steps of the run.
    pub end: u64,
    /// How many times each training example is in the window's recorded batches, length N.
    pub occurrences: Vec<u64>,
    /// Whether each training example has a score, length N. Ignore the values of examples without one.
    pub scored: Vec<bool>,
    /// One entry per query, in the order of the question.
    pub queries: Vec<Scores>,
    /// Notes for the reader of the scores, such as a solver's residual or the layer that was used.
    pub notes: Vec<String>,
}

/// One query's scores.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scores {
    /// The query as the user wrote it.
    pub name: String,
    /// Its value at the model that it is asked about.
    pub value: f64,
    /// L_j, length N.
    pub influence: Vec<f64>,
    /// L_j with renormalised batches, length N; empty if the method doesn't estimate it.
    pub renormalised: Vec<f64>,
    /// Each epoch's share of `influence`; empty unless the question asked for it.
    pub epochs: BTreeMap<u64, Vec<f64>>,
    /// The score of each term of each example's loss, length N; empty unless the question asked for it.
    pub terms: Vec<Vec<f64>>,
    /// `(t, ‖u_t‖)` of a sweep, newest first; empty for other methods.
    pub growth: Vec<(u64, f64)>,
}

impl Scores {
    /// Combines a query with its scores.
    pub(super) fn of(query: &QueryGradient, influence: Vec<f64>) -> Self {
        Scores {
            name: query.name.clone(),
            value: query.value,
            influence,
            ..Scores::default()
        }
    }
}

/// The part of a table's metadata that an [`Estimate`] doesn't contain: the table's origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableOrigin {
    /// Head digest of the run, hexadecimal.
    pub run_digest: String,
    /// Engine, precision and device of the replay, such as `kernels, recorded precision, cpu`.
    pub engine: String,
    /// The model that the queries are asked about, in words.
    pub at: String,
    /// The method's name.
    pub method: String,
    /// The method's options with their values.
    pub settings: BTreeMap<String, String>,
    /// BLAKE3 of the files that queries read, hexadecimal, by the query's name.
    pub files: BTreeMap<String, String>,
}

impl TableOrigin {
    /// Adds the digests of the files that these queries read.
    ///
    /// # Errors
    /// If such a file can't be read.
    pub fn with_files(mut self, queries: &[Query]) -> Result<Self> {
        for query in queries {
            let digest = query.file_digest()?;
            if !digest.is_empty() {
                self.files.insert(query.to_string(), digest);
            }
        }
        Ok(self)
    }
}

impl From<SweepState> for Estimate {
    /// The estimate of a finished sweep. An example that is in no batch of the window has no score.
    fn from(state: SweepState) -> Self {
        let queries = state.queries.into_iter().map(|q| Scores {
            name: q.name,
            value: q.value,
            influence: q.influence,
            renormalised: q.renormalised,
            epochs: q.epochs,
            terms: q.terms,
            growth: q.growth,
        });
        Estimate {
            window: state.window,
            end: state.end,
            scored: state.occurrences.iter().map(|&n| n > 0).collect(),
            occurrences: state.occurrences,
            queries: queries.collect(),
            notes: Vec::new(),
        }
    }
}

/// The sensitivities that weigh scores. A step's scores are weighed by the sensitivity after it, so the one before the window's
/// first step weighs none. It can be huge without effect: Adam divides by the root of a second moment that is zero there if a
/// gradient is, as that of a LoRA factor whose partner begins at zero.
fn used(growth: &[(u64, f64)]) -> &[(u64, f64)] {
    match growth {
        [used @ .., _] if !used.is_empty() => used,
        all => all,
    }
}

impl Estimate {
    /// A query's score of each training example; `None` if the example has no score.
    pub fn scores(&self, query: usize) -> impl Iterator<Item = Option<f64>> {
        let influence = self.queries.get(query).map(|q| q.influence.as_slice());
        let values = influence.unwrap_or_default().iter();
        values
            .zip(&self.scored)
            .map(|(&x, &scored)| scored.then_some(x))
    }

    /// Takes the scores of the terms out of the estimate.
    pub(super) fn take_tokens(&mut self) -> TokenScores {
        let queries = self.queries.iter_mut();
        TokenScores {
            queries: queries
                .map(|q| (q.name.clone(), std::mem::take(&mut q.terms)))
                .collect(),
        }
    }

    /// One row per training example, in the order of their indices.
    pub fn table(&self, run: &RecordedRun<'_>, origin: &TableOrigin) -> ScoreTable {
        let metadata = self.metadata(run, origin);
        let rows = (0..self.occurrences.len()).map(|i| self.row(run, i, &metadata.epochs));
        ScoreTable {
            rows: rows.collect(),
            metadata,
        }
    }

    /// Where the numbers of the table come from.
    pub(super) fn metadata(&self, run: &RecordedRun<'_>, origin: &TableOrigin) -> ScoreMetadata {
        let all = self.queries.iter().flat_map(|q| q.epochs.keys().copied());
        let epochs: Vec<u64> = all.collect::<BTreeSet<_>>().into_iter().collect();
        let queries = self.queries.iter().map(|q| QueryMetadata {
            name: q.name.clone(),
            value: q.value,
            digest: origin.files.get(&q.name).cloned(),
            growth: (!q.growth.is_empty()).then(|| AdjointGrowth::of(used(&q.growth))),
        });
        ScoreMetadata {
            version: METADATA_VERSION,
            writer: WRITER.to_owned(),
            run_digest: origin.run_digest.clone(),
            window: self.window.clone(),
            run_steps: self.end,
            at: origin.at.clone(),
            method: origin.method.clone(),
            settings: origin.settings.clone(),
            notes: self.notes.clone(),
            engine: origin.engine.clone(),
            rule: run.rule().to_toml().unwrap_or_default(),
            queries: queries.collect(),
            epochs,
            refined: Vec::new(),
            files: run.data().files(Split::Train),
            ..ScoreMetadata::default()
        }
    }

    /// The row of training example `i`.
    pub(super) fn row(&self, run: &RecordedRun<'_>, i: usize, epochs: &[u64]) -> ScoreRow {
        let scored = self.scored.get(i).copied().unwrap_or(false);
        let cell = |scores: &Vec<f64>| scores.get(i).copied().filter(|_| scored);
        let of_epochs = |q: &Scores| -> Vec<Option<f64>> {
            let shares = epochs.iter().map(|e| q.epochs.get(e).and_then(cell));
            shares.collect()
        };
        let index = i as u64;
        let data = run.data();
        let truth = || data.true_label(Split::Train, index).unwrap_or_default();
        ScoreRow {
            index,
            row: run.data().origin(Split::Train, index),
            file: run.data().file(Split::Train, index),
            name: None,
            label: run.data().label(Split::Train, index),
            occurrences: self.occurrences[i],
            influence: self.queries.iter().map(|q| cell(&q.influence)).collect(),
            renormalised: self.queries.iter().map(|q| cell(&q.renormalised)).collect(),
            epochs: if epochs.is_empty() {
                Vec::new()
            } else {
                self.queries.iter().map(of_epochs).collect()
            },
            refined: Vec::new(),
            true_label: data.truth_is_given().then(truth),
            ..ScoreRow::default()
        }
    }
}

/// Refuses a score that is infinite or NaN.
pub(super) fn all_finite(queries: &[Scores], scored: &[bool]) -> Result<()> {
    for query in queries {
        let mut values = query.influence.iter().zip(scored);
        if let Some(example) = values.position(|(x, &scored)| scored && !x.is_finite()) {
            return Err(AnalysisError::Diverged(Diverged::Score {
                example,
                query: query.name.clone(),
            }));
        }
    }
    Ok(())
}

/// How many times each training example is in the recorded batches of these ranges, length N.
pub(super) fn occurrences(run: &RecordedRun<'_>, ranges: &[Range<u64>]) -> Result<Vec<u64>> {
    let mut out = vec![0; run.examples()];
    for range in ranges {
        run.source().each_meta(range.clone(), &mut |meta| {
            for &index in &meta.indices {
                let slot = usize::try_from(index).ok().and_then(|i| out.get_mut(i));
                *slot.ok_or_else(|| AnalysisError::ForeignExample {
                    step: meta.step,
                    example: index,
                    examples: run.examples(),
                })? += 1;
            }
            Ok(())
        })?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::used;

    #[test]
    fn the_sensitivity_before_the_first_step_weighs_no_score() {
        assert_eq!(used(&[(2, 1.0), (1, 2.0), (0, 1e9)]), [(2, 1.0), (1, 2.0)]);
        assert_eq!(used(&[(1, 1.0), (0, 1e9)]), [(1, 1.0)]);
        assert_eq!(used(&[(0, 1.0)]), [(0, 1.0)]);
        assert!(used(&[]).is_empty());
    }
}
