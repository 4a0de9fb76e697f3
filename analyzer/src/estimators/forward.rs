//! Estimates how the final parameters change when an example is left out, carried forward step by step: equation 2 of the
//! paper, and the same recursion for the accumulative estimate.
//!
//! `δ_j` starts at 0 and becomes an estimate of `θ_T(without j) − θ_T`:
//!
//! ```text
//! δ_{t+1} = (I − η_t H_t) δ_t + η_t Σ_{o of j in S_t} w_{t,o} g_o(θ_t)
//! ```
//!
//! A reverse sweep gives `<u, δ_j>` for all examples at once. This recursion gives the vector `δ_j` for each example of a
//! shortlist. Several examples share a pass, as the queries of a sweep do.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use hindcast_format::meta::StepMeta;
use hindcast_model::update::{Settings, UpdateRule};
use hindcast_model::vectors::{dot, norm};

use crate::engine::{ReplayEngine, StepInput, slices};
use crate::error::{AnalysisError, Damaged, Result, Unsupported};
use crate::query::average::StateWeights;
use crate::query::one::QueryGradient;
use crate::run::recorded::RecordedRun;
use crate::run::walk::Order;
use crate::sweep::{Reading, ReplayStep, each_step};

/// Maximum number of directions per call of the engine. More would save little, because the work that they share is then a
/// small part of the pass.
const AT_ONCE: usize = 32;

/// Whether an example's own term stays in the Hessian of the batches that it is left out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnTerm {
    /// It stays. This is the paper's first-order estimate (equation 2), whose product with a query is the sweep's score.
    Kept,
    /// It is omitted, as in the run without the example. This is the accumulative estimate (ACC-SGD-IE). The two differ only
    /// if an example occurs again within the window.
    LeftOut,
}

/// Estimated changes of the final parameters without each of some examples.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardChanges {
    /// Steps [A, B) that the examples are left out of.
    pub window: Range<u64>,
    /// T.
    pub end: u64,
    /// The shortlist.
    pub examples: Vec<u64>,
    /// How many times each of them is in the window's batches.
    pub occurrences: Vec<u64>,
    /// `‖η Σ w g_j‖` summed over the window's steps that hold the example: the immediate effect of its absence.
    pub injected: Vec<f64>,
    /// The estimates of `θ̄(without j) − θ̄`, one per shortlisted example, each of length p. θ̄ is the model that is asked
    /// about.
    pub changes: Vec<Vec<f64>>,
}

impl ForwardChanges {
    /// `<u, δ_j>` for each shortlisted example: the estimated change of the query.
    pub fn influence(&self, query: &QueryGradient) -> Vec<f64> {
        self.changes
            .iter()
            .map(|change| dot(change, &query.parameters))
            .collect()
    }
}

