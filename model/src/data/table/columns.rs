//! The columns of a table and their uses.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::separator::separated_otherwise;
use super::spec::{Constant, Fill};
use crate::data::DataError;
use crate::data::report::Report;
use crate::data::spec::{ColumnRef, DataSpec};
use crate::data::texts::{Texts, listed};

/// The use of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Number,
    /// A number x of which log(1 + x) is the input.
    Log1p,
    /// A category, with its position in [`Table::categories`].
    Category(usize),
    /// Free text, with its position among the text columns.
    Text(usize),
    Label,
    Ignored,
}

/// The columns of a table, and the texts in the files that were read so far.
pub(super) struct Table<'a> {
    pub(super) spec: &'a DataSpec,
    /// Takes bad rows and cells.
    pub(super) report: &'a Report,
    /// The name of the label's column.
    pub(super) label: String,
    /// Names of the columns, in the order of the first file.
    pub(super) columns: Vec<String>,
    pub(super) uses: Vec<Use>,
    /// For each column, what takes the place of a missing value. `None` if it is refused.
    pub(super) fills: Vec<Option<Fill>>,
    /// For each column, the texts that count as another text.
    pub(super) merged: Vec<HashMap<&'a str, &'a str>>,
    pub(super) categories: Vec<Texts>,
    pub(super) labels: Texts,
    /// For each distinct label text, the file, row and line of its first occurrence.
    pub(super) first_labels: Vec<(PathBuf, u64, u64)>,
}

impl<'a> Table<'a> {
    /// A table of which no file has been read.
    pub(super) fn new(spec: &'a DataSpec, report: &'a Report) -> Self {
        Self {
            spec,
            report,
            label: String::new(),
            columns: Vec::new(),
            uses: Vec::new(),
            fills: Vec::new(),
            merged: Vec::new(),
            categories: Vec::new(),
            labels: Texts::default(),
            first_labels: Vec::new(),
        }
    }
}

