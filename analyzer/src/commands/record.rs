//! `hindcast record`: train a task and record every step of it.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use anyhow::bail;
use hindcast_format::{Durability, hex};
use hindcast_recorder::{Keep, OnError, Recorder, Summary, WhenFull};
use serde_json::{Value, json};

use super::context::device;
use super::interrupt::{Interrupts, told};
use super::{Outcome, Usage, progress, task};
use crate::cli::{OnErrorPolicy, Record, WhenFullPolicy};
use crate::recording::record_watched;
use crate::subject::load_data;

pub(crate) fn run(args: &Record) -> anyhow::Result<Outcome> {
    // Whatever is wrong with the words is said before anything is loaded or made.
    let keep: Keep = args
        .keep
        .parse()
        .map_err(|e| Usage(format!("--keep: {e}")))?;
    let durability = durability(&args.durability)?;
    let when_full = match args.when_full {
        WhenFullPolicy::Block => WhenFull::Block,
        WhenFullPolicy::Stop => WhenFull::Stop,
        WhenFullPolicy::Skip => WhenFull::Skip,
    };
    let on_error = match args.on_error {
        OnErrorPolicy::Fail => OnError::Fail,
        OnErrorPolicy::TrainOn => OnError::TrainOn,
    };
    let device = device(&args.device)?;
    let task = task::find(&args.task, &args.set)?;
    let mut builder = Recorder::builder(&args.out)
        .keep(keep)
        .durability(durability)
        .when_full(when_full)
        .on_error(on_error);
    for note in &args.note {
        let Some((key, value)) = note.split_once('=') else {
            return Err(Usage(format!("--note {note}: expected KEY=VALUE")).into());
        };
        builder = builder.note(key.trim(), value.trim());
    }
    // As for the recorder itself: an empty folder is no run.
    let empty = std::fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_none());
    if args.out.exists() && !empty {
        bail!(
            "{} exists: a run is never overwritten; name a new folder",
            args.out.display()
        );
    }
    let data = load_data(&task, args.data.as_deref(), task.train.seed)?;
    eprint!("task {}: {}", task.name, data.describe());

    let begun = Instant::now();
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, "training", "steps");
    let time = progress::Estimate::from(0);
    let mut done = 0;
    let summary = record_watched(
        &task,
        data.as_ref(),
        &device,
        builder,
        &mut |estimate| bar.say(&estimate.to_string()),
        &mut |now, total, loss| {
            done = now;
            bar.at(now, total);
            time.after(now, total, &bar);
            if now % 16 == 0 || now == total {
                bar.set_message(format!("loss {loss:.4}"));
            }
            interrupts.flow()
        },
    );
    drop((bar, interrupts));
    let summary = summary.map_err(|e| {
        told(e.context(format!("recording {}", args.out.display())), || {
            format!(
                "{} holds the {done} steps that were trained, closed as unfinished: `info` and `influence` take it as it is",
                args.out.display()
            )
        })
    })?;
    let seconds = begun.elapsed();

    let mut out = stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report(args, &summary, seconds))?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    writeln!(out, "{summary}")?;
    if let Some(head) = &summary.head {
        // Kept outside of the trace it proves, years later, that nothing in it was exchanged.
        let head = hex(head);
        if stderr().is_terminal() {
            eprintln!("keep this head digest outside of the trace: {head}");
        }
    }
    eprintln!(
        "trained and recorded {} steps in {}",
        summary.steps,
        progress::duration(seconds)
    );
    Ok(Outcome::Fine)
}

/// What `--json` prints.
fn report(args: &Record, summary: &Summary, time: Duration) -> Value {
    let counted = &summary.statistics;
    json!({
        "run": args.out.display().to_string(),
        "steps": summary.steps,
        "seconds": time.as_secs_f64(),
        "head_digest": summary.head.as_ref().map(|head| hex(head)),
        "written": counted.written,
        "skipped": counted.skipped,
        "thinned": counted.thinned,
        "lost": counted.lost,
        "non_finite_steps": counted.non_finite_steps,
        "raw_bytes": counted.raw_bytes,
        "stored_bytes": counted.stored_bytes,
        "stalls": counted.stalls,
        "stalled_seconds": counted.stalled.as_secs_f64(),
    })
}

fn durability(text: &str) -> Result<Durability, Usage> {
    let usage = || {
        Usage(format!(
            "--durability: expected os, seals, every=N (steps) or always, got {text:?}"
        ))
    };
    match text {
        "os" => Ok(Durability::Os),
        "seals" => Ok(Durability::Seals),
        "always" => Ok(Durability::Always),
        _ => match text.strip_prefix("every=").map(str::parse) {
            Some(Ok(n)) if n > 0 => Ok(Durability::Every(n)),
            _ => Err(usage()),
        },
    }
}
