//! `hindcast task`: the built-in tasks.

use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use hindcast_model::task::Task;
use serde_json::json;

use crate::args::{TaskCommand, TaskVerb};
use crate::clean;
#[cfg(feature = "record")]
use crate::clean::say;
use crate::commands::{Outcome, Usage};

pub(crate) fn run(args: &TaskCommand) -> anyhow::Result<Outcome> {
    let mut out = clean::stdout();
    match &args.verb {
        TaskVerb::List { json: true } => {
            let list: Vec<_> = Task::builtins()
                .into_iter()
                .map(|task| json!({ "name": task.name, "description": task.description }))
                .collect();
            serde_json::to_writer_pretty(&mut out, &list)?;
            writeln!(out)?;
        }
        TaskVerb::List { json: false } => {
            for task in Task::builtins() {
                writeln!(out, "{:<14} {}", task.name, task.description)?;
            }
        }
        TaskVerb::Show { task, set } => {
            // An unchanged built-in task is shown with its comments.
            let own = Task::builtins()
                .into_iter()
                .find(|b| b.name == task && set.is_empty());
            match own {
                Some(builtin) => write!(out, "{}", builtin.text)?,
                None => write!(out, "{}", find(task, set)?.to_toml()?)?,
            }
        }
    }
    Ok(Outcome::Fine)
}

/// Finds a built-in task by its name, or reads one from a TOML file; then changes keys by `KEY=VALUE`, and validates it.
pub(crate) fn find(name: &str, set: &[String]) -> anyhow::Result<Task> {
    let mut task = if looks_like_file(name) {
        Task::from_file(Path::new(name)).with_context(|| format!("task {name}"))?
    } else {
        Task::builtin(name).map_err(|e| Usage(format!("{e}; or name a TOML file")))?
    };
    let mut assignments = Vec::new();
    for change in set {
        let Some((key, value)) = change.split_once('=') else {
            return Err(Usage(format!(
                "--set {change}: expected KEY=VALUE, as in --set train.epochs=1"
            ))
            .into());
        };
        assignments.push((key.trim(), value.trim()));
    }
    task.set_all(&assignments)
        .map_err(|e| Usage(format!("--set: {e}")))?;
    Ok(task)
}

/// Says so if the task's update rule has no adjoint, before it is trained.
#[cfg(feature = "record")]
pub(super) fn note_rule(task: &Task) {
    if let Some(why) = task.optimizer.no_adjoint() {
        say!(
            "note: the run won't have scores by a sweep: {}: {why}; `influence --method tracin` ranks its examples, and `verify --replay` and \
             `counterfactual` work as for every rule",
            task.optimizer.describe()
        );
    }
}

fn looks_like_file(name: &str) -> bool {
    name.ends_with(".toml") || name.contains(std::path::MAIN_SEPARATOR) || Path::new(name).is_file()
}
