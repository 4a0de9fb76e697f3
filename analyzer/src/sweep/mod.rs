//! The reverse sweep: the paper's Algorithm 2, for every update rule.
//!
//! The sweep walks the steps from newest to oldest. From u, the query's sensitivity to the parameters after a step, it
//! computes s, the sensitivity to the step's batch gradient. The engine then computes `<s, g_j>` for each example j, and
//! `H s`. The products `<s, g_j>` are the examples' scores. `H s` turns u into the sensitivity to the parameters before
//! the step. Running statistics have a sensitivity ρ of their own. All these vectors are in float64, whatever type the
//! engine computes in.

mod ahead;
mod checkpoint;
mod cost;
mod engine;
mod graph;
mod observer;
mod propagation;
mod saving;
mod scoring;
mod session;
mod state;
mod states;
mod step;
mod terms;
mod times;

pub(crate) use ahead::{Reading, each_step};
pub use checkpoint::{SweepCheckpoint, SweepIdentity};
pub use cost::SweepCost;
pub(crate) use graph::pass_bytes;
pub use observer::{Observer, Stage};
pub(crate) use observer::{Part, tell};
pub use propagation::{HessianTerm, Propagation};
pub use saving::Saving;
pub use session::{Session, SessionOptions, Swept};
pub use state::{QuerySweep, SweepState};
pub(crate) use step::ReplayStep;
pub use terms::loss_terms;
pub use times::SweepTimes;

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use hindcast_model::update::{Adjoint, StepPoint};
use hindcast_model::vectors::norm;

use crate::engine::{Products, ReplayEngine, slices};
use crate::error::{AnalysisError, Damaged, Result, Unsupported};
use crate::query::one::QueryGradient;
use crate::query::point::QueryPoint;
use crate::run::recorded::RecordedRun;
use crate::run::walk::Order;
use ahead::Ahead;
use engine::SweepEngine;
use scoring::Grouping;
use states::States;

/// Options of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepOptions {
    /// The model that the queries are asked about.
    pub at: QueryPoint,
    /// Steps [A, B) that are scored, from [`crate::run::window::Window::resolve`]. The sweep walks [A, T).
    pub window: Range<u64>,
    /// Also keep each epoch's share of the scores (8 bytes per example, epoch and query).
    pub per_epoch: bool,
    /// Also keep the score of each term of an example's loss, such as each token of a sequence (8 bytes per term and query).
    pub per_term: bool,
}

impl SweepOptions {
    /// Queries about the model after the last step, without each epoch's share.
    pub fn new(window: Range<u64>) -> Self {
        SweepOptions {
            at: QueryPoint::Final,
            window,
            per_epoch: false,
            per_term: false,
        }
    }
}

/// Walks the run backwards and scores every training example of the window for every query. `queries` are the gradients at
/// `options.at` ([`Query::gradients`](crate::Query::gradients)).
///
/// `progress` is called after each step with the state so far and may stop the sweep.
///
/// # Errors
/// If the trace doesn't contain [A, T), a step can't be read or replayed, a number stops being finite, or `progress`
/// stops the sweep ([`AnalysisError::Cancelled`]).
pub fn sweep(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    queries: &[QueryGradient],
    options: &SweepOptions,
    progress: &mut dyn FnMut(&SweepState) -> ControlFlow<()>,
) -> Result<SweepState> {
    let state = begin(run, engine, queries, options)?;
    resume(run, engine, state, options.per_epoch, progress)
}

/// Refuses a run whose update rule has no adjoint.
pub(crate) fn adjoint_known(run: &RecordedRun<'_>) -> Result<()> {
    match run.rule().no_adjoint() {
        None => Ok(()),
        Some(why) => Err(AnalysisError::Unsupported(Unsupported::Adjoint {
            rule: run.rule().describe(),
            why,
        })),
    }
}

