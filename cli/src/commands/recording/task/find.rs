//! Finds the task that a user names.

use std::path::Path;

use anyhow::Context as _;
use hindcast_model::task::Task;

use crate::commands::Usage;
#[cfg(feature = "record")]
use crate::terminal::say;

/// Finds a built-in task by its name, or reads one from a TOML file; then changes keys by `KEY=VALUE`, and validates it.
pub(crate) fn find(name: &str, set: &[String]) -> anyhow::Result<Task> {
    let mut task = if looks_like_file(name) {
        Task::from_file(Path::new(name)).with_context(|| format!("task {name}"))?
    } else {
        Task::builtin(name).map_err(|e| Usage(format!("{e}; or name a TOML file")))?
    };
    change(&mut task, set)?;
    Ok(task)
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

/// Whether a name is that of a file and not that of a built-in task.
pub(super) fn looks_like_file(name: &str) -> bool {
    name.ends_with(".toml") || name.contains(std::path::MAIN_SEPARATOR) || Path::new(name).is_file()
}
