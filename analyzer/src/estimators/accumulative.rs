//! The accumulative estimate (ACC-SGD-IE, arXiv 2510.26185) for a shortlist of examples. It carries the effect of leaving
//! an example out through later batches, and also leaves the example out of those batches.

use std::ops::{ControlFlow, Range};

use super::estimate::{Estimate, Scores, occurrences};
use super::estimator::{Choices, Estimator, Method, MethodOption, Question};
use super::forward::{ForwardChanges, OwnTerm, forward_changes};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::query::average::StateWeights;
use crate::query::one::{Query, indices};
use crate::run::recorded::RecordedRun;
use crate::sweep::{Observer, Stage};

const EXAMPLES: &[MethodOption] = &[MethodOption {
    key: "examples",
    default: "all",
    about: "the examples to score, such as 0..50,77 (time and memory grow with their number)",
}];

pub(super) static ACCUMULATIVE: Method = Method {
    name: "accumulative",
    about: "SGD-influence that also leaves the example out of the Hessian of its later batches (ACC-SGD-IE)",
    needs: "SGD without momentum and clipping, no running statistics; one Hessian-vector product per step and example",
    source: "ACC-SGD-IE, arXiv 2510.26185",
    predicts: true,
    asks: true,
    windowed: true,
    sweeps: false,
    options: EXAMPLES,
    build: |choices| Shortlist::boxed(choices, OwnTerm::LeftOut),
};

pub(super) static FORWARD: Method = Method {
    name: "forward",
    about: "SGD-influence carried forward as a vector (equation 2): the same scores as the sweep, computed differently",
    needs: "as accumulative",
    source: "Hara, Nitanda, Maehara: Data Cleansing for Models Trained with SGD, NeurIPS 2019, section 3",
    predicts: true,
    asks: true,
    windowed: true,
    sweeps: false,
    options: EXAMPLES,
    build: |choices| Shortlist::boxed(choices, OwnTerm::Kept),
};

/// `δ_{t+1} = (I − η_t H_t^{(−j)}) δ_t + η_t Σ w g`, where `H_t^{(−j)}` omits the terms of j and keeps the weights of
/// the others; see [`forward_changes`].
///
/// # Errors
/// As [`forward_changes`].
pub fn accumulative_changes(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    examples: &[u64],
    window: &Range<u64>,
    at: &StateWeights,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<ForwardChanges> {
    forward_changes(
        run,
        engine,
        examples,
        window,
        at,
        OwnTerm::LeftOut,
        progress,
    )
}

/// One of the two estimates as a method.
struct Shortlist {
    own_term: OwnTerm,
    /// The shortlist; `None` is all training examples.
    examples: Option<Vec<u64>>,
}

impl Shortlist {
    fn boxed(choices: &Choices, own_term: OwnTerm) -> Result<Box<dyn Estimator>> {
        let examples = match choices.text("examples") {
            "all" => None,
            list => Some(
                indices(list).map_err(|e| choices.refused("examples", format!("{e}, or all")))?,
            ),
        };
        Ok(Box::new(Shortlist { own_term, examples }))
    }
}

impl Estimator for Shortlist {
    fn method(&self) -> &'static Method {
        match self.own_term {
            OwnTerm::LeftOut => &ACCUMULATIVE,
            OwnTerm::Kept => &FORWARD,
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
        let examples = match &self.examples {
            None => (0..run.examples() as u64).collect(),
            Some(list) => list.clone(),
        };
        let at = question.point()?;
        let state = at.state(run.source())?;
        let gradients = Query::gradients(question.queries, run, &state, engine)?;
        let mut carried = |done, total| {
            observer.step(Stage {
                doing: "carrying forward",
                unit: "steps",
                done,
                total,
            })
        };
        let changes = forward_changes(
            run,
            engine,
            &examples,
            &window,
            &at,
            self.own_term,
            &mut carried,
        )?;
        let mut scored = vec![false; run.examples()];
        for (&j, &n) in changes.examples.iter().zip(&changes.occurrences) {
            if let Some(slot) = scored.get_mut(j as usize) {
                *slot = n > 0;
            }
        }
        let queries = gradients.iter().map(|query| {
            let mut influence = vec![0.0; run.examples()];
            for (&j, score) in changes.examples.iter().zip(changes.influence(query)) {
                if let Some(slot) = influence.get_mut(j as usize) {
                    *slot = score;
                }
            }
            Scores::of(query, influence)
        });
        let queries = queries.collect();
        Ok(Estimate {
            end: changes.end,
            occurrences: occurrences(run, std::slice::from_ref(&window))?,
            window,
            scored,
            queries,
            notes: Vec::new(),
        })
    }
}
