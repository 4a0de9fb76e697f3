//! Shared by the experiments: parsing options, showing progress, stopping.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hindcast_model::task::Task;

use crate::commands::interrupt::Interrupts;
use crate::commands::recording::task;
use crate::commands::{Usage, progress};
use hindcast_analyzer::sweep::Stage;
use hindcast_lab::protocols::{NONE, Ranking};

/// Shows one progress bar per stage, and listens for interrupts.
pub(super) struct Show {
    bar: Mutex<Option<(&'static str, progress::Bar)>>,
    interrupts: Interrupts,
}

impl Show {
    pub fn new() -> Self {
        Show {
            bar: Mutex::new(None),
            interrupts: Interrupts::listen(),
        }
    }

    pub fn at(&self, stage: Stage) -> ControlFlow<()> {
        let mut shown = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if shown
            .as_ref()
            .is_none_or(|(doing, _)| *doing != stage.doing)
        {
            *shown = None;
            *shown = Some((stage.doing, progress::bar(0, stage.doing, stage.unit)));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.at(stage.done, stage.total);
        }
        self.interrupts.flow()
    }
}

/// Finds tasks by name. The paper's two tasks also have the names of their data.
pub(super) fn tasks(only: &[String], set: &[String]) -> anyhow::Result<Vec<Task>> {
    let names = only.iter().map(|name| match name.as_str() {
        "mnist" => "mnist-cnn",
        "cifar10" => "cifar10-cnn",
        other => other,
    });
    let tasks = names
        .map(|name| task::find(name, set))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // Rows identify a task by its name.
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    once("--only", &names)?;
    Ok(tasks)
}

/// Refuses a list with a repeated value, whose rows would count as additional seeds.
pub(super) fn once<T: PartialEq + fmt::Display>(option: &str, list: &[T]) -> Result<(), Usage> {
    let twice = (1..list.len()).find(|&at| list[..at].contains(&list[at]));
    twice.map_or(Ok(()), |at| {
        Err(Usage(format!(
            "{option}: {} is given twice; each value counts once",
            list[at]
        )))
    })
}

/// Parses rankings and applies `adjust` to each. If none are given, returns the usual ones.
pub(super) fn rankings(
    asked: &[String],
    usual: impl FnOnce() -> Vec<Ranking>,
    adjust: impl Fn(Ranking) -> Ranking,
) -> anyhow::Result<Vec<Ranking>> {
    if asked.is_empty() {
        return Ok(usual());
    }
    // The row with nothing removed is always computed.
    let asked = asked.iter().filter(|word| word.trim() != NONE);
    let rankings = asked
        .map(|word| match word.parse() {
            Ok(ranking) => Ok(adjust(ranking)),
            Err(e) => Err(Usage(format!("--methods: {e}"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    once("--methods", &rankings)?;
    Ok(rankings)
}

/// The folder of a task's files: a subfolder named after the task's data, if there is one, else the folder itself.
pub(super) fn data_folder(given: Option<&Path>, task: &Task) -> Option<PathBuf> {
    let given = given?;
    let own = task.name.split('-').next().map(|word| given.join(word));
    Some(
        own.filter(|own| own.is_dir())
            .unwrap_or_else(|| given.to_owned()),
    )
}

/// The message of an interrupted experiment.
pub(super) fn stopped(out: Option<&Path>) -> String {
    match out {
        Some(path) => format!(
            "completed rows are in {}; the same command continues after them",
            path.display()
        ),
        None => "without --out, no rows are kept".to_owned(),
    }
}
