//! The columns of a table of steps.

use super::history::{History, HistoryRow};
use crate::output::HISTORY;

/// A value of a row.
pub(super) type Cell = Box<dyn Fn(&HistoryRow) -> Option<f64>>;

/// A column of the table after the first five: its name and its values.
pub(super) struct Column {
    pub name: String,
    pub of: Cell,
}

impl Column {
    fn new(name: impl Into<String>, of: impl Fn(&HistoryRow) -> Option<f64> + 'static) -> Self {
        Column {
            name: name.into(),
            of: Box::new(of),
        }
    }
}

/// The columns after the first five: those that have a value.
pub(super) fn more_columns(history: &History) -> Vec<Column> {
    let mut columns: Vec<Column> = (1..history.groups())
        .map(|g| {
            let rate = move |row: &HistoryRow| row.learning_rates.get(g).copied();
            Column::new(format!("learning_rate[{g}]"), rate)
        })
        .collect();
    let mut if_any = |name: String, of: fn(&HistoryRow) -> Option<f64>| {
        if history.rows.iter().any(|row| of(row).is_some()) {
            columns.push(Column::new(name, of));
        }
    };
    if_any("gradient_norm".to_owned(), |row| row.gradient_norm);
    if_any("parameter_norm".to_owned(), |row| row.parameter_norm);
    if_any("update_norm".to_owned(), |row| row.update_norm);
    if let Some(measured) = history.held_out {
        let split = measured.split.name();
        if_any(format!("{split}_loss"), |row| row.held_out_loss);
        if_any(format!("{split}_error"), |row| row.held_out_error);
    }
    columns.extend(history.scalars.iter().enumerate().map(|(at, name)| {
        let value = move |row: &HistoryRow| row.scalar(at);
        Column::new(format!("scalar[{name}]"), value)
    }));
    columns
}

impl History {
    /// Names of the table's columns: step, epoch, learning_rate (of the first parameter group), batch_size and loss, then those
    /// that have a value: `learning_rate[g]` of the other groups, gradient_norm, parameter_norm, update_norm, validation_loss and
    /// validation_error (or those of another split), and `scalar[NAME]` of the loop's own scalars.
    pub fn columns(&self) -> Vec<String> {
        let more = more_columns(self).into_iter().map(|column| column.name);
        HISTORY.split(',').map(str::to_owned).chain(more).collect()
    }
}
