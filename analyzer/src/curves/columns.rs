//! The columns of a table of steps.

use super::history::{History, HistoryRow};
use crate::output::HISTORY;

/// A value of a row.
pub(super) type Cell = Box<dyn Fn(&HistoryRow) -> Option<f64>>;

/// A column of the table after the first five.
pub(super) struct Column {
    /// Its name in the table.
    pub name: String,
    /// Its name in TensorBoard, with its group.
    pub tag: String,
    pub of: Cell,
}

impl Column {
    fn new(name: String, tag: String, of: impl Fn(&HistoryRow) -> Option<f64> + 'static) -> Self {
        let of = Box::new(of);
        Column { name, tag, of }
    }

    /// A column about the training itself.
    fn of_training(name: String, of: impl Fn(&HistoryRow) -> Option<f64> + 'static) -> Self {
        let tag = format!("train/{name}");
        Column::new(name, tag, of)
    }
}

/// The columns after the first five: those that have a value.
pub(super) fn more_columns(history: &History) -> Vec<Column> {
    let mut columns: Vec<Column> = (1..history.groups())
        .map(|g| {
            let rate = move |row: &HistoryRow| row.learning_rates.get(g).copied();
            Column::of_training(format!("learning_rate[{g}]"), rate)
        })
        .collect();
    type Value = fn(&HistoryRow) -> Option<f64>;
    let any = |of: Value| history.rows.iter().any(|row| of(row).is_some());
    let norms: [(&str, Value); 3] = [
        ("gradient_norm", |row| row.gradient_norm),
        ("parameter_norm", |row| row.parameter_norm),
        ("update_norm", |row| row.update_norm),
    ];
    for (name, of) in norms {
        if any(of) {
            columns.push(Column::of_training(name.to_owned(), of));
        }
    }
    let measured: [(&str, Value); 2] = [
        ("loss", |row| row.held_out_loss),
        ("error", |row| row.held_out_error),
    ];
    let split = history.held_out.map(|measured| measured.split.name());
    for (split, (what, of)) in split.into_iter().flat_map(|s| measured.map(|of| (s, of))) {
        if any(of) {
            let (name, tag) = (format!("{split}_{what}"), format!("{split}/{what}"));
            columns.push(Column::new(name, tag, of));
        }
    }
    columns.extend(history.scalars.iter().enumerate().map(|(at, name)| {
        let value = move |row: &HistoryRow| row.scalar(at);
        Column::new(format!("scalar[{name}]"), format!("scalar/{name}"), value)
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
