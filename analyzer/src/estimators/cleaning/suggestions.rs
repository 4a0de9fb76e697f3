//! How far the suggested labels can be trusted, by examples that weren't trained on.
//!
//! Recorded labels alone can't tell a wrong label from a right one that the model gets wrong. Held-out examples say how good the
//! model is, and how many labels the same rule calls wrong where nothing was trained. The estimate is in docs/math.md.

use std::ops::Range;

use hindcast_model::objective::Split;

use super::evidence::largest;
use super::issues::Issues;
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::measures::wilson;
use crate::predictions::{Prediction, Told, predict_split};
use crate::query::QueryPoint;
use crate::run::recorded::RecordedRun;
use crate::sweep::Observer;

/// Smallest share of held-out labels that the model has to predict for its suggestions to say anything.
const AGREES: f64 = 0.55;
/// Share of issues with a right label above which relabelling all of them breaks more labels than it mends.
const RIGHT: f64 = 0.5;
/// Number of models whose predictions are averaged.
const MODELS: usize = 5;
/// Number of groups of equal size, by confidence, in which agreement is counted.
const GROUPS: usize = 5;

/// What held-out examples say about the suggested labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuggestionTrust {
    /// The held-out split.
    pub split: Split,
    /// Number of its examples.
    pub examples: usize,
    /// Number of its labels that the model predicts.
    pub agreeing: usize,
    /// Number of its labels that confident learning's rule calls wrong.
    pub called_wrong: usize,
    /// Estimate of the share of issues whose given label is right: from 0 to 1.
    pub right: f64,
    /// The interval of `right`: its ends, for the ends of the 95 % intervals of the two shares that it is computed from. It covers the
    /// chance in drawing the held-out examples, and no error of the two assumptions.
    pub right_interval: (f64, f64),
}

/// What to do with the suggestions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Relabelling all issues makes more labels right than wrong.
    Relabel,
    /// The model predicts too few of the held-out labels to say anything about a label, or that can't be ruled out.
    TooWeak,
    /// More issues have a right label than a wrong one.
    MostlyRight,
    /// The held-out examples are too few to tell whether more issues have a right label or a wrong one.
    Unsure,
}

impl Advice {
    /// The word for scripts.
    pub fn word(self) -> &'static str {
        match self {
            Advice::Relabel => "relabel",
            Advice::TooWeak => "too-weak",
            Advice::MostlyRight => "mostly-right",
            Advice::Unsure => "unsure",
        }
    }
}

impl SuggestionTrust {
    /// Smallest number of held-out examples for an estimate.
    pub const FEWEST: u64 = 30;

    /// Predicts the validation split, or the test split if there is none, by the mean over models at the steps of the evidence, as the
    /// training examples are judged. `None` without issues, and with fewer than 30 held-out examples.
    ///
    /// # Errors
    /// As [`predict_split`].
    pub fn of(
        run: &RecordedRun<'_>,
        engine: &mut dyn ReplayEngine,
        evidence: &Range<u64>,
        issues: &Issues,
        observer: &mut dyn Observer,
    ) -> Result<Option<Self>> {
        let is_enough = |split: &Split| run.data().len(*split) >= Self::FEWEST;
        let held_out = [Split::Validation, Split::Test].into_iter().find(is_enough);
        let (Some(split), true) = (held_out, issues.examples.iter().any(|e| e.is_issue)) else {
            return Ok(None);
        };
        let mut sums: Vec<(usize, Vec<f64>)> = Vec::new();
        for step in spread(evidence) {
            let found = predict_split(run, engine, &QueryPoint::Step(step), split, observer)?;
            add(&mut sums, &found.rows);
        }
        let held: Vec<HeldOut> = sums.iter().filter_map(HeldOut::of).collect();
        Ok(SuggestionTrust::estimate(split, &held, issues))
    }

