//! `hindcast task check`: all problems of a task and its data, or what its run would take.

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

use super::find::{change, looks_like_file, note_rule};
use crate::args::TaskCheck;
use crate::commands::recording::disk;
use crate::commands::{Outcome, Usage, in_one_line, memory};
use crate::terminal::{self, field, say};
use crate::words;

/// How long the first steps are trained.
const MEASURED_FOR: Duration = Duration::from_secs(2);
/// Most classes whose sizes are printed.
const CLASSES: usize = 12;

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
}

pub(super) fn run(args: &TaskCheck) -> anyhow::Result<Outcome> {
    let keep: Keep = args
        .keep
        .parse()
        .map_err(|e| Usage(format!("--keep: {e}")))?;
    let checked = check(args)?;
    let measured = match (&checked.problems[..], &checked.task, &checked.data) {
        ([], Some(task), Some(data)) => {
            note_rule(task);
            let data = data.as_ref();
            Some(dry_run(task, data, &Device::Cpu, keep, MEASURED_FOR)?)
        }
        _ => None,
    };
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &as_json(args, &checked, measured.as_ref()))?;
        writeln!(out)?;
    } else {
        tell(&mut out, args, &checked, measured.as_ref())?;
    }
    Ok(if checked.problems.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
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
    Ok(Checked {
        problems,
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
            Err(Usage(format!("{problem}; or name a TOML file")).into())
        }
    }
}

fn tell(
    out: &mut impl Write,
    args: &TaskCheck,
    checked: &Checked,
    measured: Option<&DryRun>,
) -> anyhow::Result<()> {
    let name = field(&args.task);
    match checked.problems.len() {
        0 => writeln!(out, "{name}: no problem was found")?,
        1 => writeln!(out, "{name}: 1 problem")?,
        n => writeln!(out, "{name}: {n} problems")?,
    }
    for problem in &checked.problems {
        let Some(told) = &problem.told else {
            continue;
        };
        let place = match (problem.line, &problem.key) {
            (Some(line), Some(key)) => format!("line {line}: {key}: "),
            (Some(line), None) => format!("line {line}: "),
            (None, Some(key)) => format!("{key}: "),
            (None, None) => String::new(),
        };
        writeln!(out, "- {place}{}", field(told))?;
    }
    if checked.more {
        writeln!(
            out,
            "the check of the rows stopped there; --most N finds more than {}",
            args.most
        )?;
    }
    if let Some(data) = &checked.data {
        let sizes = Split::ALL.map(|split| format!("{} {}", data.len(split), split.name()));
        let shape = data.shape();
        writeln!(
            out,
            "data    {} examples of shape {shape:?}",
            sizes.join(", ")
        )?;
        if let Some(classes) = classes(data.as_ref()) {
            writeln!(out, "classes {classes}")?;
        }
        if let Some(scale) = data.target_scale() {
            writeln!(out, "target  {}", scale.describe())?;
        }
    }
    if let (Some(task), Some(measured)) = (&checked.task, measured) {
        tell_run(out, task, args, measured)?;
    } else if !checked.problems.is_empty() {
        writeln!(
            out,
            "size, memory and time of the run are measured when no problem is left"
        )?;
    }
    Ok(())
}

/// The classes with their numbers of training examples.
fn classes(data: &dyn DataSet) -> Option<String> {
    let names = data.class_names();
    let mut counts = vec![0u64; names.len()];
    for index in 0..data.len(Split::Train) {
        let class = data.class(Split::Train, index)?;
        *counts.get_mut(class)? += 1;
    }
    let shown = names.iter().zip(&counts).take(CLASSES);
    let shown: Vec<String> = shown
        .map(|(name, count)| format!("{} {count}", field(name)))
        .collect();
    let more = match names.len().saturating_sub(CLASSES) {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!(
            "{} ({}{more}: number of training examples)",
            names.len(),
            shown.join(", ")
        )
    })
}

/// What the run would take.
fn tell_run(
    out: &mut impl Write,
    task: &Task,
    args: &TaskCheck,
    measured: &DryRun,
) -> anyhow::Result<()> {
    let parameters = Net::new(&task.model, &task.loss)?.parameter_values();
    writeln!(out, "model   {parameters} parameters")?;
    writeln!(
        out,
        "steps   {} ({} epochs of {})",
        measured.steps,
        task.train.epochs,
        measured.steps / task.train.epochs.max(1)
    )?;
    writeln!(
        out,
        "time    about {} on this machine ({:.2} ms per step, the mean of {} steps)",
        words::duration(measured.time()),
        measured.per_step.as_secs_f64() * 1e3,
        measured.measured
    )?;
    if let Some(peak) = memory::peak() {
        writeln!(
            out,
            "memory  about {} (the most that this check used)",
            words::bytes(peak)
        )?;
    }
    let estimate = &measured.estimate;
    if let (Some(run), Some(most)) = (estimate.stored_run, estimate.disk_peak) {
        let at_most = if most > run {
            format!(", at most {}", words::bytes(most))
        } else {
            String::new()
        };
        let free = disk::free_space(Path::new("."));
        let free = free.map_or(String::new(), |free| {
            format!("; {} free here", words::bytes(free))
        });
        writeln!(
            out,
            "disk    about {}{at_most} (--keep {}: {} of tensors per step, about {} stored){free}",
            words::bytes(run),
            args.keep,
            words::bytes(estimate.raw_step),
            words::bytes(estimate.stored_step)
        )?;
        if let Some(warning) = disk::warning(estimate, 1, Path::new(".")) {
            writeln!(out, "{warning}")?;
        }
    }
    Ok(())
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
