//! Steps at which the batch loss jumped, and what each of their examples contributed.

use std::collections::VecDeque;
use std::ops::Range;

use hindcast_model::objective::Split;
use hindcast_model::vectors::dot;
use serde::Serialize;

use super::label::LabelOutput;
use super::walk::{Squares, StepDynamics, walk};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::sweep::Observer;

/// What counts as a jump, and how many are explained.
#[derive(Debug, Clone, PartialEq)]
pub struct SpikeOptions {
    /// Steps to look at.
    pub steps: Range<u64>,
    /// Number of steps before a step whose median is its expected loss.
    pub before: usize,
    /// How many deviations above the expected loss a step's loss has to be.
    pub above: f64,
    /// Number of jumps to explain, the largest first.
    pub top: usize,
}

/// Fewest steps before a step from which its loss is expected.
pub const FEWEST_BEFORE: usize = 20;
/// The standard deviation of normally distributed numbers, divided by the median of their absolute deviations.
const NORMAL: f64 = 1.482_602_218_505_602;

/// The jumps of a run's loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpikeReport {
    /// Steps that were looked at.
    pub window: Range<u64>,
    /// Of these, the steps with enough steps before them.
    pub judged: usize,
    /// Steps whose loss jumped.
    pub found: usize,
    /// Whether the losses are the recorded ones; they are recomputed if a step doesn't record its loss.
    pub recorded: bool,
    /// The largest jumps, the largest first.
    pub spikes: Vec<Spike>,
}

/// A step whose batch loss jumped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spike {
    /// The step.
    pub step: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Its batch loss; `None` if it is not finite.
    pub loss: Option<f64>,
    /// The expected loss: the median of the steps before.
    pub expected: f64,
    /// The jump in robust standard deviations: the loss above the expected loss, divided by 1.4826 times the median absolute
    /// deviation of the steps before. `None` for a loss that is not finite, or if the steps before have the same loss.
    pub deviations: Option<f64>,
    /// The examples of its batch, the largest share first.
    pub examples: Vec<SpikeExample>,
}

/// An example in the batch of a [`Spike`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpikeExample {
    /// Its index in the training split.
    pub index: u64,
    /// Its row in the original data.
    pub row: u64,
    /// The file that the row comes from.
    pub file: String,
    /// Its label as text.
    pub label: String,
    /// ℓ_j before the step's update; `None` if it is not finite.
    pub loss: Option<f64>,
    /// Its share of the jump. The shares of a batch add up to 1; a negative one lowers the loss. `None` for a loss that is not
    /// finite.
    pub share: Option<f64>,
    /// ‖g_j‖, the norm of its unweighted gradient; `None` if it is not finite.
    pub gradient: Option<f64>,
    /// Its margin; `None` unless the model is a classifier.
    pub margin: Option<f64>,
    /// Its label's probability; `None` unless the model is a classifier.
    pub probability: Option<f64>,
}

/// Finds the jumps, and replays the steps of the largest ones.
///
/// Step t has jumped if `L_t > m_t + k · 1.4826 d_t`. L_t is its batch loss, m_t the median loss of the steps before it, d_t the
/// median absolute deviation from m_t, and k is [`SpikeOptions::above`]. A loss that is not finite is a jump, too.
///
/// # Errors
/// Steps aren't recorded or can't be replayed, or `observer` asks to stop.
pub fn spikes(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    options: &SpikeOptions,
    observer: &mut dyn Observer,
) -> Result<SpikeReport> {
    let (mut losses, mut recorded) = (Vec::new(), true);
    run.source().each_meta(options.steps.clone(), &mut |meta| {
        recorded &= meta.loss.is_some();
        losses.push(meta.loss.unwrap_or(f64::NAN));
        Ok(())
    })?;
    if !recorded {
        losses.clear();
        let mut see = |step: &StepDynamics<'_>| {
            losses.push(dot(step.weights, &step.losses));
            Ok(())
        };
        walk(
            run,
            engine,
            &options.steps,
            Squares::None,
            &mut see,
            observer,
        )?;
    }
    let mut jumps = jumps(&losses, options.before, options.above);
    let found = jumps.len();
    jumps.sort_by(|a, b| b.deviations.total_cmp(&a.deviations).then(a.at.cmp(&b.at)));
    jumps.truncate(options.top);
    let mut spikes = Vec::with_capacity(jumps.len());
    for jump in jumps {
        let t = options.steps.start + jump.at as u64;
        let mut see = |step: &StepDynamics<'_>| {
            spikes.push(explained(run, step, losses[jump.at], &jump));
            Ok(())
        };
        walk(run, engine, &(t..t + 1), Squares::Plain, &mut see, observer)?;
    }
    Ok(SpikeReport {
        window: options.steps.clone(),
        judged: losses
            .len()
            .saturating_sub(FEWEST_BEFORE.min(options.before)),
        found,
        recorded,
        spikes,
    })
}

/// A jump at a position in a list of losses.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Jump {
    at: usize,
    expected: f64,
    /// Infinite for a loss that is not finite, or where the losses before are equal.
    deviations: f64,
}