    /// What to do with the suggestions.
    pub fn advice(&self) -> Advice {
        let (fewest, most) = self.right_interval;
        if self.agreement_interval().0 < AGREES {
            Advice::TooWeak
        } else if most <= RIGHT {
            Advice::Relabel
        } else if fewest > RIGHT {
            Advice::MostlyRight
        } else {
            // NaN comes here, too.
            Advice::Unsure
        }
    }

    /// Share of the held-out labels that the model predicts.
    pub fn agreement(&self) -> f64 {
        self.agreeing as f64 / self.examples as f64
    }

    /// The 95 % interval of that share.
    pub fn agreement_interval(&self) -> (f64, f64) {
        wilson(self.agreeing, self.examples)
    }

    fn estimate(split: Split, held: &[HeldOut], issues: &Issues) -> Option<Self> {
        let marked = issues.examples.iter().filter(|e| e.is_issue).count();
        if held.is_empty() || marked == 0 {
            return None;
        }
        let n = held.len();
        let called_wrong = called_wrong(held, issues.thresholds.len());
        let if_right = |called: f64| called * issues.examples.len() as f64 / marked as f64;
        let agreement = Agreement::of(held);
        let if_noisy = |wrong: f64| agreement.right_issues(wrong, issues);
        // Of the two estimates, the smaller one counts.
        let right = |called: f64, wrong: f64| if_right(called).min(if_noisy(wrong)).min(1.0);
        let called = wilson(called_wrong, n);
        // The more held-out labels are wrong, the fewer errors of the model are among those that differ.
        let wrong = agreement.wrong_interval();
        Some(SuggestionTrust {
            split,
            examples: n,
            agreeing: held.iter().filter(|h| h.agrees()).count(),
            called_wrong,
            right: right(called_wrong as f64 / n as f64, agreement.wrong()),
            right_interval: (right(called.0, wrong.1), right(called.1, wrong.0)),
        })
    }
}

/// A held-out example's label and prediction.
#[derive(Debug, Clone, Copy)]
struct HeldOut {
    label: usize,
    predicted: usize,
    probability: f64,
    label_probability: f64,
}

impl HeldOut {
    /// From a label and the sums of the probabilities by [`MODELS`] models.
    fn of((label, sums): &(usize, Vec<f64>)) -> Option<Self> {
        let (predicted, probability) = largest(sums)?;
        Some(HeldOut {
            label: *label,
            predicted,
            probability: probability / MODELS as f64,
            label_probability: sums.get(*label)? / MODELS as f64,
        })
    }

    fn agrees(&self) -> bool {
        self.label == self.predicted
    }
}

/// Steps in the middle of as many equal parts of the evidence as there are models.
fn spread(evidence: &Range<u64>) -> [u64; MODELS] {
    let length = evidence.end - evidence.start;
    std::array::from_fn(|at| evidence.start + (2 * at as u64 + 1) * length / (2 * MODELS as u64))
}

/// Adds one model's probabilities of each example to the sums. Examples without classes are left out.
fn add(sums: &mut Vec<(usize, Vec<f64>)>, rows: &[Prediction]) {
    let classes = rows.iter().filter_map(|row| match &row.told {
        Told::Class {
            label,
            probabilities,
            ..
        } => Some((*label, probabilities)),
        _ => None,
    });
    for (at, (label, probabilities)) in classes.enumerate() {
        match sums.get_mut(at) {
            None => sums.push((label, probabilities.clone())),
            Some((_, sums)) => {
                for (sum, p) in sums.iter_mut().zip(probabilities) {
                    *sum += p;
                }
            }
        }
    }
}

/// The number of held-out labels that confident learning calls wrong: another class is predicted, at least as probably as on average
/// for the examples with that class as their label.
fn called_wrong(held: &[HeldOut], classes: usize) -> usize {
    let mut sums = vec![(0.0, 0u64); classes];
    for h in held {
        if let Some((sum, count)) = sums.get_mut(h.label) {
            *sum += h.label_probability;
            *count += 1;
        }
    }
    let is_called = |h: &&HeldOut| {
        let usual = sums.get(h.predicted).filter(|(_, count)| *count > 0);
        !h.agrees() && usual.is_some_and(|(sum, count)| h.probability >= sum / *count as f64)
    };
    held.iter().filter(is_called).count()
}

