//! `hindcast record --resume`: continue an interrupted recording of a task.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use candle_core::Device;
use hindcast_model::task::Task;
use hindcast_recorder::Recorder;

use super::policies::Policies;
use super::recorded::{Ended, show, stopped};
use super::task;
use crate::args::Record;
use crate::clean::{field, say};
use crate::commands::context::{memory, open_trace_within};
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::{Outcome, progress};
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
    let summary = resume_watched(
        &subject,
        device,
        policies.apply(Recorder::builder(run)),
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
    };
    ended.tell(args.json)
}

/// Opens the run and its data. Refuses a run that can't be resumed, or whose task differs from the one on the command line.
fn open(args: &Record, run: &Path) -> anyhow::Result<RecordedRun<'static>> {
    let memory = memory(args.memory.as_deref())?;
    let trace = open_trace_within(run, memory)?;
    check_resumable(&trace, run)?;
    if let Some(name) = &args.task {
        same_task(
            trace.info().task.as_deref(),
            &task::find(name, &args.set)?,
            run,
        )?;
    }
    drop(trace);
    let trace = open_trace_within(run, memory)?;
    let subject = RecordedRun::of_trace(trace, run, args.data.as_deref())?;
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

/// The first line in which the text of the recorded task differs from that of the named one.
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
    let (was, is) = (recorded.to_toml()?, named.to_toml()?);
    let found = first_difference(&was, &is);
    Ok(found.map(|(was, is)| (was.to_owned(), is.to_owned())))
}

fn first_difference<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    let (mut a, mut b) = (a.lines(), b.lines());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => return Some((a.unwrap_or("nothing"), b.unwrap_or("nothing"))),
        }
    }
}
