//! The prediction of a table of scores for examples that are left out together.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Range;

use candle_core::{DType, Device};

use crate::commands::analysis::answering::{Settings, sweep};
use crate::words::at_model;
use hindcast_analyzer::scores::QueryMetadata;
use hindcast_analyzer::{
    CounterfactualOptions, Denominators, Query, QueryPoint, RecordedRun, Removal, ScoreRow,
    ScoreTable, Window,
};

/// A table that predicts the changes of the retraining's sets.
pub(super) struct Prediction {
    pub table: ScoreTable,
    /// The query's column.
    pub column: usize,
    /// Where the table comes from, in words.
    pub source: &'static str,
}

impl Prediction {
    /// Predicts from `table`, if it is about this run, window and query and has scores for all sets. Otherwise sweeps the
    /// window with `settings`. `None` if the update rule has no adjoint: the methods that work with it only rank, and a
    /// ranking is no predicted change.
    pub fn of(
        table: Option<ScoreTable>,
        asked_at: &AskedAt<'_>,
        options: &CounterfactualOptions,
        sets: &[Vec<u64>],
        settings: &Settings<'_>,
    ) -> anyhow::Result<Option<Self>> {
        if asked_at.run.rule().no_adjoint().is_some() {
            return Ok(None);
        }
        let covered = |table: &ScoreTable, column| {
            let covered = |set: &Vec<u64>| covers(table, column, set, options.denominators);
            sets.iter().all(covered)
        };
        if let Some(table) = table
            && let Some(column) =
                fitting_query(&table, &asked_at.run.head(), &options.window, asked_at)
            && covered(&table, column)
        {
            return Ok(Some(Prediction {
                table,
                column,
                source: "the table",
            }));
        }
        let queries = std::slice::from_ref(asked_at.query);
        let window = Window::Steps(options.window.clone());
        Ok(Some(Prediction {
            table: sweep(asked_at.run, queries, &window, settings)?,
            column: 0,
            source: "a sweep of this window",
        }))
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
    asked_at: &AskedAt<'_>,
) -> Option<usize> {
    let meta = &table.metadata;
    // A method that only ranks predicts nothing, and a mean over several runs predicts none of them.
    let ranks = hindcast_analyzer::estimators::method(&meta.method).is_ok_and(|m| !m.predicts);
    let other_point = meta.point() != asked_at.at.to_string();
    if ranks
        || !meta.runs.is_empty()
        || meta.run_digest != head
        || meta.window != *window
        || other_point
    {
        return None;
    }
    let name = asked_at.query.to_string();
    let q = meta.queries.iter().position(|q| q.name == name)?;
    let difference = asked_at.differs_from(&meta.queries[q], meta.point(), true);
    difference.is_ok_and(|why| why.is_none()).then_some(q)
}

/// Relative tolerance between the values that two engines compute for a loss at the end of training.
const LOSS_RELATIVE: f64 = 1e-3;
/// Absolute tolerance, added to the relative one: a loss near 0 has few correct digits in float32.
const LOSS_ABSOLUTE: f64 = 1e-6;
/// Relative tolerance for the product of a vector with the parameters. All engines compute it in the same way.
const VECTOR_RELATIVE: f64 = 1e-9;

/// A query with the model of a run that it is asked about. It is evaluated at most once.
pub(super) struct AskedAt<'a> {
    pub query: &'a Query,
    pub run: &'a RecordedRun<'a>,
    pub at: QueryPoint,
    value: OnceCell<f64>,
}

impl<'a> AskedAt<'a> {
    pub fn new(query: &'a Query, run: &'a RecordedRun<'a>, at: QueryPoint) -> Self {
        AskedAt {
            query,
            run,
            at,
            value: OnceCell::new(),
        }
    }

    /// Why the table's query of the same name is a different one: the content of `vector:FILE` may have changed. Returns `None`
    /// if it is the same query. The values are compared only if the table is about the `same_run`
    /// and the same model of it.
    pub fn differs_from(
        &self,
        in_table: &QueryMetadata,
        point: &str,
        same_run: bool,
    ) -> hindcast_analyzer::Result<Option<String>> {
        let query = self.query;
        let digest = query.file_digest()?;
        if in_table.digest.as_ref().is_some_and(|d| *d != digest) {
            return Ok(Some(format!(
                "the file of {query} has changed since the table was made"
            )));
        }
        if !same_run || self.at.to_string() != point {
            return Ok(None);
        }
        let value = self.value()?;
        let (relative, absolute) = match query {
            Query::Loss { .. } => (LOSS_RELATIVE, LOSS_ABSOLUTE),
            Query::Vector { .. } => (VECTOR_RELATIVE, 0.0),
        };
        let allowed = relative * value.abs().max(in_table.value.abs()) + absolute;
        let same = value == in_table.value
            || (value.is_nan() && in_table.value.is_nan())
            || (value - in_table.value).abs() <= allowed;
        Ok((!same).then(|| {
            format!(
                "{query} is {value} {}, and the table says {}",
                at_model(point),
                in_table.value
            )
        }))
    }

    fn value(&self) -> hindcast_analyzer::Result<f64> {
        if let Some(&value) = self.value.get() {
            return Ok(value);
        }
        let (query, run) = (self.query, self.run);
        let model = self.at.resolve(run.source(), 0)?.state(run.source())?;
        let value = match run.dtype() {
            DType::F64 => {
                query.value::<f64>(run, &model.parameters, &model.buffers, &Device::Cpu)?
            }
            _ => {
                let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
                let (parameters, buffers) = (narrow(&model.parameters), narrow(&model.buffers));
                query.value(run, &parameters, &buffers, &Device::Cpu)?
            }
        };
        Ok(*self.value.get_or_init(|| value))
    }
}

/// Whether the table has a score for every example of the set that occurs in the window's batches. A method without
/// renormalised scores, or one that scored only some of the examples, leaves cells empty. An empty cell predicts nothing,
/// and must not count as no change.
fn covers(table: &ScoreTable, query: usize, without: &[u64], denominators: Denominators) -> bool {
    rows(table, without)
        .all(|row| row.occurrences == 0 || score(row, query, denominators).is_some())
}

/// The linear prediction for a set: the sum over its examples.
fn predict(table: &ScoreTable, query: usize, without: &[u64], denominators: Denominators) -> f64 {
    // An example that is in no batch of the window has no score, and leaving it out changes nothing.
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

/// Notes on options with which the sum of scores isn't the first-order change of the retraining.
pub(super) fn limits(
    run: &RecordedRun<'_>,
    sets: &[Vec<u64>],
    options: &CounterfactualOptions,
) -> Vec<String> {
    let mut notes = Vec::new();
    let together = sets.iter().any(|set| set.len() > 1);
    if together && options.denominators == Denominators::Renormalised {
        notes.push(
            "the prediction is the sum of removals of one example each; if a batch loses several, renormalised denominators make their joint change differ from this sum, even to first order".to_owned(),
        );
    }
    if options.removal == Removal::Absent && !run.source().buffers().is_empty() {
        notes.push(
            "the prediction is for loss-only removal, which leaves the examples in the batch statistics; the retraining also removes them from there".to_owned(),
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
        // The method gave no renormalised scores.
        assert!(!covers(&table, 0, &[0], Denominators::Renormalised));
    }
}
