//! Methods: their descriptions and options, and the trait of the code that computes scores.

use std::collections::BTreeMap;
use std::sync::Arc;

use hindcast_model::net::Net;

use super::estimate::{Estimate, Scores, all_finite, occurrences};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result, Unknown, Unsupported};
use crate::query::average::{QueryState, StateWeights};
use crate::query::one::{Query, QueryGradient};
use crate::query::point::QueryPoint;
use crate::run::memory::MemoryNeed;
use crate::run::recorded::RecordedRun;
use crate::run::window::Window;
use crate::sweep::{Observer, Saving, Session};

/// A question to an estimator, and the limits for the answer.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The recorded steps with the model and the data that made them.
    pub run: &'a RecordedRun<'a>,
    /// The model as layers, if it is known.
    pub net: Option<&'a Arc<Net>>,
    /// The queries.
    pub queries: &'a [Query],
    /// The model that the queries are asked about. Methods that look at other models ignore it, but the queries' values
    /// in the table belong to it.
    pub at: &'a QueryPoint,
    /// The steps in which an example's use counts. Methods without a window refuse all windows except [`Window::All`].
    pub window: &'a Window,
    /// Whether the table also has each epoch's share of the scores. Only sweeps compute it; other methods ignore this.
    pub per_epoch: bool,
    /// Whether the answer also has the score of each term of an example's loss, such as each token of a sequence. Only sweeps
    /// compute it; other methods ignore this.
    pub per_term: bool,
    /// Whether the table also has the predictions of the model that the queries are asked about, for the examples with a
    /// score. They cost a forward pass over these examples.
    pub predictions: bool,
    /// Whether the caller writes the table row by row. Otherwise, all of its rows count as memory that the answer needs.
    pub row_by_row: bool,
    /// Bytes of memory that the answer may use; `None` sets no limit.
    pub memory: Option<u64>,
    /// Where a sweep is saved while it runs; other methods ignore this.
    pub saving: Option<&'a Saving>,
    /// Text that names the engine, its precision and its device, for the table.
    pub engine: &'a str,
}

impl<'a> Question<'a> {
    /// A question about the final model, without limits.
    pub fn new(run: &'a RecordedRun<'a>, queries: &'a [Query], window: &'a Window) -> Self {
        Question {
            run,
            net: run.net(),
            queries,
            at: &QueryPoint::Final,
            window,
            per_epoch: false,
            per_term: false,
            predictions: false,
            row_by_row: false,
            memory: None,
            saving: None,
            engine: "",
        }
    }

    /// The queries' gradients at the model that they are asked about.
    ///
    /// # Errors
    /// As [`Query::gradients`] and [`state`](Self::state).
    pub fn gradients(&self, engine: &mut dyn ReplayEngine) -> Result<Vec<QueryGradient>> {
        Query::gradients(self.queries, self.run, &self.state()?, engine)
    }

    /// That model.
    ///
    /// # Errors
    /// As [`point`](Self::point), or if an averaged step can't be read.
    pub fn state(&self) -> Result<QueryState> {
        self.point()?.state(self.run.source())
    }

    /// The weights of the recorded models in it.
    ///
    /// # Errors
    /// As [`QueryPoint::resolve`], or if the window isn't in the trace.
    pub fn point(&self) -> Result<StateWeights> {
        let source = self.run.source();
        let from = match self.window {
            // It also stands for no window, with which a method needs none of the steps.
            Window::All => 0,
            window => window.resolve(source)?.start,
        };
        self.at.resolve(source, from)
    }

    /// Refuses a window for a method that has none.
    pub(super) fn without_window(&self, method: &Method) -> Result<()> {
        match self.window {
            Window::All => Ok(()),
            window => Err(AnalysisError::Unsupported(Unsupported::Window {
                method: method.name,
                window: window.to_string(),
            })),
        }
    }

    /// The estimate of a method without a window. All training examples have a score, even if they are in no recorded step.
    pub(super) fn everyone(
        &self,
        queries: &[QueryGradient],
        scores: Vec<Vec<f64>>,
        notes: Vec<String>,
    ) -> Result<Estimate> {
        let queries = queries.iter().zip(scores);
        let queries: Vec<Scores> = queries.map(|(q, scores)| Scores::of(q, scores)).collect();
        let scored = vec![true; self.run.examples()];
        all_finite(&queries, &scored)?;
        let end = self.run.source().end()?.step;
        Ok(Estimate {
            window: 0..end,
            end,
            occurrences: occurrences(self.run, &self.run.source().ranges()?)?,
            scored,
            queries,
            notes,
        })
    }
}

