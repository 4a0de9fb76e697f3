//! Loads the data set that a `[data]` table describes.

use super::memory::{Examples, FileStart};
use super::scale::Scale;
use super::select::{self, Splits};
use super::spec::{DataSpec, Source, Target};
use super::store::{Labels, Rows, SourceRows, Store};
use super::{AugmentSpec, DataError, DataSet, digits, sources};
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
    spec.validate()?;
    let seed = spec.seed.unwrap_or(seed);
    let augment = augment.copied().unwrap_or_default();
    let parts = sources::read(spec, dir, seed)?;
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
        features,
        alphabet,
        mut notes,
    } = parts;
    let mut files = file_starts([Some(&train), validation.as_ref(), test.as_ref()]);
    if spec.source == Source::Digits {
        // Generated examples have no file. Their full name says so.
        for file in &mut files {
            file.name = file.path.to_string_lossy().into_owned();
        }
    }
    let mut rows = Store::new(train, validation, test)?;
    let target = target(spec, &rows.all.labels)?;
    let mut names = class_names(&spec.class_names, &rows.all, names, &files)?;
    names = select::renumber(spec, &mut rows.all.labels, names)?;

    let mut splits = if spec.source == Source::Digits {
        rows.ranges.clone().map(Iterator::collect)
    } else {
        select::draw(spec, &rows, seed)?
    };
    let origins = compact(&mut rows, &mut splits);
    if target == Target::Class {
        notes.extend(select::never_trained(&splits, &rows.all.labels, &names));
    }
    let share = spec.flipped.unwrap_or(if spec.source == Source::Digits {
        digits::FLIPPED
    } else {
        0.0
    });
    let [train, ..] = &splits;
    let clean = if share > 0.0 {
        Some(select::flip(
            share,
            train,
            &mut rows.all.labels,
            names.len(),
            seed,
        )?)
    } else if let (Labels::Classes(c), Source::Digits) = (&rows.all.labels, spec.source) {
        Some(
            train
                .iter()
                .map(|&r| c.get(r).copied().unwrap_or(0))
                .collect(),
        )
    } else {
        None
    };
    let mut scale = Scale::new(spec, &rows.all.shape, &rows.all.values)?;
    if spec.standardise {
        scale.fit(&rows.all.values, train, rows.all.shape.iter().product());
    }
    Ok(Box::new(Examples {
        rows: rows.all,
        origins,
        files,
        splits,
        names,
        features,
        alphabet,
        scale,
        augment,
        target,
        clean,
        notes,
        source: spec.source.name(),
    }))
}

/// All files of training, validation and test examples, with their first rows.
pub(super) fn file_starts(parts: [Option<&Rows>; 3]) -> Vec<FileStart> {
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
                name: short_name(path, &paths),
                part: at,
                first,
                first_of_part,
            });
            first += rows;
            first_of_part += rows;
        }
    }
    starts
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
