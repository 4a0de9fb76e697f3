//! Edits all files of a task's training examples.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::edit::{Classes, RowEdit, RowEdits};
use super::images::{self, PlacedImage};
use super::{idx, npy, records, table};
use crate::data::spec::{DataSpec, Source};
use crate::data::{DataError, DataSet, cifar10, files, load, sources};
use crate::objective::Split;

/// A data file, and its new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanedFile {
    /// The original file.
    pub path: PathBuf,
    /// Its new content, not compressed. `None` if it doesn't change.
    pub bytes: Option<Vec<u8>>,
}

impl CleanedFile {
    /// Its new content, or that of the original if it doesn't change; not compressed.
    ///
    /// # Errors
    /// If the original can't be read.
    pub fn content(&self) -> Result<Cow<'_, [u8]>, DataError> {
        match &self.bytes {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            None => files::read(&self.path).map(Cow::Owned),
        }
    }
}

/// The data files of a task after the edits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CleanedFiles {
    /// The files with the labels of the training examples, in order: the training files, and others from which training
    /// examples are drawn (`data.pool`) if they change. In a table and in CIFAR-10's files, they also hold the
    /// inputs.
    pub labels: Vec<CleanedFile>,
    /// Files of inputs in the order of `labels`, if they are separate.
    pub inputs: Vec<CleanedFile>,
    /// The images of class folders, which are only placed anew.
    pub images: Vec<PlacedImage>,
    /// The other files of the task, which don't change: those of the validation and test examples, and of the names of classes.
    pub others: Vec<PathBuf>,
    /// Number of labels of the user's own file of labels ([`DataSet::given_labels`]) that these files have.
    pub given: usize,
}

/// Edits the files of a task's training examples. `data` is the data set that was loaded from them, and `edits` has the index
/// of each training example that changes. Rows without an edit get the labels of the user's own file of labels, if the data has
/// some ([`DataSet::given_labels`]). A row that has its label already keeps its bytes. Nothing is written.
///
/// # Errors
/// [`DataError::NotEditable`] if the examples don't come from files of a format that can be edited (`csv`, `npy`, `idx`,
/// `cifar10`, `images`), a file can't be read, or it has no rows left.
pub fn cleaned(
    spec: &DataSpec,
    dir: Option<&Path>,
    data: &dyn DataSet,
    edits: &BTreeMap<u64, RowEdit>,
) -> Result<CleanedFiles, DataError> {
    let names_file = load::class_names_file(spec, dir)?;
    let named = load::with_class_names(spec, dir)?;
    let spec = named.as_ref().unwrap_or(spec);
    let (by_file, given) = by_file(spec, data, edits)?;
    let class = Classes { spec, data };
    let mut files = match spec.source {
        Source::Csv => listed(spec, dir, &by_file, &|path, edits| {
            table::edited(path, spec, edits, &class)
        }),
        Source::Cifar10 => listed(spec, dir, &by_file, &|path, edits| {
            let number = |c: usize| -> Result<Vec<u8>, DataError> { Ok(vec![class.byte(c)?]) };
            records::edited(path, cifar10::RECORD, 0..1, edits, &number)
        }),
        Source::Npy => pairs(spec, dir, &by_file, &class, npy::edited),
        Source::Idx => pairs(spec, dir, &by_file, &class, idx::edited),
        Source::Images => Ok(CleanedFiles {
            images: images::placed(spec, dir, &by_file, &class)?,
            ..CleanedFiles::default()
        }),
        source => Err(DataError::NotEditable {
            source_name: source.name(),
        }),
    }?;
    files.others.extend(names_file);
    files.given = given;
    Ok(files)
}

/// How a file of inputs and labels is edited.
type EditFile<'a> = dyn Fn(&Path, &RowEdits) -> Result<Vec<u8>, DataError> + 'a;