/// How many held-out labels are predicted, in groups of equal size from the most to the least confident predictions.
struct Agreement {
    /// Share per group. A less confident group doesn't agree more often: where it seems to, that is chance.
    shares: [f64; GROUPS],
    /// Size of the most confident group, and the number of its labels that aren't predicted.
    most_confident: (usize, usize),
}

impl Agreement {
    fn of(held: &[HeldOut]) -> Self {
        let mut sorted: Vec<&HeldOut> = held.iter().collect();
        sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        let counted: [(usize, usize); GROUPS] = std::array::from_fn(|at| {
            let bound = |at: usize| at * sorted.len() / GROUPS;
            let group = sorted.get(bound(at)..bound(at + 1)).unwrap_or_default();
            let differ = group.iter().filter(|h| !h.agrees()).count();
            (group.len(), differ)
        });
        let mut lowest = 1.0_f64;
        let shares = counted.map(|(size, differ)| {
            if size > 0 {
                lowest = lowest.min((size - differ) as f64 / size as f64);
            }
            lowest
        });
        Agreement {
            shares,
            most_confident: counted[0],
        }
    }

    /// The share of wrong held-out labels, if the most confident predictions are right: they differ from wrong labels only.
    fn wrong(&self) -> f64 {
        1.0 - self.shares[0]
    }

    /// The 95 % interval of that share.
    fn wrong_interval(&self) -> (f64, f64) {
        let (size, differ) = self.most_confident;
        wilson(differ, size)
    }

