//! TracIn (Pruthi, Liu, Kale, Sundararajan 2020). Its checkpoints come from the trace, which has one per step.

use std::ops::Range;

use hindcast_format::meta::StepMeta;
use hindcast_model::vectors::add;

use super::estimate::{Estimate, Scores, all_finite, occurrences};
use super::estimator::{Choices, Estimator, Method, MethodOption, Question};
use super::still::Still;
use crate::engine::{ReplayEngine, slices};
use crate::error::{AnalysisError, Missing, Result};
use crate::query::one::QueryGradient;
use crate::run::floats::FloatSlice;
use crate::run::recorded::RecordedRun;
use crate::run::walk::{Order, WithBuffers};
use crate::sweep::{Observer, ReplayStep, Stage, tell};

const PAPER: &str = "Pruthi, Liu, Kale, Sundararajan: Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020";

pub(super) static TRACIN: Method = Method {
    name: "tracin",
    about: "TracIn: learning rate times the product of query and example gradients, summed over the ends of epochs",
    needs: "the last step of each epoch of the window and the step after it; a pass over all examples per checkpoint",
    source: PAPER,
    predicts: false,
    asks: true,
    windowed: true,
    sweeps: false,
    options: &[MethodOption {
        key: "every",
        default: "1",
        about: "k: use only every k-th end of an epoch, counted back from the window's last",
    }],
    build: |choices: &Choices| {
        Ok(Box::new(Tracin {
            every: choices.count("every", 1)?,
        }))
    },
};

pub(super) static TRACIN_STEPS: Method = Method {
    name: "tracin-steps",
    about: "TracIn summed over every step that used the example (the paper's idealised form)",
    needs: "every step of the window, and the query's gradient at each: quick for a query of few examples only",
    source: PAPER,
    predicts: false,
    asks: true,
    windowed: true,
    sweeps: false,
    options: &[],
    build: |_| Ok(Box::new(TracinSteps)),
};

/// Sums over checkpoints.
struct Tracin {
    every: u64,
}

/// Sums over steps.
struct TracinSteps;

/// The model after step `step`.
struct Checkpoint {
    meta: StepMeta,
    parameters: Vec<f64>,
    buffers: Vec<f64>,
}

impl Checkpoint {
    fn after(run: &RecordedRun<'_>, step: u64) -> Result<Self> {
        let source = run.source();
        let missing = |missing: u64| Missing::ModelAfter {
            after: step,
            step: missing,
        };
        let end = source.end()?;
        let last = if step + 1 == end.step { step } else { step + 1 };
        let mut walk = source.forward(step..last + 1)?;
        let this = walk.next().ok_or_else(|| missing(step))??;
        if last == step {
            return Ok(Checkpoint {
                meta: this.meta,
                parameters: end.parameters,
                buffers: end.buffers,
            });
        }
        let next = walk.next().ok_or_else(|| missing(last))??;
        Ok(Checkpoint {
            meta: this.meta,
            parameters: next.parameters.to_vec(),
            buffers: this.buffers_after.to_vec(),
        })
    }
}

/// Multiplies the vector by each tensor's learning rate, or by 0 if the tensor wasn't trained.
fn scaled(run: &RecordedRun<'_>, meta: &StepMeta, mut vector: Vec<f64>) -> Result<Vec<f64>> {
    for (block, rate) in run.blocks().iter().zip(run.rates(meta)?) {
        let values = vector[block.range.clone()].iter_mut();
        values.for_each(|x| *x *= rate);
    }
    Ok(vector)
}

/// The queries' gradients at a checkpoint, times the step's learning rates.
fn directions(
    question: &Question<'_>,
    engine: &mut dyn ReplayEngine,
    meta: &StepMeta,
    parameters: FloatSlice<'_>,
    buffers: FloatSlice<'_>,
) -> Result<Vec<Vec<f64>>> {
    let run = question.run;
    let queries = question.queries.iter();
    queries
        .map(|query| {
            let (source, data) = (run.source(), run.data());
            let gradient = query.gradient_at(source, engine, data, parameters, buffers)?;
            scaled(run, meta, gradient.parameters)
        })
        .collect()
}

