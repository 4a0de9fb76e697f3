//! Koh and Liang by conjugate gradients on the Hessian over all training examples.

use hindcast_model::vectors::{add_scaled, dot};

use super::{Clock, Common, DAMPING, PAPER, PENALTY, Problem};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::estimators::estimate::Estimate;
use crate::estimators::estimator::{Choices, Estimator, Method, MethodOption, Question};
use crate::query::one::Query;
use crate::sweep::Observer;

pub(in crate::estimators) static METHOD: Method = Method {
    name: "koh-liang-cg",
    about: "Koh & Liang's influence function at the end of training, solved by conjugate gradients over all examples",
    needs: "only the final state; per iteration a pass over all training examples with a Hessian-vector product",
    source: PAPER,
    predicts: true,
    asks: true,
    windowed: false,
    sweeps: false,
    options: &[
        DAMPING,
        MethodOption {
            key: "iterations",
            default: "100",
            about: "largest number of iterations",
        },
        PENALTY,
        MethodOption {
            key: "tolerance",
            default: "1e-6",
            about: "stop when ‖residual‖ is at most this fraction of the query gradient's norm",
        },
    ],
    build: |choices: &Choices| {
        Ok(Box::new(ConjugateGradient {
            common: Common::of(choices)?,
            iterations: choices.count("iterations", 1)?,
            tolerance: choices.number("tolerance", "a number above 0", |x| x > 0.0)?,
        }))
    },
};

struct ConjugateGradient {
    common: Common,
    iterations: u64,
    tolerance: f64,
}

/// The iteration of Hestenes and Stiefel for one query.
struct Solver<'a> {
    name: &'a str,
    /// Solution so far.
    beta: Vec<f64>,
    residual: Vec<f64>,
    direction: Vec<f64>,
    /// `‖residual‖²`.
    square: f64,
    /// `‖u‖²`.
    whole: f64,
    /// Whether the solver stopped at a direction in which the curvature isn't positive.
    stopped: bool,
}

impl<'a> Solver<'a> {
    fn new(name: &'a str, u: &[f64]) -> Self {
        let square = dot(u, u);
        Solver {
            name,
            beta: vec![0.0; u.len()],
            residual: u.to_vec(),
            direction: u.to_vec(),
            square,
            whole: square,
            stopped: false,
        }
    }

    fn going(&self, tolerance: f64) -> bool {
        !self.stopped && self.square > tolerance * tolerance * self.whole
    }

    /// One iteration; `image` is `(Ĥ + λ)` times the direction.
    fn step(&mut self, image: &[f64]) {
        let curvature = dot(&self.direction, image);
        // NaN isn't a positive curvature.
        if curvature.is_nan() || curvature <= 0.0 {
            self.stopped = true;
            return;
        }
        let alpha = self.square / curvature;
        add_scaled(&mut self.beta, alpha, &self.direction);
        for (r, y) in self.residual.iter_mut().zip(image) {
            *r -= alpha * y;
        }
        let square = dot(&self.residual, &self.residual);
        let keep = square / self.square;
        for (d, r) in self.direction.iter_mut().zip(&self.residual) {
            *d = r + keep * *d;
        }
        self.square = square;
    }
}

impl Estimator for ConjugateGradient {
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
        let mut clock = Clock::new(observer, self.iterations.saturating_mul(n as u64), n);
        let mut solvers: Vec<Solver<'_>> = gradients
            .iter()
            .map(|q| Solver::new(&q.name, &q.parameters))
            .collect();
        let mut iterations = 0;
        while iterations < self.iterations {
            let mut going: Vec<&mut Solver<'_>> = solvers
                .iter_mut()
                .filter(|s| s.going(self.tolerance))
                .collect();
            if going.is_empty() {
                break;
            }
            let directions: Vec<Vec<f64>> = going.iter().map(|s| s.direction.clone()).collect();
            let images = problem.apply(engine, &problem.examples, &directions, &mut clock)?;
            for (solver, image) in going.iter_mut().zip(&images) {
                solver.step(image);
            }
            iterations += 1;
        }
        let mut notes = Vec::new();
        if let Some(stopped) = solvers.iter().find(|s| s.stopped) {
            notes.push(format!(
                "H + λ isn't positive definite: conjugate gradients stopped where they met a direction of negative curvature (query `{}`); the scores are those of an unfinished solution: raise damping",
                stopped.name
            ));
        }
        notes.push(format!("{iterations} iterations"));
        let solutions: Vec<Vec<f64>> = solvers.into_iter().map(|s| s.beta).collect();
        problem.finish(question, engine, &solutions, notes, clock)
    }
}
