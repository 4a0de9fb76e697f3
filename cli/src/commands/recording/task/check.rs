//! `hindcast task check`: all problems of a task and its data, or what its run would take.

mod print;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_analyzer::start_threads;
use hindcast_lab::{DryRun, dry_run};
use hindcast_model::data::{self, DataSet};
use hindcast_model::files;
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use hindcast_recorder::Keep;
use serde_json::{Value, json};

use super::find::{change, looks_like_file, note_rule, unknown};
use crate::args::TaskCheck;
use crate::commands::context::Models;
use crate::commands::recording::disk;
use crate::commands::{Outcome, Usage, in_one_line, memory, next};
use crate::terminal::{self, say};

/// How long the first steps are trained.
const MEASURED_FOR: Duration = Duration::from_secs(2);

/// A problem of the task or of its data.
struct Problem {
    line: Option<usize>,
    key: Option<String>,
    text: String,
    /// What is printed. `None` if the line of an earlier problem is about this one, too.
    told: Option<String>,
}

impl Problem {
    fn of(error: impl Into<anyhow::Error>) -> Self {
        let text = in_one_line(&error.into());
        Self {
            line: None,
            key: None,
            told: Some(text.clone()),
            text,
        }
    }

    /// Problems of the data, of which those with the same cause are printed together.
    fn of_data(found: Vec<data::DataError>) -> impl Iterator<Item = Self> {
        let told = data::grouped(&found);
        let all = found.into_iter().zip(told);
        all.map(|(error, told)| Self {
            told: told.map(|text| in_one_line(&anyhow::anyhow!(text))),
            ..Self::of(error)
        })
    }
}

/// What was found.
struct Checked {
    problems: Vec<Problem>,
    /// Whether reading stopped at the largest number of problems.
    more: bool,
    task: Option<Task>,
    data: Option<Box<dyn DataSet>>,
    /// What can be trained and is rarely meant.
    warnings: Vec<String>,
}

