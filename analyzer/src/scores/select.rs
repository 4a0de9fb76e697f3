//! Conditions on the rows of a table.

use std::cmp::Ordering;

use super::columns::{Cell, Column, cell, number};
use super::layout::{Layout, SortKey};
use super::{ScoreRow, ScoreTable};

/// Characters of operators. A sequence that isn't an operator is refused; it isn't read as a shorter operator and a
/// value.
const SIGNS: [char; 5] = ['=', '<', '>', '!', '~'];

const COMPARISONS: [(&str, Comparison); 6] = [
    ("!=", Comparison::Differs),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equals),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equals,
    Differs,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// `COLUMN=VALUE`, or another comparison: `!=`, `<`, `<=`, `>`, `>=`. An empty value stands for a missing one. With `=` and `!=`,
/// the name of another column of texts, such as `label!=predicted`, stands for its value in the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    column: Column,
    comparison: Comparison,
    value: String,
    /// The column whose value is compared instead of `value`.
    other: Option<Column>,
}

impl Layout<'_> {
    /// Reads a condition on one of the table's columns. If its value is the name of another column of texts, the caller settles
    /// what it means, by [`Condition::settle`].
    ///
    /// # Errors
    /// The text names the mistake and what is expected.
    pub fn condition(&self, text: &str) -> Result<Condition, String> {
        let text = text.trim();
        let columns = self.columns();
        // A query's name may contain any sign, so the longest matching column is used.
        let found = columns
            .iter()
            .filter_map(|(name, column)| {
                let rest = text.strip_prefix(name.as_str())?.trim_start();
                rest.starts_with(SIGNS).then_some((name, *column, rest))
            })
            .max_by_key(|(name, ..)| name.len());
        let Some((name, column, rest)) = found else {
            let end = text.find(SIGNS);
            return Err(match end {
                Some(end) if end > 0 => self.no_column(text[..end].trim()),
                _ => format!(
                    "expected COLUMN=VALUE, or with !=, <, <=, > or >= between them, got `{text}`"
                ),
            });
        };
        let (comparison, value) = split_operator(rest)?;
        if !column.is_text() && !value.is_empty() && value.parse::<f64>().is_err() {
            return Err(format!(
                "column `{name}` contains numbers, and `{value}` isn't one"
            ));
        }
        let order = !matches!(comparison, Comparison::Equals | Comparison::Differs);
        if order && !column.is_text() && value.parse().is_ok_and(f64::is_nan) {
            return Err(format!(
                "no number is below or above `{value}`: compare column `{name}` with a number, or with = or !="
            ));
        }
        let other = columns.iter().find(|(name, other)| {
            let texts = column.is_text() && other.is_text() && *other != column;
            texts && !order && *name == value
        });
        Ok(Condition {
            column,
            comparison,
            other: other.map(|(_, column)| *column),
            value,
        })
    }
}

impl ScoreTable {
    /// Reads a condition on one of this table's columns.
    ///
    /// # Errors
    /// As [`Layout::condition`].
    pub fn condition(&self, text: &str) -> Result<Condition, String> {
        let mut condition = self.layout().condition(text)?;
        for row in &self.rows {
            condition.settle(row);
        }
        Ok(condition)
    }

    /// Keeps the rows that fulfil every condition.
    pub fn keep(&mut self, conditions: &[Condition]) {
        self.rows
            .retain(|row| conditions.iter().all(|c| c.holds(row)));
    }
}

/// The operator at the beginning of a text, and the value after it.
fn split_operator(text: &str) -> Result<(Comparison, String), String> {
    let value = text.trim_start_matches(SIGNS);
    let sign = &text[..text.len() - value.len()];
    let known = COMPARISONS.iter().find(|(known, _)| *known == sign);
    match known {
        Some((_, comparison)) => Ok((*comparison, value.trim().to_owned())),
        None => {
            let list: Vec<&str> = COMPARISONS.iter().map(|(sign, _)| *sign).collect();
            let mut said = format!(
                "there is no operator `{sign}`; write COLUMN=VALUE, or with one of {}",
                list.join(" ")
            );
            // A label may start like an operator.
            let first = COMPARISONS
                .iter()
                .filter(|(known, _)| sign.starts_with(known))
                .max_by_key(|(known, _)| known.len());
            if let Some((first, _)) = first {
                let rest = &text[first.len()..];
                said +=
                    &format!("; for the value `{rest}` put a space before it: `{first} {rest}`");
            }
            Err(said)
        }
    }
}

impl Condition {
    /// The column that is compared.
    pub fn key(&self) -> SortKey {
        SortKey::of(self.column)
    }

    /// Whether the value could be the name of another column, so that all rows must be settled.
    pub(super) fn is_unsettled(&self) -> bool {
        self.other.is_some()
    }

