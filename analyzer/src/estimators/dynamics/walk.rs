//! The forward passes of the recorded steps, oldest first.

use std::ops::Range;

use hindcast_format::meta::StepMeta;
use hindcast_model::task::LossKind;

use super::label::{self, LabelOutput};
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::run::walk::Order;
use crate::sweep::{Observer, Reading, ReplayStep, Stage, each_step, tell};

/// Which squared norms of per-example gradients a [`walk`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Squares {
    /// None: a forward pass per step is enough.
    #[default]
    None,
    /// `‖g_j‖²`.
    Plain,
    /// `Σ_k η_k ‖g_{j,k}‖²`, where η_k is the learning rate of parameter tensor k in the step; 0 if it wasn't trained.
    ByRate,
}

/// The examples of one step as the step's own forward pass saw them, before its update.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDynamics<'a> {
    /// The step's metadata: its number, epoch and examples.
    pub meta: &'a StepMeta,
    /// w, one weight per example.
    pub weights: &'a [f64],
    /// ℓ_j, one unweighted loss per example.
    pub losses: Vec<f64>,
    /// The model's outputs, one row per example; a classifier's are logits.
    pub outputs: Vec<f64>,
    /// The class of each example's label; `None` if the targets aren't classes.
    pub classes: Option<Vec<u32>>,
    /// What the outputs say about each example's label; `None` unless the model is a classifier.
    pub labels: Option<Vec<LabelOutput>>,
    /// One per example; empty if they weren't asked for.
    pub squares: Vec<f64>,
}

/// Calls `see` with the dynamics of each step of `steps`, oldest first. Memory doesn't grow with the number of steps.
///
/// # Errors
/// A step isn't recorded or can't be replayed; the errors of `see`; `observer` asks to stop.
pub fn walk(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    steps: &Range<u64>,
    squares: Squares,
    see: &mut dyn FnMut(&StepDynamics<'_>) -> Result<()>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let reading = Reading::new(steps.clone(), Order::OldestFirst, engine);
    let mut stage = Stage {
        doing: "walking",
        unit: "steps",
        done: 0,
        total: steps.end - steps.start,
    };
    observer.begin(stage);
    each_step(run, reading, &mut |step| {
        see(&dynamics(run, engine, &step, squares)?)?;
        stage.done += 1;
        tell(observer, stage)
    })
}

fn dynamics<'a>(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    step: &'a ReplayStep,
    squares: Squares,
) -> Result<StepDynamics<'a>> {
    let input = step.input();
    let pass = engine.forward(&input)?;
    let binary = run
        .net()
        .is_some_and(|net| net.loss().kind == LossKind::BinaryCrossEntropy);
    let factors = match squares {
        Squares::None => Vec::new(),
        Squares::Plain => vec![1.0; run.blocks().tensors()],
        Squares::ByRate => run.rates(&step.meta)?,
    };
    let classes = label::classes_of_step(&step.batches, binary)?;
    let labels = classes.as_ref();
    Ok(StepDynamics {
        meta: &step.meta,
        weights: &step.weights,
        losses: pass.losses,
        labels: labels.and_then(|classes| label::of_classes(&pass.outputs, classes)),
        outputs: pass.outputs,
        classes,
        squares: match squares {
            Squares::None => Vec::new(),
            _ => engine.gradient_squares(&input, &factors)?,
        },
    })
}