impl Tracin {
    /// The last steps of the epochs, oldest first.
    fn ends(&self, question: &Question<'_>, window: &Range<u64>) -> Result<Vec<u64>> {
        let epochs = question.run.source().epochs()?;
        let mut ends: Vec<u64> = epochs
            .iter()
            .map(|(_, steps)| steps.end - 1)
            .filter(|end| window.contains(end))
            .collect();
        if ends.is_empty() {
            return Err(AnalysisError::Missing(Missing::EpochEnd {
                window: window.clone(),
            }));
        }
        let every = usize::try_from(self.every).unwrap_or(usize::MAX);
        ends = ends.into_iter().rev().step_by(every).collect();
        ends.reverse();
        Ok(ends)
    }
}

impl Estimator for Tracin {
    fn method(&self) -> &'static Method {
        &TRACIN
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        let run = question.run;
        let window = question.window.resolve(run.source())?;
        let ends = self.ends(question, &window)?;
        let gradients = question.gradients(engine)?;
        let n = run.examples();
        let mut sums = vec![vec![0.0; n]; question.queries.len()];
        let mut stage = Stage {
            doing: "scoring",
            unit: "examples",
            done: 0,
            total: (n * ends.len()) as u64,
        };
        for &step in &ends {
            let at = Checkpoint::after(run, step)?;
            let (parameters, buffers) = (&at.parameters, &at.buffers);
            let directions = directions(
                question,
                engine,
                &at.meta,
                parameters.into(),
                buffers.into(),
            )?;
            let still = Still {
                run,
                parameters: &at.parameters,
                buffers: &at.buffers,
            };
            let part = still.everyone(engine, &directions, stage, observer)?;
            for (sum, part) in sums.iter_mut().zip(&part.products) {
                add(sum, part);
            }
            stage.done += n as u64;
        }
        let named: Vec<String> = ends.iter().map(|t| t.to_string()).collect();
        finish(
            question,
            &gradients,
            window,
            vec![true; n],
            sums,
            vec![format!(
                "{} checkpoints: the model after step {}",
                ends.len(),
                named.join(", ")
            )],
        )
    }
}

impl Estimator for TracinSteps {
    fn method(&self) -> &'static Method {
        &TRACIN_STEPS
    }

    fn estimate(
        &self,
        question: &Question<'_>,
        engine: &mut dyn ReplayEngine,
        observer: &mut dyn Observer,
    ) -> Result<Estimate> {
        let run = question.run;
        let window = question.window.resolve(run.source())?;
        let n = run.examples();
        let mut sums = vec![vec![0.0; n]; question.queries.len()];
        let mut scored = vec![false; n];
        let gradients = question.gradients(engine)?;
        for found in WithBuffers::new(run.source(), window.clone(), Order::OldestFirst)? {
            let step = ReplayStep::load(run, found?, engine.dtype(), engine.device())?;
            let t = step.meta.step;
            let input = step.input();
            let directions = directions(
                question,
                engine,
                &step.meta,
                input.parameters,
                input.buffers,
            )?;
            let out = engine.products(
                &input,
                &slices(&directions),
                &vec![vec![0.0; input.buffers.len()]; directions.len()],
            )?;
            // The data has returned the examples, so all indices are below N.
            for &j in &step.meta.indices {
                if let Some(slot) = scored.get_mut(j as usize) {
                    *slot = true;
                }
            }
            for (sum, products) in sums.iter_mut().zip(&out.products) {
                for ((&j, w), product) in step.meta.indices.iter().zip(&step.weights).zip(products)
                {
                    if let Some(slot) = sum.get_mut(j as usize) {
                        *slot += w * product;
                    }
                }
            }
            tell(
                observer,
                Stage {
                    doing: "walking",
                    unit: "steps",
                    done: t + 1 - window.start,
                    total: window.end - window.start,
                },
            )?;
        }
        finish(question, &gradients, window, scored, sums, Vec::new())
    }
}

fn finish(
    question: &Question<'_>,
    gradients: &[QueryGradient],
    window: Range<u64>,
    scored: Vec<bool>,
    sums: Vec<Vec<f64>>,
    notes: Vec<String>,
) -> Result<Estimate> {
    let queries = gradients.iter().zip(sums);
    let queries: Vec<Scores> = queries.map(|(q, sum)| Scores::of(q, sum)).collect();
    all_finite(&queries, &scored)?;
    Ok(Estimate {
        end: question.run.source().end()?.step,
        occurrences: occurrences(question.run, std::slice::from_ref(&window))?,
        window,
        scored,
        queries,
        notes,
    })
}
