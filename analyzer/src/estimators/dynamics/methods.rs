//! Rankings by training dynamics. Suspicious examples have the lowest scores, as in all tables.

use std::ops::Range;

use super::learning::{ExampleDynamics, LabelDynamics, Learning};
use super::walk::{Squares, StepDynamics, walk};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result, Unsupported};
use crate::estimators::estimate::{Estimate, Scores, all_finite, occurrences};
use crate::estimators::estimator::{Choices, Estimator, Method, Question};
use crate::estimators::forward::plain;
use crate::run::recorded::RecordedRun;
use crate::sweep::Observer;

const FORWARD: &str = "every step of the window: a forward pass each";
const CLASSIFIER: &str = "every step of the window: a forward pass each; labels that are classes";

pub(in crate::estimators) static MEAN_LOSS: Method = Method {
    name: "mean-loss",
    about: "Minus the example's loss, averaged over the steps that used it; the same for every query",
    needs: FORWARD,
    source: "as a signal of wrong labels in Arazo et al.: Unsupervised Label Noise Modeling and Loss Correction, ICML 2019",
    predicts: false,
    asks: false,
    windowed: true,
    sweeps: false,
    options: &[],
    build: |_: &Choices| Ok(Box::new(Dynamics(Signal::MeanLoss))),
};

pub(in crate::estimators) static MARGIN: Method = Method {
    name: "margin",
    about: "Area under the margin: the label's logit minus the largest other, averaged over the steps that used it",
    needs: CLASSIFIER,
    source: "Pleiss, Zhang, Elenberg, Weinberger: Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS 2020",
    predicts: false,
    asks: false,
    windowed: true,
    sweeps: false,
    options: &[],
    build: |_: &Choices| Ok(Box::new(Dynamics(Signal::Margin))),
};

pub(in crate::estimators) static FORGETTING: Method = Method {
    name: "forgetting",
    about: "Epochs since the example was last forgotten: wrong after it had been right; −1 if it was never right",
    needs: "every step of the window, several epochs: a forward pass each; labels that are classes",
    source: "Toneva et al.: An Empirical Study of Example Forgetting during Deep Neural Network Learning, ICLR 2019",
    predicts: false,
    asks: false,
    windowed: true,
    sweeps: false,
    options: &[],
    build: |_: &Choices| Ok(Box::new(Dynamics(Signal::Forgetting))),
};

pub(in crate::estimators) static SELF_INFLUENCE: Method = Method {
    name: "self-influence",
    about: "Minus TracIn of the example on itself: learning rate times weight times its squared gradient, summed",
    needs: "every step of the window: a forward and a backward pass each (with batch norm, a backward pass per example)",
    source: "Pruthi, Liu, Kale, Sundararajan: Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020",
    predicts: false,
    asks: false,
    windowed: true,
    sweeps: false,
    options: &[],
    build: |_: &Choices| Ok(Box::new(Dynamics(Signal::SelfInfluence))),
};

/// The number by which a method ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    MeanLoss,
    Margin,
    Forgetting,
    SelfInfluence,
}

struct Dynamics(Signal);

/// Scores of all training examples, and what a reader should know.
struct Ranked {
    scores: Vec<f64>,
    notes: Vec<String>,
}

impl Estimator for Dynamics {
    fn method(&self) -> &'static Method {
        match self.0 {
            Signal::MeanLoss => &MEAN_LOSS,
            Signal::Margin => &MARGIN,
            Signal::Forgetting => &FORGETTING,
            Signal::SelfInfluence => &SELF_INFLUENCE,
        }
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        let run = question.run;
        let window = question.window.resolve(run.source())?;
        let occurrences = occurrences(run, std::slice::from_ref(&window))?;
        let gradients = question.gradients(engine)?;
        let ranked = learned(self.0, question, engine, &window, observer)?;
        let scored: Vec<bool> = occurrences.iter().map(|&n| n > 0).collect();
        let queries = gradients.iter();
        let queries: Vec<Scores> = queries
            .map(|q| Scores::of(q, ranked.scores.clone()))
            .collect();
        all_finite(&queries, &scored)?;
        Ok(Estimate {
            end: run.source().end()?.step,
            window,
            occurrences,
            scored,
            queries,
            notes: ranked.notes,
        })
    }
}

/// Walks the window once, and scores all examples.
fn learned(
    signal: Signal,
    question: &Question<'_>,
    engine: &mut dyn ReplayEngine,
    window: &Range<u64>,
    observer: &mut dyn Observer,
) -> Result<Ranked> {
    let run = question.run;
    let mut learning = Learning::new(run.examples());
    let of_labels = matches!(signal, Signal::Margin | Signal::Forgetting);
    let mut see = |step: &StepDynamics<'_>| {
        if of_labels && step.labels.is_none() {
            return Err(AnalysisError::Unsupported(Unsupported::Labels {
                step: step.meta.step,
            }));
        }
        learning.see(step)
    };
    let squares = match signal {
        Signal::SelfInfluence => Squares::ByRate,
        _ => Squares::None,
    };
    walk(run, engine, window, squares, &mut see, observer)?;
    let examples: Vec<ExampleDynamics> = learning.examples().collect();
    let of_label = |score: fn(LabelDynamics) -> f64| {
        let scores = examples.iter().map(|e| e.label.map_or(0.0, score));
        scores.collect()
    };
    Ok(match signal {
        Signal::MeanLoss => Ranked {
            scores: examples.iter().map(|e| -e.loss).collect(),
            notes: Vec::new(),
        },
        Signal::Margin => Ranked {
            scores: of_label(|label| label.margin),
            notes: Vec::new(),
        },
        Signal::Forgetting => Ranked {
            scores: of_label(|label| label.epochs_since_forgotten as f64),
            notes: vec![counted(&examples)],
        },
        Signal::SelfInfluence => Ranked {
            scores: examples
                .iter()
                .map(|e| 0.0 - e.self_influence.unwrap_or(0.0))
                .collect(),
            notes: other_steps(run).into_iter().collect(),
        },
    })
}

/// How many examples have each of the outcomes that many examples share.
fn counted(examples: &[ExampleDynamics]) -> String {
    let labels: Vec<LabelDynamics> = examples.iter().filter_map(|e| e.label).collect();
    let never_right = |l: &&LabelDynamics| l.epochs_since_forgotten < 0;
    let never = labels.iter().filter(never_right).count();
    let forgotten = labels.iter().filter(|l| l.forgotten > 0).count();
    format!(
        "{never} examples were never right (−1), {forgotten} were forgotten, {} were learned and kept",
        labels.len() - never - forgotten
    )
}

/// What to know about self-influence if the optimizer's steps aren't the learning rate times the gradient.
pub(super) fn other_steps(run: &RecordedRun<'_>) -> Option<String> {
    plain(run.rule()).err().map(|why| {
        format!(
            "trained by {} ({why}): η is the recorded learning rate, so a score isn't what the optimizer's own steps \
             changed in the example's loss",
            run.rule().describe()
        )
    })
}