    /// Takes the value as a value if this row has it in the column: a class may have the name of a column.
    pub fn settle(&mut self, row: &ScoreRow) {
        if self.other.is_some() && cell(row, self.column).to_string() == self.value {
            self.other = None;
        }
    }

    /// Whether a row fulfils the condition.
    pub fn holds(&self, row: &ScoreRow) -> bool {
        use Comparison::{Above, AtLeast, AtMost, Below, Differs, Equals};
        if let Some(other) = self.other {
            // A row without one of them is neither equal nor different.
            let (a, b) = (cell(row, self.column), cell(row, other));
            let (a, b) = (a.to_string(), b.to_string());
            let known = !a.is_empty() && !b.is_empty();
            return known && (a == b) == (self.comparison == Equals);
        }
        let cell = cell(row, self.column);
        if self.value.is_empty() {
            let empty = cell.to_string().is_empty();
            return match self.comparison {
                Equals => empty,
                Differs => !empty,
                _ => false,
            };
        }
        if cell == Cell::Number(None) {
            return false;
        }
        let equal = self.equals(&cell);
        // A cell that isn't a number is neither below nor above anything.
        let order = ordered(&cell, &self.value);
        match self.comparison {
            Equals => equal,
            Differs => !equal,
            Below => order.is_some_and(Ordering::is_lt),
            AtMost => order.is_some_and(Ordering::is_le),
            Above => order.is_some_and(Ordering::is_gt),
            AtLeast => order.is_some_and(Ordering::is_ge),
        }
    }

    /// Texts are equal if all characters are: the class `03` differs from `3`. Numbers are equal by value.
    fn equals(&self, cell: &Cell) -> bool {
        match cell {
            Cell::Text(text) => *text == self.value || text.trim() == self.value,
            Cell::Integer(i) => match self.value.parse::<u64>() {
                Ok(value) => *i == value,
                Err(_) => self.value.parse() == Ok(*i as f64),
            },
            Cell::Number(x) => {
                let (x, value) = (x.unwrap_or(f64::NAN), self.value.parse::<f64>());
                value.is_ok_and(|value| x == value || (x.is_nan() && value.is_nan()))
            }
        }
    }
}

