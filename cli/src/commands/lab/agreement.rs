//! `hindcast experiment agreement`: many seeds of the paper's six settings in parallel, and their means.

use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use hindcast_model::task::Task;
use rayon::prelude::*;

use super::shared::{once, stopped};
use crate::args;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::recording::{seeds::parse_seeds, task};
use crate::commands::{Outcome, Usage, progress, threads};
use crate::terminal;
use hindcast_analyzer::load_data;
use hindcast_lab::protocols::agreement::{
    Agreement, AgreementPlan, METHODS, MORE_METHODS, Measured, SETTINGS, Setting, agreement,
    paired, published, summary,
};
use hindcast_lab::protocols::{append_row, check_data, check_settings, data_digest, read_rows};

/// One seed of a setting, and the methods whose rows are still missing.
struct Job<'a> {
    setting: Setting,
    task: &'a Task,
    seed: u64,
    methods: Vec<Measured>,
}

pub(crate) fn run(args: &args::Agreement) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(&args.seeds)?;
    let settings = chosen_settings(&args.only)?;
    let methods = chosen_methods(&args.methods)?;
    let tasks = settings
        .iter()
        .map(|setting| {
            // For some seeds the cross-validated penalty is so large that changes disappear in the rounding of float32.
            let f64 = "train.dtype=f64".to_owned();
            let set: Vec<String> = std::iter::once(f64).chain(args.set.clone()).collect();
            Ok((*setting, task::find(setting.task, &set)?))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut rows: Vec<Agreement> = read_rows(args.out.as_deref())?;
    let plan = AgreementPlan {
        penalty_given: penalty_given(args),
        at: args.at.clone(),
    };
    check_rows(args, &rows, &tasks, &seeds, &plan)?;
    // Seed by seed, so that an interrupted experiment has about equally many seeds of each setting.
    let mut jobs = Vec::new();
    for seed in seeds.clone() {
        for (setting, task) in &tasks {
            let missing: Vec<Measured> = methods
                .iter()
                .filter(|m| !rows.iter().any(|r| r.is(setting, seed, m)))
                .copied()
                .collect();
            if !missing.is_empty() {
                jobs.push(Job {
                    setting: *setting,
                    task,
                    seed,
                    methods: missing,
                });
            }
        }
    }
    let begun = Instant::now();
    rows.extend(run_all(&jobs, args, &plan)?);
    let mut out = terminal::stdout();
    if !jobs.is_empty() {
        writeln!(
            out,
            "{} trainings, each with one counterfactual run per example, in {:.0} s",
            jobs.len(),
            begun.elapsed().as_secs_f64()
        )?;
    }
    report(&mut out, &rows, &settings, &methods, &seeds)?;
    Ok(Outcome::Fine)
}

/// The tasks that are trained.
pub(super) fn tasks(args: &args::Agreement) -> anyhow::Result<Vec<Task>> {
    let settings = chosen_settings(&args.only)?;
    let task = |setting: &Setting| task::find(setting.task, &args.set);
    settings.iter().map(task).collect()
}

/// Whether the user gives the penalty, alone or with the whole loss. If not, it is chosen by cross-validation.
fn penalty_given(args: &args::Agreement) -> bool {
    let keys = args.set.iter().filter_map(|set| set.split_once('='));
    keys.map(|(key, _)| key.trim())
        .any(|key| key == "loss.penalty" || key == "loss")
}

/// Refuses rows that were computed with different settings or on different data.
fn check_rows(
    args: &args::Agreement,
    rows: &[Agreement],
    tasks: &[(Setting, Task)],
    seeds: &Range<u64>,
    plan: &AgreementPlan,
) -> anyhow::Result<()> {
    let out = args.out.as_deref();
    for (setting, task) in tasks {
        let name = format!("{}/{}", setting.data, setting.model);
        check_settings(out, rows, &name, &plan.settings_of(task)?)?;
    }
    let known: Vec<(&Setting, &Task, u64)> = tasks
        .iter()
        .flat_map(|(setting, task)| seeds.clone().map(move |seed| (setting, task, seed)))
        .filter(|(setting, _, seed)| rows.iter().any(|r| r.of(setting) && r.seed == *seed))
        .collect();
    known.par_iter().try_for_each(|&(setting, task, seed)| {
        let data = load_data(task, args.data.as_deref(), seed)
            .with_context(|| format!("task {}, seed {seed}", task.name))?;
        let name = format!("{}/{}", setting.data, setting.model);
        check_data(out, rows, &name, seed, &data_digest(data.as_ref()))
    })
}

/// Runs all jobs, several at the same time. Each job's rows are written as soon as it ends.
fn run_all(
    jobs: &[Job<'_>],
    args: &args::Agreement,
    plan: &AgreementPlan,
) -> anyhow::Result<Vec<Agreement>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = match args.threads {
        0 => cores,
        n => n,
    }
    .min(jobs.len());
    let interrupts = Interrupts::listen();
    let bar = progress::bar(jobs.len() as u64, "leaving each one out", "seeds");
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let rows = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let failure = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = agreement(
                &job.setting,
                job.task,
                &job.methods,
                args.data.as_deref(),
                job.seed,
                plan,
                &|_, _| {
                    if failure().is_some() {
                        std::ops::ControlFlow::Break(())
                    } else {
                        interrupts.flow()
                    }
                },
            );
            let kept = result.and_then(|new| {
                let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                for row in &new {
                    append_row(args.out.as_deref(), row)?;
                }
                rows.extend(new);
                bar.set_position(done.fetch_add(1, Ordering::Relaxed) + 1);
                Ok(())
            });
            if let Err(error) = kept {
                let error = error.context(format!("task {}, seed {}", job.task.name, job.seed));
                // The first failure stops the other jobs. Their errors only say that they were stopped.
                failure().get_or_insert(error);
                return Ok(());
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|k| {
                std::thread::Builder::new()
                    .name(format!("agreement-{k}"))
                    .spawn_scoped(scope, || threads::with(1, work))
            })
            .collect();
        for thread in threads {
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(ended)) => ended?,
                Ok(Err(_)) => anyhow::bail!("a thread panicked; its message is above"),
                Err(e) => return Err(anyhow::Error::from(e).context("cannot start a thread")),
            }
        }
        Ok(())
    })?;
    drop((bar, interrupts));
    let error = failure().take();
    match error {
        Some(error) => Err(told(error, || stopped(args.out.as_deref()))),
        None => Ok(rows.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn chosen_settings(only: &[String]) -> Result<Vec<Setting>, Usage> {
    let is = |s: &Setting, text: &str| text == s.data || text == format!("{}/{}", s.data, s.model);
    for text in only {
        if !SETTINGS.iter().any(|s| is(s, text)) {
            let names: Vec<String> = SETTINGS
                .iter()
                .map(|s| format!("{}/{}", s.data, s.model))
                .collect();
            return Err(Usage(format!(
                "--only {text}: there is no such setting; expected {}, or adult, 20news or mnist for both models",
                names.join(", ")
            )));
        }
    }
    once("--only", only)?;
    let wanted = |s: &&Setting| only.is_empty() || only.iter().any(|text| is(s, text));
    Ok(SETTINGS.iter().filter(wanted).copied().collect())
}

fn chosen_methods(names: &[String]) -> Result<Vec<Measured>, Usage> {
    let all = || METHODS.iter().chain(MORE_METHODS);
    if let Some(name) = names.iter().find(|n| !all().any(|m| m.name == **n)) {
        let known: Vec<&str> = all().map(|m| m.name).collect();
        return Err(Usage(format!(
            "--methods {name}: there is no such method; expected names from {}",
            known.join(", ")
        )));
    }
    once("--methods", names)?;
    if names.is_empty() {
        return Ok(METHODS.to_vec());
    }
    let named = |m: &&Measured| names.iter().any(|n| n == m.name);
    Ok(all().filter(named).copied().collect())
}

/// Prints the means over seeds next to those of the paper.
fn report(
    out: &mut impl Write,
    rows: &[Agreement],
    settings: &[Setting],
    methods: &[Measured],
    seeds: &Range<u64>,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:<14} {:<16} {:>5}  {:<22} {:<10}  {:<22} {:<10}",
        "setting", "method", "seeds", "tau: mean (sd) +- se", "paper", "Jaccard", "paper"
    )?;
    let sgd = "sgd";
    for setting in settings {
        let name = format!("{}/{}", setting.data, setting.model);
        for method in methods {
            let Some(ours) = summary(rows, setting, method.name, seeds) else {
                continue;
            };
            let paper = published(setting, method.name);
            let (tau, jaccard) = ours.errors();
            let printed = |f: Option<hindcast_lab::protocols::agreement::Figure>| {
                f.map_or(String::new(), |f| format!("{:.2} ({:.2})", f.mean, f.sd))
            };
            // One seed has no standard deviation.
            let spread =
                |f: hindcast_lab::protocols::agreement::Figure, error: f64| match ours.seeds {
                    0 | 1 => format!("{:.3}", f.mean),
                    _ => format!("{:.3} ({:.3}) +- {error:.3}", f.mean, f.sd),
                };
            writeln!(
                out,
                "{name:<14} {:<16} {:>5}  {:<22} {:<10}  {:<22} {:<10}",
                method.name,
                ours.seeds,
                spread(ours.tau, tau),
                printed(paper.map(|p| p.tau)),
                spread(ours.jaccard, jaccard),
                printed(paper.map(|p| p.jaccard)),
            )?;
        }
    }
    writeln!(
        out,
        "\ndifference from {sgd} on the same seeds, +- standard error"
    )?;
    for setting in settings {
        for method in methods.iter().filter(|m| m.name != sgd) {
            if let Some(gap) = paired(rows, setting, method.name, sgd, seeds) {
                writeln!(
                    out,
                    "{:<14} {:<16} {:>5}  tau {:+.4} +- {:.4}   Jaccard {:+.4} +- {:.4}",
                    format!("{}/{}", setting.data, setting.model),
                    method.name,
                    gap.seeds,
                    gap.tau.0,
                    gap.tau.1,
                    gap.jaccard.0,
                    gap.jaccard.1
                )?;
            }
        }
    }
    Ok(())
}
