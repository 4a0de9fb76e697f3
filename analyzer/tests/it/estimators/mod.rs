//! Compares methods with references that share no code with them. The forward estimates are tested in `theory`.

mod cleaning;
mod dynamics;
mod koh_liang;
mod sweeps;
mod tracin;

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_analyzer::estimators::{Estimate, Question, choose};
use hindcast_analyzer::run::FloatSlice;
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{
    MemoryRun, Query, QueryGradient, RecordedRun, ReplayEngine, Result, StepInput, Window,
};
use hindcast_model::data::DataSet;
use hindcast_model::objective::{Batch, Draws, Mode, Split};

use crate::tiny::{Recipe, TinyData, TinyNet, engine};

/// Scores by `name` for a tiny run, for the mean validation loss and the loss of two training examples.
fn estimate(
    name: &str,
    set: &[(&str, &str)],
    recipe: &Recipe,
    net: &Arc<TinyNet>,
    recorded: &MemoryRun,
    window: &Window,
) -> Result<Estimate> {
    let run = RecordedRun::new(recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let queries = queries();
    let question = Question::new(&run, &queries, window);
    choose(name, set)?
        .estimator
        .estimate(&question, &mut engine(net), &mut |_: Stage| {
            ControlFlow::Continue(())
        })
}

fn queries() -> Vec<Query> {
    vec![Query::default(), "train:3,9".parse().unwrap()]
}

fn gradients(recorded: &MemoryRun, net: &Arc<TinyNet>) -> Vec<QueryGradient> {
    let gradient = |q: &Query| q.gradient(recorded, &mut engine(net), &TinyData);
    queries().iter().map(|q| gradient(q).unwrap()).collect()
}

/// The scores of a query. None may be missing.
fn scores(estimate: &Estimate, query: usize) -> Vec<f64> {
    let all = estimate.scores(query);
    all.map(|x| x.expect("a score")).collect()
}

/// A point at which gradients are computed, one loss at a time.
struct Point<'a> {
    parameters: FloatSlice<'a>,
    buffers: FloatSlice<'a>,
    mode: Mode,
    batches: Vec<Batch>,
}

impl Point<'_> {
    fn gradient(&self, engine: &mut dyn ReplayEngine, weights: &[f64]) -> Vec<f64> {
        let input = StepInput {
            parameters: self.parameters,
            buffers: self.buffers,
            micro_batches: &self.batches,
            weights,
            mode: self.mode,
            draws: Draws { seed: 0, step: 0 },
        };
        engine.gradient(&input).unwrap().parameters
    }

    fn examples(&self) -> usize {
        self.batches.iter().map(|b| b.indices.len()).sum()
    }

    /// The gradient of the mean loss.
    fn mean(&self, engine: &mut dyn ReplayEngine) -> Vec<f64> {
        let n = self.examples();
        self.gradient(engine, &vec![1.0 / n as f64; n])
    }

    /// The gradient of each example's own loss, without a penalty of the whole batch.
    fn each(&self, engine: &mut dyn ReplayEngine) -> Vec<Vec<f64>> {
        let n = self.examples();
        let without = self.gradient(engine, &vec![0.0; n]);
        (0..n)
            .map(|j| {
                let mut alone = vec![0.0; n];
                alone[j] = 1.0;
                let mut gradient = self.gradient(engine, &alone);
                gradient.iter_mut().zip(&without).for_each(|(a, b)| *a -= b);
                gradient
            })
            .collect()
    }
}

fn batch(split: Split, examples: &[u64]) -> Batch {
    TinyData
        .batch(split, examples, None, DType::F64, &Device::Cpu)
        .unwrap()
}
