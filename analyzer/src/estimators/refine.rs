//! The ladder: a sweep ranks all examples, the accumulative estimate looks again at a shortlist, and retraining tells the
//! truth of a few.

use std::collections::BTreeSet;

use crate::counterfactual::{Arithmetic, CounterfactualOptions, ReplayProgress, counterfactuals};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::estimators::accumulative_changes;
use crate::query::one::Query;
use crate::run::recorded::RecordedRun;
use crate::scores::{Refined, Rung, ScoreTable};

/// How far up the ladder goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ladder {
    /// K: how many of each query's most harmful examples get the accumulative estimate.
    pub accumulative: usize,
    /// M: how many of those, by that estimate the most harmful, are left out for real.
    pub counterfactual: usize,
}

/// Adds the later rungs' columns to a table that a sweep made: for each query, its K most harmful examples, and the M
/// most harmful of them by the second rung, which are retrained by `arithmetic`. All are about the table's own window, with fixed denominators.
///
/// # Errors
/// As [`accumulative_changes`] and [`counterfactuals`].
pub fn refine(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    queries: &[Query],
    table: &mut ScoreTable,
    ladder: Ladder,
    arithmetic: Arithmetic,
    progress: &ReplayProgress<'_>,
) -> Result<()> {
    if queries.len() != table.metadata.queries.len() {
        return Err(AnalysisError::Queries {
            table: table.metadata.queries.len(),
            given: queries.len(),
        });
    }
    let window = table.metadata.window.clone();
    let worst = |table: &ScoreTable, q| -> Vec<u64> {
        let rows = table.worst(q, ladder.accumulative);
        rows.iter().map(|r| r.index).collect()
    };
    let shortlists: Vec<Vec<u64>> = (0..queries.len()).map(|q| worst(table, q)).collect();
    let all: Vec<u64> = distinct(&shortlists);
    let mut carry = |done, total| progress(done, total);
    let changes = accumulative_changes(run, engine, &all, &window, &mut carry)?;
    // By query: the estimate of each of `all`.
    let mut estimates = Vec::with_capacity(queries.len());
    for query in queries {
        let gradient = query.gradient(run.source(), engine, run.data())?;
        estimates.push(changes.influence(&gradient));
    }
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
            list.truncate(ladder.counterfactual);
            list
        })
        .collect();
    let sets: Vec<Vec<u64>> = distinct(&few).into_iter().map(|j| vec![j]).collect();
    let truth = match sets.is_empty() {
        true => None,
        false => Some(counterfactuals(
            run,
            &CounterfactualOptions {
                arithmetic,
                // Only the queries are asked for.
                evaluate: Vec::new(),
                ..CounterfactualOptions::new(window)
            },
            queries,
            &sets,
            progress,
        )?),
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
    table.metadata.refined = match truth.is_some() {
        true => vec![Rung::Accumulative, Rung::Counterfactual],
        false => vec![Rung::Accumulative],
    };
    Ok(())
}

/// Each example once, ascending.
fn distinct(lists: &[Vec<u64>]) -> Vec<u64> {
    let all: BTreeSet<u64> = lists.iter().flatten().copied().collect();
    all.into_iter().collect()
}
