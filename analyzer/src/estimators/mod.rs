//! Estimators: ways to say how much each training example matters to a query, behind one trait.
//!
//! Every method gives the same kind of table. Its scores L_j follow one convention: `L_j > 0` means that removing
//! example j raises the query's loss, so the most harmful examples have the lowest scores. Methods that look for outliers
//! know no query and give minus their outlierness, the same for every query.
//!
//! [`choose`] makes an estimator from its name and options, [`methods`] lists what there is. Formulas and sources:
//! docs/math.md.

mod accumulative;
mod autoencoder;
mod choices;
mod estimate;
mod forward;
mod hessian;
mod isolation;
mod koh_liang;
mod outliers;
mod random;
pub mod refine;
mod still;
mod sweeps;
mod tracin;

pub use accumulative::accumulative_changes;
pub use choices::{Choices, Chosen, Method, MethodOption, choose, method, methods};
pub use estimate::{Estimate, Scores};
pub use forward::{ForwardChanges, OwnTerm, forward_changes};
pub use forward::{defined, plain};
pub use hessian::{HessianTerm, WithHessian};
pub use refine::{Ladder, refine};

use std::ops::ControlFlow;
use std::sync::Arc;

use hindcast_model::net::Net;

use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::query::one::{Query, QueryGradient};
use crate::run::recorded::RecordedRun;
use crate::run::window::Window;

/// What an estimator is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The recorded steps with the model and the data that made them.
    pub run: &'a RecordedRun<'a>,
    /// The model as layers, where it is a Task's.
    pub net: Option<&'a Arc<Net>>,
    /// The queries, for methods that evaluate them elsewhere than at the end of training.
    pub queries: &'a [Query],
    /// Their gradients at θ_T, in the same order.
    pub gradients: &'a [QueryGradient],
    /// Steps whose use of an example counts. Methods without a window refuse any but [`Window::All`].
    pub window: &'a Window,
}

/// How far an estimator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// What is being done, as `sweeping`.
    pub doing: &'static str,
    /// What is counted, in the plural, as `steps`.
    pub unit: &'static str,
    /// How many are done.
    pub done: u64,
    /// How many there are; 0 where nobody knows.
    pub total: u64,
}

/// Is told how far an estimator is, and may stop it.
pub type Watcher<'a> = dyn FnMut(Stage) -> ControlFlow<()> + 'a;

/// A way to score the training examples of a run.
pub trait Estimator {
    /// Its entry in the list of methods.
    fn method(&self) -> &'static Method;

    /// Where the method is a reverse sweep: what it does with the Hessian's term. A caller that keeps sweeps when they are
    /// interrupted then sweeps by itself, with an engine wrapped in [`WithHessian`], to the same scores.
    fn sweeps(&self) -> Option<HessianTerm> {
        None
    }

    /// Scores every training example for every query. `watcher` is told how far it is after each piece of work.
    ///
    /// # Errors
    /// Where the method isn't defined for this run, data or window, a step can't be read or replayed, a number stops being
    /// finite, or `watcher` asks to stop ([`AnalysisError::Cancelled`]).
    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        watcher: &mut Watcher<'_>,
    ) -> Result<Estimate>;
}

/// Tells the watcher; an error where it asks to stop before the end.
fn tell(watcher: &mut Watcher<'_>, stage: Stage) -> Result<()> {
    match watcher(stage) {
        ControlFlow::Break(()) if stage.done < stage.total || stage.total == 0 => {
            Err(AnalysisError::Cancelled { step: stage.done })
        }
        _ => Ok(()),
    }
}
