//! The files that each source reads, and their names.

use super::array::LabelArray;
use super::report::Report;
use super::spec::{DataSpec, Files, Pair, Pool, Source};
use super::store::{Rows, SourceRows};
use super::{
    DataError, cifar10, digits, documents, encoding, files, idx, images, npy, pairs, table,
    tensors, windows,
};
use crate::objective::Split;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Names of a file. The first is used in messages, the others are those of some mirrors.
type Names<'a> = &'a [&'a str];

/// MNIST's files: inputs and labels of the training set, then of the test set.
const MNIST: [[Names<'static>; 2]; 2] = [
    [
        &["train-images-idx3-ubyte", "train-images.idx3-ubyte"],
        &["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"],
    ],
    [
        &["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"],
        &["t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"],
    ],
];

/// Reads all files of the table, or generates the digits.
pub(super) fn read(
    spec: &DataSpec,
    dir: Option<&Path>,
    seed: u64,
    report: &Report,
) -> Result<SourceRows, DataError> {
    if spec.source == Source::Digits {
        return read_digits(spec, seed);
    }
    let folder = folder(spec, dir)?;
    match spec.source {
        Source::Idx => {
            let how = pairs::Readers {
                inputs: idx::read,
                labels: |path| idx::read(path).map(LabelArray::Numbers),
            };
            read_pairs(spec, &folder, Some(&MNIST), &how, report)
        }
        Source::Images => {
            let how = spec.images.clone().unwrap_or_default();
            let (root, folders) = image_folders(spec, dir)?;
            images::read(&how, &spec.class_names, root, &folders, report)
        }
        Source::Npy => {
            let how = pairs::Readers {
                inputs: npy::read,
                labels: npy::read_labels,
            };
            read_pairs(spec, &folder, None, &how, report)
        }
        Source::Cifar10 => {
            let names = Some(cifar10::NAMES.map(String::from).to_vec());
            Ok(SourceRows {
                names,
                ..lists(spec, &folder, cifar10::read)?
            })
        }
        Source::Safetensors => lists(spec, &folder, |path| tensors::read(path, spec)),
        Source::Documents => {
            let how = spec.documents.clone().unwrap_or_default();
            let label = spec.label.as_ref().map(ToString::to_string);
            let label = label.unwrap_or_default();
            documents::read(
                &how,
                &label,
                &spec.class_names,
                encoding::named(spec.encoding.as_deref())?,
                &paths(spec, &folder)?,
                report,
            )
        }
        Source::Text => {
            let [train, validation, test] = paths(spec, &folder)?;
            let how = spec.text.as_ref().ok_or_else(|| {
                DataError::spec("text", "expected a table with the length of a window")
            })?;
            windows::read(
                how,
                encoding::named(spec.encoding.as_deref())?,
                &train,
                &validation,
                &test,
            )
        }
        Source::Csv | Source::Digits => {
            let [train, validation, test] = paths(spec, &folder)?;
            table::read(spec, &train, &validation, &test, report)
        }
    }
}

/// The data folder, with the sub-folders in which the files of this source usually are.
fn folder<'a>(spec: &DataSpec, dir: Option<&'a Path>) -> Result<files::Folder<'a>, DataError> {
    let dir = dir.ok_or(DataError::NoFolder {
        source_name: spec.source.name(),
    })?;
    let below: &[&str] = match spec.source {
        Source::Idx => &["mnist", "MNIST/raw"],
        Source::Cifar10 => &["cifar10", "cifar-10-batches-bin"],
        // Users' own tables and documents are not in these folders, so messages only name them if they exist.
        Source::Csv if dir.join("adult").is_dir() => &["adult"],
        Source::Documents if dir.join("20news").is_dir() => &["20news"],
        _ => &[],
    };
    Ok(files::Folder::new(dir, below))
}

/// Paths of the training, validation and test files of a source with inputs and labels in the same file.
pub(super) fn listed_paths(
    spec: &DataSpec,
    dir: Option<&Path>,
) -> Result<[Vec<PathBuf>; 3], DataError> {
    paths(spec, &folder(spec, dir)?)
}

