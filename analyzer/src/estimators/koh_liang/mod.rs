//! Koh and Liang's influence functions (2017): `L_j = (1/N) <g_j(θ), (Ĥ + λI)⁻¹ u>` at the model θ that the query is asked
//! about, by three solvers.
//!
//! Ĥ is the Hessian of the mean loss over all training examples in evaluation mode: running statistics, no dropout, no
//! augmentation. A penalty that training minimised is added explicitly. A penalty ½α‖θ‖² adds αI to Ĥ and, if it is part
//! of each example's loss, αθ to every g_j. A decay that the optimizer adds to the gradient is a penalty, too.

mod cg;
mod lissa;
mod sgd;

pub(super) use cg::METHOD as CG;
pub(super) use lissa::METHOD as LISSA;
pub(super) use sgd::METHOD as SGD;

use hindcast_model::random::{Purpose, Stream};
use hindcast_model::task::PenaltyIn;
use hindcast_model::vectors::{dot, norm};

use super::estimate::Estimate;
use super::estimator::{Choices, Method, MethodOption, Question};
use super::still::Still;
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Diverged, Result, Unsupported};
use crate::query::average::QueryState;
use crate::query::one::QueryGradient;
use crate::sweep::{Observer, Stage, tell};

const PAPER: &str =
    "Koh, Liang: Understanding Black-box Predictions via Influence Functions, ICML 2017";

const DAMPING: MethodOption = MethodOption {
    key: "damping",
    default: "0.1",
    about: "λ, added to the Hessian's diagonal: must exceed the size of its most negative eigenvalue, or solvers diverge",
};

const PENALTY: MethodOption = MethodOption {
    key: "penalty",
    default: "auto",
    about: "α of a penalty ½α‖θ‖² that training minimised: auto takes it from the task's loss and the optimizer's decay",
};

const SEED: MethodOption = MethodOption {
    key: "seed",
    default: "0",
    about: "seed of the batches",
};

fn not_negative(x: f64) -> bool {
    x >= 0.0
}

/// Options of all three solvers.
#[derive(Debug, Clone, PartialEq)]
struct Common {
    damping: f64,
    /// α; `None` derives it from the run.
    penalty: Option<f64>,
}

impl Common {
    fn of(choices: &Choices) -> Result<Self> {
        let wanted = "a number, at least 0";
        Ok(Common {
            damping: choices.number("damping", wanted, not_negative)?,
            penalty: match choices.text("penalty") {
                "auto" => None,
                _ => Some(choices.number(
                    "penalty",
                    "auto, or a number, at least 0",
                    not_negative,
                )?),
            },
        })
    }
}

/// A penalty that training minimised.
struct Penalty {
    /// α: adds αI to the Hessian.
    curvature: f64,
    /// α if the penalty is part of each example's loss, else 0: adds αθ to each example's gradient.
    in_examples: f64,
}

impl Penalty {
    fn of(question: &Question<'_>, given: Option<f64>) -> Result<Self> {
        let loss = question.net.map(|net| net.loss());
        let in_examples = loss.is_none_or(|loss| loss.penalty_in == PenaltyIn::Examples);
        if let Some(alpha) = given {
            return Ok(Penalty {
                curvature: alpha,
                in_examples: if in_examples { alpha } else { 0.0 },
            });
        }
        let alpha = loss.map_or(0.0, |loss| loss.penalty);
        Ok(Penalty {
            curvature: alpha + decay(question)?,
            in_examples: if in_examples { alpha } else { 0.0 },
        })
    }
}

/// λ of the last step, if the optimizer adds λθ to the gradient.
fn decay(question: &Question<'_>) -> Result<f64> {
    let coupled = question.run.rule().couples_decay();
    let end = question.run.source().end()?.step;
    let Some(last) = end.checked_sub(1).filter(|_| coupled) else {
        return Ok(0.0);
    };
    // If the trace doesn't contain the last step, only the rule's own decay is known.
    let groups = match question.run.source().metas(last..end) {
        Ok(metas) => metas.into_iter().next().map(|meta| meta.groups),
        Err(_) => None,
    };
    let Some(groups) = groups else {
        return Ok(question.run.rule().weight_decay());
    };
    let first = groups.first().map_or(0.0, |g| g.weight_decay);
    match groups.iter().find(|g| g.weight_decay != first) {
        None => Ok(first),
        Some(other) => Err(AnalysisError::Unsupported(Unsupported::Penalties {
            first,
            other: other.weight_decay,
        })),
    }
}

