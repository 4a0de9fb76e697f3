//! Statistics of a table that are fitted to the training split: fills of missing values, and the words of free text.

use std::path::PathBuf;

use crate::data::DataError;
use crate::data::documents::{MAX_VALUES, Vocabulary, Words};
use crate::data::store::{Finish, Finished, Rows, Values};

/// The features of a column before they are fitted. A missing value is NaN in all of its features.
pub(super) enum Slot {
    /// Features without missing values.
    Complete(Vec<String>),
    /// A column of numbers that is filled.
    Number {
        column: String,
        feature: String,
        fill: NumberFill,
    },
    /// A column of categories that is filled with the most frequent one.
    Category {
        column: String,
        features: Vec<String>,
    },
    /// The text column with this number. Its only value is a placeholder.
    Text { column: String, at: usize },
}

/// The number that takes the place of a missing one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NumberFill {
    Mean,
    MostFrequent,
    Constant(f64),
}

impl Slot {
    /// The names of its values before fitting.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Complete(features) | Self::Category { features, .. } => features.clone(),
            Self::Number { feature, .. } => vec![feature.clone()],
            Self::Text { column, .. } => vec![column.clone()],
        }
    }

    /// The number of values before fitting.
    fn width(&self) -> usize {
        match self {
            Self::Complete(features) | Self::Category { features, .. } => features.len(),
            Self::Number { .. } | Self::Text { .. } => 1,
        }
    }
}

/// A table whose statistics are not known yet.
pub(super) struct Fit {
    /// The first training file, for messages.
    pub(super) path: PathBuf,
    pub(super) slots: Vec<Slot>,
    /// For each text column, the text of each row of all files.
    pub(super) texts: Vec<Vec<String>>,
    /// Which words are features.
    pub(super) words: Words,
    /// Whether columns with missing values get a second feature.
    pub(super) indicator: bool,
}

/// The features of a column after they are fitted.
enum Fitted {
    /// This number of values, as they are.
    Complete(usize),
    /// The values in the place of missing ones, and whether an indicator follows.
    Filled(Vec<f64>, bool),
    /// The words of a text column.
    Words(Vocabulary, usize),
}

impl Finish for Fit {
    fn finish(
        self: Box<Self>,
        rows: &mut Rows,
        origins: &[usize],
        train: &[usize],
    ) -> Result<Finished, DataError> {
        let Values::F64(values) = std::mem::replace(&mut rows.values, Values::F64(Vec::new()))
        else {
            return Err(DataError::malformed(&self.path, "holds no numbers"));
        };
        let kept = Kept {
            width: self.slots.iter().map(Slot::width).sum(),
            values,
            origins,
            train,
        };
        let mut finished = Finished::default();
        let mut fitted = Vec::with_capacity(self.slots.len());
        let mut start = 0;
        for slot in &self.slots {
            fitted.push(self.fit(slot, start, &kept, &mut finished)?);
            start += slot.width();
        }
        let width = finished.features.len();
        if width == 0 {
            return Err(DataError::malformed(
                &self.path,
                "no word of the training texts is within min_df and max_df: change them in [data.tfidf]",
            ));
        }
        if origins
            .len()
            .checked_mul(width)
            .is_none_or(|n| n > MAX_VALUES)
        {
            return Err(DataError::malformed(
                &self.path,
                format!(
                    "{} rows with {width} features each are more than {MAX_VALUES} values: set data.tfidf.max_features, or raise \
                     data.tfidf.min_df",
                    origins.len()
                ),
            ));
        }
        let mut values = vec![0.0; origins.len() * width];
        for ((raw, origin), out) in kept.rows().zip(origins).zip(values.chunks_exact_mut(width)) {
            self.write(&fitted, raw, *origin, out);
        }
        rows.values = Values::F64(values);
        rows.shape = vec![width];
        if !self.texts.is_empty() {
            finished.texts = origins
                .iter()
                .map(|&row| joined(&self.texts, row))
                .collect();
        }
        Ok(finished)
    }
}

impl Fit {
    /// Fits the column whose values begin at `start`. The names of its features and a note are added to `finished`.
    fn fit(
        &self,
        slot: &Slot,
        start: usize,
        kept: &Kept<'_>,
        finished: &mut Finished,
    ) -> Result<Fitted, DataError> {
        let features = &mut finished.features;
        let (column, named, fill, what) = match slot {
            Slot::Complete(names) => {
                features.extend_from_slice(names);
                return Ok(Fitted::Complete(names.len()));
            }
            Slot::Text { column, at } => {
                let texts = self.texts.get(*at).map_or(&[][..], Vec::as_slice);
                let train = kept.train.iter();
                let rows = train.filter_map(|&row| texts.get(*kept.origins.get(row)?));
                let vocabulary = Vocabulary::fit(rows.map(String::as_str), &self.words);
                let words = vocabulary.words().iter();
                features.extend(words.map(|word| format!("{column}: {word}")));
                return Ok(Fitted::Words(vocabulary, *at));
            }
            Slot::Number {
                column,
                feature,
                fill,
            } => {
                let known = kept.known(start);
                let (value, what) = match fill {
                    NumberFill::Mean => (mean(&known), "the mean of the training split"),
                    NumberFill::MostFrequent => {
                        (mode(known), "the most frequent value of the training split")
                    }
                    NumberFill::Constant(c) => (Some(*c), "a constant"),
                };
                let value = value.ok_or_else(|| self.all_missing(column))?;
                (
                    column,
                    vec![feature.clone()],
                    vec![value],
                    format!("{}, {what}", short(value)),
                )
            }
            Slot::Category {
                column,
                features: names,
            } => {
                let hot = kept
                    .most_frequent_category(start, names.len())
                    .ok_or_else(|| self.all_missing(column))?;
                let fill = (0..names.len()).map(|i| f64::from(u8::from(i == hot)));
                let name = names.get(hot).cloned().unwrap_or_default();
                let what = format!("{name}, the most frequent one of the training split");
                (column, names.clone(), fill.collect(), what)
            }
        };
        features.extend(named);
        let missing = kept.rows().filter(|row| is_missing(row, start)).count();
        let values = match missing {
            0 => return Ok(Fitted::Filled(fill, false)),
            1 => "1 missing value is".to_owned(),
            n => format!("{n} missing values are"),
        };
        let note = format!("note: column {column:?}: {values} filled with {what}");
        finished.notes.push(note);
        let indicator = self.indicator && kept.known(start).len() < kept.train.len();
        if indicator {
            features.push(format!("{column} is missing"));
        }
        Ok(Fitted::Filled(fill, indicator))
    }