    /// The share of issues whose label is right, if the share `wrong` of the training labels and of the held-out labels is wrong.
    fn right_issues(&self, wrong: f64, issues: &Issues) -> f64 {
        let other_classes = issues.thresholds.len().saturating_sub(1).max(1) as f64;
        let by_chance = wrong / other_classes;
        let right_given = |agrees: f64| {
            let spread = (1.0 - wrong - by_chance).max(f64::MIN_POSITIVE);
            let predicted_right = ((agrees - by_chance) / spread).clamp(0.0, 1.0);
            let differs = (1.0 - agrees).max(f64::MIN_POSITIVE);
            ((1.0 - predicted_right) * (1.0 - wrong) / differs).clamp(0.0, 1.0)
        };
        let mut confidence: Vec<f64> = issues
            .examples
            .iter()
            .map(|e| e.suggested_probability)
            .collect();
        confidence.sort_by(|a, b| b.total_cmp(a));
        let group = |probability: f64| {
            let higher = confidence.partition_point(|p| *p > probability);
            (higher * GROUPS / confidence.len().max(1)).min(GROUPS - 1)
        };
        let marked = issues.examples.iter().filter(|e| e.is_issue);
        let (mut sum, mut count) = (0.0, 0u64);
        for issue in marked {
            sum += right_given(self.shares[group(issue.suggested_probability)]);
            count += 1;
        }
        sum / count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimators::cleaning::LabelIssue;

    fn held(label: usize, predicted: usize, probability: f64) -> HeldOut {
        HeldOut {
            label,
            predicted,
            probability,
            label_probability: if label == predicted {
                probability
            } else {
                1.0 - probability
            },
        }
    }

    /// A hundred examples of two classes, of which the first `issues` are issues, with less confident predictions than the others.
    fn judged(issues: usize) -> Issues {
        let example = |example: usize| LabelIssue {
            example,
            is_issue: example < issues,
            given: 0,
            suggested: usize::from(example < issues),
            given_probability: 0.1,
            suggested_probability: if example < issues { 0.6 } else { 0.9 },
            score: Some(0.0),
        };
        Issues {
            examples: (0..100).map(example).collect(),
            thresholds: vec![Some(0.9), Some(0.9)],
        }
    }

    /// A hundred held-out examples, predicted with the same confidence. In each group of five, `differ` of twenty labels differ.
    fn evenly(differ: usize) -> Vec<HeldOut> {
        (0..100)
            .map(|at| held(usize::from(at % 20 < differ), 0, 0.875))
            .collect()
    }

    fn estimate(held: &[HeldOut], issues: usize) -> SuggestionTrust {
        SuggestionTrust::estimate(Split::Validation, held, &judged(issues)).unwrap()
    }

    #[test]
    fn models_are_spread_evenly_over_the_evidence() {
        assert_eq!(spread(&(100..200)), [110, 130, 150, 170, 190]);
        assert_eq!(spread(&(7..8)), [7; MODELS]);
        let sums = (1, vec![1.0, 3.0, 1.0]);
        let of = HeldOut::of(&sums).unwrap();
        assert_eq!((of.predicted, of.probability), (1, 0.6));
        assert!(of.agrees());
    }

    #[test]
    fn a_model_that_predicts_few_labels_is_too_weak() {
        let weak = estimate(&evenly(12), 20);
        assert_eq!((weak.agreement(), weak.advice()), (0.4, Advice::TooWeak));
        assert_eq!(estimate(&evenly(2), 20).agreement(), 0.9);
        // 60 of 100 may be chance, and 80 of 100 are enough.
        assert_eq!(estimate(&evenly(8), 20).advice(), Advice::TooWeak);
        assert_ne!(estimate(&evenly(4), 20).advice(), Advice::TooWeak);
    }

    #[test]
    fn right_held_out_labels_show_how_often_the_rule_errs() {
        // No held-out label is called wrong, so the rule doesn't call right labels wrong.
        let sure = estimate(&evenly(0), 10);
        assert_eq!((sure.called_wrong, sure.right), (0, 0.0));
        assert_eq!(sure.advice(), Advice::Relabel);
        // The least confident predictions differ often, and the others never: these are errors of the model.
        let mut mixed: Vec<HeldOut> = (0..60).map(|_| held(0, 0, 0.875)).collect();
        mixed.extend((0..40).map(|at| held(usize::from(at % 2 == 0), 0, 0.875)));
        let hard = estimate(&mixed, 20);
        assert_eq!(hard.agreement(), 0.8);
        assert_eq!(hard.called_wrong, 20);
        assert_eq!(hard.right, 1.0);
        assert_eq!(hard.advice(), Advice::MostlyRight);
    }

    #[test]
    fn noise_that_is_the_same_at_every_confidence_is_that_of_the_labels() {
        // The same rule calls a tenth of the labels wrong in both splits. The model's confidence makes no difference, as if all of
        // its predictions were right.
        let noisy = estimate(&evenly(2), 10);
        assert_eq!(noisy.called_wrong, 10);
        assert!(noisy.right < 1e-9, "{noisy:?}");
        // By chance, the twenty most confident predictions can differ from two labels if far fewer labels are wrong.
        assert_eq!(noisy.right_interval.0, 0.0);
        assert!(noisy.right_interval.1 > 0.5, "{noisy:?}");
        assert_eq!(noisy.advice(), Advice::Unsure);
    }

    #[test]
    fn more_held_out_examples_narrow_the_interval() {
        let few = estimate(&evenly(2), 10);
        let many: Vec<HeldOut> = (0..50).flat_map(|_| evenly(2)).collect();
        let many = estimate(&many, 10);
        assert!((few.right - many.right).abs() < 1e-9);
        let width = |trust: SuggestionTrust| trust.right_interval.1 - trust.right_interval.0;
        assert!(width(many) < width(few) / 2.0, "{few:?} {many:?}");
        assert_eq!(many.advice(), Advice::Relabel);
    }
}
