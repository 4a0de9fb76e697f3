//! What a table of scores predicts for examples that are left out together.

use std::collections::BTreeSet;
use std::ops::Range;

use candle_core::{DType, Device};

use hindcast_analyzer::scores::QueryMetadata;
use hindcast_analyzer::{
    CounterfactualOptions, Denominators, Query, RecordedRun, Removal, ScoreRow, ScoreTable, Subject,
};

/// The table's query that predicts exactly this: same run, same window, same query.
pub(super) fn fitting_query(
    table: &ScoreTable,
    subject: &Subject,
    range: &Range<u64>,
    query: &Query,
) -> Option<usize> {
    let meta = &table.metadata;
    // A method that only ranks predicts nothing.
    let ranks = hindcast_analyzer::estimators::method(&meta.method).is_ok_and(|m| !m.predicts);
    if ranks || meta.run_digest != subject.head() || meta.window != *range {
        return None;
    }
    let name = query.to_string();
    let q = meta.queries.iter().position(|q| q.name == name)?;
    let run = subject.recorded().ok()?;
    let other = another_query(&meta.queries[q], query, &run, true);
    other.is_ok_and(|why| why.is_none()).then_some(q)
}

/// How far a loss at the end of training may be from the one in a table, which another engine may have computed: by this
/// share, and by this much, since a loss near 0 has few digits in float32.
const SHARE: f64 = 1e-3;
const LOSS: f64 = 1e-6;
/// The same for a vector, whose product with the parameters every engine computes alike.
const PRODUCT: f64 = 1e-9;

/// Why the query of a table isn't the one that is asked, although it has its name: `vector:FILE` names a file, whose content
/// may have changed. The values at the end of training are compared where the table is about `same_run`.
pub(super) fn another_query(
    told: &QueryMetadata,
    query: &Query,
    run: &RecordedRun<'_>,
    same_run: bool,
) -> hindcast_analyzer::Result<Option<String>> {
    let digest = query.file_digest()?;
    if told.digest.as_ref().is_some_and(|told| *told != digest) {
        return Ok(Some(format!(
            "the file of {query} had another content when the table was made"
        )));
    }
    if !same_run {
        return Ok(None);
    }
    let end = run.source().end()?;
    let value = match run.dtype() {
        DType::F64 => query.value::<f64>(run, &end.parameters, &end.buffers, &Device::Cpu)?,
        _ => {
            let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
            let (parameters, buffers) = (narrow(&end.parameters), narrow(&end.buffers));
            query.value(run, &parameters, &buffers, &Device::Cpu)?
        }
    };
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

/// Whether the table has a score for every example of the set that the window's batches hold. A method that knows no
/// renormalised removal, or that scored a part of the examples, leaves cells empty. An empty cell predicts nothing, and
/// must not count as no change.
pub(super) fn covers(
    table: &ScoreTable,
    query: usize,
    without: &[u64],
    denominators: Denominators,
) -> bool {
    rows(table, without)
        .all(|row| row.occurrences == 0 || score(row, query, denominators).is_some())
}

/// The linear prediction for a set: the sum over its examples.
pub(super) fn predict(
    table: &ScoreTable,
    query: usize,
    without: &[u64],
    denominators: Denominators,
) -> f64 {
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
