//! Labels of the user's own on the way into a data set: replaced, known to be true, or made wrong on purpose.

use std::path::{Path, PathBuf};

use super::given::Given;
use super::memory::FileStart;
use super::relabel::{self, Purpose};
use super::spec::{DataSpec, Source};
use super::store::{Label, Labels, Store};
use super::{DataError, digits, files, select};

/// The path of a file that the Task names.
pub(super) fn file_in(
    spec: &DataSpec,
    dir: Option<&Path>,
    name: &str,
) -> Result<PathBuf, DataError> {
    let dir = dir.ok_or(DataError::NoFolder {
        source_name: spec.source.name(),
    })?;
    files::Folder::new(dir, &[]).find(&[name])
}

/// What the user's files of labels gave.
pub(super) struct FoundLabels {
    /// Positions among the rows of all files, and their new labels as text.
    pub(super) labels: Vec<(usize, String)>,
    /// Notes about the files.
    pub(super) notes: Vec<String>,
}

/// Replaces labels by those of the user's file, and sets the true labels that are known.
pub(super) fn given_labels(
    spec: &DataSpec,
    given: Given<'_>,
    rows: &mut Store,
    files: &[FileStart],
    names: &[String],
) -> Result<FoundLabels, DataError> {
    let path = |flag: Option<&Path>, key: &Option<String>| match (flag, key) {
        (Some(path), _) => Ok(Some(path.to_path_buf())),
        (None, Some(name)) => file_in(spec, given.folder, name).map(Some),
        (None, None) => Ok(None),
    };
    let own = spec.label.as_ref().map(ToString::to_string);
    let read = |path: &Path, purpose: Purpose, labels: &Labels| {
        relabel::labels(path, purpose, own.as_deref(), files, labels, names)
    };
    let (mut notes, mut found) = (Vec::new(), Vec::new());
    // Which digit was drawn is known.
    let drawn = (spec.source == Source::Digits).then(|| rows.all.labels.clone());
    if let Some(path) = path(given.labels, &spec.labels_file)? {
        let labels = read(&path, Purpose::Labels, &rows.all.labels)?;
        let changed = rows.all.labels.set(labels.iter().copied());
        notes.push(format!(
            "note: labels from {}: {}, changed: {changed}",
            path.display(),
            labels.len()
        ));
        let text = |(row, label): &(usize, Label)| (*row, label.text(names));
        found = labels.iter().map(text).collect();
    }
    rows.truth = drawn;
    if let Some(path) = path(given.truth, &spec.truth_file)? {
        let labels = read(&path, Purpose::Truth, &rows.all.labels)?;
        let truth = rows.truth.get_or_insert_with(|| rows.all.labels.unknown());
        truth.set(labels.iter().copied());
        notes.push(format!(
            "note: true labels from {}: {}",
            path.display(),
            labels.len()
        ));
    }
    Ok(FoundLabels {
        labels: found,
        notes,
    })
}

/// Makes a share of the training labels wrong on purpose. Their labels before are then known to be the true ones, if no
/// others are.
pub(super) fn flip(
    spec: &DataSpec,
    rows: &mut Store,
    train: &[usize],
    classes: usize,
    seed: u64,
) -> Result<(), DataError> {
    let otherwise = match spec.source {
        Source::Digits => digits::FLIPPED,
        _ => 0.0,
    };
    let share = spec.flipped.unwrap_or(otherwise);
    if share > 0.0 {
        match &mut rows.truth {
            Some(truth) => truth.fill_unknown(&rows.all.labels),
            None => rows.truth = Some(rows.all.labels.clone()),
        }
        select::flip(share, train, &mut rows.all.labels, classes, seed)?;
    }
    Ok(())
}
