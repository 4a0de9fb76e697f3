//! A history as Parquet, through arrow.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, UInt64Array};

use super::columns::more_columns;
use super::history::{History, HistoryRow};
use crate::output::HISTORY_KEY;
use crate::output::columnar::{properties, write_named};

/// Writes a history of the run with this head digest, with the columns of the CSV.
pub(super) fn write(history: &History, run: &str, to: &Path) -> Result<(), String> {
    let rows = &history.rows;
    let whole = |of: fn(&HistoryRow) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
    };
    let real = |of: &dyn Fn(&HistoryRow) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Float64Array>())
    };
    let mut columns: Vec<ArrayRef> = vec![
        whole(|row| row.step),
        whole(|row| row.epoch),
        real(&|row| row.learning_rates.first().copied()),
        whole(|row| row.batch_size),
        real(&|row| row.loss),
    ];
    columns.extend(more_columns(history).iter().map(|column| real(&column.of)));
    let names = history.columns();
    let filled = ["step", "epoch", "batch_size"];
    let names = names.iter().map(String::as_str);
    write_named(to, properties(HISTORY_KEY, run), names, &filled, columns)
}