/// What an estimator will do, planned before it reads a step.
pub enum Plan<'a> {
    /// A sweep.
    Sweep(Box<Session<'a>>),
    /// Another method, with the memory that it needs in addition to the data and the model's intermediate values.
    Vectors(MemoryNeed),
}

impl Plan<'_> {
    /// The plan of a method that keeps a few vectors of the parameters' length per query, and the scores twice: in the
    /// estimate and in the table.
    fn of_vectors(question: &Question<'_>) -> Result<Self> {
        let (q, n) = (
            question.queries.len() as u64,
            question.run.examples() as u64,
        );
        let end = question.run.source().end()?;
        let values = (end.parameters.len() + end.buffers.len()) as u64;
        let about = 8 * (q * VECTORS * values + q * SCORES * n);
        Ok(Plan::Vectors(MemoryNeed::estimated(about)))
    }
}

/// Approximate number of vectors of the parameters' length that a method keeps in memory per query.
const VECTORS: u64 = 6;
/// Approximate number of eight-byte values that a method keeps in memory per query and example.
const SCORES: u64 = 5;

/// A way to score the training examples of a run.
pub trait Estimator {
    /// Its entry in the list of methods.
    fn method(&self) -> &'static Method;

    /// What [`estimate`](Self::estimate) would do. Reads no step.
    ///
    /// # Errors
    /// If the run's end can't be read; for a sweep, as [`Session::new`].
    fn plan<'a>(&self, question: &Question<'a>, engine: &dyn ReplayEngine) -> Result<Plan<'a>> {
        let _ = engine;
        Plan::of_vectors(question)
    }

    /// Scores the training examples for every query. Calls `observer` after each piece of work.
    ///
    /// # Errors
    /// If the method isn't defined for this run, data or window, a step can't be read or replayed, a number stops being
    /// finite, or `observer` asks to stop ([`AnalysisError::Cancelled`]).
    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate>;
}

/// A method that can be chosen by name.
#[derive(Debug)]
pub struct Method {
    /// The name on the command line and in a table's metadata.
    pub name: &'static str,
    /// What it computes, in one line.
    pub about: &'static str,
    /// What it requires: which runs, which data, how much time.
    pub needs: &'static str,
    /// The paper that it comes from.
    pub source: &'static str,
    /// Whether a score predicts the change of the query when the example is left out. If so, scores add up and can be
    /// compared with retraining. The scores of other methods only rank examples.
    pub predicts: bool,
    /// Whether the scores depend on the query. If not, every query has the same ones.
    pub asks: bool,
    /// Whether scores belong to a window of steps.
    pub windowed: bool,
    /// Whether the method is a reverse sweep. Only sweeps can be saved and resumed, and compute each epoch's share.
    pub sweeps: bool,
    /// Its options.
    pub options: &'static [MethodOption],
    /// Makes the estimator from values for all options.
    pub(super) build: fn(&Choices) -> Result<Box<dyn Estimator>>,
}

/// An option of a method.
#[derive(Debug)]
pub struct MethodOption {
    /// Its name, as in `KEY=VALUE`.
    pub key: &'static str,
    /// Its default value.
    pub default: &'static str,
    /// What it means.
    pub about: &'static str,
}

/// A value for each option of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    pub(super) method: &'static str,
    pub(super) values: BTreeMap<String, String>,
}

impl Choices {
    /// The value as it was written; empty for an option that the method doesn't have.
    pub fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// The value as a finite number for which `holds` is true. `wanted` describes such numbers, for the error.
    pub(super) fn number(
        &self,
        key: &str,
        wanted: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<f64> {
        let number = self.text(key).parse().ok();
        number
            .filter(|x: &f64| x.is_finite() && holds(*x))
            .ok_or_else(|| self.wrong(key, wanted))
    }

    /// The value as a whole number of at least `least`.
    pub(super) fn count(&self, key: &str, least: u64) -> Result<u64> {
        let number = self.text(key).parse().ok();
        number
            .filter(|&n: &u64| n >= least)
            .ok_or_else(|| self.wrong(key, &format!("a whole number, at least {least}")))
    }

    /// The error of a value that the option doesn't take. `wanted` describes the values that it takes.
    pub(super) fn wrong(&self, key: &str, wanted: &str) -> AnalysisError {
        self.refused(key, format!("expected {wanted}"))
    }

    /// The error of an option whose value has this problem.
    pub(super) fn refused(&self, key: &str, problem: String) -> AnalysisError {
        AnalysisError::Unknown(Unknown::Value {
            method: self.method,
            key: key.to_owned(),
            value: self.text(key).to_owned(),
            problem,
        })
    }
}