/// Paths of the training, validation and test files of a source with separate files: inputs and labels.
pub(super) fn paired_paths(
    spec: &DataSpec,
    dir: Option<&Path>,
) -> Result<[Option<pairs::Pair>; 3], DataError> {
    let usual = (spec.source == Source::Idx).then_some(&MNIST);
    paths_of_pairs(spec, &folder(spec, dir)?, usual)
}

/// The files that a task's data is read from, and the folders of its images, as far as they can be found. Nothing is read.
pub fn data_files(spec: &DataSpec, dir: Option<&Path>) -> Vec<PathBuf> {
    let parts = match spec.source {
        Source::Digits => Vec::new(),
        Source::Idx | Source::Npy => paired_paths(spec, dir)
            .map(|parts| {
                let pairs = parts.into_iter().flatten();
                pairs
                    .flat_map(|(inputs, labels)| [inputs, labels])
                    .collect()
            })
            .unwrap_or_default(),
        Source::Images => image_folders(spec, dir)
            .map(|(_, folders)| folders.into_iter().flatten().collect())
            .unwrap_or_default(),
        _ => listed_paths(spec, dir)
            .map(|lists| lists.into_iter().flatten().collect())
            .unwrap_or_default(),
    };
    let beside = [&spec.labels_file, &spec.truth_file, &spec.class_names_file];
    let beside = beside.into_iter().flatten();
    let beside = beside.map(|name| dir.unwrap_or(Path::new("")).join(name));
    parts.into_iter().chain(beside).collect()
}

/// The data folder, and the folders of training, validation and test images.
pub(super) fn image_folders<'a>(
    spec: &DataSpec,
    dir: Option<&'a Path>,
) -> Result<(&'a Path, [Vec<PathBuf>; 3]), DataError> {
    let folder = folder(spec, dir)?;
    let [train, validation, test] = names(spec);
    let find = |names: Vec<String>| -> Result<Vec<PathBuf>, DataError> {
        names.iter().map(|name| folder.find_folder(name)).collect()
    };
    Ok((folder.dir(), [find(train)?, find(validation)?, find(test)?]))
}

/// Paths of the training, validation and test files. Only the training files must exist.
fn paths_of_pairs(
    spec: &DataSpec,
    folder: &files::Folder<'_>,
    usual: Option<&[[Names<'_>; 2]; 2]>,
) -> Result<[Option<pairs::Pair>; 3], DataError> {
    type Usual<'a> = Option<[Names<'a>; 2]>;
    let part =
        |given: Option<&Files>, usual: Usual<'_>| -> Result<Option<pairs::Pair>, DataError> {
            Ok(match (given, usual) {
                (Some(Files::Pair(Pair { inputs, labels })), _) => {
                    Some((folder.find(&[inputs])?, folder.find(&[labels])?))
                }
                (_, Some([inputs, labels])) => Some((folder.find(inputs)?, folder.find(labels)?)),
                _ => None,
            })
        };
    let train = part(spec.train_files.as_ref(), usual.map(|u| u[0]))?.ok_or_else(|| {
        DataError::spec("train_files", "name the files with the training examples")
    })?;
    let validation = part(spec.validation_files.as_ref(), None)?;
    // If the Task names its own training files, the usual test files don't belong to them.
    let usual_test = usual.filter(|_| spec.train_files.is_none()).map(|u| u[1]);
    let test = if wants_test(spec) {
        part(spec.test_files.as_ref(), usual_test)?
    } else {
        None
    };
    Ok([Some(train), validation, test])
}

fn read_digits(spec: &DataSpec, seed: u64) -> Result<SourceRows, DataError> {
    let draw = |count: Option<u64>, split: Split| {
        digits::draw(count.unwrap_or(digits::size(split)), split, seed)
    };
    let train = draw(spec.train, Split::Train)?;
    let validation = draw(spec.validation, Split::Validation)?;
    let test = draw(spec.test, Split::Test)?;
    Ok(SourceRows {
        names: Some((0..10).map(|d| d.to_string()).collect()),
        ..SourceRows::of(train, Some(validation), Some(test))
    })
}

