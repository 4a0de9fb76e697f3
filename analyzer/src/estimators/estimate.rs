//! What an estimator gives, and the table that it becomes.

use std::ops::Range;

use hindcast_model::objective::Split;

use super::{Chosen, Method, Question};
use crate::error::{AnalysisError, Diverged, Result, Unsupported};
use crate::query::one::QueryGradient;
use crate::run::recorded::RecordedRun;
use crate::run::window::Window;
use crate::scores::{METADATA_VERSION, QueryMetadata, ScoreMetadata, ScoreRow, ScoreTable};
use crate::sweep::{SweepState, TableOrigin};

/// Scores of every training example for every query.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Steps [A, B) to which the scores belong; all steps of the run for methods without a window.
    pub window: Range<u64>,
    /// T, where the queries live.
    pub end: u64,
    /// How often the window's recorded batches hold each training example, length N.
    pub occurrences: Vec<u64>,
    /// One entry a query, in the order of the question.
    pub queries: Vec<Scores>,
    /// What a reader of the scores should know: how far a solver came, which layer was looked at.
    pub notes: Vec<String>,
}

/// One query's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// L_j, length N; `None` where nothing was estimated.
    pub influence: Vec<Option<f64>>,
    /// The same with batches renormalised by what is left of them, length N; empty where the method knows no such thing.
    pub renormalised: Vec<Option<f64>>,
}

impl Estimate {
    /// A finished sweep.
    pub fn of_sweep(state: SweepState) -> Self {
        let SweepState {
            window,
            end,
            occurrences,
            queries,
            ..
        } = state;
        let seen = |scores: Vec<f64>| -> Vec<Option<f64>> {
            let scores = scores.into_iter().zip(&occurrences);
            scores.map(|(x, &n)| (n > 0).then_some(x)).collect()
        };
        let queries = queries
            .into_iter()
            .map(|q| Scores {
                influence: seen(q.influence),
                renormalised: seen(q.renormalised),
            })
            .collect();
        Estimate {
            window,
            end,
            occurrences,
            queries,
            notes: Vec::new(),
        }
    }

    /// One row a training example, in the order of their indices. `queries` are the question's gradients.
    pub fn table(
        &self,
        run: &RecordedRun<'_>,
        queries: &[QueryGradient],
        chosen: &Chosen,
        origin: &TableOrigin,
    ) -> ScoreTable {
        let at = |scores: &[Option<f64>], i: usize| scores.get(i).copied().flatten();
        let rows = self
            .occurrences
            .iter()
            .enumerate()
            .map(|(i, &occurrences)| {
                let index = i as u64;
                ScoreRow {
                    index,
                    row: run.data().origin(Split::Train, index),
                    file: run.data().file(Split::Train, index),
                    name: None,
                    label: run.data().label(Split::Train, index),
                    occurrences,
                    influence: self.queries.iter().map(|q| at(&q.influence, i)).collect(),
                    renormalised: self
                        .queries
                        .iter()
                        .map(|q| at(&q.renormalised, i))
                        .collect(),
                    epochs: Vec::new(),
                    refined: Vec::new(),
                }
            })
            .collect();
        ScoreTable {
            metadata: ScoreMetadata {
                version: METADATA_VERSION,
                writer: concat!("hindcast-analyzer ", env!("CARGO_PKG_VERSION")).to_owned(),
                run_digest: origin.run_digest.clone(),
                window: self.window.clone(),
                run_steps: self.end,
                method: chosen.method.name.to_owned(),
                settings: chosen.settings(),
                notes: self.notes.clone(),
                engine: origin.engine.clone(),
                rule: run.rule().to_toml().unwrap_or_default(),
                queries: queries
                    .iter()
                    .map(|q| QueryMetadata {
                        name: q.name.clone(),
                        value: q.value,
                        digest: origin.files.get(&q.name).cloned(),
                        growth: None,
                    })
                    .collect(),
                epochs: Vec::new(),
                refined: Vec::new(),
                files: run.data().files(Split::Train),
            },
            rows,
        }
    }
}

/// Refuses a window where the method has none.
pub(super) fn without_window(method: &Method, question: &Question<'_>) -> Result<()> {
    match question.window {
        Window::All => Ok(()),
        window => Err(AnalysisError::Unsupported(Unsupported::Window {
            method: method.name,
            window: window.to_string(),
        })),
    }
}

/// Scores of a method without a window: one for every training example, whichever steps the trace holds.
pub(super) fn everyone(
    question: &Question<'_>,
    scores: Vec<Vec<f64>>,
    notes: Vec<String>,
) -> Result<Estimate> {
    let run = question.run;
    for (scores, query) in scores.iter().zip(question.gradients) {
        if let Some(example) = scores.iter().position(|x| !x.is_finite()) {
            return Err(AnalysisError::Diverged(Diverged::Score {
                example,
                query: query.name.clone(),
            }));
        }
    }
    let end = run.source().end()?.step;
    Ok(Estimate {
        window: 0..end,
        end,
        occurrences: occurrences(run, &run.source().ranges()?)?,
        queries: scores
            .into_iter()
            .map(|scores| Scores {
                influence: scores.into_iter().map(Some).collect(),
                renormalised: Vec::new(),
            })
            .collect(),
        notes,
    })
}

/// How often the recorded steps of these ranges hold each training example, length N.
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
