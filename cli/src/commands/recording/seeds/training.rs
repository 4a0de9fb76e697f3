//! Trains the incomplete runs of `record --seeds`, several at the same time.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hindcast_model::batches::Batches;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use hindcast_recorder::{Estimate, Summary};

use super::job::{Found, Job, Plan};
use crate::commands::context::{memory, open_trace_within};
use crate::commands::interrupt::{Interrupted, Interrupts};
use crate::commands::recording::recorded::{Losses, stopped};
use crate::commands::recording::{disk, resume};
use crate::commands::{in_one_line, progress, threads};
use crate::terminal::{field, say};
use crate::words::duration;
use hindcast_analyzer::RecordedRun;
use hindcast_lab::{Watch, record_watched, resume_watched};

/// A run that was trained by this process.
pub(super) struct Trained {
    pub summary: Summary,
    pub resumed_at: Option<u64>,
    pub time: Duration,
    pub losses: Losses,
}

/// What the threads share.
struct Work<'a> {
    plan: &'a Plan<'a>,
    data: &'a dyn DataSet,
    /// Number of runs that are missing or incomplete.
    missing: u64,
    /// Number of steps to train.
    total: u64,
    done: AtomicU64,
    estimated: AtomicBool,
    bar: progress::Bar,
    time: progress::Estimate,
    interrupts: Interrupts,
}

/// Trains all incomplete runs, several at the same time. A run that fails doesn't stop the others.
pub(super) fn train_all(
    plan: &Plan<'_>,
    jobs: &[Job],
    data: &dyn DataSet,
) -> anyhow::Result<Vec<Option<Trained>>> {
    std::fs::create_dir_all(plan.runs)
        .with_context(|| format!("cannot make {}", plan.runs.display()))?;
    let missing: Vec<&Job> = jobs.iter().filter(|job| !job.is_whole()).collect();
    let steps = |job: &&Job| {
        let all = Batches::new(&job.task.train, data.len(Split::Train)).steps();
        all.saturating_sub(job.recorded())
    };
    let work = Work {
        plan,
        data,
        missing: missing.len() as u64,
        total: missing.iter().map(steps).sum(),
        done: AtomicU64::new(0),
        estimated: AtomicBool::new(false),
        bar: progress::bar(0, "training", "steps"),
        time: progress::Estimate::from(0),
        interrupts: Interrupts::listen(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Runs would only take turns on an accelerator.
    let usual = if plan.device.is_cpu() { cores } else { 1 };
    let workers = plan.args.jobs.map_or(usual, usize::from).min(missing.len());
    // Results have the same bits on any number of threads.
    let threads_of_each = (cores / workers.max(1)).max(1);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        threads::with(threads_of_each, || {
            while let Some(job) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if work.interrupts.asked() {
                    break;
                }
                let result = work.train(job);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((job.seed, result));
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers)
            .map(|k| {
                std::thread::Builder::new()
                    .name(format!("seeds-{k}"))
                    .spawn_scoped(scope, worker)
            })
            .collect();
        for thread in started {
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(ended)) => ended?,
                Ok(Err(_)) => bail!("a thread panicked; its message is above"),
                Err(e) => return Err(anyhow::Error::from(e).context("cannot start a thread")),
            }
        }
        anyhow::Ok(())
    })?;
    let asked = work.interrupts.asked();
    drop(work);
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (whole, kept) = (
        found.iter().filter(|(_, r)| r.is_ok()).count(),
        jobs.len() - missing.len(),
    );
    if asked && whole < missing.len() {
        let (whole, runs) = (whole + kept, plan.runs.display());
        let text = format!(
            "{whole} of {} runs in {runs} are complete; the same command resumes the others",
            jobs.len()
        );
        return Err(Interrupted(text).into());
    }
    in_order(jobs, found)
}

impl Work<'_> {
    /// Trains one run from its beginning, or from its last recorded step.
    fn train(&self, job: &Job) -> anyhow::Result<Trained> {
        let (plan, run) = (self.plan, job.run.as_path());
        let begun = Instant::now();
        let (mut done, mut resumed_at) = (0, None);
        let mut losses = Losses::of(job.task.train.epochs);
        let mut progress = |now: u64, total: u64, loss: f64| {
            done = now;
            losses.add(now, total, loss);
            let all = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            self.bar.at(all, self.total);
            self.time.after(all, self.total, &self.bar);
            self.interrupts.flow()
        };
        let summary = match job.found {
            Found::Part(_) => {
                let memory = memory(plan.args.memory.as_deref())?;
                let trace = open_trace_within(run, memory)?;
                let subject = RecordedRun::of_trace(trace, run, plan.given())?;
                let builder = plan.policies.of_run(run);
                let mut watch = Watch {
                    again: &mut |_, _| self.interrupts.flow(),
                    begun: &mut |_, from| {
                        resumed_at = Some(from.step);
                        self.resumed(run, from.step, from.exact);
                    },
                    progress: &mut progress,
                };
                resume_watched(&subject, plan.device, builder, &mut watch)
            }
            _ => {
                let builder = plan
                    .policies
                    .builder(plan.args, &job.task, run, plan.keep)?;
                let mut told = |estimate: &Estimate| self.estimate(estimate);
                record_watched(
                    &job.task,
                    self.data,
                    plan.device,
                    builder,
                    &mut told,
                    &mut progress,
                )
            }
        };
        let summary = summary.map_err(|error| stopped(error, run, done))?;
        let time = begun.elapsed();
        self.bar.say(&format!(
            "{}: trained in {}",
            field(run.display()),
            duration(time)
        ));
        if let Some(warning) = losses.warning() {
            self.bar
                .say(&format!("{}: {warning}", field(run.display())));
        }
        Ok(Trained {
            summary,
            resumed_at,
            time,
            losses,
        })
    }

    /// Prints the expected size of a run, once.
    fn estimate(&self, estimate: &Estimate) {
        if self.estimated.swap(true, Ordering::Relaxed) {
            return;
        }
        self.bar.say(&format!("each run: {estimate}"));
        if let Some(warning) = disk::warning(estimate, self.missing, self.plan.runs) {
            self.bar.say(&warning);
        }
    }

    fn resumed(&self, run: &Path, step: u64, exact: bool) {
        let run = field(run.display());
        self.bar.say(&format!("{run}: resuming at step {step}"));
        if !exact {
            self.bar
                .say(&format!("warning: {run}: {}", resume::INEXACT));
        }
    }
}

/// The results in the order of the jobs. If a run failed, its error, with the other failures printed before.
fn in_order(
    jobs: &[Job],
    mut found: Vec<(u64, anyhow::Result<Trained>)>,
) -> anyhow::Result<Vec<Option<Trained>>> {
    found.sort_by_key(|(seed, _)| *seed);
    let (mut trained, mut failed) = (Vec::new(), Vec::new());
    for (seed, result) in found {
        match result {
            Ok(run) => trained.push((seed, run)),
            Err(error) => failed.push(error.context(format!("seed {seed}"))),
        }
    }
    if let Some(last) = failed.pop() {
        for error in &failed {
            say!("hindcast: {}", field(in_one_line(error)));
        }
        let whole = jobs.len() - failed.len() - 1;
        return Err(last.context(format!(
            "{whole} of {} runs are complete, and the same command keeps them",
            jobs.len()
        )));
    }
    let mut trained = trained.into_iter().peekable();
    let of = |job: &Job| trained.next_if(|(seed, _)| *seed == job.seed);
    Ok(jobs
        .iter()
        .map(of)
        .map(|run| run.map(|(_, run)| run))
        .collect())
}
