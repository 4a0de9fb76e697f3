//! Writes cleaned data: one file, or a folder on which the same task trains.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use hindcast_model::data::cleaned::{CleanedFile, CleanedFiles, RowEdit, cleaned, packed};

use super::decisions::{Action, Decisions};
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, outside_of_runs, replace, replaceable};
use crate::run::recorded::RecordedRun;

/// The files of the run's training examples after the decisions. Nothing is written. `dir` is the data folder.
///
/// # Errors
/// The run isn't one of a task, or its files can't be read or edited.
pub fn cleaned_files(
    run: &RecordedRun<'_>,
    dir: Option<&Path>,
    decisions: &Decisions,
) -> Result<CleanedFiles> {
    let task = run.task().ok_or_else(|| {
        AnalysisError::other(
            "the data of a model of your own is read by your program, so only your program can write it with other labels",
        )
    })?;
    let edits: BTreeMap<u64, RowEdit> = decisions
        .examples
        .iter()
        .filter_map(|d| {
            let edit = match d.action {
                Action::Keep => return None,
                Action::Relabel => RowEdit::Relabel(d.suggested),
                Action::Drop => RowEdit::Drop,
            };
            Some((d.example, edit))
        })
        .collect();
    cleaned(&task.data, dir, run.data(), &edits).map_err(|source| AnalysisError::Data {
        source: Box::new(source),
    })
}

/// Writes the one file that holds the labels. If its name ends in .gz or .xz, it is compressed. For folders of images, it is
/// a list of the images that are left, with the columns file (the name in the data folder) and label. The file must not
/// exist.
///
/// # Errors
/// The labels are in several files, separate files of inputs change as well, or the file exists or can't be written.
pub fn write_cleaned_file(files: &CleanedFiles, path: &Path) -> Result<()> {
    let problem = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    if !files.images.is_empty() {
        let write = |to: &Path| list(files, to);
        return replace(path, Kind::New, write).map_err(|e| problem(e.to_string()));
    }
    let [file] = files.labels.as_slice() else {
        return Err(problem(format!(
            "the labels are in {} files, and this is one",
            files.labels.len()
        )));
    };
    if files.inputs.iter().any(|inputs| inputs.bytes.is_some()) {
        return Err(problem(
            "examples are dropped, so the separate file of inputs changes as well, and this is one file".to_owned(),
        ));
    }
    let bytes = content(file, path)?;
    replace(path, Kind::New, |to| fs::write(to, &bytes)).map_err(|e| problem(e.to_string()))
}

/// The training images with their labels.
fn list(files: &CleanedFiles, to: &Path) -> io::Result<()> {
    let mut csv = csv::Writer::from_path(to)?;
    csv.write_record(["file", "label"])?;
    for image in files.images.iter().filter(|image| image.train) {
        let parts = image.name.components();
        let parts: Vec<_> = parts
            .map(|part| part.as_os_str().to_string_lossy())
            .collect();
        csv.write_record([parts.join("/").as_str(), image.class.as_str()])?;
    }
    csv.flush()
}

/// Writes a folder with the task's data files under their names in the data folder `dir`: the changed files, and links to
/// those that don't change (copies on systems without symbolic links). The folder must not exist. It appears whole or not at
/// all.
///
/// # Errors
/// The folder exists or can't be written.
pub fn write_cleaned_folder(files: &CleanedFiles, dir: &Path, path: &Path) -> Result<()> {
    free(path)?;
    let problem = |e: io::Error| AnalysisError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written =
        fill(files, dir, &temporary).and_then(|()| fs::rename(&temporary, path).map_err(problem));
    if written.is_err() {
        // The temporary folder is ours. If it can't be removed, the error is still the same.
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

/// Refuses a folder for cleaned data that exists or is inside a run.
///
/// # Errors
/// The text says what to do.
pub fn free(path: &Path) -> Result<()> {
    let problem = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    outside_of_runs(path).map_err(|e| problem(e.to_string()))?;
    if path.symlink_metadata().is_ok() {
        return Err(problem(
            "it exists: name a new folder, or remove this one first".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses a file for cleaned labels that exists or is inside a run.
///
/// # Errors
/// The text says what to do.
pub fn free_file(path: &Path) -> Result<()> {
    let failed = |e: io::Error| AnalysisError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    };
    replaceable(path, Kind::New).map_err(failed)
}

fn fill(files: &CleanedFiles, dir: &Path, to: &Path) -> Result<()> {
    let failed = |path: &Path, e: io::Error| AnalysisError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    };
    fs::create_dir_all(to).map_err(|e| failed(to, e))?;
    let place = |original: &Path| -> Result<PathBuf> {
        let place = to.join(inner(original, dir));
        let parent = place.parent().unwrap_or(to);
        fs::create_dir_all(parent).map_err(|e| failed(parent, e))?;
        Ok(place)
    };
    for file in files.labels.iter().chain(&files.inputs) {
        let place = place(&file.path)?;
        if file.bytes.is_some() {
            let bytes = content(file, &place)?;
            fs::write(&place, bytes).map_err(|e| failed(&place, e))?;
        } else {
            link(&file.path, &place).map_err(|e| failed(&place, e))?;
        }
    }
    for image in &files.images {
        let place = to.join(&image.place);
        let parent = place.parent().unwrap_or(to);
        fs::create_dir_all(parent).map_err(|e| failed(parent, e))?;
        link(&image.path, &place).map_err(|e| failed(&place, e))?;
    }
    for original in &files.others {
        let place = place(original)?;
        if place.symlink_metadata().is_err() {
            link(original, &place).map_err(|e| failed(&place, e))?;
        }
    }
    Ok(())
}

/// The path of a data file within the data folder; its name if it is elsewhere.
fn inner(original: &Path, dir: &Path) -> PathBuf {
    let inner = original.strip_prefix(dir).ok().filter(|inner| {
        inner
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    });
    let name = || original.file_name().unwrap_or_default().into();
    inner.map_or_else(name, Path::to_owned)
}

/// A file's new content in the form that this name stands for.
fn content(file: &CleanedFile, name: &Path) -> Result<Vec<u8>> {
    let bytes = file.content();
    bytes
        .and_then(|bytes| packed(name, &bytes))
        .map_err(|source| AnalysisError::Data {
            source: Box::new(source),
        })
}

#[cfg(unix)]
fn link(original: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(original.canonicalize()?, place)
}

#[cfg(not(unix))]
fn link(original: &Path, place: &Path) -> io::Result<()> {
    fs::copy(original, place).map(drop)
}
