//! The tiny runs of the matrix: data, task, steps, recording, and training with a changed weight of one example.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::batches::LossWeights;
use hindcast_model::data::{AugmentSpec, DataSet, from_tensors};
use hindcast_model::net::Net;
use hindcast_model::objective::{Draws, Objective, Split};
use hindcast_model::random::{Purpose, Stream};
use hindcast_model::task::Task;
use hindcast_model::train::{ModelState, StepRecord, Stepper, WeightedBatch};
use hindcast_model::update::{Blocks, GroupHyper, Settings};
use hindcast_recorder::Recorder;

use super::cases::{Case, Circumstance};
use crate::mirror::Mirror;
use hindcast_analyzer::{AnalysisError, Result};

/// Number of training examples; each occurs in a batch.
pub(super) const TRAIN: u64 = 8;
const VALIDATION: u64 = 5;
const SIDE: usize = 6;
const SEED: u64 = 11;
/// Steps per segment, so few that a run has several segments.
const SEGMENT: u32 = 3;

/// A run that can be trained repeatedly.
pub(super) struct Run {
    pub net: Arc<Net>,
    pub task: Task,
    pub data: Box<dyn DataSet>,
    /// Where the run is trained.
    pub device: Device,
    steps: Vec<Planned>,
    circumstance: Circumstance,
}

/// One step's batch.
struct Planned {
    indices: Vec<u64>,
    micro_batches: Vec<usize>,
    /// Replaces the weights of the loss.
    weights: Option<Vec<f64>>,
}

/// An example whose weight is multiplied by a factor within some steps.
#[derive(Clone)]
pub(super) struct Changed {
    pub example: u64,
    pub factor: f64,
    pub within: Range<u64>,
}

/// A pull towards the recorded run: each step begins at `recorded + discount · (state − recorded)`.
pub(super) struct Pull {
    pub discount: f64,
    /// The recorded state before each step.
    pub recorded: Vec<ModelState<f64>>,
}

impl Pull {
    /// The state from which step `t` begins.
    fn begin(&self, t: usize, state: &mut ModelState<f64>) {
        let recorded = &self.recorded[t];
        for (values, recorded) in [
            (&mut state.parameters, &recorded.parameters),
            (&mut state.optimizer, &recorded.optimizer),
            (&mut state.buffers, &recorded.buffers),
        ] {
            for (x, recorded) in values.iter_mut().zip(recorded) {
                *x = recorded + self.discount * (*x - recorded);
            }
        }
    }
}

impl Run {
    pub fn new(case: &Case, device: &Device) -> Result<Run> {
        let invalid =
            |e: &dyn std::fmt::Display| AnalysisError::other(format!("row `{}`: {e}", case.name));
        let text = format!(
            "name = \"exactness\"\n[data]\nsource = \"digits\"\n[model]\ninput = [1, {SIDE}, {SIDE}]\nlayers = {}\n\
             [loss]\nkind = \"{}\"\n{}\n[optimizer]\n{}\n[schedule]\nkind = \"constant\"\nlearning_rate = {}\n\
             [train]\nepochs = 1\nbatch = 4\nseed = {SEED}\ndtype = \"f64\"\n",
            case.layers, case.loss, case.loss_keys, case.optimizer, case.learning_rate
        );
        let task = Task::from_toml(&text).map_err(|e| invalid(&e))?;
        let net = Net::new(&task.model, &task.loss).map_err(|e| invalid(&e))?;
        let data = data(case).map_err(AnalysisError::candle("making examples"))??;
        Ok(Run {
            net: Arc::new(net),
            task,
            data,
            device: device.clone(),
            steps: steps(case.circumstance),
            circumstance: case.circumstance,
        })
    }

    /// Number of steps, T.
    pub fn length(&self) -> u64 {
        self.steps.len() as u64
    }

    /// The state before each step.
    pub fn states(&self) -> Result<Vec<ModelState<f64>>> {
        let mut states = Vec::new();
        self.train(None, None, &mut |step| {
            states.push(step.before.clone());
            Ok(())
        })?;
        Ok(states)
    }

