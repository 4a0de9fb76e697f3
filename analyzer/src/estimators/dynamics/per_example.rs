//! The table of a walk with one row per training example: its training dynamics next to each other.

use std::ops::Range;
use std::path::Path;

use hindcast_model::objective::Split;

use super::learning::{ExampleDynamics, Learning};
use super::methods::other_steps;
use super::rows::{ExampleRow, Format};
use super::table::Written;
use super::walk::{Squares, StepDynamics, walk};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, replace, replaceable};
use crate::run::recorded::RecordedRun;
use crate::scores::spreadsheet::quoted;
use crate::sweep::Observer;

/// Walks `steps` and writes one row per training example to `path`: CSV, or Parquet if the name ends in .parquet and this
/// crate has the feature. The columns are the fields of [`ExampleRow`]. Each step costs a forward and a backward pass; with
/// batch norm, a backward pass per example. The file appears whole or not at all.
///
/// # Errors
/// As [`walk`]. The ending is unknown, the file can't be written, or it exists and isn't a table of training dynamics.
pub fn write_example_table(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    steps: &Range<u64>,
    path: &Path,
    observer: &mut dyn Observer,
) -> Result<Written> {
    let failed = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    let format = Format::of(path)?;
    replaceable(path, Kind::Dynamics).map_err(|e| failed(e.to_string()))?;
    let mut learning = Learning::new(run.examples());
    let mut see = |step: &StepDynamics<'_>| learning.see(step);
    walk(run, engine, steps, Squares::ByRate, &mut see, observer)?;
    let examples: Vec<ExampleDynamics> = learning.examples().collect();
    let indexed = (0..).zip(&examples);
    let rows: Vec<ExampleRow> = indexed.map(|(j, e)| row(run, j, e)).collect();
    let write = |to: &Path| match format {
        Format::Csv => csv(to, &rows),
        #[cfg(feature = "parquet")]
        Format::Parquet => super::columnar::examples(to, &run.head(), &rows),
    };
    replace(path, Kind::Dynamics, |to| {
        write(to).map_err(std::io::Error::other)
    })
    .map_err(|e| failed(e.to_string()))?;
    Ok(Written {
        rows: rows.len() as u64,
        examples,
        notes: other_steps(run).into_iter().collect(),
    })
}

fn row(run: &RecordedRun<'_>, index: u64, e: &ExampleDynamics) -> ExampleRow {
    let data = run.data();
    let seen = e.occurrences > 0;
    ExampleRow {
        index,
        row: data.origin(Split::Train, index),
        label: data.label(Split::Train, index),
        occurrences: e.occurrences,
        mean_loss: seen.then_some(e.loss),
        margin: e.label.map(|label| label.margin),
        probability: e.label.map(|label| label.probability),
        forgotten: e.label.map(|label| label.forgotten),
        epochs_since_forgotten: e.label.map(|label| label.epochs_since_forgotten),
        self_influence: e.self_influence,
        file: data.file(Split::Train, index),
    }
}

fn csv(to: &Path, rows: &[ExampleRow]) -> Result<(), String> {
    let mut csv = csv::Writer::from_path(to).map_err(|e| e.to_string())?;
    for row in rows {
        let row = ExampleRow {
            label: quoted(&row.label).into_owned(),
            file: quoted(&row.file).into_owned(),
            ..row.clone()
        };
        csv.serialize(row).map_err(|e| e.to_string())?;
    }
    csv.flush().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::EXAMPLE_DYNAMICS;

    /// A table is recognised by the columns that are written.
    #[test]
    fn the_columns_are_those_by_which_a_table_is_recognised() {
        let row = ExampleRow {
            index: 0,
            row: 0,
            label: "=1".to_owned(),
            occurrences: 0,
            mean_loss: None,
            margin: None,
            probability: None,
            forgotten: None,
            epochs_since_forgotten: None,
            self_influence: None,
            file: "a,b".to_owned(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.csv");
        csv(&path, &[row]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!("{EXAMPLE_DYNAMICS}\n0,0,'=1,0,,,,,,,\"a,b\"\n")
        );
        replaceable(&path, Kind::Dynamics).unwrap();
    }
}