/// Carries `δ_j` from A to T for all of `examples` together: one Hessian-vector product per step and example. If `at` is an
/// average, the result is `Σ a_k δ_k` with its weights.
///
/// `progress` gets the number of steps done and of all steps after each step, and may stop the computation.
///
/// # Errors
/// [`Unsupported`] unless the run was trained by SGD without momentum and clipping, with a model without running
/// statistics. Also if the trace doesn't contain [A, T), an example isn't in the data or is named twice, a step can't be
/// replayed, a number stops being finite, or `progress` stops the computation.
pub fn forward_changes(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    examples: &[u64],
    window: &Range<u64>,
    at: &StateWeights,
    own_term: OwnTerm,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ForwardChanges> {
    defined(run)?;
    let places = places(run, examples)?;
    let steps = crate::run::window::Window::Steps(window.clone())
        .resolve(run.source())?
        .start..run.source().end()?.step;
    let mut walk = ForwardWalk {
        run,
        engine,
        window,
        own_term,
        places,
        occurrences: vec![0; examples.len()],
        injected: vec![0.0; examples.len()],
        changes: vec![None; examples.len()],
        at,
        averages: if at.is_final() {
            Vec::new()
        } else {
            vec![vec![0.0; run.blocks().values()]; examples.len()]
        },
    };
    let (begin, total) = (steps.start, steps.end - steps.start);
    let reading = Reading::new(steps.clone(), Order::OldestFirst, walk.engine);
    each_step(run, reading, &mut |step| {
        walk.step(&step)?;
        let due = step.meta.step + 1;
        if progress(due - begin, total).is_break() && due < steps.end {
            return Err(AnalysisError::Cancelled { step: due });
        }
        Ok(())
    })?;
    let p = run.blocks().values();
    let changes = if at.is_final() {
        let ends = walk.changes.into_iter();
        ends.map(|change| change.unwrap_or_else(|| vec![0.0; p]))
            .collect()
    } else {
        walk.averages
    };
    Ok(ForwardChanges {
        window: window.clone(),
        end: steps.end,
        examples: examples.to_vec(),
        occurrences: walk.occurrences,
        injected: walk.injected,
        changes,
    })
}

/// Whether these estimates are defined for a run.
///
/// # Errors
/// [`Unsupported`] with the reason if they are not.
pub fn defined(run: &RecordedRun<'_>) -> Result<()> {
    plain(run.rule()).map_err(|why| {
        AnalysisError::Unsupported(Unsupported::Rule {
            rule: run.rule().describe(),
            why,
        })
    })?;
    let buffers = run.source().buffers();
    let Some(first) = buffers.first() else {
        return Ok(());
    };
    Err(AnalysisError::Unsupported(Unsupported::RunningStatistics {
        count: buffers.len(),
        first: first.name.clone(),
    }))
}

/// Checks that a rule is plain SGD. The error says why it isn't.
pub fn plain(rule: &UpdateRule) -> Result<(), String> {
    match *rule {
        UpdateRule::Sgd { momentum, .. } if momentum != 0.0 => {
            Err(format!("its momentum is {momentum}"))
        }
        UpdateRule::Sgd {
            clip_norm: Some(c), ..
        } => Err(format!("it clips gradients at {c}")),
        UpdateRule::Sgd { .. } => Ok(()),
        _ => Err("that is not SGD".to_owned()),
    }
}

/// Position of each example in the shortlist.
fn places(run: &RecordedRun<'_>, examples: &[u64]) -> Result<BTreeMap<u64, usize>> {
    let all = run.examples() as u64;
    let mut places = BTreeMap::new();
    for (at, &example) in examples.iter().enumerate() {
        if example >= all {
            return Err(AnalysisError::NoExample {
                example,
                examples: all,
            });
        }
        if places.insert(example, at).is_some() {
            return Err(AnalysisError::Repeated { example });
        }
    }
    Ok(places)
}

struct ForwardWalk<'a, 'run> {
    run: &'a RecordedRun<'run>,
    engine: &'a mut dyn ReplayEngine,
    window: &'a Range<u64>,
    own_term: OwnTerm,
    places: BTreeMap<u64, usize>,
    occurrences: Vec<u64>,
    injected: Vec<f64>,
    /// δ_j; `None` before the first step that uses the example.
    changes: Vec<Option<Vec<f64>>>,
    at: &'a StateWeights,
    /// `Σ a_k δ_k` so far; empty if nothing is averaged.
    averages: Vec<Vec<f64>>,
}

impl ForwardWalk<'_, '_> {
    fn step(&mut self, step: &ReplayStep) -> Result<()> {
        let t = step.meta.step;
        let settings = self.run.settings(&step.meta);
        if let Some(norm) = settings.clip_norm {
            return Err(AnalysisError::Unsupported(Unsupported::Clipping {
                step: t,
                norm,
            }));
        }
        let weights = &step.weights;
        let here = if self.window.contains(&t) {
            self.here(&step.meta)
        } else {
            BTreeMap::new()
        };
        // Carries the earlier effect through the step. For the accumulative estimate, j is omitted from its batch.
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        for (at, change) in self.changes.iter().enumerate() {
            match (change, self.own_term, here.get(&at)) {
                (None, ..) => {}
                (Some(_), OwnTerm::LeftOut, Some(rows)) => alone.push((at, rows)),
                (Some(_), ..) => together.push(at),
            }
        }
        for some in together.chunks(AT_ONCE) {
            self.through(step, &settings, some, weights)?;
        }
        for (at, rows) in alone {
            let without = masked(weights, |row| !rows.contains(&row));
            self.through(step, &settings, &[at], &without)?;
        }
        self.inject(step, &settings, &here, weights)?;
        self.average(t + 1);
        Ok(())
    }

    /// Adds the changes of the parameters before step k to the averages.
    fn average(&mut self, k: u64) {
        let weight = self.at.of(k);
        for (average, change) in self.averages.iter_mut().zip(&self.changes) {
            for (sum, x) in average.iter_mut().zip(change.iter().flatten()) {
                *sum += weight * x;
            }
        }
    }

    /// For each shortlisted example in the batch, its rows.
    fn here(&self, meta: &StepMeta) -> BTreeMap<usize, Vec<usize>> {
        let mut here: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, index) in meta.indices.iter().enumerate() {
            if let Some(&at) = self.places.get(index) {
                here.entry(at).or_default().push(row);
            }
        }
        here
    }

    /// `δ ← δ − η (H δ + λ δ)` for the examples of `some`, with the Hessian H of the batch with these weights.
    fn through(
        &mut self,
        step: &ReplayStep,
        settings: &Settings,
        some: &[usize],
        weights: &[f64],
    ) -> Result<()> {
        let directions: Vec<Vec<f64>> = some
            .iter()
            .map(|&at| self.changes[at].take().unwrap_or_default())
            .collect();
        let no_buffers = vec![Vec::new(); directions.len()];
        let input = StepInput {
            weights,
            ..step.input()
        };
        let products = self
            .engine
            .products(&input, &slices(&directions), &no_buffers)?;
        if products.stopped {
            return Err(Unsupported::ForwardThroughStop.into());
        }
        for ((&at, mut change), curved) in some.iter().zip(directions).zip(products.hessian) {
            self.moved(settings, |range, rate, decay| {
                for (d, h) in change[range.clone()].iter_mut().zip(&curved[range]) {
                    *d -= rate * (h + decay * *d);
                }
            })?;
            if !norm(&change).is_finite() {
                return Err(AnalysisError::NotFinite {
                    step: step.meta.step,
                    what: "the effect of leaving an example out".to_owned(),
                    dtype: self.engine.dtype(),
                });
            }
            self.changes[at] = Some(change);
        }
        Ok(())
    }

    /// `δ ← δ + η Σ w g` for the shortlisted examples that the step uses.
    fn inject(
        &mut self,
        step: &ReplayStep,
        settings: &Settings,
        here: &BTreeMap<usize, Vec<usize>>,
        weights: &[f64],
    ) -> Result<()> {
        if here.is_empty() {
            return Ok(());
        }
        // With all weights 0, only the penalty's gradient is left. It belongs to no example, so it is subtracted.
        let none = masked(weights, |_| false);
        let shared = self.engine.gradient(&StepInput {
            weights: &none,
            ..step.input()
        })?;
        for (&at, rows) in here {
            let own = masked(weights, |row| rows.contains(&row));
            let with = self.engine.gradient(&StepInput {
                weights: &own,
                ..step.input()
            })?;
            let mut change = self.changes[at]
                .take()
                .unwrap_or_else(|| vec![0.0; self.run.blocks().values()]);
            let mut square = 0.0;
            self.moved(settings, |range, rate, _| {
                let terms = with.parameters[range.clone()]
                    .iter()
                    .zip(&shared.parameters[range.clone()]);
                for (d, (with, shared)) in change[range].iter_mut().zip(terms) {
                    let term = rate * (with - shared);
                    *d += term;
                    square += term * term;
                }
            })?;
            self.injected[at] += square.sqrt();
            self.changes[at] = Some(change);
            self.occurrences[at] += rows.len() as u64;
        }
        Ok(())
    }

    /// Calls `each` with the range, η and λ of every tensor that the step moved.
    fn moved(
        &self,
        settings: &Settings,
        mut each: impl FnMut(Range<usize>, f64, f64),
    ) -> Result<()> {
        for (tensor, block) in self.run.blocks().iter().enumerate() {
            let hyper = settings.groups.get(block.group);
            match (settings.trained.get(tensor), hyper) {
                (Some(false), _) => {}
                (Some(true), Some(hyper)) => {
                    each(block.range.clone(), hyper.learning_rate, hyper.weight_decay);
                }
                _ => {
                    return Err(AnalysisError::Damaged(Damaged::NoSettings {
                        tensor,
                        group: block.group,
                    }));
                }
            }
        }
        Ok(())
    }
}

fn masked(weights: &[f64], keep: impl Fn(usize) -> bool) -> Vec<f64> {
    (0..)
        .zip(weights)
        .map(|(row, &w)| if keep(row) { w } else { 0.0 })
        .collect()
}