impl Table<'_> {
    /// Takes the columns from the first file, and checks that the other files have the same.
    /// `unlabelled` says that the column of labels was added.
    pub(super) fn header(
        &mut self,
        path: &Path,
        header: &[String],
        unlabelled: bool,
    ) -> Result<(), DataError> {
        if !self.columns.is_empty() {
            if self.columns != header && self.report.may_lack_labels(path) {
                let without = |names: &[String]| -> Vec<String> {
                    let other = |name: &&String| !unlabelled || **name != self.label;
                    names.iter().filter(other).cloned().collect()
                };
                let (found, known) = (without(header), without(&self.columns));
                let what = match found.as_slice() {
                    [] => "is empty".to_owned(),
                    found => format!("has the columns {}", listed(found)),
                };
                let hint = match found.as_slice() {
                    [one] => separated_otherwise(one, self.spec),
                    _ => None,
                };
                let hint = hint.map_or_else(String::new, |hint| format!(". {hint}"));
                return Err(DataError::malformed(
                    path,
                    format!(
                        "{what}, expected those of the task's data, in the same order: {} (the column of labels, {:?}, may be left out){hint}",
                        listed(&known),
                        self.label
                    ),
                ));
            }
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
        if let Some(label) = &self.spec.label {
            self.label = label_column(label, path, header)?;
        }
        self.check_names(path, header)?;
        self.columns = header.to_vec();
        self.uses(header)?;
        if !self.uses.iter().any(|u| {
            matches!(
                u,
                Use::Number | Use::Log1p | Use::Category(_) | Use::Text(_)
            )
        }) {
            return Err(DataError::malformed(
                path,
                format!("has no column of inputs, only {}", listed(header)),
            ));
        }
        self.fills = (0..header.len())
            .map(|at| self.fill(at))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Checks that there are all columns that the Task names.
    fn check_names(&self, path: &Path, header: &[String]) -> Result<(), DataError> {
        let spec = self.spec;
        let filled = spec.missing.iter().flat_map(|m| m.columns.keys());
        let texts = spec.tfidf.iter().flat_map(|words| &words.columns);
        let named = std::iter::once(("label", &self.label))
            .chain(spec.categorical.iter().map(|n| ("categorical", n)))
            .chain(spec.ignore.iter().map(|n| ("ignore", n)))
            .chain(spec.log1p.iter().map(|n| ("log1p", n)))
            .chain(spec.merge.keys().map(|n| ("merge", n)))
            .chain(texts.map(|n| ("tfidf.columns", n)))
            .chain(filled.map(|n| ("missing.columns", n)));
        for (key, name) in named {
            if !header.contains(name) {
                return Err(DataError::spec(
                    key,
                    format!(
                        "{} has no column {name:?}; {}",
                        path.display(),
                        match header {
                            [] => "it has no header line with names of columns".to_owned(),
                            [one] => match separated_otherwise(one, spec) {
                                Some(hint) => format!("it has {}. {hint}", listed(header)),
                                None => format!("it has {}", listed(header)),
                            },
                            header => format!("it has {}", listed(header)),
                        }
                    ),
                ));
            }
            if !matches!(key, "label" | "merge" | "missing.columns") && *name == self.label {
                return Err(DataError::spec(
                    key,
                    format!("{name:?} is the label's column"),
                ));
            }
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
        let words = self.spec.tfidf.as_ref();
        let texts = set(words.map_or(&[][..], |words| words.columns.as_slice()));
        let mut text_columns = 0;
        for name in header {
            self.uses.push(if *name == self.label {
                Use::Label
            } else if ignored.contains(name) {
                Use::Ignored
            } else if categorical.contains(name) {
                self.categories.push(Texts::default());
                Use::Category(self.categories.len() - 1)
            } else if texts.contains(name) {
                text_columns += 1;
                Use::Text(text_columns - 1)
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
            let usage = self.uses.last();
            let text = matches!(usage, Some(Use::Category(_) | Use::Label));
            if groups.is_some() && !text {
                return Err(DataError::spec(
                    "merge",
                    format!("{name:?} is not a column of text: name it in data.categorical, too"),
                ));
            }
            if log1p.contains(name) && usage != Some(&Use::Log1p) {
                return Err(DataError::spec(
                    "log1p",
                    format!("{name:?} is ignored or a column of text"),
                ));
            }
            if texts.contains(name) && !matches!(usage, Some(Use::Text(_))) {
                return Err(DataError::spec(
                    "tfidf.columns",
                    format!(
                        "{name:?} is also in data.ignore or data.categorical: name it in one of them"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What takes the place of a missing value in a column.
    fn fill(&self, at: usize) -> Result<Option<Fill>, DataError> {
        let (Some(missing), Some(name), Some(usage)) =
            (&self.spec.missing, self.columns.get(at), self.uses.get(at))
        else {
            return Ok(None);
        };
        let own = missing.columns.get(name);
        let numeric = matches!(usage, Use::Number | Use::Log1p);
        let wrong = |what: &str| {
            Err(DataError::spec(
                "missing.columns",
                format!("column {name:?} {what}"),
            ))
        };
        match (own, usage) {
            (Some(_), Use::Ignored) => return wrong("is in data.ignore, so it needs no fill"),
            (Some(Fill::Drop), _) | (None, Use::Ignored) => {}
            (Some(_), Use::Label) => {
                return wrong("is the label's column: only \"drop\" is possible, or data.merge");
            }
            (Some(Fill::Mean), Use::Category(_)) => {
                return wrong("holds categories, which have no mean: write \"most-frequent\"");
            }
            (Some(Fill::Mean | Fill::MostFrequent), Use::Text(_)) => {
                return wrong(
                    "holds free text: only \"drop\" or { constant = \"…\" } are possible",
                );
            }
            (Some(Fill::Constant(Constant::Text(_))), _) if numeric => {
                return wrong("holds numbers: write a number as its constant");
            }
            (Some(Fill::Constant(Constant::Number(c))), Use::Log1p) if *c <= -1.0 => {
                return wrong("is in data.log1p, so its constant must be above -1");
            }
            _ => {}
        }
        if let Some(own) = own {
            return Ok(Some(own.clone()));
        }
        // The fill of all columns applies where it has a meaning.
        Ok(missing.fill.clone().filter(|fill| match (fill, usage) {
            (_, Use::Ignored) => false,
            (Fill::Drop, _) => true,
            (_, Use::Label | Use::Text(_)) => false,
            (Fill::Constant(Constant::Number(c)), Use::Log1p) => *c > -1.0,
            (Fill::Constant(Constant::Number(_)), _) => numeric,
            (Fill::Constant(Constant::Text(_)), _) => !numeric,
            (Fill::Mean | Fill::MostFrequent, _) => true,
        }))
    }
}

/// The name of the label's column.
pub(in crate::data) fn label_column(
    label: &ColumnRef,
    path: &Path,
    header: &[String],
) -> Result<String, DataError> {
    let number = match label {
        ColumnRef::Name(name) => return Ok(name.clone()),
        ColumnRef::Number(number) => *number,
    };
    let name = number.to_string();
    if header.contains(&name) {
        return Ok(name);
    }
    let columns = header.len() as i64;
    let at = match number {
        1.. => Some(number - 1),
        ..0 => columns.checked_add(number),
        0 => None,
    };
    let at = at.and_then(|at| usize::try_from(at).ok());
    at.and_then(|at| header.get(at)).cloned().ok_or_else(|| {
        DataError::spec(
            "label",
            format!(
                "{} has no column {number}: it has {columns} columns, 1 to {columns} from the left or -1 to -{columns} from the \
                 right ({})",
                path.display(),
                listed(header)
            ),
        )
    })
}
