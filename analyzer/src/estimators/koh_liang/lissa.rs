//! Koh and Liang by LiSSA (Agarwal, Bullins, Hazan 2017): `h ← u + h − (H_S + λ) h / σ`, and `β = h/σ`.

use hindcast_model::vectors::norm;

use super::{Clock, Common, DAMPING, PENALTY, Problem, SEED, diverged, shuffled};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::estimators::estimate::Estimate;
use crate::estimators::estimator::{Choices, Estimator, Method, MethodOption, Question};
use crate::query::one::Query;
use crate::sweep::Observer;

pub(in crate::estimators) static METHOD: Method = Method {
    name: "koh-liang-lissa",
    about: "Koh & Liang's influence function, solved by LiSSA: a truncated Neumann series with mini-batch Hessians",
    needs: "only the final state; depth × batch × repeats examples with a Hessian-vector product each",
    source: "Koh, Liang, ICML 2017; Agarwal, Bullins, Hazan: Second-Order Stochastic Optimization for Machine Learning in Linear Time, JMLR 2017",
    predicts: true,
    asks: true,
    windowed: false,
    sweeps: false,
    options: &[
        MethodOption {
            key: "batch",
            default: "100",
            about: "examples per mini-batch",
        },
        DAMPING,
        MethodOption {
            key: "depth",
            default: "500",
            about: "terms of the series",
        },
        PENALTY,
        MethodOption {
            key: "repeats",
            default: "1",
            about: "number of series that are averaged",
        },
        MethodOption {
            key: "scale",
            default: "auto",
            about: "σ, above the largest eigenvalue of any mini-batch's Hessian: auto is twice that of 1000 examples",
        },
        SEED,
    ],
    build: |choices: &Choices| {
        Ok(Box::new(Lissa {
            common: Common::of(choices)?,
            batch: choices.count("batch", 1)?,
            depth: choices.count("depth", 1)?,
            repeats: choices.count("repeats", 1)?,
            scale: match choices.text("scale") {
                "auto" => None,
                _ => Some(choices.number("scale", "auto, or a number above 0", |x| x > 0.0)?),
            },
            seed: choices.count("seed", 0)?,
        }))
    },
};

struct Lissa {
    common: Common,
    batch: u64,
    depth: u64,
    repeats: u64,
    scale: Option<f64>,
    seed: u64,
}

/// Number of power iterations for the automatic scale.
const POWER: u64 = 20;
/// Maximum number of examples that the power iterations use.
const SAMPLE: usize = 1000;

impl Lissa {
    /// Twice the largest absolute eigenvalue of `H_S + λ` for a sample S.
    fn scale(
        &self,
        problem: &Problem<'_>,
        engine: &mut dyn ReplayEngine,
        clock: &mut Clock<'_, '_>,
    ) -> Result<f64> {
        let sample = self.sample(problem);
        // A query's gradient has a large part along the large eigenvalues, so it is a good start.
        let Some(u) = problem.queries.iter().find(|u| norm(u) > 0.0) else {
            return Ok(1.0);
        };
        let mut v = vec![u.to_vec()];
        let mut largest = 0.0;
        for _ in 0..POWER {
            let length = norm(&v[0]);
            if length == 0.0 || !length.is_finite() {
                break;
            }
            v[0].iter_mut().for_each(|x| *x /= length);
            v = problem.apply(engine, &sample, &v, clock)?;
            largest = norm(&v[0]);
        }
        Ok(if largest > 0.0 { 2.0 * largest } else { 1.0 })
    }

    fn sample(&self, problem: &Problem<'_>) -> Vec<u64> {
        let mut sample = shuffled(self.seed, u64::MAX, problem.examples.len());
        sample.truncate(SAMPLE);
        sample
    }
}

impl Estimator for Lissa {
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
        let size = usize::try_from(self.batch).unwrap_or(n).min(n);
        let power = match self.scale {
            Some(_) => 0,
            None => POWER * n.min(SAMPLE) as u64,
        };
        let series = self
            .repeats
            .saturating_mul(self.depth)
            .saturating_mul(size as u64);
        let mut clock = Clock::new(observer, series.saturating_add(power), n);
        let scale = match self.scale {
            Some(scale) => scale,
            None => self.scale(&problem, engine, &mut clock)?,
        };
        let mut mean: Vec<Vec<f64>> = problem.queries.iter().map(|u| vec![0.0; u.len()]).collect();
        let mut batches = Batches::new(self.seed, n, size);
        for _ in 0..self.repeats {
            let mut h: Vec<Vec<f64>> = problem.queries.iter().map(|u| u.to_vec()).collect();
            for term in 0..self.depth {
                let images = problem.apply(engine, batches.next(), &h, &mut clock)?;
                for (q, image) in images.iter().enumerate() {
                    let u = problem.queries[q];
                    for i in 0..u.len() {
                        h[q][i] += u[i] - image[i] / scale;
                    }
                    let (length, start) = (norm(&h[q]), norm(u));
                    // Each term adds at most u if no eigenvalue is negative.
                    if !length.is_finite() || length > RUNAWAY * (term + 2) as f64 * start {
                        return Err(diverged(
                            &METHOD,
                            &gradients[q].name,
                            &format!("at term {term}, scale {scale:.3e}"),
                            "raise scale or damping, or take larger batches",
                        ));
                    }
                }
            }
            for (mean, h) in mean.iter_mut().zip(&h) {
                for (m, x) in mean.iter_mut().zip(h) {
                    *m += x / scale / self.repeats as f64;
                }
            }
        }
        let notes = vec![format!("scale {scale:.4e}")];
        problem.finish(question, engine, &mean, notes, clock)
    }
}

/// A series that is this many times longer than a sum of u's has diverged.
const RUNAWAY: f64 = 1e3;

/// Mini-batches without replacement. All examples are shuffled again when fewer than a mini-batch are left.
struct Batches {
    seed: u64,
    n: usize,
    size: usize,
    order: Vec<u64>,
    at: usize,
    round: u64,
}

impl Batches {
    fn new(seed: u64, n: usize, size: usize) -> Self {
        Batches {
            seed,
            n,
            size,
            order: shuffled(seed, 0, n),
            at: 0,
            round: 0,
        }
    }

    fn next(&mut self) -> &[u64] {
        if self.at + self.size > self.n {
            self.round += 1;
            self.order = shuffled(self.seed, self.round, self.n);
            self.at = 0;
        }
        let at = self.at;
        self.at += self.size;
        &self.order[at..at + self.size]
    }
}
