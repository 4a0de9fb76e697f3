//! Trains all runs of one worker together, so that each step's batch is loaded once for all of them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hindcast_format::meta::StepMeta;
use hindcast_model::ops::second_order::STACK_BYTES;
use hindcast_model::real::Real;
use hindcast_model::train::ModelState;

use super::arithmetic::{Arithmetic, Trainer};
use super::change::{Change, Lookup};
use super::noise::move_start;
use super::options::{CounterfactualOptions, ReplayProgress};
use super::outcome::{Evaluated, Outcome};
use super::removal::without;
use crate::error::{AnalysisError, Missing, Result};
use crate::query::average::Averaging;
use crate::query::one::Query;
use crate::run::recorded::RecordedRun;
use crate::run::source::weights_of;

/// Data that all workers share.
pub(super) struct Job<'a, T> {
    pub run: &'a RecordedRun<'a>,
    pub options: &'a CounterfactualOptions,
    pub queries: &'a [Query],
    pub steps: &'a [StepMeta],
    pub start: &'a ModelState<T>,
    /// The average at which queries are evaluated, with the recorded models before the start.
    pub before: &'a Averaging<'a>,
    /// Threads for a worker's own matrix products.
    pub inner_threads: usize,
    pub done: AtomicU64,
    pub total: u64,
    pub stopped: AtomicBool,
    pub progress: &'a ReplayProgress<'a>,
}

/// Metadata of the steps to replay. Fails if a step is missing.
pub(super) fn steps(run: &RecordedRun<'_>, range: Range<u64>) -> Result<Vec<StepMeta>> {
    let steps = run.source().metas(range.clone())?;
    let mut there = steps.iter().map(|meta| meta.step);
    for due in range.clone() {
        if there.next() != Some(due) {
            return Err(AnalysisError::Missing(Missing::Batch {
                step: due,
                needed: range,
            }));
        }
    }
    Ok(steps)
}

impl<T: Real> Job<'_, T> {
    /// Trains this worker's runs to the end and evaluates them.
    pub fn work(&self, mine: &[(usize, &Change)]) -> Result<Vec<(usize, Outcome)>> {
        if !self.options.device.is_cpu() {
            return self.train(mine);
        }
        // Each worker has a pool, so that workers don't queue in the global one.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.inner_threads)
            .stack_size(STACK_BYTES)
            .build()
            .map_err(|e| AnalysisError::Threads {
                what: "the threads of a retraining",
                problem: e.to_string(),
            })?;
        pool.install(|| self.train(mine))
    }

    fn train(&self, mine: &[(usize, &Change)]) -> Result<Vec<(usize, Outcome)>> {
        let changes: Vec<Lookup> = mine.iter().map(|(_, change)| change.lookup()).collect();
        let mut states: Vec<ModelState<T>> = vec![self.start.clone(); mine.len()];
        if let Some(seed) = self.options.start_noise {
            for (state, (at, _)) in states.iter_mut().zip(mine) {
                move_start(&mut state.parameters, seed, *at);
            }
        }
        let recorded = Arithmetic::Recorded;
        let arithmetic = if self.options.device.is_cpu() {
            &self.options.arithmetic
        } else {
            &recorded
        };
        let averaged = !self.before.is_final();
        let mut averages = vec![self.before.clone(); if averaged { mine.len() } else { 0 }];
        let mut trainer = Trainer::new(self.run, arithmetic, &self.options.device)?;
        let nothing = Lookup::default();
        for meta in self.steps {
            let batches = self.run.batches(meta, T::DTYPE, &self.options.device)?;
            let weights = weights_of(meta)?;
            let settings = self.run.settings(meta);
            let inside = self.options.window.contains(&meta.step);
            for (state, average) in states.iter().zip(&mut averages) {
                average.add(meta.step, &state.parameters, &state.buffers);
            }
            for (state, change) in states.iter_mut().zip(&changes) {
                if self.stopped.load(Ordering::Relaxed) {
                    return Err(AnalysisError::Cancelled { step: meta.step });
                }
                let change = if inside { change } else { &nothing };
                let (batches, weights) = change.relabel(self.run, meta.step, &batches, &weights)?;
                let parts = without(
                    meta,
                    &batches,
                    &weights,
                    &change.without,
                    self.options.removal,
                    if self.run.has_denominator(meta) {
                        self.options.denominators
                    } else {
                        super::Denominators::Fixed
                    },
                )?;
                let gradient = trainer.gradient(state, &parts, self.run.draws(meta.step))?;
                trainer.update(&settings, gradient, state)?;
                let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
                if (self.progress)(done, self.total).is_break() {
                    self.stopped.store(true, Ordering::Relaxed);
                }
            }
        }
        for (state, average) in states.iter().zip(&mut averages) {
            average.add(self.before.end(), &state.parameters, &state.buffers);
        }
        let evaluation = Evaluated {
            queries: self.queries,
            splits: &self.options.evaluate,
        };
        let mut averages = averages.into_iter();
        mine.iter()
            .zip(&states)
            .map(|((at, change), state)| {
                let average = averages.next().map(|average| average.state);
                let outcome = evaluation.outcome(&mut trainer, change, state, average)?;
                Ok((*at, outcome))
            })
            .collect()
    }
}
