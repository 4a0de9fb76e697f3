//! Loads the data set that a `[data]` table describes.

use super::given::Given;
use super::memory::{Examples, FileStart};
use super::relabel::{self, Purpose};
use super::report::Report;
use super::scale::{Scale, moments};
use super::select::{self, Splits};
use super::spec::{DataSpec, Source, Target};
use super::store::{Label, Labels, Rows, SourceRows, Store};
use super::table::WrittenTables;
use super::target_scale::TargetScale;
use super::{AugmentSpec, DataError, DataSet, digits, encoding, files, sources};
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
    augment.validate(&parts.train.shape)?;
    if spec.source == Source::Text && !augment.is_none() {
        return Err(DataError::spec(
            "augment",
            "windows of text aren't images, so they can't be augmented",
        ));
    }

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
    let mut files = file_starts(parts, root.as_deref());
    if spec.source == Source::Digits {
        // Generated examples have no file. Their full name says so.
        for file in &mut files {
            file.name = file.path.to_string_lossy().into_owned();
        }
    }
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
    let mut scale = Scale::new(spec, &rows.all.shape, &rows.all.values)?;
    if spec.standardise {
        scale.fit(&rows.all.values, train, rows.all.shape.iter().product());
    }
    let target_scale = target_scale(spec, target, &rows.all.labels, train)?;
    Ok(Examples {
        rows: rows.all,
        origins,
        files,
        splits,
        names,
        features,
        alphabet,
        texts,
        tables: (spec.source == Source::Csv).then(|| WrittenTables::new(spec)),
        scale,
        augment,
        target,
        target_scale,
        truth: rows.truth,
        truth_given,
        given: found.labels,
        notes,
        source: spec.source.name(),
    })
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

/// The path of a file that the Task names.
fn file_in(spec: &DataSpec, dir: Option<&Path>, name: &str) -> Result<PathBuf, DataError> {
    let dir = dir.ok_or(DataError::NoFolder {
        source_name: spec.source.name(),
    })?;
    files::Folder::new(dir, &[]).find(&[name])
}

/// What the user's files of labels gave.
struct FoundLabels {
    /// Positions among the rows of all files, and their new labels as text.
    labels: Vec<(usize, String)>,
    /// Notes about the files.
    notes: Vec<String>,
}

/// Replaces labels by those of the user's file, and sets the true labels that are known.
fn given_labels(
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
fn flip(
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
