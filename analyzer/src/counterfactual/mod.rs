//! Counterfactual runs: training is repeated from a recorded state without a set of examples. This measures the changes
//! that a sweep estimates.

mod arithmetic;
mod change;
mod drift;
mod file;
mod noise;
mod options;
mod outcome;
mod removal;
mod replay;
mod sample;
mod start;

pub use arithmetic::Arithmetic;
pub use change::Change;
pub use drift::Drift;
pub use file::{RemovalResult, RemovalResults, RemovedPlace};
pub use options::{CounterfactualOptions, ReplayProgress};
pub use outcome::{CounterfactualReport, EndValues, Outcome, SplitLoss};
pub use removal::{Denominators, Removal};
pub use sample::{CheckSet, check_sets};
pub use start::{StateBefore, each_state, parts, start_state, stepper};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use candle_core::DType;
use hindcast_model::ops::second_order::STACK_BYTES;
use hindcast_model::real::{Real, bf16, f16};

use crate::engine::EngineKind;
use crate::error::{AnalysisError, Result};
use crate::measures::compare::Comparison;
use crate::query::average::Averaging;
use crate::query::one::Query;
use crate::run::recorded::RecordedRun;

/// Retrains from A to T without each of the `sets`, and once with all examples.
///
/// # Errors
/// If the trace doesn't contain the start of the window or the metadata of a later step, a set names an example that the
/// data doesn't have, the model fails, or `progress` asks to stop.
pub fn counterfactuals(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    sets: &[Vec<u64>],
    progress: &ReplayProgress<'_>,
) -> Result<CounterfactualReport> {
    let changes: Vec<Change> = sets.iter().map(|set| Change::without(set)).collect();
    changed_runs(run, options, queries, &changes, progress)
}

/// As [`counterfactuals`], with changes that also give examples other labels. A label changes in the window's steps; in a
/// window that begins at step 0, this is a training from its start on the changed labels.
///
/// The run with all examples is the control. With [`CounterfactualOptions::or_recorded`], all runs are repeated with the recorded
/// arithmetic if the kernels' control doesn't end close to the recorded parameters and that of the recorded arithmetic does.
///
/// # Errors
/// As [`counterfactuals`]; [`Unsupported::Labels`](crate::error::Unsupported::Labels) if a label is to change and the targets
/// aren't classes.
pub fn changed_runs(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    changes: &[Change],
    progress: &ReplayProgress<'_>,
) -> Result<CounterfactualReport> {
    let by_kernels = once(run, options, queries, changes, progress)?;
    let may_repeat = options.or_recorded && by_kernels.engine == EngineKind::Kernels;
    if !may_repeat || by_kernels.is_close() {
        return Ok(by_kernels);
    }
    let recorded = CounterfactualOptions {
        arithmetic: Arithmetic::Recorded,
        ..options.clone()
    };
    let control = CounterfactualOptions {
        evaluate: Vec::new(),
        ..recorded.clone()
    };
    if !once(run, &control, &[], &[], progress)?.is_close() {
        return Ok(by_kernels);
    }
    let mut report = once(run, &recorded, queries, changes, progress)?;
    report.kernels_apart = Some(by_kernels.reproduction.max_relative_error);
    Ok(report)
}

/// Trains all runs with the arithmetic of the options.
fn once(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    changes: &[Change],
    progress: &ReplayProgress<'_>,
) -> Result<CounterfactualReport> {
    match run.trained_dtype() {
        DType::F64 => typed::<f64>(run, options, queries, changes, progress),
        DType::F16 => typed::<f16>(run, options, queries, changes, progress),
        DType::BF16 => typed::<bf16>(run, options, queries, changes, progress),
        _ => typed::<f32>(run, options, queries, changes, progress),
    }
}

