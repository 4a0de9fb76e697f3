//! A model of a dozen parameters with a running statistic and a penalty, its data, and a training loop in float64.

pub use crate::numbers::{noise, relative_error};

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use hindcast_analyzer::run::{RecordedEnd, RecordedKey, RecordedStep, weights_of};
use hindcast_analyzer::{AutodiffEngine, MemoryRun, RecordedRun};
use hindcast_format::layout::{DType as Stored, Role, TensorSpec};
use hindcast_format::meta::{BatchWeights, GroupHyper, StepMeta};
use hindcast_model::data::{DataError, DataSet};
use hindcast_model::objective::{Batch, Draws, Losses, Mode, Objective, Pass, Split, TensorDef};
use hindcast_model::train::{Gradient, ModelState, Stepper, WeightedBatch};
use hindcast_model::update::{Settings, UpdateRule};

pub const FEATURES: usize = 3;
const HIDDEN: usize = 4;
/// Number of training examples.
pub const TRAIN: usize = 14;
const VALIDATION: usize = 9;

/// `softplus(-y · w2 tanh(w1 x − m))`, where m is the batch's mean activation in training and the running mean in
/// evaluation.
pub struct TinyNet {
    parameters: Vec<TensorDef>,
    buffers: Vec<TensorDef>,
    penalty: f64,
}

impl TinyNet {
    pub fn new(penalty: f64) -> Arc<Self> {
        let def = |name: &str, shape: &[usize]| TensorDef {
            name: name.to_owned(),
            shape: shape.to_vec(),
        };
        Arc::new(TinyNet {
            parameters: vec![
                def("idle", &[2]),
                def("w1", &[HIDDEN, FEATURES]),
                def("w2", &[1, HIDDEN]),
            ],
            buffers: vec![def("mean", &[HIDDEN])],
            penalty,
        })
    }

    pub fn start(&self) -> Vec<f64> {
        noise(1, 2 + HIDDEN * FEATURES + HIDDEN)
    }
}

impl Objective for TinyNet {
    fn parameters(&self) -> &[TensorDef] {
        &self.parameters
    }

    fn buffers(&self) -> &[TensorDef] {
        &self.buffers
    }

    fn losses(&self, pass: &Pass<'_>) -> Result<Losses> {
        let (w1, w2) = (&pass.parameters[1], &pass.parameters[2]);
        let z = pass.batch.inputs.matmul(&w1.t()?)?;
        let (m, after) = match pass.mode {
            Mode::Train => {
                let m = z.mean(0)?;
                let after = ((&pass.buffers[0] * 0.8)? + (&m * 0.2)?)?;
                (m, after)
            }
            Mode::Evaluate => (pass.buffers[0].clone(), pass.buffers[0].clone()),
        };
        let outputs = z.broadcast_sub(&m)?.tanh()?.matmul(&w2.t()?)?;
        let margin = (&outputs * &pass.batch.targets)?.squeeze(1)?;
        let per_example = (margin.neg()?.exp()? + 1.0)?.log()?;
        let shared = match pass.mode {
            Mode::Train if self.penalty > 0.0 => {
                let squares = (w1.sqr()?.sum_all()? + w2.sqr()?.sum_all()?)?;
                Some((squares * (0.5 * self.penalty))?)
            }
            _ => None,
        };
        Ok(Losses {
            terms: None,
            per_example,
            shared,
            buffers: vec![after],
            outputs,
            stopped: Vec::new(),
        })
    }
}

pub struct TinyData;

impl DataSet for TinyData {
    fn len(&self, split: Split) -> u64 {
        match split {
            Split::Train => TRAIN as u64,
            Split::Validation => VALIDATION as u64,
            Split::Test => 0,
        }
    }

