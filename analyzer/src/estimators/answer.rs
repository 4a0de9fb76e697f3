//! Answers a question with scores, by any method.

use super::choices::Chosen;
use super::estimate::{Estimate, TableOrigin};
use super::estimator::{Plan, Question};
use super::predicted;
use super::scored::Scored;
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::run::memory::{MemoryFit, MemoryNeed};
use crate::scores::TokenScores;
use crate::sweep::{Observer, Session, SweepTimes};

/// Scores, and a summary of their computation.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The scores of all training examples for all queries.
    pub scores: Scored,
    /// The scores of the tokens, if the question asked for them.
    pub tokens: Option<TokenScores>,
    /// Summary of the sweep, if the method is one.
    pub sweep: Option<SweepSummary>,
}

/// How a sweep went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSummary {
    /// Number of times the steps were walked.
    pub passes: u64,
    /// Where the time went.
    pub times: SweepTimes,
}

/// A question with a method and a plan. Its memory need is known; nothing has been computed.
pub struct Planned<'a> {
    question: Question<'a>,
    chosen: &'a Chosen,
    plan: Plan<'a>,
    origin: TableOrigin,
}

/// Scores the training examples by the chosen method. This is [`plan`], then [`Planned::answer`].
///
/// # Errors
/// As [`plan`] and [`Planned::answer`].
pub fn answer(
    question: &Question<'_>,
    chosen: &Chosen,
    engine: &mut dyn ReplayEngine,
    observer: &mut dyn Observer,
) -> Result<Answer> {
    plan(question, chosen, engine)?.answer(engine, observer)
}

/// Plans an answer: reads the files of queries, and the checkpoint of a sweep that is resumed. Reads no step.
///
/// # Errors
/// If a file can't be read, the window isn't in the trace, or a checkpoint can't be resumed ([`Session::new`]).
pub fn plan<'a>(
    question: &Question<'a>,
    chosen: &'a Chosen,
    engine: &dyn ReplayEngine,
) -> Result<Planned<'a>> {
    let origin = TableOrigin {
        run_digest: question.run.head(),
        engine: question.engine.to_owned(),
        at: question.point()?.point().to_owned(),
        method: chosen.method.name.to_owned(),
        settings: chosen.settings(),
        ..TableOrigin::default()
    };
    Ok(Planned {
        question: *question,
        chosen,
        origin: origin.with_files(question.queries)?,
        plan: chosen.estimator.plan(question, engine)?,
    })
}

impl Planned<'_> {
    /// Memory that the answer needs in addition to the data.
    pub fn memory(&self) -> MemoryNeed {
        match &self.plan {
            Plan::Sweep(session) => session.cost().memory(),
            Plan::Vectors(need) => *need,
        }
    }

    /// The session, if the method is a sweep.
    pub fn session(&self) -> Option<&Session<'_>> {
        match &self.plan {
            Plan::Sweep(session) => Some(session),
            Plan::Vectors(_) => None,
        }
    }

    /// Computes the scores with the engine that they were planned with.
    ///
    /// # Errors
    /// [`AnalysisError::Memory`] if the question's memory limit is too low, and as
    /// [`Estimator::estimate`](super::Estimator::estimate).
    pub fn answer(
        self,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Answer> {
        let Planned {
            question,
            chosen,
            plan,
            origin,
        } = self;
        // First, because a mistake should be known before hours of work.
        let predicted = if question.predictions {
            predicted::rows(&question, chosen.method, engine, observer)?
        } else {
            Vec::new()
        };
        let (mut estimate, sweep) = match plan {
            Plan::Sweep(session) => {
                let swept = session.run(engine, observer)?;
                let summary = SweepSummary {
                    passes: swept.passes,
                    times: swept.times,
                };
                (Estimate::from(swept.state), Some(summary))
            }
            Plan::Vectors(need) => {
                if let Some(limit) = question.memory
                    && need.within(limit) == MemoryFit::TooLarge
                {
                    return Err(AnalysisError::Memory {
                        what: chosen.method.name,
                        certain: need.certain,
                        limit,
                    });
                }
                let estimate = chosen.estimator.estimate(&question, engine, observer)?;
                (estimate, None)
            }
        };
        let tokens = question.per_term.then(|| estimate.take_tokens());
        let metadata = estimate.metadata(question.run, &origin);
        Ok(Answer {
            scores: Scored::new(metadata, estimate, predicted),
            tokens: tokens.filter(|_| sweep.is_some()),
            sweep,
        })
    }
}