/// Edits a source with inputs and labels in the same file.
fn listed(
    spec: &DataSpec,
    dir: Option<&Path>,
    by_file: &BTreeMap<PathBuf, RowEdits>,
    edit: &EditFile<'_>,
) -> Result<CleanedFiles, DataError> {
    let [train, validation, test] = sources::listed_paths(spec, dir)?;
    let mut out = CleanedFiles::default();
    for path in &train {
        let bytes = by_file.get(path).map(|edits| edit(path, edits));
        out.labels.push(CleanedFile {
            path: path.clone(),
            bytes: bytes.transpose()?,
        });
    }
    for path in validation.into_iter().chain(test) {
        match by_file.get(&path) {
            Some(edits) => out.labels.push(CleanedFile {
                bytes: Some(edit(&path, edits)?),
                path,
            }),
            None => out.others.push(path),
        }
    }
    Ok(out)
}

/// How a file of an array is edited: its path, its edits, and the classes of an array of labels, or `None` for an array of inputs.
type EditArray = fn(&Path, &RowEdits, Option<&Classes<'_>>) -> Result<Vec<u8>, DataError>;

/// Edits a source with inputs and labels in separate files.
fn pairs(
    spec: &DataSpec,
    dir: Option<&Path>,
    by_file: &BTreeMap<PathBuf, RowEdits>,
    class: &Classes<'_>,
    edit: EditArray,
) -> Result<CleanedFiles, DataError> {
    let parts = sources::paired_paths(spec, dir)?;
    let none = RowEdits::new();
    let mut out = CleanedFiles::default();
    for (at, (inputs, labels)) in parts
        .into_iter()
        .enumerate()
        .filter_map(|(at, part)| Some((at, part?)))
    {
        let edits = by_file.get(&inputs).unwrap_or(&none);
        if at > 0 && edits.is_empty() {
            out.others.extend([inputs, labels]);
            continue;
        }
        let dropped: RowEdits = edits
            .iter()
            .filter(|(_, edit)| **edit == RowEdit::Drop)
            .map(|(row, edit)| (*row, *edit))
            .collect();
        let bytes = (!edits.is_empty()).then(|| edit(&labels, edits, Some(class)));
        out.labels.push(CleanedFile {
            bytes: bytes.transpose()?,
            path: labels,
        });
        let bytes = (!dropped.is_empty()).then(|| edit(&inputs, &dropped, None));
        out.inputs.push(CleanedFile {
            bytes: bytes.transpose()?,
            path: inputs,
        });
    }
    Ok(out)
}

/// The edits by file and row, and the number of labels of the user's own among them.
fn by_file(
    spec: &DataSpec,
    data: &dyn DataSet,
    edits: &BTreeMap<u64, RowEdit>,
) -> Result<(BTreeMap<PathBuf, RowEdits>, usize), DataError> {
    let not_editable = || DataError::NotEditable {
        source_name: spec.source.name(),
    };
    let mut places: BTreeMap<(PathBuf, u64), RowEdit> = BTreeMap::new();
    for (&index, &edit) in edits {
        let place = data.origin_path(Split::Train, index);
        places.insert(place.ok_or_else(not_editable)?, edit);
    }
    let mut given = 0;
    for label in data.given_labels() {
        let place = label.place.ok_or_else(not_editable)?;
        if let Entry::Vacant(free) = places.entry(place) {
            let class = data.class_names().iter().position(|c| *c == label.label);
            let class = class.ok_or_else(|| {
                DataError::Other(format!(
                    "the label {:?} of row {} of {}, which a file of labels gave, is none of the run's classes, so it can't be written into \
                     the data: write a file of labels instead (--out-labels)",
                    label.label, label.row, label.file
                ))
            })?;
            free.insert(RowEdit::Relabel(class));
            given += 1;
        }
    }
    let mut found: BTreeMap<PathBuf, RowEdits> = BTreeMap::new();
    for ((path, row), edit) in places {
        found.entry(path).or_default().insert(row, edit);
    }
    Ok((found, given))
}

/// Compresses the content of a file if its name's extension says so: `.gz` or `.xz`.
///
/// # Errors
/// [`DataError::Io`] if the compression fails.
pub fn packed(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    files::pack(path, bytes)
}
