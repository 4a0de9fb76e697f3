//! Rows that a Task's data doesn't have, read and scaled as its own, so that a trained model can predict them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::load::load_reporting;
use super::report::Report;
use super::spec::{DataSpec, Files, Pair, Pool, Source, Target};
use super::texts::listed;
use super::{DataError, DataSet, Given};
use crate::objective::Split;

/// Training examples whose inputs are compared, to check that new rows are scaled as the known ones.
const COMPARED: u64 = 64;

/// Rows from files of the user's own, for predictions.
pub struct NewRows {
    /// A data set whose test split has the new rows, after those of the Task.
    pub data: Box<dyn DataSet>,
    /// The indices of the new rows in the test split, in the order of the file.
    pub examples: Vec<u64>,
    /// The absolute path of the file or folder with the new rows.
    path: PathBuf,
    /// Whether the rows have labels. If they have none, those of `data` are placeholders.
    pub labelled: bool,
}

/// Reads new rows with the columns, classes, words and statistics of a Task's data. `known` is the data of the Task, loaded
/// with the same `given` and `seed`. `files` has one path, or two for inputs and labels in separate files.
///
/// Labels are optional: a table without the column of labels, documents without the field, an array of inputs alone, and a
/// folder that holds images and no folder of a class. A file in which some documents have a label counts as one without.
///
/// # Errors
/// If the source isn't one that can be read so, a file can't be read, a class or a category isn't among the known ones, or
/// the training examples wouldn't be those of `known`.
pub fn load_new_rows(
    spec: &DataSpec,
    given: Given<'_>,
    seed: u64,
    files: &[PathBuf],
    known: &dyn DataSet,
) -> Result<NewRows, DataError> {
    let (asked, path) = with_rows(spec, files, known)?;
    let report = Report::with_placeholder(&path);
    let folder = Given::from(given.folder);
    let mut data = load_reporting(&asked, None, folder, seed, &report)?;
    // The training labels may be corrected ones, which aren't read here.
    data.target_scale = known.target_scale().cloned();
    same_as_known(&path, &data, known)?;
    let labelled = !report.lacks_labels();
    if !labelled && !spec.classes.is_empty() {
        return Err(DataError::malformed(
            &path,
            "the rows need labels, because the task keeps only some classes (data.classes)",
        ));
    }
    // A file that is also one of the Task's test files is read twice: the later rows are the new ones.
    let mut rows = BTreeMap::new();
    for index in 0..data.len(Split::Test) {
        if let Some((file, row)) = data.origin_path(Split::Test, index)
            && file.starts_with(&path)
        {
            rows.insert((file, row), index);
        }
    }
    let mut examples: Vec<u64> = rows.into_values().collect();
    examples.sort_unstable();
    if examples.is_empty() {
        return Err(DataError::malformed(&path, "no row is left to predict"));
    }
    Ok(NewRows {
        data: Box::new(data),
        examples,
        path,
        labelled,
    })
}

impl NewRows {
    /// The file of a new row and its row there, from 0. The name begins with the last part of the path that was given. Images are
    /// counted through their folder. `None` if there are fewer new rows.
    pub fn place(&self, position: u64) -> Option<(String, u64)> {
        let index = *self.examples.get(usize::try_from(position).ok()?)?;
        let (path, row) = self.data.origin_path(Split::Test, index)?;
        let mut name = PathBuf::from(self.path.file_name().unwrap_or_default());
        let within = path.strip_prefix(&self.path).unwrap_or(Path::new(""));
        if within.as_os_str().is_empty() {
            return Some((name.display().to_string(), row));
        }
        name.push(within);
        Some((name.display().to_string(), position))
    }
}