/// `(Ĥ + α + λ) β = u` for all queries.
struct Problem<'a> {
    still: Still<'a>,
    /// u, Q × p.
    queries: Vec<&'a [f64]>,
    gradients: &'a [QueryGradient],
    /// α + λ.
    shift: f64,
    in_examples: f64,
    /// All training examples.
    examples: Vec<u64>,
}

impl<'a> Problem<'a> {
    fn of(
        method: &'static Method,
        question: &Question<'a>,
        gradients: &'a [QueryGradient],
        state: &'a QueryState,
        common: &Common,
    ) -> Result<Self> {
        question.without_window(method)?;
        let penalty = Penalty::of(question, common.penalty)?;
        if question.run.examples() == 0 {
            return Err(AnalysisError::NoExamples);
        }
        Ok(Problem {
            still: Still {
                run: question.run,
                parameters: &state.parameters,
                buffers: &state.buffers,
            },
            queries: gradients.iter().map(|q| q.parameters.as_slice()).collect(),
            gradients,
            shift: penalty.curvature + common.damping,
            in_examples: penalty.in_examples,
            examples: (0..question.run.examples() as u64).collect(),
        })
    }

    /// `(H_S + α + λ) β` with the Hessian of the mean loss over some examples, Q × p.
    fn apply(
        &self,
        engine: &mut dyn ReplayEngine,
        examples: &[u64],
        vectors: &[Vec<f64>],
        clock: &mut Clock<'_, '_>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut out = self
            .still
            .hessian(engine, examples, vectors, &mut |n| clock.more(n))?;
        for (out, v) in out.iter_mut().zip(vectors) {
            for (x, v) in out.iter_mut().zip(v) {
                *x += self.shift * v;
            }
        }
        Ok(out)
    }

    /// Computes the scores from the solutions β. The same pass gives the largest relative residual
    /// `‖(Ĥ + α + λ) β − u‖ / ‖u‖`, for a note.
    fn finish(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        solutions: &[Vec<f64>],
        mut notes: Vec<String>,
        clock: Clock<'_, '_>,
    ) -> Result<Estimate> {
        let all = self
            .still
            .everyone(engine, solutions, clock.stage, clock.observer)?;
        let n = self.examples.len() as f64;
        let mut scores = all.products;
        let mut worst: f64 = 0.0;
        for (q, solution) in solutions.iter().enumerate() {
            let penalty: f64 = self.in_examples * dot(self.still.parameters, solution);
            scores[q].iter_mut().for_each(|x| *x = (*x + penalty) / n);
            let u = self.queries[q];
            let residual: Vec<f64> = (0..u.len())
                .map(|i| all.hessian[q][i] + self.shift * solution[i] - u[i])
                .collect();
            worst = worst.max(norm(&residual) / norm(u).max(f64::MIN_POSITIVE));
        }
        let at_worst = if solutions.len() > 1 { "at worst " } else { "" };
        notes.push(format!(
            "the solution leaves {at_worst}{worst:.1e} of the query's gradient unexplained (‖(H + λ) β − u‖ / ‖u‖ over all examples)"
        ));
        question.everyone(self.gradients, scores, notes)
    }
}

/// Counts the examples that have gone through the model.
struct Clock<'a, 'w> {
    stage: Stage,
    observer: &'a mut (dyn Observer + 'w),
}

impl<'a, 'w> Clock<'a, 'w> {
    /// Expects `examples` examples from the solver, and `n` from the final pass that scores.
    fn new(observer: &'a mut (dyn Observer + 'w), examples: u64, n: usize) -> Self {
        let stage = Stage {
            doing: "solving",
            unit: "examples",
            done: 0,
            total: examples + n as u64,
        };
        Clock { stage, observer }
    }

    fn more(&mut self, examples: u64) -> Result<()> {
        self.stage.done += examples;
        // The total must stay above `done` until the final pass, or a request to stop would be ignored.
        self.stage.total = self.stage.total.max(self.stage.done + 1);
        tell(self.observer, self.stage)
    }
}

/// All training examples in a random order that depends on the round.
fn shuffled(seed: u64, round: u64, n: usize) -> Vec<u64> {
    let low = round as u32;
    let high = (round >> 32) as u32;
    let purpose = Purpose::Other(ORDER.wrapping_add(high) | (1 << 31), low);
    Stream::of_run(seed, purpose).permutation(n)
}

/// Random stream of the solvers' batches. Crates other than the model's use numbers from 2³¹ up.
const ORDER: u32 = (1 << 31) + 2;

/// The error of a solver that diverged.
fn diverged(method: &Method, query: &str, after: &str, hint: &str) -> AnalysisError {
    AnalysisError::Diverged(Diverged::Solver {
        method: method.name,
        query: query.to_owned(),
        after: after.to_owned(),
        hint: hint.to_owned(),
    })
}
