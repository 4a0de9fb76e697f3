//! The prediction of a table of scores for examples that are left out together.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;

use candle_core::{DType, Device};

use crate::commands::analysis::answering::{Settings, sweep};
use hindcast_analyzer::scores::QueryMetadata;
use hindcast_analyzer::{
    CounterfactualOptions, Denominators, Query, RecordedRun, Removal, ScoreRow, ScoreTable, Window,
};

/// A table that predicts the changes of the retraining's sets.
pub(super) struct Prediction {
    pub table: ScoreTable,
    /// The query's column.
    column: usize,
    /// Where the table comes from, in words.
    pub source: &'static str,
}

impl Prediction {
    /// Predicts by `table`, if it is about this run, window and query and has scores for all sets. Otherwise sweeps the
    /// window with `settings`.
    pub fn of(
        table: Option<ScoreTable>,
        at_end: &AtEnd<'_>,
        options: &CounterfactualOptions,
        sets: &[Vec<u64>],
        settings: &Settings<'_>,
    ) -> anyhow::Result<Self> {
        let covered = |table: &ScoreTable, column| {
            let covered = |set: &Vec<u64>| covers(table, column, set, options.denominators);
            sets.iter().all(covered)
        };
        if let Some(table) = table
            && let Some(column) = fitting_query(&table, &at_end.run.head(), &options.window, at_end)
            && covered(&table, column)
        {
            return Ok(Prediction {
                table,
                column,
                source: "the table",
            });
        }
        let queries = std::slice::from_ref(at_end.query);
        let window = Window::Steps(options.window.clone());
        Ok(Prediction {
            table: sweep(at_end.run, queries, &window, settings)?,
            column: 0,
            source: "a sweep of this window",
        })
    }

    /// The predicted change of the query without a set.
    pub fn change(&self, without: &[u64], denominators: Denominators) -> f64 {
        predict(&self.table, self.column, without, denominators)
    }
}

/// The column of a table that is about this run, window and query.
fn fitting_query(
    table: &ScoreTable,
    head: &str,
    window: &Range<u64>,
    at_end: &AtEnd<'_>,
) -> Option<usize> {
    let meta = &table.metadata;
    // A method that only ranks predicts nothing.
    let ranks = hindcast_analyzer::estimators::method(&meta.method).is_ok_and(|m| !m.predicts);
    if ranks || meta.run_digest != head || meta.window != *window {
        return None;
    }
    let name = at_end.query.to_string();
    let q = meta.queries.iter().position(|q| q.name == name)?;
    let other = at_end.differs_from(&meta.queries[q], true);
    other.is_ok_and(|why| why.is_none()).then_some(q)
}

/// Relative difference, and absolute difference near 0, that two engines may have in a loss at the end of training. A loss
/// near 0 has few digits in float32.
const SHARE: f64 = 1e-3;
const LOSS: f64 = 1e-6;
/// Relative difference for a vector. All engines compute its product with the parameters alike.
const PRODUCT: f64 = 1e-9;

/// A query at the end of a run. It is evaluated at most once.
pub(super) struct AtEnd<'a> {
    pub query: &'a Query,
    pub run: &'a RecordedRun<'a>,
    value: OnceCell<f64>,
}

impl<'a> AtEnd<'a> {
    pub fn new(query: &'a Query, run: &'a RecordedRun<'a>) -> Self {
        AtEnd {
            query,
            run,
            value: OnceCell::new(),
        }
    }

    /// Why the query of a table isn't this one although it has the same name. `vector:FILE` names a file, whose content may
    /// have changed. The values at the end of training are compared if the table is about `same_run`.
    pub fn differs_from(
        &self,
        told: &QueryMetadata,
        same_run: bool,
    ) -> hindcast_analyzer::Result<Option<String>> {
        let query = self.query;
        let digest = query.file_digest()?;
        if told.digest.as_ref().is_some_and(|told| *told != digest) {
            return Ok(Some(format!(
                "the file of {query} had another content when the table was made"
            )));
        }
        if !same_run {
            return Ok(None);
        }
        let value = self.value()?;
        let (share, least) = match query {
            Query::Loss { .. } => (SHARE, LOSS),
            Query::Vector { .. } => (PRODUCT, 0.0),
        };
        let allowed = share * value.abs().max(told.value.abs()) + least;
        let same = value == told.value
            || (value.is_nan() && told.value.is_nan())
            || (value - told.value).abs() <= allowed;
        Ok((!same).then(|| {
            format!(
                "{query} is {value} at the end of training, and the table says {}",
                told.value
            )
        }))
    }

