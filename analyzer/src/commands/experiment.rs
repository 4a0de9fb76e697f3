//! `hindcast experiment`: many runs against the truth.

use std::fs::{File, OpenOptions};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::interrupt::{Interrupts, told};
use super::{Outcome, Usage, progress, task};
use crate::cli::{self, Experiment};
use crate::experiment::{Agreement, agreement, recording_cost};
use crate::report::figures::{draw_agreement, draw_cleansing};
use crate::subject::load_data;

pub(crate) fn run(args: &Experiment) -> anyhow::Result<Outcome> {
    match args {
        Experiment::Agreement(args) => {
            let outcome = run_agreement(args)?;
            figures(&args.out, &args.figures, draw_agreement).map(|()| outcome)
        }
        Experiment::Cleansing(args) => {
            let outcome = super::cleansing::run(args)?;
            figures(&args.out, &args.figures, draw_cleansing).map(|()| outcome)
        }
        Experiment::Recording(args) => run_recording(args),
    }
}

/// Draws the rows of an experiment, where it was asked for.
fn figures(
    rows: &Option<PathBuf>,
    folder: &Option<PathBuf>,
    draw: fn(&Path, &Path) -> anyhow::Result<Vec<PathBuf>>,
) -> anyhow::Result<()> {
    if let (Some(rows), Some(folder)) = (rows, folder) {
        let mut out = stdout().lock();
        for file in draw(rows, folder)? {
            writeln!(out, "{}", file.display())?;
        }
    }
    Ok(())
}

fn run_recording(args: &cli::RecordingCost) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    let interrupts = Interrupts::listen();
    for name in &args.tasks {
        let task = task::find(name, &args.set)?;
        let data = load_data(&task, args.data.as_deref(), task.train.seed)?;
        let bar = progress::bar(0, "training twice", "steps");
        let row = recording_cost(&task, data.as_ref(), args.block, &mut |done, total| {
            bar.at(done, total);
            interrupts.flow()
        });
        drop(bar);
        rows.push(row.map_err(|e| told(e, || "nothing was measured to the end".to_owned()))?);
    }
    drop(interrupts);
    let mut out = stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    for row in rows {
        writeln!(
            out,
            "{}: {} steps, median ms a step {:.4} plain, {:.4} recorded ({:+.1} us): ratio {:.4}; {:.4} of the raw bytes stored",
            row.task,
            row.steps,
            row.plain_ms,
            row.recorded_ms,
            1e3 * (row.recorded_ms - row.plain_ms),
            row.ratio,
            row.stored_share
        )?;
    }
    Ok(Outcome::Fine)
}

fn run_agreement(args: &cli::Agreement) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(&args.seeds)?;
    let tasks = args
        .tasks
        .iter()
        .map(|name| task::find(name, &args.set))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let penalty_given = args.set.iter().any(|s| s.starts_with("loss.penalty="));
    let mut rows = match &args.out {
        Some(path) if path.exists() => read_rows(path)?,
        _ => Vec::new(),
    };
    let mut out = stdout().lock();
    writeln!(
        out,
        "{:<14} {:>4} {:>9} {:>7} {:>8} {:>12}",
        "task", "seed", "penalty", "tau", "Jaccard", "max |change|"
    )?;
    for task in &tasks {
        for seed in seeds.clone() {
            let done = rows
                .iter()
                .find(|r| r.task == task.name && r.seed == seed)
                .cloned();
            let row = match done {
                Some(row) => row,
                None => {
                    let interrupts = Interrupts::listen();
                    let bar = progress::bar(0, "retraining", "steps");
                    let row = agreement(
                        task,
                        args.data.as_deref(),
                        seed,
                        penalty_given,
                        &|done, total| {
                            bar.at(done, total);
                            interrupts.flow()
                        },
                    );
                    drop((bar, interrupts));
                    let row = row.map_err(|e| {
                        told(
                            e.context(format!("task {}, seed {seed}", task.name)),
                            || stopped(args),
                        )
                    })?;
                    if let Some(path) = &args.out {
                        append_row(path, &row)?;
                    }
                    rows.push(row.clone());
                    row
                }
            };
            writeln!(
                out,
                "{:<14} {:>4} {:>9.3e} {:>7.4} {:>8.3} {:>12.3e}",
                row.task, row.seed, row.penalty, row.tau, row.jaccard, row.largest_change
            )?;
            out.flush()?;
        }
    }
    for task in &tasks {
        let of = |f: fn(&Agreement) -> f64| -> Vec<f64> {
            rows.iter()
                .filter(|r| r.task == task.name && seeds.contains(&r.seed))
                .map(f)
                .collect()
        };
        let (tau, jaccard) = (mean_sd(&of(|r| r.tau)), mean_sd(&of(|r| r.jaccard)));
        writeln!(
            out,
            "{}: {} seeds, tau {:.3} (sd {:.3}), Jaccard {:.3} (sd {:.3}); sweeps {:.1} s, counterfactual runs {:.1} s",
            task.name,
            of(|r| r.tau).len(),
            tau.0,
            tau.1,
            jaccard.0,
            jaccard.1,
            of(|r| r.sweep_seconds).iter().sum::<f64>(),
            of(|r| r.truth_seconds).iter().sum::<f64>()
        )?;
    }
    Ok(Outcome::Fine)
}

fn stopped(args: &cli::Agreement) -> String {
    match &args.out {
        Some(path) => format!(
            "the rows that were ready are in {}; the same command goes on after them",
            path.display()
        ),
        None => "no rows are kept without --out".to_owned(),
    }
}

/// Mean and sample standard deviation.
fn mean_sd(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let square = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (square / (n - 1.0).max(1.0)).sqrt())
}

pub(super) fn parse_seeds(text: &str) -> Result<std::ops::Range<u64>, Usage> {
    let parsed = text
        .split_once("..")
        .and_then(|(a, b)| Some(a.trim().parse::<u64>().ok()?..b.trim().parse::<u64>().ok()?))
        .filter(|r| !r.is_empty());
    parsed.ok_or_else(|| Usage(format!("--seeds: expected A..B with A < B, got {text:?}")))
}

fn read_rows(path: &Path) -> anyhow::Result<Vec<Agreement>> {
    let mut reader =
        csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    reader
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is no table of this experiment", path.display()))
}

/// One row, written and closed at once, so that a killed experiment goes on where it was.
fn append_row(path: &Path, row: &Agreement) -> anyhow::Result<()> {
    let begun = path.exists();
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = csv::WriterBuilder::new()
        .has_headers(!begun)
        .from_writer(file);
    writer.serialize(row)?;
    writer.flush()?;
    Ok(())
}