/// Order of a cell and a value: by number if both are numbers, otherwise as texts; `None` if one of them is NaN.
fn ordered(cell: &Cell, value: &str) -> Option<Ordering> {
    if let (Cell::Integer(i), Ok(value)) = (cell, value.parse::<u64>()) {
        return Some(i.cmp(&value));
    }
    match (number(cell), value.parse::<f64>()) {
        (Some(x), Ok(value)) => x.partial_cmp(&value),
        _ => Some(cell.to_string().as_str().cmp(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScoreMetadata;
    use crate::scores::QueryMetadata;

    fn table() -> ScoreTable {
        let row = |index, label: &str, occurrences, influence| ScoreRow {
            index,
            row: 10 + index,
            file: if index < 2 { "a.csv" } else { "b.csv" }.to_owned(),
            name: None,
            label: label.to_owned(),
            occurrences,
            influence: vec![influence, influence.map(|x: f64| -x)],
            renormalised: vec![influence; 2],
            epochs: Vec::new(),
            refined: Vec::new(),
            ..ScoreRow::default()
        };
        let query = |name: &str| QueryMetadata {
            name: name.to_owned(),
            value: 0.0,
            digest: None,
            growth: None,
        };
        ScoreTable {
            metadata: ScoreMetadata {
                queries: vec![query("validation"), query("vector:a=b<c.safetensors")],
                ..crate::scores::text::metadata_of(&Default::default())
            },
            rows: vec![
                row(0, "3", 2, Some(1.5)),
                row(1, "10", 0, None),
                row(2, "7", 1, Some(-2e-9)),
                row(3, "3", 12, Some(0.25)),
            ],
        }
    }

    fn kept(conditions: &[&str]) -> Vec<u64> {
        let mut table = table();
        let conditions: Vec<_> = conditions
            .iter()
            .map(|c| table.condition(c).unwrap())
            .collect();
        table.keep(&conditions);
        table.rows.iter().map(|r| r.index).collect()
    }

    #[test]
    fn values_are_compared_as_numbers_if_both_are_numbers() {
        assert_eq!(kept(&["label=3"]), [0, 3]);
        assert_eq!(kept(&["label != 3", "index<2"]), [1]);
        assert_eq!(kept(&["label>=7"]), [1, 2], "10 is more than 7");
        assert_eq!(kept(&["occurrences>1", "occurrences<=12"]), [0, 3]);
        assert_eq!(kept(&["influence[validation]<0"]), [2]);
        assert_eq!(kept(&["influence[vector:a=b<c.safetensors]>0"]), [2]);
        assert_eq!(kept(&["influence[validation]="]), [1], "no score");
        assert_eq!(kept(&["influence[validation]!="]), [0, 2, 3]);
        assert_eq!(kept(&["row=12.0"]), [2]);
        assert_eq!(kept(&["file=b.csv", "row!=12"]), [3]);
    }

    #[test]
    fn two_columns_of_texts_are_compared_row_by_row() {
        let of = |condition: &str, label: &str| {
            let mut table = table();
            table.rows[0].label = label.to_owned();
            for row in &mut table.rows {
                row.name = Some(if row.index == 2 { "7" } else { "x" }.to_owned());
            }
            table.keep(&[table.condition(condition).unwrap()]);
            table.rows.iter().map(|r| r.index).collect::<Vec<_>>()
        };
        assert_eq!(of("label=name", "3"), [2]);
        assert_eq!(of("label!=name", "3"), [0, 1, 3]);
        assert_eq!(of("label!=name", ""), [1, 3], "a row without a label");
        // If a label is the column's name, it is a value.
        assert_eq!(of("label=name", "name"), [0]);
    }

    /// A label is a text: `03` and `3` are two classes, and neither is `3.0`.
    #[test]
    fn texts_are_equal_character_by_character_and_numbers_by_value() {
        let of = |label: &str, condition: &str| {
            let mut table = table();
            table.rows.truncate(1);
            table.rows[0].label = label.to_owned();
            table.keep(&[table.condition(condition).unwrap()]);
            table.rows.len() == 1
        };
        for (label, condition, holds) in [
            ("3", "label=3", true),
            ("3", "label=03", false),
            ("03", "label=3", false),
            ("03", "label!=3", true),
            ("03", "label=03", true),
            ("1e1", "label=10", false),
            ("3", "label=3.0", false),
            ("3", "label>=3.0", true),
            ("3", "label>2.5", true),
            ("nan", "label>1", false),
            ("nan", "label<1", false),
            ("inf", "label=infinity", false),
            ("a", "label<b", true),
            (" a", "label=a", true),
            ("<unk>", "label= <unk>", true),
            ("=1", "label = =1", true),
            ("1", "label = =1", false),
        ] {
            assert_eq!(of(label, condition), holds, "{label:?}: {condition}");
        }
    }

    #[test]
    fn nan_is_neither_above_nor_below_and_large_integers_are_exact() {
        let holds = |x: f64, condition: &str| {
            let mut table = table();
            table.rows.truncate(1);
            table.rows[0].influence[0] = Some(x);
            table.rows[0].index = 9_007_199_254_740_993;
            table.keep(&[table.condition(condition).unwrap()]);
            table.rows.len() == 1
        };
        for (x, condition, expected) in [
            (f64::NAN, "influence[validation]>0", false),
            (f64::NAN, "influence[validation]<=0", false),
            (f64::NAN, "influence[validation]!=0", true),
            (f64::NAN, "influence[validation]=nan", true),
            (f64::INFINITY, "influence[validation]>1e308", true),
            (-0.0, "influence[validation]=0", true),
            (-0.0, "influence[validation]<0", false),
            (0.5, "index=9007199254740993", true),
            (0.5, "index=9007199254740992", false),
            (0.5, "index>9007199254740992", true),
        ] {
            assert_eq!(holds(x, condition), expected, "{x}: {condition}");
        }
    }

    #[test]
    fn invalid_conditions_are_refused_with_a_hint() {
        for (text, hint) in [
            ("labels=3", "no column `labels`"),
            ("influence<0", "influence[validation]"),
            ("occurrences=many", "contains numbers"),
            (
                "influence[validation]<nan",
                "no number is below or above `nan`",
            ),
            ("occurrences>=NaN", "no number is below or above `NaN`"),
            ("label", "COLUMN=VALUE"),
            ("=3", "COLUMN=VALUE"),
            (
                "label<>3",
                "no operator `<>`; write COLUMN=VALUE, or with one of != <= >= = < >",
            ),
            ("label==3", "no operator `==`"),
            ("label == 3", "no operator `==`"),
            ("label=>3", "no operator `=>`"),
            ("label=<3", "no operator `=<`"),
            ("label!3", "no operator `!`"),
            ("label~3", "no operator `~`"),
            ("label=~3", "no operator `=~`"),
            ("index>>1", "no operator `>>`"),
            ("label!==3", "no operator `!==`"),
            ("label=<unk>", "put a space before it: `= <unk>`"),
            ("", "COLUMN=VALUE"),
        ] {
            let message = table().condition(text).unwrap_err();
            assert!(message.contains(hint), "{text}: {message}");
        }
        assert!(table().layout().sort_key("size").is_err());
    }
}
