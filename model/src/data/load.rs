//! Loads the data set that a `[data]` table describes.

use super::given::Given;
use super::memory::{Examples, FileStart};
use super::own_labels::{file_in, flip, given_labels};
use super::report::Report;
use super::scale::{Scale, moments};
use super::select::{self, Splits};
use super::spec::{DataSpec, Source, Target};
use super::store::{Labels, Rows, SourceRows, Store};
use super::table::WrittenTables;
use super::target_scale::TargetScale;
use super::{AugmentSpec, DataError, DataSet, encoding, files, sources};
use std::path::{Path, PathBuf};

/// Reads or generates the examples of a Task.
///
/// `dir` is the data folder, which the source `digits` doesn't need. The usual sub-folders of MNIST and CIFAR-10 are
/// searched, too. `seed` is the run's seed, which [`DataSpec::seed`] overrides. `augment` is the `[augment]` table.
///
/// # Errors
/// [`DataError`] for an invalid table, for a missing or broken file, and if there are fewer examples than the table asks
/// for. Memory is limited by the size of the files, not by the sizes in their headers.
pub fn load(
    spec: &DataSpec,
    augment: Option<&AugmentSpec>,
    dir: Option<&Path>,
    seed: u64,
) -> Result<Box<dyn DataSet>, DataError> {
    load_given(spec, augment, Given::from(dir), seed)
}

/// As [`load`], with labels and true labels of the user's own.
///
/// # Errors
/// As [`load`], and for a file of labels that doesn't fit the data.
pub fn load_given(
    spec: &DataSpec,
    augment: Option<&AugmentSpec>,
    given: Given<'_>,
    seed: u64,
) -> Result<Box<dyn DataSet>, DataError> {
    spec.validate()?;
    let data = load_reporting(spec, augment, given, seed, &Report::first())?;
    Ok(Box::new(data))
}

/// As [`load_given`], for a table that was validated. `report` decides whether reading goes on after a problem.
pub(super) fn load_reporting(
    spec: &DataSpec,
    augment: Option<&AugmentSpec>,
    given: Given<'_>,
    seed: u64,
    report: &Report,
) -> Result<Examples, DataError> {
    let named = with_class_names(spec, given.folder)?;
    let spec = named.as_ref().unwrap_or(spec);
    let seed = spec.seed.unwrap_or(seed);
    let augment = augment.copied().unwrap_or_default();
    let parts = sources::read(spec, given.folder, seed, report)?;
    check_augment(spec, &augment, &parts.train.shape)?;
    let SourceRows {
        train,
        validation,
        test,
        names,
        mut features,
        alphabet,
        mut notes,
        root,
        finish,
    } = parts;
    let parts = [Some(&train), validation.as_ref(), test.as_ref()];
    let files = named_starts(spec, parts, root.as_deref());
    let mut rows = Store::new(train, validation, test)?;
    let target = target(spec, &rows.all.labels)?;
    let names = class_names(&spec.class_names, &rows.all, names, &files)?;
    let found = given_labels(spec, given, &mut rows, &files, &names)?;
    notes.extend(found.notes);
    let truth_given = spec.truth_file.is_some() || given.truth.is_some();
    let names = select::renumber(spec, &mut rows.all.labels, rows.truth.as_mut(), names)?;

    let mut splits = if spec.source == Source::Digits {
        rows.ranges.clone().map(Iterator::collect)
    } else {
        select::draw(spec, &rows, seed)?
    };
    let origins = compact(&mut rows, &mut splits);
    let [train, ..] = &splits;
    let mut texts = Vec::new();
    if let Some(finish) = finish {
        let finished = finish.finish(&mut rows.all, &origins, train)?;
        (features, texts) = (finished.features, finished.texts);
        notes.extend(finished.notes);
    }
    if target == Target::Class {
        notes.extend(select::never_trained(&splits, &rows.all.labels, &names));
    }
    flip(spec, &mut rows, train, names.len(), seed)?;
    Ok(Examples {
        scale: scale(spec, &rows.all, train)?,
        target_scale: target_scale(spec, target, &rows.all.labels, train)?,
        rows: rows.all,
        origins,
        files,
        splits,
        names,
        features,
        alphabet,
        texts,
        tables: (spec.source == Source::Csv).then(|| WrittenTables::new(spec)),
        augment,
        target,
        truth: rows.truth,
        truth_given,
        given: found.labels,
        notes,
        source: spec.source.name(),
    })
}