pub(super) fn run(args: &TaskCheck) -> anyhow::Result<Outcome> {
    let keep: Keep = args
        .keep
        .parse()
        .map_err(|e| Usage(format!("--keep: {e}")))?;
    let mut checked = check(args)?;
    let measured = match (&checked.problems[..], &checked.task, &checked.data) {
        ([], Some(task), Some(data)) => {
            note_rule(task);
            let data = data.as_ref();
            Some(dry_run(task, data, &Device::Cpu, keep, MEASURED_FOR)?)
        }
        _ => None,
    };
    let diverged = measured.as_ref().and_then(|measured| measured.diverged);
    checked.warnings.extend(diverged.map(|how| how.to_string()));
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &as_json(args, &checked, measured.as_ref()))?;
        writeln!(out)?;
    } else {
        checked.tell(&mut out, args, measured.as_ref())?;
        if let (Some(task), true) = (&checked.task, measured.is_some()) {
            tell_next(args, task);
        }
    }
    Ok(if checked.problems.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

/// Prints the command that records the task.
fn tell_next(args: &TaskCheck, task: &Task) {
    let labels = args.own.labels.as_deref();
    let task_file = Path::new(&args.task);
    let mut words = next::words(
        &Models::Recorded,
        "record",
        task_file,
        args.data.as_deref(),
        labels,
    );
    for set in &args.set {
        words = words.option("--set", set);
    }
    let run = Path::new("runs").join(&task.name);
    next::tell(
        words.option("--out", &run.display().to_string()),
        "trains it and records every step",
    );
}

/// Finds all problems that can be found in spite of the others.
fn check(args: &TaskCheck) -> anyhow::Result<Checked> {
    let read = Task::read_all(&text(&args.task)?);
    let mut problems: Vec<Problem> = read
        .mistakes
        .into_iter()
        .map(|mistake| Problem {
            line: mistake.line,
            key: Some(mistake.key).filter(|key| !key.is_empty()),
            told: Some(mistake.what.clone()),
            text: mistake.what,
        })
        .collect();
    if !args.set.is_empty() && !problems.is_empty() {
        say!("note: --set is not applied, because the text of the task has mistakes");
    }
    let mut task = read.task;
    if let Some(task) = &mut task {
        if !args.set.is_empty() && problems.is_empty() {
            change(task, &args.set)?;
        }
        problems.extend(task.problems().into_iter().map(Problem::of));
    }
    let spec = match (&task, &read.data) {
        (Some(task), _) => Some(&task.data),
        (None, spec) => spec.as_ref(),
    };
    if let (None, Some(spec)) = (&task, spec) {
        problems.extend(spec.problems().into_iter().map(Problem::of));
    }
    let mut data = None;
    let mut more = false;
    if let Some(spec) = spec {
        start_threads()?;
        let seed = task.as_ref().map_or(0, |task| task.train.seed);
        let augment = task.as_ref().map(|task| &task.augment);
        let given = args.own.given(args.data.as_deref());
        let (read, found) = data::check(spec, augment, given, seed, args.most);
        more = found.len() >= args.most;
        problems.extend(Problem::of_data(found));
        data = read;
    }
    if let (Some(task), Some(data)) = (&task, &data) {
        let misfits = task.misfits(data.as_ref(), args.most);
        problems.extend(misfits.into_iter().map(Problem::of));
    }
    let mut warnings = Vec::new();
    if let (Some(task), Some(data), true) = (&task, &data, problems.is_empty()) {
        let doubts = task.doubts(data.as_ref());
        warnings.extend(doubts.iter().map(ToString::to_string));
    }
    Ok(Checked {
        problems,
        warnings,
        more,
        task,
        data,
    })
}

/// The text of a task file or of a built-in task.
fn text(name: &str) -> anyhow::Result<String> {
    if looks_like_file(name) {
        let text = files::read_text(Path::new(name), files::TASK);
        return text.with_context(|| format!("task {name}"));
    }
    let own = Task::builtins().into_iter().find(|own| own.name == name);
    match own {
        Some(own) => Ok(own.text.to_owned()),
        None => {
            let error = Task::builtin(name).err();
            let problem = error.map(|e| e.to_string()).unwrap_or_default();
            Err(unknown(name, &problem).into())
        }
    }
}

fn as_json(args: &TaskCheck, checked: &Checked, measured: Option<&DryRun>) -> Value {
    let problems: Vec<Value> = checked
        .problems
        .iter()
        .map(|p| json!({ "line": p.line, "key": p.key, "problem": p.text }))
        .collect();
    let data = checked.data.as_deref();
    let task = checked.task.as_ref();
    let net = task.and_then(|task| Net::new(&task.model, &task.loss).ok());
    let parameters = measured.and(net).map(|net| net.parameter_values());
    let estimate = measured.map(|m| &m.estimate);
    json!({
        "task": args.task,
        "problems": problems,
        "warnings": checked.warnings,
        "examples": data.map(|data| json!({
            "train": data.len(Split::Train),
            "validation": data.len(Split::Validation),
            "test": data.len(Split::Test),
        })),
        "shape": data.map(|data| data.shape().to_vec()),
        "classes": data.map(|data| data.class_names().to_vec()),
        "target_scale": data.and_then(|data| data.target_scale()).map(|scale| json!({
            "mean": scale.mean,
            "sd": scale.sd,
        })),
        "parameters": parameters,
        "steps": measured.map(|m| m.steps),
        "steps_per_epoch": measured.zip(task).map(|(m, task)| m.steps / task.train.epochs.max(1)),
        "measured_steps": measured.map(|m| m.measured),
        "seconds_per_step": measured.map(|m| m.per_step.as_secs_f64()),
        "seconds": measured.map(|m| m.time().as_secs_f64()),
        "memory": measured.and_then(|_| memory::peak()),
        "raw_step": estimate.map(|e| e.raw_step),
        "stored_step": estimate.map(|e| e.stored_step),
        "disk": estimate.and_then(|e| e.stored_run),
        "disk_peak": estimate.and_then(|e| e.disk_peak),
        "disk_free": estimate.and_then(|_| disk::free_space(Path::new("."))),
    })
}
