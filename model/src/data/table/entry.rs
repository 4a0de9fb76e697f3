//! A cell of a table with its place: what it means for its column, and the error if it means nothing.

use std::path::Path;

use super::cells;
use super::numerals::Numerals;
use super::spec::MissingSpec;
use crate::data::texts::{MAX_DISTINCT, Texts, is_missing, listed, place_of, shortened};
use crate::data::{DataError, Expected};

/// A cell that isn't missing, and its place.
pub(super) struct Entry<'a, N> {
    pub(super) path: &'a Path,
    pub(super) row: u64,
    pub(super) line: u64,
    pub(super) column: &'a str,
    pub(super) text: &'a str,
    /// The number that the text spells.
    pub(super) number: N,
    /// Whether the row is one of new rows for a trained model, whose task can't be changed any more.
    pub(super) new: bool,
}

impl<N: Fn() -> Option<f64>> Entry<'_, N> {
    /// The error of a cell that holds something else than what was expected. `hint` advises on the task.
    fn wrong(&self, expected: Expected, hint: String) -> DataError {
        const OF_NEW: &str = "The run's task reads this column so: write the cell as the training files do, or leave the row out";
        self.error(expected, if self.new { OF_NEW.to_owned() } else { hint })
    }

    /// [`wrong`](Self::wrong) for a label.
    fn wrong_label(&self, expected: Expected, hint: String) -> DataError {
        const OF_NEW: &str = "Without the column of labels, the rows can be predicted all the same";
        self.error(expected, if self.new { OF_NEW.to_owned() } else { hint })
    }

    fn error(&self, expected: Expected, hint: String) -> DataError {
        DataError::Cell {
            path: self.path.to_path_buf(),
            row: self.row,
            line: self.line,
            column: self.column.into(),
            expected,
            got: shortened(self.text).into(),
            hint: hint.into(),
        }
    }

    pub(super) fn number(
        &self,
        numerals: Numerals,
        missing: Option<&MissingSpec>,
    ) -> Result<f64, DataError> {
        (self.number)().ok_or_else(|| {
            let advice = cells::advice(self.text, self.column, numerals, missing);
            self.wrong(Expected::Number, advice)
        })
    }

    pub(super) fn above_minus_one(&self) -> Result<f64, DataError> {
        let above = (self.number)().filter(|x| *x > -1.0);
        above.ok_or_else(|| {
            let hint = format!("data.log1p takes log(1 + x) of column {:?}", self.column);
            self.wrong(Expected::Text("a finite number above -1".into()), hint)
        })
    }

    /// The number of a category among those of its column.
    pub(super) fn category(&self, known: Option<&mut Texts>) -> Result<u32, DataError> {
        let n = known.and_then(|texts| texts.number(self.text));
        n.ok_or_else(|| {
            let column = self.column;
            let hint = format!(
                "For free text write tfidf = {{ columns = [{column:?}] }}; to leave the column out, write ignore = \
                 [{column:?}]"
            );
            self.wrong(one_of("categories"), hint)
        })
    }

    /// A label that is a number to predict.
    pub(super) fn label_value(&self) -> Result<f64, DataError> {
        (self.number)().ok_or_else(|| {
            let hint = if is_missing(self.text) {
                format!(
                    "The label is missing. To leave out such rows, write missing = {{ columns = {{ {:?} = \"drop\" }} }} in \
                     [data]",
                    self.column
                )
            } else {
                "With target = \"value\", labels are numbers".to_owned()
            };
            self.wrong_label(Expected::Number, hint)
        })
    }

    /// The number of a label that is a class. A new row has one of the model's `classes`, if they have names.
    pub(super) fn class(&self, labels: &mut Texts, classes: &[String]) -> Result<u32, DataError> {
        if self.text.is_empty() {
            let column = self.column;
            let hint = format!(
                "Give the row its label or leave the row out: missing = {{ columns = {{ {column:?} = \"drop\" }} }}; to train on \
                 it as a class of its own, write merge = {{ {column:?} = {{ unknown = [\"\"] }} }}"
            );
            return Err(self.wrong_label(Expected::Text("a label".into()), hint));
        }
        if self.new && !classes.is_empty() && place_of(self.text, classes).is_none() {
            let known = format!("one of the model's classes: {}", listed(classes));
            return Err(self.wrong_label(Expected::Text(known.into()), String::new()));
        }
        labels.number(self.text).ok_or_else(|| {
            let hint = "If labels are numbers to predict, write target = \"value\"";
            self.wrong_label(one_of("classes"), hint.into())
        })
    }
}

fn one_of(what: &str) -> Expected {
    Expected::Text(format!("one of at most {MAX_DISTINCT} {what}").into())
}
