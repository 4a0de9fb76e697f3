//! Finds the task that a user names.

use std::path::Path;

use anyhow::Context as _;
#[cfg(feature = "record")]
use hindcast_model::data::DataSet;
use hindcast_model::task::Task;

use crate::commands::Usage;
#[cfg(feature = "record")]
use crate::terminal::{field, say};

/// Finds a built-in task by its name, or reads one from a TOML file; then changes keys by `KEY=VALUE`, and validates it.
pub(crate) fn find(name: &str, set: &[String]) -> anyhow::Result<Task> {
    let mut task = if looks_like_file(name) {
        Task::from_file(Path::new(name)).with_context(|| format!("task {name}"))?
    } else {
        Task::builtin(name).map_err(|e| unknown(name, &e.to_string()))?
    };
    change(&mut task, set)?;
    Ok(task)
}

/// The error for a name that no built-in task has.
pub(super) fn unknown(name: &str, problem: &str) -> Usage {
    let file = format!("{name}.toml");
    if Path::new(&file).is_file() {
        Usage(format!(
            "{problem}; the file {file} exists: name it with its ending"
        ))
    } else {
        Usage(format!("{problem}; or name a TOML file"))
    }
}

/// Changes keys by `KEY=VALUE`, and validates the task.
pub(super) fn change(task: &mut Task, set: &[String]) -> Result<(), Usage> {
    let mut assignments = Vec::new();
    for change in set {
        let Some((key, value)) = change.split_once('=') else {
            return Err(Usage(format!(
                "--set {change}: expected KEY=VALUE, as in --set train.epochs=1"
            )));
        };
        assignments.push((key.trim(), value.trim()));
    }
    task.set_all(&assignments)
        .map_err(|e| Usage(format!("--set: {e}")))
}

/// Says so if the task's update rule has no adjoint, before it is trained.
#[cfg(feature = "record")]
pub(crate) fn note_rule(task: &Task) {
    if let Some(why) = task.optimizer.no_adjoint() {
        say!(
            "note: the run won't have scores by a sweep: {}: {why}; `influence --method tracin` ranks its examples, and `verify --replay` and \
             `counterfactual` work as for every rule",
            task.optimizer.describe()
        );
    }
}

/// Notes what can be trained and is rarely meant.
#[cfg(feature = "record")]
pub(crate) fn note_doubts(task: &Task, data: &dyn DataSet) {
    for doubt in task.doubts(data) {
        say!("warning: {}", field(doubt));
    }
}

/// Whether a name is that of a file and not that of a built-in task.
pub(super) fn looks_like_file(name: &str) -> bool {
    let path = Path::new(name);
    path.extension().is_some() || name.contains(std::path::MAIN_SEPARATOR) || path.is_file()
}
