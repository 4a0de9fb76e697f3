//! The theory's bounds on the estimates, next to the measured values: Lemma 7 (inequalities 7 and 8) and Theorem 5
//! for strongly convex losses, Theorem 6 for smooth ones.

mod assumptions;
mod table;

pub use assumptions::{Constants, GivenConstants};

use std::ops::{ControlFlow, Range};

use candle_core::DType;
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::vectors::norm;
use serde::Serialize;

use crate::counterfactual::{CounterfactualOptions, ReplayProgress, counterfactuals};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, BrokenAssumption, Missing, Result, Unsupported};
use crate::estimators::{ForwardChanges, OwnTerm, forward_changes};
use crate::query::average::StateWeights;
use crate::run::recorded::RecordedRun;
use assumptions::{Assumed, Step, assumptions};

/// Options of [`bounds`]: examples, steps and constants.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundsOptions {
    /// Steps in which the examples are left out.
    pub window: Range<u64>,
    /// The examples; `None` for all examples of the window.
    pub examples: Option<Vec<u64>>,
    /// Constants to use instead of the derived ones.
    pub given: Option<GivenConstants>,
}

/// Bounds of one example, and the values that they bound. All are norms of parameter vectors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BoundsRow {
    /// Its index in the training split.
    pub index: u64,
    /// Its row in the original data.
    pub row: u64,
    /// Its label as text.
    pub label: String,
    /// π, the step whose batch contains the example.
    pub step: u64,
    /// `‖g_j(θ_π)‖`.
    pub gradient: f64,
    /// `h_j(Λ)`; `None` unless the assumptions of Lemma 7 hold.
    pub lower: Option<f64>,
    /// `h_j(λ)`.
    pub upper: Option<f64>,
    /// `‖Δθ_{−j}‖`, the forward estimate (equation 2).
    pub estimate: f64,
    /// `‖θ_{−j} − θ‖`, measured by retraining without the example.
    pub real: f64,
    /// `‖(θ_{−j} − θ) − Δθ_{−j}‖`.
    pub gap: f64,
    /// Theorem 5 as printed: `√(2(h_j(λ)² + h_j(Λ)²))`.
    pub theorem5: Option<f64>,
    /// A bound of the gap that always holds: `2 h_j(λ)`.
    pub always: Option<f64>,
    /// Theorem 6.
    pub theorem6: Option<f64>,
    /// The file that the row comes from.
    pub file: String,
}

/// The bounds of a run, and the values that they bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BoundsReport {
    /// Steps in which the examples were left out.
    pub window: Range<u64>,
    /// T.
    pub run_steps: u64,
    /// λ, Λ, L, G.
    pub constants: Constants,
    /// Smallest and largest learning rate.
    pub rates: (f64, f64),
    /// Why Lemma 7 and Theorem 5 don't apply to this run; empty if they do.
    pub without_lemma7: Vec<BrokenAssumption>,
    /// Why Theorem 6 doesn't apply.
    pub without_theorem6: Vec<BrokenAssumption>,
    /// Largest effect of rounding. A bound counts as broken if it is exceeded by more.
    pub rounding: f64,
    /// One per example.
    #[serde(skip)]
    pub rows: Vec<BoundsRow>,
}

/// Number of examples that exceed a bound by more than rounding, and how close the closest value comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoundCheck {
    /// Examples for which it was checked.
    pub examples: usize,
    /// Examples that exceed it.
    pub broken: usize,
    /// Largest ratio of a bounded value to its bound (for a lower bound: of the bound to the value).
    pub tightest: f64,
}

impl BoundsReport {
    /// Inequality (7): `h_j(Λ) ≤ ‖Δθ_{−j}‖ ≤ h_j(λ)`.
    pub fn inequality7(&self) -> Option<BoundCheck> {
        self.kept(|r| Some(vec![(r.lower?, r.estimate), (r.estimate, r.upper?)]))
    }

    /// Inequality (8): `h_j(Λ) ≤ ‖θ_{−j} − θ‖ ≤ h_j(λ)`.
    pub fn inequality8(&self) -> Option<BoundCheck> {
        self.kept(|r| Some(vec![(r.lower?, r.real), (r.real, r.upper?)]))
    }

    /// Theorem 5 as printed.
    pub fn theorem5(&self) -> Option<BoundCheck> {
        self.kept(|r| Some(vec![(r.gap, r.theorem5?)]))
    }

    /// `gap ≤ 2 h_j(λ)`.
    pub fn always(&self) -> Option<BoundCheck> {
        self.kept(|r| Some(vec![(r.gap, r.always?)]))
    }

    /// Theorem 6.
    pub fn theorem6(&self) -> Option<BoundCheck> {
        self.kept(|r| Some(vec![(r.gap, r.theorem6?)]))
    }

    fn kept(&self, pairs: impl Fn(&BoundsRow) -> Option<Vec<(f64, f64)>>) -> Option<BoundCheck> {
        let of: Vec<Vec<(f64, f64)>> = self.rows.iter().filter_map(pairs).collect();
        if of.is_empty() {
            return None;
        }
        let over = |(small, large): &(f64, f64)| *small > large + 1e-9 * large + self.rounding;
        let tightest = of
            .iter()
            .flatten()
            .map(|(small, large)| if *large > 0.0 { small / large } else { 0.0 });
        Some(BoundCheck {
            examples: of.len(),
            broken: of.iter().filter(|pairs| pairs.iter().any(over)).count(),
            tightest: tightest.fold(0.0, f64::max),
        })
    }
}

