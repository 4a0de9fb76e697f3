//! `hindcast record`: train a task and record every training step.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use hindcast_format::{Status, Trace};
use hindcast_recorder::Keep;

use super::disk;
use super::policies::Policies;
use super::recorded::{Ended, Losses, show, stopped};
use super::{labels, resume, seeds, task};
use crate::args::Record;
use crate::commands::context::{device, memory, storage};
use crate::commands::interrupt::Interrupts;
use crate::commands::sharding::shard;
use crate::commands::{Outcome, Usage, progress};
use crate::terminal::{field, say};
use hindcast_analyzer::load_data;
use hindcast_lab::record_watched;

pub(crate) fn run(args: &Record) -> anyhow::Result<Outcome> {
    // Wrong usage is reported before anything is loaded or created.
    let keep: Keep = args
        .keep
        .parse()
        .map_err(|e| Usage(format!("--keep: {e}")))?;
    let policies = Policies::of(args)?;
    let memory = memory(args.memory.as_deref())?;
    if memory.is_some() && args.resume.is_none() && args.seeds.is_none() {
        return Err(Usage(
            "--memory limits what reading a run may use, and a new run reads none: leave it out, or use it with --resume or --seeds".into(),
        )
        .into());
    }
    let shard = shard(&args.shard)?;
    if shard.is_some() && args.seeds.is_none() {
        return Err(Usage(
            "--shard divides the runs of --seeds: give --seeds A..B, or leave it out".into(),
        )
        .into());
    }
    let device = device(&args.device)?;
    if let Some(run) = &args.resume {
        return resume::run(args, run, &policies, &device);
    }
    let (Some(task), Some(out)) = (&args.task, &args.out) else {
        return Err(Usage("name a task, and the run's folder with --out".into()).into());
    };
    let mut task = task::find(task, &args.set)?;
    let given = args.own.given(args.data.as_deref());
    labels::keep(&mut task, given);
    if let Some(seeds) = &args.seeds {
        let plan = seeds::Plan {
            args,
            runs: out,
            policies: &policies,
            keep,
            device: &device,
            shard,
        };
        return seeds::run(&plan, seeds, task);
    }
    let builder = policies.builder(args, &task, out, keep)?;
    check_new(out)?;
    let data = load_data(&task, given, task.train.seed)?;
    say!("task {}: {}", field(&task.name), data.describe().trim_end());
    task::note_rule(&task);
    task::note_doubts(&task, data.as_ref());

    let begun = Instant::now();
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, "training", "steps");
    let time = progress::Estimate::from(0);
    let mut done = 0;
    let mut losses = Losses::of(task.train.epochs);
    let summary = record_watched(
        &task,
        data.as_ref(),
        &device,
        builder,
        &mut |estimate| {
            bar.say(&estimate.to_string());
            if let Some(warning) = disk::warning(estimate, 1, out) {
                bar.say(&warning);
            }
        },
        &mut |now, total, loss| {
            done = now;
            losses.add(now, total, loss);
            show(&bar, now, total, loss);
            time.after(now, total, &bar);
            interrupts.flow()
        },
    );
    drop((bar, interrupts));
    let summary = summary.map_err(|error| stopped(error, out, done))?;
    let ended = Ended {
        run: out,
        summary: &summary,
        resumed_at: None,
        time: begun.elapsed(),
        losses,
        data: args.data.as_deref(),
        labels: args.own.labels.as_deref(),
    };
    ended.tell(args.json)
}

/// Refuses a folder that isn't empty or that lies in a run.
fn check_new(out: &Path) -> anyhow::Result<()> {
    // The recorder also accepts an empty folder.
    let empty = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.exists() && !empty {
        let remedy = match Trace::open_storage(storage(out, None)).map(|trace| trace.status()) {
            Ok(Status::Open | Status::Unfinished) => format!(
                "; to resume the run in it: hindcast record --resume {}",
                out.display()
            ),
            _ => String::new(),
        };
        bail!(
            "{} exists: a run is never overwritten; name a new folder{remedy}",
            out.display()
        );
    }
    if !out.exists() {
        hindcast_analyzer::output::outside_of_runs(out)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}
