//! Koh and Liang by momentum SGD on `½ <β, (H_S + λ) β> − <u, β>` with the Hessian of mini-batches, as Hara et al. used it.

use hindcast_model::vectors::norm;

use super::{Clock, Common, DAMPING, PAPER, PENALTY, Problem, SEED, diverged, shuffled};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::estimators::estimate::Estimate;
use crate::estimators::estimator::{Choices, Estimator, Method, MethodOption, Question};
use crate::query::one::Query;
use crate::sweep::Observer;

pub(in crate::estimators) static METHOD: Method = Method {
    name: "koh-liang-sgd",
    about: "Koh & Liang's influence function, solved by momentum SGD on mini-batch Hessians, as in Hara et al. 2019",
    needs: "only the final state; per epoch of the solver a pass over all examples with a Hessian-vector product",
    source: PAPER,
    predicts: true,
    asks: true,
    windowed: false,
    sweeps: false,
    options: &[
        MethodOption {
            key: "batch",
            default: "1000",
            about: "examples per mini-batch",
        },
        DAMPING,
        MethodOption {
            key: "epochs",
            default: "2",
            about: "passes over the training examples",
        },
        MethodOption {
            key: "lr",
            default: "0.005",
            about: "learning rate of the solver",
        },
        MethodOption {
            key: "momentum",
            default: "0.9",
            about: "momentum of the solver",
        },
        PENALTY,
        SEED,
        MethodOption {
            key: "start",
            default: "zero",
            about: "start of β: zero, or query (the query's gradient u)",
        },
    ],
    build: |choices: &Choices| {
        Ok(Box::new(Descent {
            common: Common::of(choices)?,
            batch: choices.count("batch", 1)?,
            epochs: choices.count("epochs", 1)?,
            rate: choices.number("lr", "a number above 0", |x| x > 0.0)?,
            momentum: choices.number("momentum", "a number from 0 to below 1", |x| {
                (0.0..1.0).contains(&x)
            })?,
            seed: choices.count("seed", 0)?,
            at_query: match choices.text("start") {
                "zero" => false,
                "query" => true,
                _ => return Err(choices.wrong("start", "zero or query")),
            },
        }))
    },
};

struct Descent {
    common: Common,
    batch: u64,
    epochs: u64,
    rate: f64,
    momentum: f64,
    seed: u64,
    at_query: bool,
}

impl Estimator for Descent {
    fn method(&self) -> &'static Method {
        &METHOD
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        let state = question.state()?;
        let gradients = Query::gradients(question.queries, question.run, &state, engine)?;
        let problem = Problem::of(&METHOD, question, &gradients, &state, &self.common)?;
        let n = problem.examples.len();
        let mut clock = Clock::new(observer, self.epochs.saturating_mul(n as u64), n);
        let mut beta: Vec<Vec<f64>> = problem
            .queries
            .iter()
            .map(|u| {
                if self.at_query {
                    u.to_vec()
                } else {
                    vec![0.0; u.len()]
                }
            })
            .collect();
        let mut velocity: Vec<Vec<f64>> = beta.iter().map(|b| vec![0.0; b.len()]).collect();
        let size = usize::try_from(self.batch).unwrap_or(n).min(n);
        for epoch in 0..self.epochs {
            for batch in shuffled(self.seed, epoch, n).chunks(size) {
                let images = problem.apply(engine, batch, &beta, &mut clock)?;
                for (q, image) in images.iter().enumerate() {
                    let u = problem.queries[q];
                    for i in 0..u.len() {
                        velocity[q][i] = self.momentum * velocity[q][i] + image[i] - u[i];
                        beta[q][i] -= self.rate * velocity[q][i];
                    }
                    let size = norm(&beta[q]);
                    if !size.is_finite() || size > RUNAWAY * norm(u).max(f64::MIN_POSITIVE) {
                        return Err(diverged(
                            &METHOD,
                            &gradients[q].name,
                            &format!("in epoch {epoch}"),
                            "lower lr, or raise damping",
                        ));
                    }
                }
            }
        }
        problem.finish(question, engine, &beta, Vec::new(), clock)
    }
}

/// A solution this many times longer than the query's gradient has diverged. Without divergence, an eigenvalue would have
/// to be smaller than the inverse of this number.
const RUNAWAY: f64 = 1e9;
