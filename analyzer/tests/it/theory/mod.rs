//! Forward and accumulative estimates, bounds, and appendix A of the paper, on runs of a few parameters in float64.

mod appendix_a;
mod bounds;
mod forward;
mod refinement;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::run::{RecordedEnd, RecordedKey, RecordedStep, weights_of};
use hindcast_analyzer::{KernelEngine, MemoryRun, Query, QueryGradient, RecordedRun};
use hindcast_format::layout::{DType as Stored, Role, TensorSpec};
use hindcast_format::meta::{BatchWeights, GroupHyper, StepMeta};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::net::Net;
use hindcast_model::objective::{Objective, TensorDef};
use hindcast_model::task::Task;
use hindcast_model::train::{ModelState, Stepper, WeightedBatch};

use crate::tiny::noise;

pub const FEATURES: usize = 4;
const VALIDATION: usize = 6;
const SEED: u64 = 5;

/// A run that can be trained again with other weights.
pub struct Toy {
    pub task: Task,
    pub net: Arc<Net>,
    pub data: Box<dyn DataSet>,
    /// Examples of each step.
    pub batches: Vec<Vec<u64>>,
    /// η of each step.
    pub rates: Vec<f64>,
    /// Recorded weights instead of the mean.
    pub weights: Option<Vec<f64>>,
    pub start: Vec<f64>,
}

/// The weights of one step, which a counterfactual run changes.
pub type Change<'a> = dyn Fn(&StepMeta, &mut [f64]) + 'a;

impl Toy {
    /// `examples` drawn examples, with the kind of targets that the loss needs. Batches and rates are filled in
    /// later.
    pub fn new(layers: &str, loss: &str, optimizer: &str, examples: usize, seed: u64) -> Toy {
        let text = format!(
            "name = \"toy\"\n[data]\nsource = \"digits\"\n[model]\ninput = [{FEATURES}]\nlayers = [{layers}]\n\
             [loss]\n{loss}\n[optimizer]\n{optimizer}\n[schedule]\nkind = \"constant\"\nlearning_rate = 0.1\n\
             [train]\nepochs = 1\nbatch = 4\nseed = {SEED}\ndtype = \"f64\"\n"
        );
        let task = Task::from_toml(&text).unwrap();
        let net = Arc::new(Net::new(&task.model, &task.loss).unwrap());
        let outputs = *net.output_shape().last().unwrap();
        let split = |seed: u64, n: usize| {
            let x = noise(seed, n * FEATURES);
            let inputs = Tensor::from_vec(x, (n, FEATURES), &Device::Cpu).unwrap();
            let y = noise(seed + 1, n * outputs);
            let targets = match task.loss.kind {
                hindcast_model::task::LossKind::CrossEntropy => {
                    let y: Vec<u32> = y[..n].iter().map(|y| u32::from(*y > 0.0)).collect();
                    Tensor::from_vec(y, n, &Device::Cpu).unwrap()
                }
                hindcast_model::task::LossKind::BinaryCrossEntropy => {
                    let y: Vec<f64> = y.iter().map(|y| f64::from(u8::from(*y > 0.0))).collect();
                    Tensor::from_vec(y, (n, outputs), &Device::Cpu).unwrap()
                }
                _ => Tensor::from_vec(y, (n, outputs), &Device::Cpu).unwrap(),
            };
            (inputs, targets)
        };
        let train = split(17 + 10 * seed, examples);
        let validation = split(1013 + 10 * seed, VALIDATION);
        let data = from_tensors(
            (&train.0, &train.1),
            Some((&validation.0, &validation.1)),
            None,
            &[],
            None,
        )
        .unwrap();
        let start = net.initial_parameters::<f64>(seed);
        Toy {
            task,
            net,
            data,
            batches: Vec::new(),
            rates: Vec::new(),
            weights: None,
            start,
        }
    }

