//! The columns of a table and their uses.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::data::spec::DataSpec;
use crate::data::texts::{Texts, listed};

/// The use of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Number,
    /// A number x of which log(1 + x) is the input.
    Log1p,
    /// A category, with its position in [`Table::categories`].
    Category(usize),
    Label,
    Ignored,
}

/// The columns of a table, and the texts in the files that were read so far.
pub(super) struct Table<'a> {
    pub(super) spec: &'a DataSpec,
    pub(super) label: &'a str,
    /// Names of the columns, in the order of the first file.
    pub(super) columns: Vec<String>,
    pub(super) uses: Vec<Use>,
    /// For each column, the texts that count as another text.
    pub(super) merged: Vec<HashMap<&'a str, &'a str>>,
    pub(super) categories: Vec<Texts>,
    pub(super) labels: Texts,
    /// For each distinct label text, the file, row and line of its first occurrence.
    pub(super) first_labels: Vec<(PathBuf, u64, u64)>,
}

impl Table<'_> {
    /// Takes the columns from the first file, and checks that the other files have the same.
    pub(super) fn header(&mut self, path: &Path, header: &[String]) -> Result<(), DataError> {
        if !self.columns.is_empty() {
            if self.columns != header {
                let what = format!(
                    "has columns {}, but the previous files have {}",
                    listed(header),
                    listed(&self.columns)
                );
                return Err(DataError::malformed(path, what));
            }
            return Ok(());
        }
        let mut names = HashSet::with_capacity(header.len());
        if let Some(twice) = header.iter().find(|name| !names.insert(name.as_str())) {
            return Err(DataError::malformed(
                path,
                format!("has two columns {twice:?}: rename one of them"),
            ));
        }
        let label = std::slice::from_ref(&self.spec.label).iter().flatten();
        let named = label
            .map(|n| ("label", n))
            .chain(self.spec.categorical.iter().map(|n| ("categorical", n)))
            .chain(self.spec.ignore.iter().map(|n| ("ignore", n)))
            .chain(self.spec.log1p.iter().map(|n| ("log1p", n)))
            .chain(self.spec.merge.keys().map(|n| ("merge", n)));
        for (key, name) in named {
            if !names.contains(name.as_str()) {
                return Err(DataError::spec(
                    key,
                    format!(
                        "{} has no column {name:?}; {}",
                        path.display(),
                        match header {
                            [] => "it has no header line with names of columns".to_owned(),
                            header => format!("it has {}", listed(header)),
                        }
                    ),
                ));
            }
            if !matches!(key, "label" | "merge") && name == self.label {
                return Err(DataError::spec(
                    key,
                    format!("{name:?} is the label's column"),
                ));
            }
        }
        self.columns = header.to_vec();
        self.uses(header)?;
        if !self
            .uses
            .iter()
            .any(|u| matches!(u, Use::Number | Use::Log1p | Use::Category(_)))
        {
            return Err(DataError::malformed(
                path,
                format!("has no column of inputs, only {}", listed(header)),
            ));
        }
        Ok(())
    }

    /// Determines the use of each column.
    fn uses(&mut self, header: &[String]) -> Result<(), DataError> {
        let set = |names: &'_ [String]| names.iter().cloned().collect::<HashSet<String>>();
        let (ignored, categorical, log1p) = (
            set(&self.spec.ignore),
            set(&self.spec.categorical),
            set(&self.spec.log1p),
        );
        for name in header {
            self.uses.push(if name == self.label {
                Use::Label
            } else if ignored.contains(name) {
                Use::Ignored
            } else if categorical.contains(name) {
                self.categories.push(Texts::default());
                Use::Category(self.categories.len() - 1)
            } else if log1p.contains(name) {
                Use::Log1p
            } else {
                Use::Number
            });
            let groups = self.spec.merge.get(name);
            self.merged.push(
                groups
                    .into_iter()
                    .flatten()
                    .flat_map(|(to, from)| from.iter().map(|text| (text.as_str(), to.as_str())))
                    .collect(),
            );
            let text = matches!(self.uses.last(), Some(Use::Category(_) | Use::Label));
            if groups.is_some() && !text {
                return Err(DataError::spec(
                    "merge",
                    format!("{name:?} is not a column of text: name it in data.categorical, too"),
                ));
            }
            if log1p.contains(name) && self.uses.last() != Some(&Use::Log1p) {
                return Err(DataError::spec(
                    "log1p",
                    format!("{name:?} is ignored or a column of text"),
                ));
            }
        }
        Ok(())
    }
}
