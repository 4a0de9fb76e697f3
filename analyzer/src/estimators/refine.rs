//! Refinement of a sweep's scores. The sweep ranks all examples, the accumulative estimate scores a shortlist again, and
//! retraining gives the real changes of a few.

use std::collections::BTreeSet;

use crate::counterfactual::{Arithmetic, CounterfactualOptions, ReplayProgress, counterfactuals};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::estimators::{Question, accumulative_changes};
use crate::query::one::Query;
use crate::scores::{Refined, RefinedBy, ScoreTable};

/// How many examples are refined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refinement {
    /// K: number of each query's most harmful examples that get the accumulative estimate.
    pub accumulative: usize,
    /// M: number of those examples, the most harmful by that estimate, that are left out in a retraining.
    pub counterfactual: usize,
}

/// Adds the columns of a refinement to a sweep's table. The K most harmful examples of each query get the accumulative
/// estimate. The M most harmful of them by that estimate get the real change, which `arithmetic` measures by retraining.
/// Both refer to the table's window, with fixed denominators, and to the question's queries and their point. The other parts
/// of the question are ignored.
///
/// # Errors
/// As [`accumulative_changes`] and [`counterfactuals`].
pub fn refine(
    question: &Question<'_>,
    engine: &mut dyn ReplayEngine,
    table: &mut ScoreTable,
    refinement: Refinement,
    arithmetic: Arithmetic,
    progress: &ReplayProgress<'_>,
) -> Result<()> {
    let (run, queries) = (question.run, question.queries);
    if queries.len() != table.metadata.queries.len() {
        return Err(AnalysisError::Queries {
            table: table.metadata.queries.len(),
            given: queries.len(),
        });
    }
    let window = table.metadata.window.clone();
    let worst = |table: &ScoreTable, q| -> Vec<u64> {
        let rows = table.worst(q, refinement.accumulative);
        rows.iter().map(|r| r.index).collect()
    };
    let shortlists: Vec<Vec<u64>> = (0..queries.len()).map(|q| worst(table, q)).collect();
    let all: Vec<u64> = distinct(&shortlists);
    let mut carry = |done, total| progress(done, total);
    let at = question.at.resolve(run.source(), window.start)?;
    let changes = accumulative_changes(run, engine, &all, &window, &at, &mut carry)?;
    let state = at.state(run.source())?;
    // For each query, the estimates of the examples in `all`.
    let gradients = Query::gradients(queries, run, &state, engine)?;
    let estimates: Vec<Vec<f64>> = gradients.iter().map(|q| changes.influence(q)).collect();
    let estimate = |q: usize, j: u64| -> Option<f64> {
        let at = all.binary_search(&j).ok()?;
        estimates.get(q)?.get(at).copied()
    };
    let few: Vec<Vec<u64>> = shortlists
        .iter()
        .enumerate()
        .map(|(q, list)| {
            let mut list = list.clone();
            let of = |j: &u64| estimate(q, *j).unwrap_or(f64::INFINITY);
            list.sort_by(|a, b| of(a).total_cmp(&of(b)).then(a.cmp(b)));
            list.truncate(refinement.counterfactual);
            list
        })
        .collect();
    let sets: Vec<Vec<u64>> = distinct(&few).into_iter().map(|j| vec![j]).collect();
    let truth = if sets.is_empty() {
        None
    } else {
        Some(counterfactuals(
            run,
            &CounterfactualOptions {
                at: question.at.clone(),
                arithmetic,
                // Only the queries' values are used.
                evaluate: Vec::new(),
                ..CounterfactualOptions::new(window)
            },
            queries,
            &sets,
            progress,
        )?)
    };
    let real = |q: usize, j: u64| -> Option<f64> {
        let set = sets.iter().position(|set| set[0] == j)?;
        truth.as_ref()?.change(set, q)
    };
    for row in &mut table.rows {
        row.refined = (0..queries.len())
            .map(|q| Refined {
                accumulative: estimate(q, row.index).filter(|_| shortlists[q].contains(&row.index)),
                counterfactual: real(q, row.index).filter(|_| few[q].contains(&row.index)),
            })
            .collect();
    }
    table.metadata.refined = vec![RefinedBy::Accumulative];
    if truth.is_some() {
        table.metadata.refined.push(RefinedBy::Counterfactual);
    }
    Ok(())
}

/// Each example once, ascending.
fn distinct(lists: &[Vec<u64>]) -> Vec<u64> {
    let all: BTreeSet<u64> = lists.iter().flatten().copied().collect();
    all.into_iter().collect()
}
