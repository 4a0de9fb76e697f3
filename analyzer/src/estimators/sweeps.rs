//! SGD-influence (Hara, Nitanda, Maehara 2019) and its two ablations: the reverse sweep.

use super::estimate::Estimate;
use super::estimator::{Choices, Estimator, Method, Plan, Question};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::sweep::{HessianTerm, Observer, Session, SessionOptions, SweepOptions};

const PAPER: &str =
    "Hara, Nitanda, Maehara: Data Cleansing for Models Trained with SGD, NeurIPS 2019";

pub(super) static SGD: Method = Method {
    name: "sgd",
    about: "SGD-influence: the effect of leaving an example out, carried back step by step (exact to first order)",
    needs: "every step from the window's first to the last; about three times the training's time",
    source: PAPER,
    predicts: true,
    windowed: true,
    sweeps: true,
    options: &[],
    build: |_| Ok(Box::new(Sweep(HessianTerm::Full))),
};

pub(super) static HESSIAN_FREE: Method = Method {
    name: "hessian-free",
    about: "SGD-influence with the Hessian's term left out of every step: an ablation",
    needs: "as sgd",
    source: PAPER,
    predicts: true,
    windowed: true,
    sweeps: true,
    options: &[],
    build: |_| Ok(Box::new(Sweep(HessianTerm::Dropped))),
};

pub(super) static RELEASED_RULE: Method = Method {
    name: "released-rule",
    about: "SGD-influence with the Hessian's term divided by the batch size twice: what the paper's CNN code does",
    needs: "as sgd",
    source: "the code that was released with Hara, Nitanda, Maehara, NeurIPS 2019 (section 7.2)",
    predicts: true,
    windowed: true,
    sweeps: true,
    options: &[],
    build: |_: &Choices| Ok(Box::new(Sweep(HessianTerm::DividedByBatch))),
};

/// A reverse sweep.
struct Sweep(HessianTerm);

impl Sweep {
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
            },
            hessian: self.0,
            memory: question.memory,
            saving: question.saving.cloned(),
            engine: question.engine,
        };
        Session::new(question.run, engine, question.queries, options)
    }
}

impl Estimator for Sweep {
    fn method(&self) -> &'static Method {
        match self.0 {
            HessianTerm::Full => &SGD,
            HessianTerm::Dropped => &HESSIAN_FREE,
            HessianTerm::DividedByBatch => &RELEASED_RULE,
        }
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