    fn shape(&self) -> &[usize] {
        &[FEATURES]
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        _draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Batch, DataError> {
        let len = self.len(split);
        if let Some(&index) = indices.iter().find(|&&i| i >= len) {
            return Err(DataError::Index {
                split: split.name(),
                index,
                len,
            });
        }
        let base = match split {
            Split::Train => 100,
            _ => 900,
        };
        let mut x: Vec<f64> = Vec::new();
        let mut y = Vec::new();
        for &i in indices {
            let row = noise(base + i, FEATURES + 1);
            x.extend(&row[..FEATURES]);
            y.push(if row[FEATURES] > 0.0 { 1.0 } else { -1.0 });
        }
        let n = indices.len();
        Ok(Batch {
            indices: indices.to_vec(),
            inputs: Tensor::from_vec(x, (n, FEATURES), device)?.to_dtype(dtype)?,
            targets: Tensor::from_vec(y, (n, 1), device)?.to_dtype(dtype)?,
        })
    }
}

/// How a tiny run is trained and recorded.
#[derive(Clone)]
pub struct Recipe {
    pub rule: UpdateRule,
    pub learning_rate: f64,
    pub steps: u64,
    /// A new segment opens every this many steps.
    pub segment: u64,
    pub penalty: f64,
    /// Clips gradients in odd steps only.
    pub clip_odd: Option<f64>,
    /// Lengths of the micro-batches into which batches are cut.
    pub micro: Vec<u32>,
    /// Recorded weights; the mean if there are none.
    pub weights: Option<Vec<f64>>,
    /// Number of updates that the optimizer made before the run's first step.
    pub warm: u64,
    /// Whether keyframes contain the optimizer's state.
    pub keep_state: bool,
    /// A parameter tensor that the optimizer doesn't hold, whatever the recorded flags say.
    pub frozen: Option<usize>,
    /// A new optimizer takes over every this many steps.
    pub restart_every: Option<u64>,
    /// From this step on, every third step belongs to a second optimizer, which holds the last tensor. The first optimizer
    /// takes the other steps and never trains that tensor.
    pub turns: Option<u64>,
    /// After each step, parameters are limited to this size.
    pub clamp: Option<f64>,
    /// A second optimizer with this multiple of the rate updates the tensor, too.
    pub second: Option<(usize, f64)>,
}

impl Recipe {
    pub fn new(rule: UpdateRule, learning_rate: f64) -> Self {
        Recipe {
            rule,
            learning_rate,
            steps: 10,
            segment: 4,
            penalty: 0.0,
            clip_odd: None,
            micro: Vec::new(),
            weights: None,
            warm: 0,
            keep_state: true,
            frozen: None,
            restart_every: None,
            turns: None,
            clamp: None,
            second: None,
        }
    }