/// The table of a Task with other test files: the new rows, after the Task's own test files if these count for the
/// categories. Also the path of the new rows.
fn with_rows(
    spec: &DataSpec,
    files: &[PathBuf],
    known: &dyn DataSet,
) -> Result<(DataSpec, PathBuf), DataError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| DataError::io(path, e));
    let files: Vec<PathBuf> = files.iter().map(absolute).collect::<Result<_, _>>()?;
    let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let pairs = matches!(spec.source, Source::Idx | Source::Npy);
    let (new, path) = match (spec.source, files.as_slice(), names.as_slice()) {
        (Source::Csv | Source::Documents | Source::Images, [path], [name])
        | (Source::Idx | Source::Npy, [path], [name]) => (Files::One(name.clone()), path),
        (Source::Idx | Source::Npy, [path, _], [inputs, labels]) => (
            Files::Pair(Pair {
                inputs: inputs.clone(),
                labels: labels.clone(),
            }),
            path,
        ),
        (Source::Csv | Source::Documents | Source::Images | Source::Idx | Source::Npy, ..) => {
            let expected = if pairs {
                "a file of inputs, and one of labels if there is one"
            } else {
                "one file or folder"
            };
            return Err(DataError::spec(
                "source",
                format!(
                    "new rows of {:?}: expected {expected}, got {}",
                    spec.source.name(),
                    files.len()
                ),
            ));
        }
        (source, ..) => {
            return Err(DataError::spec(
                "source",
                format!(
                    "new rows can be read from the sources csv, documents, images, npy and idx, but the task's is {:?}",
                    source.name()
                ),
            ));
        }
    };
    let mut asked = spec.clone();
    let held = |n: Option<u64>| n.unwrap_or(0);
    if spec.pool != Pool::Separate {
        // The same rows are drawn as before, the validation and the test examples together.
        let drawn = held(spec.validation) + held(spec.test);
        asked.validation = Some(drawn);
        asked.pool = Pool::Separate;
        if spec.pool == Pool::All {
            asked.train_files = Some(joined(spec.train_files.as_ref(), spec.test_files.as_ref())?);
        }
    }
    let own_test = spec.pool == Pool::Separate && spec.test != Some(0);
    asked.test_files = Some(match (spec.source, own_test, &spec.test_files, new) {
        // Categories that only test examples have are features, too.
        (Source::Csv, true, Some(test), new) => joined(Some(test), Some(&new))?,
        (_, _, _, new) => new,
    });
    asked.test = None;
    (asked.labels_file, asked.truth_file, asked.flipped) = (None, None, None);
    let unnamed = spec.class_names.is_empty() && spec.class_names_file.is_none();
    let by_name = spec.source != Source::Documents && spec.classes.is_empty();
    if unnamed && by_name && spec.target != Some(Target::Value) {
        asked.class_names = known.class_names().to_vec();
    }
    Ok((asked, path.clone()))
}

/// Two lists of files as one.
fn joined(a: Option<&Files>, b: Option<&Files>) -> Result<Files, DataError> {
    let mut names = Vec::new();
    for files in [a, b].into_iter().flatten() {
        match files {
            Files::One(name) => names.push(name.clone()),
            Files::Many(many) => names.extend(many.iter().cloned()),
            Files::Pair(_) => {
                return Err(DataError::spec(
                    "pool",
                    "new rows can't be read for arrays with pool = \"all\"",
                ));
            }
        }
    }
    Ok(Files::Many(names))
}

/// Checks that features, classes and training examples are those of the known data.
fn same_as_known(path: &Path, data: &dyn DataSet, known: &dyn DataSet) -> Result<(), DataError> {
    let others = |mine: &[String], known: &[String]| -> Vec<String> {
        let new = mine.iter().filter(|name| !known.contains(name));
        new.cloned().collect()
    };
    let features = others(data.feature_names(), known.feature_names());
    if !features.is_empty() {
        return Err(DataError::malformed(
            path,
            format!(
                "has categories that no row of the task's data has, so the model has no input for them: {}. Write one of the known ones in their \
                 place, or leave these rows out",
                listed(&features)
            ),
        ));
    }
    if data.shape() != known.shape() {
        return Err(DataError::malformed(
            path,
            format!(
                "has examples of shape {:?}, expected {:?} as in the task's data",
                data.shape(),
                known.shape()
            ),
        ));
    }
    let classes = others(data.class_names(), known.class_names());
    if !classes.is_empty() || data.class_names() != known.class_names() {
        return Err(DataError::malformed(
            path,
            format!(
                "has labels that are none of the model's classes: {}. The classes are {}. Without labels, the rows can be predicted all the same",
                listed(&classes),
                listed(known.class_names())
            ),
        ));
    }
    let n = known.len(Split::Train);
    let some: Vec<u64> = (0..n.min(COMPARED)).collect();
    let inputs = |of: &dyn DataSet| -> Result<Vec<f64>, DataError> {
        let batch = of.batch(Split::Train, &some, None, DType::F64, &Device::Cpu)?;
        let values = batch.inputs.flatten_all().and_then(|x| x.to_vec1());
        values.map_err(DataError::from)
    };
    if data.len(Split::Train) != n || inputs(data)? != inputs(known)? {
        return Err(DataError::malformed(
            path,
            "the training examples would be others with these rows, so the rows would be scaled otherwise: please report this task",
        ));
    }
    Ok(())
}