    fn all_missing(&self, column: &str) -> DataError {
        DataError::malformed(
            &self.path,
            format!(
                "column {column:?} has no value in any row of the training split, so there is nothing to fill it with: write \
                 missing.columns = {{ {column:?} = {{ constant = 0 }} }}, or ignore = [{column:?}]"
            ),
        )
    }

    /// Writes the features of a row.
    fn write(&self, fitted: &[Fitted], raw: &[f64], origin: usize, out: &mut [f64]) {
        let mut raw = raw.iter().copied();
        let mut at = 0;
        for column in fitted {
            let out = out.get_mut(at..).unwrap_or_default();
            match column {
                Fitted::Complete(n) => {
                    for (out, value) in out.iter_mut().zip(raw.by_ref().take(*n)) {
                        *out = value;
                    }
                    at += n;
                }
                Fitted::Filled(fill, indicator) => {
                    let mut missing = false;
                    for ((out, fill), value) in out.iter_mut().zip(fill).zip(raw.by_ref()) {
                        missing |= value.is_nan();
                        *out = if value.is_nan() { *fill } else { value };
                    }
                    at += fill.len();
                    if *indicator {
                        if let Some(out) = out.get_mut(fill.len()) {
                            *out = f64::from(u8::from(missing));
                        }
                        at += 1;
                    }
                }
                Fitted::Words(vocabulary, text) => {
                    raw.next();
                    let n = vocabulary.words().len();
                    let text = self.texts.get(*text).and_then(|texts| texts.get(origin));
                    if let (Some(text), Some(out)) = (text, out.get_mut(..n)) {
                        vocabulary.weigh(text, out);
                    }
                    at += n;
                }
            }
        }
    }
}

/// The kept rows before they are fitted.
struct Kept<'a> {
    width: usize,
    values: Vec<f64>,
    /// Their positions among the rows of all files.
    origins: &'a [usize],
    /// Which of them are training examples.
    train: &'a [usize],
}

impl Kept<'_> {
    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.width.max(1))
    }

    fn row(&self, row: usize) -> Option<&[f64]> {
        self.values.get(row * self.width..(row + 1) * self.width)
    }

    /// The values of feature `at` in the training split that aren't missing.
    fn known(&self, at: usize) -> Vec<f64> {
        self.train
            .iter()
            .filter_map(|&row| self.row(row)?.get(at).copied())
            .filter(|value| !value.is_nan())
            .collect()
    }

    /// The most frequent of `count` categories in the training split, whose features begin at `start`: its position, and
    /// the first of several.
    fn most_frequent_category(&self, start: usize, count: usize) -> Option<usize> {
        let uses = |at: usize| self.known(start + at).iter().filter(|x| **x == 1.0).count();
        let uses: Vec<usize> = (0..count).map(uses).collect();
        let most = uses.iter().copied().max().filter(|most| *most > 0)?;
        uses.iter().position(|n| *n == most)
    }
}

fn is_missing(row: &[f64], at: usize) -> bool {
    row.get(at).is_some_and(|value| value.is_nan())
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The most frequent value, and the smallest of several.
fn mode(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let mut best: Option<(usize, f64)> = None;
    for same in values.chunk_by(|a, b| a == b) {
        if let Some(value) = same.first()
            && best.is_none_or(|(count, _)| same.len() > count)
        {
            best = Some((same.len(), *value));
        }
    }
    best.map(|(_, value)| value)
}

/// The texts of a row in all columns, one after the other.
fn joined(columns: &[Vec<String>], row: usize) -> String {
    let texts = columns.iter().filter_map(|column| column.get(row));
    texts.map(String::as_str).collect::<Vec<_>>().join(" | ")
}

/// A number for people: with at most four decimals, unless it is so small that they would show nothing of it.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.01 {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_notes_are_short() {
        for (value, text) in [
            (51.314_745_972_738_535, "51.3147"),
            (30.0, "30"),
            (-0.5, "-0.5"),
            (0.0, "0"),
            (1200.0, "1200"),
            (0.000_123_456, "1.235e-4"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn the_most_frequent_value_is_the_smallest_of_several() {
        assert_eq!(mode(vec![3.0, 1.0, 3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(mode(vec![2.0, 5.0, 5.0]), Some(5.0));
        assert_eq!(mode(vec![]), None);
    }
}