    pub fn meta(&self, t: u64) -> StepMeta {
        // Five examples of fourteen. Every third batch contains an index twice, and every fourth may be short.
        let mut indices: Vec<u64> = (0..5)
            .map(|k| (t * 5 + k * 3 + t / 3) % TRAIN as u64)
            .collect();
        if t % 3 == 1 {
            indices[4] = indices[0];
        }
        if t % 4 == 3 && self.micro.is_empty() && self.weights.is_none() {
            indices.truncate(3);
        }
        StepMeta {
            step: t,
            epoch: t / 3,
            groups: vec![GroupHyper {
                learning_rate: self.learning_rate / ((1 + t) as f64).sqrt(),
                weight_decay: self.rule.weight_decay(),
            }],
            indices,
            weights: match &self.weights {
                None => BatchWeights::Mean,
                Some(w) => BatchWeights::Each(w.clone()),
            },
            micro_batches: self.micro.clone(),
            loss: None,
            clip_norm: self.clip_odd.filter(|_| t % 2 == 1),
            optimizer_step: match self.turns {
                None => self.restart_every.map_or(self.warm + t, |every| t % every),
                Some(first) if is_turn_of_second(first, t) => (t - first) / 3,
                Some(first) => self.warm + t - (t + 3).saturating_sub(first + 1) / 3,
            },
            trained: match self.turns {
                None => vec![false, true, t != 2],
                Some(first) => {
                    let second = is_turn_of_second(first, t);
                    vec![false, !second, second]
                }
            },
            scalars: Vec::new(),
            extensions: Vec::new(),
        }
    }
}

/// Whether step t is the second optimizer's, whose first turn is step `first`.
fn is_turn_of_second(first: u64, t: u64) -> bool {
    t >= first && (t - first).is_multiple_of(3)
}

/// A factor for an example in every batch that contains it, within a range of steps.
#[derive(Clone)]
pub struct Reweighted {
    pub example: u64,
    pub factor: f64,
    pub within: std::ops::Range<u64>,
}

/// Changes the weights of a step's batch.
pub type Change<'a> = dyn Fn(&StepMeta, &mut [f64]) + 'a;

impl Reweighted {
    pub fn apply(&self, meta: &StepMeta, weights: &mut [f64]) {
        for (w, &i) in weights.iter_mut().zip(&meta.indices) {
            if i == self.example && self.within.contains(&meta.step) {
                *w *= self.factor;
            }
        }
    }
}

/// Trains in float64 with the steps that Tasks are trained with, and records every step in memory.
pub fn train(recipe: &Recipe, net: &Arc<TinyNet>, changed: Option<&Reweighted>) -> MemoryRun {
    train_with(recipe, net, &|meta, weights| {
        if let Some(changed) = changed {
            changed.apply(meta, weights);
        }
    })
}

/// Like [`train`], with any change of the weights.
pub fn train_with(recipe: &Recipe, net: &Arc<TinyNet>, change: &Change<'_>) -> MemoryRun {
    let stepper = Stepper::new(net.as_ref(), &recipe.rule);
    let p = stepper.blocks().values();
    let specs = |defs: &[TensorDef], role| {
        defs.iter()
            .map(|d| TensorSpec {
                name: d.name.clone(),
                role,
                dtype: Stored::F64,
                shape: d.shape.clone(),
                group: 0,
            })
            .collect::<Vec<_>>()
    };
    let state_defs: Vec<TensorDef> = recipe
        .rule
        .state_tensors(net.parameters())
        .into_iter()
        .map(|t| TensorDef {
            name: t.name,
            shape: t.shape,
        })
        .collect();
    let mut out = MemoryRun {
        parameters: specs(net.parameters(), Role::Parameter),
        buffers: specs(net.buffers(), Role::Buffer),
        optimizer_state: if recipe.keep_state {
            specs(&state_defs, Role::OptimizerState)
        } else {
            Vec::new()
        },
        steps: Vec::new(),
        end: None,
    };
    let empty = MemoryRun {
        parameters: out.parameters.clone(),
        buffers: out.buffers.clone(),
        ..MemoryRun::default()
    };
    let run = RecordedRun::new(&empty, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let mut state = ModelState {
        parameters: net.start(),
        buffers: noise(3, HIDDEN),
        optimizer: noise(5, recipe.rule.state_values(p))
            .iter()
            .map(|x| {
                if recipe.warm > 0 {
                    0.01 * (x + 1.5)
                } else {
                    0.0
                }
            })
            .collect::<Vec<f64>>(),
    };
    for t in 0..recipe.steps {
        let meta = recipe.meta(t);
        if recipe.restart_every.is_some() && meta.optimizer_step == 0 {
            state.optimizer.fill(0.0);
        }
        let mut weights = weights_of(&meta).unwrap();
        change(&meta, &mut weights);
        let mut rest = weights.into_iter();
        let parts: Vec<WeightedBatch> = run
            .batches(&meta, DType::F64, &Device::Cpu)
            .unwrap()
            .into_iter()
            .map(|batch| WeightedBatch {
                weights: rest.by_ref().take(batch.indices.len()).collect(),
                batch,
            })
            .collect();
        let gradient = stepper.gradient(&state, &parts, run.draws(t)).unwrap();
        let key = t.is_multiple_of(recipe.segment).then(|| RecordedKey {
            buffers_before: state.buffers.clone().into(),
            optimizer: if recipe.keep_state {
                state.optimizer.clone()
            } else {
                Vec::new()
            },
        });
        out.steps.push(RecordedStep {
            meta: meta.clone(),
            parameters: state.parameters.clone().into(),
            buffers_after: gradient.buffers.clone().into(),
            key,
        });
        update(recipe, &stepper, run.settings(&meta), gradient, &mut state);
    }
    out.end = Some(RecordedEnd {
        step: recipe.steps,
        parameters: state.parameters,
        buffers: state.buffers,
        optimizer: Some(state.optimizer),
    });
    out
}

/// Takes a step, and does what the recipe does besides.
fn update(
    recipe: &Recipe,
    stepper: &Stepper<'_>,
    mut settings: Settings,
    gradient: Gradient<f64>,
    state: &mut ModelState<f64>,
) {
    if let Some(frozen) = recipe.frozen {
        settings.trained[frozen] = false;
    }
    let again = recipe.second.map(|(tensor, factor)| {
        let mut settings = settings.clone();
        settings.trained = (0..settings.trained.len()).map(|i| i == tensor).collect();
        settings.groups[0].learning_rate *= factor;
        (settings, gradient.clone())
    });
    stepper.update(&settings, gradient, state).unwrap();
    if let Some((settings, gradient)) = again {
        let optimizer = state.optimizer.clone();
        stepper.update(&settings, gradient, state).unwrap();
        state.optimizer = optimizer;
    }
    if let Some(limit) = recipe.clamp {
        for x in &mut state.parameters {
            *x = x.clamp(-limit, limit);
        }
    }
}

pub fn engine(net: &Arc<TinyNet>) -> AutodiffEngine {
    AutodiffEngine::new(net.clone(), DType::F64, &Device::Cpu).unwrap()
}