/// Computes every bound, carries the forward estimate, and retrains without each example in turn.
///
/// `engine` should compute in float64: the bounded values can be much smaller than the parameters.
///
/// # Errors
/// [`Unsupported::Bounds`] with every broken assumption and its numbers. An example isn't in the window. See also
/// [`forward_changes`] and [`counterfactuals`].
pub fn bounds(
    run: &RecordedRun<'_>,
    net: &Net,
    engine: &mut dyn ReplayEngine,
    options: &BoundsOptions,
    progress: &ReplayProgress<'_>,
) -> Result<BoundsReport> {
    let Assumed {
        steps,
        constants,
        against_convex,
        against_smooth,
    } = assumptions(run, net, &options.window, options.given.as_ref())?;
    let examples = shortlist(&steps, options)?;
    let mut carry = |done, total| -> ControlFlow<()> { progress(done, total) };
    let forward = forward_changes(
        run,
        engine,
        &examples,
        &options.window,
        &StateWeights::at_end(run.source().end()?.step),
        OwnTerm::Kept,
        &mut carry,
    )?;
    let sets: Vec<Vec<u64>> = examples.iter().map(|&j| vec![j]).collect();
    let truth = counterfactuals(
        run,
        &CounterfactualOptions {
            evaluate: Vec::new(),
            ..CounterfactualOptions::new(options.window.clone())
        },
        &[],
        &sets,
        progress,
    )?;
    let with = &truth.everyone.parameters;
    let mut rows = Vec::with_capacity(examples.len());
    for (at, outcome) in truth.outcomes.iter().enumerate() {
        let real: Vec<f64> = outcome
            .parameters
            .iter()
            .zip(with)
            .map(|(a, b)| a - b)
            .collect();
        let lemma = against_convex.is_empty().then_some(&constants);
        let smooth = against_smooth.is_empty().then_some(&constants);
        rows.push(row(run, &steps, &forward, at, &real, lemma, smooth)?);
    }
    let gradient = rows.iter().map(|r| r.gradient).fold(0.0, f64::max);
    if gradient > constants.gradient {
        return Err(AnalysisError::Unsupported(Unsupported::GradientBound {
            bound: constants.gradient,
            found: gradient,
        }));
    }
    let rate = |pick: fn(f64, f64) -> f64, start| steps.iter().map(|s| s.rate).fold(start, pick);
    let unit = match run.dtype() {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    };
    Ok(BoundsReport {
        window: options.window.clone(),
        run_steps: forward.end,
        constants,
        rates: (rate(f64::min, f64::INFINITY), rate(f64::max, 0.0)),
        without_lemma7: against_convex,
        without_theorem6: against_smooth,
        rounding: 4.0 * unit * (steps.len() as f64).sqrt() * norm(with),
        rows,
    })
}

/// The chosen examples. Each must be in a batch of the window.
fn shortlist(steps: &[Step], options: &BoundsOptions) -> Result<Vec<u64>> {
    let mut available: Vec<u64> = steps
        .iter()
        .filter(|s| options.window.contains(&s.meta.step))
        .flat_map(|s| s.meta.indices.iter().copied())
        .collect();
    available.sort_unstable();
    let Some(requested) = &options.examples else {
        return Ok(available);
    };
    match requested
        .iter()
        .find(|j| available.binary_search(j).is_err())
    {
        None => Ok(requested.clone()),
        Some(&example) => Err(AnalysisError::Missing(Missing::Example {
            example,
            window: options.window.clone(),
        })),
    }
}

fn row(
    run: &RecordedRun<'_>,
    steps: &[Step],
    forward: &ForwardChanges,
    at: usize,
    real: &[f64],
    lemma: Option<&Constants>,
    smooth: Option<&Constants>,
) -> Result<BoundsRow> {
    let index = forward.examples[at];
    let estimate = &forward.changes[at];
    let pi = steps
        .iter()
        .position(|s| s.meta.indices.contains(&index))
        .ok_or_else(|| Missing::Example {
            example: index,
            window: forward.window.clone(),
        })?;
    let h = |a: f64| {
        let later = steps[pi + 1..].iter().map(|s| 1.0 - s.rate * a);
        forward.injected[at] * later.product::<f64>()
    };
    let gap: Vec<f64> = real.iter().zip(estimate).map(|(r, e)| r - e).collect();
    let (upper, lower) = (lemma.map(|c| h(c.lower)), lemma.map(|c| h(c.upper)));
    let weight = crate::run::source::weights_of(&steps[pi].meta)?
        .into_iter()
        .zip(&steps[pi].meta.indices)
        .filter(|(_, i)| **i == index)
        .map(|(w, _)| w)
        .sum::<f64>();
    let factor = steps[pi].rate * weight;
    Ok(BoundsRow {
        index,
        row: run.data().origin(Split::Train, index),
        label: run.data().label(Split::Train, index),
        step: steps[pi].meta.step,
        gradient: if factor > 0.0 {
            forward.injected[at] / factor
        } else {
            0.0
        },
        lower,
        upper,
        estimate: norm(estimate),
        real: norm(real),
        gap: norm(&gap),
        theorem5: lower
            .zip(upper)
            .map(|(l, u)| (2.0 * (u * u + l * l)).sqrt()),
        always: upper.map(|u| 2.0 * u),
        theorem6: smooth.map(|c| theorem6(c, steps[pi].rate, steps.len())),
        file: run.data().file(Split::Train, index),
    })
}

/// `4 ((1 + ηΛ)^{T−1} − 1)/Λ · η² T² G² L`, for T steps at the rate η.
fn theorem6(constants: &Constants, rate: f64, steps: usize) -> f64 {
    if constants.lipschitz == 0.0 {
        return 0.0;
    }
    let t = steps as f64;
    let grown = ((t - 1.0) * (rate * constants.upper).ln_1p()).exp_m1() / constants.upper;
    4.0 * grown * (rate * t * constants.gradient).powi(2) * constants.lipschitz
}
