//! Keeps in a run which labels it was trained with.

use std::path::Path;

use anyhow::Context as _;
use hindcast_model::data::Given;
use hindcast_model::files::{self, DATA};
use hindcast_model::task::Task;

/// Names the files of labels in the task, if they are in the data folder. Later verbs then find them without being told.
pub(super) fn keep(task: &mut Task, given: Given<'_>) {
    if let Some(name) = within(given.folder, given.labels) {
        task.data.labels_file = Some(name);
    }
    if let Some(name) = within(given.folder, given.truth) {
        task.data.truth_file = Some(name);
    }
}

/// The path of a file within the folder, if it is there.
fn within(folder: Option<&Path>, file: Option<&Path>) -> Option<String> {
    let folder = folder?.canonicalize().ok()?;
    let file = file?.canonicalize().ok()?;
    file.strip_prefix(folder).ok()?.to_str().map(str::to_owned)
}

/// The note about a file of labels that is not in the data folder: its path and the digest of its bytes. A later verb must be
/// given the same file. `None` if there is no such file.
pub(super) fn note(task: &Task, given: Given<'_>) -> anyhow::Result<Option<String>> {
    let Some(path) = given.labels else {
        return Ok(None);
    };
    let named = within(given.folder, given.labels);
    if named.is_some() && named == task.data.labels_file {
        return Ok(None);
    }
    let bytes = files::read(path, DATA).context("--labels")?;
    let digest = blake3::hash(&bytes).to_hex();
    let short = digest.get(..16).unwrap_or_default();
    Ok(Some(format!("{} (BLAKE3 {short}…)", path.display())))
}

/// The note in words, for a comparison.
pub(super) fn said(note: Option<&String>) -> String {
    match note {
        Some(note) => format!("--labels {note}"),
        None => "no --labels".to_owned(),
    }
}
