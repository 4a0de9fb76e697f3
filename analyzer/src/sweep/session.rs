//! A whole sweep: within a memory limit, saved while it runs, and resumed where it stopped.
//!
//! [`resume`](super::resume) walks the steps once. A [`Session`] adds what a long analysis needs:
//! - If the memory isn't enough for all queries at once, it answers them in several passes over the steps.
//! - It saves the state at regular intervals, and when its [`Observer`] stops it.
//! - It continues from a saved state.
//!
//! None of this changes a bit of the scores: the arithmetic of a step depends only on recorded values, and a query's
//! score doesn't depend on other queries.

use std::ops::ControlFlow;

use super::checkpoint::{SweepCheckpoint, SweepIdentity};
use super::cost::SweepCost;
use super::graph::pass_bytes;
use super::observer::{Observer, Stage};
use super::propagation::Propagation;
use super::saving::{Keeper, Saving};
use super::state::{QuerySweep, SweepState};
use super::times::SweepTimes;
use super::{SweepOptions, adjoint_known, begin, resume_with};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::query::one::Query;
use crate::run::memory::{MemoryFit, values_per_example};
use crate::run::recorded::RecordedRun;

/// Options of a [`Session`].
#[derive(Clone)]
pub struct SessionOptions<'a> {
    /// Which steps are scored, and whether each epoch's share is kept.
    pub sweep: SweepOptions,
    /// How the sweep carries the adjoint from one step to the previous one.
    pub propagation: Propagation,
    /// Whether the table is written row by row. Otherwise, all of its rows count as memory that the sweep needs at the end.
    pub row_by_row: bool,
    /// Bytes of memory that the sweep may use; `None` sets no limit.
    pub memory: Option<u64>,
    /// Where the state is saved; `None` saves nothing.
    pub saving: Option<Saving>,
    /// Text that names the engine, its precision and its device. A checkpoint with another text is refused.
    pub engine: &'a str,
}

impl SessionOptions<'_> {
    /// All queries in one pass, nothing saved.
    pub fn new(sweep: SweepOptions) -> Self {
        SessionOptions {
            sweep,
            propagation: Propagation::default(),
            row_by_row: false,
            memory: None,
            saving: None,
            engine: "",
        }
    }
}

/// A sweep that is planned but hasn't started.
pub struct Session<'a> {
    run: &'a RecordedRun<'a>,
    queries: &'a [Query],
    options: SessionOptions<'a>,
    /// The cost of one pass.
    cost: SweepCost,
    /// Queries per pass.
    at_once: usize,
    identity: Option<SweepIdentity>,
    resumed: Option<SweepCheckpoint>,
}

/// Result of a [`Session`].
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The results of all queries in the order of the session's queries. Only queries of the last pass still have their
    /// sensitivities.
    pub state: SweepState,
    /// Where the time went.
    pub times: SweepTimes,
    /// Number of times the steps were walked.
    pub passes: u64,
}

impl<'a> Session<'a> {
    /// Plans a sweep: reads the checkpoint that it resumes, and divides the queries into passes.
    ///
    /// # Errors
    /// [`AnalysisError::Unsupported`] if the update rule has no adjoint, [`AnalysisError::SweepUnderWay`] if there is a checkpoint and [`Saving::resume`] is false,
    /// [`AnalysisError::OtherSweep`] if the checkpoint belongs to another sweep. Also if a file or the run's end can't be
    /// read.
    pub fn new(
        run: &'a RecordedRun<'a>,
        engine: &dyn ReplayEngine,
        queries: &'a [Query],
        options: SessionOptions<'a>,
    ) -> Result<Self> {
        adjoint_known(run)?;
        let (mut identity, mut resumed) = (None, None);
        if let Some(saving) = &options.saving {
            // The propagation changes the scores, so a checkpoint with another one must not match.
            let engine = std::iter::once(options.engine.to_owned())
                .chain(options.propagation.differences())
                .collect::<Vec<String>>()
                .join(", ");
            let this = SweepIdentity::of(run, queries, &options.sweep, &run.head(), &engine)?;
            resumed = saving.earlier(&this)?;
            identity = Some(this);
        }
        let mut cost = SweepCost::of(
            run,
            &options.sweep,
            queries.len(),
            engine.dtype().size_in_bytes(),
            run.net().map(|net| values_per_example(net)),
        )?;
        if options.row_by_row {
            cost.table = 0;
        }
        // A model that can't be run is reported by its first step.
        if run.net().is_none()
            && let Ok(bytes) = pass_bytes(run, engine.dtype())
        {
            cost = cost.with_bytes_per_example(bytes);
        }
        let width = engine.dtype().size_in_bytes();
        cost = cost.in_parts(engine.parts(), engine.parameter_count(), width);
        let cost = cost.with_passes(|examples, queries| engine.pass_bytes(examples, queries));
        let at_once = match options.memory {
            Some(limit) => cost.queries_within(limit),
            None => cost.queries,
        };
        Ok(Session {
            run,
            queries,
            options,
            cost: cost.in_passes_of(at_once),
            at_once: usize::try_from(at_once).unwrap_or(usize::MAX).max(1),
            identity,
            resumed,
        })
    }

    /// Steps to walk, and memory of one pass.
    pub fn cost(&self) -> &SweepCost {
        &self.cost
    }

