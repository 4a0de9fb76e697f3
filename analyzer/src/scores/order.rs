//! The order of a table's rows by a column.

use std::cmp::Ordering;

use super::columns::{Cell, Column, cell, number};
use super::layout::SortKey;
use super::{ScoreRow, ScoreTable};

/// An order of rows. Rows with the same value are in the order of their indices. Rows without a value come last, whether or
/// not the order is descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub column: Column,
    pub descending: bool,
    /// Whether the whole order is turned round, indices and missing values included.
    pub reversed: bool,
    /// Whether values are compared as numbers: all of them are. Otherwise they are compared as texts.
    pub numeric: bool,
}

/// A row's value in an order's column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Missing,
    Number(f64),
    Text(String),
}

impl Order {
    /// The value by which a row is sorted.
    pub fn value(&self, row: &ScoreRow) -> Value {
        let cell = cell(row, self.column);
        match number(&cell) {
            _ if cell == Cell::Number(None) => Value::Missing,
            Some(x) if self.numeric => Value::Number(x),
            _ => Value::Text(cell.to_string()),
        }
    }

    /// The order of two rows, given by their values and indices.
    pub fn compare(&self, (a, i): (&Value, u64), (b, j): (&Value, u64)) -> Ordering {
        let directed = |order: Ordering| {
            if self.descending {
                order.reverse()
            } else {
                order
            }
        };
        let values = match (a, b) {
            (Value::Missing, Value::Missing) => Ordering::Equal,
            (Value::Missing, _) => Ordering::Greater,
            (_, Value::Missing) => Ordering::Less,
            // −0 and 0 are the same number.
            (Value::Number(x), Value::Number(y)) => {
                directed(x.partial_cmp(y).unwrap_or_else(|| x.total_cmp(y)))
            }
            (Value::Text(x), Value::Text(y)) => directed(x.cmp(y)),
            (Value::Number(_), Value::Text(_)) => Ordering::Less,
            (Value::Text(_), Value::Number(_)) => Ordering::Greater,
        };
        let order = values.then(i.cmp(&j));
        if self.reversed {
            order.reverse()
        } else {
            order
        }
    }
}

/// Whether a row can be sorted by number: its cell is a number, a text that reads as one, or has no value.
pub(super) fn is_numeric(row: &ScoreRow, column: Column) -> bool {
    let cell = cell(row, column);
    number(&cell).is_some() || cell == Cell::Number(None)
}

impl ScoreTable {
    /// Sorts by a column, by number if all of its values are numbers, and otherwise as texts. Rows with the same value are
    /// sorted by index. Rows without a value come last in either direction.
    pub fn sort_by(&mut self, key: SortKey, descending: bool) {
        let column = key.column();
        let order = Order {
            column,
            descending,
            reversed: false,
            numeric: self.rows.iter().all(|row| is_numeric(row, column)),
        };
        self.rows.sort_by(|a, b| {
            let (x, y) = (order.value(a), order.value(b));
            order.compare((&x, a.index), (&y, b.index))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::QueryMetadata;
    use super::*;

    /// A table with one query, of which the rows have these labels and scores.
    fn table(rows: &[(&str, Option<f64>)]) -> ScoreTable {
        let row = |(index, (label, influence)): (u64, &(&str, Option<f64>))| ScoreRow {
            index,
            label: (*label).to_owned(),
            occurrences: [2, 0, 1, 12][index as usize % 4],
            influence: vec![*influence],
            ..ScoreRow::default()
        };
        let mut table = ScoreTable {
            rows: (0..).zip(rows).map(row).collect(),
            ..ScoreTable::default()
        };
        table.metadata.queries.push(QueryMetadata {
            name: "validation".to_owned(),
            value: 0.0,
            digest: None,
            growth: None,
        });
        table
    }

    #[test]
    fn rows_without_a_value_come_last_in_either_direction() {
        let rows = [
            ("3", Some(1.5)),
            ("10", None),
            ("7", Some(-2e-9)),
            ("3", Some(0.25)),
        ];
        let sorted = |name: &str, descending| {
            let mut table = table(&rows);
            let key = table.layout().sort_key(name).unwrap();
            table.sort_by(key, descending);
            table.rows.iter().map(|r| r.index).collect::<Vec<_>>()
        };
        assert_eq!(sorted("influence", false), [2, 3, 0, 1]);
        assert_eq!(sorted("influence", true), [0, 3, 2, 1]);
        assert_eq!(sorted("label", false), [0, 3, 2, 1], "by number");
        assert_eq!(sorted("occurrences", true), [3, 0, 2, 1]);
    }

    #[test]
    fn one_word_makes_a_column_of_labels_texts_and_nan_has_a_place() {
        let sorted = |rows: &[(&str, Option<f64>)], name: &str| {
            let mut table = table(rows);
            let key = table.layout().sort_key(name).unwrap();
            table.sort_by(key, false);
            table.rows.iter().map(|r| r.index).collect::<Vec<_>>()
        };
        let words = [("3", None), ("10", None), ("b", None)];
        assert_eq!(sorted(&words, "label"), [1, 0, 2]);
        let numbers = [f64::NAN, 0.0, -0.0, -f64::NAN, f64::INFINITY];
        let numbers = numbers.map(|x| ("", Some(x)));
        assert_eq!(sorted(&numbers, "influence"), [3, 1, 2, 4, 0]);
    }
}
