//! Writes cleaned data: one file, or a folder on which the same task trains.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use hindcast_model::data::Source;
use hindcast_model::data::cleaned::{CleanedFile, CleanedFiles, RowEdit, cleaned, packed};

use super::decisions::{Action, Decisions};
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, WRITER, apart, outside_of_runs, replace, replace_checked, replaceable};
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
/// exist, unless `may_replace` and it is none of the task's data files.
///
/// # Errors
/// The labels are in several files, separate files of inputs change as well, or the file exists or can't be written.
pub fn write_cleaned_file(files: &CleanedFiles, path: &Path, may_replace: bool) -> Result<()> {
    let problem = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    let put = |write: &dyn Fn(&Path) -> io::Result<()>| {
        if may_replace {
            not_a_data_file(files, path)?;
            replace_checked(path, write).map_err(|e| problem(unwritten(&e)))
        } else {
            replace(path, Kind::New, write).map_err(|e| problem(unwritten(&e)))
        }
    };
    if !files.images.is_empty() {
        return put(&|to| list(files, to));
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
    put(&|to| fs::write(to, &bytes))
}

/// Refuses to replace a file that the task reads, and what isn't a regular file.
fn not_a_data_file(files: &CleanedFiles, path: &Path) -> Result<()> {
    let problem = |e: io::Error| AnalysisError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    };
    free_file(path, true)?;
    let inputs: Vec<(&str, Option<&Path>)> = data_files(files)
        .map(|file| ("a data file of the task", Some(file)))
        .collect();
    apart(path, &inputs).map_err(problem)
}

/// The files that the task reads.
fn data_files(files: &CleanedFiles) -> impl Iterator<Item = &Path> {
    let changed = files.labels.iter().chain(&files.inputs);
    let changed = changed.map(|file| file.path.as_path());
    let images = files.images.iter().map(|image| image.path.as_path());
    let others = files.others.iter().map(PathBuf::as_path);
    changed.chain(images).chain(others)
}

/// Refuses a name for a cleaned file whose ending stands for another format than that of the task's data files, which the cleaned
/// file has.
///
/// # Errors
/// The text names the format.
pub fn fits_format(run: &RecordedRun<'_>, path: &Path) -> Result<()> {
    /// Endings that stand for a format.
    const KNOWN: [&str; 14] = [
        "csv",
        "tsv",
        "tab",
        "txt",
        "json",
        "jsonl",
        "ndjson",
        "parquet",
        "xls",
        "xlsx",
        "ods",
        "npy",
        "npz",
        "safetensors",
    ];
    const TABLES: [&str; 4] = ["csv", "tsv", "tab", "txt"];
    let Some(source) = run.task().map(|task| task.data.source) else {
        return Ok(());
    };
    let ending = |path: &Path| {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        ending.to_ascii_lowercase()
    };
    let mut found = ending(path);
    if matches!(found.as_str(), "gz" | "xz") {
        found = ending(Path::new(path.file_stem().unwrap_or_default()));
    }
    let found = found.as_str();
    let expected = match source {
        Source::Npy if found != "npy" => "an array of labels like the task's own: name it .npy",
        Source::Images if found != "csv" => "a list of files with their labels: name it .csv",
        Source::Csv if KNOWN.contains(&found) && !TABLES.contains(&found) => {
            "a table like the task's own: name it .csv, or as the original"
        }
        Source::Idx | Source::Cifar10 if KNOWN.contains(&found) => {
            "a binary file like the task's own: give it a name like that of the original"
        }
        _ => return Ok(()),
    };
    Err(AnalysisError::File {
        path: path.to_owned(),
        problem: format!(
            "the cleaned file is {expected}. For a table of the new labels, give --out-labels FILE.csv"
        ),
    })
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

/// Name of the file in a written folder that says who wrote it. Readers of data skip it.
const MARK: &str = ".hindcast-cleaned";

/// Writes a folder with the task's data files under their names in the data folder `dir`: the changed files, and links to
/// those that don't change (copies on systems without symbolic links). The folder must not exist, unless `may_replace` and an
/// earlier call wrote it. It appears whole or not at all.
///
/// # Errors
/// The folder exists or can't be written.
pub fn write_cleaned_folder(
    files: &CleanedFiles,
    dir: &Path,
    path: &Path,
    may_replace: bool,
) -> Result<()> {
    free(path, may_replace)?;
    let problem = |e: io::Error| AnalysisError::File {
        path: path.to_owned(),
        problem: unwritten(&e),
    };
    if let Ok(there) = path.canonicalize() {
        let is_inside = |file: &Path| file.canonicalize().is_ok_and(|f| f.starts_with(&there));
        if let Some(file) = data_files(files).find(|file| is_inside(file)) {
            return Err(problem(io::Error::other(format!(
                "it has the data file {}, which this command reads: name another folder",
                file.display()
            ))));
        }
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fill(files, dir, &temporary).and_then(|()| {
        if path.symlink_metadata().is_ok() {
            // Its unchanged files are links, which are removed without what they lead to.
            fs::remove_dir_all(path).map_err(problem)?;
        }
        fs::rename(&temporary, path).map_err(problem)
    });
    if written.is_err() {
        // The temporary folder is ours. If it can't be removed, the error is still the same.
        let _ = fs::remove_dir_all(&temporary);
    }
    written
}

/// Refuses a folder for cleaned data that exists or is inside a run. With `may_replace`, a folder of cleaned data may exist.
///
/// # Errors
/// The text says what to do.
pub fn free(path: &Path, may_replace: bool) -> Result<()> {
    let problem = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    outside_of_runs(path).map_err(|e| problem(e.to_string()))?;
    let Ok(there) = path.symlink_metadata() else {
        return Ok(());
    };
    let ours = there.is_dir() && path.join(MARK).is_file();
    if may_replace && ours {
        return Ok(());
    }
    let what = if may_replace {
        "it exists, and no earlier `clean` wrote it"
    } else {
        "it exists"
    };
    Err(problem(format!("{what}; name a new folder")))
}

/// Refuses a file for cleaned data that exists or is inside a run. With `may_replace`, a regular file may exist.
///
/// # Errors
/// The text says what to do.
pub fn free_file(path: &Path, may_replace: bool) -> Result<()> {
    let failed = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    if !may_replace {
        return replaceable(path, Kind::New).map_err(|e| failed(e.to_string()));
    }
    outside_of_runs(path).map_err(|e| failed(e.to_string()))?;
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(failed("it is not a regular file".to_owned())),
        _ => Ok(()),
    }
}

fn fill(files: &CleanedFiles, dir: &Path, to: &Path) -> Result<()> {
    let failed = |path: &Path, e: io::Error| AnalysisError::File {
        path: path.to_owned(),
        problem: unwritten(&e),
    };
    fs::create_dir_all(to).map_err(|e| failed(to, e))?;
    let mark = to.join(MARK);
    fs::write(&mark, format!("{WRITER}\n")).map_err(|e| failed(&mark, e))?;
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

/// Why a file can't be written.
fn unwritten(error: &io::Error) -> String {
    format!("it can't be written: {error}")
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