/// The state of a sweep before its first step, for [`resume`] or [`resume_timed`]. `queries` are the gradients at
/// `options.at`.
///
/// # Errors
/// If a query's gradient doesn't fit the run's model, the update rule has no adjoint, or the run's end can't be read.
pub fn begin(
    run: &RecordedRun<'_>,
    engine: &dyn ReplayEngine,
    queries: &[QueryGradient],
    options: &SweepOptions,
) -> Result<SweepState> {
    adjoint_known(run)?;
    let end = run.source().end()?.step;
    for q in queries {
        for (what, got, expected) in [
            ("parameters", q.parameters.len(), engine.parameter_count()),
            ("buffers", q.buffers.len(), engine.buffer_count()),
        ] {
            if got != expected {
                return Err(AnalysisError::Mismatch {
                    what: format!("gradient of query `{}` in the {what}", q.name),
                    expected: expected.to_string(),
                    got: got.to_string(),
                    hint: "compute it with the run's own model".to_owned(),
                });
            }
        }
    }
    Ok(SweepState::new(
        options.window.clone(),
        options.at.resolve(run.source(), options.window.start)?,
        end,
        run.examples(),
        run.rule().state_values(run.blocks().values()),
        queries,
        options.per_term,
    ))
}

/// Resumes a sweep from the state that an earlier sweep of the same run left behind.
///
/// # Errors
/// As [`sweep`].
pub fn resume(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    state: SweepState,
    per_epoch: bool,
    progress: &mut dyn FnMut(&SweepState) -> ControlFlow<()>,
) -> Result<SweepState> {
    let mut times = SweepTimes::default();
    resume_timed(run, engine, state, per_epoch, progress, &mut times)
}

/// As [`resume`]. Adds where the time went to `times`, even if the sweep fails.
///
/// # Errors
/// As [`sweep`].
pub fn resume_timed(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    state: SweepState,
    per_epoch: bool,
    progress: &mut dyn FnMut(&SweepState) -> ControlFlow<()>,
    times: &mut SweepTimes,
) -> Result<SweepState> {
    let exact = Propagation::default();
    resume_with(run, engine, exact, state, per_epoch, progress, times)
}

/// As [`resume_timed`], with another propagation of the adjoint.
fn resume_with(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    propagation: Propagation,
    mut state: SweepState,
    per_epoch: bool,
    progress: &mut dyn FnMut(&SweepState) -> ControlFlow<()>,
    times: &mut SweepTimes,
) -> Result<SweepState> {
    if state.is_done() || state.queries.is_empty() {
        return Ok(state);
    }
    // Fails before the first step is computed if the trace lacks a step.
    let todo = crate::run::window::Window::Steps(state.window.clone())
        .resolve(run.source())?
        .start..state.next;
    let begun = Instant::now();
    let mut engine = SweepEngine::new(engine, propagation.hessian);
    let mut waited = Duration::ZERO;
    let walked = std::thread::scope(|scope| {
        let mut states = run.rule().reverse_needs_state().then(|| States::new(run));
        let reading = Reading::new(todo, Order::NewestFirst, &engine);
        let mut steps = Ahead::spawn(scope, run, reading)?;
        while !state.is_done() {
            let due = state.next - 1;
            let step = steps.next(&mut waited)?;
            let step = step.ok_or(Damaged::Ends { step: due })?;
            if step.meta.step != due {
                return Err(AnalysisError::Damaged(Damaged::Order {
                    due,
                    got: step.meta.step,
                }));
            }
            if let Some(states) = &mut states {
                states.reach(&mut engine, due, &mut waited)?;
            }
            let reverse = Reverse {
                run,
                propagation,
                per_epoch,
            };
            reverse.step(&mut engine, &mut state, states.as_mut(), &step)?;
            if progress(&state).is_break() && !state.is_done() {
                return Err(AnalysisError::Cancelled { step: state.next });
            }
        }
        Ok(())
    });
    times.add(begun.elapsed(), engine.spent(), waited);
    walked.map(|()| state)
}

/// What is the same for all steps of a sweep.
struct Reverse<'env> {
    run: &'env RecordedRun<'env>,
    propagation: Propagation,
    per_epoch: bool,
}