    fn value(&self) -> hindcast_analyzer::Result<f64> {
        if let Some(&value) = self.value.get() {
            return Ok(value);
        }
        let (query, run) = (self.query, self.run);
        let end = run.source().end()?;
        let value = match run.dtype() {
            DType::F64 => query.value::<f64>(run, &end.parameters, &end.buffers, &Device::Cpu)?,
            _ => {
                let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
                let (parameters, buffers) = (narrow(&end.parameters), narrow(&end.buffers));
                query.value(run, &parameters, &buffers, &Device::Cpu)?
            }
        };
        Ok(*self.value.get_or_init(|| value))
    }
}

/// Whether the table has a score for every example of the set that the window's batches hold. A method that knows no
/// renormalised removal, or that scored a part of the examples, leaves cells empty. An empty cell predicts nothing, and
/// must not count as no change.
fn covers(table: &ScoreTable, query: usize, without: &[u64], denominators: Denominators) -> bool {
    rows(table, without)
        .all(|row| row.occurrences == 0 || score(row, query, denominators).is_some())
}

/// The linear prediction for a set: the sum over its examples.
fn predict(table: &ScoreTable, query: usize, without: &[u64], denominators: Denominators) -> f64 {
    // An example that no batch of the window holds has no score, and leaving it out changes nothing.
    rows(table, without)
        .filter_map(|row| score(row, query, denominators))
        .sum()
}

fn rows<'a>(table: &'a ScoreTable, without: &[u64]) -> impl Iterator<Item = &'a ScoreRow> {
    let wanted: BTreeSet<u64> = without.iter().copied().collect();
    table.rows.iter().filter(move |r| wanted.contains(&r.index))
}

fn score(row: &ScoreRow, query: usize, denominators: Denominators) -> Option<f64> {
    let column = match denominators {
        Denominators::Fixed => &row.influence,
        Denominators::Renormalised => &row.renormalised,
    };
    column.get(query).copied().flatten()
}

/// Where the sum of scores is not the first-order change of what is really done.
pub(super) fn limits(
    run: &RecordedRun<'_>,
    sets: &[Vec<u64>],
    options: &CounterfactualOptions,
) -> Vec<String> {
    let mut notes = Vec::new();
    let together = sets.iter().any(|set| set.len() > 1);
    if together && options.denominators == Denominators::Renormalised {
        notes.push(
            "the prediction adds up removals of one example each; where a batch loses several, renormalised denominators make their joint change another one, also to first order".to_owned(),
        );
    }
    if options.removal == Removal::Absent && !run.source().buffers().is_empty() {
        notes.push(
            "the prediction is that of loss-only removal: it leaves the examples in the batch statistics, and the retraining takes them out".to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: u64, occurrences: u64, influence: Option<f64>) -> ScoreRow {
        ScoreRow {
            index,
            occurrences,
            influence: vec![influence],
            renormalised: vec![None],
            ..ScoreRow::default()
        }
    }

    #[test]
    fn an_empty_cell_predicts_nothing() {
        let table = ScoreTable {
            rows: vec![
                row(0, 2, Some(-0.5)),
                row(1, 2, None),
                row(2, 0, None),
                row(3, 1, Some(0.25)),
            ],
            ..ScoreTable::default()
        };
        let fixed = Denominators::Fixed;
        assert!(covers(&table, 0, &[0, 2, 3], fixed));
        assert_eq!(predict(&table, 0, &[0, 2, 3], fixed), -0.25);
        // Example 1 is in two batches, and has no score.
        assert!(!covers(&table, 0, &[0, 1], fixed));
        // The method knew no renormalised removal.
        assert!(!covers(&table, 0, &[0], Denominators::Renormalised));
    }
}
