//! Tables of predictions as Parquet, through arrow.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, StringArray, UInt64Array};

use super::row::{PredictionRow, columns as names_of};
use crate::output::PREDICTIONS_KEY;
use crate::output::columnar::{properties, write};

/// Writes a table of the run with this head digest, with the columns of the CSV.
pub(super) fn parquet(to: &Path, run: &str, rows: &[PredictionRow]) -> Result<(), String> {
    let whole = |of: fn(&PredictionRow) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
    };
    let text = |of: fn(&PredictionRow) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let real = |of: fn(&PredictionRow) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Float64Array>())
    };
    let names = names_of(rows);
    let named: Option<ArrayRef> = names.contains("name,").then(|| -> ArrayRef {
        let names = rows.iter().map(|r| r.name.as_deref());
        Arc::new(names.collect::<StringArray>())
    });
    let mut columns: Vec<ArrayRef> = vec![
        whole(|r| r.index),
        whole(|r| r.row),
        text(|r| &r.file),
        text(|r| &r.label),
        text(|r| &r.predicted),
        real(|r| r.probability),
        real(|r| r.label_probability),
        real(|r| r.loss),
    ];
    if let Some(named) = named {
        columns.insert(3, named);
    }
    let filled = ["index", "row", "file", "label", "predicted"];
    let properties = properties(PREDICTIONS_KEY, run);
    write(to, properties, names, &filled, columns)
}