    /// Trains from the start, and calls `observe` in every step between gradient and update. A step that `pull` moves is
    /// observed before the pull.
    pub fn train(
        &self,
        changed: Option<&Changed>,
        pull: Option<&Pull>,
        observe: &mut dyn FnMut(&StepRecord<'_, f64>) -> Result<()>,
    ) -> Result<ModelState<f64>> {
        let rule = &self.task.optimizer;
        let stepper = Stepper::with_blocks(self.net.as_ref(), rule, self.blocks());
        let parameters = self.net.initial_parameters::<f64>(SEED);
        let mut state = ModelState {
            optimizer: rule.initial_state(parameters.len()),
            parameters,
            buffers: self.net.initial_buffers(),
        };
        for (t, planned) in (0..).zip(&self.steps) {
            let (weights, parts) = self.parts(t, planned, changed)?;
            let draws = Draws {
                seed: SEED,
                step: t,
            };
            let before = pull.map(|pull| {
                let before = state.clone();
                pull.begin(t as usize, &mut state);
                before
            });
            let gradient = stepper.gradient(&state, &parts, draws)?;
            let rate = self.task.schedule.rate(hindcast_model::schedule::Position {
                step: t,
                epoch: 0,
                steps: self.length(),
            });
            let mut settings = Settings::uniform(rule, t, rate, stepper.blocks().tensors());
            settings.trained.clone_from(&gradient.trained);
            self.vary(t, &mut settings);
            observe(&StepRecord {
                step: t,
                epoch: 0,
                indices: &planned.indices,
                weights: &weights,
                micro_batches: &planned.micro_batches,
                settings: &settings,
                loss: gradient.loss,
                per_example: &gradient.per_example,
                before: before.as_ref().unwrap_or(&state),
                buffers: &gradient.buffers,
                gradient: &gradient.gradient,
            })?;
            stepper.update(&settings, gradient, &mut state)?;
        }
        Ok(state)
    }

    /// The group of each parameter tensor.
    fn groups(&self) -> Vec<u16> {
        let tensors = self.net.parameters().len();
        let second = |i: usize| self.circumstance == Circumstance::Groups && i + 2 >= tensors;
        (0..tensors).map(|i| u16::from(second(i))).collect()
    }

    fn blocks(&self) -> Blocks {
        let shapes = self.net.parameters().iter().map(|def| &def.shape);
        Blocks::of_shapes(shapes.zip(self.groups().into_iter().map(usize::from)))
    }

    /// Changes the settings of step `t` as the circumstance says.
    fn vary(&self, t: u64, settings: &mut Settings) {
        if self.circumstance == Circumstance::Groups {
            let first = settings.groups[0];
            settings.groups.push(GroupHyper {
                learning_rate: 0.5 * first.learning_rate,
                weight_decay: first.weight_decay + 0.07,
            });
        }
        if self.circumstance == Circumstance::Partial && t % 2 == 1 {
            settings.trained[1] = false;
        }
    }

    fn parts(
        &self,
        t: u64,
        planned: &Planned,
        changed: Option<&Changed>,
    ) -> Result<(LossWeights, Vec<WeightedBatch>)> {
        let draws = Draws {
            seed: SEED,
            step: t,
        };
        let lengths = match planned.micro_batches.as_slice() {
            [] => vec![planned.indices.len()],
            some => some.to_vec(),
        };
        let mut rest = planned.indices.as_slice();
        let mut batches = Vec::new();
        for n in lengths {
            let (here, after) = rest.split_at(n);
            rest = after;
            batches.push(
                self.data
                    .batch(Split::Train, here, Some(draws), DType::F64, &self.device)
                    .map_err(AnalysisError::from)?,
            );
        }
        let weights = match &planned.weights {
            Some(each) => LossWeights::Each(each.clone()),
            None => LossWeights::of_parts(&self.task.loss, &batches)
                .map_err(AnalysisError::candle("weighting a batch"))?,
        };
        let mut values = weights.values(planned.indices.len()).into_iter();
        let parts = batches
            .into_iter()
            .map(|batch| {
                let weights = batch
                    .indices
                    .iter()
                    .zip(values.by_ref())
                    .map(|(&i, w)| match changed {
                        Some(c) if c.example == i && c.within.contains(&t) => w * c.factor,
                        _ => w,
                    })
                    .collect();
                WeightedBatch { batch, weights }
            })
            .collect();
        Ok((weights, parts))
    }

    /// Trains while recording, closes the trace and opens it again.
    pub fn record(&self) -> Result<Trace> {
        let storage = Arc::new(MemStorage::new());
        let mut recorder: Option<(Recorder, Mirror)> = None;
        let last = self.train(None, None, &mut |step| {
            let (recorder, mirror) = match &mut recorder {
                Some(both) => both,
                none => {
                    let mirror = Mirror::new(&self.task, &self.net, step.before).map_err(failed)?;
                    let rule = self.task.optimizer.to_toml().map_err(failed)?;
                    let builder = Recorder::builder_on(storage.clone(), "memory")
                        .seed(SEED)
                        .segment_steps(SEGMENT)
                        .rule_text(rule);
                    let mut groups = self.groups().into_iter();
                    // The parameters come first.
                    let named = mirror
                        .named()
                        .into_iter()
                        .map(|tensor| match groups.next() {
                            Some(group) => tensor.group(group),
                            None => tensor,
                        });
                    let made = builder.create_from(named.collect()).map_err(failed)?;
                    none.insert((made, mirror))
                }
            };
            mirror.record(recorder, step).map_err(failed)
        })?;
        if let Some((recorder, mirror)) = recorder {
            mirror.copy_state(&last, &last.buffers).map_err(failed)?;
            recorder.finish().map_err(failed)?;
        }
        Ok(Trace::open_storage(storage)?)
    }
}

fn failed(error: impl std::fmt::Display) -> AnalysisError {
    AnalysisError::other(format!("recording: {error}"))
}

/// Batches of four of the eight examples. Every example occurs at least once.
fn steps(circumstance: Circumstance) -> Vec<Planned> {
    let mut out: Vec<Planned> = [[0u64, 5, 2, 7], [3, 1, 6, 4], [7, 2, 3, 0], [4, 6, 5, 1]]
        .into_iter()
        .map(|indices| Planned {
            indices: indices.to_vec(),
            micro_batches: Vec::new(),
            weights: None,
        })
        .collect();
    for (t, step) in out.iter_mut().enumerate() {
        match circumstance {
            Circumstance::ShortBatch if t == 3 => step.indices.truncate(2),
            Circumstance::Duplicate if t % 2 == 0 => step.indices[3] = step.indices[0],
            Circumstance::Weights => {
                step.weights = Some(
                    (0..4)
                        .map(|k| 0.1 + 0.15 * f64::from(k + t as i32 % 2))
                        .collect(),
                );
            }
            Circumstance::MicroBatches => step.micro_batches = vec![1 + t % 2, 3 - t % 2],
            _ => {}
        }
    }
    out
}

/// The steps that a row scores.
pub(super) fn window(circumstance: Circumstance, length: u64) -> Range<u64> {
    match circumstance {
        Circumstance::Window => 1..length - 1,
        _ => 0..length,
    }
}

fn data(case: &Case) -> candle_core::Result<Result<Box<dyn DataSet>>> {
    let cpu = &Device::Cpu;
    let split = |number: u64, n: u64| -> candle_core::Result<(Tensor, Tensor)> {
        let n = n as usize;
        let mut stream = Stream::of_run(number, Purpose::Synthetic(0));
        let pixels: Vec<f64> = (0..n * SIDE * SIDE).map(|_| stream.normal()).collect();
        let inputs = Tensor::from_vec(pixels, (n, 1, SIDE, SIDE), cpu)?;
        let targets = match case.loss {
            "cross-entropy" => {
                let classes: Vec<u32> = (0..n).map(|i| (i * 5 / 2 % 3) as u32).collect();
                Tensor::from_vec(classes, n, cpu)?
            }
            "binary-cross-entropy" => {
                let shares: Vec<f64> = (0..n).map(|_| stream.uniform()).collect();
                Tensor::from_vec(shares, (n, 1), cpu)?
            }
            _ => {
                let values: Vec<f64> = (0..2 * n).map(|_| stream.normal()).collect();
                Tensor::from_vec(values, (n, 2), cpu)?
            }
        };
        Ok((inputs, targets))
    };
    let (train, validation) = (split(1, TRAIN)?, split(2, VALIDATION)?);
    let augment = (case.circumstance == Circumstance::Augmentation).then_some(AugmentSpec {
        pad_crop: 1,
        flip: true,
    });
    Ok(from_tensors(
        (&train.0, &train.1),
        Some((&validation.0, &validation.1)),
        None,
        &[],
        augment.as_ref(),
    )
    .map_err(AnalysisError::from))
}
