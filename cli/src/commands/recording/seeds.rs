//! `hindcast record --seeds`: one run per seed, all on the same split of the same data, several at the same time.

mod job;
mod training;

use std::io::Write;
use std::ops::Range;
use std::time::Instant;

use anyhow::Context as _;
use hindcast_model::task::Task;
use serde_json::{Value, json};

use super::labels;
use super::recorded::{Ended, loss, report};
use super::task::{note_doubts, note_rule};
use crate::commands::sharding::RECORD;
use crate::commands::{Outcome, Usage};
use crate::terminal;
use crate::terminal::{field, say};
use crate::words::{counted, duration};
use hindcast_analyzer::shards::{Request, Shard, agree};
use hindcast_analyzer::{load_data, output};
pub(super) use job::Plan;
use job::{Found, Job};
use training::{Trained, train_all};

/// Name of the file in which shards agree on the runs.
const SHARDS: &str = "shards.json";

/// Largest number of runs of one command.
const MAX_RUNS: u64 = 10_000;

/// Parses seeds A..B.
pub(crate) fn parse_seeds(text: &str) -> Result<Range<u64>, Usage> {
    let parsed = text
        .split_once("..")
        .and_then(|(a, b)| Some(a.trim().parse::<u64>().ok()?..b.trim().parse::<u64>().ok()?))
        .filter(|r| !r.is_empty());
    parsed.ok_or_else(|| Usage(format!("--seeds: expected A..B with A < B, got {text:?}")))
}

pub(super) fn run(plan: &Plan<'_>, seeds: &str, task: Task) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(seeds)?;
    if seeds.end - seeds.start > MAX_RUNS {
        return Err(Usage(format!(
            "--seeds: expected at most {MAX_RUNS} seeds, got {}",
            seeds.end - seeds.start
        ))
        .into());
    }
    // All runs have the split and the planted labels of the task's own seed.
    let split = task.data.seed.unwrap_or(task.train.seed);
    let seeds = match plan.shard {
        Some(shard) => part(plan, shard, &seeds.collect::<Vec<_>>(), &task)?,
        None => seeds.collect(),
    };
    let jobs = seeds
        .into_iter()
        .map(|seed| Job::find(plan, &task, split, seed))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    let trained = if jobs.iter().all(Job::is_whole) {
        jobs.iter().map(|_| None).collect()
    } else {
        let data = load_data(&task, plan.given(), split)?;
        say!("task {}: {}", field(&task.name), data.describe().trim_end());
        note_rule(&task);
        note_doubts(&task, data.as_ref());
        train_all(plan, &jobs, data.as_ref())?
    };
    tell(plan, &jobs, &trained, begun)
}

/// The seeds of a shard, after agreeing with the other shards on the runs. Each run is in a folder of its own, so the runs
/// themselves need no merge.
fn part(plan: &Plan<'_>, shard: Shard, seeds: &[u64], task: &Task) -> anyhow::Result<Vec<u64>> {
    let cannot = || format!("cannot write {}", plan.runs.display());
    output::outside_of_runs(&plan.runs.join(SHARDS)).with_context(cannot)?;
    std::fs::create_dir_all(plan.runs).with_context(cannot)?;
    let name = plan.runs.file_name().unwrap_or_default().to_string_lossy();
    let units = seeds.iter().map(u64::to_string).collect();
    let labels = labels::note(task, plan.given())?;
    let request = Request::new(RECORD, &name, shard.of, "seeds", units)
        .with("task", task.to_toml()?)
        .with("keep", plan.keep.to_string())
        .with("labels", labels);
    agree(&plan.runs.join(SHARDS), &request)?;
    let units = shard.units(seeds.len());
    say!(
        "shard {shard}: {} of {}",
        counted(units.len() as u64, "seed", "seeds"),
        seeds.len()
    );
    Ok(seeds[units].to_vec())
}

/// Prints one line per run, and returns the outcome.
fn tell(
    plan: &Plan<'_>,
    jobs: &[Job],
    trained: &[Option<Trained>],
    begun: Instant,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Fine;
    for run in trained.iter().flatten() {
        for text in loss(&run.summary) {
            say!("hindcast: {}: {text}", field(&run.summary.run));
            outcome = Outcome::Damaged;
        }
    }
    let mut out = terminal::stdout();
    if plan.args.json {
        let runs: Vec<Value> = jobs
            .iter()
            .zip(trained)
            .map(|(job, run)| of_run(job, run.as_ref()))
            .collect();
        let report = json!({ "runs": runs, "seconds": begun.elapsed().as_secs_f64() });
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(outcome);
    }
    for (job, run) in jobs.iter().zip(trained) {
        match (run, &job.found) {
            (Some(run), _) => writeln!(out, "{}", run.summary)?,
            (None, Found::Whole { steps, head }) => writeln!(
                out,
                "{}: {}; head {} (complete already)",
                field(job.run.display()),
                counted(*steps, "step", "steps"),
                head.as_deref().unwrap_or("unknown")
            )?,
            (None, _) => {}
        }
    }
    let new = trained.iter().flatten().count() as u64;
    say!(
        "trained and recorded {} in {}; {} complete already",
        counted(new, "run", "runs"),
        duration(begun.elapsed()),
        jobs.len() as u64 - new
    );
    Ok(outcome)
}

/// One run in the JSON.
fn of_run(job: &Job, run: Option<&Trained>) -> Value {
    let mut object = match (run, &job.found) {
        (Some(run), _) => report(&Ended {
            run: &job.run,
            summary: &run.summary,
            resumed_at: run.resumed_at,
            time: run.time,
            losses: run.losses,
            data: None,
            labels: None,
        }),
        (None, Found::Whole { steps, head }) => {
            json!({ "run": job.run.display().to_string(), "steps": steps, "head_digest": head })
        }
        (None, _) => json!({ "run": job.run.display().to_string() }),
    };
    object["seed"] = json!(job.seed);
    object["trained"] = json!(run.is_some());
    object
}