    /// Which steps are scored.
    pub fn options(&self) -> &SweepOptions {
        &self.options.sweep
    }

    /// Number of queries per pass.
    pub fn queries_at_once(&self) -> usize {
        self.at_once
    }

    /// Number of passes over the steps, if the sweep doesn't resume from a checkpoint.
    pub fn passes(&self) -> usize {
        self.queries.len().div_ceil(self.at_once)
    }

    /// Where the state is saved.
    pub fn saving(&self) -> Option<&Saving> {
        self.options.saving.as_ref()
    }

    /// The checkpoint from which the sweep continues.
    pub fn resumed(&self) -> Option<&SweepCheckpoint> {
        self.resumed.as_ref()
    }

    /// Sweeps with the engine that the session was planned with.
    ///
    /// # Errors
    /// [`AnalysisError::Memory`] if the limit is too low even for one query. [`AnalysisError::Cancelled`] if `observer`
    /// stops the sweep; the state is saved first. Also as [`sweep`](super::sweep).
    pub fn run(self, engine: &mut dyn ReplayEngine, observer: &mut dyn Observer) -> Result<Swept> {
        self.check_memory()?;
        let (run, queries, options) = (self.run, self.queries, self.options);
        let (finished, mut under_way) = match self.resumed {
            None => (Vec::new(), None),
            Some(checkpoint) => (checkpoint.finished, Some(checkpoint.state)),
        };
        let begun = under_way.as_ref().map_or(0, |state| state.queries.len());
        let to_come = queries.len() - finished.len() - begun;
        let mut walk = Walk {
            observer,
            keeper: options.saving.as_ref().zip(self.identity).map(Keeper::new),
            finished,
            passes: u64::from(begun > 0) + to_come.div_ceil(self.at_once) as u64,
            passes_done: 0,
            stopped: false,
        };
        let earlier = under_way.as_ref().map_or(0, |state| state.progress().0);
        walk.observer.begin(walk.stage(earlier, self.cost.steps));
        let mut times = SweepTimes::default();
        let asked = &options.sweep;
        let weights = asked.at.resolve(run.source(), asked.window.start)?;
        let model = weights.state(run.source())?;
        let mut state = loop {
            let state = match under_way.take() {
                Some(state) => state,
                None => {
                    let rest = &queries[walk.finished.len()..];
                    let pass = &rest[..self.at_once.min(rest.len())];
                    let gradients = Query::gradients(pass, run, &model, engine)?;
                    begin(run, engine, &gradients, &options.sweep)?
                }
            };
            let mut state = resume_with(
                run,
                engine,
                options.propagation,
                state,
                options.sweep.per_epoch,
                &mut |state| walk.step(state),
                &mut times,
            )?;
            if walk.finished.len() + state.queries.len() == queries.len() {
                break state;
            }
            if walk.stopped {
                return Err(AnalysisError::Cancelled { step: state.next });
            }
            walk.finish_pass(&mut state);
        };
        // All queries in the session's order.
        let mut all = std::mem::take(&mut walk.finished);
        all.append(&mut state.queries);
        state.queries = all;
        Ok(Swept {
            state,
            times,
            passes: walk.passes,
        })
    }

    fn check_memory(&self) -> Result<()> {
        let need = self.cost.memory();
        match self.options.memory {
            Some(limit) if need.within(limit) == MemoryFit::TooLarge => {
                Err(AnalysisError::Memory {
                    what: "the sweep",
                    certain: need.certain,
                    limit,
                })
            }
            _ => Ok(()),
        }
    }
}

/// Reports a session's progress and saves its state after each step.
struct Walk<'o, 'a> {
    observer: &'o mut dyn Observer,
    keeper: Option<Keeper<'a>>,
    /// Results of finished passes.
    finished: Vec<QuerySweep>,
    /// Number of passes.
    passes: u64,
    /// Number of finished passes.
    passes_done: u64,
    /// Whether the observer has stopped the session.
    stopped: bool,
}

impl Walk<'_, '_> {
    /// Progress over all passes, after `done` of the `steps` steps of the current pass.
    fn stage(&self, done: u64, steps: u64) -> Stage {
        Stage {
            doing: "sweeping",
            unit: "steps",
            done: self.passes_done * steps + done,
            total: self.passes * steps,
        }
    }

    /// Ends a pass that isn't the last one. Keeps the results of its queries and drops their sensitivities.
    fn finish_pass(&mut self, state: &mut SweepState) {
        for mut query in state.queries.drain(..) {
            query.parameters = Vec::new();
            query.optimizer = Vec::new();
            query.buffers = Vec::new();
            query.end_injection();
            self.finished.push(query);
        }
        self.passes_done += 1;
    }

    fn step(&mut self, state: &SweepState) -> ControlFlow<()> {
        let (done, steps) = state.progress();
        let stage = self.stage(done, steps);
        let flow = self.observer.step(stage);
        if stage.done == stage.total {
            return ControlFlow::Continue(());
        }
        self.stopped = flow.is_break();
        if let Some(keeper) = &mut self.keeper
            && (self.stopped || keeper.is_due())
        {
            let outcome = keeper.save(&self.finished, state);
            self.observer.saved(&keeper.saving.path, outcome);
        }
        flow
    }
}