fn typed<T: Real>(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    changes: &[Change],
    progress: &ReplayProgress<'_>,
) -> Result<CounterfactualReport> {
    let examples = run.examples() as u64;
    let mut named = changes.iter().flat_map(Change::examples);
    if let Some(example) = named.find(|&i| i >= examples) {
        return Err(AnalysisError::NoExample { example, examples });
    }
    let source = run.source();
    let end = source.end()?;
    let window = &options.window;
    if window.is_empty() || window.end > end.step {
        return Err(AnalysisError::WindowOutside {
            window: format!("{}..{}", window.start, window.end),
            steps: end.step,
        });
    }
    let start = start_state::<T>(run, window.start, &options.device)?;
    let steps = replay::steps(run, window.start..end.step)?;
    let at = options.at.resolve(source, window.start)?;
    let mut before = Averaging::new(&at, end.parameters.len(), end.buffers.len());
    before.add_recorded(source, window.start)?;
    let nothing = Change::default();
    let all: Vec<&Change> = std::iter::once(&nothing).chain(changes).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = match (options.device.is_cpu(), options.threads) {
        (false, _) => 1,
        (true, 0) => cores.min(all.len()),
        (true, n) => n.min(all.len()),
    };
    let job = replay::Job {
        run,
        options,
        queries,
        steps: &steps,
        start: &start,
        before: &before,
        inner_threads: (cores / workers).max(1),
        done: AtomicU64::new(0),
        total: steps.len() as u64 * all.len() as u64,
        stopped: AtomicBool::new(false),
        progress,
    };
    let mut outcomes = spread(&job, &all, workers)?;
    let everyone = outcomes.remove(0);
    let reproduction =
        Comparison::of(&everyone.parameters, &end.parameters, source.parameters()).worse(
            Comparison::of(&everyone.buffers, &end.buffers, source.buffers()),
        );
    let drift = drift(&job, &everyone, &end.parameters)?;
    Ok(CounterfactualReport {
        queries: queries.iter().map(ToString::to_string).collect(),
        at: at.point().to_owned(),
        window: window.clone(),
        removal: options.removal,
        denominators: options.denominators,
        engine: options.engine(),
        everyone,
        reproduction,
        kernels_apart: None,
        drift,
        outcomes,
    })
}

/// Seed of the noise that measures the effect of rounding.
const ROUNDING: u64 = 1;

/// How far the retraining with all examples ended from the recorded parameters. If that is far, all examples are
/// retrained once more, from a start with other last digits.
fn drift<T: Real>(job: &replay::Job<'_, T>, everyone: &Outcome, recorded: &[f64]) -> Result<Drift> {
    let start: Vec<f64> = job.start.parameters.iter().map(|x| x.wide()).collect();
    let (retrained, from) = (&everyone.parameters, &start[..]);
    let mut drift = Drift {
        of_movement: drift::of_movement(retrained, recorded, from, recorded),
        by_rounding: None,
    };
    if !drift.is_suspicious() || job.options.start_noise.is_some() {
        return Ok(drift);
    }
    let options = CounterfactualOptions {
        start_noise: Some(ROUNDING),
        evaluate: Vec::new(),
        ..job.options.clone()
    };
    let again = replay::Job {
        options: &options,
        queries: &[],
        inner_threads: std::thread::available_parallelism().map_or(1, usize::from),
        done: AtomicU64::new(0),
        total: job.steps.len() as u64,
        stopped: AtomicBool::new(false),
        ..*job
    };
    let moved = match spread(&again, &[&Change::default()], 1) {
        Ok(outcomes) => outcomes
            .into_iter()
            .next()
            .map(|other| drift::of_movement(&other.parameters, retrained, from, recorded)),
        // Rounding decides whether this training diverges.
        Err(AnalysisError::Diverged(_)) => Some(f64::INFINITY),
        Err(other) => return Err(other),
    };
    drift.by_rounding = moved;
    Ok(drift)
}

/// Distributes the runs over worker threads. Returns the outcomes in the order of `all`.
fn spread<T: Real>(
    job: &replay::Job<'_, T>,
    all: &[&Change],
    workers: usize,
) -> Result<Vec<Outcome>> {
    let results: Vec<Result<Vec<(usize, Outcome)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|k| {
                let mine: Vec<(usize, &Change)> = all
                    .iter()
                    .copied()
                    .enumerate()
                    .skip(k)
                    .step_by(workers)
                    .collect();
                std::thread::Builder::new()
                    .name(format!("counterfactual-{k}"))
                    .stack_size(STACK_BYTES)
                    .spawn_scoped(scope, move || {
                        let result = job.work(&mine);
                        if result.is_err() {
                            job.stopped.store(true, Ordering::Relaxed);
                        }
                        result
                    })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread {
                Err(e) => Err(AnalysisError::Threads {
                    what: "the threads that retrain",
                    problem: e.to_string(),
                }),
                Ok(thread) => thread.join().unwrap_or_else(|_| {
                    Err(AnalysisError::EnginePanicked {
                        doing: "retraining".to_owned(),
                        message: "see the panic's message above".to_owned(),
                    })
                }),
            })
            .collect()
    });
    let mut outcomes = Vec::with_capacity(all.len());
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(mine) => outcomes.extend(mine),
            Err(e) => errors.push(e),
        }
    }
    // The first real failure says more than the cancellations that it caused.
    errors.sort_by_key(|e| matches!(e, AnalysisError::Cancelled { .. }));
    if let Some(first) = errors.into_iter().next() {
        return Err(first);
    }
    outcomes.sort_by_key(|(at, _)| *at);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}
