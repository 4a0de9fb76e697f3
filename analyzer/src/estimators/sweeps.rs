//! SGD-influence (Hara, Nitanda, Maehara 2019), with a discount, and its two ablations: the reverse sweep.

use super::estimate::Estimate;
use super::estimator::{Choices, Estimator, Method, MethodOption, Plan, Question};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::sweep::{HessianTerm, Observer, Propagation, Session, SessionOptions, SweepOptions};

const PAPER: &str =
    "Hara, Nitanda, Maehara: Data Cleansing for Models Trained with SGD, NeurIPS 2019";

pub(super) static SGD: Method = Method {
    name: "sgd",
    about: "SGD-influence: the effect of leaving an example out, carried back step by step (exact to first order)",
    needs: "every step from the window's first to the last; about three times the training's time",
    source: PAPER,
    predicts: true,
    asks: true,
    windowed: true,
    sweeps: true,
    options: &[],
    build: |_| Ok(Box::new(Sweep::of(&SGD, HessianTerm::Full))),
};

pub(super) static DISCOUNTED: Method = Method {
    name: "discounted",
    about: "SGD-influence with a horizon: the effect of leaving an example out fades by a factor per step",
    needs: "as sgd",
    source: "the derivative of a training whose deviations fade, after Hara, Nitanda, Maehara, NeurIPS 2019",
    predicts: true,
    asks: true,
    windowed: true,
    sweeps: true,
    options: &[MethodOption {
        key: DISCOUNT,
        default: "0.99",
        about: "the factor per step, from 0 to 1: the horizon is about 1 / (1 - discount) steps, and 1 is sgd",
    }],
    build: discounted,
};

/// Option: γ, the factor per step.
const DISCOUNT: &str = "discount";

fn discounted(choices: &Choices) -> Result<Box<dyn Estimator>> {
    let wanted = "a number from 0 to 1";
    let discount = choices.number(DISCOUNT, wanted, |x| (0.0..=1.0).contains(&x))?;
    Ok(Box::new(Sweep {
        method: &DISCOUNTED,
        propagation: Propagation {
            discount,
            ..Propagation::default()
        },
    }))
}

pub(super) static HESSIAN_FREE: Method = Method {
    name: "hessian-free",
    about: "SGD-influence with the Hessian's term left out of every step: an ablation",
    needs: "as sgd",
    source: PAPER,
    predicts: true,
    asks: true,
    windowed: true,
    sweeps: true,
    options: &[],
    build: |_| Ok(Box::new(Sweep::of(&HESSIAN_FREE, HessianTerm::Dropped))),
};

pub(super) static RELEASED_RULE: Method = Method {
    name: "released-rule",
    about: "SGD-influence with the Hessian's term divided by the batch size twice: what the paper's CNN code does",
    needs: "as sgd",
    source: "the code that was released with Hara, Nitanda, Maehara, NeurIPS 2019 (section 7.2)",
    predicts: true,
    asks: true,
    windowed: true,
    sweeps: true,
    options: &[],
    build: |_| {
        Ok(Box::new(Sweep::of(
            &RELEASED_RULE,
            HessianTerm::DividedByBatch,
        )))
    },
};

/// A reverse sweep.
struct Sweep {
    method: &'static Method,
    propagation: Propagation,
}

impl Sweep {
    /// Without a discount.
    fn of(method: &'static Method, hessian: HessianTerm) -> Self {
        Sweep {
            method,
            propagation: Propagation {
                hessian,
                ..Propagation::default()
            },
        }
    }

    fn session<'a>(
        &self,
        question: &Question<'a>,
        engine: &dyn ReplayEngine,
    ) -> Result<Session<'a>> {
        let options = SessionOptions {
            sweep: SweepOptions {
                at: question.at.clone(),
                window: question.window.resolve(question.run.source())?,
                per_epoch: question.per_epoch,
                per_term: question.per_term,
            },
            propagation: self.propagation,
            row_by_row: question.row_by_row,
            memory: question.memory,
            saving: question.saving.cloned(),
            engine: question.engine,
        };
        Session::new(question.run, engine, question.queries, options)
    }
}

impl Estimator for Sweep {
    fn method(&self) -> &'static Method {
        self.method
    }

    fn plan<'a>(&self, question: &Question<'a>, engine: &dyn ReplayEngine) -> Result<Plan<'a>> {
        let session = self.session(question, engine)?;
        Ok(Plan::Sweep(Box::new(session)))
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        let session = self.session(question, engine)?;
        Ok(session.run(engine, observer)?.state.into())
    }
}
