//! Prints what `task check` found.

use std::io::Write;
use std::path::Path;

use hindcast_lab::DryRun;
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::task::{Task, class_counts};

use super::Checked;
use crate::args::TaskCheck;
use crate::commands::memory;
use crate::commands::recording::disk;
use crate::terminal::field;
use crate::words;

/// Most classes whose sizes are printed.
const CLASSES: usize = 12;

impl Checked {
    /// Prints the problems and warnings, the data, and what the run would take.
    pub(super) fn tell(
        &self,
        out: &mut impl Write,
        args: &TaskCheck,
        measured: Option<&DryRun>,
    ) -> anyhow::Result<()> {
        let name = field(&args.task);
        match self.problems.len() {
            0 => match self.warnings.len() as u64 {
                0 => writeln!(out, "{name}: no problem was found")?,
                n => writeln!(
                    out,
                    "{name}: no error was found, but {} {}",
                    words::plural(n, "there is", "there are"),
                    words::counted(n, "warning", "warnings")
                )?,
            },
            1 => writeln!(out, "{name}: 1 problem")?,
            n => writeln!(out, "{name}: {n} problems")?,
        }
        for warning in &self.warnings {
            writeln!(out, "- warning: {}", field(warning))?;
        }
        for problem in &self.problems {
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
        if self.more {
            writeln!(
                out,
                "the check of the rows stopped there; --most N finds more than {}",
                args.most
            )?;
        }
        if let Some(data) = &self.data {
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
            let described = data.describe();
            for note in described.lines().filter_map(|l| l.strip_prefix("note: ")) {
                writeln!(out, "note    {}", field(note))?;
            }
        }
        if let (Some(task), Some(measured)) = (&self.task, measured) {
            tell_run(out, task, args, measured)?;
        } else if !self.problems.is_empty() {
            writeln!(
                out,
                "size, memory and time of the run are measured when no problem is left"
            )?;
        }
        Ok(())
    }
}

/// The classes with their numbers of training examples.
fn classes(data: &dyn DataSet) -> Option<String> {
    let (names, counts) = (data.class_names(), class_counts(data)?);
    let shown = names.iter().zip(&counts).take(CLASSES);
    let shown: Vec<String> = shown
        .map(|(name, count)| format!("{} {count}", field(name)))
        .collect();
    let more = match names.len().saturating_sub(CLASSES) {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    Some(format!(
        "{} ({}{more}: number of training examples)",
        names.len(),
        shown.join(", ")
    ))
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
