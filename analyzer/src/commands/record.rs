//! `hindcast record`: train a task and record every step of it.

use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hindcast_format::{Durability, hex};
use hindcast_recorder::{Keep, OnError, Recorder, Summary, WhenFull};
use serde_json::{Value, json};

use super::context::device;
use super::interrupt::{Interrupts, told};
use super::{Outcome, Usage, progress, task};
use crate::clean::{self, field, say};
use crate::cli::{OnErrorPolicy, Record, WhenFullPolicy};
use crate::recording::record_watched;
use crate::subject::load_data;

/// Bytes that this user may still write where `path` lies or will lie; `None` where the system doesn't say.
fn free_beside(path: &Path) -> Option<u64> {
    let space = path
        .ancestors()
        .map(|p| match p.as_os_str().is_empty() {
            true => Path::new("."),
            false => p,
        })
        .find_map(|p| rustix::fs::statvfs(p).ok())?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// What is said before the first step of a run that the disk will hardly hold. It is no error: the need is an estimate, and room may
/// be made while training goes on.
fn short_of_disk(needed: u64, free: u64, run: &Path) -> Option<String> {
    (needed > free).then(|| {
        format!(
            "warning: the disk will hardly hold the run: about {} are needed and {} are free where {} lies. Make room, name another place \
             (--out), or keep less (--keep last-epoch, last-steps=N or budget=SIZE); on a full disk recording fails, and what was \
             written until then stays",
            progress::bytes(needed),
            progress::bytes(free),
            run.display()
        )
    })
}

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
    if !args.out.exists() {
        crate::places::outside_of_runs(&args.out)
            .with_context(|| format!("cannot write {}", args.out.display()))?;
    }
    let data = load_data(&task, args.data.as_deref(), task.train.seed)?;
    say!("task {}: {}", field(&task.name), data.describe().trim_end());

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
        &mut |estimate| {
            bar.say(&estimate.to_string());
            let needed = estimate.disk_peak.or(estimate.stored_run);
            if let (Some(needed), Some(free)) = (needed, free_beside(&args.out))
                && let Some(warning) = short_of_disk(needed, free, &args.out)
            {
                bar.say(&warning);
            }
        },
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
    let loss = loss(&summary);
    for text in &loss {
        say!("hindcast: {text}");
    }
    let outcome = match loss.is_empty() {
        true => Outcome::Fine,
        false => Outcome::Damaged,
    };

    let mut out = clean::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report(args, &summary, seconds))?;
        writeln!(out)?;
        return Ok(outcome);
    }
    writeln!(out, "{summary}")?;
    if let Some(head) = &summary.head {
        // Kept outside of the trace it proves, years later, that nothing in it was exchanged.
        let head = hex(head);
        if stderr().is_terminal() {
            say!("keep this head digest outside of the trace: {head}");
        }
    }
    let time = progress::duration(seconds);
    let missing = summary.statistics.lost + summary.statistics.skipped;
    match missing {
        0 => say!("trained and recorded {} steps in {time}", summary.steps),
        _ => say!(
            "trained {} steps in {time}; the tensors of {missing} of them were not recorded",
            summary.steps
        ),
    }
    Ok(outcome)
}

/// What the run lacks of what was to be recorded, one sentence per kind of loss; nothing where it is whole.
fn loss(summary: &Summary) -> Vec<String> {
    let counted = &summary.statistics;
    let steps = |count: u64| match count {
        1 => "1 step is".to_owned(),
        _ => format!("{count} steps are"),
    };
    let mut loss = Vec::new();
    if counted.lost > 0 {
        let ranges: Vec<String> = counted
            .lost_steps
            .iter()
            .map(|range| format!("{}..{}", range.start, range.end))
            .collect();
        loss.push(format!(
            "{} not in the trace ({}): storage failed, and training went on without it (--on-error train-on). An analysis that needs \
             those steps will be refused",
            steps(counted.lost),
            ranges.join(", ")
        ));
    }
    if counted.skipped > 0 {
        loss.push(format!(
            "{} in the trace without their tensors: storage was slower than training (--when-full skip). An analysis that needs them \
             will be refused",
            steps(counted.skipped)
        ));
    }
    if let Some(failure) = &counted.failure {
        loss.push(match summary.head {
            Some(_) => format!("the failure: {failure}"),
            None => format!(
                "the run has no final state, since it could not be closed as finished: {failure}"
            ),
        });
    }
    loss
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
        "lost_steps": counted.lost_steps.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>(),
        "failure": counted.failure.as_ref().map(ToString::to_string),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_will_not_hold_the_run_is_said_with_need_room_and_cure() {
        let run = Path::new("runs/mine");
        assert_eq!(short_of_disk(1_000, 1_000, run), None);
        let said = short_of_disk(2_000_000_000, 1_500_000_000, run).unwrap();
        for part in [
            "2.00 GB are needed",
            "1.50 GB are free",
            "runs/mine",
            "--keep last-epoch",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn the_free_room_is_that_of_the_nearest_folder_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let here = rustix::fs::statvfs(dir.path()).unwrap();
        let total = here.f_blocks.saturating_mul(here.f_frsize);
        let free = free_beside(&dir.path().join("not/there/yet")).unwrap();
        assert!(free > 0 && free <= total, "{free} of {total}");
        assert!(free_beside(Path::new("relative-and-not-there")).is_some());
    }
}