/// The jumps in a list of losses, in order.
fn jumps(losses: &[f64], before: usize, above: f64) -> Vec<Jump> {
    let mut out = Vec::new();
    let mut recent: VecDeque<f64> = VecDeque::with_capacity(before + 1);
    for (at, &loss) in losses.iter().enumerate() {
        if recent.len() >= FEWEST_BEFORE.min(before) {
            let expected = median(recent.iter().copied());
            let spread = NORMAL * median(recent.iter().map(|x| (x - expected).abs()));
            let deviations = if loss.is_finite() && spread > 0.0 {
                (loss - expected) / spread
            } else {
                f64::INFINITY
            };
            if !loss.is_finite() || (loss > expected && deviations > above) {
                out.push(Jump {
                    at,
                    expected,
                    deviations,
                });
            }
        }
        recent.push_back(loss);
        if recent.len() > before {
            recent.pop_front();
        }
    }
    out
}

/// The median; of an even number of values, the mean of the middle two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

fn explained(run: &RecordedRun<'_>, step: &StepDynamics<'_>, loss: f64, jump: &Jump) -> Spike {
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    let data = run.data();
    let shares = shares(step.weights, &step.losses, loss, jump.expected);
    let rows = step.meta.indices.iter().enumerate();
    let mut examples: Vec<SpikeExample> = rows
        .map(|(at, &index)| {
            let label: Option<LabelOutput> = step.labels.as_ref().map(|labels| labels[at]);
            SpikeExample {
                index,
                row: data.origin(Split::Train, index),
                file: data.file(Split::Train, index),
                label: data.label(Split::Train, index),
                loss: finite(step.losses[at]),
                share: finite(shares[at]),
                gradient: finite(step.squares[at].sqrt()),
                margin: label.and_then(|label| finite(label.margin)),
                probability: label.and_then(|label| finite(label.probability)),
            }
        })
        .collect();
    let share = |e: &SpikeExample| e.share.unwrap_or(f64::NEG_INFINITY);
    examples.sort_by(|a, b| share(b).total_cmp(&share(a)));
    Spike {
        step: step.meta.step,
        epoch: step.meta.epoch,
        loss: finite(loss),
        expected: jump.expected,
        deviations: finite(jump.deviations),
        examples,
    }
}

/// `w_j (ℓ_j − e) / (L − m)`. e is the loss per unit of weight at which the batch would have had the expected loss m: the part of
/// L that belongs to no example, a penalty, is the same in both.
fn shares(weights: &[f64], losses: &[f64], loss: f64, expected: f64) -> Vec<f64> {
    let penalty = loss - dot(weights, losses);
    let each = (expected - penalty) / weights.iter().sum::<f64>();
    let terms = weights.iter().zip(losses);
    terms
        .map(|(w, l)| w * (l - each) / (loss - expected))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |values: &[f64]| median(values.iter().copied());
        assert_eq!(of(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 30.0]), 3.0);
        assert!(of(&[]).is_nan());
    }

    /// 0.9, 1 and 1.1 in turn: median 1, median absolute deviation 0.1, in any 20 of them or more.
    fn steady(n: usize) -> Vec<f64> {
        [0.9, 1.0, 1.1].into_iter().cycle().take(n).collect()
    }

    #[test]
    fn a_jump_is_measured_in_robust_deviations_of_the_steps_before() {
        let mut losses = steady(60);
        losses[40] = 2.0;
        losses[50] = 1.4;
        let found = jumps(&losses, 30, 5.0);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].at, 40);
        assert!((found[0].expected - 1.0).abs() < 1e-12);
        assert!((found[0].deviations - 1.0 / (NORMAL * 0.1)).abs() < 1e-9);
        let found: Vec<usize> = jumps(&losses, 30, 2.0).iter().map(|j| j.at).collect();
        assert_eq!(found, [40, 50]);
        // Too early to know what to expect.
        let mut early = steady(30);
        early[19] = 9.0;
        assert!(jumps(&early, 30, 5.0).is_empty());
        early[20] = 9.0;
        assert_eq!(jumps(&early, 30, 5.0).len(), 1);
        // A falling loss is no jump, and neither is a plateau once it is half of the steps before.
        let falling: Vec<f64> = (0..200).map(|i| 0.98_f64.powi(i)).collect();
        assert!(jumps(&falling, 50, 3.0).is_empty());
    }

    #[test]
    fn losses_that_are_not_finite_and_steps_from_nowhere_are_jumps() {
        let mut losses = steady(40);
        losses[35] = f64::NAN;
        losses[36] = f64::INFINITY;
        let found: Vec<usize> = jumps(&losses, 30, 5.0).iter().map(|j| j.at).collect();
        assert_eq!(found, [35, 36]);
        let mut constant = vec![0.5; 40];
        constant[30] = 0.6;
        let found = jumps(&constant, 30, 5.0);
        assert_eq!((found.len(), found[0].at), (1, 30));
        assert_eq!(found[0].deviations, f64::INFINITY);
    }

    #[test]
    fn shares_add_up_to_the_whole_jump() {
        // Mean 2, expected 1: the last one carries more than all of it.
        let got = shares(&[0.25; 4], &[1.0, 0.0, 1.0, 6.0], 2.0, 1.0);
        assert_eq!(got, [0.0, -0.25, 0.0, 1.25]);
        // With a penalty of 0.5 in both losses the examples are expected to have 0.5 each.
        let got = shares(&[0.5, 0.5], &[0.5, 2.5], 2.0, 1.0);
        assert_eq!(got, [0.0, 1.0]);
        let sum: f64 = shares(&[1.0, 2.0, 0.5], &[3.0, 0.1, 7.0], 7.3, 2.0)
            .iter()
            .sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
}
