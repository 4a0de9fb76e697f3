//! `hindcast record`: train a task and record every training step.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use hindcast_format::{Status, Trace};
use hindcast_recorder::{Builder, Keep, Recorder};

use super::policies::Policies;
use super::recorded::{Ended, show, stopped};
use super::{resume, task};
use crate::args::Record;
use crate::clean::{field, say};
use crate::commands::context::device;
use crate::commands::interrupt::Interrupts;
use crate::commands::{Outcome, Usage, progress};
use crate::words::bytes;
use hindcast_analyzer::load_data;
use hindcast_lab::record_watched;

pub(crate) fn run(args: &Record) -> anyhow::Result<Outcome> {
    // Wrong usage is reported before anything is loaded or created.
    let keep: Keep = args
        .keep
        .parse()
        .map_err(|e| Usage(format!("--keep: {e}")))?;
    let policies = Policies::of(args)?;
    let device = device(&args.device)?;
    if let Some(run) = &args.resume {
        return resume::run(args, run, &policies, &device);
    }
    let (Some(task), Some(out)) = (&args.task, &args.out) else {
        return Err(Usage("name a task, and the run's folder with --out".into()).into());
    };
    let task = task::find(task, &args.set)?;
    let builder = builder(args, out, &policies, keep)?;
    check_new(out)?;
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
            if let (Some(needed), Some(free)) = (needed, free_space(out))
                && let Some(warning) = short_of_disk(needed, free, out)
            {
                bar.say(&warning);
            }
        },
        &mut |now, total, loss| {
            done = now;
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
    };
    ended.tell(args.json)
}

/// Bytes that this user can still write on the file system of `path`, which needn't exist yet. `None` if the system doesn't
/// say.
fn free_space(path: &Path) -> Option<u64> {
    let space = path
        .ancestors()
        .map(|p| {
            if p.as_os_str().is_empty() {
                Path::new(".")
            } else {
                p
            }
        })
        .find_map(|p| rustix::fs::statvfs(p).ok())?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The warning before the first step of a run that probably doesn't fit on the disk. It isn't an error: the size is an
/// estimate, and space may be freed during training.
fn short_of_disk(needed: u64, free: u64, run: &Path) -> Option<String> {
    (needed > free).then(|| {
        format!(
            "warning: the run probably doesn't fit on the disk: about {} are needed and {} are free for {}. Free space, choose another disk \
             (--out), or keep less (--keep last-epoch, last-steps=N or budget=SIZE); on a full disk recording fails, and the steps \
             written until then are kept",
            bytes(needed),
            bytes(free),
            run.display()
        )
    })
}

/// Builds the recorder from the command line.
fn builder(args: &Record, out: &Path, policies: &Policies, keep: Keep) -> Result<Builder, Usage> {
    let mut builder = policies.apply(Recorder::builder(out)).keep(keep);
    for note in &args.note {
        let Some((key, value)) = note.split_once('=') else {
            return Err(Usage(format!("--note {note}: expected KEY=VALUE")));
        };
        builder = builder.note(key.trim(), value.trim());
    }
    Ok(builder)
}

/// Refuses a folder that isn't empty or that lies in a run.
fn check_new(out: &Path) -> anyhow::Result<()> {
    // The recorder also accepts an empty folder.
    let empty = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if out.exists() && !empty {
        let remedy = match Trace::open(out).map(|trace| trace.status()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_warning_names_the_need_the_free_space_and_a_remedy() {
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
    fn free_space_is_that_of_the_nearest_existing_folder() {
        let dir = tempfile::tempdir().unwrap();
        let here = rustix::fs::statvfs(dir.path()).unwrap();
        let total = here.f_blocks.saturating_mul(here.f_frsize);
        let free = free_space(&dir.path().join("not/there/yet")).unwrap();
        assert!(free > 0 && free <= total, "{free} of {total}");
        assert!(free_space(Path::new("relative-and-not-there")).is_some());
    }
}