impl Reverse<'_> {
    /// Turns the sensitivities after a step into those before it, and adds the step's shares to the scores.
    fn step(
        &self,
        engine: &mut dyn ReplayEngine,
        state: &mut SweepState,
        states: Option<&mut States<'_>>,
        step: &ReplayStep,
    ) -> Result<()> {
        let t = step.meta.step;
        let mut adjoints: Vec<Adjoint> = state
            .queries
            .iter_mut()
            .map(|q| Adjoint {
                u: std::mem::take(&mut q.parameters),
                state: std::mem::take(&mut q.optimizer),
            })
            .collect();
        let buffer_adjoints: Vec<Vec<f64>> = state
            .queries
            .iter_mut()
            .map(|q| std::mem::take(&mut q.buffers))
            .collect();
        let out = self.products(engine, states, step, (&mut adjoints, &buffer_adjoints))?;
        if state.window.contains(&t) {
            let has_denominator = self.run.has_denominator(&step.meta);
            score(state, step, has_denominator, &out.products, self.per_epoch)?;
            terms::score(state, step, &out.terms)?;
        }
        let parts = state.queries.iter_mut().zip(adjoints);
        for ((query, mut adjoint), (hessian, mut rho)) in
            parts.zip(out.hessian.iter().zip(out.buffer_adjoints))
        {
            for (u, h) in adjoint.u.iter_mut().zip(hessian) {
                *u += h;
            }
            self.propagation.discount(&mut adjoint, &mut rho);
            query.inject(state.at.of(t), &mut adjoint.u, &mut rho);
            let size = norm(&adjoint.u);
            if !size.is_finite() || rho.iter().any(|x| !x.is_finite()) {
                return Err(AnalysisError::NotFinite {
                    step: t,
                    what: format!("the sensitivity of query `{}`", query.name),
                    dtype: engine.dtype(),
                });
            }
            query.growth.push((t, size));
            query.parameters = adjoint.u;
            query.optimizer = adjoint.state;
            query.buffers = rho;
        }
        state.next = t;
        if t <= state.at.first() {
            state.queries.iter_mut().for_each(QuerySweep::end_injection);
        }
        Ok(())
    }

    /// The products of a step. Turns the adjoints after the step into those before it, except for the products with the
    /// Hessian.
    fn products(
        &self,
        engine: &mut dyn ReplayEngine,
        mut states: Option<&mut States<'_>>,
        step: &ReplayStep,
        (adjoints, buffer_adjoints): (&mut [Adjoint], &[Vec<f64>]),
    ) -> Result<Products> {
        let rule = self.run.rule();
        let settings = self.run.settings(&step.meta);
        let failed = |source| AnalysisError::Update {
            step: step.meta.step,
            source,
        };
        let parameters = if rule.reverse_needs_state() {
            step.parameters.as_slice().to_f64()
        } else {
            Cow::default()
        };
        let mut directions = |gradient: &[f64]| {
            let before = match &mut states {
                Some(states) => states.before(&step.meta, &parameters, gradient)?,
                None => &[],
            };
            let at = StepPoint {
                parameters: &parameters,
                gradient,
                state: before,
            };
            let linear = rule.linearize(self.run.blocks(), &settings, at);
            let linear = linear.map_err(failed)?;
            let reversed = adjoints.iter_mut().map(|a| linear.reverse(a));
            reversed
                .map(|s| s.map_err(failed))
                .collect::<Result<Vec<_>>>()
        };
        if rule.reverse_needs_gradient(settings.clip_norm) {
            return engine.products_after(&step.input(), &mut directions, buffer_adjoints);
        }
        let directions = directions(&[])?;
        engine.products(&step.input(), &slices(&directions), buffer_adjoints)
    }
}

/// Adds a step's shares to the scores. `products` contains `<s, g_j>` for each query and each example of the batch.
fn score(
    state: &mut SweepState,
    step: &ReplayStep,
    has_denominator: bool,
    products: &[Vec<f64>],
    per_epoch: bool,
) -> Result<()> {
    let examples = state.occurrences.len();
    let grouping = Grouping::of(&step.meta, has_denominator, &step.weights, examples)?;
    for member in grouping.members() {
        state.occurrences[member.example] += member.occurrences;
    }
    for (query, products) in state.queries.iter_mut().zip(products) {
        let mut of_epoch = per_epoch.then(|| {
            query
                .epochs
                .entry(step.meta.epoch)
                .or_insert_with(|| vec![0.0; examples])
        });
        for (at, removal) in grouping.removals(&step.weights, products) {
            query.influence[at] += removal.fixed;
            query.renormalised[at] += removal.renormalised;
            if let Some(epoch) = &mut of_epoch {
                epoch[at] += removal.fixed;
            }
        }
    }
    Ok(())
}