/// Whether the test files are needed.
fn wants_test(spec: &DataSpec) -> bool {
    match spec.pool {
        Pool::Separate => spec.test != Some(0),
        Pool::Train => false,
        Pool::All => true,
    }
}

/// Reads a source with inputs and labels in separate files.
fn read_pairs(
    spec: &DataSpec,
    folder: &files::Folder<'_>,
    usual: Option<&[[Names<'_>; 2]; 2]>,
    how: &pairs::Readers,
    report: &Report,
) -> Result<SourceRows, DataError> {
    let unlabelled = match &spec.test_files {
        Some(Files::One(name)) => Some(folder.find(&[name])?),
        _ => None,
    };
    let paths = paths_of_pairs(spec, folder, usual)?;
    pairs::read(spec, &paths, unlabelled.as_deref(), how, report)
}

/// Reads a source with inputs and labels in the same file. Several files are read in parallel.
fn lists(
    spec: &DataSpec,
    folder: &files::Folder<'_>,
    read: impl Fn(&Path) -> Result<Rows, DataError> + Sync,
) -> Result<SourceRows, DataError> {
    let [train, validation, test] = paths(spec, folder)?;
    let part = |paths: &[PathBuf]| -> Result<Option<Rows>, DataError> {
        let parts: Vec<Rows> = paths
            .par_iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        let mut parts = parts.into_iter();
        let Some(mut first) = parts.next() else {
            return Ok(None);
        };
        for part in parts {
            first.append(part)?;
        }
        Ok(Some(first))
    };
    let train = part(&train)?
        .ok_or_else(|| DataError::spec("train_files", "expected at least one file"))?;
    Ok(SourceRows::of(train, part(&validation)?, part(&test)?))
}

/// Names of the training, validation and test files.
fn names(spec: &DataSpec) -> [Vec<String>; 3] {
    let given = |files: Option<&Files>| -> Vec<String> {
        match files {
            Some(Files::One(name)) => vec![name.clone()],
            Some(Files::Many(names)) => names.clone(),
            _ => Vec::new(),
        }
    };
    let mut train = given(spec.train_files.as_ref());
    let mut test = given(spec.test_files.as_ref());
    if spec.source == Source::Cifar10 && train.is_empty() {
        train = cifar10::TRAIN.map(String::from).to_vec();
        if test.is_empty() {
            test = vec![cifar10::TEST.to_string()];
        }
    }
    if !wants_test(spec) {
        test.clear();
    }
    [train, given(spec.validation_files.as_ref()), test]
}

/// Paths of the training, validation and test files.
fn paths(spec: &DataSpec, folder: &files::Folder<'_>) -> Result<[Vec<PathBuf>; 3], DataError> {
    let [train, validation, test] = names(spec);
    let find = |names: Vec<String>| {
        names
            .iter()
            .map(|n| folder.find(&[n.as_str()]))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok([find(train)?, find(validation)?, find(test)?])
}

/// The files that the table names and that aren't there, and the data folder if it isn't given.
pub(super) fn missing(spec: &DataSpec, dir: Option<&Path>) -> Vec<DataError> {
    if spec.source == Source::Digits {
        return Vec::new();
    }
    let folder = match folder(spec, dir) {
        Ok(folder) => folder,
        Err(problem) => return vec![problem],
    };
    let of_pairs = [&spec.train_files, &spec.validation_files, &spec.test_files]
        .into_iter()
        .flat_map(|files| match files {
            Some(Files::Pair(Pair { inputs, labels })) => vec![inputs.clone(), labels.clone()],
            _ => Vec::new(),
        });
    let others = [&spec.labels_file, &spec.truth_file, &spec.class_names_file];
    let all = names(spec).into_iter().flatten().chain(of_pairs);
    all.chain(others.into_iter().flatten().cloned())
        .filter_map(|name| {
            let found = match spec.source {
                Source::Images => folder.find_folder(&name).or_else(|error| {
                    // Files of labels are files, also next to folders of images.
                    folder.find(&[&name]).map_err(|_| error)
                }),
                _ => folder.find(&[&name]),
            };
            found.err()
        })
        .collect()
}
