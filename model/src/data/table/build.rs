//! The features and classes of a table, when all files have been read.

use super::columns::{Table, Use};
use super::fit::{Fit, NumberFill, Slot};
use super::raw::Raw;
use super::spec::{Constant, Fill};
use crate::data::documents::Words;
use crate::data::spec::Target;
use crate::data::store::{Finish, Labels, Rows, Values};
use crate::data::texts::{Numbered, Sorted};
use crate::data::{DataError, Expected};

impl Table<'_> {
    /// The features of each column of inputs, before they are fitted.
    pub(super) fn slots(&self, sorted: &[Sorted]) -> Vec<Slot> {
        let mut slots = Vec::new();
        let columns = self.columns.iter().zip(&self.uses).zip(&self.fills);
        for ((name, usage), fill) in columns {
            let column = name.clone();
            let feature = match usage {
                Use::Label | Use::Ignored => continue,
                Use::Text(at) => {
                    slots.push(Slot::Text { column, at: *at });
                    continue;
                }
                Use::Category(c) => {
                    let names = sorted
                        .get(*c)
                        .map_or(&[][..], |sorted| sorted.names.as_slice());
                    let features = names.iter().map(|text| format!("{name}={text}")).collect();
                    slots.push(match fill {
                        Some(Fill::Mean | Fill::MostFrequent) => {
                            Slot::Category { column, features }
                        }
                        _ => Slot::Complete(features),
                    });
                    continue;
                }
                Use::Number => name.clone(),
                Use::Log1p => format!("log(1 + {name})"),
            };
            let fill = match fill {
                Some(Fill::Mean) => NumberFill::Mean,
                Some(Fill::MostFrequent) => NumberFill::MostFrequent,
                Some(Fill::Constant(Constant::Number(c))) if *usage == Use::Log1p => {
                    NumberFill::Constant(c.ln_1p())
                }
                Some(Fill::Constant(Constant::Number(c))) => NumberFill::Constant(*c),
                _ => {
                    slots.push(Slot::Complete(vec![feature]));
                    continue;
                }
            };
            slots.push(Slot::Number {
                column,
                feature,
                fill,
            });
        }
        slots
    }

    /// What is done when the training split is known. `None` if nothing is to be fitted. The texts of all rows are moved.
    pub(super) fn finish(
        &self,
        slots: Vec<Slot>,
        raw: &mut [Vec<Raw>; 3],
    ) -> Option<Box<dyn Finish>> {
        if slots.iter().all(|slot| matches!(slot, Slot::Complete(_))) {
            return None;
        }
        let first = raw.iter().flatten().next();
        let path = first.map(|file| file.path.clone()).unwrap_or_default();
        let mut texts: Vec<Vec<String>> = Vec::new();
        for file in raw.iter_mut().flatten() {
            texts.resize_with(file.texts.len(), Vec::new);
            for (all, of_file) in texts.iter_mut().zip(&mut file.texts) {
                all.append(of_file);
            }
        }
        let words = self.spec.tfidf.as_ref().map(Words::from);
        Some(Box::new(Fit {
            path,
            slots,
            texts,
            words: words.unwrap_or_default(),
            indicator: self.spec.missing.as_ref().is_some_and(|m| m.indicator),
        }))
    }

    /// The names of the classes and the class of each label text. Both are empty for labels that are values.
    pub(super) fn classes(&self) -> Result<Numbered, DataError> {
        if self.spec.target == Some(Target::Value) {
            return Ok(Numbered::default());
        }
        let given = &self.spec.class_names;
        if given.is_empty() {
            self.none_missing()?;
        }
        self.labels
            .numbered(&format!("column {:?}", self.label), given)
    }

    /// Checks that no label among numbers is a text that programs write for a missing value.
    fn none_missing(&self) -> Result<(), DataError> {
        let Some((text, n)) = self.labels.missing_among_numbers() else {
            return Ok(());
        };
        let (path, row, line) = self
            .first_labels
            .get(n as usize)
            .cloned()
            .unwrap_or_default();
        let column = &self.label;
        Err(DataError::Cell {
            path,
            row,
            line,
            column: column.as_str().into(),
            expected: Expected::Text("a number, as all other labels are".into()),
            got: text.into(),
            hint: format!(
                "Give the row its label or leave the row out: missing = {{ columns = {{ {column:?} = \"drop\" }}, texts = [{text:?}] }}; \
                 to train on it as a class of its own, write merge = {{ {column:?} = {{ unknown = [{text:?}] }} }}"
            )
            .into(),
        })
    }

    /// The rows of one file, with categories encoded one-hot.
    pub(super) fn part(
        &self,
        raw: Raw,
        sorted: &[Sorted],
        features: usize,
        place: Option<&[u32]>,
    ) -> Result<Rows, DataError> {
        let rows = raw.labels.len();
        let inputs: Vec<Use> = self
            .uses
            .iter()
            .copied()
            .filter(|u| !matches!(u, Use::Label | Use::Ignored))
            .collect();
        let mut values = Vec::with_capacity(rows * features);
        for cells in raw.cells.chunks_exact(inputs.len().max(1)) {
            for (cell, usage) in cells.iter().zip(&inputs) {
                let Use::Category(c) = usage else {
                    values.push(*cell);
                    continue;
                };
                let Some(sorted) = sorted.get(*c) else {
                    continue;
                };
                if cell.is_nan() {
                    values.extend(sorted.names.iter().map(|_| f64::NAN));
                    continue;
                }
                let hot = sorted
                    .places
                    .get(*cell as usize)
                    .map_or(usize::MAX, |p| *p as usize);
                values.extend((0..sorted.names.len()).map(|i| if i == hot { 1.0 } else { 0.0 }));
            }
        }
        let labels = match place {
            Some(place) => Labels::Classes(
                raw.labels
                    .iter()
                    .map(|n| place.get(*n as usize).copied().unwrap_or(0))
                    .collect(),
            ),
            None => Labels::Values {
                width: 1,
                data: raw.labels,
            },
        };
        let read = Rows::new(
            &raw.path,
            &raw.path,
            vec![features],
            rows,
            Values::F64(values),
            labels,
        )?;
        Ok(Rows {
            left_out: raw.left_out,
            ..read
        })
    }
}
