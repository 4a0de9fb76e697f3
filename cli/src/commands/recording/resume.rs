//! `hindcast record --resume`: continue an interrupted recording of a task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use candle_core::Device;
use hindcast_model::task::Task;

use super::policies::Policies;
use super::recorded::{Ended, Losses, show, stopped};
use super::{labels, task};
use crate::args::Record;
use crate::commands::context::{memory, open_trace_within};
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::{Outcome, progress};
use crate::terminal::{field, say};
use hindcast_analyzer::RecordedRun;
use hindcast_lab::{Watch, check_resumable, resume_watched};

/// The warning if the steps that are trained again don't have the recorded bits.
pub(super) const INEXACT: &str = "recomputing the last steps doesn't give the recorded bits (another kind of processor, or another version): the \
                                  run continues from recorded values, and its further bits may differ from those of an uninterrupted training";

pub(super) fn run(
    args: &Record,
    run: &Path,
    policies: &Policies,
    device: &Device,
) -> anyhow::Result<Outcome> {
    let subject = open(args, run)?;
    let begun = Instant::now();
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, "rebuilding the last step", "steps");
    let time = std::cell::OnceCell::new();
    let (mut at, mut done) = (None, 0);
    let mut losses = Losses::of(subject.task().map_or(1, |task| task.train.epochs));
    let summary = resume_watched(
        &subject,
        device,
        policies.of_run(run),
        &mut Watch {
            again: &mut |now, total| {
                bar.at(now, total);
                interrupts.flow()
            },
            begun: &mut |_, from| {
                at = Some(from.step);
                bar.say(&format!("resuming at step {} of {}", from.step, from.steps));
                if !from.exact {
                    bar.say(&format!("warning: {INEXACT}"));
                }
                bar.begin_at(from.step);
                bar.set_message("training");
                let _ = time.set(progress::Estimate::from(from.step));
            },
            progress: &mut |now, total, loss| {
                done = now;
                losses.add(now, total, loss);
                show(&bar, now, total, loss);
                if let Some(time) = time.get() {
                    time.after(now, total, &bar);
                }
                interrupts.flow()
            },
        },
    );
    drop((bar, interrupts));
    let summary = summary.map_err(|error| match at {
        Some(_) => stopped(error, run, done),
        None => told(error.context(format!("resuming {}", run.display())), || {
            format!("{} is unchanged", run.display())
        }),
    })?;
    let ended = Ended {
        run,
        summary: &summary,
        resumed_at: at,
        time: begun.elapsed(),
        losses,
        data: args.data.as_deref(),
        labels: args.own.labels.as_deref(),
    };
    ended.tell(args.json)
}

/// Opens the run and its data. Refuses a run that can't be resumed, or whose task differs from the one on the command line.
fn open(args: &Record, run: &Path) -> anyhow::Result<RecordedRun<'static>> {
    let memory = memory(args.memory.as_deref())?;
    let trace = open_trace_within(run, memory)?;
    check_resumable(&trace, run)?;
    let given = args.own.given(args.data.as_deref());
    if let Some(name) = &args.task {
        let mut task = task::find(name, &args.set)?;
        labels::keep(&mut task, given);
        same_task(trace.info().task.as_deref(), &task, run)?;
    }
    drop(trace);
    let trace = open_trace_within(run, memory)?;
    let subject = RecordedRun::of_trace(trace, run, given)?;
    if let Some(task) = subject.task() {
        say!(
            "task {}: {}",
            field(&task.name),
            subject.data().describe().trim_end()
        );
    }
    Ok(subject)
}

/// Refuses a named task that differs from the recorded one.
fn same_task(recorded: Option<&str>, named: &Task, run: &Path) -> anyhow::Result<()> {
    let Some((was, is)) = difference(recorded, named, run)? else {
        return Ok(());
    };
    bail!(
        "{}: a run can't be resumed with another task: it was recorded with `{was}`, but the command line gives `{is}`; leave out the task, or \
         record a new run with --out",
        run.display()
    )
}

/// The first key of the recorded task whose value differs from that of the named one, with both values.
pub(super) fn difference(
    recorded: Option<&str>,
    named: &Task,
    run: &Path,
) -> anyhow::Result<Option<(String, String)>> {
    let Some(text) = recorded else {
        bail!(
            "{}: the run was recorded without a task, by a training program: start that program again",
            run.display()
        );
    };
    let recorded = Task::from_toml(text)
        .with_context(|| format!("{}: the recorded task cannot be read", run.display()))?;
    // Both texts are written by the same function, so a key that differs is a value that differs.
    let keys = |task: &Task| -> anyhow::Result<BTreeMap<String, String>> {
        let table: toml::Table = task.to_toml()?.parse()?;
        let mut keys = BTreeMap::new();
        flatten("", &toml::Value::Table(table), &mut keys);
        Ok(keys)
    };
    Ok(first_difference(&keys(&recorded)?, &keys(named)?))
}

/// The values of a task by their dotted keys, as `--set` takes them: `data.train`, `model.layers.1.kind`.
fn flatten(key: &str, value: &toml::Value, keys: &mut BTreeMap<String, String>) {
    let under = |name: &str| match key {
        "" => name.to_owned(),
        key => format!("{key}.{name}"),
    };
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                flatten(&under(name), value, keys);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (at, value) in items.iter().enumerate() {
                flatten(&under(&at.to_string()), value, keys);
            }
        }
        value => {
            keys.insert(key.to_owned(), value.to_string());
        }
    }
}

fn first_difference(
    was: &BTreeMap<String, String>,
    is: &BTreeMap<String, String>,
) -> Option<(String, String)> {
    let said = |key: &str, value: Option<&String>| match value {
        Some(value) => format!("{key} = {value}"),
        None => format!("{key} not given"),
    };
    let mut all = BTreeSet::from_iter(was.keys());
    all.extend(is.keys());
    all.into_iter().find_map(|key| {
        let (was, is) = (was.get(key), is.get(key));
        (was != is).then(|| (said(key, was), said(key, is)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_differing_key_is_named_with_both_values() {
        let task = |changes: &[(&str, &str)]| {
            let mut task = Task::builtin("mnist-cnn").unwrap();
            task.set_all(changes).unwrap();
            task
        };
        let said = |recorded: &Task, named: &Task| {
            let text = recorded.to_toml().unwrap();
            difference(Some(&text), named, Path::new("run")).unwrap()
        };
        let texts = |was: &str, is: &str| Some((was.to_owned(), is.to_owned()));
        let (all, some) = (task(&[]), task(&[("data.train", "600")]));
        assert_eq!(
            said(&some, &all),
            texts("data.train = 600", "data.train not given")
        );
        assert_eq!(
            said(&all, &some),
            texts("data.train not given", "data.train = 600")
        );
        let other = task(&[("model.layers.0.out", "7")]);
        assert_eq!(said(&other, &all).unwrap().0, "model.layers.0.out = 7");
        assert_eq!(said(&all, &all), None);
    }
}