/// Checks that examples of this shape can be augmented, if they are.
fn check_augment(spec: &DataSpec, augment: &AugmentSpec, shape: &[usize]) -> Result<(), DataError> {
    augment.validate(shape)?;
    if spec.source == Source::Text && !augment.is_none() {
        return Err(DataError::spec(
            "augment",
            "windows of text aren't images, so they can't be augmented",
        ));
    }
    Ok(())
}

/// All files of training, validation and test examples, with their first rows and their names.
fn named_starts(spec: &DataSpec, parts: [Option<&Rows>; 3], root: Option<&Path>) -> Vec<FileStart> {
    let mut files = file_starts(parts, root);
    if spec.source == Source::Digits {
        // Generated examples have no file. Their full name says so.
        for file in &mut files {
            file.name = file.path.to_string_lossy().into_owned();
        }
    }
    files
}

/// The scaling of the inputs, fitted to the training examples if the table asks for it.
fn scale(spec: &DataSpec, rows: &Rows, train: &[usize]) -> Result<Scale, DataError> {
    let mut scale = Scale::new(spec, &rows.shape, &rows.values)?;
    if spec.standardise {
        scale.fit(&rows.values, train, rows.shape.iter().product());
    }
    Ok(scale)
}

/// The standardisation of the targets, fitted to the training examples' labels. `None` if the table doesn't ask for it.
fn target_scale(
    spec: &DataSpec,
    target: Target,
    labels: &Labels,
    train: &[usize],
) -> Result<Option<TargetScale>, DataError> {
    if !spec.standardise_target {
        return Ok(None);
    }
    if target != Target::Value {
        return Err(DataError::spec(
            "standardise_target",
            "is for numbers to predict, but the targets are classes or inputs: remove it, or write target = \"value\"",
        ));
    }
    let (mean, sd) = match labels {
        Labels::Classes(classes) => moments(train, 1, |row, out| {
            let class = classes.get(row).copied().unwrap_or(0);
            out.fill(class.into());
        }),
        Labels::Values { width, data } => moments(train, *width, |row, out| {
            let values = data.get(row * width..(row + 1) * width);
            out.copy_from_slice(values.unwrap_or_default());
        }),
    };
    Ok(Some(TargetScale { mean, sd }))
}

/// The file of `class_names_file`. `None` if the table has no such key.
pub(super) fn class_names_file(
    spec: &DataSpec,
    dir: Option<&Path>,
) -> Result<Option<PathBuf>, DataError> {
    let name = spec.class_names_file.as_ref();
    name.map(|name| file_in(spec, dir, name)).transpose()
}

/// The table with the class names of `class_names_file`. `None` if it has no such key.
pub(super) fn with_class_names(
    spec: &DataSpec,
    dir: Option<&Path>,
) -> Result<Option<DataSpec>, DataError> {
    let Some(path) = class_names_file(spec, dir)? else {
        return Ok(None);
    };
    let content = files::read_text(&path, encoding::named(spec.encoding.as_deref())?)?;
    let lines = content.lines().map(str::trim);
    let class_names: Vec<String> = lines.filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if class_names.is_empty() {
        return Err(DataError::malformed(
            &path,
            "expected the name of a class per line, but holds none",
        ));
    }
    Ok(Some(DataSpec {
        class_names,
        ..spec.clone()
    }))
}