    /// `epochs` epochs of batches of `size`, each in a different order, with the rates that `rate` returns.
    pub fn epochs(mut self, epochs: u64, size: usize, rate: impl Fn(usize) -> f64) -> Toy {
        let n = self.data.len(hindcast_model::objective::Split::Train);
        for epoch in 0..epochs {
            let keys = noise(77 + epoch, n as usize);
            let mut order: Vec<u64> = (0..n).collect();
            order.sort_by(|&a, &b| keys[a as usize].total_cmp(&keys[b as usize]));
            self.batches.extend(order.chunks(size).map(<[u64]>::to_vec));
        }
        self.rates = (0..self.batches.len()).map(rate).collect();
        self
    }

    pub fn meta(&self, t: usize) -> StepMeta {
        StepMeta {
            step: t as u64,
            epoch: 0,
            groups: vec![GroupHyper {
                learning_rate: self.rates[t],
                weight_decay: self.task.optimizer.weight_decay(),
            }],
            indices: self.batches[t].clone(),
            weights: match &self.weights {
                None => BatchWeights::Mean,
                Some(w) => BatchWeights::Each(w[..self.batches[t].len()].to_vec()),
            },
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: t as u64,
            trained: vec![true; self.net.parameters().len()],
            scalars: Vec::new(),
            extensions: Vec::new(),
        }
    }

    pub fn empty(&self) -> MemoryRun {
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
        MemoryRun {
            parameters: specs(self.net.parameters(), Role::Parameter),
            buffers: specs(self.net.buffers(), Role::Buffer),
            ..MemoryRun::default()
        }
    }

    pub fn recorded<'a>(&'a self, run: &'a MemoryRun) -> RecordedRun<'a> {
        let rule = self.task.optimizer.clone();
        RecordedRun::new(run, self.net.clone(), self.data.as_ref(), rule, SEED).unwrap()
    }

    /// Trains with the steps that Tasks are trained with, with changed weights, and records every step.
    pub fn train(&self, change: &Change<'_>) -> MemoryRun {
        let (mut out, empty) = (self.empty(), self.empty());
        let run = self.recorded(&empty);
        let stepper = Stepper::new(self.net.as_ref(), &self.task.optimizer);
        let rule = &self.task.optimizer;
        let mut state = ModelState {
            parameters: self.start.clone(),
            buffers: self.net.initial_buffers(),
            optimizer: vec![0.0; rule.state_values(self.start.len())],
        };
        for t in 0..self.batches.len() {
            let meta = self.meta(t);
            let mut weights = weights_of(&meta).unwrap();
            change(&meta, &mut weights);
            let batch = run
                .batches(&meta, DType::F64, &Device::Cpu)
                .unwrap()
                .remove(0);
            let parts = [WeightedBatch { batch, weights }];
            let gradient = stepper
                .gradient(&state, &parts, run.draws(meta.step))
                .unwrap();
            out.steps.push(RecordedStep {
                meta: meta.clone(),
                parameters: state.parameters.clone().into(),
                buffers_after: gradient.buffers.clone().into(),
                key: (t == 0).then(|| RecordedKey {
                    buffers_before: state.buffers.clone().into(),
                    optimizer: Vec::new(),
                }),
            });
            stepper
                .update(&run.settings(&meta), gradient, &mut state)
                .unwrap();
        }
        out.end = Some(RecordedEnd {
            step: self.batches.len() as u64,
            parameters: state.parameters,
            buffers: state.buffers,
            optimizer: None,
        });
        out
    }

    pub fn engine(&self) -> KernelEngine {
        KernelEngine::new(self.net.clone(), DType::F64).unwrap()
    }

    pub fn query(&self, run: &MemoryRun) -> QueryGradient {
        Query::default()
            .gradient(run, &mut self.engine(), self.data.as_ref())
            .unwrap()
    }
}

/// Multiplies the weights of `example` by `factor` within some steps.
pub fn scaled(
    example: u64,
    factor: f64,
    within: std::ops::Range<u64>,
) -> impl Fn(&StepMeta, &mut [f64]) {
    move |meta, weights| {
        for (w, &i) in weights.iter_mut().zip(&meta.indices) {
            if i == example && within.contains(&meta.step) {
                *w *= factor;
            }
        }
    }
}

pub fn end(run: &MemoryRun) -> &[f64] {
    &run.end.as_ref().unwrap().parameters
}

pub fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