/// All files of training, validation and test examples, with their first rows. If `root` is given, the names of files
/// are their paths within this folder.
pub(super) fn file_starts(parts: [Option<&Rows>; 3], root: Option<&Path>) -> Vec<FileStart> {
    let (mut first, mut starts) = (0, Vec::new());
    let paths: Vec<&Path> = parts
        .iter()
        .flatten()
        .flat_map(|part| part.files.iter().map(|(path, _)| path.as_path()))
        .collect();
    for (at, part) in parts.into_iter().flatten().enumerate() {
        let mut first_of_part = 0;
        for (path, rows) in &part.files {
            starts.push(FileStart {
                path: path.clone(),
                name: match root {
                    Some(root) => path_within(path, root),
                    None => short_name(path, &paths),
                },
                part: at,
                rows: *rows,
                first,
                first_of_part,
            });
            first += rows;
            first_of_part += rows;
        }
    }
    starts
}

/// A path within a folder, with `/` between its parts on every system.
fn path_within(path: &Path, folder: &Path) -> String {
    let within = path.strip_prefix(folder).unwrap_or(path);
    let parts = within
        .components()
        .map(|part| part.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

/// The shortest end of a path that no other path in `all` has. Usually this is the file name.
fn short_name(path: &Path, all: &[&Path]) -> String {
    let count = path.components().count();
    let end = |path: &Path, n: usize| -> PathBuf {
        let skip = path.components().count().saturating_sub(n);
        path.components().skip(skip).collect()
    };
    let unique = |n: &usize| {
        let mine = end(path, *n);
        all.iter()
            .all(|&other| other == path || end(other, *n) != mine)
    };
    let n = (1..count).find(unique).unwrap_or(count);
    end(path, n).to_string_lossy().into_owned()
}

fn target(spec: &DataSpec, labels: &Labels) -> Result<Target, DataError> {
    match (spec.target, labels) {
        (Some(Target::Class), Labels::Values { .. }) => Err(DataError::spec(
            "target",
            "\"class\" needs class labels, but the labels are values",
        )),
        (Some(target), _) => Ok(target),
        (None, Labels::Classes(_)) => Ok(Target::Class),
        (None, Labels::Values { .. }) => Ok(Target::Value),
    }
}

/// Names of all classes: `given` if it isn't empty, otherwise `known`, otherwise the class numbers. Also checks that
/// each label has a name.
pub(super) fn class_names(
    given: &[String],
    all: &Rows,
    known: Option<Vec<String>>,
    files: &[FileStart],
) -> Result<Vec<String>, DataError> {
    let Labels::Classes(classes) = &all.labels else {
        return match given {
            [] => Ok(Vec::new()),
            _ => Err(DataError::spec(
                "class_names",
                "the labels are values, not classes",
            )),
        };
    };
    let names = match (given, known) {
        ([], Some(names)) => names,
        ([], None) => (0..=classes.iter().copied().max().unwrap_or(0))
            .map(|c| c.to_string())
            .collect(),
        (given, _) => given.to_vec(),
    };
    if let Some(row) = classes.iter().position(|c| *c as usize >= names.len()) {
        let file = files.iter().rev().find(|f| f.first <= row);
        return Err(DataError::Class {
            path: file.map(|f| f.path.clone()).unwrap_or_default(),
            row: (row - file.map_or(0, |f| f.first)) as u64,
            got: classes.get(row).map(u32::to_string).unwrap_or_default(),
            expected: format!(
                "0 to {} ({})",
                names.len().saturating_sub(1),
                names.join(", ")
            ),
        });
    }
    Ok(names)
}

/// Removes rows that are in no split. Returns the original position of each kept row.
fn compact(rows: &mut Store, splits: &mut Splits) -> Vec<usize> {
    let mut kept: Vec<usize> = splits.iter().flatten().copied().collect();
    kept.sort_unstable();
    rows.retain(&kept);
    for split in splits {
        for row in split {
            *row = kept.binary_search(row).unwrap_or(0);
        }
    }
    kept
}
